"""The right to work on a chunk, and what became of its links. Knows SQL, and no HTTP.

A job can come to two workers: one that is thought to be dead, because it did not say for some seconds that it
is alive, may still be at work. So a worker must hold the chunk's lock, which PostgreSQL keeps for as long as
one connection lives, and works only while that does. A dead process has no connection, and neither have those
whom a restart of the database took it from.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final, LiteralString, Self

import psycopg
from procrastinate import App
from psycopg import AsyncConnection
from psycopg.rows import TupleRow, tuple_row

from datadog_caselinks.errors import CaseLinksError
from datadog_caselinks.fleet.database import TIMEOUT, pool_of
from datadog_caselinks.fleet.runs import FleetState
from datadog_caselinks.messages import storable
from datadog_caselinks.models import CaseLink
from datadog_caselinks.references import WantedLink, parse_link

_INTERVAL: Final = 0.5
"""Seconds between two looks whether the connection lives, each of which writes what came meanwhile."""

# A lock whose holder was cut off is free within half a minute; the holder itself notices before that.
_KEEPALIVES: Final = (
    "SET tcp_keepalives_idle = 15; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3"
)

_TAKE: Final = (
    "SELECT pg_try_advisory_lock(hashtextextended(format('caselinks %%s %%s', %s::bigint, %s::bigint), 0))"
)
_SITE: Final = "SELECT site FROM caselinks_runs WHERE run = %s"
_PENDING: Final = """
SELECT number, parent, relationship, child FROM caselinks_links
WHERE run = %s AND chunk = %s AND state = 'pending' ORDER BY number"""
_WRITE: Final = """
UPDATE caselinks_links AS link SET state = came.state, link_id = came.link_id, error = came.error, at = now()
FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::text[]) AS came (number, state, link_id, error)
WHERE link.run = %s AND link.chunk = %s AND link.number = came.number"""
_HOLD_UP: Final = "UPDATE caselinks_links SET error = %s WHERE run = %s AND chunk = %s AND state = 'pending'"


class ChunkTakenError(Exception):
    """Another worker is at work on the chunk."""


class Lease:
    """The right to work on one chunk, until the connection that holds it ends."""

    def __init__(self, connection: AsyncConnection[TupleRow], run: int, chunk: int) -> None:
        self._connection = connection
        self.run = run
        self._chunk = (run, chunk)
        self._came: list[tuple[int, FleetState, str | None, str | None]] = []
        self._writing = asyncio.Lock()

    @classmethod
    @contextlib.asynccontextmanager
    async def taken(cls, app: App, run: int, chunk: int) -> AsyncIterator[Self]:
        """Take it. Raises :class:`ChunkTakenError` if another has it.

        An error that it is left by is kept with the links that have no outcome.
        """
        async with await _connect(app) as connection:
            lease = cls(connection, run, chunk)
            if not (await lease._rows(_TAKE, run, chunk))[0][0]:
                raise ChunkTakenError(f"another worker has chunk {chunk} of run {run}")
            try:
                yield lease
            except Exception as error:
                with contextlib.suppress(psycopg.Error):  # which it may have been left by
                    await lease._rows(_HOLD_UP, _kept(error), run, chunk)
                raise

    async def site(self) -> str:
        """The API URL of the site that the links belong to."""
        return str((await self._rows(_SITE, self.run))[0][0])

    async def pending(self) -> list[tuple[int, WantedLink]]:
        """The links that have no outcome yet, with their numbers."""
        rows = await self._rows(_PENDING, *self._chunk)
        return [(number, parse_link(*texts)) for number, *texts in rows]

    def linked(self, number: int, link: CaseLink, *, is_new: bool) -> None:
        """The link of that number is there, as ``link``."""
        self._came.append(
            (number, FleetState.CREATED if is_new else FleetState.ALREADY_LINKED, link.id, None)
        )

    def failed(self, number: int, error: CaseLinksError, *, is_ambiguous: bool) -> None:
        """The link of that number was not made, or not surely made, because of ``error``."""
        state = FleetState.AMBIGUOUS if is_ambiguous else FleetState.FAILED
        self._came.append((number, state, None, _kept(error)))

    async def write(self) -> None:
        """Write the outcomes that came, or else just see whether the lease still holds.

        Raises :class:`psycopg.Error` or :class:`TimeoutError` if it does not.
        """
        async with self._writing, asyncio.timeout(TIMEOUT):
            came, self._came = self._came, []
            columns = [list(column) for column in zip(*came, strict=True)] or [[], [], [], []]
            await self._rows(_WRITE, *columns, *self._chunk)

    async def keep(self) -> None:
        """Write what comes, until cancelled. Raises as :meth:`write` once the lease is lost."""
        while True:
            await asyncio.sleep(_INTERVAL)
            await self.write()

    async def _rows(self, statement: LiteralString, *parameters: object) -> list[TupleRow]:
        cursor = await self._connection.execute(statement, parameters)
        return await cursor.fetchall() if cursor.description else []


async def _connect(app: App) -> AsyncConnection[TupleRow]:
    """A connection as those of ``app``, of its own: a pool may have as few as one."""
    async with pool_of(app).connection() as pooled:
        dsn, password = pooled.info.dsn, pooled.info.password
    connection = await AsyncConnection.connect(
        dsn, password=password, autocommit=True, connect_timeout=int(TIMEOUT), row_factory=tuple_row
    )
    await connection.execute(_KEEPALIVES)
    return connection


def _kept(error: Exception) -> str:
    return storable(str(error)).replace("\0", "")  # which PostgreSQL cannot hold either
