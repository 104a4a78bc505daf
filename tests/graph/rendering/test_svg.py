"""The SVG: well-formed, complete, and without external resources."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import pytest

from datadog_caselinks import Case, CaseLink, CaseLinksClient, Entity, LinkGraph, Relationship
from datadog_caselinks.graph.cycles import ACYCLIC
from datadog_caselinks.graph.rendering import svg
from datadog_caselinks.graph.rendering.layout import READABLE
from datadog_caselinks.graph.rendering.words import text_width
from datadog_caselinks.sandbox import Sandbox
from tests.graph.rendering.documents import SVG, addresses, numbered, read_svg, texts
from tests.support.graphs import entity, graph


def test_everything_is_there(demo: LinkGraph) -> None:
    """Each entity and each link appears once with its number, and titles, keys and statuses as text."""
    root = read_svg(svg(demo))

    assert numbered(root, "data-entity") == list(range(len(demo.entities)))
    assert numbered(root, "data-link") == list(range(len(demo.links)))
    boxes = {
        int(each.attrib["data-entity"]): each for each in root.iter(f"{SVG}g") if "data-entity" in each.attrib
    }
    for number, each in enumerate(demo.entities):
        case = demo.details.get(each)
        for reported in (
            (case.key, case.title, case.status.lower().replace("_", " ")) if case else (each.id[:8],)
        ):
            assert reported in texts(boxes[number])


def test_each_line_has_its_name(demo: LinkGraph) -> None:
    """Each link has a label, which links of one relationship from one entity share."""
    root = read_svg(svg(demo))
    named: dict[int, str] = {}
    for element in root.iter():
        for its in element.attrib.get("data-links", "").split():
            named[int(its)] = texts(element)

    assert set(named) == set(range(len(demo.links)))
    for number, link in enumerate(demo.links):
        assert link.relationship.lower().replace("_", " ") in named[number]


def test_names_are_written_out() -> None:
    """Every relationship is written out in full, on a cycle and in either direction."""
    made = [f"{one} {name} {other}" for name in Relationship for one, other in ("ab", "ba")]
    text = svg(graph(*made))
    for name in ACYCLIC:
        assert text.count(f">↻ {name.lower().replace('_', ' ')}</text>") == 2
    assert "…" not in "".join(re.findall('class="label"[^<]*', text))


def test_types_have_symbols() -> None:
    """Each entity type, including an unknown one, has a symbol of its own, so that no colour is needed."""
    made = graph("a CAUSES i:b", "a CAUSES p:c", "a CAUSES g:d", "a CAUSES e")
    strange = CaseLink("new", entity("a"), "ORBITS", Entity("x", "ROCKET"))
    made = LinkGraph(made.root, (*made.links, strange))
    boxes = [each for each in read_svg(svg(made)).iter(f"{SVG}g") if "data-entity" in each.attrib]
    by_type: dict[str, set[str]] = {}
    for box in boxes:
        sign = next(each for each in box.iter(f"{SVG}g") if each.attrib.get("class") == "glyph")
        by_type.setdefault(box.attrib["class"].split()[1], set()).add(
            "".join(sorted(str(x.attrib) for x in sign))
        )
    assert len(by_type) == 5
    assert len({min(signs) for signs in by_type.values()}) == 5
    assert all(len(signs) == 1 for signs in by_type.values())


def test_statuses_have_symbols(demo: LinkGraph) -> None:
    """Each status has a symbol of its own: a circle, a half circle or a check mark."""
    root = read_svg(svg(demo))
    signs: dict[str, set[str]] = {}
    for box in root.iter(f"{SVG}g"):
        if "data-entity" in box.attrib and (
            case := demo.cases.get(demo.entities[int(box.attrib["data-entity"])])
        ):
            sign = [each for each in box.iter(f"{SVG}g") if each.attrib.get("class") == "glyph"][1]
            signs.setdefault(case.status, set()).add(
                " ".join(str(sorted(each.attrib.items())) for each in sign)
            )
    assert set(signs) == {"OPEN", "IN_PROGRESS", "CLOSED"}
    assert len(set.union(*signs.values())) == 3


def test_cycles_are_marked(demo: LinkGraph) -> None:
    """Only links of a cycle are thick and have a sign in their labels."""
    root = read_svg(svg(demo))
    on_cycle = {link.id for cycle in demo.cycles for link in cycle}
    marked = {
        demo.links[int(each.attrib["data-link"])].id
        for each in root.iter(f"{SVG}g")
        if "data-link" in each.attrib and "cycle" in each.attrib["class"].split()
    }
    assert marked == on_cycle
    assert texts(root).count("↻ blocks") == 2 * len(on_cycle)  # the label and the tooltip


@pytest.mark.parametrize(
    ("direction", "expected"),
    [
        ("LR", ["l-9 -4.5l0 9z", "l9 4.5l0 -9z", None, "l4.5 9l-9 0z"]),
        ("TB", ["l-4.5 -9l9 0z", "l4.5 9l-9 0z", None, "l9 4.5l0 -9z"]),
    ],
)
def test_no_line_has_a_head_without_a_direction(
    direction: Literal["LR", "TB"], expected: list[str | None]
) -> None:
    """Only RELATES_TO has no arrowhead; a backward link points back, and a loop at its own box."""
    made = graph("a CAUSES b", "b CAUSES a", "a RELATES_TO b", "a CAUSES a")
    drawn = [
        each
        for each in read_svg(svg(made, direction=direction)).iter(f"{SVG}g")
        if "data-link" in each.attrib
    ]
    heads = [each.find(f"{SVG}path[@class='head']") for each in drawn]
    ways = [re.sub(r"^M[-\d. ]+", "", each.attrib["d"]) if each is not None else None for each in heads]

    assert ways == expected


def test_blocks_and_causes_differ() -> None:
    """A BLOCKS link ends at a bar, in the picture and in the legend, also on a cycle."""
    made = graph("a BLOCKS b", "b BLOCKS a", "a CAUSES c", "c BLOCKS c")
    root = read_svg(svg(made))
    heads = [
        each.find(f"{SVG}path[@class='head']")
        for each in root.iter(f"{SVG}g")
        if "data-link" in each.attrib or each.attrib.get("class") in ("BLOCKS", "CAUSES")
    ]
    has_bar = ["zm" in each.attrib["d"] for each in heads if each is not None]
    assert has_bar == [True, True, False, True, False, True]


def shown_size(text: str) -> tuple[float, float, float]:
    """Return the width and height of an SVG, and its scale."""
    root = read_svg(text)
    wide, high = float(root.attrib["width"]), float(root.attrib["height"])
    return wide, high, wide / float(root.attrib["viewBox"].split()[2])


async def test_a_readme_is_readable() -> None:
    """The graphs of the README and of an outage fit into 838 pixels with letters of 9 pixels or more."""
    async with Sandbox(seed="demo") as sandbox, CaseLinksClient(sandbox.url, sandbox.credentials) as links:
        for key in ("SHOP-24", "SHOP-2"):
            wide, _, scale = shown_size(svg(await links.read_graph(key)))
            assert wide <= 838
            assert 11 * scale >= 9


@pytest.mark.parametrize("width", [400, 838, 1600])
def test_a_width_can_be_chosen(width: int) -> None:
    """A small graph uses at most the given width and has larger text."""
    chain = graph("a BLOCKS b", "b BLOCKS c", "c BLOCKS d", a="A title", b="Another", c="A third", d="Last")
    wide, _, scale = shown_size(svg(chain, width=width))
    assert wide <= width
    assert scale >= READABLE
    assert shown_size(svg(graph("a BLOCKS b"), width=width))[2] >= min(scale, 1.2)


def test_what_cannot_fit_is_wider(many: LinkGraph) -> None:
    """A graph that would be too small at the given width is wider and keeps letters of 11 pixels."""
    wide, _, scale = shown_size(svg(many))
    assert wide > 838
    assert scale == 1


def test_texts_are_within_the_picture() -> None:
    """A long heading and a long legend are wrapped within the picture."""
    made = LinkGraph(entity("a"), (), {}, other_roots=(entity("i:b"), entity("p:c")), depth=2, left_out=7)
    text = svg(made, width=300)
    wide = shown_size(text)[0] / shown_size(text)[2]
    for name, size in (("heading", 17), ("about", 11)):
        lines = re.findall(f'class="{name}" x="([0-9.]+)"[^>]*>([^<]*)<', text)
        assert lines
        assert all(float(x) + text_width(line, size) <= wide for x, line in lines)


def test_nothing_becomes_markup(hostile: LinkGraph) -> None:
    """Untrusted titles and relationships keep the SVG well-formed and add no script."""
    root = read_svg(svg(hostile))

    assert not list(root.iter(f"{SVG}script"))
    assert "<script>alert(1)</script>" in texts(root)
    assert numbered(root, "data-link") == list(range(len(hostile.links)))


def test_fetches_nothing(demo: LinkGraph, hostile: LinkGraph) -> None:
    """The SVG refers to no external resource, which could reveal its readers."""
    for text in (svg(demo), svg(hostile)):
        assert addresses(re.sub(r"&lt;.*?&gt;", "", text)) == []
        assert not re.findall(r"url\(|@import|href", text)


def test_converters_know_its_style() -> None:
    """The colours use no CSS variables, which PNG converters do not support, and differ in dark mode."""
    light, dark = svg(graph("a BLOCKS b")).partition("</style>")[0].split("@media")
    assert "var(" not in light + dark
    assert set(re.findall(r"#\w+;", light)).isdisjoint(re.findall(r"#\w+;", dark))


def test_is_the_same_each_time(hostile: LinkGraph) -> None:
    """The same graph always results in the same SVG, so it can be under version control."""
    assert svg(hostile) == svg(hostile)


async def test_the_documentation_shows_it() -> None:
    """docs/graph.svg is current: ``caselinks graph --sandbox SHOP-24 -o docs/graph.svg``."""
    async with Sandbox(seed="demo") as sandbox, CaseLinksClient(sandbox.url, sandbox.credentials) as links:
        made = await links.read_graph("SHOP-24")
    assert (Path(__file__).parents[3] / "docs" / "graph.svg").read_text("utf-8") == svg(made)


def test_says_what_is_missing() -> None:
    """The picture says how many entities were left out."""
    assert "7 more at distance 2 left out" in texts(
        read_svg(svg(LinkGraph(entity("a"), (), {}, depth=2, left_out=7)))
    )


def test_the_legend_holds_what_occurs(demo: LinkGraph) -> None:
    """The legend has exactly the types, statuses, relationships and marks in the picture."""

    def said(made: LinkGraph) -> list[str]:
        return [
            texts(each)
            for each in read_svg(svg(made)).iter(f"{SVG}g")
            if each.attrib.get("class") == "sample"
        ]

    assert said(LinkGraph(entity("i:a"), ())) == ["incident"]
    assert said(graph("a BLOCKS b", "b BLOCKS a", a="One")) == ["case", "open", "blocks", "↻ cycle"]
    assert len(said(demo)) == 4 + 3 + 7 + 1


def test_a_large_one(many: LinkGraph) -> None:
    """A picture of five hundred entities contains all of them."""
    assert len(numbered(read_svg(svg(many)), "data-entity")) == 500


def test_folded_leaves_have_keys_and_titles() -> None:
    """A folded leaf shows its key, and its title if a meaningful part of it fits."""
    short, long = entity("n0"), entity("n1")
    made = graph(*(f"a BLOCKS n{number}" for number in range(200)))
    cases = {
        short: Case(short.id, "OPS-1", "Pool is too small", "OPEN", "P3"),
        long: Case(long.id, "OPERATIONS-1234", "The pool of connections is too small", "OPEN", "P3"),
    }
    text = svg(LinkGraph(made.root, made.links, cases))

    assert re.search(r'class="key"[^>]*>OPS-1</text><text class="beside"[^>]*>Pool is', text)
    assert re.search(r'class="key"[^>]*>OPERATIONS-…?\w*…?</text></g>', text)
