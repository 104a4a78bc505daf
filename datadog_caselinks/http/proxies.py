"""The URL of a proxy, checked and without its login."""

from __future__ import annotations

from base64 import b64encode
from typing import Final

from yarl import URL

from datadog_caselinks.values.base_errors import ParameterError
from datadog_caselinks.values.messages import is_in_quotes

_RESERVED: Final = frozenset("/?#")


def split_proxy(proxy: object, *, name: str = "proxy") -> tuple[URL | None, dict[str, str]]:
    """Return the URL of the proxy without its login, which errors would show, and its headers.

    ``None`` and an empty text mean no proxy, as they come from a variable that is not set.

    Args:
        proxy: The URL of the proxy.
        name: The name of the parameter or variable that it comes from.

    Raises:
        ParameterError: It is not the URL of an HTTP or HTTPS proxy. It is not quoted, as it may contain a
            password.
    """
    if proxy is None:
        return None, {}
    problem: str | None = None
    url = URL()
    if isinstance(proxy, str | URL):
        text = str(proxy).strip()
        if not text:
            return None, {}
        problem = _problem(text)
        if not problem:
            url = _parsed(text)
    else:
        problem = f", not of the type {type(proxy).__name__}"
    if problem or url.scheme not in ("http", "https") or not url.host:
        raise ParameterError(f"{name} must be a URL such as http://proxy.example:3128{problem or ''}")
    login = f"{url.user or ''}:{url.password or ''}".encode()
    headers = {} if login == b":" else {"Proxy-Authorization": f"Basic {b64encode(login).decode()}"}
    return url.with_user(None), headers


def _problem(text: str) -> str | None:
    """Return what is wrong with the URL of a proxy, in words that do not quote it; ``None`` if unknown."""
    scheme, separator, rest = text.partition("://")
    if is_in_quotes(text):
        return ": remove the quotation marks"
    if not separator:
        return ": it needs http:// before the host"
    if scheme.lower().startswith("socks"):
        return ": SOCKS proxies are not supported"
    if _RESERVED & set(rest.rpartition("@")[0]):
        return ": in its user name and password, write / ? # as %2F %3F %23"
    return None


def _parsed(text: str) -> URL:
    try:
        return URL(text)
    except ValueError:
        return URL()
