"""Keep the requests of one client below its own limit, which may be lower than that of the server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar
from weakref import WeakKeyDictionary

from datadog_caselinks.observation.events import report_wait
from datadog_caselinks.values.rate import Rate, RateCount

T = TypeVar("T")


class Pace:
    """Lets at most ``rate.requests`` requests start in any ``rate.seconds``, over all buckets together.

    The permit of a request is acquired only when the rate allows the request, since it would become stale.
    The request counts from that time on, so it must be sent without further delay.
    """

    def __init__(self, rate: Rate) -> None:
        self._started = RateCount(rate)
        self._closed = asyncio.Event()
        # One queue for each bucket, because calls that wait for one window must not hold up those of another.
        self._queues: WeakKeyDictionary[object, asyncio.Lock] = WeakKeyDictionary()

    async def acquire(
        self, bucket: object, acquire: Callable[[], Awaitable[T]], withdraw: Callable[[T], None]
    ) -> T:
        """Wait until the rate allows a request of ``bucket``, and return the result of ``acquire``.

        ``withdraw`` gives a result back if the rate no longer allows a request when ``acquire`` returns.
        """
        queue = self._queues.setdefault(bucket, asyncio.Lock())
        async with contextlib.AsyncExitStack() as turn:
            with self._reported_wait(queue):
                await turn.enter_async_context(queue)  # in FIFO order
                await self._until_allowed()
            while True:
                acquired = await acquire()  # reports its own waits, so this is not within a reported one
                if not self._wait():
                    self._started.add(asyncio.get_running_loop().time())
                    return acquired
                withdraw(acquired)  # a request of another bucket started in the meantime
                with self._reported_wait(queue):
                    await self._until_allowed()

    def _reported_wait(self, queue: asyncio.Lock) -> contextlib.AbstractContextManager[None]:
        wait = self._wait()
        return report_wait(wait) if wait or queue.locked() else contextlib.nullcontext()

    def close(self) -> None:
        """End all waits: the client is closed, and refuses the calls."""
        self._closed.set()

    async def _until_allowed(self) -> None:
        while wait := self._wait():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._closed.wait()

    def _wait(self) -> float:
        """Return the seconds until the rate allows a request."""
        return 0.0 if self._closed.is_set() else self._started.wait(asyncio.get_running_loop().time())
