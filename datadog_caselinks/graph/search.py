"""Depth-first and breadth-first search, shared by cycles, graphs and pictures."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import TypeVar

V = TypeVar("V", bound=Hashable)


def depth_first(roots: Iterable[V], neighbours: Mapping[V, Iterable[V]]) -> Iterator[list[V]]:
    """Yield, for each root not reached before, the vertices first reached from it, in postorder.

    Iterative, because a chain of links can be longer than Python's recursion limit.
    """
    seen: set[V] = set()
    for root in roots:
        if root in seen:
            continue
        seen.add(root)
        postorder: list[V] = []
        path = [(root, iter(neighbours.get(root, ())))]
        while path:
            vertex, remaining = path[-1]
            following = next((each for each in remaining if each not in seen), None)
            if following is None:
                postorder.append(vertex)
                path.pop()
            else:
                seen.add(following)
                path.append((following, iter(neighbours.get(following, ()))))
        yield postorder


def distances_from(starts: Iterable[V], neighbours: Mapping[V, Iterable[V]]) -> dict[V, int]:
    """Return how many steps each reachable vertex is away from the nearest start, nearest first."""
    distances = dict.fromkeys(starts, 0)
    queue = deque(distances)
    while queue:
        vertex = queue.popleft()
        for neighbour in neighbours.get(vertex, ()):
            if neighbour not in distances:
                distances[neighbour] = distances[vertex] + 1
                queue.append(neighbour)
    return distances
