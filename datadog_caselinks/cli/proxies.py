"""The proxy that the environment names for a site, as curl reads the same variables."""

from __future__ import annotations

import ipaddress
import os
import re
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from attrs import frozen

from datadog_caselinks.http.proxies import split_proxy
from datadog_caselinks.values.errors import ParameterError
from datadog_caselinks.values.messages import is_in_quotes
from datadog_caselinks.values.sites import Site

_SYSTEM: Final = "the system's settings"


@frozen
class ProxyChoice:
    """Which proxy a site is reached through.

    ``url``
        The URL, or ``None`` for no proxy.
    ``reason``
        The variable that names it; without a proxy why one that is set is not used; or ``None``.
    """

    url: str | None = None
    reason: str | None = None


def proxy_for(site: Site) -> ProxyChoice:
    """Choose the proxy for ``site`` by ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``, in either case.

    A server on loopback never gets a proxy.

    Raises:
        ParameterError: A variable does not name a proxy that can be used. The message names the variable.
    """
    url = urlsplit(site.api_url)
    if url.scheme != "https":
        return ProxyChoice()
    name, value = _first_set("https_proxy") or _first_set("all_proxy") or (_SYSTEM, getproxies().get("https"))
    if not value:
        is_other_set = _first_set("http_proxy")
        return ProxyChoice(reason=is_other_set and f"{is_other_set[0]} is for http only, and not used")
    host, port = url.hostname or "", url.port or 443
    if name == _SYSTEM and proxy_bypass(url.netloc):
        return ProxyChoice(reason=f"{_SYSTEM} exempt {host}")
    if exemption := _first_set("no_proxy"):
        if is_in_quotes(exemption[1]):
            raise ParameterError(f"{exemption[0]} is in quotation marks: remove them")
        if any(_matches(entry, host, port) for entry in re.split(r"[\s,]+", exemption[1])):
            return ProxyChoice(reason=f"{name} is not used, because {exemption[0]} exempts {host}")
    if "://" not in value and not is_in_quotes(value):
        value = f"http://{value}"
    try:
        split_proxy(value, name=name)
    except ParameterError as error:
        raise ParameterError(f"{error}. To use no proxy, add {host} to NO_PROXY") from None
    return ProxyChoice(value, name)


def _first_set(variable: str) -> tuple[str, str] | None:
    """Return the name and value of the variable. Lower case goes first; an empty one does not count."""
    names = sorted((name for name in os.environ if name.lower() == variable), reverse=True)
    values = ((name, os.environ[name].strip()) for name in names)
    return next(((name, value) for name, value in values if value), None)


def _matches(entry: str, host: str, port: int) -> bool:
    """Return whether ``entry`` of NO_PROXY names the host: ``*``, a domain, an address or a block of them."""
    if entry == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        pass  # not an address on both sides
    name, separator, digits = entry.rpartition(":")
    if not separator or not digits.isdecimal():
        name, digits = entry, str(port)
    domain = name.strip("[]").removeprefix("*").strip(".").lower()
    return int(digits) == port and bool(domain) and f".{host}".endswith(f".{domain}")
