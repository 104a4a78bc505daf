"""The links around an entity as a graph, and the walk that reads them. Knows no HTTP."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import cached_property, partial
from graphlib import TopologicalSorter
from operator import call
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from attrs import field, frozen

from datadog_caselinks.concurrency import Progress, map_concurrently
from datadog_caselinks.errors import (
    ConfigurationError,
    CycleError,
    InvalidLinkError,
    NotFoundError,
    PermissionDeniedError,
)
from datadog_caselinks.graph.cycles import cycles
from datadog_caselinks.models import (
    Case,
    CaseLink,
    Entity,
    EntityType,
    Relationship,
    require_known_relationship,
)
from datadog_caselinks.references import CaseKey, name_of, parse_reference
from datadog_caselinks.sites import Site

if TYPE_CHECKING:
    from networkx import MultiDiGraph

Cycle = tuple[CaseLink, ...]
"""Links of one relationship, each beginning where the one before it ends, the first where the last ends."""

# An entity that these credentials may not see, or that this version does not know.
_UNREADABLE: Final = (NotFoundError, PermissionDeniedError, InvalidLinkError)


@frozen
class LinkGraph:
    """The links around ``root``, as far as ``depth`` links away from it.

    ``root``
        The entity that it begins with.
    ``links``
        Each once, in the order in which they were read.
    ``cases``
        Keys, titles and statuses, of the cases that could be read.
    ``depth``
        How many links from ``root`` the farthest entities can be.
    ``left_out``
        How many entities were met and not taken up, since there were ``max_nodes`` already. They are
        ``depth`` links away: what is nearer is all there.
    ``unread``
        The entities whose own links could not be read: these credentials may not see them, or they are of a
        type that this version does not know.
    ``site``
        Where it was read, if that is known.
    ``distances``
        How many links each entity is away from ``root``, in whichever direction the links go.
    ``entities``
        All of them: ``root``, then the others by their distance.
    """

    root: Entity
    links: tuple[CaseLink, ...]
    cases: Mapping[Entity, Case] = field(factory=dict, repr=False)
    depth: int = 0
    left_out: int = 0
    unread: tuple[Entity, ...] = ()
    site: Site | None = None
    distances: Mapping[Entity, int] = field(init=False, repr=False, eq=False)
    entities: tuple[Entity, ...] = field(init=False, repr=False, eq=False)

    @distances.default
    def _measured(self) -> Mapping[Entity, int]:
        neighbours: dict[Entity, list[Entity]] = {}
        for link in self.links:
            neighbours.setdefault(link.parent, []).append(link.child)
            neighbours.setdefault(link.child, []).append(link.parent)
        return _reached(self.root, neighbours)

    @entities.default
    def _in_order(self) -> tuple[Entity, ...]:
        ends = (end for link in self.links for end in (link.parent, link.child))
        return tuple(dict.fromkeys((*self.distances, *ends)))

    def address(self, entity: Entity) -> str | None:
        """Where a browser shows ``entity``, if it is a case on one of Datadog's sites, with a known key."""
        case = self.cases.get(entity)
        web = self.site and self.site.web_url
        return f"{web}/cases/{quote(case.key, safe='')}" if web and case and case.key else None

    @property
    def is_complete(self) -> bool:
        """Whether every link is here that leads to an entity within ``depth``."""
        return not (self.left_out or self.unread)

    @cached_property
    def cycles(self) -> tuple[Cycle, ...]:
        """What blocks, causes, is the parent of or the successor of itself, by way of others or directly.

        Each relationship is looked at by itself. Of cycles that have entities in common a short one is told.
        """
        return tuple(cycles(self.links))

    def blockers_of(self, case: Case | Entity | str) -> tuple[Entity, ...]:
        """What must be done before ``case`` can go on, the nearest first: what blocks it, what blocks that …

        As far as this graph reaches. A text is read as :func:`parse_reference` does. Raises
        :class:`ConfigurationError` if ``case`` is not in the graph.
        """
        blocked = self._found(case)
        if blocked not in self.entities:
            raise ConfigurationError(f"{case} is not in this graph, which begins at {self.root}")
        blockers: dict[Entity, list[Entity]] = {}
        for link in self._of(Relationship.BLOCKS):
            blockers.setdefault(link.child, []).append(link.parent)
        return tuple(_reached(blocked, blockers))[1:]

    def topological_order(self, relationship: Relationship = Relationship.BLOCKS) -> tuple[Entity, ...]:
        """The entities that ``relationship`` links, each after all that are its parents.

        By ``BLOCKS`` this is an order in which everything can be done. Raises :class:`CycleError`, with one
        of the cycles, where there is no such order, and :class:`ConfigurationError` for ``RELATES_TO``,
        which has no direction. A text that is no relationship is an :class:`InvalidLinkError`.
        """
        require_known_relationship(relationship)
        if relationship == Relationship.RELATES_TO:
            raise ConfigurationError("RELATES_TO has no direction, so it gives no order")
        for cycle in cycles(self.links, relationships=[relationship]):
            ends = (cycle[0].parent, *(link.child for link in cycle))
            way = " -> ".join(name_of(end, self.cases) for end in ends)
            raise CycleError(f"{relationship} gives no order, since it goes round: {way}", links=cycle)
        links = self._of(relationship)
        linked = {end for link in links for end in (link.parent, link.child)}
        # Told of all of them first, in their order, it keeps to that where the links allow several.
        sorter = TopologicalSorter({entity: () for entity in self.entities if entity in linked})
        for link in links:
            sorter.add(link.child, link.parent)
        return tuple(sorter.static_order())

    def to_networkx(self) -> MultiDiGraph[Entity]:
        """The graph as networkx has it: entities as nodes, and as edges the links, by their ids.

        Nodes carry ``type`` and ``distance`` and, of cases that could be read, ``key``, ``title``, ``status``
        and ``priority``; edges carry ``relationship``.

        Raises :class:`ConfigurationError` if networkx is not installed.
        """
        try:
            from networkx import MultiDiGraph
        except ModuleNotFoundError:
            raise ConfigurationError("this needs networkx: pip install networkx") from None
        graph: MultiDiGraph[Entity] = MultiDiGraph()
        for entity in self.entities:
            case = self.cases.get(entity)
            told = {name: getattr(case, name) for name in ("key", "title", "status", "priority") if case}
            distance = {"distance": self.distances[entity]} if entity in self.distances else {}
            graph.add_node(entity, type=str(entity.type), **distance, **told)
        for link in self.links:
            graph.add_edge(link.parent, link.child, key=link.id, relationship=str(link.relationship))
        return graph

    def _found(self, case: Case | Entity | str) -> Entity | None:
        """The entity, but for a key that no case of this graph has."""
        if isinstance(case, Case):
            return case.entity
        reference = parse_reference(case) if isinstance(case, str) else case
        if not isinstance(reference, CaseKey):
            return reference
        keys = {known.key.upper(): entity for entity, known in self.cases.items()}
        return keys.get(reference.key)

    def _of(self, relationship: Relationship) -> list[CaseLink]:
        return [link for link in self.links if link.relationship == relationship]


def _reached(start: Entity, neighbours: Mapping[Entity, Iterable[Entity]]) -> dict[Entity, int]:
    """How many steps away from ``start`` each entity is, the nearest first."""
    steps = {start: 0}
    queue = deque([start])
    while queue:
        entity = queue.popleft()
        for neighbour in neighbours.get(entity, ()):
            if neighbour not in steps:
                steps[neighbour] = steps[entity] + 1
                queue.append(neighbour)
    return steps


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
    """Read the links around ``root``, and what they lead to, up to ``depth`` links away.

    What is to be asked at one distance is asked at once, ``concurrency`` questions at a time. It ends early
    where there are no further links, or more than ``max_nodes`` entities. A case that cannot be seen is
    without a title; any other error is raised, once what else is under way is cancelled.
    """
    walk = _Walk(root, list_links, get_case, max_nodes)
    distance = 0
    while True:
        is_last = distance == depth or bool(walk.left_out)
        questions = walk.questions(with_links=not is_last)
        await map_concurrently(call, questions, concurrency=concurrency, progress=progress)
        # In threads, since ten thousand links take some hundredths of a second, in which all else would wait.
        if is_last or not await asyncio.to_thread(walk.step):
            return await asyncio.to_thread(walk.graph, distance, site)
        distance += 1


class _Walk:
    """What a walk has met so far, and the entities that it has come to."""

    def __init__(self, root: Entity, list_links: ListLinks, get_case: GetCase, max_nodes: int) -> None:
        self._root = root
        self._list_links = list_links
        self._get_case = get_case
        self._max_nodes = max_nodes
        self._found = {root}
        self._level = [root]
        self._links: dict[str, CaseLink] = {}
        self._lists: dict[Entity, list[CaseLink] | None] = {}
        self._cases: dict[Entity, Case] = {}
        self._unread: list[Entity] = []
        self.left_out: set[Entity] = set()

    def questions(self, *, with_links: bool) -> list[Callable[[], Awaitable[None]]]:
        """What is to be asked about the entities that it has come to."""
        titles = [partial(self._read_case, each) for each in self._level if each.type == EntityType.CASE]
        return [*(partial(self._read_links, each) for each in self._level if with_links), *titles]

    def graph(self, depth: int, site: Site | None) -> LinkGraph:
        """What it has met."""
        links, cases = tuple(self._links.values()), dict(self._cases)
        return LinkGraph(self._root, links, cases, depth, len(self.left_out), tuple(self._unread), site)

    def step(self) -> bool:
        """Go on to what the links that were read lead to. Whether there is anything new to tell."""
        before = self._extent()
        level, self._level = self._level, []
        for entity in level:
            links = self._lists.pop(entity)
            if links is None:
                self._unread.append(entity)
                continue
            for link in links:
                self._take(link)
        return self._extent() > before

    def _extent(self) -> int:
        return len(self._links) + len(self.left_out) + len(self._unread)

    def _take(self, link: CaseLink) -> None:
        for end in (link.parent, link.child):
            if end in self._found:
                continue
            if len(self._found) == self._max_nodes:
                self.left_out.add(end)
                return
            self._found.add(end)
            self._level.append(end)
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
            return  # it stays without a title
