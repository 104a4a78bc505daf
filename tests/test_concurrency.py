"""The rules of concurrent work: bounded, and ended by the first error."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator

import pytest

from datadog_caselinks.concurrency import for_each


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
