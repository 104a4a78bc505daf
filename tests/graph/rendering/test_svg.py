"""The SVG: well-formed, complete, and nothing from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

from datadog_caselinks import CaseLink, CaseLinksClient, Entity, LinkGraph, Relationship
from datadog_caselinks.graph.cycles import ACYCLIC
from datadog_caselinks.graph.rendering import svg
from datadog_caselinks.sandbox import Sandbox
from tests.graph.rendering.documents import SVG, addresses, numbered, read_svg, texts
from tests.support.graphs import entity, graph


def test_everything_is_there(demo: LinkGraph) -> None:
    """Each entity and each link once, by its number; titles, keys and statuses as text."""
    root = read_svg(svg(demo))

    assert numbered(root, "data-entity") == list(range(len(demo.entities)))
    assert numbered(root, "data-link") == list(range(len(demo.links)))
    boxes = {
        int(each.attrib["data-entity"]): each for each in root.iter(f"{SVG}g") if "data-entity" in each.attrib
    }
    for number, each in enumerate(demo.entities):
        case = demo.details.get(each)
        for told in (case.key, case.title, case.status.lower().replace("_", " ")) if case else (each.id[:8],):
            assert told in texts(boxes[number])


def test_each_line_has_its_name(demo: LinkGraph) -> None:
    """Links of a kind that begin together share one, and no link is without."""
    root = read_svg(svg(demo))
    named: dict[int, str] = {}
    for element in root.iter():
        for its in element.attrib.get("data-links", "").split():
            named[int(its)] = texts(element)

    assert set(named) == set(range(len(demo.links)))
    for number, link in enumerate(demo.links):
        assert link.relationship.lower().replace("_", " ") in named[number]


def test_names_are_written_out() -> None:
    """The longest too, on a cycle and in either direction."""
    made = [f"{one} {name} {other}" for name in Relationship for one, other in ("ab", "ba")]
    text = svg(graph(*made))
    for name in ACYCLIC:
        assert text.count(f">↻ {name.lower().replace('_', ' ')}</text>") == 2
    assert "…" not in "".join(re.findall('class="label"[^<]*', text))


def test_types_are_told_by_form() -> None:
    """Without colour too: each has a sign of its own, and so has one that this version does not know."""
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


def test_statuses_are_told_by_form(demo: LinkGraph) -> None:
    """Open is a circle, in progress half a one, closed a mark."""
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
    """The lines are thick, and their names carry a sign; no others do."""
    root = read_svg(svg(demo))
    on_cycle = {link.id for cycle in demo.cycles for link in cycle}
    marked = {
        demo.links[int(each.attrib["data-link"])].id
        for each in root.iter(f"{SVG}g")
        if "data-link" in each.attrib and "cycle" in each.attrib["class"].split()
    }
    assert marked == on_cycle
    assert texts(root).count("↻ blocks") == 2 * len(on_cycle)  # its name, and what it says when pointed at


def test_no_line_has_a_head_without_a_direction() -> None:
    """Only RELATES_TO has none; a link that goes back points to the left, one to itself upwards."""
    made = graph("a BLOCKS b", "b BLOCKS a", "a RELATES_TO b", "a BLOCKS a")
    drawn = [each for each in read_svg(svg(made)).iter(f"{SVG}g") if "data-link" in each.attrib]
    heads = [each.find(f"{SVG}path[@class='head']") for each in drawn]
    ways = [re.sub(r"^M[-\d. ]+", "", each.attrib["d"]) if each is not None else None for each in heads]

    assert ways == ["l-9-4.5v9z", "l9-4.5v9z", None, "l-4.5 9h9z"]


def test_nothing_becomes_markup(hostile: LinkGraph) -> None:
    """Titles and relationships are others' text; the document stays well-formed and holds no script."""
    root = read_svg(svg(hostile))

    assert not list(root.iter(f"{SVG}script"))
    assert "<script>alert(1)</script>" in texts(root)
    assert numbered(root, "data-link") == list(range(len(hostile.links)))


def test_fetches_nothing(demo: LinkGraph, hostile: LinkGraph) -> None:
    """It may be shown by a page that must not give away who looks at it."""
    for text in (svg(demo), svg(hostile)):
        assert addresses(re.sub(r"&lt;.*?&gt;", "", text)) == []
        assert not re.findall(r"url\(|@import|href", text)


def test_is_the_same_each_time(hostile: LinkGraph) -> None:
    """A picture under version control changes when the graph does."""
    assert svg(hostile) == svg(hostile)


async def test_the_documentation_shows_it() -> None:
    """As it is drawn today: ``caselinks graph --sandbox SHOP-24 -o docs/graph.svg``."""
    async with Sandbox(seed="demo") as sandbox, CaseLinksClient(sandbox.url, sandbox.credentials) as links:
        made = await links.read_graph("SHOP-24")
    assert (Path(__file__).parents[3] / "docs" / "graph.svg").read_text("utf-8") == svg(made)


def test_says_what_is_missing() -> None:
    """Whoever sees the picture alone is not to take it for the whole."""
    assert "7 more at distance 2 left out" in texts(
        read_svg(svg(LinkGraph(entity("a"), (), {}, depth=2, left_out=7)))
    )


def test_the_legend_holds_what_occurs(demo: LinkGraph) -> None:
    """No more and no less."""

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
    """Five hundred entities, each with its place."""
    assert len(numbered(read_svg(svg(many)), "data-entity")) == 500
