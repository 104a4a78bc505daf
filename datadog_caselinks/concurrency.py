"""Many items, so many at a time, in bounded memory; and how far that has come. Knows no links and no HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Generator, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


async def each(
    do: Callable[[int, T], Awaitable[R]],
    source: Iterable[T] | AsyncIterable[T],
    *,
    concurrency: int,
) -> AsyncGenerator[R, None]:
    """Do something with each item of ``source`` and its index, so many at a time; yield what comes of it.

    No more is taken from ``source`` than is being done or waits to be consumed: at most twice
    ``concurrency``. An error of ``source`` itself, or of ``do``, is raised once the items before it are
    done. When the consumer stops early, what is under way is cancelled, and a generator closed.
    """
    async with contextlib.aclosing(numbered(source)) as items:
        turn = asyncio.Lock()  # an async generator cannot be advanced by two tasks at once
        results: asyncio.Queue[tuple[R] | None] = asyncio.Queue(concurrency)

        async def work() -> None:
            while True:
                async with turn:
                    item = await anext(items, None)
                if item is None:
                    return
                await results.put((await do(*item),))

        workers = [asyncio.create_task(work()) for _ in range(concurrency)]

        async def finish() -> None:
            await asyncio.wait(workers)
            await results.put(None)

        finisher = asyncio.create_task(finish())
        try:
            while (result := await results.get()) is not None:
                yield result[0]
            for worker in workers:
                worker.result()
        finally:
            for task in (finisher, *workers):
                task.cancel()
            await asyncio.gather(finisher, *workers, return_exceptions=True)


OnProgress = Callable[[int, int], None]
"""Is called with how many questions are answered, and of how many, as far as is known."""


class Progress:
    """Counts the questions of a run that asks in rounds, and tells of each that is answered."""

    def __init__(self, tell: OnProgress | None) -> None:
        self._tell = tell
        self._asked = self._answered = 0

    def ask(self, count: int) -> None:
        """Expect ``count`` more answers."""
        self._asked += count

    def answer(self) -> None:
        """Count an answer."""
        self._answered += 1
        if self._tell:
            self._tell(self._answered, self._asked)


async def of_each(
    ask: Callable[[T], Awaitable[R]], items: Sequence[T], *, concurrency: int, progress: Progress
) -> dict[T, R]:
    """What ``ask`` returns for each of ``items``, in their order, so many at a time.

    The first error cancels what is under way, and is raised.
    """

    async def answer(_: int, item: T) -> tuple[T, R | Exception]:
        try:
            return item, await ask(item)
        except Exception as error:
            return item, error

    progress.ask(len(items))
    found = dict[T, R]()
    async with contextlib.aclosing(each(answer, items, concurrency=concurrency)) as answers:
        async for item, value in answers:
            if isinstance(value, Exception):
                raise value
            found[item] = value
            progress.answer()
    return {item: found[item] for item in items}


async def numbered(source: Iterable[T] | AsyncIterable[T]) -> AsyncGenerator[tuple[int, T], None]:
    """The items of a source of either kind, with their indexes. A generator is closed, however this ends."""
    index = 0
    async with contextlib.AsyncExitStack() as stack:
        # Here and now: one that was left early would be closed when Python comes to collect it, which after
        # an error takes long, and for an async one may be when its loop is gone.
        if isinstance(source, AsyncGenerator):
            stack.push_async_callback(source.aclose)
        elif isinstance(source, Generator):
            stack.callback(source.close)
        if isinstance(source, AsyncIterable):
            async for item in source:
                yield index, item
                index += 1
        else:
            for item in source:
                yield index, item
                index += 1
