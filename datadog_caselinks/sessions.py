"""The pooled HTTP sessions, one for each site: opened on first use, closed once. Sends nothing itself."""

from __future__ import annotations

import asyncio
import sys
from importlib.metadata import version
from typing import Final, Self

import aiohttp

from datadog_caselinks.errors import ConfigurationError, SessionError
from datadog_caselinks.sites import Site

USER_AGENT: Final = (
    f"datadog_caselinks/{version('datadog_caselinks')} "
    f"(python {sys.version_info.major}.{sys.version_info.minor}; aiohttp {aiohttp.__version__})"
)


class SessionManager:
    """Pools connections for each Datadog site; several clients can share one.

    ``async with SessionManager() as sessions`` closes it at the end. Making one needs no running event
    loop: sessions open on first use, in the loop that is running then, and stay with that loop.

    ``session`` is an ``aiohttp.ClientSession`` of your own, to be used for every site. It is never closed
    here, and its connector's limits are respected. :class:`ConfigurationError` is raised if it sends an
    ``Authorization`` of its own, which would reach Datadog beside the credentials given to the client.
    """

    def __init__(self, session: aiohttp.ClientSession | None = None) -> None:
        if session is not None:
            _refuse_authorization(session)
        self._borrowed = session
        self._opened: dict[Site, aiohttp.ClientSession] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
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
            session = self._opened[site] = _open()
        if session.closed:
            raise SessionError("the aiohttp.ClientSession in use was closed: make a new one and a new client")
        return session

    async def close(self) -> None:
        """Close what was opened here. Requests still under way fail; a second call does nothing."""
        self._closed = True
        while self._opened:
            _, session = self._opened.popitem()
            await session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _open() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        # Each client bounds its own requests; a limit here would only run down the clock of an attempt.
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": USER_AGENT},
    )


def _refuse_authorization(session: aiohttp.ClientSession) -> None:
    if session.auth is not None or "Authorization" in session.headers:
        raise ConfigurationError(
            "the aiohttp.ClientSession sends an Authorization of its own with every request, which would "
            "reach Datadog: pass a session without one"
        )
