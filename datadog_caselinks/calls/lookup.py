"""Find out whether a link exists, by listing the links of its parent or child."""

from __future__ import annotations

import asyncio

from datadog_caselinks.calls.concurrency import retrieve_error
from datadog_caselinks.calls.operations import CANNOT_LIST, FoundLinks, Operations
from datadog_caselinks.values.models import CaseLink, Entity, Identity, NewCaseLink, identity


class _SharedList:
    """One list of the links of an entity, shared by all calls that began before its request."""

    task: asyncio.Task[FoundLinks]

    def __init__(self) -> None:
        self.waiting = 0
        self.wanted: set[Identity] = set()


class Lookup:
    """A lookup of links in the lists of their parents. Many calls share one list.

    Each entity has at most one list in flight. Calls that begin in the meantime share the next one, because a
    list that was requested before a link was sent cannot show it.
    """

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._in_flight: dict[Entity, _SharedList] = {}
        self._next: dict[Entity, _SharedList] = {}

    async def find(self, new: NewCaseLink) -> CaseLink | None:
        """Return the link equal to ``new``, for ``RELATES_TO`` in either direction, or ``None``.

        The list is requested after this call began. If the parent cannot be listed, the child is listed.

        Raises:
            CaseLinksError: As :meth:`Operations.find_links`.
        """
        try:
            return await self._find(new, new.parent)
        except CANNOT_LIST as error:
            refusal = error
        try:
            return await self._find(new, new.child)
        except CANNOT_LIST:
            raise refusal from None

    async def _find(self, new: NewCaseLink, entity: Entity) -> CaseLink | None:
        shared = self._next.get(entity)
        if shared is None:
            before = self._in_flight.get(entity)
            # Registered first: an eager task factory starts the task before create_task returns.
            shared = self._next[entity] = _SharedList()
            shared.task = asyncio.create_task(self._list(entity, before))
            shared.task.add_done_callback(retrieve_error)
        shared.waiting += 1
        shared.wanted.add(identity(new))
        try:
            await asyncio.wait([shared.task])  # if this call is cancelled, the others still get the list
        finally:
            shared.waiting -= 1
            if not shared.waiting and not shared.task.done():
                self._forget(entity, shared)
                shared.task.cancel()
        return shared.task.result().get(identity(new))

    async def _list(self, entity: Entity, before: _SharedList | None) -> FoundLinks:
        if before is None:
            await asyncio.sleep(0)  # else an eager task would not include the calls that begin right after
        else:
            await asyncio.wait([before.task])
        shared = self._in_flight[entity] = self._next.pop(entity)
        try:
            return await self._operations.find_links(entity, shared.wanted)
        finally:
            self._forget(entity, shared)

    def _forget(self, entity: Entity, shared: _SharedList) -> None:
        for lists in (self._next, self._in_flight):
            if lists.get(entity) is shared:
                del lists[entity]
