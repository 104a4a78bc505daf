"""Helpers for tests that wait for other tasks, threads or processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from inspect import isawaitable

MAX_SECONDS = 60.0
"""The timeout for everything that a test waits for in real time."""


async def settle(iterations: int = 20) -> None:
    """Run the event loop until every other task waits for something."""
    for _ in range(iterations):
        await asyncio.sleep(0)


async def until(holds: Callable[[], object]) -> None:
    """Wait until ``holds()``, or what it returns once awaited, is true.

    It is for the work of threads, processes and databases, and for tests that stop the clock of the event
    loop: it measures real time.

    Raises:
        TimeoutError: It was not true within :data:`MAX_SECONDS`.
    """
    deadline = time.monotonic() + MAX_SECONDS
    while not (await held if isawaitable(held := holds()) else held):
        if time.monotonic() > deadline:
            raise TimeoutError
        await asyncio.to_thread(time.sleep, 0.001)
