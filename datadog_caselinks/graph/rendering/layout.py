"""Positions in a picture: the boxes with their ports, and the lines between them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import mean
from typing import Final

from attrs import frozen

from datadog_caselinks.graph.link_graph import LinkGraph
from datadog_caselinks.graph.rendering.columns import Grid, Pair, arrange, rank
from datadog_caselinks.graph.rendering.words import cycle_link_ids, describe, is_directed, wrapped
from datadog_caselinks.models import CaseLink, Entity, Relationship

# Pixels at the default zoom.
BOX_WIDTH: Final = 224.0
BOX_PADDING: Final = 12.0
TITLE_SIZE: Final = 12.5
TITLE_LINE: Final = 16.0
LABEL_ROOM: Final = 102.0
_HEAD_HEIGHT: Final = 36.0
_CURVE_ROOM: Final = 66.0
_ARROW_ROOM: Final = 9.0
_COLUMN: Final = BOX_WIDTH + LABEL_ROOM + _CURVE_ROOM
_BETWEEN_PORTS: Final = 17.0
_BETWEEN_LANES: Final = 5.0

Point = tuple[float, float]


@frozen
class Box:
    """The box of an entity: its upper left corner, its height, and the lines of its title."""

    x: float
    y: float
    height: float
    title: tuple[str, ...]

    @property
    def middle(self) -> float:
        """The vertical centre."""
        return self.y + self.height / 2


@frozen
class Way:
    """The line of a link, from its left end to its right end.

    The line is straight between ``points`` at the same height, and curved otherwise. ``is_backward`` means
    that the parent is on the right. ``label`` is the start of the straight piece with the name of the
    relationship. Links of the same kind that start together share a label.
    """

    link: CaseLink
    points: tuple[Point, ...]
    is_backward: bool
    label: Point
    is_in_cycle: bool


@frozen
class Layout:
    """The positions of a whole graph, in pixels, within ``width`` and ``height``."""

    boxes: Mapping[Entity, Box]
    ways: Sequence[Way]
    width: float
    height: float


def layout(graph: LinkGraph) -> Layout:
    """Return a place for each entity, and a line for each link that avoids the boxes.

    Parents are to the left of their children, except within cycles.

    Raises:
        ConfigurationError: The extra ``pictures`` is not installed.
    """
    legs = _legs(graph)
    ports = _Ports(legs)
    room = BOX_WIDTH - 2 * BOX_PADDING
    titles = {
        each: tuple(wrapped(describe(graph, each).title, room, TITLE_SIZE, 2)) for each in graph.entities
    }
    heights = {each: max(content_height(title), ports.room(each)) for each, title in titles.items()}
    edges = list(dict.fromkeys(leg.pair for leg in legs if leg.pair[0] != leg.pair[1]))
    grid = arrange(graph, edges, heights)
    boxes = {
        each: Box(place.column * _COLUMN, place.y - heights[each] / 2, heights[each], titles[each])
        for each in graph.entities
        for place in [grid.places[each]]
    }
    ways = list(_ways(legs, grid, ports.offsets(grid), boxes))
    bottoms = [box.y + box.height for box in boxes.values()]
    lows = [y for way in ways for _, y in way.points]
    rights = [box.x + BOX_WIDTH for box in boxes.values()]
    loops = [way.label[0] + LABEL_ROOM for way in ways if way.link.parent == way.link.child]
    return Layout(boxes, ways, max([*rights, *loops]), max([*bottoms, *lows]))


def content_height(title: Sequence[str]) -> float:
    """Return the height of a box's text, including the lines of its ``title``."""
    return _HEAD_HEIGHT + (TITLE_LINE * len(title) + 2 if title else 0)


_Kind = tuple[Relationship | str, bool, bool]
"""The properties that links sharing a port have in common."""


@frozen
class _Leg:
    """A link, and its left and right ends."""

    link: CaseLink
    pair: Pair
    is_in_cycle: bool

    @property
    def is_backward(self) -> bool:
        return is_directed(self.link) and self.link.parent != self.pair[0]

    @property
    def kind(self) -> _Kind:
        return self.link.relationship, self.is_backward, self.is_in_cycle


def _legs(graph: LinkGraph) -> list[_Leg]:
    number = rank(graph)
    cyclic = cycle_link_ids(graph)
    return [
        _Leg(link, (min(ends, key=number.__getitem__), max(ends, key=number.__getitem__)), link.id in cyclic)
        for link in graph.links
        for ends in [(link.parent, link.child)]
    ]


_Port = tuple[Entity, bool, _Kind]
"""A point on the right (True) or left side of an entity's box where links of a kind start or end."""


class _Ports:
    """The ports of each box: one on each side for each kind of link there."""

    def __init__(self, legs: Iterable[_Leg]) -> None:
        self._legs = legs
        self._sides: dict[tuple[Entity, bool], set[_Kind]] = defaultdict(set)
        for leg in legs:
            left, right = leg.pair
            self._sides[left, True].add(leg.kind)
            if left != right:
                self._sides[right, False].add(leg.kind)

    def room(self, entity: Entity) -> float:
        """Return the height that the ports need."""
        return _BETWEEN_PORTS * max(len(self._sides.get((entity, side), ())) for side in (True, False))

    def offsets(self, grid: Grid) -> dict[_Port, float]:
        """Return the offset of each port from the centre of its box, ordered by where its links lead."""
        levels: dict[_Port, list[float]] = defaultdict(list)
        for leg in self._legs:
            left, right = leg.pair
            way = [grid.places[left], *grid.passes.get(leg.pair, ()), grid.places[right]]
            levels[left, True, leg.kind].append(way[1].y)
            levels[right, False, leg.kind].append(way[-2].y)
        offsets = {}
        for (entity, side), kinds in self._sides.items():
            ports = sorted((mean(levels[entity, side, kind]), kind) for kind in kinds)
            for number, (_, kind) in enumerate(ports):
                offsets[entity, side, kind] = (number - (len(ports) - 1) / 2) * _BETWEEN_PORTS
        return offsets


def _ways(
    legs: Sequence[_Leg], grid: Grid, offsets: Mapping[_Port, float], boxes: Mapping[Entity, Box]
) -> Iterator[Way]:
    lanes = Counter(leg.pair for leg in legs)
    taken: Counter[object] = Counter()
    for leg in legs:
        left, right = leg.pair
        lane = (taken[leg.pair] - (lanes[leg.pair] - 1) / 2) * _BETWEEN_LANES
        aside = taken[leg.pair, leg.kind] * _BETWEEN_LANES  # separates equal links, which share their ports
        taken.update([leg.pair, (leg.pair, leg.kind)])
        x, y = boxes[left].x + BOX_WIDTH, boxes[left].middle + offsets[left, True, leg.kind]
        if left == right:
            points = [(x, y + aside), (x - 2 * BOX_PADDING - aside, boxes[left].y + boxes[left].height)]
        else:
            points = [(x, y + aside), (x + LABEL_ROOM, y + aside)]
            for place in grid.passes[leg.pair]:
                begin = place.column * _COLUMN
                points += [(begin, place.y + lane), (begin + BOX_WIDTH + LABEL_ROOM, place.y + lane)]
            end = boxes[right].middle + offsets[right, False, leg.kind] + aside
            points += [(boxes[right].x - _ARROW_ROOM, end), (boxes[right].x, end)]
        yield Way(leg.link, tuple(points), leg.is_backward, (x, y), leg.is_in_cycle)
