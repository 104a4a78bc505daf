"""The worker of a fleet. It survives restarts of the database."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

import psycopg
from procrastinate import App
from procrastinate.exceptions import ConnectorException

from datadog_caselinks.fleet.cancellation import cancel
from datadog_caselinks.fleet.runs import CREATE, TASKS, has_pending
from datadog_caselinks.fleet.tasks import STALLED
from datadog_caselinks.isolation import log
from datadog_caselinks.values.errors import FleetError, ParameterError

_logger = logging.getLogger(__name__)

_HEARTBEAT: Final = 2.0
"""Seconds between two heartbeats, which show the other workers that this one is alive."""

_END: Final = 10.0
"""Seconds that a worker has to shut down; then it is cancelled again and stops at once."""

_PAUSE: Final = 1.0
"""Seconds between two checks for jobs, for the database, and for the end of the work."""


async def work(app: App) -> None:
    """Create submitted links until cancelled. Requests in flight then have a few seconds to finish.

    ``app`` must be open and have the tasks that :func:`add_link_tasks` adds. Only the links of the site of
    their client are created.

    Raises:
        FleetError: The database cannot be used at the start. Later the worker waits for it.
        ParameterError: ``app`` does not have the tasks.
    """
    queue = _queue(app)
    await has_pending(app, queue)
    while True:
        working = asyncio.ensure_future(
            app.run_worker_async(
                queues=[queue],
                fetch_job_polling_interval=_PAUSE,
                install_signal_handlers=False,
                shutdown_graceful_timeout=0,
                delete_jobs="successful",
                update_heartbeat_interval=_HEARTBEAT,
                stalled_worker_timeout=STALLED,
            )
        )
        try:
            await asyncio.wait([working])
        finally:
            await cancel(working, patience=_END)
        # procrastinate's worker ends, with or without an error, when the connection is lost.
        with contextlib.suppress(ConnectorException, psycopg.Error):
            working.result()
        log(
            _logger, logging.WARNING, "lost the connection to the database; reconnecting every %.0f s", _PAUSE
        )
        await asyncio.sleep(_PAUSE)


async def work_until_done(app: App) -> None:
    """Create submitted links like :func:`work`, until every link of the site has an outcome."""
    queue = _queue(app)
    if not await has_pending(app, queue):
        return
    working = asyncio.ensure_future(work(app))
    try:
        while not working.done() and await _is_needed(app, queue):
            await asyncio.wait([working], timeout=_PAUSE)
    finally:
        await cancel(working, patience=2 * _END)
    if not working.cancelled():
        working.result()


async def _is_needed(app: App, queue: str) -> bool:
    with contextlib.suppress(FleetError):  # the worker reconnects
        return await has_pending(app, queue)
    return True


def _queue(app: App) -> str:
    """Return the queue of the tasks of ``app``."""
    try:
        return app.tasks[f"{TASKS}:{CREATE}"].queue
    except KeyError:
        raise ParameterError("app has no tasks that create links: call add_link_tasks(app, client)") from None
