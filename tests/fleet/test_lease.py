"""The lease of a chunk: one worker at a time holds it, while its connection lives."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest
from procrastinate import App
from psycopg.rows import tuple_row

from datadog_caselinks import CaseLinksError, FleetError
from datadog_caselinks.fleet import create_tables, failed_links, list_runs, submit
from datadog_caselinks.fleet import lease as lease_module
from datadog_caselinks.fleet.cancellation import cancel
from datadog_caselinks.fleet.database import pool_of
from datadog_caselinks.fleet.lease import ChunkTakenError, Lease
from tests.fleet.work import SITE, end_leases, links
from tests.support.waiting import MAX_SECONDS, until


@pytest.fixture(autouse=True)
async def run(app: App) -> None:
    await submit(app, links(4), site=SITE, chunk=2)


async def test_a_chunk_has_one_worker(app: App) -> None:
    """Only one worker can hold a chunk, another chunk is free, and a released chunk is free again."""
    async with Lease.acquire(app, 1, 0):
        with pytest.raises(ChunkTakenError):
            async with Lease.acquire(app, 1, 0):
                pass
        async with Lease.acquire(app, 1, 1):
            pass
    async with Lease.acquire(app, 1, 0):
        pass


async def test_it_ends_with_the_connection(app: App) -> None:
    """A lost connection releases the chunk and raises an error in the holder."""
    async with Lease.acquire(app, 1, 0) as lease:
        await end_leases(app)
        async with Lease.acquire(app, 1, 0):
            pass
        with pytest.raises(psycopg.OperationalError):
            await asyncio.wait_for(lease.keep(), MAX_SECONDS)


async def test_a_holder_that_was_cut_off_does_not_hold_it_for_long(app: App) -> None:
    """PostgreSQL checks an idle connection after 15 seconds, so that a lost holder is noticed soon."""
    async with Lease.acquire(app, 1, 0) as lease:
        assert await lease._rows("SHOW tcp_keepalives_idle") == [("15",)]


async def has_failures(app: App) -> bool:
    return (await list_runs(app))[0].failed > 0


async def test_keeping_it_writes_what_came(app: App) -> None:
    """Outcomes are written to the database while the work continues."""
    async with Lease.acquire(app, 1, 0) as lease:
        keeping = asyncio.ensure_future(lease.keep())
        lease.failed(1, CaseLinksError("refused"), is_ambiguous=False)
        await until(lambda: has_failures(app))
        await cancel(keeping)
        assert [number for number, _ in await lease.pending()] == [2]


async def cancel_a_write(app: App, lease: Lease) -> None:
    """Record an outcome of link 1, and cancel the statement that writes it, which waits for a lock."""

    async def is_waiting() -> bool:
        async with pool_of(app).connection() as connection:
            waiting = await connection.execute("SELECT FROM pg_locks WHERE NOT granted")
            return bool(waiting.rowcount)

    lease.failed(1, CaseLinksError("refused"), is_ambiguous=False)
    async with pool_of(app).connection() as connection, connection.transaction():
        await connection.execute("LOCK TABLE caselinks_links IN EXCLUSIVE MODE")
        writing = asyncio.ensure_future(lease.write())
        await until(is_waiting)
        await cancel(writing)


async def test_a_write_that_is_cancelled_loses_no_outcome(app: App) -> None:
    """An outcome whose write was cancelled, as by a timeout of aiohttp, is written by the next write."""
    async with Lease.acquire(app, 1, 0) as lease:
        await cancel_a_write(app, lease)
        await lease.write()
        assert [number for number, _ in await lease.pending()] == [2]


async def test_the_last_outcomes_are_written_at_the_end(app: App) -> None:
    """A lease that ends writes outcomes whose write was cancelled, as when a worker is shut down."""
    async with Lease.acquire(app, 1, 0) as lease:
        await cancel_a_write(app, lease)
    assert [link.number async for link in failed_links(app)] == [1]


async def test_an_error_that_ends_it_is_kept(app: App) -> None:
    """An error that ends the work is stored for the pending links only."""

    async def work() -> None:
        async with Lease.acquire(app, 1, 0) as lease:
            lease.failed(1, CaseLinksError("refused"), is_ambiguous=False)
            await lease.write()
            raise ZeroDivisionError("what a pity")

    with pytest.raises(ZeroDivisionError):
        await work()
    (run,) = await list_runs(app)
    assert run.held_up_by == ["what a pity"]
    assert [link.error async for link in failed_links(app)] == ["refused"]


async def test_any_text_can_be_kept(app: App) -> None:
    """Any error text can be stored: invalid characters are replaced, and the length is limited."""
    async with Lease.acquire(app, 1, 0) as lease:
        lease.failed(1, CaseLinksError("half \ud800 and \0 none" + 2000 * "!"), is_ambiguous=False)
        await lease.write()
    (text,) = [link.error async for link in failed_links(app)]
    assert text.startswith("half ? and  none!!!")
    assert len(text) <= 1000


class Clocks:
    """The monotonic clock and the wall clock of a machine, which a test can advance."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times = (100.0, 1e9)
        monkeypatch.setattr(lease_module, "_clocks", lambda: self.times)

    def advance(self, monotonic: float, wall: float) -> None:
        self.times = (self.times[0] + monotonic, self.times[1] + wall)


async def test_a_renewal_is_a_write(app: App) -> None:
    """Each renewal writes, so that a database that lost its synchronous replica cannot confirm a lease."""

    async def version() -> Any:
        async with pool_of(app).connection() as connection:
            cursor = connection.cursor(row_factory=tuple_row)
            await cursor.execute("SELECT xmin::text FROM caselinks_leases")
            return await cursor.fetchone()

    async with Lease.acquire(app, 1, 0) as lease:
        before = await version()
        await lease.write()
        assert await version() != before


@pytest.mark.parametrize("error", [psycopg.OperationalError, asyncio.CancelledError])
async def test_a_connection_that_cannot_be_set_up_is_closed(
    app: App, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    """A connection is closed if its first statement fails or is cancelled."""
    opened: list[psycopg.AsyncConnection[Any]] = []
    execute: Any = psycopg.AsyncConnection.execute

    async def fail(connection: psycopg.AsyncConnection[Any], statement: object, *rest: object) -> object:
        if statement != lease_module._KEEPALIVES:
            return await execute(connection, statement, *rest)
        opened.append(connection)
        raise error

    monkeypatch.setattr(psycopg.AsyncConnection, "execute", fail)
    with pytest.raises(error):
        await lease_module._connect(app)
    assert [connection.closed for connection in opened] == [True]


class TestConfirm:
    async def test_it_is_certain_for_a_while_after_each_renewal(
        self, app: App, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A lease counts as valid for a while after each renewal, without a query for each create."""
        clocks = Clocks(monkeypatch)
        async with Lease.acquire(app, 1, 0) as lease:
            await end_leases(app)
            clocks.advance(2, 2)
            await lease.confirm()

    @pytest.mark.parametrize("pause", [(3, 3), (3, 0), (0, 3), (3, -3600), (0, -1)])
    async def test_after_a_pause_of_either_clock_a_lost_lease_is_noticed(
        self, app: App, monkeypatch: pytest.MonkeyPatch, pause: tuple[float, float]
    ) -> None:
        """A lost lease is noticed after a pause, by the monotonic clock or the wall clock."""
        clocks = Clocks(monkeypatch)
        async with Lease.acquire(app, 1, 0) as lease:
            await end_leases(app)
            clocks.advance(*pause)
            confirming = [lease.confirm() for _ in range(3)]
            errors = await asyncio.gather(*confirming, return_exceptions=True)
        assert [type(error) for error in errors] == [FleetError] * 3
        assert "the connection to the database was lost" in str(errors[0])

    async def test_after_a_pause_a_lease_that_still_holds_is_renewed(
        self, app: App, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A lease that was kept through a pause is renewed, because no other worker can have started."""
        clocks = Clocks(monkeypatch)
        async with Lease.acquire(app, 1, 0) as lease:
            clocks.advance(0, 3600)
            await asyncio.gather(*(lease.confirm() for _ in range(3)))
            await end_leases(app)
            await lease.confirm()

    async def test_a_pause_during_the_renewal_counts(self, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
        """A renewal counts from before its query was sent, so a slow one is repeated."""
        clocks = Clocks(monkeypatch)
        async with Lease.acquire(app, 1, 0) as lease:
            rows, renewals = lease._rows, 0

            async def slow_at_first(*statement: Any) -> list[Any]:
                nonlocal renewals
                renewals += 1
                if renewals == 1:
                    clocks.advance(3, 3)
                return await rows(*statement)

            monkeypatch.setattr(lease, "_rows", slow_at_first)
            clocks.advance(3, 3)
            await lease.confirm()
            assert renewals == 2


async def test_the_next_worker_waits_until_a_lost_lease_has_expired(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next worker waits by its own clock until the former one sends nothing more."""
    monkeypatch.setattr(lease_module, "_LEASE", 1.0)
    monkeypatch.setattr(lease_module, "_SEND_WITHIN", 0.9)
    loop = asyncio.get_running_loop()
    async with Lease.acquire(app, 1, 0) as former:
        await former.write()
        await end_leases(app)
        ended = loop.time()
        async with Lease.acquire(app, 1, 0):
            assert loop.time() - ended >= 1
            assert not former._is_certain()


@pytest.mark.parametrize("nothing_in_flight", [True, False])
async def test_a_lease_that_ended_with_nothing_in_flight_is_free_at_once(
    app: App, nothing_in_flight: bool
) -> None:
    """A lease that ends with nothing in flight is free immediately, and otherwise when it expires."""
    async with Lease.acquire(app, 1, 0) as lease:
        lease.nothing_in_flight = nothing_in_flight
    async with pool_of(app).connection() as connection:
        remaining = (await connection.execute("SELECT FROM caselinks_leases")).rowcount
    assert remaining == (not nothing_in_flight)


async def test_without_the_table_of_leases_the_error_says_what_to_do(app: App) -> None:
    """A missing table of leases is reported with the command that adds it and keeps everything else."""
    async with pool_of(app).connection() as connection:
        await connection.execute("DROP TABLE caselinks_leases")
    with pytest.raises(FleetError, match="run caselinks fleet init with the same database"):
        async with Lease.acquire(app, 1, 0):
            pass
    await create_tables(app)
    async with Lease.acquire(app, 1, 0) as lease:
        assert len(await lease.pending()) == 2
