"""The right to work on a chunk: one at a time has it, for as long as its connection lives."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from procrastinate import App

from datadog_caselinks import CaseLinksError
from datadog_caselinks.fleet import failed_links, list_runs, submit
from datadog_caselinks.fleet.cancellation import cancel
from datadog_caselinks.fleet.lease import ChunkTakenError, Lease
from tests.fleet.work import SITE, end_leases, links
from tests.support.waiting import MAX_SECONDS


@pytest.fixture(autouse=True)
async def run(app: App) -> None:
    await submit(app, links(4), site=SITE, chunk=2)


async def test_a_chunk_has_one_worker(app: App) -> None:
    """While one has it no other gets it, though another chunk; afterwards it is free."""
    async with Lease.acquire(app, 1, 0):
        with pytest.raises(ChunkTakenError):
            async with Lease.acquire(app, 1, 0):
                pass
        async with Lease.acquire(app, 1, 1):
            pass
    async with Lease.acquire(app, 1, 0):
        pass


async def test_it_ends_with_the_connection(app: App) -> None:
    """Whoever lost the connection is told, and the chunk is free."""
    async with Lease.acquire(app, 1, 0) as lease:
        await end_leases(app)
        async with Lease.acquire(app, 1, 0):
            pass
        with pytest.raises(psycopg.OperationalError):
            await asyncio.wait_for(lease.keep(), MAX_SECONDS)


async def test_a_holder_that_was_cut_off_does_not_hold_it_for_long(app: App) -> None:
    """PostgreSQL asks for a sign of life after a quarter of a minute, and not after two hours."""
    async with Lease.acquire(app, 1, 0) as lease:
        assert await lease._rows("SHOW tcp_keepalives_idle") == [("15",)]


async def test_keeping_it_writes_what_came(app: App) -> None:
    """Outcomes are in the database a moment later, while the work goes on."""
    async with Lease.acquire(app, 1, 0) as lease:
        keeping = asyncio.ensure_future(lease.keep())
        lease.failed(1, CaseLinksError("refused"), is_ambiguous=False)
        async with asyncio.timeout(MAX_SECONDS):
            while (await list_runs(app))[0].failed == 0:  # noqa: ASYNC110 - no event tells of the database
                await asyncio.sleep(0)
        await cancel(keeping)
        assert [number for number, _ in await lease.pending()] == [2]


async def test_an_error_that_ends_it_is_kept(app: App) -> None:
    """The links that wait for another try say why; those with an outcome do not."""

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
    """A server's error may hold what PostgreSQL cannot keep, and be as long as it likes."""
    async with Lease.acquire(app, 1, 0) as lease:
        lease.failed(1, CaseLinksError("half \ud800 and \0 none" + 2000 * "!"), is_ambiguous=False)
        await lease.write()
    (text,) = [link.error async for link in failed_links(app)]
    assert text.startswith("half ? and  none!!!")
    assert len(text) <= 1000
