"""A graph as a Mermaid flowchart, which GitHub, GitLab and many wikis render."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Final

from datadog_caselinks.graph.link_graph import LinkGraph
from datadog_caselinks.graph.rendering.layout import Direction
from datadog_caselinks.graph.rendering.words import (
    OTHER_COLOURS,
    TYPE_COLOURS,
    cycle_link_ids,
    describe,
    is_directed,
    words,
)
from datadog_caselinks.values.models import CaseLink, Entity, EntityType

# A shape for each type, so that types differ without colour.
_SHAPES: Final[Mapping[str, tuple[str, str]]] = {
    EntityType.CASE: ('["', '"]'),
    EntityType.INCIDENT: ('{{"', '"}}'),
    EntityType.PAGE: ('(["', '"])'),
    EntityType.AGENT_CONVERSATION: ('>"', '"]'),
}
_OTHER_SHAPE: Final = ('("', '")')
# A hyphen or a full stop is safe between letters; elsewhere it may start a list.
_UNSAFE: Final = re.compile(r"(?<!\w)[-.]|[-.](?!\w)|[^\w .,…↻○◐✓-]|_")
_ROOT_STYLE: Final = "stroke-width:3px"
_CYCLE_STYLE: Final = "stroke:#c0392b,stroke-width:3px"


def mermaid(graph: LinkGraph, *, direction: Direction = "auto") -> str:
    """Return ``graph`` as the text of a Mermaid flowchart, from left to right by default."""
    number = {entity: index for index, entity in enumerate(graph.entities)}
    cyclic = cycle_link_ids(graph)
    lines = [f"flowchart {'TB' if direction == 'TB' else 'LR'}"]
    lines += [f"    {_node(graph, entity, index)}" for entity, index in number.items()]
    lines += [
        f"    n{number[link.parent]} {_arrow(link, is_in_cycle=link.id in cyclic)} n{number[link.child]}"
        for link in graph.links
    ]
    by_type: dict[str, list[str]] = defaultdict(list)
    for entity, index in number.items():
        by_type[entity.type if entity.type in TYPE_COLOURS else "other"].append(f"n{index}")
    for type_, nodes in by_type.items():
        line, ground = TYPE_COLOURS.get(type_, OTHER_COLOURS)
        name = f"type_{type_.lower()}"  # case and end are words of Mermaid
        lines.append(f"    classDef {name} fill:{ground},stroke:{line},color:#1d1b26")
        lines.append(f"    class {','.join(nodes)} {name}")
    lines += [f"    style n{number[root]} {_ROOT_STYLE}" for root in graph.roots]
    if marked := [str(index) for index, link in enumerate(graph.links) if link.id in cyclic]:
        lines.append(f"    linkStyle {','.join(marked)} {_CYCLE_STYLE}")
    return "\n".join(lines) + "\n"


def _node(graph: LinkGraph, entity: Entity, index: int) -> str:
    description = describe(graph, entity)
    text = "<br>".join(
        _escaped(line) for line in (description.key, description.title, description.state) if line
    )
    opening, closing = _SHAPES.get(entity.type, _OTHER_SHAPE)
    return f"n{index}{opening}{text}{closing}"


def _arrow(link: CaseLink, *, is_in_cycle: bool) -> str:
    name = _escaped(f"{'↻ ' * is_in_cycle}{words(link.relationship)}")
    if is_in_cycle:
        return f'== "{name}" ==>'
    return f'-- "{name}" -->' if is_directed(link) else f'-. "{name}" .-'


def _escaped(text: str) -> str:
    """Replace characters that Mermaid, Markdown or HTML could interpret by their numbers."""
    return _UNSAFE.sub(lambda found: f"#{ord(found[0])};", text)
