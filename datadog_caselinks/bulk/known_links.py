"""Find out which links of a run exist already, with as few lists as possible.

A list shows every link of an entity, at either end. One list of an incident is therefore enough for all the
cases that it caused.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Mapping
from typing import Final, Literal, Self, TypeVar

from datadog_caselinks.calls.concurrency import enumerate_async, retrieve_error
from datadog_caselinks.calls.operations import CANNOT_LIST
from datadog_caselinks.calls.recent_links import MAX_LIST_AGE, RecentLinks
from datadog_caselinks.isolation import is_interruption
from datadog_caselinks.values.models import (
    CaseLink,
    Entity,
    Identity,
    NewCaseLink,
    Reference,
    WantedLink,
    identity,
)

LOOK_AHEAD: Final = 2_000
"""The maximum number of links that are read ahead, to find out which end more of them share."""

_MAX_LINKS: Final = 20_000
_MAX_ENTITIES: Final = 5_000
"""How many links and lists are kept at most. The list that was used least recently is dropped first."""

_PAUSE: Final = 100
"""The number of links that are read ahead before other tasks get the event loop."""

End = Literal["parent", "child"]
"""The end of a link whose list shows whether the link exists."""

ListIdsFunc = Callable[[Entity], Awaitable[Mapping[Identity, str]]]
"""A function that lists the ids of the links of an entity."""

T = TypeVar("T")


async def choose_ends(
    source: Iterable[WantedLink] | AsyncIterable[WantedLink],
) -> AsyncGenerator[tuple[WantedLink, End], None]:
    """Yield each link of ``source`` with the end to list, so that few entities are listed.

    An entity that was chosen before is chosen again. Otherwise, the end that more of the links ahead share is
    chosen. Up to ``LOOK_AHEAD`` links are read ahead; a slow source delays no link that it has yielded. An
    item that is not a link is yielded too, so that only this item fails.
    """
    ahead: Counter[Reference] = Counter()
    chosen: OrderedDict[Reference, None] = OrderedDict()

    def count(wanted: WantedLink) -> None:
        if isinstance(wanted, WantedLink):
            ahead[wanted.parent] += 1
            ahead[wanted.child] += 1

    def choose(wanted: WantedLink) -> End:
        if not isinstance(wanted, WantedLink):
            return "parent"
        ends: dict[End, Reference] = {"parent": wanted.parent, "child": wanted.child}
        for reference in ends.values():
            ahead[reference] -= 1
            if not ahead[reference]:
                del ahead[reference]
        end = max(ends, key=lambda each: (ends[each] in chosen, ahead[ends[each]]))
        chosen[ends[end]] = None
        chosen.move_to_end(ends[end])
        if len(chosen) > _MAX_ENTITIES:
            chosen.popitem(last=False)
        return end

    async with contextlib.aclosing(_read_ahead(source, count)) as links:
        async for wanted in links:
            yield wanted, choose(wanted)


async def parent_ends(
    source: Iterable[WantedLink] | AsyncIterable[WantedLink],
) -> AsyncGenerator[tuple[WantedLink, End], None]:
    """Yield each link of ``source`` with its parent end, for a run that looks nothing up."""
    async with contextlib.aclosing(enumerate_async(source)) as items:
        async for _, wanted in items:
            yield wanted, "parent"


async def _read_ahead(
    source: Iterable[T] | AsyncIterable[T], on_read: Callable[[T], None]
) -> AsyncGenerator[T, None]:
    """Yield the items of ``source``, while up to ``LOOK_AHEAD`` that follow are read and reported."""
    queue: asyncio.Queue[tuple[T] | None] = asyncio.Queue(LOOK_AHEAD)

    async def read() -> None:
        try:
            async with contextlib.aclosing(enumerate_async(source)) as items:
                async for index, item in items:
                    on_read(item)
                    await queue.put((item,))
                    if index % _PAUSE == _PAUSE - 1:
                        await asyncio.sleep(0)
        except BaseException as error:
            if not is_interruption(error):
                await queue.put(None)
            raise
        await queue.put(None)

    reader = asyncio.create_task(read())
    reader.add_done_callback(retrieve_error)
    try:
        while (read_item := await queue.get()) is not None:
            yield read_item[0]
        await reader  # raises what the source raised
    finally:
        reader.cancel()
        await asyncio.wait([reader])


class _List:
    """One list of an entity: the ids of the links that it showed, and of those created since.

    ``task`` fills it with what the list shows.
    """

    task: asyncio.Task[None] | None = None

    def __init__(self, requested_at: float) -> None:
        self.requested_at: float = requested_at
        self.ids: dict[Identity, str] = {}

    @property
    def is_in_flight(self) -> bool:
        return self.task is not None and not self.task.done()

    @property
    def is_fresh(self) -> bool:
        return asyncio.get_running_loop().time() - self.requested_at <= MAX_LIST_AGE


class KnownLinks:
    """A cache of existing links: lists of entities, and the links that the client has created since.

    Use it as ``async with known:`` around the work: at the end of the last such block, lists in flight are
    cancelled. The lists are kept for the next block.

    Args:
        list_ids: A function that lists the ids of the links of an entity.
        recent: The links of the client that a list may not show yet. It also adds later links to the lists.
    """

    def __init__(self, list_ids: ListIdsFunc, recent: RecentLinks) -> None:
        self._list_ids = list_ids
        self._recent = recent
        recent.add_to(self)
        self._lists: OrderedDict[Entity, _List] = OrderedDict()
        self._size = 0
        self._refused: set[Entity] = set()
        self._users = 0

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        # A copy or a pickle, such as that of a plan, is None: it may be used later or in another process.
        return type(None), ()

    async def __aenter__(self) -> Self:
        self._users += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        self._users -= 1
        if self._users:  # a plan may be applied twice at once
            return
        tasks = [each.task for each in self._lists.values() if each.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def find(self, new: NewCaseLink, end: End) -> CaseLink | None:
        """Return the link equal to ``new``, for ``RELATES_TO`` in either direction, or ``None``.

        A list of either end is used if it was requested within the last five minutes. Otherwise the entity at
        ``end`` is listed, or the other one if the server refuses to list the first, or if its list is too
        long or incomplete.

        Raises:
            CaseLinksError: As :meth:`CaseLinksClient.list_links`.
        """
        first, second = (new.parent, new.child) if end == "parent" else (new.child, new.parent)
        if first in self._refused or (self._fresh(second) and not self._fresh(first)):
            first, second = second, first
        try:
            known = await self._list(first)
        except CANNOT_LIST:
            if second in self._refused:
                raise
            self._refuse(first)
            known = await self._list(second)
        key = identity(new)
        link_id = known.ids.get(key)
        return self._recent.find(key, known.requested_at) if link_id is None else new.existing(link_id)

    def is_listed_by(self, list_ids: ListIdsFunc) -> bool:
        """Return whether ``list_ids`` requested these lists. A client of another site cannot use them."""
        return self._list_ids == list_ids

    def learn(self, entity: Entity, ids: Mapping[Identity, str], requested_at: float) -> None:
        """Keep a list of ``entity``, with the ids of its links and the event loop's time of its request."""
        self.forget(entity)
        known = self._lists[entity] = _List(requested_at)
        self._fill(known, ids)

    def add(self, link: CaseLink) -> None:
        """Add a link that was created or found to the lists of its ends."""
        used = [known for entity in (link.parent, link.child) if (known := self._lists.get(entity))]
        key = identity(link)
        for known in used:
            self._keep(known, key, link.id)
            known.ids[key] = link.id  # instead of one that was deleted
        self._evict(*used)

    def forget(self, *entities: Entity) -> None:
        """Forget the lists of ``entities``, so that the next call requests them."""
        for entity in entities:
            if known := self._lists.pop(entity, None):
                self._size -= len(known.ids)

    def _fresh(self, entity: Entity) -> _List | None:
        known = self._lists.get(entity)
        return known if known and known.is_fresh else None

    def _refuse(self, entity: Entity) -> None:
        if len(self._refused) >= _MAX_ENTITIES:
            self._refused.clear()
        self._refused.add(entity)

    async def _list(self, entity: Entity) -> _List:
        known = self._fresh(entity)
        if known is None:
            self.forget(entity)
            known = self._lists[entity] = _List(asyncio.get_running_loop().time())
            known.task = asyncio.create_task(self._request(entity, known))
            known.task.add_done_callback(retrieve_error)
        else:
            self._lists.move_to_end(entity)
        if known.task:
            if known.is_in_flight:
                await asyncio.wait([known.task])  # if this call is cancelled, the others still get the list
            known.task.result()
        return known

    async def _request(self, entity: Entity, known: _List) -> None:
        try:
            ids = await self._list_ids(entity)
            if self._lists.get(entity) is known:
                self._fill(known, ids)
            else:  # it was forgotten, so only the calls that wait for it use it
                known.ids.update(ids)
        except BaseException:
            if self._lists.get(entity) is known:
                self.forget(entity)
            raise

    def _fill(self, known: _List, ids: Mapping[Identity, str]) -> None:
        for key, link_id in ids.items():
            self._keep(known, key, link_id)
        self._evict(known)

    def _evict(self, *used: _List) -> None:
        """Forget the lists that were used least recently, except ``used``, while there are too many links."""
        while self._size > _MAX_LINKS or len(self._lists) > _MAX_ENTITIES:
            idle = (
                each for each, other in self._lists.items() if other not in used and not other.is_in_flight
            )
            oldest = next(idle, None)
            if oldest is None:
                break
            self.forget(oldest)

    def _keep(self, known: _List, key: Identity, link_id: str) -> None:
        self._size += key not in known.ids
        known.ids.setdefault(key, link_id)
