"""The models: what they hold, what they refuse, and what their messages say."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable
from typing import Any, cast
from uuid import UUID

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import datadog_caselinks
from datadog_caselinks import (
    Case,
    CaseKey,
    CaseLink,
    Entity,
    EntityType,
    IncidentNumber,
    InvalidLinkError,
    LinkReference,
    NewCaseLink,
    Reference,
    Relationship,
    WantedLink,
    agent_conversation,
    page,
)
from datadog_caselinks.messages import MAX_QUOTED, quoted
from datadog_caselinks.models import identity
from tests.support.ids import case, incident
from tests.support.strategies import entities, entity_types, links, new_links, relationships

A = "4417921d-0866-4a38-822c-6f2a0f65f77d"
B = "bf0cbac6-4c16-4cfb-b6bf-ca5e0ec37a4f"

CONSTRUCTORS: list[tuple[Callable[[str | UUID], Entity], EntityType]] = [
    (case, EntityType.CASE),
    (incident, EntityType.INCIDENT),
    (page, EntityType.PAGE),
    (agent_conversation, EntityType.AGENT_CONVERSATION),
]

VERBS: list[tuple[Callable[[Any, Any], WantedLink], Relationship]] = [
    (Entity.relates_to, Relationship.RELATES_TO),
    (Entity.causes, Relationship.CAUSES),
    (Entity.blocks, Relationship.BLOCKS),
    (Entity.duplicates, Relationship.DUPLICATES),
    (Entity.parent_of, Relationship.PARENT_OF),
    (Entity.successor_of, Relationship.SUCCESSOR_OF),
    (Entity.escalates_to, Relationship.ESCALATES_TO),
]


class TestConstructors:
    @pytest.mark.parametrize(("make", "entity_type"), CONSTRUCTORS)
    def test_each_makes_its_type(self, make: Callable[[str | UUID], Entity], entity_type: EntityType) -> None:
        """``case``, ``incident``, ``page`` and ``agent_conversation`` give an entity of their type."""
        assert make(A) == Entity(A, entity_type)

    def test_there_is_one_for_every_type(self) -> None:
        """No entity type is without a function that makes it."""
        assert {entity_type for _, entity_type in CONSTRUCTORS} == set(EntityType)

    @given(st.uuids())
    def test_every_way_to_write_a_uuid_is_the_same_entity(self, id: UUID) -> None:
        """A ``uuid.UUID``, lower case and upper case give one and the same entity."""
        assert case(id) == case(str(id)) == case(str(id).upper())
        assert case(str(id).upper()).id == str(id)
        assert len({case(id), case(str(id)), case(str(id).upper())}) == 1

    @pytest.mark.parametrize("make", [make for make, _ in CONSTRUCTORS])
    @pytest.mark.parametrize(
        "id",
        [
            "x",
            A[:-1],
            f"{A}0",
            f"{A}\n",
            f" {A}",
            A.replace("-", ""),
            f"{{{A}}}",
            f"urn:uuid:{A}",
            A.replace("4", "g"),
            A.replace("4", "٤"),
        ],
    )
    def test_what_is_no_uuid_is_refused(self, make: Callable[[str | UUID], Entity], id: str) -> None:
        """Only the form that the API documents passes for a UUID, 32 hexadecimal digits and 4 hyphens."""
        with pytest.raises(InvalidLinkError, match="must be a UUID, not"):
            make(id)

    @pytest.mark.parametrize("id", ["", None, 7, b"4417921d-0866-4a38-822c-6f2a0f65f77d", [A], b"x" * 999])
    def test_what_is_no_id_at_all_is_refused(self, id: object) -> None:
        """An id that is empty, or neither a string nor a UUID, is shown by the message, or its beginning."""
        with pytest.raises(
            InvalidLinkError, match=r"an id must be a non-empty string or a uuid\.UUID"
        ) as caught:
            case(cast("Any", id))
        assert str(caught.value).endswith(f"not {quoted(id)}")

    @pytest.mark.parametrize("key", ["DDFC-98813", "ddfc-98813", "A_1-2"])
    def test_a_case_key_is_a_reference_to_the_case(self, key: str) -> None:
        """``case`` returns a key for a key: the UUID is looked up when it is needed."""
        assert datadog_caselinks.case(key) == CaseKey(key.upper())

    def test_a_case_key_is_not_the_id_of_an_entity(self) -> None:
        """An entity has a UUID: the message says what to write for a key."""
        with pytest.raises(InvalidLinkError) as caught:
            Entity("DDFC-98813", EntityType.CASE).require_known()
        assert str(caught.value) == (
            "the id of this case must be a UUID, not the case key 'DDFC-98813': write case('DDFC-98813')"
        )

    def test_a_number_in_place_of_the_uuid_of_an_incident(self) -> None:
        """An entity has a UUID: the message says what to write for a number."""
        with pytest.raises(InvalidLinkError) as caught:
            Entity("IR-42", EntityType.INCIDENT).require_known()
        assert str(caught.value) == (
            "the id of this incident must be a UUID, not the number 'IR-42': write incident('IR-42')"
        )
        with pytest.raises(InvalidLinkError, match=r"^the parent must be an Entity, not the incident number"):
            NewCaseLink(IncidentNumber("42"), "BLOCKS", case(A))  # type: ignore[arg-type]

    @pytest.mark.parametrize(("given", "number"), [(42, "42"), ("42", "42"), ("ir-42", "IR-42")])
    def test_an_incident_by_its_number(self, given: str | int, number: str) -> None:
        """The number of an incident gives a reference that the client looks up, in either letter case."""
        named = datadog_caselinks.incident(given)
        assert named == IncidentNumber(number)
        assert str(named.causes(case(A))) == f"incident:{number} CAUSES {A}"
        assert str(case(A).causes(named)) == f"{A} CAUSES incident:{number}"
        with pytest.raises(InvalidLinkError, match=r"^neither end of .* is a case: at least one must be$"):
            named.causes(page(A))

    @pytest.mark.parametrize("make", [page, agent_conversation])
    def test_only_a_case_is_looked_for_among_the_cases(self, make: Callable[[str | UUID], Entity]) -> None:
        """``get_case`` does not find an incident by its id ``IR-42``, and is not said to."""
        with pytest.raises(
            InvalidLinkError, match=r"^the id of this .* must be a UUID, not 'IR-42'$"
        ) as caught:
            make("IR-42")
        assert "get_case" not in str(caught.value)

    def test_a_url_is_called_a_url(self) -> None:
        """An address from the browser is the likeliest mistake, and the message says so."""
        with pytest.raises(
            InvalidLinkError, match=r"^the id of this case must be a UUID, not the URL 'https"
        ):
            case(f"https://app.datadoghq.com/cases/{A}")

    def test_the_message_names_the_kind_of_entity(self) -> None:
        """The message says whose id is wrong, in words."""
        with pytest.raises(InvalidLinkError, match=r"^the id of this agent conversation must be"):
            agent_conversation("x")

    @given(st.text(min_size=1))
    def test_a_message_is_short_and_on_one_line(self, id: str) -> None:
        """Whatever was given for an id, the message fits a terminal: bounded, and nothing unprintable."""
        try:
            case(id * 30)
        except InvalidLinkError as error:
            assert str(error).isprintable()  # noqa: PT017 - some texts are ids
            assert len(str(error)) < 1500  # noqa: PT017

    def test_a_long_id_is_cut(self) -> None:
        """A message shows only the beginning of a long id, with an ellipsis."""
        with pytest.raises(InvalidLinkError, match=f"a UUID, not '{'x' * (MAX_QUOTED - 1)}…$"):
            case("x" * MAX_QUOTED)
        with pytest.raises(InvalidLinkError, match=f"a UUID, not '{'x' * (MAX_QUOTED - 2)}'$"):
            case("x" * (MAX_QUOTED - 2))

    def test_a_refusal_is_a_value_error(self) -> None:
        """Code that knows nothing of this package catches ``ValueError``."""
        with pytest.raises(ValueError, match="must be a UUID, not"):
            case("x")


class TestEntity:
    @pytest.mark.parametrize(("verb", "relationship"), VERBS)
    def test_each_verb_makes_its_link(
        self, verb: Callable[[Entity, Entity], WantedLink], relationship: Relationship
    ) -> None:
        """The entity whose method is called is the parent, the argument the child."""
        assert verb(case(A), incident(B)) == NewCaseLink(case(A), relationship, incident(B))

    def test_there_is_a_verb_for_every_relationship(self) -> None:
        """No relationship is without a method, and the method has its name."""
        assert {relationship for _, relationship in VERBS} == set(Relationship)
        assert all(verb.__name__ == relationship.lower() for verb, relationship in VERBS)

    @given(entity_types)
    def test_a_known_type_becomes_its_member(self, entity_type: EntityType) -> None:
        """The plain string of a known type and its enum member are the same thing."""
        entity = Entity(A, entity_type.value)
        assert entity.type is entity_type
        assert entity == Entity(A, entity_type)

    def test_an_unknown_type_stays_a_string(self) -> None:
        """The API may add members: what an answer holds is kept, and only refused when it is to be sent."""
        entity = Entity("any id", "WIDGET")
        assert (entity.id, entity.type, type(entity.type)) == ("any id", "WIDGET", str)
        with pytest.raises(InvalidLinkError, match="unknown entity type 'WIDGET'"):
            entity.require_known()

    def test_only_uuids_change_their_letter_case(self) -> None:
        """An id that is no UUID is kept to the letter."""
        assert Entity("AbC", "WIDGET").id == "AbC"

    def test_it_reads_as_type_and_id(self) -> None:
        """``str`` is for messages: the type, then the id."""
        assert str(incident(A)) == f"INCIDENT {A}"
        assert str(Entity("x", "WIDGET")) == "WIDGET x"


class TestNewCaseLink:
    def test_it_holds_its_parts(self) -> None:
        """Parent, relationship and child are what was given, a relationship's name made its member."""
        new = NewCaseLink(case(A), "BLOCKS", page(B))
        assert (new.parent, new.relationship, new.child) == (case(A), Relationship.BLOCKS, page(B))
        assert new.relationship is Relationship.BLOCKS

    def test_it_reads_from_parent_to_child(self) -> None:
        """``str`` is for messages and reads as a sentence."""
        assert str(case(A).blocks(page(B))) == f"CASE {A} BLOCKS PAGE {B}"

    @pytest.mark.parametrize("relationship", ["", "blocks", "BLOCKS ", "LIKES", None, 3, ["BLOCKS"]])
    def test_an_unknown_relationship_is_refused_with_the_known_ones(self, relationship: object) -> None:
        """The message shows what was given and lists all that would do."""
        with pytest.raises(InvalidLinkError) as caught:
            NewCaseLink(case(A), cast("Any", relationship), case(B))
        assert str(caught.value) == (
            f"unknown relationship {relationship!r}; use one of RELATES_TO, CAUSES, BLOCKS, DUPLICATES, "
            "PARENT_OF, SUCCESSOR_OF, ESCALATES_TO"
        )

    @pytest.mark.parametrize("entity_type", ["", "case", "WIDGET", None, ["CASE"]])
    @pytest.mark.parametrize("is_parent", [True, False])
    def test_an_unknown_type_is_refused_with_the_known_ones(
        self, entity_type: object, is_parent: bool
    ) -> None:
        """On either side: the message shows what was given and lists all that would do."""
        odd = Entity(A, cast("Any", entity_type))
        with pytest.raises(InvalidLinkError) as caught:
            odd.blocks(case(B)) if is_parent else case(B).blocks(odd)
        assert str(caught.value) == (
            f"unknown entity type {entity_type!r}; use one of CASE, INCIDENT, PAGE, AGENT_CONVERSATION"
        )

    @pytest.mark.parametrize("is_parent", [True, False])
    def test_an_id_that_is_no_uuid_is_refused_on_either_side(self, is_parent: bool) -> None:
        """Entities read from an answer may have any id; a link to be created may not."""
        odd = Entity("x", EntityType.CASE)
        with pytest.raises(InvalidLinkError, match="must be a UUID, not 'x'"):
            odd.blocks(case(B)) if is_parent else case(B).blocks(odd)

    @given(relationships, entity_types, entity_types)
    def test_at_least_one_side_is_a_case(
        self, relationship: Relationship, parent: EntityType, child: EntityType
    ) -> None:
        """Exactly the pairs without a case are refused, whatever the relationship."""
        if EntityType.CASE in (parent, child):
            assert NewCaseLink(Entity(A, parent), relationship, Entity(B, child)).parent.type is parent
        else:
            with pytest.raises(InvalidLinkError, match=f"neither end of {parent} {A} .* is a case"):
                NewCaseLink(Entity(A, parent), relationship, Entity(B, child))

    @pytest.mark.parametrize("same", [A, A.upper(), UUID(A)])
    def test_an_entity_is_not_linked_to_itself(self, same: str | UUID) -> None:
        """However its id is written."""
        with pytest.raises(InvalidLinkError, match=f"CASE {A} cannot be linked to itself"):
            case(A).relates_to(case(same))

    def test_one_id_of_two_types_is_two_entities(self) -> None:
        """Ids are compared along with their types."""
        assert case(A).blocks(incident(A)).child == incident(A)

    @pytest.mark.parametrize("is_parent", [True, False])
    @pytest.mark.parametrize("odd", [B, UUID(B), None])
    def test_what_is_no_entity_is_refused_by_name(self, odd: object, is_parent: bool) -> None:
        """``case(a).blocks(b_id)`` is told what is missing, and does not fail on some inner attribute."""
        parent, child = (odd, case(A)) if is_parent else (case(A), odd)
        side = "parent" if is_parent else "child"
        with pytest.raises(InvalidLinkError, match=f"^the {side} must be an Entity") as caught:
            NewCaseLink(cast("Any", parent), Relationship.BLOCKS, cast("Any", child))
        assert repr(odd) in str(caught.value)

    def test_a_long_relationship_or_type_is_cut(self) -> None:
        """A message stays readable, whatever a file had in that column."""
        with pytest.raises(InvalidLinkError) as relationship:
            NewCaseLink(case(A), "x" * 10_000, case(B))
        with pytest.raises(InvalidLinkError) as entity_type:
            NewCaseLink(case(A), "BLOCKS", Entity(B, "x" * 10_000))
        assert max(len(str(relationship.value)), len(str(entity_type.value))) < 500


class TestCaseLink:
    def test_an_unknown_relationship_stays_a_string(self) -> None:
        """The API may add members: what an answer holds is kept as it is."""
        link = CaseLink("1", case(A), "LIKES", case(B))
        assert (link.relationship, type(link.relationship)) == ("LIKES", str)

    @given(relationships)
    def test_a_known_relationship_becomes_its_member(self, relationship: Relationship) -> None:
        """The plain string of a known relationship and its enum member are the same thing."""
        assert CaseLink("1", case(A), relationship.value, case(B)).relationship is relationship

    def test_it_reads_from_parent_to_child(self) -> None:
        """``str`` is for people, who know entities and not the ids of links."""
        assert str(CaseLink("1", case(A), "LIKES", incident(B))) == f"CASE {A} LIKES INCIDENT {B}"


class TestCase:
    def test_it_is_the_end_of_a_link(self) -> None:
        """What was found by its key is linked by its UUID, however the server wrote that."""
        assert Case(A.upper(), "SHOP-1", "Checkout hangs", "OPEN", "P1").entity == case(A)

    def test_it_reads_as_key_and_title(self) -> None:
        """``str`` is for people, who know cases by these; what is missing leaves no gap."""
        assert str(Case(A, "SHOP-1", "Checkout hangs", "OPEN", "P1")) == "SHOP-1 Checkout hangs"
        assert str(Case(A, "SHOP-1", "", "OPEN", "P1")) == "SHOP-1"
        assert str(Case(A, "", "Checkout hangs", "", "")) == f"{A} Checkout hangs"

    @pytest.mark.parametrize(
        ("status", "group", "stage"),
        [
            ("OPEN", "SG_OPEN", "OPEN"),
            ("OPEN", "SG_IN_PROGRESS", "IN_PROGRESS"),
            ("CLOSED", "SG_OPEN", "OPEN"),
            ("SUNKNOWN", "SG_CLOSED", "CLOSED"),
            ("CLOSED", "SG_OF_LATER", ""),
            ("IN_PROGRESS", "", "IN_PROGRESS"),
            ("TRIGGERED", "", "OPEN"),
            ("RESOLVED", "", "CLOSED"),
            ("APPROVED", "", ""),
            ("", "", ""),
        ],
    )
    def test_its_stage_follows_from_the_group(self, status: str, group: str, stage: str) -> None:
        """The group of the status says whether a case is closed, and the status only where there is none."""
        found = Case(A, "SHOP-1", "", status, "P1", "Shipped", group)
        assert (found.stage, found.is_closed) == (stage, stage == "CLOSED")


def turned(link: CaseLink) -> CaseLink:
    """``link`` with its ends exchanged."""
    return CaseLink(link.id, link.child, link.relationship, link.parent)


class TestLinkReference:
    @pytest.mark.parametrize(("verb", "relationship"), VERBS)
    def test_a_link_with_a_key_is_a_link_reference(
        self, verb: Callable[[Reference, Reference], WantedLink], relationship: Relationship
    ) -> None:
        """Each method of an entity and of a key returns a link whose keys are still to be looked up."""
        key, other = CaseKey("SHOP-1"), CaseKey("SHOP-2")
        for parent, child in ((key, other), (key, incident(A)), (incident(A), key), (case(A), key)):
            assert verb(parent, child) == LinkReference(parent, relationship, child)

    def test_a_case_is_not_linked_to_itself(self) -> None:
        """A link from a key to the same key, in any spelling, is refused at once."""
        with pytest.raises(InvalidLinkError, match=r"^SHOP-1 cannot be linked to itself$"):
            CaseKey("SHOP-1").blocks(CaseKey("shop-1"))

    @pytest.mark.parametrize("end", ["SHOP-2", None, 5])
    def test_an_end_is_an_entity_or_a_key(self, end: Any) -> None:
        """A text is not an end: the message says which end, and what to write."""
        for parent in (CaseKey("SHOP-1"), case(A)):
            with pytest.raises(InvalidLinkError) as caught:
                parent.blocks(end)
            assert str(caught.value) == (
                f"the child must be an entity or a key such as case(…), not {quoted(end)}"
            )

    def test_an_entity_at_an_end_is_checked(self) -> None:
        """An entity of an unknown type cannot be linked to a key either."""
        with pytest.raises(InvalidLinkError, match="unknown entity type 'WIDGET'"):
            CaseKey("SHOP-1").blocks(Entity(A, "WIDGET"))

    def test_a_new_case_link_has_no_keys(self) -> None:
        """A ``NewCaseLink`` is between entities: the message says how to link by keys."""
        with pytest.raises(InvalidLinkError) as caught:
            NewCaseLink(CaseKey("SHOP-1"), Relationship.BLOCKS, case(A))  # type: ignore[arg-type]
        assert str(caught.value) == (
            "the parent must be an Entity, not the case key 'SHOP-1': write case('SHOP-1').blocks(…)"
        )


class TestIdentity:
    @given(entities, entities)
    def test_relates_to_is_the_same_either_way_round(self, one: Entity, other: Entity) -> None:
        """It has no direction, so the server's link is found whichever end it calls the parent."""
        link = CaseLink("1", one, Relationship.RELATES_TO, other)
        assert identity(link) == identity(turned(link))

    @given(links)
    def test_every_other_relationship_has_a_direction(self, link: CaseLink) -> None:
        """What blocks is not blocked; nor is a relationship that this version does not know taken for one."""
        is_symmetric = link.relationship is Relationship.RELATES_TO or link.parent == link.child
        assert (identity(link) == identity(turned(link))) is is_symmetric

    @pytest.mark.parametrize(
        "relationship", [*sorted(set(Relationship) - {Relationship.RELATES_TO}), "LIKES"]
    )
    def test_ends_that_are_exchanged_make_another_link(self, relationship: Relationship | str) -> None:
        """For each relationship by its name, and for one of a later API."""
        link = CaseLink("1", case(A), relationship, case(B))
        assert identity(link) != identity(turned(link))

    @given(new_links(), st.text(min_size=1), st.booleans())
    def test_what_was_asked_for_is_what_was_made(self, new: NewCaseLink, id: str, is_turned: bool) -> None:
        """A link to be created and the link that came of it agree, whatever the server called the latter."""
        made = CaseLink(id, new.parent, str(new.relationship), new.child)
        is_same = not is_turned or new.relationship is Relationship.RELATES_TO
        assert (identity(turned(made) if is_turned else made) == identity(new)) is is_same

    @given(new_links(), st.booleans(), st.booleans())
    def test_the_letter_case_of_an_id_does_not_count(
        self, new: NewCaseLink, is_parent_upper: bool, is_child_upper: bool
    ) -> None:
        """A UUID is the same UUID in upper case, also where it decides which end comes first."""
        parent_id = new.parent.id.upper() if is_parent_upper else new.parent.id
        child_id = new.child.id.upper() if is_child_upper else new.child.id
        written = CaseLink(
            "1", Entity(parent_id, new.parent.type), new.relationship, Entity(child_id, new.child.type)
        )
        assert identity(written) == identity(new)

    @pytest.mark.parametrize("relationship", Relationship)
    def test_types_count(self, relationship: Relationship) -> None:
        """A case and an incident of one id are two, on either side and whichever way round."""
        ends = [(case(A), case(B)), (incident(A), case(B)), (case(A), incident(B)), (page(A), case(B))]
        assert len({identity(NewCaseLink(parent, relationship, child)) for parent, child in ends}) == len(
            ends
        )

    def test_one_id_of_two_types_is_sorted_out_by_type(self) -> None:
        """Where the ids are equal, the ends of ``RELATES_TO`` still have one order."""
        there, back = (
            NewCaseLink(parent, Relationship.RELATES_TO, child)
            for parent, child in itertools.permutations((case(A), incident(A)))
        )
        assert identity(there) == identity(back)

    @pytest.mark.parametrize("one", Relationship)
    @pytest.mark.parametrize("other", Relationship)
    def test_relationships_count(self, one: Relationship, other: Relationship) -> None:
        """Two cases may be linked in several ways, and each is a link of its own."""
        links = NewCaseLink(case(A), one, case(B)), NewCaseLink(case(A), other, case(B))
        assert (identity(links[0]) == identity(links[1])) is (one is other)

    @given(st.lists(links, max_size=6))
    def test_it_is_a_key(self, found: list[CaseLink]) -> None:
        """Links are looked up by it, so it hashes; and their own ids take no part in it."""
        by_identity = {identity(link): link for link in found}
        for link in found:
            assert (
                identity(CaseLink(f"{link.id}0", link.parent, link.relationship, link.child)) in by_identity
            )


class TestValues:
    @given(new_links() | links | entities | st.builds(Case, *[st.text(min_size=1)] * 5))
    def test_a_value_survives_pickle_and_copy(self, value: NewCaseLink | CaseLink | Entity | Case) -> None:
        """Values go to other processes and come back equal, with every enum member itself."""
        for again in (*_pickled(value), copy.copy(value), copy.deepcopy(value)):
            assert again == value
            assert hash(again) == hash(value)
            assert repr(again) == repr(value)

    @given(new_links())
    def test_equal_parts_make_equal_links(self, new: NewCaseLink) -> None:
        """Links are values: they can be members of sets and keys of dictionaries."""
        assert {new: 1}[NewCaseLink(new.parent, str(new.relationship), new.child)] == 1

    @pytest.mark.parametrize(
        "value",
        [
            case(A),
            case(A).blocks(case(B)),
            CaseLink("1", case(A), "X", case(B)),
            Case(A, "SHOP-1", "", "OPEN", "P1"),
        ],
    )
    def test_a_value_does_not_change(self, value: Any) -> None:
        """Nobody changes a link under another task's hands, nor puts a misspelt attribute on it."""
        for name in (*(field.name for field in attrs.fields(type(value))), "misspelt"):
            with pytest.raises((attrs.exceptions.FrozenInstanceError, AttributeError)):
                setattr(value, name, "x")

    @pytest.mark.parametrize("member", [*Relationship, *EntityType])
    def test_a_member_is_its_string(self, member: Relationship | EntityType) -> None:
        """Enum members compare, format and hash as the strings that the API uses."""
        assert member == member.name == f"{member}" == str(member)
        assert member in {member.name}


def _pickled(value: object) -> list[object]:
    return [pickle.loads(pickle.dumps(value, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
