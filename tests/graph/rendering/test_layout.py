"""The layout: boxes and labels do not overlap, parents come first, and lines avoid boxes."""

from __future__ import annotations

import sys
from itertools import combinations, pairwise
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datadog_caselinks import ConfigurationError, Entity, LinkGraph
from datadog_caselinks.graph.rendering.columns import _space_out
from datadog_caselinks.graph.rendering.layout import (
    LABEL_SIZE,
    READABLE,
    Box,
    Form,
    Layout,
    best_layout,
    label_text,
    layout,
)
from datadog_caselinks.graph.rendering.words import text_width
from tests.support.graphs import entity, graph

graphs = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from(["BLOCKS", "RELATES_TO", "PARENT_OF"]), st.integers(0, 9)),
    max_size=18,
).map(lambda links: graph(*(f"{parent} {name} {child}" for parent, name, child in links)))


def of(plan: Layout, name: str) -> tuple[float, float]:
    box = plan.boxes[entity(name)]
    return box.x, box.middle


FORMS = [
    Form(),
    Form(is_down=True),
    Form(box_width=150, title_lines=3, least_columns=2),
    Form(is_down=True, box_width=150, abreast=1, least_columns=8),
    Form(abreast=2),
    Form(fold_columns=1),
    Form(is_down=True, fold_columns=3, abreast=1),
]


def overlap(one: Box, other: Box, distance: float) -> bool:
    """Return whether two boxes are closer to each other than ``distance``."""
    return (
        one.x < other.x + other.width + distance
        and other.x < one.x + one.width + distance
        and one.y < other.y + other.height + distance
        and other.y < one.y + one.height + distance
    )


def assert_is_tidy(made: LinkGraph, plan: Layout) -> None:
    """Require that no boxes overlap, no line crosses a box, and everything is within the picture."""
    assert set(plan.boxes) == set(made.entities)
    assert [way.link for way in plan.ways] == list(made.links)
    for box in plan.boxes.values():
        assert -0.001 <= box.x <= plan.width - box.width + 0.001
        assert -0.001 <= box.y <= plan.height - box.height + 0.001
    for one, other in combinations(plan.boxes.values(), 2):
        assert not overlap(one, other, -0.001 if one.is_row and other.is_row else 10)
    for way in plan.ways:
        for (x, y), (next_x, next_y) in pairwise(way.points):
            is_straight = x == next_x if plan.is_down else y == next_y
            line = Box(min(x, next_x), min(y, next_y), abs(x - next_x), abs(y - next_y), ())
            if is_straight and way.link.parent != way.link.child:
                assert not any(overlap(line, box, -0.001) for box in plan.boxes.values())


@given(graphs, st.sampled_from(FORMS))
def test_any_graph_is_tidy(made: LinkGraph, form: Form) -> None:
    """Graphs with cycles, loops, several parts or unlinked entities are tidy in every layout form."""
    assert_is_tidy(made, layout(made, form))


@given(graphs, st.sampled_from(FORMS))
def test_labels_are_apart(made: LinkGraph, form: Form) -> None:
    """The labels of links overlap neither each other nor a box."""
    plan = layout(made, form)
    named = {way.label: way for way in plan.ways if way.link.parent != way.link.child}
    labels = []
    for (x, y), way in named.items():
        wide = text_width(label_text(way.link, is_in_cycle=way.is_in_cycle), LABEL_SIZE)
        labels.append(Box(x - wide / 2, y - 6, wide, 12, ()))
    assert not any(overlap(one, other, 0) for one, other in combinations(labels, 2))
    assert not any(overlap(label, box, 0) for label in labels for box in plan.boxes.values())


def test_a_large_graph_is_tidy(many: LinkGraph) -> None:
    """A large graph is tidy, and not much higher than its boxes need."""
    plan = layout(many)

    assert_is_tidy(many, plan)
    columns = [box.x for box in plan.boxes.values()]
    fullest = max(columns.count(x) for x in set(columns))
    assert plan.height < fullest * 130


def test_parents_are_at_the_left() -> None:
    """Parents are at the left of their children, even if they are read later or far away."""
    plan = layout(graph("b BLOCKS a", "c BLOCKS b", "c CAUSES a", "d RELATES_TO c"))

    assert of(plan, "d") < of(plan, "c") < of(plan, "b") < of(plan, "a")
    assert not any(way.is_backward for way in plan.ways)


def test_a_cycle_goes_back_once() -> None:
    """One link of a cycle leads backward, and all of its links are marked."""
    plan = layout(graph("a BLOCKS b", "b BLOCKS c", "c BLOCKS a", "a CAUSES c"))

    assert [way.is_backward for way in plan.ways] == [False, False, True, False]
    assert [way.is_in_cycle for way in plan.ways] == [True, True, True, False]


@pytest.mark.parametrize("is_down", [False, True])
def test_a_label_is_next_to_the_parent(is_down: bool) -> None:
    """The label of a link is next to its parent, even if the link leads backward."""
    plan = layout(graph("a BLOCKS b", "b BLOCKS c", "c BLOCKS a", "a CAUSES c"), Form(is_down=is_down))

    for way in plan.ways:
        (x, y), parent, child = way.label, plan.boxes[way.link.parent], plan.boxes[way.link.child]
        to_parent, to_child = (
            abs((y - box.middle) if is_down else (x - box.x - box.width / 2)) for box in (parent, child)
        )
        assert to_parent < to_child
        near = Box(x, y, 0, 0, ())
        assert overlap(near, parent, 45)


def test_from_top_to_bottom() -> None:
    """With ``is_down``, parents are above their children."""
    plan = layout(graph("a BLOCKS b", "a BLOCKS c", "b CAUSES d"), Form(is_down=True))

    tops = [plan.boxes[entity(name)].y for name in "abcd"]
    assert tops[0] < tops[1] == tops[2] < tops[3]


def test_leaves_are_below_each_other() -> None:
    """At most ``abreast`` leaves of an entity are in one row."""
    made = graph(*(f"a BLOCKS {name}" for name in "bcdefg"), *(f"{name} CAUSES a" for name in "hij"))
    plan = layout(made, Form(is_down=True, abreast=2))

    rows = [box.y for box in plan.boxes.values()]
    assert max(rows.count(y) for y in set(rows)) == 2
    assert max(plan.boxes[entity(name)].y for name in "hij") < plan.boxes[entity("a")].y


def test_leaves_are_folded() -> None:
    """Three or more leaves with one relationship form a block of rows, in as few columns as possible."""
    many = [f"a BLOCKS n{number}" for number in range(30)]
    plan = layout(graph(*many, "a CAUSES b", "a CAUSES c", "a BLOCKS d", "d BLOCKS e"), Form(fold_columns=3))

    rows = {each: box for each, box in plan.boxes.items() if box.is_row}
    assert set(rows) == {entity(f"n{number}") for number in range(30)}
    assert len({box.x for box in rows.values()}) == 3
    assert len({box.y for box in rows.values()}) == 10


@pytest.mark.parametrize("direction", ["LR", "TB"])
def test_a_direction_can_be_chosen(direction: Literal["LR", "TB"]) -> None:
    """The best layout uses the given direction."""
    assert best_layout(graph("a BLOCKS b", "b BLOCKS c"), direction, 800).is_down is (direction == "TB")


def test_a_wide_graph_fits() -> None:
    """A parent with twenty children fits into a README at a readable size."""
    plan = best_layout(graph(*(f"a BLOCKS n{number}" for number in range(20))), "auto", 806)
    assert 806 / plan.width >= READABLE


@pytest.mark.parametrize("children", [30, 119, 479])
@pytest.mark.slow
def test_one_column_of_many_is_broken_up(children: int) -> None:
    """Dozens or hundreds of children take several columns, in a picture and on a page."""
    made = graph(*(f"a BLOCKS n{number}" for number in range(children)))

    assert 806 / best_layout(made, "auto", 806).width >= READABLE
    page = best_layout(made, "auto", 1000, 740)
    assert page.width / page.height > 0.5


def test_a_chain_is_level() -> None:
    """The boxes of a chain are at the same height."""
    plan = layout(graph("a BLOCKS b", "b BLOCKS c", "c BLOCKS d"))
    assert len({round(box.middle, 3) for box in plan.boxes.values()}) == 1


def test_neighbours_are_level() -> None:
    """A line without obstacles is straight, regardless of its neighbours."""
    plan = layout(graph("a BLOCKS b", "a BLOCKS c", "c BLOCKS d", "b BLOCKS e", "e BLOCKS f"))

    assert abs(of(plan, "c")[1] - of(plan, "d")[1]) < 1
    assert abs(of(plan, "e")[1] - of(plan, "f")[1]) < 1
    assert abs(of(plan, "a")[1] - (of(plan, "b")[1] + of(plan, "c")[1]) / 2) < 1


def test_a_link_to_itself_is_within_the_plane() -> None:
    """A link from an entity to itself lies within the picture."""
    assert layout(graph("a BLOCKS a")).width > Form().box_width


def test_links_of_a_kind_begin_together() -> None:
    """Links of one relationship start at one port with one label, and other relationships at another."""
    plan = layout(graph("a PARENT_OF b", "a PARENT_OF c", "a BLOCKS c"))
    parent_b, parent_c, blocks_c = plan.ways

    assert parent_b.label == parent_c.label != blocks_c.label
    assert parent_b.points[0] == parent_c.points[0]


def test_equal_links_are_two_lines() -> None:
    """Equal links are drawn as two lines, because a server may store a link twice."""
    one, other = layout(graph("a BLOCKS b", "a BLOCKS b")).ways

    assert one.label == other.label
    assert not set(one.points) & set(other.points)


def test_a_box_has_room_for_its_ports() -> None:
    """A box is high enough for all of its ports."""
    names = ["BLOCKS", "CAUSES", "DUPLICATES", "PARENT_OF", "SUCCESSOR_OF", "ESCALATES_TO", "RELATES_TO"]
    plan = layout(graph(*(f"a {name} b" for name in names)))

    levels = sorted(way.label[1] for way in plan.ways)
    box = plan.boxes[entity("a")]
    assert all(below - above >= 14 for above, below in pairwise(levels))
    assert box.y < levels[0] < levels[-1] < box.y + box.height


def test_parts_are_side_by_side() -> None:
    """Unconnected parts are side by side, the root's part first, and wrap into further rows."""
    plan = layout(graph("a BLOCKS b", "c BLOCKS d", "e BLOCKS f"))
    tops = [(plan.boxes[entity(name)].x, plan.boxes[entity(name)].y) for name in "ace"]

    assert tops[0] == (0, 0)
    assert (tops[1][1], tops[2][0]) == (0, 0)
    assert tops[1][0] > Form().box_width
    assert tops[2][1] > plan.boxes[entity("a")].height


def test_parts_with_waypoints() -> None:
    """A long line in one of several parts keeps its own waypoints."""
    made = graph("1 RELATES_TO 4", "2 BLOCKS 3", "2 PARENT_OF 5", "0 BLOCKS 3", "5 RELATES_TO 0")
    assert_is_tidy(made, layout(made))


def test_the_root_alone() -> None:
    """A graph without links is one box."""
    assert layout(LinkGraph(entity("a"), ())).boxes[entity("a")].y == 0


def test_a_title_that_is_too_long() -> None:
    """A long title is cut to two lines and ends with an ellipsis."""
    plan = layout(graph("a BLOCKS b", a="many words " * 20))

    title = plan.boxes[entity("a")].title
    assert len(title) == 2
    assert title[1].endswith("…")


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the layout library, the error names the extra."""
    monkeypatch.setitem(sys.modules, "fast_sugiyama", None)
    with pytest.raises(ConfigurationError, match=r"pip install '\.\[pictures\]'"):
        layout(LinkGraph(Entity("a", "CASE"), ()))


@given(st.lists(st.tuples(st.floats(-99, 99), st.integers(1, 9), st.floats(0, 20)), min_size=1, max_size=9))
def test_as_near_as_can_be(items: list[tuple[float, int, float]]) -> None:
    """Levels keep their distances, and moving any group of them does not improve the positions."""
    wishes = [wish for wish, _, _ in items]
    forces = [float(force) for _, force, _ in items]
    gaps = [0.0, *(gap for _, _, gap in items[1:])]
    levels = list(_space_out(wishes, forces, gaps))

    def cost(levels: list[float]) -> float:
        return sum(
            force * (level - wish) ** 2 for level, wish, force in zip(levels, wishes, forces, strict=True)
        )

    def is_allowed(levels: list[float]) -> bool:
        return all(
            low - high >= gap - 1e-6 for (high, low), gap in zip(pairwise(levels), gaps[1:], strict=True)
        )

    assert is_allowed(levels)
    for begin, end in combinations(range(len(levels) + 1), 2):
        for nudge in (-0.01, 0.01):
            moved = [level + nudge * (begin <= place < end) for place, level in enumerate(levels)]
            assert not is_allowed(moved) or cost(moved) >= cost(levels) - 1e-6


def test_ports_are_in_the_order_of_what_they_lead_to() -> None:
    """Ports are in the order of the entities at the other ends, so that lines do not cross."""
    plan = layout(graph("a BLOCKS b", "a CAUSES c", "a PARENT_OF d", "a ESCALATES_TO e"))

    begins = [way.label[1] for way in plan.ways]
    ends = [plan.boxes[way.link.child].middle for way in plan.ways]
    assert sorted(begins) == [begin for _, begin in sorted(zip(ends, begins, strict=True))]


def test_links_of_two_kinds_pass_side_by_side() -> None:
    """Links of two relationships over the same distance run in separate lanes."""
    plan = layout(graph("a BLOCKS b", "b BLOCKS c", "a CAUSES c", "a PARENT_OF c"))

    _, _, one, other = (way.points[2:4] for way in plan.ways)
    assert one[0][0] == other[0][0]
    assert one[0][1] != other[0][1]
