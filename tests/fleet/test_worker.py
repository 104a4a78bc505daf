"""A worker survives errors of the database, and ends with any other error."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from procrastinate import App
from procrastinate.exceptions import ConnectorException

from datadog_caselinks import CaseLinksClient, FleetError, ParameterError
from datadog_caselinks.fleet import add_link_tasks, list_runs, submit, work_until_done, worker
from datadog_caselinks.sandbox import Fault, Sandbox
from tests.fleet.work import all_done, links, made, once
from tests.support.postgres import Postgres
from tests.support.waiting import MAX_SECONDS, until


async def test_the_database_may_be_away_for_a_while(
    app: App,
    postgres: Postgres,
    sandbox: Sandbox,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A worker reconnects after the database was stopped, and creates each link exactly once."""
    wanted = links(50)
    await submit(app, wanted, site=sandbox.site, chunk=10)
    sandbox.fail_next(Fault.DELAY, operation="create", count=5, seconds=1)
    async with CaseLinksClient(sandbox.site, sandbox.credentials) as client:
        add_link_tasks(app, client)
        working = asyncio.ensure_future(all_done(app))
        await until(lambda: bool(sandbox.links))
        await asyncio.to_thread(postgres.stop)
        try:
            await until(lambda: "error connecting" in caplog.text)
        finally:
            await asyncio.to_thread(postgres.start)
        await working
    assert "lost the connection to the database" in caplog.text
    assert made(sandbox) == once(wanted)
    (run,) = await list_runs(app)
    assert (run.pending, run.failed, run.ambiguous) == (0, 0, 0)


async def test_an_error_that_is_not_the_databases_ends_it(
    app: App, sandbox: Sandbox, client: CaseLinksClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker restarts after a database error, and raises any other error."""
    errors = iter([ConnectorException("away"), ZeroDivisionError("a mistake")])

    async def broken(**_: object) -> None:
        raise next(errors)

    add_link_tasks(app, client)
    await submit(app, links(1), site=sandbox.site)
    monkeypatch.setattr(app, "run_worker_async", broken)
    with pytest.raises(ZeroDivisionError):
        await all_done(app)


async def test_whether_all_is_done_may_be_unknown_for_a_while(
    app: App, client: CaseLinksClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the database does not respond to the check for pending links, the check is repeated."""
    answers: Iterator[bool | FleetError] = iter([True, FleetError("away"), False])

    async def has_pending(_: App, queue: str) -> bool:
        answer = next(answers)
        if isinstance(answer, FleetError):
            raise answer
        return answer

    add_link_tasks(app, client)
    monkeypatch.setattr(worker, "has_pending", has_pending)
    monkeypatch.setattr(worker, "work", lambda _: asyncio.sleep(MAX_SECONDS))
    monkeypatch.setattr(worker, "_PAUSE", 0)
    await work_until_done(app)
    assert list(answers) == []


async def test_an_app_without_the_tasks_is_refused(app: App) -> None:
    """A worker of an app without the tasks raises an error that says what to call first."""
    with pytest.raises(ParameterError, match="call add_link_tasks"):
        await work_until_done(app)
