"""Measure how well the workers of a fleet share a rate limit: ``python -m benchmarks.fleet``.

The program takes five minutes, needs the PostgreSQL database in ``CASELINKS_DATABASE``, and leaves its runs
there.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from typing import Final

from attrs import frozen
from procrastinate import App

from datadog_caselinks import case
from datadog_caselinks.fleet import connected, create_tables, submit
from datadog_caselinks.sandbox import Sandbox

WORKERS: Final = 4
LINKS: Final = 4_000
OF_ONE_PARENT: Final = 20
LIMITS: Final = ((200, 2), (1000, 10))
"""Requests, and the seconds of their window."""

RUNS: Final = 3

_STARTUP: Final = 1.5
"""Seconds that a worker takes to its first request."""


@frozen
class Shared:
    """One run: accepted and rejected requests, the seconds taken, and the minimum (``floor``) in seconds."""

    admitted: int
    rejected: int
    taken: float
    floor: float

    def __str__(self) -> str:
        rejected = self.rejected / (self.admitted + self.rejected)
        return (
            f"{self.admitted} requests, {rejected:.1%} rejected, {self.taken:.1f} s, "
            f"{self.taken / self.floor:.2f} of the floor"
        )


def uuid(number: int) -> str:
    """Return the UUID for a number."""
    return f"00000000-0000-4000-8000-{number:012x}"


async def shared(app: App, limit: int, period: int, skip: int) -> Shared:
    """Let four workers create links, starting at a random moment of a window's first half."""
    async with Sandbox(rate_limit=f"{limit}/{period}s") as sandbox:
        keys = {"DD_API_KEY": sandbox.credentials.api_key, "DD_APP_KEY": sandbox.credentials.app_key}
        wanted = [
            case(uuid(number // OF_ONE_PARENT)).blocks(case(uuid(number + 1_000_000)))
            for number in range(skip, skip + LINKS)
        ]
        await submit(app, wanted, site=sandbox.site)
        window = (time.time() + _STARTUP) // period + 1
        await asyncio.sleep((window + random.uniform(0, 0.5)) * period - _STARTUP - time.time())
        workers = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "datadog_caselinks", "fleet", "worker", "--until-done", "--quiet"),
                env={**os.environ, **keys, "DD_SITE": sandbox.url},
            )
            for _ in range(WORKERS)
        ]
        assert [await worker.wait() for worker in workers] == [0] * WORKERS
        assert len(sandbox.links) == LINKS
        admitted = [request.at for request in sandbox.requests if request.status != 429]
        first, last = admitted[0], admitted[-1]
        windows = -(-len(admitted) // limit)
        floor = (first // period + windows - 1) * period - first
        return Shared(len(admitted), sandbox.rejected, last - first, floor)


async def main() -> None:
    """Measure each limit, in several rounds."""
    async with connected(os.environ["CASELINKS_DATABASE"]) as app:
        await create_tables(app)
        for run in range(RUNS):
            for limit, period in LIMITS:
                print(f"{limit} per {period} s: {await shared(app, limit, period, run * LINKS)}", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
