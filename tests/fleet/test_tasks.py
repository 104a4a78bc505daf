"""A worker and its jobs: in this process, with a real database and a real sandbox."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from procrastinate import App, PsycopgConnector
from procrastinate.jobs import Job, Status

from datadog_caselinks import (
    ApiKeys,
    BearerToken,
    CaseLinksClient,
    Failed,
    RetryPolicy,
    Site,
    parse_link,
)
from datadog_caselinks.bulk.create_links import Outcome
from datadog_caselinks.fleet import (
    add_link_tasks,
    failed_links,
    list_runs,
    retry_failed,
    submit,
    tasks,
    work,
    worker,
)
from datadog_caselinks.fleet.cancellation import cancel
from datadog_caselinks.fleet.database import pool_of
from datadog_caselinks.fleet.lease import Lease
from datadog_caselinks.sandbox import Fault, Sandbox
from datadog_caselinks.sandbox.api import Operation
from tests.fleet.work import all_done, end_leases, links, made, once
from tests.support.api import Api
from tests.support.ids import some_id
from tests.support.server import Exchange, Server
from tests.support.steps import answers
from tests.support.waiting import MAX_SECONDS, until

AT_ONCE = RetryPolicy(base=0, settle=0)


@pytest.fixture
def again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry jobs without a delay."""
    monkeypatch.setattr(tasks, "_RETRY_AFTER", 0)


class Waits:
    """The waits of a worker after errors that affect all links, as its log has them."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    def __call__(self) -> list[float]:
        return [
            seconds
            for record in self._caplog.records
            if record.name == tasks.__name__ and isinstance(record.args, tuple)
            for seconds in record.args[1:]
            if isinstance(seconds, float)
        ]


@pytest.fixture
def waits(caplog: pytest.LogCaptureFixture) -> Waits:
    """Return the waits of the workers of this test."""
    return Waits(caplog)


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait a thousandth of the time after errors that affect all links."""
    for name in ("_FIRST_HOLD", "_LONGEST_HOLD"):
        monkeypatch.setattr(tasks, name, getattr(tasks, name) / 1000)


async def the_job(app: App) -> int:
    (job,) = await app.job_manager.list_jobs_async()
    assert job.id
    return job.id


async def has_run(app: App, job_id: int) -> bool:
    """Return whether the job was started and put back into the queue."""
    return [job.attempts > 0 for job in await app.job_manager.list_jobs_async(id=job_id)] == [True]


async def is_aborted(app: App, job_id: int) -> bool:
    return await app.job_manager.get_job_status_async(job_id) is Status.ABORTED


async def is_done(app: App) -> bool:
    return not (await list_runs(app))[0].pending


@contextlib.asynccontextmanager
async def working(app: App) -> AsyncIterator[None]:
    """Run a worker, and end it at the end as SIGTERM does."""
    task = asyncio.ensure_future(work(app))
    try:
        yield
    finally:
        await cancel(task, patience=MAX_SECONDS)


async def test_every_link_gets_an_outcome(app: App, sandbox: Sandbox, client: CaseLinksClient) -> None:
    """Every link gets an outcome, created, already linked or failed, and the callback receives each."""
    outcomes: list[tuple[int, int, Outcome]] = []
    wanted = [*links(5), parse_link("NONE-1", "blocks", some_id(1))]
    await client.create_link(links(1)[0])
    await submit(app, wanted, site=sandbox.site, chunk=3)
    add_link_tasks(app, client, on_outcome=lambda *outcome: outcomes.append(outcome))
    await all_done(app)
    (run,) = await list_runs(app)
    assert (run.created, run.already_linked, run.failed, run.pending) == (4, 1, 1, 0)
    (failed,) = [link async for link in failed_links(app)]
    assert (failed.number, failed.parent) == (6, "NONE-1")
    assert "404" in failed.error
    assert made(sandbox) == once(links(5))
    assert sorted((run, number) for run, number, _ in outcomes) == [(1, number) for number in range(1, 7)]
    assert [number for _, number, outcome in outcomes if isinstance(outcome, Failed)] == [6]


async def test_nothing_to_do_is_done(app: App, client: CaseLinksClient) -> None:
    """A worker that runs until all is done ends immediately if there are no links."""
    add_link_tasks(app, client)
    await all_done(app)


async def test_a_run_that_is_deleted_is_given_up(app: App, sandbox: Sandbox, client: CaseLinksClient) -> None:
    """The jobs of a deleted run end without a request."""
    submitted = await submit(app, links(3), site=client.site)
    async with pool_of(app).connection() as connection:
        await connection.execute("DELETE FROM caselinks_runs WHERE run = %s", [submitted.run])
    add_link_tasks(app, client)
    await app.run_worker_async(wait=False)
    assert await app.job_manager.list_jobs_async(status=Status.TODO.value) == []
    assert not sandbox.requests


async def test_a_link_of_unknown_outcome_is_ambiguous(app: App, sandbox: Sandbox) -> None:
    """A link of unknown outcome is ambiguous, and when submitted again it is looked up and found."""
    await submit(app, links(1), site=sandbox.site)
    policy = RetryPolicy(max_attempts=1, settle=0.5)
    async with CaseLinksClient(sandbox.site, sandbox.credentials, retry=policy) as client:
        sandbox.fail_next(Fault.LOST_RESPONSE, operation="create")
        add_link_tasks(app, client)
        working = asyncio.ensure_future(all_done(app))
        await until(lambda: bool(sandbox.links))
        sandbox.fail_next(Fault.HTTP_503, operation="list")
        await working
        assert [link.status async for link in failed_links(app)] == ["ambiguous"]
        assert await retry_failed(app) == 1
        await all_done(app)
    (run,) = await list_runs(app)
    assert (run.already_linked, run.ambiguous) == (1, 0)
    assert made(sandbox) == once(links(1))


class TestAnErrorThatAllWouldMeet:
    async def test_the_links_wait_for_another_try(
        self, app: App, sandbox: Sandbox, again_at_once: None, short_waits: None, waits: Waits
    ) -> None:
        """Refused keys fail no link: the worker retries with growing waits, and the run shows the reason."""
        reasons: set[str] = set()
        refused = 3

        async def token() -> str:
            if waits():
                reasons.update((await list_runs(app))[0].held_up_by)
            return "wrong" if len(waits()) < refused else str(sandbox.bearer_token.token)

        await submit(app, links(3), site=sandbox.site)
        async with CaseLinksClient(sandbox.site, BearerToken(token)) as client:
            add_link_tasks(app, client)
            await all_done(app)
            assert waits() == [0.005, 0.01, 0.02]
            assert ["401" in reason for reason in reasons] == [True]
            (run,) = await list_runs(app)
            assert (run.created, run.failed, run.held_up_by) == (3, 0, [])
            refused = 4
            await submit(app, links(4), site=sandbox.site)
            await all_done(app)
        assert waits() == [0.005, 0.01, 0.02, 0.005], "after a success it begins again"

    @pytest.mark.parametrize(
        ("fault", "operation"),
        [
            (Fault.HTTP_429_RETRY_AFTER, "create"),
            (Fault.HTTP_503_RETRY_AFTER, "list"),
            (Fault.HTTP_503_RETRY_AFTER, "create"),
        ],
    )
    async def test_the_server_is_not_asked_before_it_said(
        self, app: App, sandbox: Sandbox, waits: Waits, fault: Fault, operation: Operation
    ) -> None:
        """The worker waits as long as the server says, after a 429 and in an outage."""
        await submit(app, links(2), site=sandbox.site)
        seconds = 1000 if fault is Fault.HTTP_429_RETRY_AFTER else 100
        sandbox.fail_next(fault, operation=operation, count=2, seconds=seconds)
        policy = RetryPolicy(budget=0)  # any failure counts as an outage
        async with CaseLinksClient(sandbox.site, sandbox.credentials, retry=policy) as client:
            add_link_tasks(app, client)
            async with working(app):
                await until(lambda: bool(waits()))
        assert 0.99 * seconds < waits()[0] <= seconds


class TestLinksOfAnotherSite:
    async def test_they_wait_for_a_worker_of_their_site(
        self, app: App, sandbox: Sandbox, client: CaseLinksClient, waits: Waits
    ) -> None:
        """A worker leaves the links of another site to its workers, and ends when its own links are done."""
        await submit(app, links(2), site=Site.EU1, chunk=1)
        await submit(app, links(2), site=sandbox.site)
        add_link_tasks(app, client)
        await all_done(app)
        others, own = await list_runs(app)
        assert (others.pending, others.held_up_by, own.created) == (2, [], 2)
        assert {job.attempts for job in await app.job_manager.list_jobs_async()} == {0}
        assert waits() == []

    async def test_a_worker_of_all_queues_puts_them_back(
        self, app: App, sandbox: Sandbox, client: CaseLinksClient, waits: Waits
    ) -> None:
        """A worker of an app that works on all queues sends nothing to another site, and does not wait."""
        await submit(app, links(2), site=Site.EU1)
        await submit(app, links(2), site=sandbox.site)
        add_link_tasks(app, client)
        await app.run_worker_async(wait=False, install_signal_handlers=False)
        others, own = await list_runs(app)
        assert (others.pending, others.held_up_by, own.created) == (2, [], 2)
        (job,) = [job for job in await app.job_manager.list_jobs_async() if job.task_kwargs.get("run") == 1]
        assert (job.status, job.queue, job.attempts) == ("todo", "caselinks https://api.datadoghq.eu", 1)
        assert waits() == []

    async def test_links_that_are_submitted_again_stay_with_their_site(
        self, app: App, sandbox: Sandbox, client: CaseLinksClient
    ) -> None:
        """Links that are submitted again go to the workers of their site."""
        for site in (Site.EU1, sandbox.site):
            await submit(app, links(1), site=site)
        async with pool_of(app).connection() as connection:
            await connection.execute("UPDATE caselinks_links SET state = 'failed', error = 'refused'")
            await connection.execute("DELETE FROM procrastinate_jobs")
        assert await retry_failed(app) == 2
        add_link_tasks(app, client)
        await all_done(app)
        others, own = await list_runs(app)
        assert (others.pending, own.created) == (1, 1)


class TestAForbiddenLink:
    """A 403 may concern one case, in a restricted project, or the credentials and thus all links."""

    async def test_the_last_link_does_not_hold_up_its_run_for_ever(
        self, app: App, sandbox: Sandbox, again_at_once: None, short_waits: None, waits: Waits
    ) -> None:
        """A link that is forbidden again and again fails, although nothing shows that others would not."""
        await submit(app, links(1), site=sandbox.site)
        async with CaseLinksClient(sandbox.site, sandbox.credentials_without_scope) as client:
            add_link_tasks(app, client)
            await all_done(app)
        assert waits() == [0.005, 0.01, 0.02]
        assert ["403" in link.error async for link in failed_links(app)] == [True]

    async def test_a_link_that_was_created_since_shows_that_one_case_is_forbidden(
        self, app: App, keys: ApiKeys, waits: Waits
    ) -> None:
        """A forbidden link of a new worker fails at once if another link of its chunk is created."""
        forbidden, *others = links(3)
        api = Api()

        async def step(exchange: Exchange) -> None:
            is_forbidden = forbidden.child.id.encode() in exchange.seen.body
            await (answers(403) if is_forbidden else api)(exchange)

        async with Server(step) as server, CaseLinksClient(server.url, keys) as client:
            await submit(app, [forbidden, *others], site=client.site)
            add_link_tasks(app, client)
            await all_done(app)
        (run,) = await list_runs(app)
        assert (run.created, run.failed) == (2, 1)
        assert waits() == []


class TestTheEndOfAWorker:
    async def test_what_is_in_flight_is_waited_for(self, app: App, sandbox: Sandbox) -> None:
        """A worker that ends waits for its links in flight and puts its job back into the queue."""
        await submit(app, links(100), site=sandbox.site)
        sandbox.fail_next(Fault.DELAY, operation="create", count=50, seconds=0.05)
        async with CaseLinksClient(sandbox.site, sandbox.credentials, max_concurrency=3) as client:
            add_link_tasks(app, client)
            async with working(app):
                await until(lambda: len(sandbox.links) >= 3)
            (run,) = await list_runs(app)
            assert run.created == len(sandbox.links) < 100
            assert {
                job.status for job in await app.job_manager.list_jobs_async(task="caselinks:create_links")
            } == {"todo"}
            await all_done(app)
        assert made(sandbox) == once(links(100))

    async def test_it_does_not_wait_for_ever(
        self, app: App, monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox, client: CaseLinksClient
    ) -> None:
        """A worker that ends does not wait indefinitely for a slow server."""
        monkeypatch.setattr(tasks, "_DRAIN", 0.1)
        monkeypatch.setattr(worker, "_END", MAX_SECONDS)
        await submit(app, links(2), site=sandbox.site)
        sandbox.fail_next(Fault.DELAY, count=10, seconds=5)
        add_link_tasks(app, client)
        async with working(app):
            await until(lambda: bool(sandbox.requests))
        (run,) = await list_runs(app)
        assert run.pending == 2

    async def test_a_job_that_is_aborted_stays_so(
        self, app: App, sandbox: Sandbox, client: CaseLinksClient
    ) -> None:
        """A job that was aborted through procrastinate is not retried."""
        await submit(app, links(2), site=sandbox.site)
        sandbox.fail_next(Fault.DELAY, operation="create", count=2, seconds=0.2)
        add_link_tasks(app, client)
        job_id = await the_job(app)
        async with working(app):
            await until(lambda: bool(sandbox.requests))
            await app.job_manager.cancel_job_by_id_async(job_id, abort=True)
            await until(lambda: is_aborted(app, job_id))

    async def test_a_job_that_is_aborted_while_it_waits_stays_so(
        self, app: App, client: CaseLinksClient, waits: Waits
    ) -> None:
        """A job is also aborted during the wait after an error that affects all links."""
        await submit(app, links(2), site=client.site)
        await client.close()
        add_link_tasks(app, client)
        job_id = await the_job(app)
        async with working(app):
            await until(waits)
            await app.job_manager.cancel_job_by_id_async(job_id, abort=True)
            await until(lambda: is_aborted(app, job_id))


class TestTwoWorkersWithOneJob:
    async def test_the_second_waits_for_the_first(
        self, app: App, sandbox: Sandbox, client: CaseLinksClient, waits: Waits
    ) -> None:
        """A worker waits while another one holds the chunk, and then creates the rest."""
        await submit(app, links(2), site=sandbox.site)
        add_link_tasks(app, client)
        job_id = await the_job(app)
        async with working(app):
            async with Lease.acquire(app, 1, 0):
                await until(lambda: has_run(app, job_id))
                assert not sandbox.requests
            await until(lambda: is_done(app))
        assert made(sandbox) == once(links(2))
        assert waits() == [], "a chunk of another worker is not an error, and delays no other chunk"

    async def test_one_that_lost_its_connection_stops(
        self, app: App, sandbox: Sandbox, client: CaseLinksClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A worker that lost its connection stops, acquires the chunk again and creates no duplicate."""
        monkeypatch.setattr(tasks, "_FIRST_HOLD", 0.0)
        await submit(app, links(50), site=sandbox.site)
        sandbox.fail_next(Fault.DELAY, operation="create", count=5, seconds=1)
        add_link_tasks(app, client)
        working = asyncio.ensure_future(all_done(app))
        await until(lambda: bool(sandbox.links))
        await end_leases(app)
        await working
        assert made(sandbox) == once(links(50))


class TestTakingUp:
    async def test_the_jobs_of_a_dead_worker(
        self, app: App, sandbox: Sandbox, client: CaseLinksClient
    ) -> None:
        """The jobs of a dead worker are taken over, even if it died while it took over others."""
        add_link_tasks(app, client)
        await submit(app, links(2), site=sandbox.site)
        requeue = app.tasks["caselinks:requeue"]
        await requeue.configure(task_kwargs={"timestamp": 0}).defer_async()
        dead = await app.job_manager.register_worker()
        taken = [await app.job_manager.fetch_job(queues=None, worker_id=dead) for _ in range(2)]
        assert [job and job.task_name for job in taken] == ["caselinks:requeue", "caselinks:create_links"]
        async with pool_of(app).connection() as connection:
            await connection.execute(
                "UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 hour'"
            )
        await requeue.configure(task_kwargs={"timestamp": 0}).defer_async()
        await all_done(app)
        assert made(sandbox) == once(links(2))

    async def test_a_job_that_another_one_took_up_already(
        self, app: App, sandbox: Sandbox, client: CaseLinksClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A job that another worker has taken over is skipped, and the other jobs are taken over."""
        await submit(app, links(2), site=sandbox.site)
        dead = await app.job_manager.register_worker()
        job = await app.job_manager.fetch_job(queues=None, worker_id=dead)
        assert job

        async def stalled(**_: object) -> list[Job]:
            return [job.evolve(id=1000), job]

        monkeypatch.setattr(app.job_manager, "get_stalled_jobs", stalled)
        add_link_tasks(app, client)
        await all_done(app)
        assert made(sandbox) == once(links(2))


async def test_the_jobs_of_a_worker_that_does_not_know_them_are_taken_up(
    app: App, database: str, sandbox: Sandbox, client: CaseLinksClient
) -> None:
    """A job that failed in a worker without our tasks is taken over by a worker with them."""
    await submit(app, links(2), site=sandbox.site)
    theirs = App(connector=PsycopgConnector(conninfo=database))
    async with theirs.open_async():
        await theirs.run_worker_async(wait=False, install_signal_handlers=False)
    assert [job.status for job in await app.job_manager.list_jobs_async()] == ["failed"]
    add_link_tasks(app, client)
    await all_done(app)
    assert made(sandbox) == once(links(2))


async def test_an_app_of_ones_own_does_its_own_jobs_too(
    app: App, sandbox: Sandbox, client: CaseLinksClient
) -> None:
    """Workers of an app with other tasks in another queue create links too."""
    done = asyncio.Event()

    @app.task(name="theirs")
    async def theirs() -> None:
        done.set()

    add_link_tasks(app, client)
    await submit(app, links(2), site=sandbox.site)
    await theirs.defer_async()
    await app.run_worker_async(wait=False, install_signal_handlers=False)
    assert done.is_set()
    assert made(sandbox) == once(links(2))


async def test_a_closed_client_fails_no_link(
    app: App, sandbox: Sandbox, client: CaseLinksClient, waits: Waits
) -> None:
    """A closed client, which is a mistake of the program, fails no link."""
    await client.close()
    await submit(app, links(2), site=sandbox.site)
    add_link_tasks(app, client)
    async with working(app):
        await until(lambda: bool(waits()))
    assert (await list_runs(app))[0].pending == 2
