"""HTTP sessions with pooled connections, one for each site, and the rate-limit gates of clients."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Sequence
from typing import Final, Self, cast
from weakref import WeakSet, WeakValueDictionary

import aiohttp

from datadog_caselinks.http.compatibility import Connector, reports_resends, stop_resends
from datadog_caselinks.http.gate import Gate
from datadog_caselinks.http.trust import Trust, require_verifying
from datadog_caselinks.values.credentials import Credentials
from datadog_caselinks.values.errors import ParameterError, SessionError
from datadog_caselinks.values.parameters import require
from datadog_caselinks.values.sites import Site
from datadog_caselinks.version import __version__


def user_agent() -> str:
    """Return the value of the ``User-Agent`` header of requests."""
    python = f"python {sys.version_info.major}.{sys.version_info.minor}"
    return f"datadog_caselinks/{__version__} ({python}; aiohttp {aiohttp.__version__})"


_AUTHORIZATION: Final = ("Authorization", "DD-API-KEY", "DD-APPLICATION-KEY")

_ROUNDS: Final = 100
"""The maximum number of event-loop iterations to wait for a connection to close; it takes two or three."""


class SessionManager:
    """A pool of connections for each Datadog site, which several clients can share.

    ``async with SessionManager() as sessions`` closes the pool at the end. A manager can be created before
    the event loop runs: it opens sessions on first use, and then belongs to the event loop that is running.
    Clients with the same site and credentials also share the rate limit.

    Args:
        session: An ``aiohttp.ClientSession`` of your own, which is used for all sites and never closed by the
            manager. It must be used in the event loop in which it was created. A client sends no more
            concurrent requests than the session's connector has connections; if the session has other users,
            requests may still wait for a connection while their timeout runs.
        trace_configs: aiohttp's hooks, for the sessions that the manager opens. They see the headers of each
            request, and therefore the keys.

    Raises:
        ParameterError: ``session`` sends its own credentials to Datadog, or might (``trust_env=True``); its
            connector does not check certificates; ``session`` and ``trace_configs`` are both given; or one of
            them has the wrong type.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession | None = None,
        *,
        trace_configs: Sequence[aiohttp.TraceConfig] = (),
    ) -> None:
        _require_trace_configs(trace_configs)
        if session is not None:
            require("session", session, aiohttp.ClientSession, "an aiohttp.ClientSession")
            _refuse_own_credentials(session)
            _refuse_unverified(session)
            if trace_configs:
                raise ParameterError("trace_configs: pass them to your own aiohttp.ClientSession instead")
        self._trace_configs = trace_configs
        self._borrowed = session
        self._opened: dict[str, aiohttp.ClientSession] = {}  # by the URL of the API
        self._gates: WeakValueDictionary[tuple[Site, Credentials], Gate] = WeakValueDictionary()
        self._trust: Trust | None = None
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._loop: asyncio.AbstractEventLoop | None = None
        if session is not None:
            with contextlib.suppress(RuntimeError):  # no loop is running yet: the first use decides
                self._loop = asyncio.get_running_loop()
        self._closed = False
        self._may_resend = reports_resends()

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
        session = self._borrowed or self._opened.get(site.api_url)
        if session is None:
            session = self._opened[site.api_url] = self._open()
        if session.closed:
            raise SessionError("the aiohttp.ClientSession is closed: create a new one, and a new client")
        return session

    def trust(self, site: Site) -> Trust:
        """Return the TLS settings for clients of ``site`` that have none.

        All these clients get the same settings, so that they can share connections.
        """
        if self._borrowed:
            return Trust.of_session(_tls_settings(self._borrowed))
        if self._trust is None and site.api_url.startswith("https:"):
            self._trust = Trust.of_environment()
        return self._trust or _ON_LOOPBACK

    def gate(self, site: Site, credentials: Credentials) -> Gate:
        """Return the rate-limit gate of all requests to ``site`` with ``credentials``.

        The gate exists as long as a client uses it.
        """
        return self._gates.setdefault((site, credentials), Gate())

    def stop_resends(self) -> None:
        """Keep the sessions that the manager opens from repeating requests by themselves.

        A client with a ``rate`` could not count these requests. It retries them itself instead. A session of
        the caller stays unchanged, since other code uses it: requests that aiohttp repeats there do not count
        towards the rate, and before aiohttp 3.14.4 a repeated delete may get a 404.
        """
        self._may_resend = False
        for session in self._opened.values():
            stop_resends(session)

    async def close(self) -> None:
        """Close the sessions that the manager opened. Requests in flight fail. A second call does nothing."""
        self._closed = True
        async with contextlib.AsyncExitStack() as closing:  # closes all, even if cancelled
            closing.push_async_callback(self._shut_down_sockets)
            while self._opened:
                _, session = self._opened.popitem()
                closing.push_async_callback(session.close)

    def _open(self) -> aiohttp.ClientSession:
        session = aiohttp.ClientSession(
            connector=self._connector(),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": user_agent()},
            trace_configs=list(self._trace_configs),
        )
        if not self._may_resend:
            stop_resends(session)
        return session

    def _connector(self) -> aiohttp.TCPConnector:
        return Connector(self._sockets)

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


_ON_LOOPBACK: Final = Trust.of_session(None)
"""The TLS settings of a site without TLS."""


def _tls_settings(session: aiohttp.ClientSession) -> object:
    """Return the ``ssl`` of the session's connector, or ``True`` for a connector that does not have any."""
    return getattr(session.connector, "_ssl", True)


def _refuse_unverified(session: aiohttp.ClientSession) -> None:
    settings = _tls_settings(session)
    if not isinstance(settings, aiohttp.Fingerprint):  # which names one certificate
        require_verifying("session: the ssl of the aiohttp.ClientSession's connector", settings)


def _require_trace_configs(given: object) -> None:
    takes = "a list of aiohttp.TraceConfig"
    require("trace_configs", given, (list, tuple), takes)
    for each in cast("Sequence[object]", given):
        require("trace_configs", each, aiohttp.TraceConfig, takes)
