"""Layered layout: the column and the vertical position of each entity."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain, pairwise
from typing import Any, Final

from attrs import frozen

from datadog_caselinks.graph.link_graph import LinkGraph
from datadog_caselinks.graph.search import depth_first
from datadog_caselinks.values.errors import ConfigurationError
from datadog_caselinks.values.messages import needs_extra
from datadog_caselinks.values.models import Entity

# All lengths are in pixels.
_BETWEEN_BOXES: Final = 18.0
_BETWEEN_LINES: Final = 14.0
_BETWEEN_PARTS: Final = 70.0

# How strongly a line is straightened: between two boxes, between a box and a waypoint, between waypoints.
_FORCES: Final = (1, 2, 8)
_SWEEPS: Final = 24

Pair = tuple[Entity, Entity]
"""The entities at the left and the right end of a line."""


@frozen
class Place:
    """A column, counted from the left, and the vertical centre in pixels."""

    column: int
    y: float


@frozen
class Grid:
    """The place of each entity, and the places where lines cross the columns between their ends."""

    places: Mapping[Entity, Place]
    passes: Mapping[Pair, Sequence[Place]]


def rank(graph: LinkGraph) -> dict[Entity, int]:
    """Return a number for each entity that is greater than its parents' numbers, except within cycles.

    The numbers are the reverse postorder of a depth-first search.
    """
    children: dict[Entity, list[Entity]] = defaultdict(list)
    has_parent = set()
    for link in graph.links:
        children[link.parent].append(link.child)
        has_parent.add(link.child)
    roots = sorted(graph.entities, key=has_parent.__contains__)
    postorder = chain.from_iterable(depth_first(roots, children))
    return {entity: -number for number, entity in enumerate(postorder)}


@frozen
class Layers:
    """A connected part: its entities, the layer and position of each vertex, and the steps of its lines.

    Vertices are numbers. Those from ``len(entities)`` on are waypoints.
    """

    entities: Sequence[Entity]
    columns: Sequence[Sequence[int]]
    steps: Sequence[tuple[int, int]]


def layered(entities: Iterable[Entity], edges: Sequence[Pair]) -> list[Layers]:
    """Return the layers of each connected part, in the order of ``entities``.

    The left end of each of ``edges`` is in a layer before its right end.

    Raises:
        ConfigurationError: The extra ``pictures`` is not installed.
    """
    try:
        from fast_sugiyama import from_edges
    except ModuleNotFoundError:
        raise ConfigurationError(needs_extra("this picture", "pictures")) from None
    entities = list(entities)
    neighbours: dict[Entity, list[Entity]] = defaultdict(list)
    for left, right in edges:
        neighbours[left].append(right)
        neighbours[right].append(left)
    ends = list(dict.fromkeys(end for pair in edges for end in pair))
    part_of = {end: part for part, tree in enumerate(depth_first(ends, neighbours)) for end in tree}
    ends_of, edges_of = defaultdict[int, list[Entity]](list), defaultdict[int, list[Pair]](list)
    for end in ends:
        ends_of[part_of[end]].append(end)
    for pair in edges:
        edges_of[part_of[pair[0]]].append(pair)
    parts = [Layers([entity], [[0]], []) for entity in entities if entity not in part_of]
    # One call for each part: given several, fast-sugiyama 0.5.3 may use the number of an entity for a dummy.
    for part, its in ends_of.items():
        # By number, since the order of anything else would change between runs.
        number = {entity: index for index, entity in enumerate(its)}
        placed = from_edges(
            [(number[left], number[right]) for left, right in edges_of[part]],
            minimum_length=1,
            vertex_spacing=1.0,
            dummy_vertices=True,
            dummy_size=1.0,
            ranking_type="minimize",
            crossing_minimization="barycenter",
            check_layout=False,
        )
        parts += [_layers(its, dict(found), steps or ()) for found, _, _, steps in placed]
    first = {entity: number for number, entity in enumerate(entities)}
    return sorted(parts, key=lambda part: min(first[entity] for entity in part.entities))


def _layers(
    entities: Sequence[Entity], found: Mapping[Any, tuple[float, float]], steps: Iterable[tuple[Any, Any]]
) -> Layers:
    """Convert the result of fast-sugiyama, which numbers waypoints after the entities.

    Only the layers and the order in each are used. Its distances leave too much empty space, because it
    assumes boxes of equal size.
    """
    top = max(y for _, y in found.values())
    columns: dict[int, list[int]] = defaultdict(list)
    for vertex in sorted(found, key=lambda vertex: (found[vertex][0], vertex)):
        columns[round(top - found[vertex][1])].append(vertex)
    return Layers(entities, [columns[number] for number in sorted(columns)], list(steps))


def arrange(parts: Iterable[Layers], sizes: Mapping[Entity, float], least_columns: int) -> Grid:
    """Return a place for each entity, whose height is in ``sizes``, and the waypoints of each line.

    Unconnected parts are placed side by side, up to at least ``least_columns`` columns.
    """
    return _pack([_part(part, sizes) for part in parts], sizes, least_columns)


def _part(part: Layers, sizes: Mapping[Entity, float]) -> Grid:
    entities, steps = part.entities, part.steps
    is_pass = len(entities).__le__
    room = {
        each: _BETWEEN_LINES if is_pass(each) else sizes[entities[each]] + _BETWEEN_BOXES
        for column in part.columns
        for each in column
    }
    pulls: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for one, other in steps:
        force = _FORCES[is_pass(one) + is_pass(other)]
        pulls[one].append((other, force))
        pulls[other].append((one, force))
    level = _align(part.columns, pulls, room)
    places = {
        each: Place(number, level[each]) for number, column in enumerate(part.columns) for each in column
    }

    after = {one: other for one, other in steps if is_pass(one)}
    passes: dict[Pair, Sequence[Place]] = {}
    for one, other in steps:
        if not is_pass(one):
            way = []
            while is_pass(other):
                way.append(places[other])
                other = after[other]
            passes[entities[one], entities[other]] = way
    return Grid({entities[each]: places[each] for each in sorted(places) if not is_pass(each)}, passes)


def _align(
    columns: Sequence[Sequence[int]],
    pulls: Mapping[int, Sequence[tuple[int, int]]],
    room: Mapping[int, float],
) -> dict[int, float]:
    """Return vertical positions that keep the order and the spacing, and make lines as level as possible."""
    level: dict[int, float] = {}
    for column in columns:
        down = -sum(room[each] for each in column) / 2
        for each in column:
            level[each] = down + room[each] / 2
            down += room[each]
    for _ in range(_SWEEPS if pulls else 0):
        for column in columns:
            forces = [sum(force for _, force in pulls[each]) for each in column]
            wishes = [
                sum(level[other] * force for other, force in pulls[each]) / total
                for each, total in zip(column, forces, strict=True)
            ]
            gaps = [0.0, *((room[above] + room[below]) / 2 for above, below in pairwise(column))]
            level |= zip(column, _space_out(wishes, forces, gaps), strict=True)
    return level


def _space_out(wishes: Sequence[float], forces: Sequence[float], gaps: Iterable[float]) -> Iterator[float]:
    """Return the levels nearest to ``wishes`` that keep the order and at least the ``gaps`` before each.

    This is an isotonic regression, solved by pooling adjacent violators.
    """
    offsets = list(accumulate(gaps))
    pools: list[tuple[float, float, int]] = []  # level, force, how many
    for wish, force, offset in zip(wishes, forces, offsets, strict=True):
        pool = (wish - offset, force, 1)
        while pools and pools[-1][0] > pool[0]:
            level, other, count = pools.pop()
            total = other + pool[1]
            pool = ((level * other + pool[0] * pool[1]) / total, total, count + pool[2])
        pools.append(pool)
    levels = (level for level, _, count in pools for _ in range(count))
    return (level + offset for level, offset in zip(levels, offsets, strict=True))


def _pack(parts: Sequence[Grid], heights: Mapping[Entity, float], least_columns: int) -> Grid:
    """Combine all parts into one grid, in rows as wide as the widest part."""
    widths = [max(place.column for place in part.places.values()) + 1 for part in parts]
    columns = max([least_columns, *widths])
    places: dict[Entity, Place] = {}
    passes: dict[Pair, Sequence[Place]] = {}
    column, line, next_line = 0, 0.0, 0.0
    for part, width in zip(parts, widths, strict=True):
        if column + width > columns:
            column, line = 0, next_line
        lows = [place.y for way in part.passes.values() for place in way]
        tops = [place.y - heights[entity] / 2 for entity, place in part.places.items()]
        bottoms = [place.y + heights[entity] / 2 for entity, place in part.places.items()]
        down = line - min([*tops, *lows])

        def moved(place: Place, right: int = column, down: float = down) -> Place:
            return Place(place.column + right, place.y + down)

        places |= {entity: moved(place) for entity, place in part.places.items()}
        passes |= {pair: [moved(place) for place in way] for pair, way in part.passes.items()}
        column += width
        next_line = max(next_line, max([*bottoms, *lows]) + down + _BETWEEN_PARTS)
    return Grid(places, passes)
