"""What clients share: pooled HTTP sessions, one for each site, and the gates. Sends nothing itself."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Sequence
from typing import Final, Self
from weakref import WeakSet, WeakValueDictionary

import aiohttp
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from datadog_caselinks.credentials import Credentials
from datadog_caselinks.errors import ParameterError, SessionError
from datadog_caselinks.http.gate import Gate
from datadog_caselinks.sites import Site
from datadog_caselinks.version import __version__


def user_agent() -> str:
    """Return the User-Agent header of requests."""
    python = f"python {sys.version_info.major}.{sys.version_info.minor}"
    return f"datadog_caselinks/{__version__} ({python}; aiohttp {aiohttp.__version__})"


_AUTHORIZATION: Final = ("Authorization", "DD-API-KEY", "DD-APPLICATION-KEY")

_ROUNDS: Final = 100
"""Iterations of the event loop to wait for a connection that was shut down; it takes two or three."""


class _Connector(aiohttp.TCPConnector):
    """A connector that drops a pooled connection on which an unsolicited response arrived.

    With aiohttp's own, the next request would take it for its response, and each later one the response of
    the request before.
    """

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        while (pooled := await super()._get(key, traces)) and _has_unread(pooled):
            pooled.close()
        return pooled


def _has_unread(pooled: Connection) -> bool:
    return pooled.protocol is not None and pooled.protocol.should_close


class SessionManager:
    """Pools connections for each Datadog site; several clients can share one.

    Clients with the same site and credentials also share what is known of the rate limit, and keep it
    together.

    ``async with SessionManager() as sessions`` closes it at the end. A manager can be made before the event
    loop runs: sessions open on first use, in the loop that is running then, and belong to that loop.

    ``session``
        An ``aiohttp.ClientSession`` of your own, used for every site and never closed here. Use it in the
        event loop in which it was made. A client has no more requests in flight than the session's connector
        has connections; other users of the session may still make them wait while the timeout runs.
    ``trace_configs``
        Those of the sessions that are opened here. They see the headers of each request, so also its keys.

    Raises :class:`ParameterError` if ``session`` sends credentials of its own, or may (``trust_env``): they
    would reach Datadog beside those of the client.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession | None = None,
        *,
        trace_configs: Sequence[aiohttp.TraceConfig] = (),
    ) -> None:
        if session is not None:
            _refuse_authorization(session)
            if trace_configs:
                raise ParameterError("trace_configs: pass them to your own aiohttp.ClientSession instead")
        self._trace_configs = trace_configs
        self._borrowed = session
        self._opened: dict[Site, aiohttp.ClientSession] = {}
        self._gates: WeakValueDictionary[tuple[Site, Credentials], Gate] = WeakValueDictionary()
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._loop: asyncio.AbstractEventLoop | None = None
        if session is not None:
            with contextlib.suppress(RuntimeError):  # no loop is running: the first use decides
                self._loop = asyncio.get_running_loop()
        self._closed = False

    @property
    def max_connections(self) -> int | None:
        """The most connections to one site that may be open at once; ``None``: any number."""
        connector = self._borrowed.connector if self._borrowed else None
        if connector is None:
            return None
        return min((limit for limit in (connector.limit, connector.limit_per_host) if limit), default=None)

    def session(self, site: Site) -> aiohttp.ClientSession:
        """Return the session for ``site``, and open it if it is not open yet.

        Raises :class:`SessionError` after :meth:`close`, and in another event loop than the first use.
        """
        loop = asyncio.get_running_loop()
        if self._closed:
            raise SessionError("this client or its SessionManager is closed: make a new one")
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise SessionError(
                "this client belongs to the event loop in which it was first used: make one inside each "
                "asyncio.run(), or in the loop that your framework runs"
            )
        session = self._borrowed or self._opened.get(site)
        if session is None:
            session = self._opened[site] = self._open()
        if session.closed:
            raise SessionError("the aiohttp.ClientSession in use was closed: make a new one and a new client")
        return session

    def gate(self, site: Site, credentials: Credentials) -> Gate:
        """Return the gate of all requests to ``site`` with ``credentials``, which the server counts together.

        It lives as long as one of the clients that use it.
        """
        return self._gates.setdefault((site, credentials), Gate())

    async def close(self) -> None:
        """Close the sessions that were opened here; requests in flight fail. A second call does nothing."""
        self._closed = True
        async with contextlib.AsyncExitStack() as closing:  # closes each, also when this is cancelled
            closing.push_async_callback(self._hang_up)
            while self._opened:
                _, session = self._opened.popitem()
                closing.push_async_callback(session.close)

    def _open(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=self._connector(),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": user_agent()},
            trace_configs=list(self._trace_configs),
        )

    def _connector(self) -> aiohttp.TCPConnector:
        # Each client bounds its own requests; with a limit here, attempts would wait while their timeout
        # runs.
        return _Connector(limit=0, socket_factory=self._socket)

    def _socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, *_ = address
        opened = socket.socket(family, kind, protocol)
        self._sockets.add(opened)
        return opened

    async def _hang_up(self) -> None:
        """Close the TLS connections of cancelled requests, which aiohttp leaves open for up to 30 s."""
        for opened in self._sockets:
            with contextlib.suppress(OSError):  # most are closed already
                opened.shutdown(socket.SHUT_RDWR)
        rounds = 0
        while rounds < _ROUNDS and any(opened.fileno() != -1 for opened in self._sockets):
            rounds += 1
            await asyncio.sleep(0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _refuse_authorization(session: aiohttp.ClientSession) -> None:
    own = [name for name in _AUTHORIZATION if name in session.headers]
    if session.auth is not None:
        own.append("Authorization, by auth=")
    if own:
        raise ParameterError(
            f"sessions: the aiohttp.ClientSession sends credentials of its own with every request "
            f"({', '.join(own)}), which would reach Datadog: pass a session without them"
        )
    if session.trust_env:
        raise ParameterError(
            "sessions: the aiohttp.ClientSession has trust_env=True, so it may add a login from netrc: "
            "pass one without it, and name a proxy in proxy="
        )
