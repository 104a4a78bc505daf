"""What clients share: the pooled HTTP sessions, one for each site, and the gates. Sends nothing itself."""

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
from datadog_caselinks.errors import ConfigurationError, SessionError
from datadog_caselinks.http.gate import Gate
from datadog_caselinks.sites import Site


def user_agent() -> str:
    """What requests say of their sender."""
    from importlib.metadata import version  # not before it is needed: it reads files, and mail comes with it

    return (
        f"datadog_caselinks/{version('datadog_caselinks')} "
        f"(python {sys.version_info.major}.{sys.version_info.minor}; aiohttp {aiohttp.__version__})"
    )


_AUTHORIZATION: Final = ("Authorization", "DD-API-KEY", "DD-APPLICATION-KEY")

_ROUNDS: Final = 100
"""Rounds of the event loop in which a connection that was shut down closes; it takes two or three."""


class _Connector(aiohttp.TCPConnector):
    """Gives up a pooled connection on which something came that nobody asked for.

    Of aiohttp the next request would take it for its answer, and each later one the answer of the one before.
    """

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        while (pooled := await super()._get(key, traces)) and _has_unread(pooled):
            pooled.close()
        return pooled


def _has_unread(pooled: Connection) -> bool:
    return pooled.protocol is not None and pooled.protocol.should_close


class SessionManager:
    """Pools connections for each Datadog site; several clients can share one.

    Those with the same site and credentials also share what is known of the rate limit, and keep it together.

    ``async with SessionManager() as sessions`` closes it at the end. Making one needs no running event
    loop: sessions open on first use, in the loop that is running then, and stay with that loop.

    ``session`` is an ``aiohttp.ClientSession`` of your own, to be used for every site. It is never closed
    here. Use it in the event loop that it was made in. Each client has no more requests under way than its
    connector has connections; what else uses the session may still make them wait with the clock running.
    :class:`ConfigurationError` is raised if it sends credentials of its own, or may (``trust_env``), which
    would reach Datadog beside those given to the client.

    ``trace_configs`` are those of the sessions that are opened here. They see each request with its headers,
    so also its keys.
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
                raise ConfigurationError("give trace_configs to the aiohttp.ClientSession, which is your own")
        self._trace_configs = trace_configs
        self._borrowed = session
        self._opened: dict[Site, aiohttp.ClientSession] = {}
        self._gates: WeakValueDictionary[tuple[Site, Credentials], Gate] = WeakValueDictionary()
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._loop: asyncio.AbstractEventLoop | None = None
        if session is not None:
            with contextlib.suppress(RuntimeError):  # no loop runs: the first use tells
                self._loop = asyncio.get_running_loop()
        self._closed = False

    @property
    def max_connections(self) -> int | None:
        """How many connections to one site may be open at once; ``None`` is any number."""
        connector = self._borrowed.connector if self._borrowed else None
        if connector is None:
            return None
        return min((limit for limit in (connector.limit, connector.limit_per_host) if limit), default=None)

    def session(self, site: Site) -> aiohttp.ClientSession:
        """The session for ``site``, opened if it is not yet.

        Raises :class:`SessionError` after :meth:`close`, and in another event loop than the first use.
        """
        loop = asyncio.get_running_loop()
        if self._closed:
            raise SessionError("this client or its SessionManager is closed: make a new one")
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise SessionError(
                "this client belongs to the event loop that it was first used in: make one inside each "
                "asyncio.run(), or in the loop that your framework runs"
            )
        session = self._borrowed or self._opened.get(site)
        if session is None:
            session = self._opened[site] = self._open()
        if session.closed:
            raise SessionError("the aiohttp.ClientSession in use was closed: make a new one and a new client")
        return session

    def gate(self, site: Site, credentials: Credentials) -> Gate:
        """The gate of all requests to ``site`` with ``credentials``, which the server counts together.

        It lasts as long as one of the clients that have it.
        """
        return self._gates.setdefault((site, credentials), Gate())

    async def close(self) -> None:
        """Close what was opened here; requests under way fail. A second call does nothing."""
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
        # Each client bounds its own requests; a limit here would only run down the clock of an attempt.
        return _Connector(limit=0, socket_factory=self._socket)

    def _socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, *_ = address
        opened = socket.socket(family, kind, protocol)
        self._sockets.add(opened)
        return opened

    async def _hang_up(self) -> None:
        """End what aiohttp leaves behind: the TLS connection of a cancelled request says goodbye for up to
        30 s to a server that may not listen any more.
        """
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
        raise ConfigurationError(
            f"the aiohttp.ClientSession sends credentials of its own with every request ({', '.join(own)}), "
            "which would reach Datadog: pass a session without them"
        )
    if session.trust_env:
        raise ConfigurationError(
            "the aiohttp.ClientSession has trust_env=True, so it may add the login of a netrc file: pass one "
            "without, and name a proxy in proxy="
        )
