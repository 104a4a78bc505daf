"""The lease of a chunk: the exclusive right to work on it, and the place to record its outcomes.

Two workers can get the same job: a worker whose heartbeats are late is considered dead, but may still be
running. So a worker must hold an advisory lock for the chunk. PostgreSQL releases the lock when the
connection ends, because the process died or the database restarted; the worker stops when it loses the
connection.

A worker that was frozen notices late that it has lost the connection. So the right to send also has a time
limit: each renewal, which shows that the connection and thus the lock still exists, allows the worker to
send for ``_SEND_WITHIN`` seconds by its own clocks. The next holder of the lock waits for ``_LEASE`` seconds
by its own clock, if the row of the lease shows that the previous holder may still be sending.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator
from typing import Final, LiteralString, Self

import psycopg
from procrastinate import App
from psycopg import AsyncConnection
from psycopg.rows import TupleRow, tuple_row

from datadog_caselinks.fleet.database import ENCODING, TIMEOUT, pool_of, stored, translate_errors
from datadog_caselinks.fleet.runs import FleetStatus
from datadog_caselinks.values.errors import CaseLinksError, FleetError, InvalidLinkError
from datadog_caselinks.values.messages import one_line
from datadog_caselinks.values.models import CaseLink, WantedLink
from datadog_caselinks.values.references import parse_link

_INTERVAL: Final = 0.5
"""Seconds between two renewals, which also write the outcomes."""

_LEASE: Final = 5.0
"""Seconds that a worker waits after it took the lock of a previous holder, which may still be sending.

The wait begins when the worker gets the lock. The previous holder cannot have renewed later, because it
renews over the connection that had the lock. The worker uses its own clock, because someone may set the clock
of the database."""

_SEND_WITHIN: Final = 3.0
"""Seconds after a renewal in which creates may be sent. The rest of ``_LEASE`` is for the server to apply the
last ones."""

# PostgreSQL frees the lock of an unreachable worker within 30 seconds. The worker itself notices sooner.
_KEEPALIVES: Final = (
    "SET tcp_keepalives_idle = 15; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3"
)

_TAKE: Final = (
    "SELECT pg_try_advisory_lock(hashtextextended(format('caselinks %%s %%s', %s::bigint, %s::bigint), 0))"
)
# Writes even if nothing changes: with synchronous replication, a database that was replaced cannot commit.
_RENEW: Final = """
INSERT INTO caselinks_leases (run, chunk)
SELECT run, %s FROM caselinks_runs WHERE run = %s
ON CONFLICT (run, chunk) DO UPDATE SET chunk = EXCLUDED.chunk"""
_IS_LEFT: Final = "SELECT true FROM caselinks_leases WHERE run = %s AND chunk = %s"
_RELEASE: Final = "DELETE FROM caselinks_leases WHERE run = %s AND chunk = %s"
_PENDING: Final = """
SELECT number, parent, relationship, child FROM caselinks_links
WHERE run = %s AND chunk = %s AND state = 'pending' ORDER BY number"""
_WRITE: Final = """
UPDATE caselinks_links AS link SET state = new.state, link_id = new.link_id, error = new.error, at = now()
FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::text[]) AS new (number, state, link_id, error)
WHERE link.run = %s AND link.chunk = %s AND link.number = new.number"""
_HOLD_UP: Final = "UPDATE caselinks_links SET error = %s WHERE run = %s AND chunk = %s AND state = 'pending'"


_LOST: Final = (psycopg.Error, TimeoutError)
"""The errors that a statement raises once the lease is lost."""


class ChunkTakenError(Exception):
    """Another worker holds the lease of the chunk."""


class Lease:
    """The exclusive right to work on one chunk. It ends with its connection.

    ``nothing_in_flight``
        Whether every request that was sent has an outcome, so that another worker may begin immediately.
    """

    def __init__(self, connection: AsyncConnection[TupleRow], run: int, chunk: int) -> None:
        self._connection = connection
        self.run = run
        self.nothing_in_flight = True
        self._chunk = (run, chunk)
        self._outcomes: list[tuple[int, FleetStatus, str | None, str | None]] = []
        self._writing = asyncio.Lock()
        self._confirming = asyncio.Lock()
        self._confirmed_at = (-math.inf, -math.inf)

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
            await lease._begin()
            try:
                yield lease
            except Exception as error:
                with contextlib.suppress(*_LOST):  # the connection itself may have failed
                    await lease._rows(_HOLD_UP, stored(str(error)), run, chunk)
                raise
            finally:
                with contextlib.suppress(*_LOST):
                    if lease._outcomes:  # if a write was cancelled
                        await lease.write()
                    if lease.nothing_in_flight:
                        await lease._rows(_RELEASE, run, chunk)

    async def _begin(self) -> None:
        """Wait until the previous holder, which may not know that it lost the lease, sends nothing more."""
        with translate_errors():  # the table may be missing
            is_left = await self._rows(_IS_LEFT, *self._chunk)
        if is_left:
            await asyncio.sleep(_LEASE)
        await self.write()

    async def confirm(self) -> None:
        """Return once it is certain that no other worker has the chunk, usually immediately.

        For a short time after each renewal, no other worker can have it. After a pause of this machine, the
        lease is renewed first. Call this method right before a create is sent.

        Raises:
            FleetError: The lease is lost.
        """
        if self._is_certain():
            return
        async with self._confirming:  # the first of many calls renews for all
            while not self._is_certain():
                try:
                    await self.write()
                except _LOST as error:
                    raise FleetError(
                        f"the connection to the database was lost ({one_line(str(error)) or 'no response'}), "
                        "and another worker may have these links"
                    ) from error

    def _is_certain(self) -> bool:
        clocks = zip(_clocks(), self._confirmed_at, strict=True)
        return all(0 <= now - then < _SEND_WITHIN for now, then in clocks)

    async def pending(self) -> list[tuple[int, WantedLink]]:
        """Return the links that have no outcome yet, with their numbers.

        A row that is not a link, which :func:`submit` does not write, is recorded as failed.
        """
        pending: list[tuple[int, WantedLink]] = []
        for number, *texts in await self._rows(_PENDING, *self._chunk):
            try:
                pending.append((number, parse_link(*texts)))
            except InvalidLinkError as error:
                self.failed(number, error, is_ambiguous=False)
        if self._outcomes:
            await self.write()
        return pending

    def linked(self, number: int, link: CaseLink, *, is_new: bool) -> None:
        """Record that the link with this number exists as ``link``."""
        self._outcomes.append(
            (number, FleetStatus.CREATED if is_new else FleetStatus.ALREADY_LINKED, stored(link.id), None)
        )

    def failed(self, number: int, error: CaseLinksError, *, is_ambiguous: bool) -> None:
        """Record that the link with this number failed, or is ambiguous, because of ``error``."""
        state = FleetStatus.AMBIGUOUS if is_ambiguous else FleetStatus.FAILED
        self._outcomes.append((number, state, None, stored(str(error))))

    async def write(self) -> None:
        """Renew the lease, and write the recorded outcomes.

        Raises:
            psycopg.Error, TimeoutError: The lease is lost.
        """
        async with self._writing:
            before = _clocks()
            await self._rows(_RENEW, self._chunk[1], self.run)
            self._confirmed_at = before
            if outcomes := self._outcomes.copy():
                columns = [list(column) for column in zip(*outcomes, strict=True)]
                await self._rows(_WRITE, *columns, *self._chunk)
                # After the write: aiohttp cancels a write within `confirm` if the connection drops.
                del self._outcomes[: len(outcomes)]

    async def keep(self) -> None:
        """Write outcomes regularly until cancelled. Raises like :meth:`write` once the lease is lost."""
        while True:
            await asyncio.sleep(_INTERVAL)
            await self.write()

    async def _rows(self, statement: LiteralString, *parameters: object) -> list[TupleRow]:
        async with asyncio.timeout(TIMEOUT):
            cursor = await self._connection.execute(statement, parameters)
            return await cursor.fetchall() if cursor.description else []


async def _connect(app: App) -> AsyncConnection[TupleRow]:
    """Open a connection with the settings of ``app``, outside its pool, which may have only one."""
    async with pool_of(app).connection() as pooled:
        dsn, password = pooled.info.dsn, pooled.info.password
    connection = await AsyncConnection.connect(
        dsn,
        password=password,
        client_encoding=ENCODING,
        autocommit=True,
        connect_timeout=int(TIMEOUT),
        row_factory=tuple_row,
    )
    try:
        await connection.execute(_KEEPALIVES)
    except BaseException:
        await connection.close()
        raise
    return connection


def _clocks() -> tuple[float, float]:
    """Return two clocks in seconds, each of which can miss a pause of this machine.

    The monotonic clock may stop with it; the wall clock may be set back.
    """
    return time.monotonic(), time.time()
