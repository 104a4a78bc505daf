"""A graph as SVG, for a document of its own and for the HTML page."""

from __future__ import annotations

import re
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
    GLYPH_ROOM,
    KEY_SIZE,
    LABEL_HEIGHT,
    LABEL_SIZE,
    LARGEST,
    LOOP_ROOM,
    READABLE,
    ROW_HEIGHT,
    TITLE_LINE,
    Box,
    Direction,
    Layout,
    Point,
    Way,
    best_layout,
    content_height,
    label_text,
)
from datadog_caselinks.graph.rendering.words import (
    Description,
    describe,
    fitted,
    heading,
    is_directed,
    notes,
    text_width,
    words,
    wrapped,
)
from datadog_caselinks.values.models import CaseLink, Entity, EntityType, Relationship

STYLE: Final = resources.files(__package__).joinpath("drawing.css").read_text("utf-8")


_COLOURS: Final = re.compile(r":root \{([^}]*)\}")


def _plain_style(style: str) -> str:
    """Return ``style`` without variables, which converters to PNG do not know, in light and dark colours."""
    light, dark = (dict(re.findall(r"(--[a-z]+): ([^;]+);", found[1])) for found in _COLOURS.finditer(style))
    _, start, rules = style.partition(".picture ")
    lines = f"{start}{rules}".strip().splitlines()
    coloured = "\n".join(line for line in lines if "var(" in line)
    return "\n".join(
        [
            _filled("\n".join(lines), light),
            "@media screen and (prefers-color-scheme: dark) {",
            _filled(coloured, dark),
            "}",
        ]
    )


def _filled(rules: str, colours: Mapping[str, str]) -> str:
    return re.sub(r"var\((--[a-z]+)\)", lambda match: colours[match[1]], rules)


_PLAIN_STYLE: Final = _plain_style(STYLE)
_MARGIN: Final = 16.0
_HEADING_SIZE: Final = 17.0
_LEGEND_LINE: Final = 24.0
_SAMPLE: Final = 44.0
_LEAST_SHOWN: Final = 6  # characters; a shorter text would be meaningless

README_WIDTH: Final = 838.0
"""The width of a README on GitHub."""

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


def draw(graph: LinkGraph, plan: Layout) -> Drawing:
    """Draw the boxes and lines of ``graph`` where ``plan`` has them.

    Each entity is a ``g`` with its index in ``graph.entities`` as ``data-entity``, and each link a ``g`` with
    its index in ``graph.links`` as ``data-link``. A label has the indexes of its links as ``data-links``.
    """
    named: dict[Point, list[int]] = defaultdict(list)
    for number, way in enumerate(plan.ways):
        named[way.label].append(number)
    layers = {
        "ways": [_way(graph, number, way, is_down=plan.is_down) for number, way in enumerate(plan.ways)],
        "names": [_name(plan.ways[numbers[0]], numbers) for numbers in named.values()],
        "boxes": [_box(graph, number, *placed) for number, placed in enumerate(plan.boxes.items())],
    }
    lines = (['<g class="' + name + '">', *drawn, "</g>"] for name, drawn in layers.items())
    return Drawing("\n".join(line for layer in lines for line in layer), plan.width, plan.height)


def svg(graph: LinkGraph, *, direction: Direction = "auto", width: float = README_WIDTH) -> str:
    """Return ``graph`` as an SVG document that follows the reader's light or dark mode.

    Args:
        graph: The graph.
        direction: ``LR`` for parents to the left of their children, ``TB`` for parents above them, or
            ``auto`` for what gives the larger text.
        width: The width in pixels at which the text is to be readable. A small graph gets larger text. A
            graph that cannot be readable at this width is wider.

    Raises:
        ConfigurationError: The extra ``pictures`` is not installed.
    """
    inner = width - 2 * _MARGIN
    drawing = draw(graph, best_layout(graph, direction, inner))
    scale = min(inner / drawing.width, LARGEST)
    about = " · ".join(notes(graph))
    samples = sum(_sample_width(item) for item in legend(graph))
    texts = (samples, text_width(about, LABEL_SIZE), text_width(heading(graph), _HEADING_SIZE))
    room = max(drawing.width, min(inner / scale, max(texts)))
    head, head_room = _head_lines(graph, about, room)
    signs, signs_room = _legend_lines(graph, room)
    wide, high = room + 2 * _MARGIN, drawing.height + head_room + signs_room + 2 * _MARGIN
    shown = scale if scale >= READABLE else 1.0
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" class="picture" role="img" aria-labelledby="heading" \
width="{_n(wide * shown)}" height="{_n(high * shown)}" viewBox="0 0 {_n(wide)} {_n(high)}">
<title id="heading">{escape(heading(graph))}</title>
<desc>{escape(about)}</desc>
<style>
{_PLAIN_STYLE}
</style>
<rect class="ground" width="100%" height="100%"/>
{head}
<g transform="translate({_n(_MARGIN)} {_n(_MARGIN + head_room)})">
{drawing.markup}
</g>
<g transform="translate({_n(_MARGIN)} {_n(_MARGIN + head_room + drawing.height + _LEGEND_LINE)})">
{signs}
</g>
</svg>
"""


def _head_lines(graph: LinkGraph, about: str, room: float) -> tuple[str, float]:
    """Draw the heading and the notes, and return them with their height."""
    lines = [("heading", line, 24.0) for line in wrapped(heading(graph), room, _HEADING_SIZE, 3)]
    lines += [("about", line, 20.0) for line in wrapped(about, room, LABEL_SIZE, 3)]
    y = _MARGIN - 8
    drawn = []
    for name, line, high in lines:
        y += high
        drawn.append(_text(name, _MARGIN, y, line))
    return "\n".join(drawn), y + 12


def _way(graph: LinkGraph, number: int, way: Way, *, is_down: bool) -> str:
    link = way.link
    said = f"{describe(graph, link.parent)} {words(link.relationship)} {describe(graph, link.child)}"
    points = way.points
    dx, dy = (0, 1) if is_down else (1, 0)
    head = ""
    if link.parent == link.child:
        path, head = _loop(points, link, is_down=is_down)
    elif not is_directed(link):
        path = _path(points, is_down=is_down)
    elif way.is_backward:
        (x, y), *rest = points
        path = _path([(x + 9 * dx, y + 9 * dy), *rest], is_down=is_down)
        head = _arrowhead((x, y), (-dx, -dy), link.relationship)
    else:
        *rest, (x, y) = points
        path = _path([*rest, (x - 9 * dx, y - 9 * dy)], is_down=is_down)
        head = _arrowhead((x, y), (dx, dy), link.relationship)
    drawn_head = f'<path class="head" d="{head}"/>' if head else ""
    return (
        f'<g class="{_link_class(way)}" data-link="{number}"><title>{escape(said)}</title>'
        f'<path class="way" d="{path}"/>{drawn_head}</g>'
    )


def _loop(points: Sequence[Point], link: CaseLink, *, is_down: bool) -> tuple[str, str]:
    """Draw a line from an entity to itself, and its head."""
    (x, y), (end_x, end_y) = points
    if is_down:
        bend = f"{_p(x, y + LOOP_ROOM)} {_p(end_x + LOOP_ROOM / 2, end_y)} {_p(end_x + 9, end_y)}"
    else:
        bend = f"{_p(x + LOOP_ROOM, y)} {_p(end_x, end_y + LOOP_ROOM / 2)} {_p(end_x, end_y + 9)}"
    return f"M{_p(x, y)}C{bend}", _arrowhead(
        (end_x, end_y), (-1, 0) if is_down else (0, -1), link.relationship
    )


def _arrowhead(tip: Point, direction: tuple[int, int], relationship: str) -> str:
    """Draw a head that points in ``direction``. That of a link that blocks ends at a bar."""
    (x, y), (dx, dy) = tip, direction
    bar = ""
    if relationship == Relationship.BLOCKS:
        x, y = x - 4 * dx, y - 4 * dy
        bar = f"m{_p(-6 * dy, -6 * dx)}l{_p(12 * dy, 12 * dx)}"
    back = _p(-9 * dx - 4.5 * dy, -9 * dy - 4.5 * dx)
    return f"M{_p(x, y)}l{back}l{_p(9 * dy, 9 * dx)}z{bar}"


def _path(points: Sequence[Point], *, is_down: bool) -> str:
    pieces = [f"M{_p(*points[0])}"]
    for (x, y), (next_x, next_y) in pairwise(points):
        if is_down:
            middle = (y + next_y) / 2
            is_straight, straight = _n(x) == _n(next_x), f"V{_n(next_y)}"
            bend = f"C{_p(x, middle)} {_p(next_x, middle)} {_p(next_x, next_y)}"
        else:
            middle = (x + next_x) / 2
            is_straight, straight = _n(y) == _n(next_y), f"H{_n(next_x)}"
            bend = f"C{_p(middle, y)} {_p(middle, next_y)} {_p(next_x, next_y)}"
        pieces.append(straight if is_straight else bend)
    return "".join(pieces)


def _name(way: Way, numbers: Sequence[int]) -> str:
    text = f"{'↻ ' * way.is_in_cycle}{words(way.link.relationship)}"
    shown = label_text(way.link, is_in_cycle=way.is_in_cycle)
    x, y = way.label
    link_numbers = " ".join(map(str, numbers))
    room = text_width(shown, LABEL_SIZE) + 4
    return (
        f'<g class="{_link_class(way, "name")}" data-links="{link_numbers}"><title>{escape(text)}</title>'
        f'<rect class="patch" x="{_n(x - room / 2)}" y="{_n(y - LABEL_HEIGHT / 2)}" width="{_n(room)}" '
        f'height="{_n(LABEL_HEIGHT)}"/>'
        f"{_text('label', x, y + 4, shown)}</g>"
    )


def _link_class(way: Way, name: str = "link") -> str:
    relationship = way.link.relationship if isinstance(way.link.relationship, Relationship) else "OTHER"
    return f"{name} {relationship}{' cycle' * way.is_in_cycle}"


def _box(graph: LinkGraph, number: int, entity: Entity, box: Box) -> str:
    description = describe(graph, entity)
    is_closed = description.stage == "CLOSED"
    marks = f"{' root' * (graph.distances.get(entity) == 0)}{' closed' * is_closed}{' row' * box.is_row}"
    return "".join(
        [
            f'<g class="entity {_type_class(entity)}{marks}" data-entity="{number}"',
            f' transform="translate({_p(box.x, box.y)})"><title>{escape(str(description))}</title>',
            _body(entity, box),
            *_content(graph, entity, description, box),
            "</g>",
        ]
    )


def _content(graph: LinkGraph, entity: Entity, description: Description, box: Box) -> Iterator[str]:
    """Draw the type and the key on the left, the status on the right, and the title below or in between."""
    base = ROW_HEIGHT - 7.5 if box.is_row else (box.height - content_height(box.title)) / 2 + 23
    left, right = BOX_PADDING + GLYPH_ROOM, box.width - BOX_PADDING
    yield _glyph(_TYPE_GLYPHS.get(entity.type, _OTHER_GLYPH), BOX_PADDING, base - 12.5)
    if status := _STATUS_GLYPHS.get(description.stage):
        yield _glyph(status, right - 15, base - 12)
        right -= 20
    # An id means little to readers.
    is_named = entity.type == EntityType.CASE or entity in graph.incidents
    name, aside = (description.key, description.status) if is_named else (description.type, description.key)
    room = right - left - 8
    name = fitted(name, room, KEY_SIZE)
    yield _text("key", left, base, name)
    room -= text_width(name, KEY_SIZE)
    if box.is_row and description.title:
        shown = fitted(description.title, room, LABEL_SIZE)
        if shown == description.title or len(shown) >= _LEAST_SHOWN:
            yield _text("beside", left + text_width(name, KEY_SIZE) + 8, base, shown)
        return
    shown = fitted(aside, room, LABEL_SIZE)
    if shown == aside or (not status and len(shown) >= _LEAST_SHOWN):
        yield _text("status", right, base, shown)
    for line, text in enumerate(box.title, start=1):
        yield _text("title", BOX_PADDING, base + 4 + TITLE_LINE * line, text)


def _text(name: str, x: float, y: float, text: str) -> str:
    return f'<text class="{name}" x="{_n(x)}" y="{_n(y)}">{escape(text)}</text>'


def _type_class(entity: Entity) -> str:
    return str(entity.type) if entity.type in _TYPE_GLYPHS else "OTHER"


def _glyph(markup: str, x: float, y: float) -> str:
    return f'<g class="glyph" transform="translate({_p(x, y)})">{markup}</g>'


def _body(entity: Entity, box: Box) -> str:
    """Draw the outline, whose shape identifies the type from a distance."""
    wide, low, cut = box.width, box.height, 9
    if box.is_row:
        return f'<rect class="body" width="{_n(wide)}" height="{_n(low)}"/>'
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
        (f'<g class="{name}">{_sample(name)}</g>', _SAMPLE, words(name))
        for name in Relationship
        if name in relationships
    ]
    if graph.cycles:
        items.append((f'<g class="cycle">{_sample(Relationship.CAUSES)}</g>', _SAMPLE, "↻ cycle"))
    return items


def _sample(relationship: Relationship) -> str:
    """Draw a sample of a line."""
    if relationship == Relationship.RELATES_TO:
        return f'<path class="way" d="M0 8H{_n(_SAMPLE)}"/>'
    head = _arrowhead((_SAMPLE, 8), (1, 0), relationship)
    return f'<path class="way" d="M0 8H{_n(_SAMPLE - 9)}"/><path class="head" d="{head}"/>'


def _sample_width(item: tuple[str, float, str]) -> float:
    _, room, text = item
    return room + 6 + text_width(text, LABEL_SIZE) + 18


def _legend_lines(graph: LinkGraph, room: float) -> tuple[str, float]:
    """Draw the legend in lines of at most ``room``, and return it with its height."""
    samples: list[str] = []
    x = y = 0.0
    for item in legend(graph):
        sample, wide, text = item
        if x and x + _sample_width(item) - 18 > room:
            x, y = 0.0, y + _LEGEND_LINE
        samples.append(
            f'<g class="sample" transform="translate({_p(x, y)})">{sample}'
            f"{_text('legend', wide + 6, 12, text)}</g>"
        )
        x += _sample_width(item)
    return "\n".join(samples), y + 2 * _LEGEND_LINE


def _n(number: float) -> str:
    """Format a number of pixels, rounded to a tenth."""
    return f"{round(number, 1) + 0.0:g}" if abs(number) < 1e5 else f"{number:.0f}"


def _p(x: float, y: float) -> str:
    return f"{_n(x)} {_n(y)}"
