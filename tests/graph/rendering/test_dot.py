"""DOT: titles are quoted so that Graphviz shows them unchanged."""

from __future__ import annotations

import re
from html import unescape

import pytest
from attrs import evolve
from hypothesis import example, given
from hypothesis import strategies as st

from datadog_caselinks import CaseLink, Entity, LinkGraph, Site
from datadog_caselinks.graph.rendering import Direction, dot
from datadog_caselinks.graph.rendering.words import plain
from tests.graph.rendering.hostile import HOSTILE
from tests.support.graphs import entity, graph

QUOTED = r'"((?:[^"\\]|\\.)*)"'


def shown(quoted: str) -> list[str]:
    """Return the lines that Graphviz shows for a quoted string."""
    lines = re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], quoted).split("\n")
    return [unescape(line) for line in lines]


@given(st.text(st.characters(), max_size=40))
@example(HOSTILE)
@example("ends with \\")
@example("&lt;")
def test_titles_stay_as_they_are(title: str) -> None:
    """Quotes, backslashes and HTML entities in titles are shown unchanged."""
    line = dot(graph("a BLOCKS b", a=title)).splitlines()[4]

    form = r'shape=box, color="#\w{6}", fillcolor="#\w{6}"'
    match = re.fullmatch(rf"    n0 \[label={QUOTED}, {form}, tooltip={QUOTED}, penwidth=3\]", line)
    assert match
    assert shown(match[1]) == list(filter(None, ["A", plain(title), "○ open"]))


def test_everything_is_there(hostile: LinkGraph) -> None:
    """Each entity and each link has a line of its own, in their order."""
    text = dot(hostile)
    number = {each: index for index, each in enumerate(hostile.entities)}

    assert re.findall(r"^    n(\d+) \[label=", text, re.MULTILINE) == [str(each) for each in number.values()]
    assert re.findall(r"^    (n\d+ -> n\d+) \[label=", text, re.MULTILINE) == [
        f"n{number[link.parent]} -> n{number[link.child]}" for link in hostile.links
    ]
    assert text.startswith("digraph links {\n")
    assert text.endswith("\n}\n")


def test_forms_and_lines() -> None:
    """Each entity type has a shape, each relationship a line style, and cycles are thick and labelled."""
    text = dot(
        graph("a CAUSES i:b", "a RELATES_TO p:c", "a DUPLICATES g:d", "a BLOCKS e", "e BLOCKS a", "a X f")
    )

    assert re.findall("shape=([a-z]+)", text) == ["box", "octagon", "ellipse", "note", "box", "box"]
    assert re.findall(r"\bstyle=([a-z]+)", text)[1:] == ["solid", "dotted", "dashed", "bold", "bold", "solid"]
    assert text.count("dir=none") == 1
    assert text.count("↻ blocks") == 2


def test_colours_show_types() -> None:
    """Each entity type, including an unknown one, has a colour of its own."""
    made = graph("a CAUSES i:b", "a CAUSES p:c", "a CAUSES g:d", "a CAUSES e")
    strange = CaseLink("new", entity("a"), "ORBITS", Entity("x", "ROCKET"))
    colours = re.findall(
        r'color="(#\w+)", fillcolor="(#\w+)"', dot(LinkGraph(made.root, (*made.links, strange)))
    )

    assert len(colours) == 6
    assert colours[0] == colours[4]
    assert len(set(colours)) == 5


def test_blocks_and_causes_differ() -> None:
    """A BLOCKS link ends at a bar, and a CAUSES link does not."""
    text = dot(graph("a BLOCKS b", "a CAUSES b", "a PARENT_OF b", "a RELATES_TO b"))
    heads = re.findall(r"style=\w+(?:, (arrowhead=\w+|dir=none))?\]", text)
    assert heads[-4:] == ["arrowhead=teenormal", "", "arrowhead=empty", "dir=none"]


@pytest.mark.parametrize(("direction", "expected"), [("auto", "LR"), ("LR", "LR"), ("TB", "TB")])
def test_a_direction_can_be_chosen(direction: Direction, expected: str) -> None:
    """DOT is drawn from left to right, or in the given direction."""
    assert f"rankdir={expected}," in dot(graph("a BLOCKS b"), direction=direction)


def test_a_case_can_be_opened(demo: LinkGraph) -> None:
    """With a Datadog site, each case has its URL."""
    text = dot(evolve(demo, site=Site.US1))
    assert text.count('URL="https://app.datadoghq.com/cases/SHOP-') == len(demo.cases)
    assert "URL=" not in dot(demo)
