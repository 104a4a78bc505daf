"""Many links: as many at a time as are wanted, in bounded memory, one outcome each. Knows no HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable

from attrs import frozen

from datadog_caselinks.errors import CaseLinksError, JournalError
from datadog_caselinks.models import CaseLink
from datadog_caselinks.references import WantedLink


@frozen
class Created:
    """``new`` was made and is ``link``. ``index`` counts the source from 0."""

    new: WantedLink
    link: CaseLink
    index: int


@frozen
class AlreadyLinked:
    """``new`` was there before as ``link``, or earlier in the source. ``index`` counts the source from 0."""

    new: WantedLink
    link: CaseLink
    index: int


@frozen
class Failed:
    """``new`` was not made, or not surely made, because of ``error``. ``index`` counts the source from 0."""

    new: WantedLink
    error: CaseLinksError
    index: int


Make = Callable[[WantedLink], Awaitable[tuple[CaseLink, bool]]]
"""Makes a link or finds it, and tells whether it was made."""

Outcome = Created | AlreadyLinked | Failed


async def create_links(
    make: Make,
    source: Iterable[WantedLink] | AsyncIterable[WantedLink],
    *,
    concurrency: int,
) -> AsyncGenerator[Outcome, None]:
    """Call ``make`` for each link of ``source``, ``concurrency`` at a time; yield outcomes as they come.

    No more is taken from ``source`` than is being created or waits to be consumed: at most twice
    ``concurrency``. An error of ``source`` itself, or of the journal, is raised once the links before it are
    done. When the consumer stops early, what is under way is cancelled.
    """
    numbered = _numbered(source)
    turn = asyncio.Lock()  # an async generator cannot be advanced by two tasks at once
    outcomes: asyncio.Queue[Outcome | None] = asyncio.Queue(concurrency)

    async def work() -> None:
        while True:
            async with turn:
                item = await anext(numbered, None)
            if item is None:
                return
            await outcomes.put(await _outcome(make, *item))

    workers = [asyncio.create_task(work()) for _ in range(concurrency)]

    async def finish() -> None:
        await asyncio.wait(workers)
        await outcomes.put(None)

    finisher = asyncio.create_task(finish())
    try:
        while (outcome := await outcomes.get()) is not None:
            yield outcome
        for worker in workers:
            worker.result()
    finally:
        for task in (finisher, *workers):
            task.cancel()
        await asyncio.gather(finisher, *workers, return_exceptions=True)
        await numbered.aclose()


async def _outcome(make: Make, index: int, new: WantedLink) -> Outcome:
    try:
        link, is_new = await make(new)
    except JournalError:
        raise  # which would fail every link to come
    except CaseLinksError as error:
        return Failed(new, error, index)
    return Created(new, link, index) if is_new else AlreadyLinked(new, link, index)


async def _numbered(
    source: Iterable[WantedLink] | AsyncIterable[WantedLink],
) -> AsyncGenerator[tuple[int, WantedLink], None]:
    index = 0
    if isinstance(source, AsyncIterable):
        async for new in source:
            yield index, new
            index += 1
    else:
        for new in source:
            yield index, new
            index += 1
