"""Reading a graph: a breadth-first walk along the links, all requests of one distance at once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from operator import call
from typing import Final

from datadog_caselinks.calls.concurrency import Progress, map_concurrently
from datadog_caselinks.graph.link_graph import LinkGraph
from datadog_caselinks.values.errors import InvalidLinkError, NotFoundError, PermissionDeniedError
from datadog_caselinks.values.models import Case, CaseLink, Entity, EntityType, Incident
from datadog_caselinks.values.references import Details
from datadog_caselinks.values.sites import Site

# The credentials cannot access the entity, or this version does not know its type.
_UNREADABLE: Final = (NotFoundError, PermissionDeniedError, InvalidLinkError)

_MEMORY: Final = 2**28
"""Bytes that the links and entities of a graph may take, roughly: room for 800,000 links."""

_OVERHEAD: Final = 250
"""Bytes that a link or an entity takes besides its texts."""

_MAX_WAITING: Final = 400_000
"""Links of lists that wait for the list of an earlier entity: some 200 MB."""

ListLinks = Callable[[Entity], Awaitable[list[CaseLink]]]
GetDetails = Callable[[Entity], Awaitable[Details | None]]

_WITH_DETAILS: Final = (EntityType.CASE, EntityType.INCIDENT)


async def read_graph(
    roots: Sequence[Entity],
    list_links: ListLinks,
    get_details: GetDetails,
    *,
    depth: int,
    max_nodes: int,
    concurrency: int,
    progress: Progress,
    site: Site | None = None,
) -> LinkGraph:
    """Read the links around ``roots``, and the links of what they lead to, up to ``depth`` links away.

    Requests for entities at the same distance are sent together, at most ``concurrency`` at a time. Reading
    ends early when there are no further links, or more than ``max_nodes`` entities. When the graph takes some
    256 MiB, further entities are unread. Any other error is raised after the requests in flight are
    cancelled.
    """
    walk = _Walk(roots, list_links, get_details, max_nodes)
    distance = 0
    while True:
        is_last = distance == depth or bool(walk.left_out)
        requests = walk.requests(with_links=not is_last)
        while requests:
            await map_concurrently(call, requests, concurrency=concurrency, progress=progress)
            requests = walk.requests_to_repeat()
        if is_last or not walk.advance():
            # In a thread: 10,000 links take some hundredths of a second, which would block the event loop.
            return await asyncio.to_thread(walk.build_graph, distance, site)
        distance += 1


class _Walk:
    """The state of a walk: what was found so far, and the entities at the current distance.

    Each list is added when the lists of all earlier entities are, so that the graph does not depend on which
    response is first, and then forgotten.
    """

    def __init__(
        self, roots: Sequence[Entity], list_links: ListLinks, get_details: GetDetails, max_nodes: int
    ) -> None:
        distinct = list(dict.fromkeys(roots))
        self._roots = tuple(distinct[:max_nodes])
        self._list_links = list_links
        self._get_details = get_details
        self._max_nodes = max_nodes
        self._memory = _MEMORY
        self._entities = {root: root for root in self._roots}
        self._frontier = list(self._roots)
        self._next: list[Entity] = []
        self._links: dict[str, CaseLink] = {}
        self._due: deque[Entity] = deque()
        self._waiting: dict[Entity, list[CaseLink] | None] = {}
        self._adding = asyncio.Lock()
        self._cases: dict[Entity, Case] = {}
        self._incidents: dict[Entity, Incident] = {}
        self._unread: list[Entity] = []
        self._size_before = 0
        self.left_out = set(distinct[max_nodes:])

    def requests(self, *, with_links: bool) -> list[Callable[[], Awaitable[None]]]:
        """Return a function for each request about the entities at the current distance."""
        self._due.extend(self._frontier if with_links else ())
        titles = [partial(self._read_title, each) for each in self._frontier if each.type in _WITH_DETAILS]
        return [*self.requests_to_repeat(), *titles]

    def requests_to_repeat(self) -> list[Callable[[], Awaitable[None]]]:
        """Return a function for each list that is missing, since too many others were waiting."""
        return [partial(self._read_links, each) for each in self._due if each not in self._waiting]

    def advance(self) -> bool:
        """Move on to what the links lead to. Return whether anything is new."""
        self._frontier, self._next = self._next, []
        before, self._size_before = self._size_before, self._size()
        return self._size_before > before

    def build_graph(self, depth: int, site: Site | None) -> LinkGraph:
        """Return everything found so far as a graph."""
        root, *others = self._roots
        return LinkGraph(
            root,
            tuple(self._links.values()),
            dict(self._cases),
            depth,
            len(self.left_out),
            tuple(self._unread),
            site,
            dict(self._incidents),
            tuple(others),
        )

    def _size(self) -> int:
        return len(self._links) + len(self.left_out) + len(self._unread)

    async def _read_links(self, entity: Entity) -> None:
        links: list[CaseLink] | None
        try:
            links = await self._list_links(entity)
        except _UNREADABLE:
            if entity in self._roots:
                raise
            links = None
        async with self._adding:
            if entity != self._due[0] and not self._has_room(links or []):
                return  # it is requested again
            self._waiting[entity] = links
            del links
            while self._due and self._due[0] in self._waiting:
                # In a thread, as above.
                await asyncio.to_thread(self._add_list, self._due[0])
                self._due.popleft()

    def _has_room(self, links: list[CaseLink]) -> bool:
        return sum(len(each or ()) for each in self._waiting.values()) + len(links) <= _MAX_WAITING

    def _add_list(self, entity: Entity) -> None:
        links = self._waiting.pop(entity)
        if links is None or self._memory < 0:
            self._unread.append(entity)
            return
        for link in links:
            self._add(link)

    def _add(self, link: CaseLink) -> None:
        for end in (link.parent, link.child):
            if end in self._entities:
                continue
            if len(self._entities) == self._max_nodes:
                if end not in self.left_out:
                    self.left_out.add(end)
                    self._take(end.id, end.type)
                return
            self._entities[end] = end
            self._next.append(end)
            self._take(end.id, end.type)
        if link.id not in self._links:
            # With the entities that the graph has already, so that each is kept once.
            parent, child = self._entities[link.parent], self._entities[link.child]
            self._links[link.id] = CaseLink(link.id, parent, link.relationship, child)
            self._take(link.id, link.relationship)

    def _take(self, *texts: str) -> None:
        self._memory -= _OVERHEAD + sum(map(len, texts))

    async def _read_title(self, entity: Entity) -> None:
        details = await self._get_details(entity)
        if isinstance(details, Case):
            self._cases[entity] = details
        elif details:
            self._incidents[entity] = details
