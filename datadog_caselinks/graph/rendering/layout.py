"""Positions in a picture: the boxes with their ports, and the lines between them.

Everything is arranged from left to right. For a picture from top to bottom, the axes are exchanged last.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import ceil, inf
from statistics import mean
from typing import Final, Literal, TypeAlias

from attrs import evolve, frozen

from datadog_caselinks.graph.link_graph import LinkGraph
from datadog_caselinks.graph.rendering.columns import Grid, Layers, Pair, arrange, layered, rank
from datadog_caselinks.graph.rendering.words import (
    cycle_link_ids,
    describe,
    fitted,
    is_directed,
    text_width,
    words,
    wrapped,
)
from datadog_caselinks.values.models import CaseLink, Entity, Relationship

Direction: TypeAlias = Literal["auto", "LR", "TB"]
"""From left to right, from top to bottom, or as fits best."""

# Pixels at the default zoom.
BOX_PADDING: Final = 12.0
GLYPH_ROOM: Final = 22.0
KEY_SIZE: Final = 14.0  # the bold letters of size 13 are this wide
LABEL_SIZE: Final = 11.0
LABEL_HEIGHT: Final = 14.0
TITLE_SIZE: Final = 12.5
TITLE_LINE: Final = 16.0
ROW_HEIGHT: Final = 24.0
LOOP_ROOM: Final = 80.0
_HEAD_HEIGHT: Final = 36.0
_LABEL_MAX: Final = 100.0
_ARROW_ROOM: Final = 15.0
_BETWEEN_PORTS: Final = 17.0
_BETWEEN_LANES: Final = 5.0

LARGEST: Final = 1.3
"""The scale at which a small picture is drawn."""

READABLE: Final = 0.8
"""The scale from which the smallest text, of size 11, can be read."""

_MANY: Final = 120  # entities, from which a layout takes too long to try many
_MIN_FOLDED: Final = 3
_MAX_STACK: Final = 12  # columns over which the leaves of one entity are spread
_ROWS: Final = 8  # the least number of folded leaves in a column

Point = tuple[float, float]


@frozen
class Form:
    """The parameters of a layout that may vary.

    ``abreast`` is the maximum number of leaves of an entity in one column, or 0 for any number.
    ``fold_columns`` is the maximum number of columns of a block of folded leaves, or 0 if none are folded.
    """

    is_down: bool = False
    box_width: float = 224.0
    title_lines: int = 2
    row_width: float = 224.0
    bend: float = 60.0
    least_columns: int = 4
    abreast: int = 0
    fold_columns: int = 0


@frozen
class Box:
    """The box of an entity: its upper left corner, its size, and the lines of its title.

    ``is_row`` means that it is a row in a block of folded leaves.
    """

    x: float
    y: float
    width: float
    height: float
    title: tuple[str, ...]
    is_row: bool = False

    @property
    def middle(self) -> float:
        """The vertical centre."""
        return self.y + self.height / 2


@frozen
class Way:
    """The line of a link, from its left or upper end to the other.

    The line is straight between ``points`` at the same height (from top to bottom: one above the other), and
    curved otherwise. ``is_backward`` means that the parent is at the last point. ``label`` is the centre of
    the name of the relationship, next to the parent. Links of the same kind that start together share it.
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
    is_down: bool = False


def label_text(link: CaseLink, *, is_in_cycle: bool) -> str:
    """Return the name of the relationship as it is written on a line."""
    return fitted(f"{'↻ ' * is_in_cycle}{words(link.relationship)}", _LABEL_MAX, LABEL_SIZE)


def content_height(title: Sequence[str]) -> float:
    """Return the height of a box's text, including the lines of its ``title``."""
    return _HEAD_HEIGHT + (TITLE_LINE * len(title) + 2 if title else 0)


def layout(graph: LinkGraph, form: Form | None = None) -> Layout:
    """Return a place for each entity, and a line for each link that avoids the boxes.

    Parents are to the left of their children, or above them, except within cycles.

    Raises:
        ConfigurationError: The extra ``pictures`` is not installed.
    """
    form = form or Form()
    return _Outline(graph, is_folded=form.fold_columns > 0, abreast=form.abreast).lay_out(form)


def best_layout(graph: LinkGraph, direction: Direction, wide: float, high: float = inf) -> Layout:
    """Return the layout whose text is largest in ``wide`` and ``high`` pixels.

    Leaves are folded only where the text would otherwise be too small.

    Raises:
        ConfigurationError: The extra ``pictures`` is not installed.
    """
    best, best_score = None, 0.0
    for folds, abreast in _STEPS if len(graph.entities) <= _MANY else _STEPS_OF_MANY:
        outline = _Outline(graph, is_folded=folds[0] > 0, abreast=abreast)
        if not (outline.has_blocks if folds[0] else outline.has_stacks or not abreast):
            continue  # the same as an earlier step
        for form in _forms(graph, direction, folds):
            plan = outline.lay_out(evolve(form, abreast=abreast))
            scale = min(wide / plan.width, high / plan.height, LARGEST)
            # A page or so is a good height. What is much higher is hard to follow, however large.
            score = scale * min(1, 1.6 * wide / (plan.height * scale)) ** 0.3
            if best is None or score > best_score * 1.02:
                best, best_score = plan, score
        if best_score >= READABLE or len(graph.entities) > _MANY:
            break
    assert best
    return best


# The columns of blocks, and the leaves of an entity in one column, from what is easiest to follow.
_STEPS: Final = (((0,), 0), ((0,), 2), ((0,), 1), ((1, 2, 3, 6), 2), ((1, 3), 1))
_STEPS_OF_MANY: Final = (((3, 8), 0), ((0,), 0))


def _forms(graph: LinkGraph, direction: Direction, folds: Iterable[int]) -> Iterator[Form]:
    longest = max(text_width(describe(graph, entity).key, KEY_SIZE) for entity in graph.entities)
    sizes = [Form(), Form(box_width=176, title_lines=3, bend=44), Form(box_width=150, title_lines=3, bend=36)]
    most = 2
    if len(graph.entities) > _MANY:
        sizes, most = sizes[1:2], 1
    least = GLYPH_ROOM + 2 * BOX_PADDING + 28 + longest
    for is_down in (False, True):
        if direction != ("LR" if is_down else "TB"):
            for size in sizes:
                if size.box_width >= least or size is sizes[0]:
                    for fold in folds:
                        for columns in (8, 24)[:most] if is_down else (4, 2)[:most]:
                            yield evolve(size, is_down=is_down, fold_columns=fold, least_columns=columns)


_Kind = tuple[Relationship | str, bool, bool]
"""The properties that links sharing a port have in common."""


@frozen
class _Leg:
    """A link, and its left and right ends. An end that is folded is the first entity of its block."""

    link: CaseLink
    pair: Pair
    is_in_cycle: bool
    is_backward: bool

    @property
    def kind(self) -> _Kind:
        return self.link.relationship, self.is_backward, self.is_in_cycle

    @property
    def label_width(self) -> float:
        return text_width(label_text(self.link, is_in_cycle=self.is_in_cycle), LABEL_SIZE)


def _legs(graph: LinkGraph) -> list[_Leg]:
    number = rank(graph)
    cyclic = cycle_link_ids(graph)
    return [
        _Leg(link, (left, right), link.id in cyclic, is_directed(link) and link.parent != left)
        for link in graph.links
        for ends in [(link.parent, link.child)]
        for left, right in [(min(ends, key=number.__getitem__), max(ends, key=number.__getitem__))]
    ]


def _leaves(graph: LinkGraph, legs: Iterable[_Leg]) -> Iterator[tuple[_Leg, Entity, Entity]]:
    """Yield the entities that have one link, but no roots, after the link and before the other end."""
    count = Counter(end for leg in legs for end in leg.pair)
    for leg in legs:
        for leaf, other in (leg.pair, leg.pair[::-1]):
            if count[leaf] == 1 and leaf not in graph.roots:
                yield leg, leaf, other


def _blocks(graph: LinkGraph, legs: Sequence[_Leg]) -> Iterator[tuple[Entity, ...]]:
    """Yield the leaves that are folded together: those with a link of the same kind from the same entity."""
    groups: dict[object, list[Entity]] = defaultdict(list)
    for leg, leaf, other in _leaves(graph, legs):
        groups[other, leaf == leg.pair[0], leg.kind].append(leaf)
    return (tuple(group) for group in groups.values() if len(group) >= _MIN_FOLDED)


def _stacks(graph: LinkGraph, legs: Sequence[_Leg], abreast: int) -> Iterator[Pair]:
    """Yield pairs of leaves of the same entity. The first of a pair is in a column before the second."""
    groups: dict[object, list[Entity]] = defaultdict(list)
    for leg, leaf, other in _leaves(graph, legs):
        groups[other, leaf == leg.pair[0]].append(leaf)
    few = (group for group in groups.values() if len(group) <= abreast * _MAX_STACK)
    return (pair for group in few for pair in zip(group, group[abreast:], strict=False))


_Port = tuple[Entity, bool, _Kind]
"""A point on the right (True) or left side of an entity's box where links of a kind start or end."""


class _Outline:
    """The layers and lines that all layouts of a graph share, with or without folded leaves."""

    def __init__(self, graph: LinkGraph, *, is_folded: bool, abreast: int) -> None:
        self._graph = graph
        legs = _legs(graph)
        self._blocks = {block[0]: block for block in _blocks(graph, legs)} if is_folded else {}
        self.has_blocks = bool(self._blocks)
        first = {entity: block[0] for block in self._blocks.values() for entity in block}
        self._legs = [
            evolve(leg, pair=(first.get(leg.pair[0], leg.pair[0]), first.get(leg.pair[1], leg.pair[1])))
            for leg in legs
        ]
        self._entities = list(dict.fromkeys(first.get(entity, entity) for entity in graph.entities))
        edges = list(dict.fromkeys(leg.pair for leg in self._legs if leg.pair[0] != leg.pair[1]))
        stacks = list(_stacks(graph, self._legs, abreast)) if abreast else []
        self.has_stacks = bool(stacks)
        self._parts: Sequence[Layers] = layered(self._entities, edges + stacks)
        self._labels = {leg.kind: leg.label_width for leg in self._legs}
        self._sides: dict[tuple[Entity, bool], set[_Kind]] = defaultdict(set)
        for leg in self._legs:
            left, right = leg.pair
            self._sides[left, True].add(leg.kind)
            if left != right:
                self._sides[right, False].add(leg.kind)

    def lay_out(self, form: Form) -> Layout:
        """Return the layout of this form."""
        boxes = {entity: self._box(entity, form) for entity in self._entities}
        if form.is_down:
            boxes = {entity: _exchanged(box) for entity, box in boxes.items()}
        # From here to the end, everything leads from left to right.
        sizes = {entity: box.height for entity, box in boxes.items()}
        grid = arrange(self._parts, sizes, form.least_columns)
        columns = self._columns(grid, boxes, form)
        boxes = {
            entity: evolve(box, x=columns[place.column].start, y=place.y - box.height / 2)
            for entity, box in boxes.items()
            for place in [grid.places[entity]]
        }
        ways = list(self._ways(grid, columns, self._offsets(grid, form), boxes, form))
        points = [point for way in ways for point in way.points]
        loops = [point for way in ways if way.link.parent == way.link.child for point in way.points]
        wide = max([*(box.x + box.width for box in boxes.values()), *(x + LOOP_ROOM for x, _ in loops)])
        lows = [*(y for _, y in points), *(y + LOOP_ROOM / 3 for _, y in loops)]
        high = max([*(box.y + box.height for box in boxes.values()), *lows])
        if form.is_down:
            boxes = {entity: _exchanged(box) for entity, box in boxes.items()}
            ways = [
                evolve(way, points=tuple((y, x) for x, y in way.points), label=way.label[::-1])
                for way in ways
            ]
            wide, high = high, wide
        unfolded = {
            each: box for entity, box in boxes.items() for each, box in self._unfolded(entity, box, form)
        }
        return Layout({each: unfolded[each] for each in self._graph.entities}, ways, wide, high, form.is_down)

    def _box(self, entity: Entity, form: Form) -> Box:
        """Return the box of an entity or a block, with its size."""
        room = max(
            self._spacing(entity, side, form) * len(self._sides.get((entity, side), ()))
            for side in (True, False)
        )
        if block := self._blocks.get(entity):
            columns, rows = self._rows(block, form)
            return Box(0, 0, columns * form.row_width, rows * ROW_HEIGHT, ())
        wide = max(form.box_width, room) if form.is_down else form.box_width
        title = wrapped(
            describe(self._graph, entity).title, wide - 2 * BOX_PADDING, TITLE_SIZE, form.title_lines
        )
        high = content_height(title)
        return Box(0, 0, wide, high if form.is_down else max(high, room), tuple(title))

    @staticmethod
    def _rows(block: Sequence[Entity], form: Form) -> tuple[int, int]:
        """Return the number of columns and rows of a block."""
        columns = min(form.fold_columns, ceil(len(block) / _ROWS))
        return columns, ceil(len(block) / columns)

    def _unfolded(self, entity: Entity, box: Box, form: Form) -> Iterator[tuple[Entity, Box]]:
        """Yield the entity with its box, or the entities of its block with theirs."""
        if not (block := self._blocks.get(entity)):
            yield entity, box
            return
        _, rows = self._rows(block, form)
        for number, each in enumerate(block):
            column, row = divmod(number, rows)
            x, y = box.x + column * form.row_width, box.y + row * ROW_HEIGHT
            yield each, Box(x, y, form.row_width, ROW_HEIGHT, (), is_row=True)

    def _spacing(self, entity: Entity, side: bool, form: Form) -> float:
        """Return the distance between the ports at this side of a box.

        Labels are below each other from left to right, and beside each other from top to bottom.
        """
        named = [
            self._labels[kind] + 12 for kind in self._sides.get((entity, side), ()) if kind[1] is not side
        ]
        return max([_BETWEEN_PORTS, *named]) if form.is_down else _BETWEEN_PORTS

    def _columns(self, grid: Grid, boxes: Mapping[Entity, Box], form: Form) -> list[_Column]:
        """Return the place of each column, with room for the labels before and after it."""
        column = {entity: place.column for entity, place in grid.places.items()}
        count = max(column.values()) + 1
        depth, before, after = [0.0] * count, [_ARROW_ROOM] * count, [_ARROW_ROOM] * count
        for entity, box in boxes.items():
            depth[column[entity]] = max(depth[column[entity]], box.width)
        for leg in self._legs:
            rooms, end = (before, leg.pair[1]) if leg.is_backward else (after, leg.pair[0])
            room = LABEL_HEIGHT + 6 if form.is_down else leg.label_width + 22
            rooms[column[end]] = max(rooms[column[end]], room)
        columns: list[_Column] = []
        start = 0.0
        for wide, room_before, room_after in zip(depth, before, after, strict=True):
            start += room_before if columns else 0
            columns.append(_Column(start, room_before, start + wide + room_after))
            start += wide + room_after + form.bend
        return columns

    def _offsets(self, grid: Grid, form: Form) -> dict[_Port, float]:
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
            between = self._spacing(entity, side, form)
            for number, (_, kind) in enumerate(ports):
                offsets[entity, side, kind] = (number - (len(ports) - 1) / 2) * between
        return offsets

    def _ways(
        self,
        grid: Grid,
        columns: Sequence[_Column],
        offsets: Mapping[_Port, float],
        boxes: Mapping[Entity, Box],
        form: Form,
    ) -> Iterator[Way]:
        lanes = Counter(leg.pair for leg in self._legs)
        taken: Counter[object] = Counter()
        for leg in self._legs:
            left, right = leg.pair
            lane = aside = 0.0
            if not self._is_folded(leg):
                lane = (taken[leg.pair] - (lanes[leg.pair] - 1) / 2) * _BETWEEN_LANES
                aside = taken[leg.pair, leg.kind] * _BETWEEN_LANES  # separates equal links, which share ports
                taken.update([leg.pair, (leg.pair, leg.kind)])
            x, y = boxes[left].x + boxes[left].width, boxes[left].middle + offsets[left, True, leg.kind]
            if left == right:
                low = boxes[left].y + boxes[left].height
                points = [(x, y + aside), (x - 2 * BOX_PADDING - aside, low)]
            else:
                points = [(x, y + aside), (columns[grid.places[left].column].end, y + aside)]
                for place in grid.passes[leg.pair]:
                    column = columns[place.column]
                    points += [(column.start - column.before, place.y + lane), (column.end, place.y + lane)]
                end = boxes[right].middle + offsets[right, False, leg.kind]
                column = columns[grid.places[right].column]
                points += [(column.start - column.before, end + aside), (boxes[right].x, end + aside)]
            # The label is beyond the head of an arrow, which is at the child.
            half = (LABEL_HEIGHT if form.is_down else leg.label_width + 4) / 2 + 4
            label = (boxes[right].x - half, end) if leg.is_backward else (x + half, y)
            yield Way(leg.link, tuple(points), leg.is_backward, label, leg.is_in_cycle)

    def _is_folded(self, leg: _Leg) -> bool:
        return not self._blocks.keys().isdisjoint(leg.pair)


@frozen
class _Column:
    """Where the boxes of a column start, and the room for labels: its length before, its end after them."""

    start: float
    before: float
    end: float


def _exchanged(box: Box) -> Box:
    """Return ``box`` with its axes exchanged."""
    return evolve(box, x=box.y, y=box.x, width=box.height, height=box.width)
