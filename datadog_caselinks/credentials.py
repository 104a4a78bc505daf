"""Who asks: API and application key, or a bearer token. Secrets are validated and kept out of sight."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NoReturn

from attrs import field, frozen

from datadog_caselinks.errors import ConfigurationError

_REDACTED: Final = b"[redacted]"


def _check_secret(name: str, value: object) -> str:
    """Refuse what cannot be a header value; key formats change, so nothing more is asked of them."""
    if not isinstance(value, str):
        raise ConfigurationError(f"{name} must be a string, not {type(value).__name__}")
    if not value:
        raise ConfigurationError(f"{name} is empty")
    if not value.isprintable() or " " in value or not value.isascii():
        raise ConfigurationError(
            f"{name} contains white space, a control character or a character outside ASCII: "
            "was it copied with a line end or a quotation mark?"
        )
    return value


def _secret(instance: object, attribute: Any, value: str) -> None:
    _check_secret(attribute.name, value)


class _Unpicklable:
    """Pickling a secret would write it to a file or a queue, so it is refused."""

    __slots__ = ()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} holds secrets and does not pickle; "
            "read the credentials anew where they are needed"
        )


@frozen
class AuthHeaders(_Unpicklable):
    """The headers that authenticate one request, and the means to keep their values out of texts."""

    headers: dict[str, str] = field(repr=False)
    secrets: tuple[bytes, ...] = field(repr=False)

    def redact(self, body: bytes) -> bytes:
        """``body`` with each secret replaced: a server or proxy may echo what it was sent."""
        for secret in self.secrets:
            body = body.replace(secret, _REDACTED)
        return body


@frozen
class ApiKeys(_Unpicklable):
    """An API key and an application key, sent as ``DD-API-KEY`` and ``DD-APPLICATION-KEY``.

    Raises :class:`ConfigurationError` for a key that is empty or holds white space or control
    characters. Neither key shows in ``repr``, and an instance does not pickle.
    """

    api_key: str = field(kw_only=True, repr=False, validator=_secret)
    app_key: str = field(kw_only=True, repr=False, validator=_secret)
    _auth: AuthHeaders = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        headers = {"DD-API-KEY": self.api_key, "DD-APPLICATION-KEY": self.app_key}
        object.__setattr__(
            self, "_auth", AuthHeaders(headers, (self.api_key.encode(), self.app_key.encode()))
        )

    async def authenticate(self) -> AuthHeaders:
        """The headers for one request."""
        return self._auth


@frozen
class BearerToken(_Unpicklable):
    """An OAuth access token, or a personal or service access token, sent as ``Authorization: Bearer``.

    ``token`` is the token, or an async callable that returns the one to use. The callable is awaited
    before every attempt, so that it can refresh a token that ran out; let it cache.

    Raises :class:`ConfigurationError` for a token that is empty or holds white space or control
    characters: at once for a string, by the call that asked for it otherwise. The token never shows
    in ``repr``, and an instance does not pickle.
    """

    token: str | Callable[[], Awaitable[str]] = field(repr=False)

    def __attrs_post_init__(self) -> None:
        if not callable(self.token):
            _check_secret("token", self.token)

    async def authenticate(self) -> AuthHeaders:
        """The headers for one request."""
        token = self.token if isinstance(self.token, str) else await self._fetch(self.token)
        return AuthHeaders({"Authorization": f"Bearer {token}"}, (token.encode(),))

    @staticmethod
    async def _fetch(source: Callable[[], Awaitable[str]]) -> str:
        try:
            token = await source()
        except Exception as error:
            raise ConfigurationError(f"the token callable raised {type(error).__name__}") from error
        return _check_secret("the token that the callable returned", token)


Credentials = ApiKeys | BearerToken
"""What a client takes as credentials."""


def credentials_from_env(environ: Mapping[str, str] | None = None) -> Credentials:
    """Read the credentials from ``DD_API_KEY`` and ``DD_APP_KEY``, or from ``DD_BEARER_TOKEN``.

    ``DD_API_KEY`` alone beside a token is taken for the Datadog Agent's and ignored.
    Raises :class:`ConfigurationError` that names the variable that is missing, or malformed, or one
    too many. ``environ`` stands in for ``os.environ``.
    """
    env = os.environ if environ is None else environ
    api_key, app_key, token = (env.get(name, "") for name in ("DD_API_KEY", "DD_APP_KEY", "DD_BEARER_TOKEN"))
    if token and api_key and app_key:
        raise ConfigurationError(
            "DD_BEARER_TOKEN is set, and so are DD_API_KEY and DD_APP_KEY: unset the ones not to be used"
        )
    if token:
        return BearerToken(_check_secret("DD_BEARER_TOKEN", token))
    if api_key and app_key:
        _check_secret("DD_API_KEY", api_key)
        _check_secret("DD_APP_KEY", app_key)
        return ApiKeys(api_key=api_key, app_key=app_key)
    missing = [name for name, value in (("DD_API_KEY", api_key), ("DD_APP_KEY", app_key)) if not value]
    raise ConfigurationError(
        f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set. "
        "Set DD_API_KEY and DD_APP_KEY, or DD_BEARER_TOKEN; nothing was sent"
    )
