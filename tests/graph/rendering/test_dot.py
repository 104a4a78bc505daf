"""DOT: quoted strings that hold whatever titles hold."""

from __future__ import annotations

import re
from html import unescape

from attrs import evolve
from hypothesis import example, given
from hypothesis import strategies as st

from datadog_caselinks import LinkGraph, Site
from datadog_caselinks.graph.rendering import dot
from datadog_caselinks.graph.rendering.words import plain
from tests.graph.rendering.hostile import HOSTILE
from tests.support.graphs import graph

QUOTED = r'"((?:[^"\\]|\\.)*)"'


def shown(quoted: str) -> list[str]:
    """The lines that Graphviz shows of what stands between quotes."""
    lines = re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], quoted).split("\n")
    return [unescape(line) for line in lines]


@given(st.text(st.characters(), max_size=40))
@example(HOSTILE)
@example("ends with \\")
@example("&lt;")
def test_titles_stay_as_they_are(title: str) -> None:
    """Quotes, backslashes and HTML's entities are shown as they were written."""
    line = dot(graph("a BLOCKS b", a=title)).splitlines()[4]

    match = re.fullmatch(rf"    n0 \[label={QUOTED}, shape=box, tooltip={QUOTED}, penwidth=3\]", line)
    assert match
    assert shown(match[1]) == list(filter(None, ["A", plain(title), "○ open"]))


def test_everything_is_there(hostile: LinkGraph) -> None:
    """Each entity and each link on a line of its own, in their order."""
    text = dot(hostile)
    number = {each: index for index, each in enumerate(hostile.entities)}

    assert re.findall(r"^    n(\d+) \[label=", text, re.MULTILINE) == [str(each) for each in number.values()]
    assert re.findall(r"^    (n\d+ -> n\d+) \[label=", text, re.MULTILINE) == [
        f"n{number[link.parent]} -> n{number[link.child]}" for link in hostile.links
    ]
    assert text.startswith("digraph links {\n")
    assert text.endswith("\n}\n")


def test_forms_and_lines() -> None:
    """A form for each type, a line for each kind; cycles are thick, and say so."""
    text = dot(
        graph("a CAUSES i:b", "a RELATES_TO p:c", "a DUPLICATES g:d", "a BLOCKS e", "e BLOCKS a", "a X f")
    )

    assert re.findall("shape=([a-z]+)", text) == ["box", "octagon", "ellipse", "note", "box", "box"]
    assert re.findall("style=([a-z]+)", text) == ["solid", "dotted", "dashed", "bold", "bold", "solid"]
    assert text.count("dir=none") == 1
    assert text.count("↻ blocks") == 2


def test_a_case_can_be_opened(demo: LinkGraph) -> None:
    """What Graphviz makes of it leads to Datadog."""
    text = dot(evolve(demo, site=Site.US1))
    assert text.count('URL="https://app.datadoghq.com/cases/SHOP-') == len(demo.cases)
    assert "URL=" not in dot(demo)
