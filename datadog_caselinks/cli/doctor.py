"""``caselinks doctor``: check step by step what is needed to create links."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Sequence
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import SplitResult, urlsplit

import aiohttp
import click
from attrs import asdict, evolve, frozen
from click.core import ParameterSource
from rich.console import Console
from rich.table import Table
from rich.text import Text

from datadog_caselinks.calls.retry import RetryPolicy
from datadog_caselinks.cli.again import longer_wait
from datadog_caselinks.cli.groups import Command
from datadog_caselinks.cli.proxies import ProxyChoice, proxy_for
from datadog_caselinks.cli.records import is_for_people, records
from datadog_caselinks.cli.run import (
    Settings,
    logging_to,
    open_client,
    resolve_site,
    run,
    with_settings,
)
from datadog_caselinks.cli.screen import Screen
from datadog_caselinks.client import CaseLinksClient, ClientOptions
from datadog_caselinks.http.sessions import SessionManager
from datadog_caselinks.http.transport import classify
from datadog_caselinks.http.trust import Trust
from datadog_caselinks.values.credentials import ApiKeys, credential_variables, credentials_from_env
from datadog_caselinks.values.errors import (
    AuthenticationError,
    BadRequestError,
    CaseLinksError,
    ConfigurationError,
    NotFoundError,
    ParameterError,
    PermissionDeniedError,
    RateLimitError,
    TLSError,
)
from datadog_caselinks.values.messages import one_line
from datadog_caselinks.values.models import case
from datadog_caselinks.values.rate_limit import where_to_raise
from datadog_caselinks.values.sites import Site

_SECONDS: Final = 10.0
"""The timeout of each check."""

_SKEW: Final = 60.0
"""The largest clock difference that passes, in seconds. A larger one breaks TLS and confuses logs."""

_ONCE: Final = RetryPolicy(max_attempts=1, max_wait=_SECONDS)

_LIMITED: Final = "rate limit"

_SIGNS: Final = {"ok": ("✓", "green"), "note": ("·", "yellow"), "bad": ("✗", "bold red")}
"""The sign of each state on a terminal, and its style."""


@frozen
class Finding:
    """The result of one check. ``state`` is ``ok``, ``note`` or ``bad``; ``message`` says what to do."""

    check: str
    state: str
    message: str


@click.command(cls=Command, epilog="Example: caselinks doctor --site datadoghq.eu")
@with_settings()
@click.pass_context
def doctor(context: click.Context, settings: Settings) -> None:
    """Check step by step whether this machine can create links.

    Nothing is created or deleted: to check the keys and their scopes, the links of a
    case that does not exist are listed, and a link that does not exist is deleted.

    The exit status is 1 if a check fails.
    """
    screen = Screen(quiet=settings.quiet)
    if context.get_parameter_source("max_wait") == ParameterSource.DEFAULT:
        settings = evolve(settings, max_wait=_SECONDS)

    async def check_all() -> bool:
        is_fine = True
        console = Console() if is_for_people(settings.output) else None
        with records(screen, settings.output) as writer:
            async for finding in _findings(settings):
                is_fine = is_fine and finding.state != "bad"
                is_shown = not settings.quiet or finding.state != "ok"
                if console and is_shown:
                    _draw(console, finding)
                elif not console:
                    row = [finding.state, finding.check, finding.message]
                    writer.add(asdict(finding), row if is_shown else [])
        return is_fine

    with logging_to(screen, settings):
        is_fine = run(check_all())
    if settings.output == "table":
        if is_fine:
            screen.note("Ready to create links.")
        else:
            screen.problem("Not ready to create links: fix what is marked above, and run doctor again.")
    context.exit(0 if is_fine else 1)


def _draw(console: Console, finding: Finding) -> None:
    """Draw ``finding`` on a terminal. A long message continues below its beginning."""
    sign, style = _SIGNS[finding.state]
    row = Table.grid(padding=(0, 2))
    row.add_column(width=1)
    row.add_column(width=13)
    row.add_column(overflow="fold")
    message = one_line(finding.message, limit=1000)
    row.add_row(
        Text(sign, style), Text(finding.check), Text(message, style if finding.state == "bad" else "")
    )
    console.print(row)


async def _findings(settings: Settings) -> AsyncIterator[Finding]:
    """Yield the result of each check. Stop after a failure that would make later checks fail too."""
    if not settings.in_sandbox:
        found = _configuration(settings)
        for finding in found:
            yield finding
        if found[-1].state == "bad":
            return
    policy = evolve(_ONCE, max_wait=settings.max_wait)
    async with open_client(settings, timeout=_SECONDS, retry=policy) as client:
        async for finding in _connection(client.site):
            yield finding
            if finding.state == "bad":
                return
        async for finding in _access(client, settings):
            yield finding


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
    else:
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
    found.append(Finding("credentials", "ok", f"read from {' and '.join(names)}"))
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
        # As in the errors of the other subcommands.
        kind, reason = classify(error, False, trust, has_proxy=bool(proxy.url))
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


async def _access(client: CaseLinksClient, settings: Settings) -> AsyncIterator[Finding]:
    """Yield whether the keys are accepted, which scopes they have, and the rate limit.

    Nothing is created or deleted.
    """
    names = () if settings.in_sandbox else credential_variables()
    read = await _refusal(client.list_links(case(uuid.uuid4())))
    if isinstance(read, AuthenticationError | PermissionDeniedError) and await _are_swapped(
        client.site, names
    ):
        yield Finding("keys", "bad", f"{' and '.join(names)} are swapped: exchange their values")
        return
    if isinstance(read, RateLimitError):
        yield _used_up(read)
        return
    if read and not isinstance(read, PermissionDeniedError):
        yield Finding("keys", "bad", _reason(read))
        return
    holder = names[-1] if names else "the application key"
    if not read:
        yield Finding("keys", "ok", "accepted")
    yield _scope("cases_read", read, holder, "list links and read cases")
    write = await _refusal(client.delete_link(str(uuid.uuid4())))  # a link that does not exist
    if isinstance(write, RateLimitError):
        yield _used_up(write)
        return
    yield _scope("cases_write", write, holder, "create and delete links")
    incident = await _refusal(client.get_incident(uuid.uuid4()))
    if isinstance(incident, RateLimitError):
        yield evolve(_used_up(incident), state="note")  # links of cases do not need incidents
        return
    finding = _scope("incident_read", incident, holder, "find incidents by their numbers")
    yield evolve(finding, state="ok" if finding.state == "ok" else "note")
    yield _rate_limit(client)


def _scope(scope: str, refusal: CaseLinksError | None, holder: str, purpose: str) -> Finding:
    if refusal is None:
        return Finding(scope, "ok", f"may {purpose}")
    if not isinstance(refusal, PermissionDeniedError):
        return Finding(scope, "bad", _reason(refusal))
    said = "; ".join(refusal.errors) or str(refusal.status)
    return Finding(scope, "bad", f"{holder} lacks the scope {scope}, which it needs to {purpose} ({said})")


def _used_up(error: RateLimitError) -> Finding:
    advice = longer_wait(error, 0.0) or "wait, and run doctor again"
    return Finding(_LIMITED, "bad", f"used up, so not everything was checked: {advice}")


def _reason(error: CaseLinksError) -> str:
    """Return the message of ``error`` without its subject, a random id that nobody knows."""
    message = str(error)
    return message.partition(": ")[2] if message.startswith("cannot ") else message


async def _refusal(request: Awaitable[object]) -> CaseLinksError | None:
    """Return the error of ``request``, unless the error only says that its subject does not exist."""
    try:
        await request
    except (NotFoundError, BadRequestError):
        pass
    except CaseLinksError as error:
        return error
    return None


async def _are_swapped(site: Site, names: Sequence[str]) -> bool:
    """Return whether the site accepts the values of the two variables ``names`` in the other order."""
    if len(names) != 2:
        return False
    keys = ApiKeys(api_key=os.environ[names[1]], app_key=os.environ[names[0]])
    options: ClientOptions = {"timeout": _SECONDS, "retry": _ONCE, "proxy": proxy_for(site).url}
    async with CaseLinksClient(site, keys, **options) as client:
        return await _refusal(client.list_links(case(uuid.uuid4()))) is None


def _rate_limit(client: CaseLinksClient) -> Finding:
    if (limit := client.rate_limit) is None or limit.limit is None or limit.period is None:
        return Finding("rate limit", "ok", "the server sends none")
    message = (
        f"{limit.limit} requests in {limit.period:g} s, {limit.remaining} remaining.{where_to_raise(limit)}"
    )
    return Finding("rate limit", "ok", message.rstrip("."))


def _port(url: SplitResult) -> int:
    return url.port or (443 if url.scheme == "https" else 80)
