"""Whether a link is there: looked for among the links of its parent, for many in one list. Knows no HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from datadog_caselinks.models import CaseLink, Entity, Identity, NewCaseLink, identity


class _Look:
    """One list of the links of a parent, for all who asked before it was begun."""

    def __init__(self, task: asyncio.Task[Mapping[Identity, CaseLink]]) -> None:
        self.task = task
        self.waiting = 0


class Lookup:
    """Looks for links by ``list_links``.

    Of one parent only one list is under way at a time. Those who ask meanwhile share the next one, since a
    list that was asked for before a link was sent cannot tell of it.
    """

    def __init__(self, list_links: Callable[[Entity], Awaitable[list[CaseLink]]]) -> None:
        self._list_links = list_links
        self._under_way: dict[Entity, _Look] = {}
        self._next: dict[Entity, _Look] = {}

    async def find(self, new: NewCaseLink) -> CaseLink | None:
        """The link that is as ``new``, either way round for ``RELATES_TO``; ``None`` if there is none.

        The list is begun after this is called. Raises what ``list_links`` raises.
        """
        parent = new.parent
        look = self._next.get(parent)
        if look is None:
            before = self._under_way.get(parent)
            look = self._next[parent] = _Look(asyncio.create_task(self._list(parent, before)))
            look.task.add_done_callback(_retrieve_error)
        look.waiting += 1
        try:
            # Unlike asyncio.shield, this reports no error to the event loop when a caller was cancelled.
            await asyncio.wait([look.task])
            found = look.task.result()
        finally:
            look.waiting -= 1
            if not look.waiting and not look.task.done():
                self._forget(parent, look)
                look.task.cancel()
        return found.get(identity(new))

    async def _list(self, parent: Entity, before: _Look | None) -> Mapping[Identity, CaseLink]:
        if before is not None:
            await asyncio.wait([before.task])
        look = self._under_way[parent] = self._next.pop(parent)
        try:
            return {identity(link): link for link in reversed(await self._list_links(parent))}
        finally:
            self._forget(parent, look)

    def _forget(self, parent: Entity, look: _Look) -> None:
        for looks in (self._next, self._under_way):
            if looks.get(parent) is look:
                del looks[parent]


def _retrieve_error(task: asyncio.Task[Mapping[Identity, CaseLink]]) -> None:
    """Mark the error of a task as retrieved: asyncio would log it if all callers were cancelled."""
    if not task.cancelled():
        task.exception()
