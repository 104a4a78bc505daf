"""``caselinks doctor``: what is needed to create links, checked step by step."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
import uuid
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Final
from urllib.parse import SplitResult, urlsplit

import aiohttp
import click
from attrs import asdict, frozen

from datadog_caselinks.cli.records import records
from datadog_caselinks.cli.run import Settings, client, logging_to, proxy_to, run, site_of, with_settings
from datadog_caselinks.cli.screen import Screen
from datadog_caselinks.client import CaseLinksClient
from datadog_caselinks.credentials import ApiKeys, credentials_from_env
from datadog_caselinks.errors import CaseLinksError, ConfigurationError, NotFoundError
from datadog_caselinks.http.sessions import SessionManager
from datadog_caselinks.models import case
from datadog_caselinks.retry import RetryPolicy
from datadog_caselinks.sites import Site

_SECONDS: Final = 10.0
"""For each of the steps."""

_SKEW: Final = 60.0
"""Seconds by which the clock may be wrong: TLS and logs suffer from more."""


@frozen
class Finding:
    """What one check found: ``ok``, ``note`` or ``bad``, and what to do about it."""

    check: str
    state: str
    told: str


@click.command(epilog="Example: caselinks doctor --site datadoghq.eu")
@with_settings()
@click.pass_context
def doctor(context: click.Context, settings: Settings) -> None:
    """Check whether links can be created from here, step by step.

    Nothing is created: the keys are tried by listing the links of a case that is not there.

    The exit status is 1 if something is not as it must be.
    """
    screen = Screen(quiet=settings.quiet)

    async def examine() -> bool:
        is_fine = True
        with records(screen, settings.output, widths=(4, 11, 0)) as shown:
            async for finding in _findings(settings):
                is_fine = is_fine and finding.state != "bad"
                row = [finding.state, finding.check, finding.told]
                shown.add(asdict(finding), [] if settings.quiet and finding.state == "ok" else row)
        return is_fine

    with logging_to(screen, settings):
        is_fine = run(examine())
    context.exit(0 if is_fine else 1)


async def _findings(settings: Settings) -> AsyncIterator[Finding]:
    """Each check, up to the first that makes those after it pointless."""
    if not settings.in_sandbox:
        found = _configuration(settings)
        for finding in found:
            yield finding
        if found[-1].state == "bad":
            return
    policy = RetryPolicy(max_attempts=1, max_wait=_SECONDS)
    async with client(settings, timeout=_SECONDS, retry=policy) as links:
        url = urlsplit(links.site.api_url)
        proxy = proxy_to(links.site)
        checks = (
            partial(_name, urlsplit(proxy or links.site.api_url)),
            partial(_encryption, url, proxy),
            partial(_clock, links.site, proxy),
        )
        for check in checks:
            finding = await check()
            yield finding
            if finding.state == "bad":
                return
        yield await _keys(links)
        yield _rate_limit(links)


def _configuration(settings: Settings) -> list[Finding]:
    try:
        site = site_of(settings.site)
    except ConfigurationError as error:
        return [Finding("site", "bad", str(error))]
    found = [Finding("site", "ok", f"{site.name}, {site.api_url}")]
    try:
        credentials = credentials_from_env()
    except ConfigurationError as error:
        return [*found, Finding("credentials", "bad", str(error))]
    told = "DD_API_KEY and DD_APP_KEY" if isinstance(credentials, ApiKeys) else "DD_BEARER_TOKEN"
    return [*found, Finding("credentials", "ok", f"{told} set, and of a form that can be sent")]


async def _name(url: SplitResult) -> Finding:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_SECONDS):
            found = await loop.getaddrinfo(url.hostname, _port(url), type=socket.SOCK_STREAM)
    except OSError:  # a time-out is one too
        return Finding("DNS", "bad", f"{url.hostname} was not found: check the site and the network")
    addresses = dict.fromkeys(address[0] for *_, address in found)
    return Finding("DNS", "ok", f"{url.hostname} is {', '.join(map(str, addresses))}")


async def _encryption(url: SplitResult, proxy: str | None) -> Finding:
    if proxy:
        return Finding("TLS", "note", f"by way of the proxy {urlsplit(proxy).hostname}; see the next checks")
    if url.scheme != "https":
        return Finding("TLS", "ok", "none: on loopback it is not needed")
    try:
        async with asyncio.timeout(_SECONDS):
            _, writer = await asyncio.open_connection(
                url.hostname, _port(url), ssl=ssl.create_default_context()
            )
    except ssl.SSLCertVerificationError as error:
        cure = "set SSL_CERT_FILE to the file of your CA, or check the site"
        return Finding("TLS", "bad", f"its certificate is not trusted ({error.verify_message}): {cure}")
    except OSError as error:
        reason = error.strerror or str(error) or f"none in {_SECONDS:.0f} s"
        return Finding("TLS", "bad", f"no connection ({reason}): check the network")
    connection = writer.get_extra_info("ssl_object")
    writer.transport.abort()  # the server may not answer a goodbye
    days = (ssl.cert_time_to_seconds(connection.getpeercert()["notAfter"]) - time.time()) / 86_400
    return Finding("TLS", "ok", f"{connection.version()}; the certificate is good for {days:.0f} days")


async def _clock(site: Site, proxy: str | None) -> Finding:
    url = urlsplit(site.api_url)
    timeout = aiohttp.ClientTimeout(total=_SECONDS)
    try:
        async with (
            SessionManager() as sessions,  # which leaves nothing open, whatever the server does
            sessions.session(site).head(
                site.api_url, allow_redirects=False, proxy=proxy, timeout=timeout
            ) as response,
        ):
            date = response.headers.get("Date", "")
    except (aiohttp.ClientError, OSError) as error:
        via = f" through the proxy {urlsplit(proxy).netloc.rpartition('@')[2]}" if proxy else ""
        return Finding("clock", "bad", f"{url.netloc} does not answer{via} ({type(error).__name__})")
    try:
        ahead = time.time() - parsedate_to_datetime(date).timestamp()
    except ValueError:
        return Finding("clock", "note", "the server tells no time to compare with")
    if abs(ahead) > _SKEW:
        told = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the server's: set it by NTP"
        return Finding("clock", "bad", told)
    return Finding("clock", "ok", "as the server's, to the minute")


async def _keys(links: CaseLinksClient) -> Finding:
    try:
        await links.list_links(case(uuid.uuid4()))
    except NotFoundError:
        pass  # which is fine, for a case that is not there
    except CaseLinksError as error:
        return Finding("keys", "bad", str(error))
    return Finding("keys", "ok", "accepted; whether they may create links too, only creating one tells")


def _rate_limit(links: CaseLinksClient) -> Finding:
    if (limit := links.rate_limit) is None or limit.limit is None or limit.period is None:
        return Finding("rate limit", "ok", "none was told")
    told = f"{limit.limit} requests in {limit.period:g} s, {limit.remaining} left of them now"
    return Finding("rate limit", "ok", told)


def _port(url: SplitResult) -> int:
    return url.port or (443 if url.scheme == "https" else 80)
