"""Contradictions: cycles and several parents are reported with names, and unusual links are not."""

from __future__ import annotations

import pytest

from datadog_caselinks import CaseLink, Contradiction, ContradictionKind, Entity, NewCaseLink, Relationship
from datadog_caselinks.graph.contradictions import find_contradictions
from datadog_caselinks.graph.cycles import ACYCLIC
from tests.support.ids import case, some_id

CASES = [case(some_id(number)) for number in range(30)]
NUMBERS: dict[Entity, int] = {each: number for number, each in enumerate(CASES)}
A, B, C, D = CASES[:4]


def name(entity: Entity) -> str:
    return f"X-{NUMBERS[entity]}"


def only_contradiction(*links: NewCaseLink | CaseLink) -> Contradiction:
    (contradiction,) = find_contradictions(links, name=name)
    assert str(contradiction) == contradiction.message
    return contradiction


class TestCycle:
    @pytest.mark.parametrize("relationship", ACYCLIC)
    def test_message_is_the_whole_path(self, relationship: Relationship) -> None:
        """The message of a cycle names every entity, back to the first one."""
        links = [
            NewCaseLink(*ends) for ends in ((A, relationship, B), (B, relationship, C), (C, relationship, A))
        ]
        contradiction = only_contradiction(*links)
        assert contradiction.kind is ContradictionKind.CYCLE
        assert contradiction.links == tuple(links)
        words = relationship.replace("_", " ").lower()
        assert contradiction.message == f"a cycle: X-0 {words} X-1 {words} X-2 {words} X-0"

    @pytest.mark.parametrize(
        ("length", "end"),
        [(10, "blocks X-8 blocks X-9 blocks X-0"), (30, "blocks X-9 … (20 more) blocks X-0")],
    )
    def test_message_of_a_long_cycle_is_shortened(self, length: int, end: str) -> None:
        """A long cycle is reported by its beginning, the number of links left out, and its end."""
        message = only_contradiction(
            *(CASES[n].blocks(CASES[(n + 1) % length]) for n in range(length))
        ).message
        assert message.startswith("a cycle: X-0 blocks X-1 blocks X-2 ")
        assert message.endswith(end)

    def test_entities_without_names_are_shown_by_id(self) -> None:
        """Without a ``name`` function the message has ids that ``parse_reference`` accepts."""
        (contradiction,) = find_contradictions([A.blocks(B), B.blocks(A)])
        assert contradiction.message == f"a cycle: {A.id} blocks {B.id} blocks {A.id}"

    def test_duplicates_of_one_original(self) -> None:
        """Several duplicates of one case, and duplicates of duplicates, are not a contradiction."""
        assert find_contradictions([A.duplicates(D), B.duplicates(D), C.duplicates(B)]) == []


class TestSeveralParents:
    def test_child_of_two(self) -> None:
        """A child with two parents is reported with both."""
        links = (A.parent_of(C), CaseLink("x", B, Relationship.PARENT_OF, C))
        message = "X-2 has 2 parents: X-0, X-1"
        assert only_contradiction(*links) == Contradiction(ContradictionKind.SEVERAL_PARENTS, links, message)

    def test_message_of_many_parents_is_shortened(self) -> None:
        """The message about many parents names ten of them and counts the others."""
        message = only_contradiction(*(parent.parent_of(A) for parent in CASES[1:13])).message
        assert message.startswith("X-0 has 12 parents: X-1, X-2, ")
        assert message.endswith(" X-10, … (2 more)")

    def test_same_parent_twice(self) -> None:
        """Two equal links to one parent are not a contradiction."""
        assert find_contradictions([A.parent_of(B), CaseLink("x", A, Relationship.PARENT_OF, B)]) == []

    def test_many_children_of_one(self) -> None:
        """A parent may have any number of children."""
        assert find_contradictions([A.parent_of(B), A.parent_of(C), B.parent_of(D)]) == []


def test_unusual_links_are_not_reported() -> None:
    """A child that blocks its parent, and two cases that escalate to each other, are not reported."""
    links = [A.parent_of(B), B.blocks(A), A.causes(C), C.blocks(A), C.successor_of(A), A.duplicates(B)]
    assert find_contradictions([*links, A.escalates_to(B), B.escalates_to(A), A.relates_to(B)]) == []


def test_ordered_by_kind() -> None:
    """Contradictions are returned in the order of the kinds."""
    links = [A.parent_of(B), C.parent_of(B), B.parent_of(A)]
    assert [each.kind for each in find_contradictions(links)] == list(ContradictionKind)
