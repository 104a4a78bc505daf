"""The lease of a chunk: the exclusive right to work on it, and the place to record its outcomes.

Two workers can get the same job: a worker whose heartbeats are late is considered dead, but may still be
running. So a worker must hold an advisory lock for the chunk. PostgreSQL releases the lock when the
connection ends, because the process died or the database restarted; the worker stops when it loses the
connection.
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
"""Seconds between two writes of the outcomes, which also check that the connection is alive."""

# PostgreSQL frees the lock of an unreachable worker within 30 seconds. The worker itself notices sooner.
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
UPDATE caselinks_links AS link SET state = new.state, link_id = new.link_id, error = new.error, at = now()
FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::text[]) AS new (number, state, link_id, error)
WHERE link.run = %s AND link.chunk = %s AND link.number = new.number"""
_HOLD_UP: Final = "UPDATE caselinks_links SET error = %s WHERE run = %s AND chunk = %s AND state = 'pending'"


class ChunkTakenError(Exception):
    """Another worker holds the lease of the chunk."""


class Lease:
    """The exclusive right to work on one chunk. It ends with its connection."""

    def __init__(self, connection: AsyncConnection[TupleRow], run: int, chunk: int) -> None:
        self._connection = connection
        self.run = run
        self._chunk = (run, chunk)
        self._outcomes: list[tuple[int, FleetState, str | None, str | None]] = []
        self._writing = asyncio.Lock()

    @classmethod
    @contextlib.asynccontextmanager
    async def acquire(cls, app: App, run: int, chunk: int) -> AsyncIterator[Self]:
        """Acquire the lease of a chunk. Raises :class:`ChunkTakenError` if another worker holds it.

        If the body raises, the error is recorded with the links that have no outcome.
        """
        async with await _connect(app) as connection:
            lease = cls(connection, run, chunk)
            if not (await lease._rows(_TAKE, run, chunk))[0][0]:
                raise ChunkTakenError(f"another worker has chunk {chunk} of run {run}")
            try:
                yield lease
            except Exception as error:
                with contextlib.suppress(psycopg.Error):  # the connection itself may have failed
                    await lease._rows(_HOLD_UP, _stored(error), run, chunk)
                raise

    async def site(self) -> str:
        """Return the API URL of the site that the links belong to."""
        return str((await self._rows(_SITE, self.run))[0][0])

    async def pending(self) -> list[tuple[int, WantedLink]]:
        """Return the links that have no outcome yet, with their numbers."""
        rows = await self._rows(_PENDING, *self._chunk)
        return [(number, parse_link(*texts)) for number, *texts in rows]

    def linked(self, number: int, link: CaseLink, *, is_new: bool) -> None:
        """Record that the link with this number exists as ``link``."""
        self._outcomes.append(
            (number, FleetState.CREATED if is_new else FleetState.ALREADY_LINKED, link.id, None)
        )

    def failed(self, number: int, error: CaseLinksError, *, is_ambiguous: bool) -> None:
        """Record that the link with this number failed, or is ambiguous, because of ``error``."""
        state = FleetState.AMBIGUOUS if is_ambiguous else FleetState.FAILED
        self._outcomes.append((number, state, None, _stored(error)))

    async def write(self) -> None:
        """Write the recorded outcomes. Without any, only check that the lease still holds.

        Raises:
            psycopg.Error, TimeoutError: The lease is lost.
        """
        async with self._writing, asyncio.timeout(TIMEOUT):
            outcomes, self._outcomes = self._outcomes, []
            columns = [list(column) for column in zip(*outcomes, strict=True)] or [[], [], [], []]
            await self._rows(_WRITE, *columns, *self._chunk)

    async def keep(self) -> None:
        """Write outcomes regularly until cancelled. Raises like :meth:`write` once the lease is lost."""
        while True:
            await asyncio.sleep(_INTERVAL)
            await self.write()

    async def _rows(self, statement: LiteralString, *parameters: object) -> list[TupleRow]:
        cursor = await self._connection.execute(statement, parameters)
        return await cursor.fetchall() if cursor.description else []


async def _connect(app: App) -> AsyncConnection[TupleRow]:
    """Open a connection like those of ``app``, outside of its pool, which may have only one."""
    async with pool_of(app).connection() as pooled:
        dsn, password = pooled.info.dsn, pooled.info.password
    connection = await AsyncConnection.connect(
        dsn, password=password, autocommit=True, connect_timeout=int(TIMEOUT), row_factory=tuple_row
    )
    await connection.execute(_KEEPALIVES)
    return connection


def _stored(error: Exception) -> str:
    return storable(str(error)).replace("\0", "")  # PostgreSQL cannot store NUL
