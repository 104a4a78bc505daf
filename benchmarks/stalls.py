"""Measure how long one callback blocks the event loop while the client works.

The result is the CPU time of the event loop's thread, so that a busy machine makes no difference. Python's
garbage collector runs in any callback, so its time is reported separately.
"""

from __future__ import annotations

import asyncio
import gc
import json
import tempfile
import time
from asyncio import events
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, Final
from uuid import UUID, uuid4

from benchmarks.contenders import Pair
from datadog_caselinks import CaseLinksClient, Entity, NewCaseLink, Relationship, case
from datadog_caselinks.http.envelope import encode_new_link, loads  # type: ignore[attr-defined] # its own choice
from datadog_caselinks.sandbox.api import CREDENTIALS

COLLECTOR: Final = "Python's garbage collector, once"
PARSER: Final = "the JSON parser, on the list: in a thread, and blocks all other threads"
BESIDE: Final = (COLLECTOR, PARSER)
"""The rows that are not about callbacks."""


async def stalls(*, url: str, links: int, listed: int, source: Iterator[Pair]) -> dict[str, float]:
    """Return the longest callback of each kind of work in seconds, and the separate times."""

    def wanted(count: int) -> list[NewCaseLink]:
        return [_blocks(case(UUID(parent)), case(UUID(child))) for parent, child in islice(source, count)]

    star, tree = _star(wanted(listed)), _tree(wanted(listed // 20))
    hub = star[0].parent
    longest = dict[str, float]()
    with tempfile.TemporaryDirectory() as folder, watching() as watched:
        async with CaseLinksClient(url, CREDENTIALS) as client:

            async def measure(what: str, work: Callable[[], Awaitable[Any]]) -> Any:
                # in a separate task, because the work of this one is not the client's
                watched.clear()
                result = await asyncio.create_task(_awaited(work()))
                longest[what] = max(watched)
                return result

            run = partial(client.create_links, journal=Path(folder) / "journal")
            await _all(client.create_links(star))
            await _all(run(tree))
            # all lazy imports are done from here on
            await _all(client.apply_plan(await client.plan_links(tree)))
            await client.read_graph(tree[0].parent)
            gathered = [client.create_link(new) for new in wanted(links)]
            await measure(f"{links:,} gathered creates", partial(asyncio.gather, *gathered))
            some = wanted(links)
            await measure(f"a run of {links:,}", lambda: _all(client.create_links(some)))
            some = wanted(links)
            await measure(f"a run of {links:,} with a journal", lambda: _all(run(some)))
            await measure("another run with the same journal", lambda: _all(run(some)))
            await measure(f"a list of {listed:,} links", lambda: client.list_links(hub))
            await measure(
                f"a graph of {len(tree) + 1:,} cases", lambda: client.read_graph(tree[0].parent, depth=99)
            )
            await measure(f"a graph beside {listed:,} links", lambda: client.read_graph(hub, depth=1))
            some += wanted(links)
            plan = await measure(f"a plan of {len(some):,} links", lambda: client.plan_links(some))
            await measure("applying it", lambda: _all(client.apply_plan(plan)))
    longest[COLLECTOR] = watched.collecting
    longest[PARSER] = _parsing(star)
    return longest


class Watched(list[float]):
    """The seconds of each callback without garbage collection; ``collecting`` is the longest collection."""

    collecting = 0.0


@contextmanager
def watching() -> Iterator[Watched]:
    """Measure every callback except those of the current task."""
    watched, run, clock, watcher = Watched(), events.Handle._run, time.thread_time, asyncio.current_task()
    collected = began = 0.0

    def note(phase: str, _: object) -> None:
        nonlocal collected, began
        if phase == "start":
            began = clock()
        else:
            collected += (taken := clock() - began)
            watched.collecting = max(watched.collecting, taken)

    def timed(handle: events.Handle) -> None:
        begun, before = clock(), collected
        run(handle)
        taken = clock() - begun - (collected - before)
        if getattr(handle._callback, "__self__", None) is not watcher:  # type: ignore[attr-defined]
            watched.append(taken)

    gc.callbacks.append(note)
    events.Handle._run = timed  # type: ignore[method-assign, assignment]
    try:
        yield watched
    finally:
        events.Handle._run = run  # type: ignore[method-assign]
        gc.callbacks.remove(note)


def _blocks(parent: Entity, child: Entity) -> NewCaseLink:
    return NewCaseLink(parent, Relationship.BLOCKS, child)


def _star(some: list[NewCaseLink]) -> list[NewCaseLink]:
    """Return links from the parent of the first link to all children."""
    return [_blocks(some[0].parent, new.child) for new in some]


def _tree(some: list[NewCaseLink]) -> list[NewCaseLink]:
    """Return links that connect each child with an earlier one."""
    cases, draw = [new.child for new in some], Random(0)
    return [_blocks(cases[draw.randrange(place)], cases[place]) for place in range(1, len(cases))]


async def _awaited(work: Awaitable[Any]) -> Any:
    return await work


async def _all(outcomes: AsyncIterator[Any]) -> None:
    async for outcome in outcomes:
        if hasattr(outcome, "error"):
            raise outcome.error


def _parsing(links: list[NewCaseLink]) -> float:
    """Return the seconds that parsing a response with ``links`` takes."""
    attributes = [
        decoded["data"] | {"id": str(uuid4())} for decoded in map(loads, map(encode_new_link, links))
    ]
    body = json.dumps({"data": attributes})
    begun = time.thread_time()
    loads(body)
    return time.thread_time() - begun
