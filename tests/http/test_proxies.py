"""The rules of proxies: only tunnels, a readable error for each failure, and a login for no one else.

``test_transport.py`` tests how each failure is classified and retried, ``cli/test_doctor.py`` the proxy of
the environment, and ``test_sessions.py`` the proxy of a session.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import traceback
from collections.abc import AsyncIterator
from typing import Final
from urllib.parse import quote

import pytest

from datadog_caselinks import (
    ApiKeys,
    BearerToken,
    CaseLinksClient,
    CaseLinksError,
    ConnectError,
    ParameterError,
    ProxyAuthenticationError,
    RequestTimeoutError,
    RetryPolicy,
    Site,
    TLSError,
    TransportError,
    case,
)
from tests.hostile.answers import OPERATIONS
from tests.support.authority import Authority
from tests.support.clock import Clock, in_no_time
from tests.support.ids import some_id
from tests.support.leaks import assert_nothing_of, texts_of, texts_of_record
from tests.support.needs import needing_a_tracker
from tests.support.proxy import Proxy
from tests.support.server import Server, head
from tests.support.steps import created
from tests.support.tcp import HOST, listening, unused_port

NEW: Final = case(some_id(1)).blocks(case(some_id(2)))
API_KEY, APP_KEY, PASSWORD = "the-api-key", "the-app-key", "the p@sswörd/€"
ESCAPED: Final = quote(PASSWORD, safe="")
LOGIN: Final = f"somebody:{ESCAPED}"
BASIC: Final = base64.b64encode(f"somebody:{PASSWORD}".encode()).decode()
SECRETS: Final = [API_KEY, APP_KEY, PASSWORD, ESCAPED, BASIC, "p@ssw", "p%40ssw"]
TWICE: Final = RetryPolicy(max_attempts=2, base=0, settle=0)


def client(url: str, authority: Authority, proxy: str, *events: list[object]) -> CaseLinksClient:
    return CaseLinksClient(
        url,
        ApiKeys(api_key=API_KEY, app_key=APP_KEY),
        proxy=proxy,
        ssl=authority.client(),
        retry=TWICE,
        on_event=(lambda event: events[0].append(event)) if events else None,
    )


@contextlib.asynccontextmanager
async def answering(*parts: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Yield the URL, with a login, of a proxy that sends ``parts`` and closes, and the list of its requests.

    ``%s`` in a part is replaced by the request. Without parts the proxy hangs.
    """
    requests: list[bytes] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        for part in parts:
            writer.write(part.replace(b"%s", requests[-1].replace(b"\r\n", b" ")))
            await writer.drain()
        await asyncio.Event().wait() if not parts else None

    async with listening(connected) as port:
        yield f"http://{LOGIN}@{HOST}:{port}", requests


class TestTunnel:
    async def test_what_the_proxy_learns(self, authority: Authority) -> None:
        """The proxy gets its login and the server's name but no key; the server gets nothing of the proxy."""
        async with (
            Server(created, tls=authority.server("localhost"), host="localhost") as server,
            Proxy(f"somebody:{PASSWORD}").running() as proxy,
            client(server.url, authority, f"http://{LOGIN}@{HOST}:{proxy.port}") as links,
        ):
            await links.create_link(NEW)
        assert server.seen[0].headers["DD-API-KEY"] == API_KEY
        assert "Proxy-Authorization" not in server.seen[0].headers
        [request] = proxy.requests
        assert request.startswith(f"CONNECT localhost:{server.port} ".encode())
        assert BASIC.encode() in request
        assert not any(key.encode() in request for key in (API_KEY, APP_KEY))

    async def test_by_tls(self, authority: Authority) -> None:
        """The context ``ssl`` checks the certificates of the proxy and of the server behind it."""
        async with (
            Server(created, tls=authority.server("localhost"), host="localhost") as server,
            Proxy(tls=authority.server(HOST)).running() as proxy,
            client(server.url, authority, proxy.url) as links,
        ):
            await links.create_link(NEW)
        assert len(proxy.requests) == 1

    async def test_by_tls_that_is_not_trusted(self, authority: Authority) -> None:
        """A proxy with a certificate for another host does not get its login."""
        async with (
            Proxy(tls=authority.server("other.example")).running() as proxy,
            client("https://localhost:1", authority, proxy.url) as links,
        ):
            with pytest.raises(TLSError, match="mismatch"):
                await links.create_link(NEW)
        assert proxy.requests == []

    async def test_to_somebody_else(self, authority: Authority) -> None:
        """A server with a certificate of an unknown authority gets nothing through the tunnel."""
        async with (
            Server(created, tls=Authority().server("localhost"), host="localhost") as server,
            Proxy().running() as proxy,
            client(server.url, authority, proxy.url) as links,
        ):
            with pytest.raises(TLSError, match=r"add its CA to the ssl\.SSLContext that was passed as ssl"):
                await links.create_link(NEW)
        assert (len(proxy.requests), server.seen) == (1, [])

    async def test_a_site_on_loopback_needs_none(self, authority: Authority) -> None:
        """A server on loopback is reached without the proxy, which would see the keys over ``http``."""
        async with (
            Server(created) as server,
            answering(head(502)) as (proxy, requests),
            client(server.url, authority, proxy) as links,
        ):
            await links.create_link(NEW)
        assert (len(server.seen), requests) == (1, [])


FAILURES: Final[dict[str, tuple[tuple[bytes, ...], type[CaseLinksError], str]]] = {
    # name: (the response of the proxy, the error, its text)
    # aiohttp itself retries requests that create nothing, so the error is that of its second attempt.
    "closes": ((b"",), TransportError, "the connection was lost"),
    "wants a login": (
        (b'HTTP/1.1 407 %s\r\nProxy-Authenticate: Basic realm="%s"\r\nContent-Length: 0\r\n\r\n',),
        ProxyAuthenticationError,
        "check the user and password in its URL",
    ),
    "refuses": ((b"HTTP/1.1 403 %s\r\nX-Echo: %s\r\n\r\n%s",), ConnectError, "the proxy responded with 403"),
    "finds nobody": ((head(502), b"<title>%s</title>"), ConnectError, "the proxy responded with 502"),
    "redirects": (
        (b"HTTP/1.1 302 Found\r\nLocation: https://localhost:1/%s\r\n\r\n",),
        ConnectError,
        "the proxy responded with 302",
    ),
    "talks no HTTP": ((b"%s\r\n\r\n",), ConnectError, "nothing was sent"),
    "echoes in the tunnel": ((head(200) + b"%s",), ConnectError, "nothing was sent"),
    "hangs": ((), RequestTimeoutError, "no response within the timeout"),
}


async def raised_by(links: CaseLinksClient, operation: str, clock: Clock) -> CaseLinksError:
    """Return the error of an operation. No secret is a local variable here."""
    call, _ = OPERATIONS[operation]
    with pytest.raises(CaseLinksError) as caught:
        await in_no_time(clock, call(links))
    return caught.value


class TestFailure:
    @pytest.mark.parametrize("operation", OPERATIONS)
    @pytest.mark.parametrize(
        "name", needing_a_tracker([*FAILURES, "is not there"], {"closes", "talks no HTTP", "hangs"})
    )
    @pytest.mark.slow
    async def test_of_a_proxy(
        self,
        authority: Authority,
        clock: Clock,
        caplog: pytest.LogCaptureFixture,
        name: str,
        operation: str,
    ) -> None:
        """A failure of the proxy says that nothing was sent, names host and port, and hides the login."""
        caplog.set_level(logging.DEBUG)
        not_there = (b"",), ConnectError, "connection refused: check the proxy and the network"
        parts, kind, reported = FAILURES.get(name, not_there)
        events: list[object] = []
        async with answering(*parts) as (proxy, requests):
            if name == "is not there":
                proxy = f"http://{LOGIN}@{HOST}:{unused_port()}"
            async with client("https://localhost:1", authority, proxy, events) as links:
                error = await raised_by(links, operation, clock)
                assert_nothing_of(SECRETS, [repr(links), str(links)])
        assert isinstance(error, kind)
        assert reported in str(error)
        assert f"(through the proxy {proxy.rpartition('@')[2]})" in str(error)
        assert all(request.startswith(b"CONNECT localhost:1 ") for request in requests)
        times = {"is not there": 0, "wants a login": 1, "closes": 2 if operation == "create" else 4}
        assert len(requests) == times.get(name, 2)
        assert events
        assert_nothing_of(SECRETS, [*texts_of(error), *map(repr, events)])
        for record in caplog.records:
            assert_nothing_of(SECRETS, texts_of_record(record))


@pytest.mark.parametrize(
    "proxy",
    [
        "proxy.example",
        "proxy.example:3128",
        f"{LOGIN}@proxy.example:3128",
        f"socks5://{LOGIN}@proxy.example",
        f"http://{LOGIN}@",
        f"http://{LOGIN}@proxy.example:port",
        f"http://{LOGIN}@proxy.example:99999",
        f"http://{LOGIN}@[proxy.example",
    ],
)
def test_a_proxy_that_is_none(proxy: str) -> None:
    """A proxy that is not an http or https URL is refused without quoting it."""
    with pytest.raises(ParameterError, match="proxy must be a URL") as caught:
        CaseLinksClient(Site.US1, BearerToken("the-token"), proxy=proxy)
    assert_nothing_of(SECRETS, traceback.format_exception(caught.value))
