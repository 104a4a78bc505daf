"""A worker that outlives its database, and one that does not outlive a mistake."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from procrastinate import App
from procrastinate.exceptions import ConnectorException

from datadog_caselinks import CaseLinksClient, FleetError
from datadog_caselinks.fleet import add_link_tasks, list_runs, submit, work_until_done, worker
from datadog_caselinks.sandbox import Fault, Sandbox
from tests.fleet.work import all_done, links, made, once, until
from tests.support.postgres import Postgres
from tests.support.waiting import MAX_SECONDS


async def test_the_database_may_be_away_for_a_while(
    app: App,
    postgres: Postgres,
    sandbox: Sandbox,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The worker looks for it, goes on when it is back, and makes nothing twice."""
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
    assert (run.pending, run.not_made) == (0, 0)


async def test_an_error_that_is_not_the_databases_ends_it(
    app: App, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins anew after an error of the database; what that would not mend is raised."""
    errors = iter([ConnectorException("away"), ZeroDivisionError("a mistake")])

    async def broken(**_: object) -> None:
        raise next(errors)

    await submit(app, links(1), site=sandbox.site)
    monkeypatch.setattr(app, "run_worker_async", broken)
    with pytest.raises(ZeroDivisionError):
        await all_done(app)


async def test_whether_all_is_done_may_be_unknown_for_a_while(
    app: App, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that does not answer once is asked again, and the work goes on meanwhile."""
    answers: Iterator[bool | FleetError] = iter([True, FleetError("away"), False])

    async def has_pending(_: App) -> bool:
        answer = next(answers)
        if isinstance(answer, FleetError):
            raise answer
        return answer

    monkeypatch.setattr(worker, "has_pending", has_pending)
    monkeypatch.setattr(worker, "work", lambda _: asyncio.sleep(MAX_SECONDS))
    monkeypatch.setattr(worker, "_PAUSE", 0)
    await work_until_done(app)
    assert list(answers) == []
