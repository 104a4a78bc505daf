"""A graph in DOT, the language of Graphviz and compatible tools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from datadog_caselinks.graph.link_graph import LinkGraph
from datadog_caselinks.graph.rendering.layout import Direction
from datadog_caselinks.graph.rendering.words import (
    OTHER_COLOURS,
    TYPE_COLOURS,
    cycle_link_ids,
    describe,
    heading,
    words,
)
from datadog_caselinks.values.models import CaseLink, Entity, EntityType, Relationship

# A shape for each type, so that types differ without colour.
_SHAPES: Final[Mapping[str, str]] = {
    EntityType.CASE: "box",
    EntityType.INCIDENT: "octagon",
    EntityType.PAGE: "ellipse",
    EntityType.AGENT_CONVERSATION: "note",
}
_OTHER_SHAPE: Final = "diamond"
_HEADS: Final[Mapping[str, str]] = {
    Relationship.RELATES_TO: ", dir=none",
    Relationship.BLOCKS: ", arrowhead=teenormal",
    Relationship.PARENT_OF: ", arrowhead=empty",
}
_LINES: Final[Mapping[str, str]] = {
    Relationship.RELATES_TO: "dotted",
    Relationship.DUPLICATES: "dashed",
    Relationship.SUCCESSOR_OF: "dashed",
}


def dot(graph: LinkGraph, *, direction: Direction = "auto") -> str:
    """Return ``graph`` as the text of a DOT file, from left to right by default."""
    number = {entity: index for index, entity in enumerate(graph.entities)}
    cyclic = cycle_link_ids(graph)
    rankdir = "TB" if direction == "TB" else "LR"
    lines = [
        "digraph links {",
        f"    graph [rankdir={rankdir}, label={_quoted(heading(graph))}, labelloc=t, fontname=Helvetica]",
        "    node [fontname=Helvetica, fontsize=11, style=filled]",
        "    edge [fontname=Helvetica, fontsize=9]",
    ]
    lines += [f"    n{index} {_node(graph, entity)}" for entity, index in number.items()]
    lines += [
        f"    n{number[link.parent]} -> n{number[link.child]} {_edge(link, is_in_cycle=link.id in cyclic)}"
        for link in graph.links
    ]
    return "\n".join([*lines, "}"]) + "\n"


def _node(graph: LinkGraph, entity: Entity) -> str:
    description = describe(graph, entity)
    label = _quoted(*filter(None, (description.key, description.title, description.state)))
    weight = ", penwidth=3" if graph.distances.get(entity) == 0 else ""
    form = _SHAPES.get(entity.type, _OTHER_SHAPE)
    url = graph.url_of(entity)
    link = f", URL={_quoted(url)}" if url else ""
    line, ground = TYPE_COLOURS.get(entity.type, OTHER_COLOURS)
    colour = f'color="{line}", fillcolor="{ground}"'
    return f"[label={label}, shape={form}, {colour}, tooltip={_quoted(description.reference)}{link}{weight}]"


def _edge(link: CaseLink, *, is_in_cycle: bool) -> str:
    label = _quoted(f"{'↻ ' * is_in_cycle}{words(link.relationship)}")
    style = "bold" if is_in_cycle else _LINES.get(link.relationship, "solid")
    ends = _HEADS.get(link.relationship, "")
    mark = ', color="#c0392b", penwidth=3' if is_in_cycle else ""
    return f"[label={label}, style={style}{ends}{mark}]"


def _quoted(*lines: str) -> str:
    """Return quoted lines, with backslashes, quotes and HTML entities escaped."""
    escaped = (line.replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;") for line in lines)
    return '"' + "\\n".join(escaped) + '"'
