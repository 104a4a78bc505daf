"""A worker of a fleet, which outlives restarts of the database. Knows no HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

import psycopg
from procrastinate import App
from procrastinate.exceptions import ConnectorException

from datadog_caselinks.errors import FleetError
from datadog_caselinks.fleet.cancellation import cancel
from datadog_caselinks.fleet.runs import QUEUE, has_pending
from datadog_caselinks.fleet.tasks import STALLED

_logger = logging.getLogger(__name__)

_SIGN_OF_LIFE: Final = 2.0
"""Seconds between two that a worker gives, by which the others know that it is not dead."""

_END: Final = 10.0
"""Seconds in which a worker ends that was told to; then it is told once more, and waits for nothing."""

_PAUSE: Final = 1.0
"""Seconds between two looks: for a job to be tried again, for the database, whether all is done."""


async def work(app: App) -> None:
    """Create the links that are submitted, until cancelled; what is under way then has a few seconds to end.

    ``app`` must be open, and have the tasks that :func:`add_link_tasks` adds.

    Raises :class:`FleetError` if the database cannot be used at first; later on it is waited for.
    """
    await has_pending(app)
    while True:
        working = asyncio.ensure_future(
            app.run_worker_async(
                queues=[QUEUE],
                fetch_job_polling_interval=_PAUSE,
                install_signal_handlers=False,
                shutdown_graceful_timeout=0,
                delete_jobs="successful",
                update_heartbeat_interval=_SIGN_OF_LIFE,
                stalled_worker_timeout=STALLED,
            )
        )
        try:
            await asyncio.wait([working])
        finally:
            await cancel(working, patience=_END)
        # It ends by itself when the database goes away, by an error or not.
        with contextlib.suppress(ConnectorException, psycopg.Error):
            working.result()
        _logger.warning("the database went away; looking for it every %.0f s", _PAUSE)
        await asyncio.sleep(_PAUSE)


async def work_until_done(app: App) -> None:
    """As :func:`work`, until every link has an outcome."""
    if not await has_pending(app):
        return
    working = asyncio.ensure_future(work(app))
    try:
        while not working.done() and await _is_needed(app):
            await asyncio.wait([working], timeout=_PAUSE)
    finally:
        await cancel(working, patience=2 * _END)
    if not working.cancelled():
        working.result()


async def _is_needed(app: App) -> bool:
    with contextlib.suppress(FleetError):  # which the work outlives
        return await has_pending(app)
    return True
