"""The rules of concurrent work: bounded, and ended by the first error."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator

import pytest

from datadog_caselinks.calls.concurrency import for_each
from tests.support.waiting import MAX_SECONDS


async def collect(generator: AsyncGenerator[int, None], results: list[int]) -> None:
    """Append the results of ``generator`` to ``results``, even if the generator raises at the end."""
    async for result in generator:
        results.append(result)


class TestForEach:
    async def test_no_item_is_taken_after_an_error(self) -> None:
        """After an error no item is started; the running calls end and yield their results first."""
        all_run, has_failed = asyncio.Event(), asyncio.Event()
        taken: list[int] = []
        results: list[int] = []

        async def call(index: int, item: int) -> int:
            taken.append(item)
            if item == 0:
                await all_run.wait()
                has_failed.set()
                raise LookupError
            if item == 2:
                all_run.set()
            await has_failed.wait()
            await asyncio.sleep(0)
            return item

        with pytest.raises(LookupError):
            await collect(for_each(call, itertools.count(), concurrency=3), results)
        assert (sorted(results), taken) == ([1, 2], [0, 1, 2])

    async def test_an_error_does_not_wait_for_the_source(self) -> None:
        """An error is raised at once, even if the source waits for its next item, which stays untaken."""
        queue: asyncio.Queue[int] = asyncio.Queue()
        queue.put_nowait(0)
        is_waiting, is_closed = asyncio.Event(), asyncio.Event()
        called: list[int] = []

        async def consume() -> AsyncGenerator[int, None]:
            try:
                while True:
                    if queue.empty():
                        is_waiting.set()
                    yield await queue.get()
            finally:
                is_closed.set()

        async def call(_: int, item: int) -> int:
            called.append(item)
            await is_waiting.wait()
            queue.put_nowait(1)  # at the very moment of the error
            raise LookupError

        async with asyncio.timeout(MAX_SECONDS):
            with pytest.raises(LookupError):
                await collect(for_each(call, consume(), concurrency=3), [])
        assert (called, queue.qsize()) == ([0], 1)
        assert is_closed.is_set()

    async def test_an_item_that_a_cancelled_source_yields_is_not_lost(self) -> None:
        """A source that yields an item although its wait was cancelled gets a call for it, and then ends."""
        results: list[int] = []
        is_waiting = asyncio.Event()

        async def source() -> AsyncGenerator[int, None]:
            yield 0
            try:
                is_waiting.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                yield 1
            raise AssertionError

        async def call(_: int, item: int) -> int:
            if item == 0:
                await is_waiting.wait()
                raise LookupError
            return item

        async with asyncio.timeout(MAX_SECONDS):
            with pytest.raises(LookupError):
                await collect(for_each(call, source(), concurrency=2), results)
        assert results == [1]

    async def test_an_error_of_the_source(self) -> None:
        """An error of the source is raised after the results of the items before it."""
        results: list[int] = []
        source = itertools.chain([1, 2], (1 // zero for zero in [0]))

        async def call(index: int, item: int) -> int:
            await asyncio.sleep(0)
            return item

        with pytest.raises(ZeroDivisionError):
            await collect(for_each(call, source, concurrency=2), results)
        assert sorted(results) == [1, 2]

    async def test_a_cancellation_that_nobody_asked_for(self) -> None:
        """A ``CancelledError`` of another task that a call awaits is raised: no item is lost in silence."""
        other = asyncio.create_task(asyncio.Event().wait())
        other.cancel()

        async def call(_: int, __: int) -> int:
            await other
            raise AssertionError

        with pytest.raises(asyncio.CancelledError):
            await collect(for_each(call, range(9), concurrency=2), [])
