"""Fake clocks: the time of the event loop, which a test can advance, and a clock that only a test sets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from typing import TypeVar

from attrs import define

from tests.support.waiting import settle

T = TypeVar("T")


class Clock:
    """The time of the event loop, which a test can advance.

    Timers fire as if the added time had really passed. The gate of the client reads the same time.

    Args:
        loop: The event loop whose time is faked.
        stopped_at: The time in seconds at which the clock is stopped: only :meth:`advance` changes it. By
            default the clock follows the real time.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, stopped_at: float | None = None) -> None:
        self._real = loop.time if stopped_at is None else lambda: stopped_at
        self._ahead = 0.0

    def time(self) -> float:
        """Return the current time, as a replacement for ``loop.time``."""
        return self._real() + self._ahead

    def advance(self, seconds: float) -> None:
        """Advance the clock by ``seconds``."""
        self._ahead += seconds


@define
class ManualClock:
    """A clock that changes only when the test sets ``now``, in seconds since the epoch.

    By default it starts on the boundary of every rate limit window.
    """

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@contextlib.asynccontextmanager
async def hurrying(clock: Clock) -> AsyncIterator[None]:
    """Advance ``clock`` by half a second whenever the event loop has run long enough for a request.

    Everything that the body waits for must run on this event loop: the clock does not wait for threads or
    other processes.
    """

    async def hurry() -> None:
        while True:
            await settle(50)
            clock.advance(0.5)

    task = asyncio.create_task(hurry())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def in_no_time(clock: Clock, call: Awaitable[T]) -> T:
    """Return the result of ``call`` without waiting for its timers; see :func:`hurrying`."""
    async with hurrying(clock):
        return await call
