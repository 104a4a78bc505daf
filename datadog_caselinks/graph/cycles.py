"""Cycles of links: one short cycle for each strongly connected group of entities."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, TypeVar

from datadog_caselinks.graph.search import depth_first
from datadog_caselinks.values.models import CaseLink, Entity, NewCaseLink, Relationship, ends_of

ACYCLIC: Final = (
    Relationship.BLOCKS,
    Relationship.PARENT_OF,
    Relationship.SUCCESSOR_OF,
    Relationship.CAUSES,
    Relationship.DUPLICATES,
)
"""The relationships whose links must not form a cycle."""

_MAX_PASSES: Final = 50
"""How often each link of a group may be visited, on average, to find a shorter cycle. Keeps it linear."""

L = TypeVar("L", bound=NewCaseLink | CaseLink)
Outgoing = Mapping[Entity, list[L]]
"""The links of each entity to its children."""


def find_cycles(
    links: Iterable[L],
    *,
    relationships: Iterable[Relationship] = ACYCLIC,
    through: Callable[[L], bool] | None = None,
) -> list[tuple[L, ...]]:
    """Return one cycle for each group of entities that can all reach each other, in linear time.

    Relationships are searched separately. The child of each link in a cycle is the parent of the next one.
    A cycle starts with its link that comes first in ``links``. It is the shortest one of a small group, and
    a short one of a large group. The same ``links`` always give the same cycles. With ``through``, each cycle
    has a link for which it returns true.
    """
    by_relationship = defaultdict[Relationship | str, list[L]](list)
    for link in links:
        by_relationship[link.relationship].append(link)
    return [cycle for each in relationships for cycle in _find(by_relationship[each], through)]


def _find(links: list[L], through: Callable[[L], bool] | None) -> Iterator[tuple[L, ...]]:
    position = {id(link): number for number, link in enumerate(links)}
    group = _groups(links)
    inner = defaultdict[int, dict[Entity, list[L]]](dict)
    for link in links:
        if group[link.parent] == group[link.child]:
            inner[group[link.parent]].setdefault(link.parent, []).append(link)
    for outgoing in inner.values():
        starts = outgoing if through is None else _those(outgoing, through)
        if not starts:
            continue
        cycle = _short_cycle(outgoing, starts)
        first = min(range(len(cycle)), key=lambda number: position[id(cycle[number])])
        yield (*cycle[first:], *cycle[:first])


def _groups(links: list[L]) -> dict[Entity, int]:
    """Number the strongly connected groups of entities (Kosaraju's algorithm).

    ``graphlib`` reports a single cycle of a whole graph, so it would need a run for each group.
    """
    children, parents = defaultdict[Entity, list[Entity]](list), defaultdict[Entity, list[Entity]](list)
    for link in links:
        children[link.parent].append(link.child)
        parents[link.child].append(link.parent)
    entities = ends_of(links)
    postorder = [entity for tree in depth_first(entities, children) for entity in tree]
    groups = depth_first(reversed(postorder), parents)
    return {entity: number for number, group in enumerate(groups) for entity in group}


def _those(outgoing: Outgoing[L], through: Callable[[L], bool]) -> Outgoing[L]:
    """Return the links for which ``through`` returns true, by their parents."""
    chosen = {entity: list(filter(through, links)) for entity, links in outgoing.items()}
    return {entity: links for entity, links in chosen.items() if links}


def _short_cycle(outgoing: Outgoing[L], starts: Outgoing[L]) -> list[L]:
    """Return a short cycle that begins with one of the links ``starts``."""
    best: list[L] = []
    budget = _MAX_PASSES * sum(map(len, outgoing.values()))
    for start, first in starts.items():
        longest = len(best) - 1 if best else len(outgoing)
        found, visited = _shortest_through(start, first, outgoing, longest=longest)
        best = found or best
        budget -= visited
        if len(best) == 1 or budget < 0:
            break
    return best


def _shortest_through(
    start: Entity, first: Iterable[L], outgoing: Outgoing[L], *, longest: int
) -> tuple[list[L], int]:
    """Return the shortest cycle from ``start`` by one of its links ``first``, of at most ``longest`` links.

    Also return how many links were visited.
    """
    reached_by: dict[Entity, L] = {}
    frontier, visited = first, 0
    for _ in range(longest):
        next_frontier: list[Entity] = []
        for link in frontier:
            visited += 1
            if link.child == start:
                cycle = [link]
                while cycle[-1].parent != start:
                    cycle.append(reached_by[cycle[-1].parent])
                return cycle[::-1], visited
            if link.child not in reached_by:
                reached_by[link.child] = link
                next_frontier.append(link.child)
        frontier = [link for entity in next_frontier for link in outgoing[entity]]
    return [], visited
