"""How many requests are under way at once. Knows no HTTP."""

from __future__ import annotations

import asyncio
from types import TracebackType


class Gate:
    """``slots`` requests at a time, first come, first served; an async context manager for one of them.

    The clock of an attempt starts behind it: a call that waits for its turn does not time out.
    """

    def __init__(self, slots: int) -> None:
        self._slots = asyncio.Semaphore(slots)

    async def __aenter__(self) -> None:
        await self._slots.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._slots.release()
