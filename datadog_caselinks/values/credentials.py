"""Credentials: an API key and an application key, or a bearer token. Secrets are never shown."""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final, NoReturn, Self
from urllib.parse import unquote

from attrs import field, frozen

from datadog_caselinks.isolation import is_interruption
from datadog_caselinks.values.base_errors import ConfigurationError, ParameterError
from datadog_caselinks.values.messages import is_in_quotes

_REDACTED: Final = "[redacted]"

TOKEN_VARIABLES: Final = (
    "DD_BEARER_TOKEN",
    "DATADOG_BEARER_TOKEN",
    "DD_ACCESS_TOKEN",
    "DATADOG_ACCESS_TOKEN",
)
"""The environment variables that may contain a token: those of Terraform and of Datadog's own command."""

_ESCAPES: Final = re.compile(r"[\\&%]")
_ESCAPED_IN_JSON: Final = re.compile(r"\\+(?:u00([0-9a-fA-F]{2}))?")


def _problem(secret: object) -> str | None:
    """Return why ``secret`` cannot be the value of a header, or ``None`` if it can.

    The format is not checked, because Datadog may change it. The problem is returned instead of raised: some
    error trackers store the local variables of each frame, and here one of them is the secret.
    """
    if not isinstance(secret, str):
        return f"must be a string, not {type(secret).__name__}"
    if not secret:
        return "is empty"
    if not (secret.isascii() and secret.isprintable()) or " " in secret:
        return (
            "contains white space, a control character or a character outside ASCII: "
            "was it copied with a line end or a typographic quotation mark?"
        )
    if is_in_quotes(secret):
        return "is in quotation marks: remove them (docker run --env-file, for one, keeps them)"
    return None


def _validate(_: object, attribute: Any, value: str) -> None:
    if problem := _problem(value):
        raise ConfigurationError(f"{attribute.name} {problem}")


class _Unpicklable:
    """An object with secrets: pickling would write them to a file or a queue. A copy is the same object."""

    __slots__ = ()

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _: object) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} contains secrets and cannot be pickled: "
            "read the credentials again in the other process"
        )


def _longest_first(secrets: Collection[str]) -> list[str]:
    """Sort ``secrets`` in the order in which to redact them: one may be a part of another."""
    return sorted(secrets, key=len, reverse=True)


@frozen(eq=False)
class AuthHeaders(_Unpicklable):
    """The headers that authenticate a request, and a method that redacts their secrets in text."""

    headers: dict[str, str] = field(repr=False)
    secrets: Collection[str] = field(repr=False, converter=_longest_first)

    def redact(self, text: str) -> str:
        """Return ``text`` with each secret replaced by ``[redacted]``: servers and proxies may echo requests.

        Secrets that are escaped for JSON, HTML or a URL are found too. The result is then unescaped.
        """
        text = _without(self.secrets, text)
        if not _ESCAPES.search(text):
            return text
        plain = _unescaped(text)
        unescaped = filter(None, map(_unescaped, self.secrets))
        redacted = _without(_longest_first([*self.secrets, *unescaped]), plain)
        return text if redacted == plain else redacted


def _without(secrets: Collection[str], text: str) -> str:
    for secret in secrets:
        text = text.replace(secret, _REDACTED)
    return text


def _unescaped(text: str) -> str:
    """Return ``text`` without the escapes of JSON (nested to any depth), of a URL and of HTML."""
    import html  # imported lazily: it contains the names of two thousand characters

    from_json = _ESCAPED_IN_JSON.sub(lambda found: chr(int(found[1], 16)) if found[1] else "", text)
    return html.unescape(unquote(from_json))


class _Authenticating(_Unpicklable):
    """Credentials that keep the headers of requests. These are not an attribute, so ``asdict`` omits them."""

    __slots__ = ("_auth",)

    _auth: AuthHeaders


@frozen
class ApiKeys(_Authenticating):
    """An API key and an application key, sent as ``DD-API-KEY`` and ``DD-APPLICATION-KEY``.

    ``repr`` does not show the keys, and an instance cannot be pickled.

    ``api_key``
        The API key.
    ``app_key``
        The application key.

    Raises:
        ConfigurationError: A key is not a string, is empty, is in quotation marks, or contains white space,
            control characters or characters outside ASCII.
    """

    api_key: str = field(kw_only=True, repr=False, validator=_validate)
    app_key: str = field(kw_only=True, repr=False, validator=_validate)

    def __attrs_post_init__(self) -> None:
        headers = {"DD-API-KEY": self.api_key, "DD-APPLICATION-KEY": self.app_key}
        object.__setattr__(self, "_auth", AuthHeaders(headers, (self.api_key, self.app_key)))

    async def authenticate(self) -> AuthHeaders:
        """Return the headers for one request."""
        return self._auth


@frozen
class BearerToken(_Authenticating):
    """An OAuth, personal or service access token, sent as ``Authorization: Bearer``.

    ``repr`` does not show the token, and an instance cannot be pickled.

    ``token``
        The token, or an async callable that returns it. The callable is awaited before every attempt, so it
        can refresh an expired token, and should cache a valid one. The client does not retry it.

    Raises:
        ConfigurationError: The token is not a string, is empty, is in quotation marks, or contains white
            space, control characters or characters outside ASCII. For a callable, the call that needed the
            token raises it, also if the callable itself raises.
    """

    token: str | Callable[[], Awaitable[str]] = field(repr=False)

    def __attrs_post_init__(self) -> None:
        if callable(self.token):
            return
        if problem := _problem(self.token):
            raise ConfigurationError(f"token {problem}")
        object.__setattr__(self, "_auth", _bearer(self.token))

    async def authenticate(self) -> AuthHeaders:
        """Return the headers for one request.

        Raises:
            ConfigurationError: The callable raised, or did not return a usable token.
        """
        if not callable(self.token):
            return self._auth
        auth = await _fetch(self.token)
        if isinstance(auth, str):
            raise ConfigurationError(f"the token that the callable returned {auth}")
        return auth


def _bearer(token: str) -> AuthHeaders:
    return AuthHeaders({"Authorization": f"Bearer {token}"}, (token,))


async def _fetch(source: Callable[[], Awaitable[str]]) -> AuthHeaders | str:
    """Return the headers with the token that ``source`` returns, or what is wrong with the token."""
    token: object
    try:
        token = source()
        if not isinstance(token, Awaitable):
            return "is not awaitable: make the callable async"
        token = await token
    except BaseException as error:
        if is_interruption(error):
            raise
        raise ConfigurationError(f"the token callable raised {type(error).__name__}") from error
    return _problem(token) or _bearer(str(token))


Credentials = ApiKeys | BearerToken
"""The credentials that a client accepts."""


def require_credentials(credentials: object) -> None:
    """Check that ``credentials`` are credentials.

    Raises:
        ParameterError: They are something else. The message names the type only, since it may be a key.
    """
    if not isinstance(credentials, Credentials):
        raise ParameterError(
            "credentials must be ApiKeys(api_key=…, app_key=…) or BearerToken(…), "
            f"not of the type {type(credentials).__name__}"
        )


def credential_variables() -> tuple[str, ...]:
    """Return the names of the environment variables with the credentials: of a token, or of both keys.

    Two keys in the same spelling go first: an API key alone usually belongs to the Datadog Agent, so it may
    be of another organisation than the keys in the other spelling.

    Raises:
        ConfigurationError: A variable is missing, or more are set than can be used.
    """
    pairs = [[f"{prefix}_API_KEY", f"{prefix}_APP_KEY"] for prefix in ("DD", "DATADOG")]
    chosen = next((pair for pair in pairs if all(map(os.environ.get, pair))), None)
    keys = chosen or [next(filter(os.environ.get, names), "") for names in zip(*pairs, strict=True)]
    tokens = list(filter(os.environ.get, TOKEN_VARIABLES))
    if keys[1] and _is_access_token(keys[1]):
        tokens.append(keys.pop())  # Datadog accepts a token in place of an application key
    elif tokens and all(keys):
        raise ConfigurationError(
            f"{tokens[0]}, {' and '.join(keys)} are all set: unset those that you do not use"
        )
    if tokens:
        if len(set(map(os.environ.get, tokens))) > 1:
            raise ConfigurationError(
                f"{' and '.join(tokens)} are different tokens: unset those that you do not use"
            )
        return (tokens[0],)
    missing = [name for name, found in zip(pairs[0], keys, strict=True) if not found]
    if missing:
        raise ConfigurationError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set: "
            "set DD_API_KEY and DD_APP_KEY, or DD_BEARER_TOKEN"
        )
    return tuple(keys)


def credentials_from_env() -> Credentials:
    """Return the credentials from ``DD_API_KEY`` and ``DD_APP_KEY``, or from ``DD_BEARER_TOKEN``.

    The spellings of Datadog's other tools are read too: ``DATADOG_API_KEY`` and ``DATADOG_APP_KEY``,
    ``DATADOG_BEARER_TOKEN``, ``DD_ACCESS_TOKEN``, and an access token (``ddpat_…``, ``ddsat_…``) in place of
    the application key, which then needs no API key. A single key is ignored if there is a token:
    ``DD_API_KEY`` alone usually belongs to the Datadog Agent.

    Raises:
        ConfigurationError: A variable is missing or malformed, or both keys and a token are set. The message
            names the variables, and shows no values.
    """
    names = credential_variables()
    for name in names:
        if problem := _problem(os.environ[name]):
            raise ConfigurationError(f"{name} {problem}")
    if len(names) == 1:
        return BearerToken(os.environ[names[0]])
    return ApiKeys(api_key=os.environ[names[0]], app_key=os.environ[names[1]])


def _is_access_token(name: str) -> bool:
    """Return whether the variable ``name`` contains a personal or service access token."""
    return os.environ[name].strip().lstrip("\"'`").startswith(("ddpat_", "ddsat_"))
