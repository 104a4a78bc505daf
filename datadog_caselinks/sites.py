"""Where Datadog is: the nine sites, or a base URL of one's own. Knows no HTTP, does no I/O."""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from typing import ClassVar, Final
from urllib.parse import SplitResult, urlsplit

from attrs import frozen

from datadog_caselinks.base_errors import ConfigurationError
from datadog_caselinks.messages import one_line

# A first label that Datadog itself gives to its sites: "us5" is one, "us9" would be one.
# Any other first label before a site's domain is an organisation's own subdomain.
_SITE_LABEL: Final = re.compile(r"(?:[a-z]{2}\d|gov)")

_LABEL: Final = r"(?!-)[a-z0-9_-]{1,63}(?<!-)"
_HOST_NAME: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")


@frozen
class Site:
    """One Datadog site: its ``name`` and the ``api_url`` that requests go to, without a slash at its end.

    The nine sites are constants, ``Site.US1`` to ``Site.US2_FED``. :meth:`parse` turns what stands in
    ``DD_SITE`` or in the address bar into one of them, or a base URL of your own into a new one.
    """

    name: str
    api_url: str

    @property
    def web_url(self) -> str | None:
        """Where people open it in a browser; ``None`` for a base URL of your own."""
        domain = next((domain for domain, site in SITES.items() if site == self), None)
        if domain is None:
            return None
        return f"https://{'' if domain.count('.') > 1 else 'app.'}{domain}"

    US1: ClassVar[Site]
    US3: ClassVar[Site]
    US5: ClassVar[Site]
    EU1: ClassVar[Site]
    AP1: ClassVar[Site]
    AP2: ClassVar[Site]
    UK1: ClassVar[Site]
    US1_FED: ClassVar[Site]
    US2_FED: ClassVar[Site]

    @classmethod
    def parse(cls, text: str) -> Site:
        """Find the site that ``text`` means.

        ``text`` is a site's domain (``datadoghq.eu``), its API or web host (``api.us5.datadoghq.com``,
        ``acme.datadoghq.com``), its name (``EU1``), any address seen in the browser
        (``https://us3.datadoghq.com/cases``), or the base URL of a server of your own: ``https``,
        or ``http`` where it is on loopback.

        Raises :class:`ConfigurationError` for anything else. It names the nine sites and the nearest
        one; a host that only looks like Datadog's is refused, since the keys would be sent there.
        """
        given = text.strip()
        for site in SITES.values():
            if given.upper().replace("_", "-") == site.name:
                return site
        try:
            url = urlsplit(given if "://" in given else f"//{given}")
            host, port = (url.hostname or "").removesuffix("."), url.port
        except ValueError as error:
            reason = "" if "@" in given else f": {one_line(str(error), limit=100)}"
            raise ConfigurationError(f"{_shown(given)} is no site and no URL{reason}") from None
        if "@" in url.netloc:
            raise ConfigurationError("the site carries a user name or password: leave it out of the URL")
        if known := _site_of_host(host):
            return known
        if not (given.isascii() and given.isprintable()) or set(given) & set(' \\"<>'):
            raise ConfigurationError(f"{_shown(given)} is no Datadog site: no URL has such characters")
        if not url.scheme or _pretends_to_be_datadog(host):
            raise _unknown(given, host)
        _check_base_url(given, url, host)
        authority = (f"[{host}]" if ":" in host else host) + (f":{port}" if port is not None else "")
        return cls(host, f"{url.scheme}://{authority}{url.path.rstrip('/')}")


Site.US1 = Site("US1", "https://api.datadoghq.com")
Site.US3 = Site("US3", "https://api.us3.datadoghq.com")
Site.US5 = Site("US5", "https://api.us5.datadoghq.com")
Site.EU1 = Site("EU1", "https://api.datadoghq.eu")
Site.AP1 = Site("AP1", "https://api.ap1.datadoghq.com")
Site.AP2 = Site("AP2", "https://api.ap2.datadoghq.com")
Site.UK1 = Site("UK1", "https://api.uk1.datadoghq.com")
Site.US1_FED = Site("US1-FED", "https://api.ddog-gov.com")
Site.US2_FED = Site("US2-FED", "https://api.us2.ddog-gov.com")

SITES: Final = {
    site.api_url.removeprefix("https://api."): site
    for site in (
        Site.US1,
        Site.US3,
        Site.US5,
        Site.EU1,
        Site.AP1,
        Site.AP2,
        Site.UK1,
        Site.US1_FED,
        Site.US2_FED,
    )
}
"""The nine sites by their domain, which is what ``DD_SITE`` holds. Source: Datadog's site page."""


def site_from_env() -> Site:
    """The site that ``DD_SITE`` names; US1 (``datadoghq.com``) if it is not set, as in Datadog's own clients.

    Raises :class:`ConfigurationError` for any other text.
    """
    try:
        return Site.parse(os.environ.get("DD_SITE") or "datadoghq.com")
    except ConfigurationError as error:
        raise ConfigurationError(f"DD_SITE: {error}") from None


def _site_of_host(host: str) -> Site | None:
    """The site whose domain ``host`` is or lies under; the longest domain wins."""
    for domain in sorted(SITES, key=len, reverse=True):
        if host == domain:
            return SITES[domain]
        if host.endswith(f".{domain}"):
            label = host.removesuffix(f".{domain}").rpartition(".")[2]
            return None if _SITE_LABEL.fullmatch(label) else SITES[domain]
    return None


def _pretends_to_be_datadog(host: str) -> bool:
    return "datadog" in host or "ddog" in host


def _check_base_url(given: str, url: SplitResult, host: str) -> None:
    if url.query or url.fragment:
        raise ConfigurationError(f"the base URL {_shown(given)} has a query or fragment: leave it out")
    if not host:
        raise ConfigurationError(f"the base URL {_shown(given)} names no host")
    if not (_address(host) or _HOST_NAME.fullmatch(host)):
        raise ConfigurationError(f"the base URL {_shown(given)} names no host that could be: {_shown(host)}")
    if url.scheme != "https" and not (url.scheme == "http" and _is_loopback(host)):
        raise ConfigurationError(
            f"{_shown(given)}: the keys would travel in the clear; use https (http is for loopback only)"
        )


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _unknown(given: str, host: str) -> ConfigurationError:
    names = {site.name: domain for domain, site in SITES.items()} | {domain: domain for domain in SITES}
    nearest = difflib.get_close_matches(host, names, n=1) or difflib.get_close_matches(
        given.upper(), names, n=1
    )
    hint = f" Did you mean {names[nearest[0]]}?" if nearest else ""
    return ConfigurationError(
        f"{_shown(given)} is no Datadog site.{hint} Sites: {', '.join(SITES)}; "
        "or a base URL with https://, or http:// on loopback"
    )


def _shown(given: str) -> str:
    """``given`` as it can stand in a message: what is before an @ is a password as often as not."""
    if "@" in given:
        return "what was given"
    shown = ascii(given)  # in which a letter may take ten
    return shown if len(shown) <= 102 else f"{shown[:101]}...'"
