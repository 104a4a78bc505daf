"""Process many items concurrently, in bounded memory, and report the progress."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Generator, Iterable, Sequence
from typing import Any, TypeVar

from datadog_caselinks.isolation import is_interruption, isolated

_logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")


async def for_each(
    function: Callable[[int, T], Awaitable[R]],
    source: Iterable[T] | AsyncIterable[T],
    *,
    concurrency: int,
) -> AsyncGenerator[R, None]:
    """Call ``function`` with the index and value of each item of ``source``, and yield the results.

    At most ``concurrency`` calls run at once, and results are yielded in the order of completion. At most
    twice ``concurrency`` items are taken from ``source`` ahead of what the consumer has received. If the
    consumer stops early, the running calls are cancelled. If ``source`` is a generator, it is always closed.

    Raises:
        Exception: The first error of ``source`` or ``function``. No item is taken after it: if ``source`` is
            waiting for its next item, that wait is cancelled. The error is raised once the calls that are
            running have ended and their results have been yielded.
    """
    async with contextlib.aclosing(enumerate_async(source)) as items:
        source_lock = asyncio.Lock()  # an async generator cannot be advanced by two tasks at once
        results: asyncio.Queue[tuple[R] | None] = asyncio.Queue(concurrency)
        errors: list[BaseException] = []
        taker: asyncio.Task[None] | None = None  # the worker that waits for the source

        async def take() -> tuple[int, T] | None:
            nonlocal taker
            async with source_lock:
                if errors:
                    return None
                taker = asyncio.current_task()
                try:
                    return await anext(items, None)
                finally:
                    taker = None

        async def work() -> None:
            while item := await take():
                await results.put((await function(*item),))

        async def work_until_an_error() -> None:
            try:
                await work()
            except BaseException as error:
                if is_interruption(error):
                    raise
                errors.append(error)
                if taker:
                    taker.cancel()

        workers = [asyncio.create_task(work_until_an_error()) for _ in range(concurrency)]

        async def finish() -> None:
            await asyncio.wait(workers)
            await results.put(None)

        finisher = asyncio.create_task(finish())
        try:
            while (result := await results.get()) is not None:
                yield result[0]
            if errors:
                raise errors[0]
        finally:
            for task in (finisher, *workers):
                task.cancel()
            await asyncio.gather(finisher, *workers, return_exceptions=True)


def retrieve_error(task: asyncio.Task[Any]) -> None:
    """Mark the error of ``task`` as retrieved: asyncio would log it if all callers were cancelled."""
    if not task.cancelled():
        task.exception()


OnProgress = Callable[[int, int], None]
"""A callback that receives the number of completed requests and the number expected so far."""


class Progress:
    """A count of completed and expected requests, reported to ``on_progress`` after each completion."""

    def __init__(self, on_progress: OnProgress | None) -> None:
        self._on_progress = on_progress
        self._expected = self._completed = 0

    def expect(self, count: int) -> None:
        """Add ``count`` to the expected requests."""
        self._expected += count

    def complete(self) -> None:
        """Count one completed request, and report it."""
        self._completed += 1
        if self._on_progress:
            with isolated(_logger, "progress failed"):
                self._on_progress(self._completed, self._expected)


async def map_concurrently(
    function: Callable[[T], Awaitable[R]], items: Sequence[T], *, concurrency: int, progress: Progress
) -> dict[T, R]:
    """Return the result of ``function`` for each of ``items``, in their order.

    At most ``concurrency`` calls run at once.

    Raises:
        Exception: The first error of ``function``; the calls still running are cancelled.
    """

    async def call(_: int, item: T) -> tuple[T, R | Exception]:
        try:
            return item, await function(item)
        except Exception as error:
            return item, error

    progress.expect(len(items))
    results = dict[T, R]()
    async with contextlib.aclosing(for_each(call, items, concurrency=concurrency)) as completed:
        async for item, result in completed:
            if isinstance(result, Exception):
                raise result
            results[item] = result
            progress.complete()
    return {item: results[item] for item in items}


async def enumerate_async(source: Iterable[T] | AsyncIterable[T]) -> AsyncGenerator[tuple[int, T], None]:
    """Yield the index and value of each item of ``source``, and close it at the end if it is a generator."""
    index = 0
    async with closing_source(source):
        if isinstance(source, AsyncIterable):
            async for item in source:
                yield index, item
                index += 1
        else:
            for item in source:
                yield index, item
                index += 1


def closing_source(source: Iterable[Any] | AsyncIterable[Any]) -> contextlib.AsyncExitStack:
    """Return a context at whose end ``source`` is closed if it is a generator.

    Otherwise an abandoned generator stays open until it is garbage-collected, which may be late after an
    error, and after the event loop has closed for an async generator.
    """
    stack = contextlib.AsyncExitStack()
    if isinstance(source, AsyncGenerator):
        stack.push_async_callback(source.aclose)
    elif isinstance(source, Generator):
        stack.callback(source.close)
    return stack
