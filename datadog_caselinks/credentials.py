"""Who asks: API and application key, or a bearer token. Secrets are validated and kept out of sight."""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final, NoReturn, Self
from urllib.parse import unquote

from attrs import field, frozen

from datadog_caselinks.base_errors import ConfigurationError

_REDACTED: Final = "[redacted]"

_ESCAPES: Final = re.compile(r"[\\&%]")
_ESCAPED_IN_JSON: Final = re.compile(r"\\+(?:u00([0-9a-fA-F]{2}))?")
_LAYERS: Final = 3
"""How often a text is unescaped: an API's error may quote another's, which quotes what it was sent."""


def _flaw(secret: object) -> str | None:
    """Why ``secret`` cannot be a header's value; formats change, so nothing more is asked of it.

    It is told and not raised: a traceback may be stored with the local variables of each frame, and the
    secret is one here. (Of a constructor it is an argument, which cannot be hidden.)
    """
    if not isinstance(secret, str):
        return f"must be a string, not {type(secret).__name__}"
    if not secret:
        return "is empty"
    if not (secret.isascii() and secret.isprintable()) or " " in secret:
        return (
            "contains white space, a control character or a character outside ASCII: "
            "was it copied with a line end or a quotation mark?"
        )
    return None


def _is_secret(_: object, attribute: Any, value: str) -> None:
    if flaw := _flaw(value):
        raise ConfigurationError(f"{attribute.name} {flaw}")


class _Unpicklable:
    """Pickling a secret would write it to a file or a queue, so it is refused. A copy is the value itself."""

    __slots__ = ()

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _: object) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} holds secrets and does not pickle; "
            "read the credentials anew where they are needed"
        )


@frozen(eq=False)
class AuthHeaders(_Unpicklable):
    """The headers that authenticate one request, and the means to keep their values out of texts."""

    headers: dict[str, str] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)

    def redact(self, text: str) -> str:
        """``text`` with each secret replaced: a server or proxy may echo what it was sent.

        One may also be escaped there, for JSON, HTML or a URL. What comes back is without escapes then.
        """
        text = _without(self.secrets, text)
        if not _ESCAPES.search(text):
            return text
        meant = _unescaped(text)
        redacted = _without([*self.secrets, *filter(None, map(_unescaped, self.secrets))], meant)
        return text if redacted == meant else redacted


def _without(secrets: Collection[str], text: str) -> str:
    # The longest first: one may be a part of another.
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, _REDACTED)
    return text


def _unescaped(text: str) -> str:
    """``text`` as it is meant, where it stands in a JSON string, in HTML or in a URL, or one in another."""
    import html  # not before it is needed: it knows the names of two thousand characters

    for _ in range(_LAYERS):
        unquoted = _ESCAPED_IN_JSON.sub(lambda found: chr(int(found[1], 16)) if found[1] else "", text)
        text, escaped = html.unescape(unquote(unquoted)), text
        if text == escaped:
            break
    return text


@frozen
class ApiKeys(_Unpicklable):
    """An API key and an application key, sent as ``DD-API-KEY`` and ``DD-APPLICATION-KEY``.

    Raises :class:`ConfigurationError` for a key that is empty or holds white space or control
    characters. Neither key shows in ``repr``, and an instance does not pickle.
    """

    api_key: str = field(kw_only=True, repr=False, validator=_is_secret)
    app_key: str = field(kw_only=True, repr=False, validator=_is_secret)
    _auth: AuthHeaders = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        headers = {"DD-API-KEY": self.api_key, "DD-APPLICATION-KEY": self.app_key}
        object.__setattr__(self, "_auth", AuthHeaders(headers, (self.api_key, self.app_key)))

    async def authenticate(self) -> AuthHeaders:
        """The headers for one request."""
        return self._auth


@frozen
class BearerToken(_Unpicklable):
    """An OAuth access token, or a personal or service access token, sent as ``Authorization: Bearer``.

    ``token`` is the token, or an async callable that returns the one to use. The callable is awaited
    before every attempt, so that it can refresh a token that ran out; let it cache.

    Raises :class:`ConfigurationError` for a token that is empty or holds white space or control
    characters: at once for a string, by the call that asked for it otherwise. So does that call if the
    callable raises; it is not repeated, so what may pass is for the callable to retry. The token never
    shows in ``repr``, and an instance does not pickle.
    """

    token: str | Callable[[], Awaitable[str]] = field(repr=False)

    def __attrs_post_init__(self) -> None:
        if not callable(self.token) and (flaw := _flaw(self.token)):
            raise ConfigurationError(f"token {flaw}")

    async def authenticate(self) -> AuthHeaders:
        """The headers for one request."""
        if isinstance(self.token, str):
            return _bearer(self.token)
        auth = await _fetched(self.token)
        if isinstance(auth, str):
            raise ConfigurationError(f"the token that the callable returned {auth}")
        return auth


def _bearer(token: str) -> AuthHeaders:
    return AuthHeaders({"Authorization": f"Bearer {token}"}, (token,))


async def _fetched(source: Callable[[], Awaitable[str]]) -> AuthHeaders | str:
    """What ``source`` returns, or what is wrong with it."""
    token: object
    try:
        token = source()
        if not isinstance(token, Awaitable):
            return "is no awaitable: make the callable async"
        token = await token
    except Exception as error:
        raise ConfigurationError(f"the token callable raised {type(error).__name__}") from error
    return _flaw(token) or _bearer(str(token))


Credentials = ApiKeys | BearerToken
"""What a client takes as credentials."""


def credentials_from_env() -> Credentials:
    """Read the credentials from ``DD_API_KEY`` and ``DD_APP_KEY``, or from ``DD_BEARER_TOKEN``.

    ``DD_API_KEY`` alone beside a token is taken for the Datadog Agent's and ignored.
    Raises :class:`ConfigurationError` that names the variable that is missing, or malformed, or one
    too many.
    """
    missing = [name for name in ("DD_API_KEY", "DD_APP_KEY") if not os.environ.get(name)]
    if os.environ.get("DD_BEARER_TOKEN"):
        if not missing:
            raise ConfigurationError(
                "DD_BEARER_TOKEN is set, and so are DD_API_KEY and DD_APP_KEY: unset the ones not to be used"
            )
        _require_sound("DD_BEARER_TOKEN")
        return BearerToken(os.environ["DD_BEARER_TOKEN"])
    if missing:
        raise ConfigurationError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set: "
            "set DD_API_KEY and DD_APP_KEY, or DD_BEARER_TOKEN"
        )
    _require_sound("DD_API_KEY")
    _require_sound("DD_APP_KEY")
    return ApiKeys(api_key=os.environ["DD_API_KEY"], app_key=os.environ["DD_APP_KEY"])


def _require_sound(name: str) -> None:
    if flaw := _flaw(os.environ[name]):
        raise ConfigurationError(f"{name} {flaw}")
