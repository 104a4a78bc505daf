"""The nine Datadog sites, and base URLs of other servers, without I/O."""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from typing import ClassVar, Final
from urllib.parse import SplitResult, urlsplit

from attrs import field, frozen

from datadog_caselinks.values.base_errors import ConfigurationError
from datadog_caselinks.values.messages import is_in_quotes, one_line, quoted
from datadog_caselinks.values.parameters import require

SITE_FORMS: Final = "a Site, or text such as datadoghq.eu or EU1"
"""What the parameter ``site`` takes, as messages say it."""

# The form of the labels of Datadog's sites, such as "us5", and of future ones, such as "us9".
# Any other label before a site's domain is the subdomain of an organisation.
_SITE_LABEL: Final = re.compile(r"(?:[a-z]{2}\d|gov)")

_LABEL: Final = r"(?!-)[a-z0-9_-]{1,63}(?<!-)"
_HAS_LOGIN: Final = "the site contains a user name or password: remove it from the URL"

_HOST_NAME: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")


def quoted_url(text: str) -> str:
    """Return ``text`` as messages quote it, or ``[redacted]`` if it may contain a password (before an @)."""
    return "[redacted]" if "@" in text else quoted(text)


def _check_base_url(given: str, url: SplitResult, host: str) -> None:
    if url.query or url.fragment:
        raise ConfigurationError(f"the base URL {quoted_url(given)} has a query or fragment: remove it")
    if not host:
        raise ConfigurationError(f"the base URL {quoted_url(given)} has no host")
    if not (_ip_address(host) or _HOST_NAME.fullmatch(host)):
        raise ConfigurationError(f"the base URL {quoted_url(given)} has an invalid host: {quoted_url(host)}")
    if url.scheme != "https" and not (url.scheme == "http" and _is_loopback(host)):
        raise ConfigurationError(
            f"{quoted_url(given)} would send the keys unencrypted: use https, or http on loopback"
        )


def _is_loopback(host: str) -> bool:
    address = _ip_address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _ip_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _validate_name(_: object, __: object, value: str) -> None:
    require("name", value, str, "the name of a site")


def _validate_base_url(_: object, __: object, value: str) -> None:
    require("api_url", value, str, "the base URL of a server")
    try:
        url = urlsplit(value)
        host = url.hostname or ""
    except ValueError:
        raise ConfigurationError(f"{quoted_url(value)} is not a URL") from None
    if "@" in url.netloc:
        raise ConfigurationError(_HAS_LOGIN)
    _check_base_url(value, url, host)


@frozen
class Site:
    """A Datadog site, or another server with the same API.

    Datadog's nine sites are the constants ``Site.US1`` to ``Site.US2_FED``. :meth:`parse` accepts the value
    of ``DD_SITE``, a URL from the browser, or the base URL of a server of your own.

    ``name``
        The name, such as ``US1``; the host for a server of your own.
    ``api_url``
        The URL to which the paths of requests are appended, without a slash at the end.

    Raises:
        ConfigurationError: ``api_url`` is not the base URL of a server, or would send the keys unencrypted.
        ParameterError: A value is not a string.
    """

    name: str = field(validator=_validate_name)
    api_url: str = field(validator=_validate_base_url)

    @property
    def domain(self) -> str | None:
        """The domain, which is the value of ``DD_SITE``; ``None`` for a server of your own."""
        domain = self.api_url.removeprefix("https://api.")
        return domain if SITES.get(domain) == self else None

    @property
    def web_url(self) -> str | None:
        """The URL of the web interface; ``None`` for a server of your own."""
        domain = self.domain
        return f"https://{'' if domain.count('.') > 1 else 'app.'}{domain}" if domain else None

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
        """Return the site that ``text`` names.

        Args:
            text: The domain of a site (``datadoghq.eu``), its API or web host (``api.us5.datadoghq.com``,
                ``acme.datadoghq.com``), its name (``EU1``), any URL from the browser
                (``https://us3.datadoghq.com/cases``), or the base URL of a server of your own, with
                ``https``, or with ``http`` on loopback.

        Raises:
            ConfigurationError: ``text`` is another text. The message lists the nine sites and suggests the
                most similar one. A host that only resembles Datadog's is refused, because the keys would be
                sent to it.
            ParameterError: ``text`` is not a string.
        """
        require("site", text, str, SITE_FORMS)
        given = text.strip()
        if is_in_quotes(given):
            raise ConfigurationError(f"{quoted_url(given)} is in quotation marks: remove them")
        for site in SITES.values():
            if given.upper().replace("_", "-") == site.name:
                return site
        try:
            url = urlsplit(given if "://" in given else f"//{given}")
            host, port = (url.hostname or "").removesuffix("."), url.port
        except ValueError as error:
            reason = "" if "@" in given else f": {one_line(str(error), limit=100)}"
            raise ConfigurationError(f"{quoted_url(given)} is neither a site nor a URL{reason}") from None
        if "@" in url.netloc:
            raise ConfigurationError(_HAS_LOGIN)
        if known := _site_of_host(host):
            return known
        if odd := next((char for char in given if not "!" <= char <= "~" or char in '\\"<>'), ""):
            # By its number, because it may look like a letter of Datadog's domain.
            raise ConfigurationError(
                f"{quoted_url(given)} is not a Datadog site: a URL cannot contain U+{ord(odd):04X}"
            )
        if not url.scheme or _resembles_datadog(host):
            raise _unknown_site(given, host)
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
"""Datadog's nine sites by domain, which is the value of ``DD_SITE``. Source: Datadog's site page."""


def parsed_site(site: Site | str) -> Site:
    """Return ``site``, parsed if it is text.

    Raises:
        ConfigurationError: The text does not name a site.
        ParameterError: ``site`` is something else.
    """
    return site if isinstance(site, Site) else Site.parse(site)


def site_from_env() -> Site:
    """Return the site that ``DD_SITE`` or else ``DATADOG_SITE`` names, or US1 if neither is set.

    Raises:
        ConfigurationError: The variable does not name a site.
    """
    name = "DD_SITE" if os.environ.get("DD_SITE") else "DATADOG_SITE"
    try:
        return Site.parse(os.environ.get(name) or "datadoghq.com")
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error}") from None


def _site_of_host(host: str) -> Site | None:
    """Return the site whose domain equals or contains ``host``; the longest domain wins."""
    for domain in sorted(SITES, key=len, reverse=True):
        if host == domain:
            return SITES[domain]
        if host.endswith(f".{domain}"):
            label = host.removesuffix(f".{domain}").rpartition(".")[2]
            return None if _SITE_LABEL.fullmatch(label) else SITES[domain]
    return None


def _resembles_datadog(host: str) -> bool:
    return "datadog" in host or "ddog" in host


def _unknown_site(given: str, host: str) -> ConfigurationError:
    names = {site.name: domain for domain, site in SITES.items()} | {domain: domain for domain in SITES}
    nearest = difflib.get_close_matches(host, names, n=1) or difflib.get_close_matches(
        given.upper(), names, n=1
    )
    hint = f" Did you mean {names[nearest[0]]}?" if nearest else ""
    return ConfigurationError(
        f"{quoted_url(given)} is not a Datadog site.{hint} Use one of {', '.join(SITES)}; "
        "or a base URL with https://, or with http:// on loopback"
    )
