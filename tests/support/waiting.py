"""Helpers for tests that wait for other tasks, threads or processes."""

from __future__ import annotations

import asyncio
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

    It is for the work of threads, processes and databases, of which no event tells.

    Raises:
        TimeoutError: It was not true within :data:`MAX_SECONDS`.
    """
    async with asyncio.timeout(MAX_SECONDS):
        while True:
            held = holds()
            if await held if isawaitable(held) else held:
                return
            await asyncio.sleep(0.001)
