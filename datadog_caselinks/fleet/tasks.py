"""The tasks of a fleet: create the links of a chunk, and requeue the jobs of dead workers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

from procrastinate import App, Blueprint, JobContext
from procrastinate.exceptions import ConnectorException, JobAborted
from procrastinate.jobs import Job, Status
from procrastinate.retry import BaseRetryStrategy, RetryDecision

from datadog_caselinks.calls.retry import requested_wait
from datadog_caselinks.client import CaseLinksClient
from datadog_caselinks.fleet.cancellation import cancel
from datadog_caselinks.fleet.creation import ChunkCreation, OnOutcome
from datadog_caselinks.fleet.lease import ChunkTakenError, Lease
from datadog_caselinks.fleet.runs import CREATE, TASKS, queue_of, site_of
from datadog_caselinks.isolation import log
from datadog_caselinks.values.parameters import require, require_function

_logger = logging.getLogger(__name__)

STALLED: Final = 10.0
"""Seconds without a heartbeat after which a worker is considered dead."""

_REQUEUE_CRON: Final = "* * * * * */5"
"""The cron schedule for finding dead workers: every five seconds."""

_RETRY_AFTER: Final = 2
"""Seconds before a job is retried. By then the last request of its previous worker should be applied."""

_DRAIN: Final = 5.0
"""Seconds that requests in flight may take when the worker is shut down."""

_FIRST_HOLD: Final = 5.0
_LONGEST_HOLD: Final = 300.0
"""Bounds in seconds of the wait after an error that affects all links; it doubles with each such error."""


def add_link_tasks(app: App, client: CaseLinksClient, *, on_outcome: OnOutcome = lambda *_: None) -> None:
    """Add the tasks that create links to ``app``. ``client`` must stay open while its workers run.

    The tasks have the namespace ``caselinks``. Each site has a queue, such as
    ``caselinks https://api.datadoghq.eu``. One of the tasks runs every five seconds and puts the jobs of dead
    workers back into the queue.

    Args:
        on_outcome: Called for each link with the number of its run, its number in the run, and its outcome.
            What it raises is logged.
    """
    require("client", client, CaseLinksClient, "a CaseLinksClient")
    require_function("on_outcome", on_outcome)
    blueprint = Blueprint()
    site = client.site.api_url
    queue = queue_of(site)
    worker = _Worker(ChunkCreation(client, on_outcome), site)
    blueprint.task(name=CREATE, queue=queue, pass_context=True, retry=_AlwaysRetry())(worker.create_links)
    requeue = blueprint.task(
        name="requeue", queue=queue, pass_context=True, priority=1, queueing_lock=f"{queue} requeue"
    )(_requeue)
    blueprint.periodic(cron=_REQUEUE_CRON, periodic_id=queue)(requeue)
    app.add_tasks_from(blueprint, namespace=TASKS)


async def _requeue(context: JobContext, timestamp: int) -> None:
    """Put jobs back into the queue: those of dead workers, and of workers that lack these tasks."""
    jobs, queue = context.app.job_manager, context.job.queue
    stalled = await jobs.get_stalled_jobs(queue=queue, seconds_since_heartbeat=STALLED)
    unknown = await jobs.list_jobs_async(queue=queue, status=Status.FAILED.value)
    for job in (*stalled, *unknown):
        with contextlib.suppress(ConnectorException):  # another worker has requeued it, or is about to
            await jobs.retry_job(job)


class _OtherSiteError(Exception):
    """A worker without ``queues`` got a job of another site, which that site's workers will take."""


class _AlwaysRetry(BaseRetryStrategy):
    """A retry strategy that retries a job until each of its links has an outcome."""

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision:
        return RetryDecision(retry_in={"seconds": _RETRY_AFTER})


class _Worker:
    """A worker that runs its jobs one chunk after another."""

    def __init__(self, creation: ChunkCreation, site: str) -> None:
        self._creation = creation
        self._site = site
        self._next_hold = _FIRST_HOLD

    async def create_links(self, context: JobContext, run: int, chunk: int) -> None:
        """Create the links of a chunk that have no outcome yet."""
        try:
            await self._create_or_hold(context.app, run, chunk)
        except asyncio.CancelledError:
            raise JobAborted from None  # procrastinate retries the job if the worker is shutting down
        self._next_hold = _FIRST_HOLD

    async def _create_or_hold(self, app: App, run: int, chunk: int) -> None:
        try:
            site = await site_of(app, run)
            if site and site != self._site:
                raise _OtherSiteError(f"run {run} belongs to {site}, and this worker uses {self._site}")
            async with Lease.acquire(app, run, chunk) as lease:
                await self._create(lease)
        except (ChunkTakenError, _OtherSiteError):
            raise
        except Exception as error:
            await self._hold(error)
            raise

    async def _create(self, lease: Lease) -> None:
        """Create the links while the lease holds."""
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
            lease.nothing_in_flight = creating.done()
            await cancel(creating, keeping)

    async def _hold(self, error: Exception) -> None:
        """Wait before the next job, which would fail for the same reason."""
        seconds = max(requested_wait(error), self._next_hold)
        self._next_hold = min(2 * self._next_hold, _LONGEST_HOLD)
        log(_logger, logging.WARNING, "cannot create links: %s; next attempt in %.0f s", error, seconds)
        await asyncio.sleep(seconds)
