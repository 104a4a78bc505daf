"""Cycles: each one that is there is found, none that is not, and 100,000 links in a row are no matter."""

from __future__ import annotations

import graphlib
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datadog_caselinks import CaseLink, Entity, NewCaseLink, Relationship, case
from datadog_caselinks.graph.cycles import DIRECTED, cycles
from tests.support.ids import some_id

CASES = [case(some_id(number)) for number in range(1, 8)]
A, B, C, D, E, F, G = CASES


def chain(*entities: Entity, relationship: Relationship = Relationship.BLOCKS) -> list[NewCaseLink]:
    return [NewCaseLink(first, relationship, second) for first, second in pairwise(entities)]


drawn_links = st.lists(
    st.builds(
        lambda ends, relationship: NewCaseLink(ends[0], relationship, ends[1]),
        st.lists(st.sampled_from(CASES), min_size=2, max_size=2, unique=True),
        st.sampled_from(Relationship),
    ),
    max_size=25,
)


def is_acyclic(links: Sequence[NewCaseLink]) -> bool:
    """What the standard library says of it."""
    sorter = graphlib.TopologicalSorter[Entity]()
    for link in links:
        sorter.add(link.child, link.parent)
    try:
        sorter.prepare()
    except graphlib.CycleError:
        return False
    return True


class TestCycles:
    @pytest.mark.parametrize("relationship", Relationship)
    def test_each_relationship_by_itself(self, relationship: Relationship) -> None:
        """Those that have an order; who relates to each other contradicts nobody."""
        ring = chain(A, B, C, A, relationship=relationship)
        assert cycles(ring) == ([tuple(ring)] if relationship in DIRECTED else [])
        assert cycles(ring, relationships=[relationship]) == [tuple(ring)]

    def test_of_several_relationships_together_there_is_none(self) -> None:
        """A case may cause the one that blocks it."""
        assert cycles([A.blocks(B), B.causes(A)]) == []

    def test_it_begins_with_the_link_that_comes_first(self) -> None:
        """So it reads as the file does."""
        ring = chain(A, B, C, A)
        assert cycles([D.blocks(A), ring[1], ring[2], ring[0]]) == [(ring[1], ring[2], ring[0])]
        short = chain(B, A, B)
        assert cycles([A.blocks(C), *short, *chain(C, D, A)]) == [tuple(short)]

    def test_the_shortest_of_a_group(self) -> None:
        """Of cycles with a case in common the short one is the easiest to undo."""
        long, back = chain(A, B, C, D, A), D.blocks(C)
        assert cycles([*long, back]) == [(long[2], back)]
        assert cycles([back, *long]) == [(back, long[2])]

    def test_one_for_each_group_in_their_order(self) -> None:
        """Cycles that have nothing in common are told each, though a way leads from one to the other."""
        first, second = chain(A, B, A), chain(C, D, E, C)
        assert cycles([*second, B.blocks(C), *first]) == [tuple(second), tuple(first)]

    def test_a_link_to_itself(self) -> None:
        """No client makes one, but a server may tell of it."""
        link = CaseLink("x", A, Relationship.BLOCKS, A)
        links: list[NewCaseLink | CaseLink] = [link, A.blocks(B)]
        assert cycles(links) == [(link,)]

    def test_a_relationship_that_is_not_known(self) -> None:
        """Is none that is looked at."""
        assert cycles([CaseLink(str(n), *ends) for n, ends in enumerate([(A, "X", B), (B, "X", A)])]) == []

    @pytest.mark.parametrize("is_closed", [True, False])
    def test_twenty_thousand_in_a_row(self, is_closed: bool) -> None:
        """No recursion, and no time beyond a second, as squares of that number would take."""
        row = [case(some_id(number)) for number in range(1, 20_001)]
        found = cycles(chain(*row, *row[:is_closed]))
        assert [len(cycle) for cycle in found] == [20_000] * is_closed

    @given(drawn_links)
    def test_there_is_one_where_there_is_no_order(self, links: list[NewCaseLink]) -> None:
        """As the standard library finds; and each that is told is one, of links that were given."""
        for relationship in DIRECTED:
            found = cycles(links, relationships=[relationship])
            ours = [link for link in links if link.relationship == relationship]
            assert bool(found) is not is_acyclic(ours)
            for cycle in found:
                assert set(cycle) <= set(ours)
                assert all(one.child == other.parent for one, other in pairwise([*cycle, cycle[0]]))
                assert len({link.parent for link in cycle}) == len(cycle)

    @given(drawn_links)
    def test_without_the_links_that_are_told_there_are_fewer(self, links: list[NewCaseLink]) -> None:
        """Whoever takes one link out of each cycle, again and again, comes to an end without cycles."""
        for _ in range(len(links) + 1):
            if not (found := cycles(links)):
                break
            links = [link for link in links if link not in {cycle[0] for cycle in found}]
        assert cycles(links) == []
