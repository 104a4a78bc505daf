"""Mermaid: titles are escaped so that Mermaid shows them unchanged."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from datadog_caselinks import CaseLink, Entity, LinkGraph
from datadog_caselinks.graph.rendering import Direction, mermaid
from datadog_caselinks.graph.rendering.words import plain
from tests.graph.rendering.hostile import HOSTILE
from tests.support.graphs import entity, graph

NODE = re.compile(r'    n(\d+)(?:\["|\{\{"|\(\["|>"|\(")([^"]*)(?:"\]|"\}\}|"\]\)|"\))')
LINK = re.compile(r'    n(\d+) (?:--|==|-\.) "([^"]*)" (?:-->|==>|\.-) n(\d+)')


def decoded(text: str) -> str:
    return re.sub(r"#(\d+);", lambda found: chr(int(found[1])), text)


@given(st.text(st.characters(), max_size=40))
@example(HOSTILE)
@example("1. a list")
@example("- a list")
@example("style x:a#b;")
def test_titles_stay_as_they_are(title: str) -> None:
    """Nothing in a title is parsed as Mermaid, Markdown or HTML, and it is shown unchanged."""
    line = mermaid(graph("a BLOCKS b", a=title)).splitlines()[1]

    match = NODE.fullmatch(line)
    assert match
    shown = match[2].split("<br>")
    assert [decoded(part) for part in shown] == list(filter(None, ["A", plain(title), "○ open"]))
    for part in shown:
        assert not re.search(r"[\"`<>&:*_%{}\[\]()]|(?:^|\s)[-.]|[-.](?:\s|$)", part)
        assert re.fullmatch(r"[^#]*(?:#\d+;[^#]*)*", part)


def test_everything_is_there(hostile: LinkGraph) -> None:
    """Each entity and each link has a line of its own, in their order."""
    lines = mermaid(hostile).splitlines()
    nodes = [match for line in lines if (match := NODE.fullmatch(line))]
    links = [match for line in lines if (match := LINK.fullmatch(line))]
    number = {each: str(index) for index, each in enumerate(hostile.entities)}

    assert lines[0] == "flowchart LR"
    assert [match[1] for match in nodes] == list(number.values())
    assert [(match[1], match[3]) for match in links] == [
        (number[x.parent], number[x.child]) for x in hostile.links
    ]
    classes = [line for line in lines if line.startswith(("    classDef ", "    class "))]
    assert len(lines) == 1 + len(nodes) + len(links) + len(classes) + 2


def test_shapes_show_types_and_lines_show_cycles() -> None:
    """Shapes show the entity types and lines show cycles, so that no colour is needed."""
    made = graph("a CAUSES i:b", "a CAUSES p:c", "a CAUSES g:d", "a RELATES_TO e", "a BLOCKS e", "e BLOCKS a")
    text = mermaid(made)

    assert re.findall(r"n\d+(\W+)00000000…<br>", text) == ['["', '{{"', '(["', '>"', '["']
    assert 'n0 -. "relates to" .- n4' in text
    assert text.count('== "↻ blocks" ==>') == 2
    assert "    linkStyle 4,5 " in text


def test_colours_show_types() -> None:
    """Each entity type, including an unknown one, has a class with a colour of its own."""
    made = graph("a CAUSES i:b", "a CAUSES p:c", "a CAUSES g:d", "a CAUSES e")
    strange = CaseLink("new", entity("a"), "ORBITS", Entity("x", "ROCKET"))
    text = mermaid(LinkGraph(made.root, (*made.links, strange)))

    styles = dict(re.findall(r"    classDef (\w+) (fill:#\w{6},stroke:#\w{6},color:#\w{6})\n", text))
    assert len(set(styles.values())) == len(styles) == 5
    members = dict(re.findall(r"    class ([n\d,]+) (\w+)\n", text))
    assert members == {
        "n0,n4": "type_case",
        "n1": "type_incident",
        "n2": "type_page",
        "n3": "type_agent_conversation",
        "n5": "type_other",
    }


@pytest.mark.parametrize(("direction", "expected"), [("auto", "LR"), ("LR", "LR"), ("TB", "TB")])
def test_a_direction_can_be_chosen(direction: Direction, expected: str) -> None:
    """Mermaid is drawn from left to right, or in the given direction."""
    assert mermaid(graph("a BLOCKS b"), direction=direction).startswith(f"flowchart {expected}\n")


def test_without_a_cycle() -> None:
    """Without a cycle there is no linkStyle, which would be a syntax error."""
    assert "linkStyle" not in mermaid(graph("a BLOCKS b"))
