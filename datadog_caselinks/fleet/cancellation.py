"""Cancelling tasks that wait for the database. Knows nothing of a fleet."""

from __future__ import annotations

import asyncio
from typing import Any


async def cancel(*tasks: asyncio.Future[Any], patience: float = 1.0) -> None:
    """Cancel ``tasks`` and wait for their end; whoever has not ended after ``patience`` seconds once more.

    Once is not enough: psycopg waits by ``asyncio.wait_for``, and that of Python 3.11 loses a cancellation
    that comes at the same moment as the answer.
    """
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=patience)
    await asyncio.gather(*tasks, return_exceptions=True)  # or asyncio would complain of errors nobody saw
