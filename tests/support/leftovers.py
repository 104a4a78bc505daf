"""A check that a test cleans up after itself."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import warnings
from collections.abc import AsyncIterator
from typing import Any


@contextlib.asynccontextmanager
async def leaving_nothing() -> AsyncIterator[None]:
    """Fail if the body leaves a running task, an unclosed resource or an error in a callback of the loop."""
    loop, complaints = asyncio.get_running_loop(), list[dict[str, Any]]()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    gc.freeze()  # for good: collections are fast if they skip all objects that exist already
    before = asyncio.all_tasks() - {asyncio.current_task()}  # the end of a fixture runs in a different task
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
        gc.collect()
        # python-backoff leaves an async generator open after an error; asyncio closes it in a task.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert asyncio.all_tasks() - {asyncio.current_task()} == before
    assert [str(warning.message) for warning in caught] == []
    assert complaints == []
