"""HTTP sessions with pooled connections, one for each site, and the rate-limit gates of clients."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Self
from weakref import WeakSet, WeakValueDictionary

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from datadog_caselinks.credentials import Credentials
from datadog_caselinks.errors import ParameterError, SessionError
from datadog_caselinks.http.gate import Gate
from datadog_caselinks.sites import Site
from datadog_caselinks.version import __version__


def user_agent() -> str:
    """Return the value of the ``User-Agent`` header of requests."""
    python = f"python {sys.version_info.major}.{sys.version_info.minor}"
    return f"datadog_caselinks/{__version__} ({python}; aiohttp {aiohttp.__version__})"


_AUTHORIZATION: Final = ("Authorization", "DD-API-KEY", "DD-APPLICATION-KEY")

_ROUNDS: Final = 100
"""The maximum number of event-loop iterations to wait for a connection to close; it takes two or three."""


class _Connector(aiohttp.TCPConnector):
    """A connector that drops a pooled connection if an unsolicited response arrived on it.

    With aiohttp's own connector, the next request on it would receive that response, and each later request
    the response to the one before.
    """

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        while (pooled := await super()._get(key, traces)) and _has_unread(pooled):
            pooled.close()
        return pooled


def _has_unread(pooled: Connection) -> bool:
    return pooled.protocol is not None and pooled.protocol.should_close


def closing(response: aiohttp.ClientResponse) -> Callable[[], None]:
    """Return a function that closes the connection of ``response``, even if it is in the pool again."""
    return partial(_close, response._protocol)


def _close(protocol: ResponseHandler | None) -> None:
    if protocol is None:
        return
    try:
        asyncio.get_running_loop()
    except RuntimeError:  # in the thread that decodes a long body
        protocol._loop.call_soon_threadsafe(protocol.close)
    else:
        protocol.close()


class SessionManager:
    """A pool of connections for each Datadog site, which several clients can share.

    ``async with SessionManager() as sessions`` closes the pool at the end. A manager can be created before
    the event loop runs: it opens sessions on first use, and then belongs to the event loop that is running.
    Clients with the same site and credentials also share the rate limit.

    Args:
        session: An ``aiohttp.ClientSession`` of your own, which is used for all sites and never closed by the
            manager. It must be used in the event loop in which it was created. A client sends no more
            requests at once than the session's connector allows connections; if the session has other users,
            requests may still wait for a connection while their timeout runs.
        trace_configs: aiohttp's hooks, for the sessions that the manager opens. They see the headers of each
            request, and therefore the keys.

    Raises:
        ParameterError: ``session`` sends credentials of its own, or might (``trust_env=True``), which would
            reach Datadog with those of the client. Or both ``session`` and ``trace_configs`` are given.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession | None = None,
        *,
        trace_configs: Sequence[aiohttp.TraceConfig] = (),
    ) -> None:
        if session is not None:
            _refuse_own_credentials(session)
            if trace_configs:
                raise ParameterError("trace_configs: pass them to your own aiohttp.ClientSession instead")
        self._trace_configs = trace_configs
        self._borrowed = session
        self._opened: dict[Site, aiohttp.ClientSession] = {}
        self._gates: WeakValueDictionary[tuple[Site, Credentials], Gate] = WeakValueDictionary()
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._loop: asyncio.AbstractEventLoop | None = None
        if session is not None:
            with contextlib.suppress(RuntimeError):  # no loop is running yet: the first use decides
                self._loop = asyncio.get_running_loop()
        self._closed = False

    @property
    def max_connections(self) -> int | None:
        """The maximum number of open connections to one site; ``None`` if there is no maximum."""
        connector = self._borrowed.connector if self._borrowed else None
        if connector is None:
            return None
        return min((limit for limit in (connector.limit, connector.limit_per_host) if limit), default=None)

    def session(self, site: Site) -> aiohttp.ClientSession:
        """Return the session for ``site``, and open it on first use.

        Raises:
            SessionError: The manager or its session is closed, or another event loop used it first.
        """
        loop = asyncio.get_running_loop()
        if self._closed:
            raise SessionError("this client or its SessionManager is closed: create a new one")
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise SessionError(
                "this client belongs to the event loop in which it was first used: create one inside each "
                "asyncio.run(), or in the event loop of your framework"
            )
        session = self._borrowed or self._opened.get(site)
        if session is None:
            session = self._opened[site] = self._open()
        if session.closed:
            raise SessionError("the aiohttp.ClientSession is closed: create a new one, and a new client")
        return session

    def gate(self, site: Site, credentials: Credentials) -> Gate:
        """Return the rate-limit gate of all requests to ``site`` with ``credentials``.

        The gate exists as long as a client uses it.
        """
        return self._gates.setdefault((site, credentials), Gate())

    async def close(self) -> None:
        """Close the sessions that the manager opened. Requests in flight fail. A second call does nothing."""
        self._closed = True
        async with contextlib.AsyncExitStack() as closing:  # closes all, even if cancelled
            closing.push_async_callback(self._shut_down_sockets)
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
        # Unlimited, because each client limits its own requests: here, attempts would wait for a connection
        # while their timeout runs.
        return _Connector(limit=0, socket_factory=self._socket)

    def _socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, *_ = address
        opened = socket.socket(family, kind, protocol)
        self._sockets.add(opened)
        return opened

    async def _shut_down_sockets(self) -> None:
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


def _refuse_own_credentials(session: aiohttp.ClientSession) -> None:
    own = [name for name in _AUTHORIZATION if name in session.headers]
    if session.auth is not None:
        own.append("Authorization, by auth=")
    if own:
        raise ParameterError(
            f"session: the aiohttp.ClientSession adds its own credentials to every request "
            f"({', '.join(own)}), which would reach Datadog: pass a session without them"
        )
    if session.trust_env:
        raise ParameterError(
            "session: the aiohttp.ClientSession has trust_env=True, so it may add credentials from netrc: "
            "pass a session without trust_env, and pass a proxy as proxy="
        )
