"""Cancellation of tasks that wait for the database."""

from __future__ import annotations

import asyncio
from typing import Any


async def cancel(*tasks: asyncio.Future[Any], patience: float = 1.0) -> None:
    """Cancel ``tasks`` and wait until they end. Cancel the remaining ones again every ``patience`` seconds.

    Once is not enough: psycopg uses ``asyncio.wait_for``, which on Python 3.11 loses a cancellation that
    arrives at the same moment as the result.
    """
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=patience)
    await asyncio.gather(*tasks, return_exceptions=True)  # or asyncio would log unretrieved errors
