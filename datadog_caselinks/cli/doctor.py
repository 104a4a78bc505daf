"""``caselinks doctor``: check step by step what is needed to create links."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
import uuid
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import SplitResult, urlsplit

import aiohttp
import click
from attrs import asdict, frozen

from datadog_caselinks.cli.proxies import ProxyChoice, proxy_for
from datadog_caselinks.cli.records import records
from datadog_caselinks.cli.run import (
    Settings,
    logging_to,
    open_client,
    resolve_site,
    run,
    with_settings,
)
from datadog_caselinks.cli.screen import Screen
from datadog_caselinks.client import CaseLinksClient
from datadog_caselinks.credentials import credential_variables, credentials_from_env
from datadog_caselinks.errors import (
    CaseLinksError,
    ConfigurationError,
    NotFoundError,
    ParameterError,
    TLSError,
)
from datadog_caselinks.http.sessions import SessionManager
from datadog_caselinks.http.transport import classify
from datadog_caselinks.http.trust import Trust
from datadog_caselinks.models import case
from datadog_caselinks.rate_limit import where_to_raise
from datadog_caselinks.retry import RetryPolicy
from datadog_caselinks.sites import Site

_SECONDS: Final = 10.0
"""The timeout of each check."""

_SKEW: Final = 60.0
"""The largest clock difference that passes, in seconds. A larger one breaks TLS and confuses logs."""


@frozen
class Finding:
    """The result of one check. ``state`` is ``ok``, ``note`` or ``bad``; ``message`` says what to do."""

    check: str
    state: str
    message: str


@click.command(epilog="Example: caselinks doctor --site datadoghq.eu")
@with_settings()
@click.pass_context
def doctor(context: click.Context, settings: Settings) -> None:
    """Check step by step whether this machine can create links.

    Nothing is created: to check the keys, the links of a case that does not exist are
    listed.

    The exit status is 1 if a check fails.
    """
    screen = Screen(quiet=settings.quiet)

    async def check_all() -> bool:
        is_fine = True
        with records(screen, settings.output, widths=(4, 11, 0)) as writer:
            async for finding in _findings(settings):
                is_fine = is_fine and finding.state != "bad"
                row = [finding.state, finding.check, finding.message]
                writer.add(asdict(finding), [] if settings.quiet and finding.state == "ok" else row)
        return is_fine

    with logging_to(screen, settings):
        is_fine = run(check_all())
    context.exit(0 if is_fine else 1)


async def _findings(settings: Settings) -> AsyncIterator[Finding]:
    """Yield the result of each check. Stop after a failure that would make later checks fail too."""
    if not settings.in_sandbox:
        found = _configuration(settings)
        for finding in found:
            yield finding
        if found[-1].state == "bad":
            return
    policy = RetryPolicy(max_attempts=1, max_wait=_SECONDS)
    async with open_client(settings, timeout=_SECONDS, retry=policy) as client:
        async for finding in _connection(client.site):
            yield finding
            if finding.state == "bad":
                return
        yield await _keys(client)
        yield _rate_limit(client)


async def _connection(site: Site) -> AsyncIterator[Finding]:
    """Yield the result of each check of the way to the server, through a proxy if there is one."""
    proxy = proxy_for(site)
    url = urlsplit(site.api_url)
    if proxy.url:
        yield await _name(urlsplit(proxy.url), check=str(proxy.reason))
    else:
        if proxy.reason:
            yield Finding("proxy", "note", proxy.reason)
        yield await _name(url, check="the site")
        yield await _encryption(url)
    date = await _head(site, proxy)
    if isinstance(date, Finding):
        yield date
        return
    if proxy.url:
        yield Finding("proxy", "ok", f"{_described(proxy)} connects to {url.hostname}")
        yield Finding("TLS", "ok", "the certificate that comes through the proxy is trusted")
    yield _clock(date)


def _configuration(settings: Settings) -> list[Finding]:
    try:
        site = resolve_site(settings.site)
    except ConfigurationError as error:
        return [Finding("site", "bad", str(error))]
    found = [Finding("site", "ok", f"{site.name}, {site.api_url}")]
    try:
        names = credential_variables()
        credentials_from_env()
    except ConfigurationError as error:
        return [*found, Finding("credentials", "bad", str(error))]
    found.append(Finding("credentials", "ok", f"{' and '.join(names)} set and well-formed"))
    try:
        proxy_for(site)
    except ParameterError as error:
        found.append(Finding("proxy", "bad", str(error)))
    return found


async def _name(url: SplitResult, *, check: str) -> Finding:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_SECONDS):
            found = await loop.getaddrinfo(url.hostname, _port(url), type=socket.SOCK_STREAM)
    except OSError:  # includes a timeout
        return Finding("DNS", "bad", f"{url.hostname} was not found: check {check} and the network")
    addresses = dict.fromkeys(address[0] for *_, address in found)
    return Finding("DNS", "ok", f"{url.hostname} is {', '.join(map(str, addresses))}")


async def _encryption(url: SplitResult) -> Finding:
    if url.scheme != "https":
        return Finding("TLS", "ok", "not used: not needed on loopback")
    try:
        async with asyncio.timeout(_SECONDS):
            _, writer = await asyncio.open_connection(
                url.hostname, _port(url), ssl=ssl.create_default_context()
            )
    except ssl.SSLCertVerificationError as error:
        advice = Trust.of_environment().advice(error)
        return Finding("TLS", "bad", f"the certificate is not trusted ({error.verify_message}): {advice}")
    except OSError as error:
        reason = error.strerror or str(error) or f"timeout after {_SECONDS:.0f} s"
        return Finding("TLS", "bad", f"no connection ({reason}): check the network")
    connection = writer.get_extra_info("ssl_object")
    writer.transport.abort()  # a graceful close could wait for the server
    days = (ssl.cert_time_to_seconds(connection.getpeercert()["notAfter"]) - time.time()) / 86_400
    return Finding("TLS", "ok", f"{connection.version()}; the certificate is valid for {days:.0f} days")


async def _head(site: Site, proxy: ProxyChoice) -> Finding | str:
    """Send a request without keys, and return the ``Date`` of the response, or why there is no response."""
    timeout = aiohttp.ClientTimeout(total=_SECONDS)
    trust = Trust.of_environment()
    try:
        async with (
            SessionManager() as sessions,  # closes every connection, even if the server hangs
            sessions.session(site).head(
                site.api_url, allow_redirects=False, proxy=proxy.url, ssl=trust.ssl, timeout=timeout
            ) as response,
        ):
            return response.headers.get("Date", "")
    except (aiohttp.ClientError, OSError) as error:
        kind, reason = classify(error, False, trust)  # as in the errors of the other subcommands
    if not proxy.url:
        return Finding("server", "bad", f"{site.api_url}: {reason}")
    # Through an HTTP proxy, TLS is within the tunnel.
    check = "TLS" if kind is TLSError and urlsplit(proxy.url).scheme == "http" else "proxy"
    return Finding(check, "bad", f"{site.api_url} through the proxy {_described(proxy)}: {reason}")


def _described(proxy: ProxyChoice) -> str:
    """Return the host and port of the proxy, without its login, and the variable that names it."""
    return f"{urlsplit(proxy.url or '').netloc.rpartition('@')[2]} ({proxy.reason})"


def _clock(date: str) -> Finding:
    try:
        ahead = time.time() - parsedate_to_datetime(date).timestamp()
    except ValueError:
        return Finding("clock", "note", "not checked: the server sends no Date header")
    if abs(ahead) > _SKEW:
        message = (
            f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the server: synchronize it by NTP"
        )
        return Finding("clock", "bad", message)
    return Finding("clock", "ok", "agrees with the server within a minute")


async def _keys(client: CaseLinksClient) -> Finding:
    try:
        await client.list_links(case(uuid.uuid4()))
    except NotFoundError:
        pass  # expected: the case does not exist
    except CaseLinksError as error:
        return Finding("keys", "bad", str(error))
    return Finding(
        "keys", "ok", "accepted; only creating a link shows whether they have the scope cases_write"
    )


def _rate_limit(client: CaseLinksClient) -> Finding:
    if (limit := client.rate_limit) is None or limit.limit is None or limit.period is None:
        return Finding("rate limit", "ok", "the server sends none")
    message = (
        f"{limit.limit} requests in {limit.period:g} s, {limit.remaining} remaining.{where_to_raise(limit)}"
    )
    return Finding("rate limit", "ok", message.rstrip("."))


def _port(url: SplitResult) -> int:
    return url.port or (443 if url.scheme == "https" else 80)
