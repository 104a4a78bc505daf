"""Helpers for tests that wait for other tasks, threads or processes."""

from __future__ import annotations

import asyncio

MAX_SECONDS = 60.0
"""The timeout for everything that a test waits for in real time."""


async def settle(iterations: int = 20) -> None:
    """Run the event loop until every other task waits for something."""
    for _ in range(iterations):
        await asyncio.sleep(0)
