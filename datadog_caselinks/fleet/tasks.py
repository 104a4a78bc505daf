"""The tasks of a fleet: to create the links of a chunk, and to take up what dead workers left."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from procrastinate import App, Blueprint, JobContext
from procrastinate.exceptions import ConnectorException, JobAborted
from procrastinate.jobs import Job, Status
from procrastinate.retry import BaseRetryStrategy, RetryDecision

from datadog_caselinks.client import CaseLinksClient
from datadog_caselinks.errors import RateLimitError
from datadog_caselinks.fleet.cancellation import cancel
from datadog_caselinks.fleet.creation import ChunkCreation, Tell
from datadog_caselinks.fleet.lease import ChunkTakenError, Lease
from datadog_caselinks.fleet.runs import CREATE, QUEUE, TASKS

_logger = logging.getLogger(__name__)

STALLED: Final = 10.0
"""Seconds without a sign of life after which a worker is taken to be dead."""

_LOOKS: Final = "* * * * * */5"
"""When to look for such workers, as cron has it: every five seconds."""

_AGAIN: Final = 2
"""Seconds before a job goes on that another worker has or had: what that one sent last is applied by then."""

_DRAIN: Final = 5.0
"""Seconds that what is under way may take when the worker is told to end."""

_FIRST_HOLD: Final = 5.0
_LONGEST_HOLD: Final = 300.0
"""Seconds to wait after an error that all links would meet; doubled with each one in a row."""


def add_link_tasks(
    app: App,
    links: CaseLinksClient,
    *,
    tell: Tell = lambda *_: None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Let the workers of ``app`` create links by ``links``, which must stay open for as long as they run.

    The tasks have the namespace ``caselinks`` and the queue ``caselinks``. One of them runs every five
    seconds, and puts the jobs of dead workers back into the queue.

    ``tell``
        Is called with what became of each link: its run, its number there, and the outcome.
    ``sleep``
        Waits after an error that all links would meet, so many seconds.
    """
    blueprint = Blueprint()
    worker = _Worker(ChunkCreation(links, tell), sleep)
    blueprint.task(name=CREATE, queue=QUEUE, pass_context=True, retry=_Again())(worker.create_links)
    take_up = blueprint.task(
        name="take_up", queue=QUEUE, pass_context=True, priority=1, queueing_lock="caselinks take_up"
    )(_take_up)
    blueprint.periodic(cron=_LOOKS)(take_up)
    app.add_tasks_from(blueprint, namespace=TASKS)


async def _take_up(context: JobContext, timestamp: int) -> None:
    """Put jobs back into the queue: those of dead workers, and of such as have not these tasks."""
    jobs = context.app.job_manager
    stalled = await jobs.get_stalled_jobs(queue=QUEUE, seconds_since_heartbeat=STALLED)
    not_known = await jobs.list_jobs_async(queue=QUEUE, status=Status.FAILED.value)
    for job in (*stalled, *not_known):
        with contextlib.suppress(ConnectorException):  # another one was quicker, or waits to do the same
            await jobs.retry_job(job)


class _Again(BaseRetryStrategy):
    """A job is tried again until each of its links has an outcome."""

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision:
        return RetryDecision(retry_in={"seconds": _AGAIN})


class _Worker:
    """Does the jobs: one chunk after another, by one client."""

    def __init__(self, creation: ChunkCreation, sleep: Callable[[float], Awaitable[None]]) -> None:
        self._creation = creation
        self._sleep = sleep
        self._next_hold = _FIRST_HOLD

    async def create_links(self, context: JobContext, run: int, chunk: int) -> None:
        """Create the links of a chunk that have no outcome yet."""
        try:
            async with Lease.taken(context.app, run, chunk) as lease:
                await self._create(lease)
        except asyncio.CancelledError:
            raise JobAborted from None  # which procrastinate tries again if it is the worker that ends
        except ChunkTakenError:
            raise
        except Exception as error:
            await self._hold(error)
            raise
        self._next_hold = _FIRST_HOLD

    async def _create(self, lease: Lease) -> None:
        """Create the links for as long as the lease holds."""
        stop = asyncio.Event()
        creating = asyncio.ensure_future(self._creation.create(lease, stop))
        keeping = asyncio.ensure_future(lease.keep())
        try:
            await asyncio.wait([creating, keeping], return_when=asyncio.FIRST_COMPLETED)
            (keeping if keeping.done() else creating).result()
        except asyncio.CancelledError:
            stop.set()
            await asyncio.wait([creating, keeping], return_when=asyncio.FIRST_COMPLETED, timeout=_DRAIN)
            raise
        finally:
            await cancel(creating, keeping)

    async def _hold(self, error: Exception) -> None:
        """Wait before the next job, which would fail alike."""
        asked = (error.retry_after or 0.0) if isinstance(error, RateLimitError) else 0.0
        seconds = max(asked, self._next_hold)
        self._next_hold = min(2 * self._next_hold, _LONGEST_HOLD)
        _logger.warning("no link can be created: %s; next try in %.0f s", error, seconds)
        await self._sleep(seconds)
