"""Cycles: one cycle of each connected group of links is reported, in linear time."""

from __future__ import annotations

import graphlib
import random
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datadog_caselinks import CaseLink, Entity, NewCaseLink, Relationship
from datadog_caselinks.graph.cycles import ACYCLIC, find_cycles
from tests.support.ids import case, some_id

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
    """Return whether ``graphlib`` finds an order of ``links``."""
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
    def test_relationships_that_must_not_form_a_cycle(self, relationship: Relationship) -> None:
        """RELATES_TO and ESCALATES_TO may form a cycle; any relationship can be requested by name."""
        ring = chain(A, B, C, A, relationship=relationship)
        assert find_cycles(ring) == ([tuple(ring)] if relationship in ACYCLIC else [])
        assert find_cycles(ring, relationships=[relationship]) == [tuple(ring)]

    def test_relationships_are_searched_separately(self) -> None:
        """Links of different relationships form no cycle together."""
        assert find_cycles([A.blocks(B), B.causes(A)]) == []

    def test_a_cycle_starts_with_its_first_link(self) -> None:
        """A cycle starts with its first link in the input, so that it reads like the file."""
        ring = chain(A, B, C, A)
        assert find_cycles([D.blocks(A), ring[1], ring[2], ring[0]]) == [(ring[1], ring[2], ring[0])]
        short = chain(B, A, B)
        assert find_cycles([A.blocks(C), *short, *chain(C, D, A)]) == [tuple(short)]

    def test_the_shortest_of_a_group(self) -> None:
        """The shortest of several cycles that share a case is reported."""
        long, back = chain(A, B, C, D, A), D.blocks(C)
        assert find_cycles([*long, back]) == [(long[2], back)]
        assert find_cycles([back, *long]) == [(back, long[2])]

    def test_one_for_each_group_in_their_order(self) -> None:
        """Separate cycles are each reported, even if a link leads from one to the other."""
        first, second = chain(A, B, A), chain(C, D, E, C)
        assert find_cycles([*second, B.blocks(C), *first]) == [tuple(second), tuple(first)]

    def test_a_link_to_itself(self) -> None:
        """A link from an entity to itself is a cycle; no client creates one, but a server may return it."""
        link = CaseLink("x", A, Relationship.BLOCKS, A)
        links: list[NewCaseLink | CaseLink] = [link, A.blocks(B)]
        assert find_cycles(links) == [(link,)]

    def test_unknown_relationship(self) -> None:
        """A relationship that this version does not know is not checked."""
        assert (
            find_cycles([CaseLink(str(n), *ends) for n, ends in enumerate([(A, "X", B), (B, "X", A)])]) == []
        )

    @pytest.mark.slow
    @pytest.mark.parametrize("is_closed", [True, False])
    def test_chain_of_five_thousand(self, is_closed: bool) -> None:
        """A chain of 5,000 links needs neither recursion nor quadratic time."""
        row = [case(some_id(number)) for number in range(1, 5_001)]
        found = find_cycles(chain(*row, *row[:is_closed]))
        assert [len(cycle) for cycle in found] == [5_000] * is_closed

    @given(drawn_links)
    def test_agrees_with_graphlib(self, links: list[NewCaseLink]) -> None:
        """A cycle is reported exactly where ``graphlib`` finds no order, and consists of the given links."""
        for relationship in ACYCLIC:
            found = find_cycles(links, relationships=[relationship])
            ours = [link for link in links if link.relationship == relationship]
            assert bool(found) is not is_acyclic(ours)
            for cycle in found:
                assert set(cycle) <= set(ours)
                assert all(one.child == other.parent for one, other in pairwise([*cycle, cycle[0]]))
                assert len({link.parent for link in cycle}) == len(cycle)

    def test_many_links_in_one_group(self) -> None:
        """The search stays linear when 10,000 links form one group, and still finds a short cycle."""
        chance = random.Random(1)
        many = [case(some_id(number)) for number in range(1, 5_001)]
        links = chain(*many, many[0])
        links += [one.blocks(other) for one, other in (chance.sample(many, 2) for _ in range(5_000))]
        (cycle,) = find_cycles(links)
        assert len(cycle) < 10

    @given(drawn_links)
    def test_removing_reported_links_removes_all_cycles(self, links: list[NewCaseLink]) -> None:
        """Removing one link of each reported cycle, repeatedly, leaves no cycles."""
        for _ in range(len(links) + 1):
            if not (found := find_cycles(links)):
                break
            links = [link for link in links if link not in {cycle[0] for cycle in found}]
        assert find_cycles(links) == []
