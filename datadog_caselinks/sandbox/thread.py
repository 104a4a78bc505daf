"""An event loop in a thread of its own, and calls into that loop from other threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Final, TypeVar

T = TypeVar("T")

_PATIENCE: Final = 30.0
"""Seconds. Calls take milliseconds, so a longer one hangs and must not block its caller forever."""


@contextmanager
def loop_in_thread(name: str) -> Iterator[asyncio.AbstractEventLoop]:
    """Run an event loop in a thread called ``name`` until the block ends."""
    running: Future[asyncio.AbstractEventLoop] = Future()
    ended = asyncio.Event()

    async def run() -> None:
        running.set_result(asyncio.get_running_loop())
        await ended.wait()

    # A daemon thread, since a loop that hangs must not keep the program from exiting.
    thread = threading.Thread(target=lambda: asyncio.run(run()), name=name, daemon=True)
    thread.start()
    loop = running.result(_PATIENCE)
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(_PATIENCE)


def result_of(coroutine: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> T:
    """Return the result of ``coroutine``, run in ``loop`` of another thread, or raise its error.

    Raises:
        TimeoutError: The loop is blocked.
    """
    return asyncio.run_coroutine_threadsafe(coroutine, loop).result(_PATIENCE)
