"""The tree: each link is on one line, and each entity is described in one place."""

from __future__ import annotations

from attrs import evolve

from datadog_caselinks import LinkGraph
from datadog_caselinks.graph.rendering import Style, tree, tree_lines
from tests.support.graphs import entity, graph, links


def test_a_whole_one() -> None:
    """Arrows show directions, signs show types and statuses, and repeated entities refer to the first."""
    made = graph(
        "a BLOCKS b",
        "b BLOCKS c",
        "d CAUSES a",
        "d CAUSES c",
        "a RELATES_TO i:e",
        a="First",
        b="Second",
        c="Third",
        d="Fourth",
    )

    assert (
        tree(made)
        == f"""\
■ A  First  ○ open
├── blocks → ■ B  Second  ○ open
│  └── blocks → ■ C  Third  ○ open
├─← causes ── ■ D  Fourth  ○ open
│  └── causes → ■ C  Third  ○ open  ↑ see above
└── relates to ── ▲ incident:{entity("e").id}

5 entities · 5 links
"""
    )


def test_searches_below_too() -> None:
    """An entity is described where it is nearest to the root, even if that is further below."""
    made = graph("a BLOCKS b", "a BLOCKS c", "b CAUSES c", "b BLOCKS d", "d BLOCKS c")

    assert [line.rsplit("  ", 1)[-1] for line in tree(made).splitlines() if "see" in line] == [
        "↓ see below",
        "↑ see above",
    ]


def test_cycles() -> None:
    """Each link of a cycle is marked, and the cycle is listed at the end."""
    lines = tree(graph("a BLOCKS b", "b BLOCKS a", a="One", b="Two")).splitlines()

    assert lines[:3] == [
        "■ A  One  ○ open",
        "├── ↻ blocks → ■ B  Two  ○ open",
        "└─← ↻ blocks ── ■ B  Two  ○ open  ↑ see above",
    ]
    assert lines[-1] == "↻ blocks A → B → A"


def test_each_link_once(demo: LinkGraph, hostile: LinkGraph, many: LinkGraph) -> None:
    """Each link is drawn exactly once, and each entity is described exactly once."""
    for made in (demo, hostile, many):
        drawn = [line for line in tree_lines(made) if line and line[0].style == Style.BRANCH]
        assert len(drawn) == len(made.links)
        homes = [
            line
            for line in tree_lines(made)
            if any(p.style == Style.KEY for p in line) and "see" not in line[-1].text
        ]
        assert len(homes) == len(made.entities) + len(made.cycles)


def test_a_long_chain() -> None:
    """A long chain can be drawn, because drawing does not recurse."""
    chain = links("a BLOCKS 0", *(f"{number} BLOCKS {number + 1}" for number in range(2000)))
    assert len(tree(LinkGraph(entity("a"), chain)).splitlines()) == 2004


def test_what_nothing_links_to_the_root() -> None:
    """Entities without a path to the root have a tree of their own."""
    assert tree(graph("a BLOCKS b", "x BLOCKS y")).count("── blocks →") == 2


def test_one_line_each(hostile: LinkGraph) -> None:
    """A title with line breaks or control sequences stays on its own line."""
    text = tree(hostile)
    assert all(line.isprintable() for line in text.splitlines())
    assert text == "".join("".join(piece.text for piece in line) + "\n" for line in tree_lines(hostile))


def test_starts_that_are_linked_to_the_same() -> None:
    """An entity below two roots is described below one of them, and the other tree refers to it."""
    made = evolve(graph("a BLOCKS b", "b BLOCKS c", "x BLOCKS c", "c BLOCKS d"), other_roots=(entity("x"),))
    text = tree(made)

    assert text.count("see above") + text.count("see below") == 1
    assert text.count("── blocks →") == 4
