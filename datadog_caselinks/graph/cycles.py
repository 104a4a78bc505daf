"""Cycles among links: ways along them that lead back to where they began. Knows the models alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, TypeVar

from datadog_caselinks.models import CaseLink, Entity, NewCaseLink, Relationship

DIRECTED: Final = (
    Relationship.BLOCKS,
    Relationship.PARENT_OF,
    Relationship.SUCCESSOR_OF,
    Relationship.CAUSES,
)
"""The relationships that make no sense in a circle."""

_PATIENCE: Final = 500_000
"""Links that are gone along for one group in search of a shorter cycle: some seconds at most."""

L = TypeVar("L", bound=NewCaseLink | CaseLink)
Ways = Mapping[Entity, list[L]]
"""The links that lead away from each entity."""


def cycles(links: Iterable[L], *, relationships: Iterable[Relationship] = DIRECTED) -> list[tuple[L, ...]]:
    """The cycles among ``links``, one for each group of entities that lie on cycles with each other.

    Each of ``relationships`` is looked at by itself. A cycle is told as the links to go along, the child of
    each being the parent of the next; it begins with the link that comes first in ``links``, and is the
    shortest of its group; where a group is of thousands, a short one. Equal ``links`` give equal answers.
    """
    by_relationship = defaultdict[Relationship | str, list[L]](list)
    for link in links:
        by_relationship[link.relationship].append(link)
    return [cycle for each in relationships for cycle in _cycles(by_relationship[each])]


def _cycles(links: list[L]) -> Iterator[tuple[L, ...]]:
    place = {id(link): number for number, link in enumerate(links)}
    group = _groups(links)
    inner = defaultdict[int, dict[Entity, list[L]]](dict)
    for link in links:
        if group[link.parent] == group[link.child]:
            inner[group[link.parent]].setdefault(link.parent, []).append(link)
    for ways in inner.values():
        cycle = _shortest(ways)
        first = min(range(len(cycle)), key=lambda number: place[id(cycle[number])])
        yield (*cycle[first:], *cycle[:first])


def _groups(links: list[L]) -> dict[Entity, int]:
    """A number for each entity: the same for those that can be reached from each other (Kosaraju)."""
    forth, back = defaultdict[Entity, list[Entity]](list), defaultdict[Entity, list[Entity]](list)
    for link in links:
        forth[link.parent].append(link.child)
        back[link.child].append(link.parent)
    entities = dict.fromkeys(end for link in links for end in (link.parent, link.child))
    ended = [entity for tree in _trees(entities, forth) for entity in tree]
    group: dict[Entity, int] = {}
    for number, tree in enumerate(_trees(reversed(ended), back)):
        group.update(dict.fromkeys(tree, number))
    return group


def _trees(roots: Iterable[Entity], ways: Mapping[Entity, list[Entity]]) -> Iterator[list[Entity]]:
    """What is reached from each root and from none before it, each entity after those reached from it."""
    seen: set[Entity] = set()
    for root in roots:
        if root in seen:
            continue
        seen.add(root)
        tree: list[Entity] = []
        path = [(root, iter(ways.get(root, ())))]
        while path:
            entity, following = path[-1]
            for child in following:
                if child not in seen:
                    seen.add(child)
                    path.append((child, iter(ways.get(child, ()))))
                    break
            else:
                tree.append(entity)
                path.pop()
        yield tree


def _shortest(ways: Ways[L]) -> list[L]:
    best: list[L] = []
    patience = _PATIENCE
    for start in ways:
        found, gone = _shortest_through(start, ways, longest=len(best) - 1 if best else len(ways))
        best = found or best
        patience -= gone
        if len(best) == 1 or patience < 0:
            break
    return best


def _shortest_through(start: Entity, ways: Ways[L], *, longest: int) -> tuple[list[L], int]:
    """The shortest cycle from ``start`` of at most ``longest`` links, and how many links were gone along."""
    led: dict[Entity, L] = {}
    reached, gone = [start], 0
    for _ in range(longest):
        further: list[Entity] = []
        for link in (link for entity in reached for link in ways[entity]):
            gone += 1
            if link.child == start:
                cycle = [link]
                while cycle[-1].parent != start:
                    cycle.append(led[cycle[-1].parent])
                return cycle[::-1], gone
            if link.child not in led:
                led[link.child] = link
                further.append(link.child)
        reached = further
    return [], gone
