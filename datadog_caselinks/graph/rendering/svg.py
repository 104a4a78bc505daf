"""A graph as SVG, for a document of its own and for the HTML page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib import resources
from itertools import pairwise
from typing import Final

from attrs import frozen

from datadog_caselinks.graph.link_graph import LinkGraph
from datadog_caselinks.graph.rendering.layout import (
    BOX_PADDING,
    BOX_WIDTH,
    LABEL_ROOM,
    TITLE_LINE,
    Box,
    Point,
    Way,
    content_height,
    layout,
)
from datadog_caselinks.graph.rendering.words import (
    Description,
    describe,
    fitted,
    heading,
    is_directed,
    notes,
    width,
    words,
)
from datadog_caselinks.models import Entity, EntityType, Relationship

STYLE: Final = resources.files(__package__).joinpath("drawing.css").read_text("utf-8")

_KEY_SIZE: Final = 14.0  # the bold letters of size 13 are this wide
_SMALL_SIZE: Final = 11.0
_MARGIN: Final = 28.0
_HEAD_ROOM: Final = 66.0
_LEGEND_ROOM: Final = 40.0
_SAMPLE: Final = 44.0
_LEAST_SHOWN: Final = 6  # characters; a shorter text would be meaningless

# Drawn in a square of 16 pixels.
_TYPE_GLYPHS: Final[Mapping[str, str]] = {
    EntityType.CASE: '<rect class="full" x="2" y="3" width="12" height="10" rx="2"/>',
    EntityType.INCIDENT: '<path class="full" d="M8 2.2 14.2 13.4H1.8z"/>',
    EntityType.PAGE: '<circle cx="8" cy="8" r="5.8"/><circle class="full" cx="8" cy="8" r="1.8"/>',
    EntityType.AGENT_CONVERSATION: '<path d="M2 3h12v8H8.5L5 14v-3H2z"/>',
}
_OTHER_GLYPH: Final = '<path d="M8 2 14 8 8 14 2 8z"/>'
_STATUS_GLYPHS: Final[Mapping[str, str]] = {
    "OPEN": '<circle cx="8" cy="8" r="5"/>',
    "IN_PROGRESS": '<circle cx="8" cy="8" r="5"/><path class="full" d="M8 3a5 5 0 0 1 0 10z"/>',
    "CLOSED": '<circle class="full" cx="8" cy="8" r="5"/><path class="cut" d="m5.6 8.2 1.7 1.7 3.2-3.6"/>',
}


@frozen
class Drawing:
    """The SVG elements of a drawing, and its size in pixels."""

    markup: str
    width: float
    height: float


def draw(graph: LinkGraph) -> Drawing:
    """Draw the boxes and lines of ``graph``.

    Each entity is a ``g`` with its index in ``graph.entities`` as ``data-entity``, and each link a ``g`` with
    its index in ``graph.links`` as ``data-link``. A label has the indexes of its links as ``data-links``.
    """
    plan = layout(graph)
    named: dict[Point, list[int]] = defaultdict(list)
    for number, way in enumerate(plan.ways):
        named[way.label].append(number)
    layers = {
        "ways": [_way(graph, number, way) for number, way in enumerate(plan.ways)],
        "names": [_name(plan.ways[numbers[0]], numbers) for numbers in named.values()],
        "boxes": [_box(graph, number, *placed) for number, placed in enumerate(plan.boxes.items())],
    }
    lines = (['<g class="' + name + '">', *drawn, "</g>"] for name, drawn in layers.items())
    return Drawing("\n".join(line for layer in lines for line in layer), plan.width, plan.height)


def svg(graph: LinkGraph) -> str:
    """Return ``graph`` as an SVG document that follows the reader's light or dark mode.

    Raises:
        ConfigurationError: The extra ``pictures`` is not installed.
    """
    drawing = draw(graph)
    signs, signs_width = _legend_line(graph)
    about = " · ".join(notes(graph))
    wide = max(drawing.width, signs_width, width(about, _SMALL_SIZE), width(heading(graph), 17)) + 2 * _MARGIN
    high = drawing.height + _HEAD_ROOM + _LEGEND_ROOM + 2 * _MARGIN
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" class="picture" role="img" aria-labelledby="heading" \
width="{_n(wide)}" height="{_n(high)}" viewBox="0 0 {_n(wide)} {_n(high)}">
<title id="heading">{escape(heading(graph))}</title>
<desc>{escape(about)}</desc>
<style>
{STYLE.strip()}
</style>
<rect class="ground" width="100%" height="100%"/>
<text class="heading" x="{_n(_MARGIN)}" y="{_n(_MARGIN + 14)}">{escape(heading(graph))}</text>
<text class="about" x="{_n(_MARGIN)}" y="{_n(_MARGIN + 36)}">{escape(about)}</text>
<g transform="translate({_n(_MARGIN)} {_n(_MARGIN + _HEAD_ROOM)})">
{drawing.markup}
</g>
<g transform="translate({_n(_MARGIN)} {_n(high - _MARGIN - 16)})">
{signs}
</g>
</svg>
"""


def _way(graph: LinkGraph, number: int, way: Way) -> str:
    link = way.link
    said = f"{describe(graph, link.parent)} {words(link.relationship)} {describe(graph, link.child)}"
    points = way.points
    if link.parent == link.child:
        (x, y), (end_x, end_y) = points
        path = (
            f"M{_p(x, y)}C{_p(x + LABEL_ROOM, y)} {_p(end_x, end_y + LABEL_ROOM / 2)} {_p(end_x, end_y + 9)}"
        )
        head = f"M{_p(end_x, end_y)}l-4.5 9h9z"
    elif not is_directed(link):
        path, head = _path(points), ""
    elif way.is_backward:
        (x, y), *_ = points
        path, head = _path([(x + 9, y), *points[1:]]), f"M{_p(x, y)}l9-4.5v9z"
    else:
        path, head = _path(points[:-1]), f"M{_p(*points[-1])}l-9-4.5v9z"
    drawn_head = f'<path class="head" d="{head}"/>' if head else ""
    return (
        f'<g class="{_link_class(way)}" data-link="{number}"><title>{escape(said)}</title>'
        f'<path class="way" d="{path}"/>{drawn_head}</g>'
    )


def _path(points: Sequence[Point]) -> str:
    pieces = [f"M{_p(*points[0])}"]
    for (x, y), (next_x, next_y) in pairwise(points):
        middle = (x + next_x) / 2
        is_level = _n(y) == _n(next_y)
        bend = f"C{_p(middle, y)} {_p(middle, next_y)} {_p(next_x, next_y)}"
        pieces.append(f"H{_n(next_x)}" if is_level else bend)
    return "".join(pieces)


def _name(way: Way, numbers: Sequence[int]) -> str:
    text = f"{'↻ ' * way.is_in_cycle}{words(way.link.relationship)}"
    x, y = way.label
    inset = 14 if way.is_backward else 7
    shown = fitted(text, LABEL_ROOM - inset - 2, _SMALL_SIZE)
    x += inset
    link_numbers = " ".join(map(str, numbers))
    room = width(shown, _SMALL_SIZE) + 4
    return (
        f'<g class="{_link_class(way, "name")}" data-links="{link_numbers}"><title>{escape(text)}</title>'
        f'<rect class="patch" x="{_n(x)}" y="{_n(y - 7)}" width="{_n(room)}" height="14"/>'
        f"{_text('label', x + 3, y + 4, shown)}</g>"
    )


def _link_class(way: Way, name: str = "link") -> str:
    relationship = way.link.relationship if isinstance(way.link.relationship, Relationship) else "OTHER"
    return f"{name} {relationship}{' cycle' * way.is_in_cycle}"


def _box(graph: LinkGraph, number: int, entity: Entity, box: Box) -> str:
    description = describe(graph, entity)
    stage = description.stage
    is_named = entity.type == EntityType.CASE or entity in graph.incidents
    marks = f"{' root' * (graph.distances.get(entity) == 0)}{' closed' * (stage == 'CLOSED')}"
    base = (box.height - content_height(box.title)) / 2 + 23
    titles = (
        _text("title", BOX_PADDING, base + 4 + TITLE_LINE * line, text)
        for line, text in enumerate(box.title, start=1)
    )
    return "".join(
        [
            f'<g class="entity {_type_class(entity)}{marks}" data-entity="{number}"',
            f' transform="translate({_p(box.x, box.y)})"><title>{escape(str(description))}</title>',
            _body(entity, box.height),
            *_head(entity, description, _STATUS_GLYPHS.get(stage, ""), base, is_named=is_named),
            *titles,
            "</g>",
        ]
    )


def _head(
    entity: Entity, description: Description, status: str, base: float, *, is_named: bool
) -> Iterator[str]:
    """Draw the first line of a box: type and key on the left, status on the right."""
    left, right = BOX_PADDING + 22, BOX_WIDTH - BOX_PADDING
    yield _glyph(_TYPE_GLYPHS.get(entity.type, _OTHER_GLYPH), BOX_PADDING, base - 12.5)
    if status:
        yield _glyph(status, right - 15, base - 12)
        right -= 20
    # An id means little to readers.
    name, aside = (description.key, description.status) if is_named else (description.type, description.key)
    room = right - left - 8
    name = fitted(name, room, _KEY_SIZE)
    yield _text("key", left, base, name)
    shown = fitted(aside, room - width(name, _KEY_SIZE), _SMALL_SIZE)
    if shown == aside or len(shown) >= _LEAST_SHOWN:
        yield _text("status", right, base, shown)


def _text(name: str, x: float, y: float, text: str) -> str:
    return f'<text class="{name}" x="{_n(x)}" y="{_n(y)}">{escape(text)}</text>'


def _type_class(entity: Entity) -> str:
    return str(entity.type) if entity.type in _TYPE_GLYPHS else "OTHER"


def _glyph(markup: str, x: float, y: float) -> str:
    return f'<g class="glyph" transform="translate({_p(x, y)})">{markup}</g>'


def _body(entity: Entity, height: float) -> str:
    """Draw the outline, whose shape identifies the type from a distance."""
    wide, low, cut = BOX_WIDTH, height, 9
    match entity.type:
        case EntityType.CASE:
            return f'<rect class="body" width="{_n(wide)}" height="{_n(low)}" rx="8"/>'
        case EntityType.PAGE:
            return f'<rect class="body" width="{_n(wide)}" height="{_n(low)}" rx="15"/>'
        case EntityType.INCIDENT:
            way = (
                f"M{cut} 0H{_n(wide - cut)}L{_n(wide)} {cut}V{_n(low - cut)}L{_n(wide - cut)} {_n(low)}"
                f"H{cut}L0 {_n(low - cut)}V{cut}z"
            )
        case EntityType.AGENT_CONVERSATION:
            way = (
                f"M3 0H{_n(wide - 3)}q3 0 3 3V{_n(low - 3)}q0 3-3 3H34l-12 9V{_n(low)}H3q-3 0-3-3V3q0-3 3-3z"
            )
        case _:
            way = f"M0 0H{_n(wide)}V{_n(low)}H0z"
    return f'<path class="body" d="{way}"/>'


def legend(graph: LinkGraph) -> list[tuple[str, float, str]]:
    """Return the legend of ``graph``: for each symbol its SVG elements, its width and its meaning."""
    types = {_type_class(entity) for entity in graph.entities}
    stages = {known.stage for known in graph.details.values()}
    relationships = {link.relationship for link in graph.links}
    items = [
        (f'<g class="{name}">{_glyph(glyph, 0, 0)}</g>', 16.0, words(name))
        for name, glyph in _TYPE_GLYPHS.items()
        if name in types
    ]
    items += [
        (_glyph(glyph, 0, 0), 16.0, words(name)) for name, glyph in _STATUS_GLYPHS.items() if name in stages
    ]
    items += [
        (f'<g class="{name}">{_sample(has_head=name != Relationship.RELATES_TO)}</g>', _SAMPLE, words(name))
        for name in Relationship
        if name in relationships
    ]
    if graph.cycles:
        items.append((f'<g class="cycle">{_sample(has_head=True)}</g>', _SAMPLE, "↻ cycle"))
    return items


def _sample(*, has_head: bool) -> str:
    """Draw a sample of a line."""
    head = f'<path class="head" d="M{_n(_SAMPLE)} 8l-9-4.5v9z"/>' if has_head else ""
    return f'<path class="way" d="M0 8H{_n(_SAMPLE - 9 * has_head)}"/>{head}'


def _legend_line(graph: LinkGraph) -> tuple[str, float]:
    """Draw the whole legend in one row, and return it with its width."""
    samples: list[str] = []
    x = 0.0
    for sample, room, text in legend(graph):
        samples.append(
            f'<g class="sample" transform="translate({_n(x)} 0)">{sample}'
            f"{_text('legend', room + 6, 12, text)}</g>"
        )
        x += room + 6 + width(text, _SMALL_SIZE) + 18
    return "\n".join(samples), x


def _n(number: float) -> str:
    """Format a number of pixels, rounded to a tenth."""
    return f"{round(number, 1) + 0.0:g}" if abs(number) < 1e5 else f"{number:.0f}"


def _p(x: float, y: float) -> str:
    return f"{_n(x)} {_n(y)}"
