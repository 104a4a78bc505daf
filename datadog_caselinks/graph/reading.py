"""Reading a graph: a breadth-first walk along the links, all requests of one distance at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from operator import call
from typing import Final

from datadog_caselinks.concurrency import Progress, map_concurrently
from datadog_caselinks.errors import InvalidLinkError, NotFoundError, PermissionDeniedError
from datadog_caselinks.graph.link_graph import LinkGraph
from datadog_caselinks.models import Case, CaseLink, Entity, EntityType
from datadog_caselinks.sites import Site

# The credentials cannot access the entity, or this version does not know its type.
_UNREADABLE: Final = (NotFoundError, PermissionDeniedError, InvalidLinkError)

ListLinks = Callable[[Entity], Awaitable[list[CaseLink]]]
GetCase = Callable[[Entity], Awaitable[Case]]


async def read_graph(
    root: Entity,
    list_links: ListLinks,
    get_case: GetCase,
    *,
    depth: int,
    max_nodes: int,
    concurrency: int,
    progress: Progress,
    site: Site | None = None,
) -> LinkGraph:
    """Read the links around ``root``, and the links of what they lead to, up to ``depth`` links away.

    Requests for entities at the same distance are sent together, at most ``concurrency`` at a time. Reading
    ends early when there are no further links, or more than ``max_nodes`` entities. A case that cannot be
    read has no title. Any other error is raised after the requests in flight are cancelled.
    """
    walk = _Walk(root, list_links, get_case, max_nodes)
    distance = 0
    while True:
        is_last = distance == depth or bool(walk.left_out)
        requests = walk.requests(with_links=not is_last)
        await map_concurrently(call, requests, concurrency=concurrency, progress=progress)
        # In threads: 10,000 links take some hundredths of a second, which would block the event loop.
        if is_last or not await asyncio.to_thread(walk.advance):
            return await asyncio.to_thread(walk.build_graph, distance, site)
        distance += 1


class _Walk:
    """The state of a walk: what was found so far, and the entities at the current distance."""

    def __init__(self, root: Entity, list_links: ListLinks, get_case: GetCase, max_nodes: int) -> None:
        self._root = root
        self._list_links = list_links
        self._get_case = get_case
        self._max_nodes = max_nodes
        self._entities = {root}
        self._frontier = [root]
        self._links: dict[str, CaseLink] = {}
        self._lists: dict[Entity, list[CaseLink] | None] = {}
        self._cases: dict[Entity, Case] = {}
        self._unread: list[Entity] = []
        self.left_out: set[Entity] = set()

    def requests(self, *, with_links: bool) -> list[Callable[[], Awaitable[None]]]:
        """Return a function for each request about the entities at the current distance."""
        titles = [partial(self._read_case, each) for each in self._frontier if each.type == EntityType.CASE]
        return [*(partial(self._read_links, each) for each in self._frontier if with_links), *titles]

    def advance(self) -> bool:
        """Add the links that were read and move on to what they lead to. Return whether anything is new."""
        before = self._size()
        frontier, self._frontier = self._frontier, []
        for entity in frontier:
            links = self._lists.pop(entity)
            if links is None:
                self._unread.append(entity)
                continue
            for link in links:
                self._add(link)
        return self._size() > before

    def build_graph(self, depth: int, site: Site | None) -> LinkGraph:
        """Return everything found so far as a graph."""
        links, cases = tuple(self._links.values()), dict(self._cases)
        return LinkGraph(self._root, links, cases, depth, len(self.left_out), tuple(self._unread), site)

    def _size(self) -> int:
        return len(self._links) + len(self.left_out) + len(self._unread)

    def _add(self, link: CaseLink) -> None:
        for end in (link.parent, link.child):
            if end in self._entities:
                continue
            if len(self._entities) == self._max_nodes:
                self.left_out.add(end)
                return
            self._entities.add(end)
            self._frontier.append(end)
        self._links.setdefault(link.id, link)

    async def _read_links(self, entity: Entity) -> None:
        try:
            self._lists[entity] = await self._list_links(entity)
        except _UNREADABLE:
            if entity == self._root:
                raise
            self._lists[entity] = None

    async def _read_case(self, entity: Entity) -> None:
        try:
            self._cases[entity] = await self._get_case(entity)
        except _UNREADABLE:
            return  # a case that cannot be read has no title
