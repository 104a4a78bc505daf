"""Submitting links, and reading the state of the runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

import psycopg
import pytest
from procrastinate import App, PsycopgConnector
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from datadog_caselinks import (
    CaseLink,
    CaseLinksError,
    FleetError,
    InvalidLinkError,
    LinkFileError,
    NewCaseLink,
    case,
    incident,
    parse_link,
)
from datadog_caselinks.fleet import Submission, connected, failed_links, list_runs, retry_failed, submit
from datadog_caselinks.fleet import database as database_module
from datadog_caselinks.fleet.database import pool_of
from datadog_caselinks.fleet.lease import Lease
from tests.fleet.work import SITE, links
from tests.support.forwarder import Forwarder
from tests.support.ids import some_id
from tests.support.waiting import until

COMMIT_WAITS_FOR_LOCK = """
CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END';
CREATE CONSTRAINT TRIGGER waiting AFTER INSERT ON caselinks_runs DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION wait()"""

Through = tuple[App, Forwarder]


@pytest.fixture
async def through(app: App, database: str) -> AsyncIterator[Through]:
    """Yield an app that reaches the database through a forwarder."""
    port = str(conninfo_to_dict(database)["port"])
    async with (
        Forwarder(int(port)).running() as forwarder,
        connected(make_conninfo(database, port=forwarder.port)) as theirs,
    ):
        yield theirs, forwarder


async def _is_seen(connection: psycopg.AsyncConnection[Any], query: str) -> bool:
    """Return whether another connection is executing a query, or was the last time."""
    seen = "SELECT FROM pg_stat_activity WHERE query LIKE %s AND pid <> pg_backend_pid()"
    return (await connection.execute(seen, [query])).rowcount > 0


async def jobs(app: App) -> list[dict[str, object]]:
    return [dict(job.task_kwargs) for job in await app.job_manager.list_jobs_async()]


class TestSubmit:
    async def test_links_are_divided_into_chunks(self, app: App) -> None:
        """Links are divided into chunks of the given size, with one job per chunk."""
        assert await submit(app, links(5), site=SITE, chunk=2) == Submission(run=1, links=5, repeated=0)
        assert await jobs(app) == [{"run": 1, "chunk": chunk} for chunk in range(3)]
        async with Lease.acquire(app, 1, 1) as lease:
            assert await lease.pending() == list(enumerate(links(5), 1))[2:4]

    async def test_what_was_written_is_what_is_read(self, app: App) -> None:
        """Keys and entities of all types are read from the database as they were submitted."""
        wanted = [
            parse_link("SHOP-1", "causes", incident(some_id(2))),
            parse_link(f"page:{some_id(1)}", "relates-to", "SHOP-1"),
            parse_link(some_id(1), "parent-of", f"conversation:{some_id(3)}"),
        ]
        await submit(app, wanted, site=SITE)
        async with Lease.acquire(app, 1, 0) as lease:
            assert [new for _, new in await lease.pending()] == wanted

    async def test_a_repeated_link_counts_once(self, app: App) -> None:
        """A repeated link counts once, even in another chunk, and RELATES_TO in either direction."""
        a, b = case(some_id(1)), case(some_id(2))
        wanted = [a.blocks(b), b.blocks(a), a.relates_to(b), b.relates_to(a), a.blocks(b)]
        assert await submit(app, wanted, site=SITE, chunk=1) == Submission(run=1, links=3, repeated=2)

    async def test_nothing_is_nothing(self, app: App) -> None:
        """A run without links has no job and is done."""
        assert await submit(app, [], site=SITE) == Submission(run=1, links=0, repeated=0)
        assert await jobs(app) == []
        (run,) = await list_runs(app)
        assert (run.links, run.done, run.rate) == (0, 0, 0)

    @pytest.mark.parametrize("error", [LinkFileError("no more"), psycopg.OperationalError("no more")])
    async def test_an_error_of_the_source_leaves_nothing_behind(self, app: App, error: Exception) -> None:
        """An error of the source, even of a database of its own, is raised unchanged, and submits nothing."""

        async def broken() -> AsyncIterator[NewCaseLink]:
            for new in links(3):
                yield new
            raise error

        with pytest.raises(type(error)) as caught:
            await submit(app, broken(), site=SITE, chunk=1)
        assert caught.value is error
        assert (await list_runs(app), await jobs(app)) == ([], [])

    @pytest.mark.parametrize("wrong", ["SHOP-1 blocks SHOP-2", None, ("SHOP-1", "blocks", "SHOP-2")])
    async def test_what_is_not_a_link_leaves_nothing_behind(self, app: App, wrong: Any) -> None:
        """An item that is not a link raises the error of other functions for it, and submits nothing."""
        with pytest.raises(InvalidLinkError, match="submit takes links such as"):
            await submit(app, [*links(3), wrong], site=SITE, chunk=1)
        assert (await list_runs(app), await jobs(app)) == ([], [])

    @pytest.mark.parametrize("is_async", [True, False])
    async def test_a_generator_is_closed_if_the_database_has_no_tables(
        self, database: str, is_async: bool
    ) -> None:
        """A generator of links, which may have an open file, is closed even if nothing is read of it."""
        is_closed = False

        def read() -> Iterator[NewCaseLink]:
            nonlocal is_closed
            try:
                yield from links(3)
            finally:
                is_closed = True

        async def read_async() -> AsyncIterator[NewCaseLink]:
            with contextlib.closing(read()) as wanted:  # type: ignore[type-var]  # a generator
                for new in wanted:
                    yield new

        source: Any = read_async() if is_async else read()
        assert await anext(source) if is_async else next(source)  # the header of a file
        async with connected(database) as app:
            with pytest.raises(FleetError):
                await submit(app, source, site=SITE)
        assert is_closed

    async def test_a_generator_is_closed_if_the_database_fails(self, app: App) -> None:
        """A generator of links is closed if the database fails while the links are copied."""
        is_closed = False

        async def endless() -> AsyncIterator[NewCaseLink]:
            nonlocal is_closed
            try:
                yield links(1)[0]
                async with pool_of(app).connection() as connection:
                    await connection.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY %'"
                    )
                while True:
                    yield links(1)[0]
            finally:
                is_closed = True

        with pytest.raises(FleetError):
            await submit(app, endless(), site=SITE)
        assert is_closed

    @pytest.mark.parametrize("when", ["unsent", "responded"])
    async def test_a_connection_that_is_lost_during_the_commit(
        self, app: App, through: Through, when: Literal["unsent", "responded"]
    ) -> None:
        """If the response to the commit is lost, the links are submitted; if the commit is lost, none is."""
        theirs, forwarder = through
        forwarder.cut_at(b"COMMIT", when)
        if when == "responded":
            assert await submit(theirs, links(3), site=SITE) == Submission(run=1, links=3, repeated=0)
            assert [run.links for run in await list_runs(app)] == [3]
        else:
            with pytest.raises(FleetError):
                await submit(theirs, links(3), site=SITE)
            assert (await list_runs(app), await jobs(app)) == ([], [])

    async def test_a_commit_that_takes_longer_than_its_connection(
        self, app: App, database: str, through: Through
    ) -> None:
        """A commit that goes on after its connection was lost is waited for."""
        theirs, forwarder = through
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as other:
            await other.execute(COMMIT_WAITS_FOR_LOCK)
            await other.execute("SELECT pg_advisory_lock(1)")
            forwarder.cut_at(b"COMMIT", "sent")
            submitting = asyncio.ensure_future(submit(theirs, links(3), site=SITE))
            await until(lambda: _is_seen(other, "SELECT pg_xact_status%"))
            assert await list_runs(app) == []
            await other.execute("SELECT pg_advisory_unlock(1)")
            assert await submitting == Submission(run=1, links=3, repeated=0)

    async def test_a_database_that_does_not_come_back_after_the_commit(
        self, app: App, through: Through, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """If nobody knows whether the links were submitted, the error says how to find out."""
        theirs, forwarder = through
        monkeypatch.setattr(database_module, "_COMMIT_WITHIN", 0.1)
        forwarder.cut_at(b"COMMIT", "responded", hangs=True)
        with pytest.raises(FleetError, match=r"may have been submitted\. .*: caselinks fleet status$"):
            await submit(theirs, links(3), site=SITE)
        assert len(await list_runs(app)) == 1

    async def test_an_app_of_ones_own_needs_no_tasks(self, app: App, database: str) -> None:
        """An app without our tasks, such as a web service, can submit links.

        One connection is enough, because links and jobs are in one transaction.
        """
        connector = PsycopgConnector(
            conninfo=database, min_size=1, max_size=1, timeout=5, kwargs={"autocommit": True}
        )
        theirs = App(connector=connector)
        async with theirs.open_async():
            await submit(theirs, links(1), site=SITE, source="a web service")
        (run,) = await list_runs(app)
        assert (run.source, run.site, run.links) == ("a web service", SITE.api_url, 1)


class TestListRuns:
    async def test_each_state_is_counted(self, app: App) -> None:
        """A run counts its links by state, and the time left follows from the rate."""
        await submit(app, links(6), site=SITE)
        async with Lease.acquire(app, 1, 0) as lease:
            await _finish(lease)
        (run,) = await list_runs(app)
        assert (run.links, run.pending, run.created, run.already_linked, run.failed, run.ambiguous) == (
            6,
            1,
            1,
            1,
            2,
            1,
        )
        assert run.done == 5
        assert run.rate > 0
        assert run.seconds_left == run.pending / run.rate

    async def test_one_run_can_be_asked_for(self, app: App) -> None:
        """A run can be listed by its number, and without progress it has no time left."""
        for count in (1, 2):
            await submit(app, links(count), site=SITE)
        (run,) = await list_runs(app, 2)
        assert (run.run, run.links, run.seconds_left) == (2, 2, None)


class TestFailedLinks:
    async def test_they_are_listed_with_their_errors(self, app: App) -> None:
        """Failed and ambiguous links are listed with their numbers and errors."""
        await submit(app, links(6), site=SITE)
        async with Lease.acquire(app, 1, 0) as lease:
            await _finish(lease)
        found = [link async for link in failed_links(app, 1)]
        assert [(link.number, link.status, link.error) for link in found] == [
            (3, "failed", "refused"),
            (4, "failed", "refused"),
            (5, "ambiguous", "who knows"),
        ]
        assert found[0].parent == some_id(1)
        assert [link async for link in failed_links(app, 2)] == []

    async def test_they_can_be_submitted_anew(self, app: App) -> None:
        """Failed links can be submitted again, with one job for each chunk that has some."""
        await submit(app, links(6), site=SITE, chunk=4)
        async with Lease.acquire(app, 1, 0) as lease:
            await _finish(lease)
        before = await jobs(app)
        assert await retry_failed(app, 2) == 0
        assert await retry_failed(app) == 2
        assert (await jobs(app))[len(before) :] == [{"run": 1, "chunk": 0}]
        (run,) = await list_runs(app)
        assert (run.pending, run.created, run.failed) == (4, 1, 0)


async def test_a_database_that_goes_away_is_reported(database: str) -> None:
    """A database that is lost raises a FleetError from every function."""
    async with connected(database) as app:
        for call in (submit(app, links(1), site=SITE), retry_failed(app), anext(failed_links(app))):
            with pytest.raises(FleetError):
                await call


async def _finish(lease: Lease) -> None:
    """Give the first links of a chunk one outcome of each kind."""
    new = links(1)[0]
    link = CaseLink("an-id", new.parent, new.relationship, new.child)
    lease.linked(1, link, is_new=True)
    lease.linked(2, link, is_new=False)
    lease.failed(3, CaseLinksError("refused"), is_ambiguous=False)
    lease.failed(4, CaseLinksError("refused"), is_ambiguous=False)
    lease.failed(5, CaseLinksError("who knows"), is_ambiguous=True)
    await lease.write()
