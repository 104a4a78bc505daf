"""A fleet with killed workers and a restarted database: no link is lost or created twice."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

from procrastinate import App

from datadog_caselinks import Site
from datadog_caselinks.fleet import list_runs, submit
from datadog_caselinks.fleet.database import pool_of
from datadog_caselinks.fleet.tasks import STALLED
from tests.cli.program import start
from tests.fleet.processes import MAX_SECONDS, killed, sandbox_process, stored
from tests.support.forwarder import Forwarder
from tests.support.ids import case, some_id
from tests.support.postgres import Postgres

LINKS = 20_000
OF_ONE_PARENT = 20
WORKERS = 4


def ends(number: int) -> tuple[str, str]:
    return some_id(number // OF_ONE_PARENT + 1), some_id(LINKS + number)


async def until_done(app: App, links: int) -> None:
    """Wait until ``links`` links have an outcome; the database may be unavailable for a while."""
    while (await list_runs(app))[0].done < links:  # noqa: ASYNC110 - other processes do it
        await asyncio.sleep(0.05)


async def test_a_worker_that_was_frozen_sends_nothing_after_another_took_over(
    app: App, database: str, tmp_path: Path
) -> None:
    """A worker that is frozen while its creates wait sends none after another worker has created them."""
    db = tmp_path / "sandbox.db"
    wanted = [case(some_id(1)).blocks(case(some_id(number + 2))) for number in range(60)]
    async with asyncio.timeout(MAX_SECONDS), sandbox_process(db, "--rate-limit", "10/1s") as variables:
        await submit(app, wanted, site=Site.parse(variables["DD_SITE"]))
        variables["CASELINKS_DATABASE"] = database
        frozen = await start(variables, "fleet", "worker", "--until-done")
        await until_done(app, 5)
        frozen.send_signal(signal.SIGSTOP)
        async with pool_of(app).connection() as connection:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        other = await start(variables, "fleet", "worker", "--until-done", "--quiet")
        shown = (await other.communicate())[1].decode()
        assert other.returncode == 0, shown
        assert len(stored(db)) == len(wanted)
        frozen.send_signal(signal.SIGCONT)
        shown = (await frozen.communicate())[1].decode()
        assert frozen.returncode == 0, shown
    assert "Traceback" not in shown
    assert Counter((link.parent_entity_id, link.child_entity_id) for link in stored(db)) == Counter(
        (new.parent.id, new.child.id) for new in wanted
    ), "lost or twice"


async def test_a_worker_that_was_cut_off_while_the_clock_of_the_database_jumped(
    app: App, database: str, tmp_path: Path
) -> None:
    """A worker that cannot reach the database sends nothing after another has taken over its links.

    This is so even if the clock of the database jumps forward, so that the heartbeats of the worker look old
    at once.
    """
    db = tmp_path / "sandbox.db"
    url = urlsplit(database)
    wanted = [case(some_id(1)).blocks(case(some_id(number + 2))) for number in range(120)]
    async with (
        asyncio.timeout(MAX_SECONDS),
        sandbox_process(db, "--rate-limit", "10/1s") as variables,
        Forwarder(int(url.port or 0)).running() as forwarder,
    ):
        await submit(app, wanted, site=Site.parse(variables["DD_SITE"]))
        address = url.netloc.replace(f":{url.port}", f":{forwarder.port}")
        through = url._replace(netloc=address, query="application_name=cut_off").geturl()
        cut_off = await start(variables | {"CASELINKS_DATABASE": through}, "fleet", "worker", "--quiet")
        await until_done(app, 5)
        variables["CASELINKS_DATABASE"] = database
        other = await start(variables, "fleet", "worker", "--until-done")
        await other.stderr.readline()
        forwarder.hang()
        async with pool_of(app).connection() as connection:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cut_off'"
            )
            await connection.execute(
                "UPDATE procrastinate_workers SET last_heartbeat = last_heartbeat - interval '60 s'"
            )
        # What the other worker does every five seconds. Now is the worst time for it.
        for job in await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=STALLED):
            await app.job_manager.retry_job(job)
        shown = (await other.communicate())[1].decode()
        assert other.returncode == 0, shown
        await killed(cut_off)
    assert Counter((link.parent_entity_id, link.child_entity_id) for link in stored(db)) == Counter(
        (new.parent.id, new.child.id) for new in wanted
    ), "lost or twice"


async def test_two_workers_killed_and_the_database_restarted(
    app: App, database: str, postgres: Postgres, tmp_path: Path
) -> None:
    """If two of four workers are killed and the database restarts, each link is created exactly once."""
    db = tmp_path / "sandbox.db"
    async with asyncio.timeout(MAX_SECONDS), sandbox_process(db, "--rate-limit", "2000/1s") as variables:
        wanted = (case(parent).blocks(case(child)) for parent, child in map(ends, range(LINKS)))
        await submit(app, wanted, site=Site.parse(variables["DD_SITE"]))
        variables["CASELINKS_DATABASE"] = database
        workers = [
            await start(variables, "fleet", "worker", "--until-done", "--quiet") for _ in range(WORKERS)
        ]
        await until_done(app, LINKS // 10)
        await killed(workers[0])
        await until_done(app, 3 * LINKS // 10)
        await asyncio.to_thread(postgres.restart)
        await until_done(app, 5 * LINKS // 10)
        await killed(workers[1])
        shown = [(await worker.communicate())[1].decode() for worker in workers[2:]]
        assert [worker.returncode for worker in workers[2:]] == [0, 0], shown
        (run,) = await list_runs(app)
    assert Counter((link.parent_entity_id, link.child_entity_id) for link in stored(db)) == Counter(
        map(ends, range(LINKS))
    ), "lost or twice"
    assert (run.links, run.pending, run.failed, run.ambiguous) == (LINKS, 0, 0, 0)
    assert "Traceback" not in "".join(shown)
