"""Contradictions: links that cannot all be true are told with their names, and few others."""

from __future__ import annotations

import pytest

from datadog_caselinks import (
    CaseLink,
    Contradiction,
    ContradictionKind,
    Entity,
    NewCaseLink,
    Relationship,
    case,
)
from datadog_caselinks.graph.contradictions import contradictions
from datadog_caselinks.graph.cycles import DIRECTED
from tests.support.ids import some_id

CASES = [case(some_id(number)) for number in range(30)]
A, B, C, D = CASES[:4]


def name(entity: Entity) -> str:
    return f"X-{CASES.index(entity)}"


def told(*links: NewCaseLink | CaseLink) -> Contradiction:
    """The only contradiction of ``links``."""
    (contradiction,) = contradictions(links, name=name)
    assert str(contradiction) == contradiction.message
    return contradiction


class TestCycle:
    @pytest.mark.parametrize("relationship", DIRECTED)
    def test_it_is_told_as_a_path(self, relationship: Relationship) -> None:
        """By the names of all that it leads through, back to the first."""
        links = [
            NewCaseLink(*ends) for ends in ((A, relationship, B), (B, relationship, C), (C, relationship, A))
        ]
        contradiction = told(*links)
        assert contradiction.kind is ContradictionKind.CYCLE
        assert contradiction.links == tuple(links)
        assert (
            contradiction.message == f"a cycle: X-0 {relationship} X-1 {relationship} X-2 {relationship} X-0"
        )

    @pytest.mark.parametrize(
        ("length", "end"),
        [(10, "BLOCKS X-8 BLOCKS X-9 BLOCKS X-0"), (30, "BLOCKS X-9 … (20 more) BLOCKS X-0")],
    )
    def test_a_long_one_fits_a_terminal(self, length: int, end: str) -> None:
        """Its beginning, how many more there are, and its end."""
        message = told(*(CASES[n].blocks(CASES[(n + 1) % length]) for n in range(length))).message
        assert message.startswith("a cycle: X-0 BLOCKS X-1 BLOCKS X-2 ")
        assert message.endswith(end)

    def test_without_names_it_is_the_ids(self) -> None:
        """As they can be read again."""
        (contradiction,) = contradictions([A.blocks(B), B.blocks(A)])
        assert contradiction.message == f"a cycle: {A.id} BLOCKS {B.id} BLOCKS {A.id}"


class TestNoOriginal:
    def test_duplicates_in_a_circle(self) -> None:
        """Each is the duplicate of another one."""
        links = (A.duplicates(B), B.duplicates(A))
        message = "duplicates of each other, and none is the original: X-0 DUPLICATES X-1 DUPLICATES X-0"
        assert told(*links) == Contradiction(ContradictionKind.NO_ORIGINAL, links, message)

    def test_many_duplicates_of_one(self) -> None:
        """And duplicates of duplicates are as they should be."""
        assert contradictions([A.duplicates(D), B.duplicates(D), C.duplicates(B)]) == []


class TestSeveralParents:
    def test_a_child_of_two(self) -> None:
        """A hierarchy gives it one."""
        links = (A.parent_of(C), CaseLink("x", B, Relationship.PARENT_OF, C))
        message = "2 parents of X-2: X-0, X-1"
        assert told(*links) == Contradiction(ContradictionKind.SEVERAL_PARENTS, links, message)

    def test_of_many_the_first_are_named(self) -> None:
        """And how many more there are."""
        message = told(*(parent.parent_of(A) for parent in CASES[1:13])).message
        assert message.startswith("12 parents of X-0: X-1, X-2, ")
        assert message.endswith(" X-10, … (2 more)")

    def test_the_same_parent_twice(self) -> None:
        """Is a link that was made twice, and one parent."""
        assert contradictions([A.parent_of(B), CaseLink("x", A, Relationship.PARENT_OF, B)]) == []

    def test_many_children_of_one(self) -> None:
        """Are what a parent is for."""
        assert contradictions([A.parent_of(B), A.parent_of(C), B.parent_of(D)]) == []


class TestSameAndDifferent:
    @pytest.mark.parametrize("relationship", DIRECTED)
    @pytest.mark.parametrize("ends", [(A, B), (B, A)])
    def test_a_duplicate_that_does_something_to_its_original(
        self, ends: tuple[Entity, Entity], relationship: Relationship
    ) -> None:
        """Or the original to it: what is the same cannot stand before or above itself."""
        other = NewCaseLink(ends[0], relationship, ends[1])
        message = (
            "a duplicate that is not the same: X-0 DUPLICATES X-1, "
            f"but {name(other.parent)} {relationship} {name(other.child)}"
        )
        links = (A.duplicates(B), other)
        assert told(*links) == Contradiction(ContradictionKind.SAME_AND_DIFFERENT, links, message)

    def test_all_that_it_does_is_told_at_once(self) -> None:
        """One warning for a pair."""
        message = told(B.causes(A), A.duplicates(B), A.blocks(B)).message
        assert message.endswith(": X-0 DUPLICATES X-1, but X-0 BLOCKS X-1 and X-1 CAUSES X-0")

    @pytest.mark.parametrize("relationship", [Relationship.RELATES_TO, Relationship.ESCALATES_TO])
    def test_what_says_no_more_is_no_contradiction(self, relationship: Relationship) -> None:
        """A duplicate is related as well."""
        assert contradictions([A.duplicates(B), NewCaseLink(A, relationship, B)]) == []


def test_the_merely_odd_is_not_told() -> None:
    """A child that blocks its parent, a cause that follows, both ways of an escalation: all that happens."""
    links = [A.parent_of(B), B.blocks(A), A.causes(C), C.blocks(A), C.successor_of(A)]
    assert contradictions([*links, A.escalates_to(B), B.escalates_to(A), A.relates_to(B)]) == []


def test_kind_by_kind() -> None:
    """Each that there is, in the order of the kinds."""
    links = [A.duplicates(B), B.duplicates(A), A.parent_of(B), C.parent_of(B), B.parent_of(A)]
    assert [each.kind for each in contradictions(links)] == list(ContradictionKind)
