"""The rules of the models: what they contain, what they refuse, and what their messages say."""

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
from datadog_caselinks.values.messages import MAX_QUOTED, quoted
from datadog_caselinks.values.models import identity
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
        """``case``, ``incident``, ``page`` and ``agent_conversation`` return an entity of their type."""
        assert make(A) == Entity(A, entity_type)

    def test_there_is_one_for_every_type(self) -> None:
        """Each entity type has a function that creates its entities."""
        assert {entity_type for _, entity_type in CONSTRUCTORS} == set(EntityType)

    @given(st.uuids())
    def test_every_way_to_write_a_uuid_is_the_same_entity(self, id: UUID) -> None:
        """A ``uuid.UUID``, lower case and upper case create equal entities."""
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
        """Only the documented form of a UUID is accepted: 32 hexadecimal digits and 4 hyphens."""
        with pytest.raises(InvalidLinkError, match="must be a UUID, not"):
            make(id)

    @pytest.mark.parametrize("id", ["", None, 7, b"4417921d-0866-4a38-822c-6f2a0f65f77d", [A], b"x" * 999])
    def test_what_is_no_id_at_all_is_refused(self, id: object) -> None:
        """The message for an empty id or another type quotes the value, shortened if it is long."""
        with pytest.raises(
            InvalidLinkError, match=r"an id must be a non-empty string or a uuid\.UUID"
        ) as caught:
            case(cast("Any", id))
        assert str(caught.value).endswith(f"not {quoted(id)}")

    @pytest.mark.parametrize("key", ["DDFC-98813", "ddfc-98813", "A_1-2"])
    def test_a_case_key_is_a_reference_to_the_case(self, key: str) -> None:
        """``case`` returns a key for a key: the UUID is looked up later."""
        assert datadog_caselinks.case(key) == CaseKey(key.upper())

    @pytest.mark.parametrize("odd", [None, 7, ["SHOP-1"]])
    def test_a_key_or_number_is_a_string(self, odd: Any) -> None:
        """The message for a key or number of another type shows the right form, and quotes the value."""
        for make, message in (
            (CaseKey, "a case key must be a string such as SHOP-1"),
            (IncidentNumber, "the number of an incident must be a string such as 123 or IR-123"),
        ):
            with pytest.raises(InvalidLinkError) as caught:
                make(odd)
            assert str(caught.value) == f"{message}, not {odd!r}"

    def test_a_case_key_is_not_the_id_of_an_entity(self) -> None:
        """The message for a key in place of a UUID says what to write for a key."""
        with pytest.raises(InvalidLinkError) as caught:
            Entity("DDFC-98813", EntityType.CASE).require_known()
        assert str(caught.value) == (
            "the id of this case must be a UUID, not the case key 'DDFC-98813': write case('DDFC-98813')"
        )

    def test_a_number_in_place_of_the_uuid_of_an_incident(self) -> None:
        """The message for a number in place of a UUID says what to write for a number."""
        with pytest.raises(InvalidLinkError) as caught:
            Entity("IR-42", EntityType.INCIDENT).require_known()
        assert str(caught.value) == (
            "the id of this incident must be a UUID, not the number 'IR-42': write incident('IR-42')"
        )
        with pytest.raises(InvalidLinkError) as caught:
            NewCaseLink(IncidentNumber("42"), "BLOCKS", case(A))  # type: ignore[arg-type]
        assert str(caught.value) == (
            "the parent must be an Entity, not the incident number '42': write incident('42').blocks(…)"
        )

    @pytest.mark.parametrize(("given", "number"), [(42, "42"), ("42", "42"), ("ir-42", "IR-42")])
    def test_an_incident_by_its_number(self, given: str | int, number: str) -> None:
        """``incident`` returns a reference for a number, in either letter case, to be looked up later."""
        named = datadog_caselinks.incident(given)
        assert named == IncidentNumber(number)
        assert str(named.causes(case(A))) == f"incident:{number} CAUSES {A}"
        assert str(case(A).causes(named)) == f"{A} CAUSES incident:{number}"
        with pytest.raises(InvalidLinkError, match=r"^neither end of .* is a case: at least one must be$"):
            named.causes(page(A))

    @pytest.mark.parametrize("make", [page, agent_conversation])
    def test_only_a_case_is_looked_for_among_the_cases(self, make: Callable[[str | UUID], Entity]) -> None:
        """The message for a page or conversation does not advise ``get_case``, which finds only cases."""
        with pytest.raises(
            InvalidLinkError, match=r"^the id of this .* must be a UUID, not 'IR-42'$"
        ) as caught:
            make("IR-42")
        assert "get_case" not in str(caught.value)

    @pytest.mark.parametrize(
        ("make", "hint"),
        [
            (case, "; to name a case by its key, write case('SHOP-1')"),
            (incident, "; to name an incident by its number, write incident('IR-123') or incident(123)"),
        ],
    )
    @pytest.mark.parametrize("id", ["SHOP", "#101", "SHOP_1", " SHOP-1 "])
    def test_a_malformed_key_or_number(
        self, make: Callable[[str | UUID], Entity], hint: str, id: str
    ) -> None:
        """The message for a malformed key or number does not ask for a UUID only: it shows the right form."""
        with pytest.raises(InvalidLinkError) as caught:
            make(id)
        assert str(caught.value).endswith(f" must be a UUID, not {id!r}{hint}")

    def test_a_url_is_called_a_url(self) -> None:
        """The message for a URL in place of a UUID calls it a URL."""
        with pytest.raises(
            InvalidLinkError, match=r"^the id of this case must be a UUID, not the URL 'https"
        ):
            case(f"https://app.datadoghq.com/cases/{A}")

    def test_the_message_names_the_kind_of_entity(self) -> None:
        """The message for a malformed id names the kind of entity in words."""
        with pytest.raises(InvalidLinkError, match=r"^the id of this agent conversation must be"):
            agent_conversation("x")

    @given(st.text(min_size=1))
    def test_a_message_is_short_and_on_one_line(self, id: str) -> None:
        """The message for any malformed id is short and printable."""
        try:
            case(id * 30)
        except InvalidLinkError as error:
            assert str(error).isprintable()  # noqa: PT017 - some texts are ids
            assert len(str(error)) < 1500  # noqa: PT017

    def test_a_long_id_is_cut(self) -> None:
        """The message shortens a long id with an ellipsis."""
        with pytest.raises(InvalidLinkError, match=f"a UUID, not '{'x' * (MAX_QUOTED - 1)}…;"):
            case("x" * MAX_QUOTED)
        with pytest.raises(InvalidLinkError, match=f"a UUID, not '{'x' * (MAX_QUOTED - 2)}';"):
            case("x" * (MAX_QUOTED - 2))

    def test_a_refusal_is_a_value_error(self) -> None:
        """A malformed id raises a ``ValueError``, for code that does not know this package."""
        with pytest.raises(ValueError, match="must be a UUID, not"):
            case("x")


class TestEntity:
    @pytest.mark.parametrize(("verb", "relationship"), VERBS)
    def test_each_verb_makes_its_link(
        self, verb: Callable[[Entity, Entity], WantedLink], relationship: Relationship
    ) -> None:
        """An entity whose method is called is the parent, and the argument is the child."""
        assert verb(case(A), incident(B)) == NewCaseLink(case(A), relationship, incident(B))

    def test_there_is_a_verb_for_every_relationship(self) -> None:
        """Each relationship has a method with its name."""
        assert {relationship for _, relationship in VERBS} == set(Relationship)
        assert all(verb.__name__ == relationship.lower() for verb, relationship in VERBS)

    @given(entity_types)
    def test_a_known_type_becomes_its_member(self, entity_type: EntityType) -> None:
        """An entity type as a plain string becomes its enum member."""
        entity = Entity(A, entity_type.value)
        assert entity.type is entity_type
        assert entity == Entity(A, entity_type)

    def test_an_unknown_type_stays_a_string(self) -> None:
        """An unknown entity type is kept as a string, and refused only when it is to be sent."""
        entity = Entity("any id", "WIDGET")
        assert (entity.id, entity.type, type(entity.type)) == ("any id", "WIDGET", str)
        with pytest.raises(InvalidLinkError, match="unknown entity type 'WIDGET'"):
            entity.require_known()

    def test_only_uuids_change_their_letter_case(self) -> None:
        """An id that is not a UUID keeps its letter case."""
        assert Entity("AbC", "WIDGET").id == "AbC"

    def test_it_reads_as_type_and_id(self) -> None:
        """The ``str`` of an entity is its type and its id."""
        assert str(incident(A)) == f"INCIDENT {A}"
        assert str(Entity("x", "WIDGET")) == "WIDGET x"


class TestNewCaseLink:
    def test_it_holds_its_parts(self) -> None:
        """A new link has the given parent and child, and the relationship as an enum member."""
        new = NewCaseLink(case(A), "BLOCKS", page(B))
        assert (new.parent, new.relationship, new.child) == (case(A), Relationship.BLOCKS, page(B))
        assert new.relationship is Relationship.BLOCKS

    def test_it_reads_from_parent_to_child(self) -> None:
        """The ``str`` of a new link reads as a sentence from parent to child."""
        assert str(case(A).blocks(page(B))) == f"CASE {A} BLOCKS PAGE {B}"

    def test_it_becomes_the_link_that_exists(self) -> None:
        """The link that a create or a lookup returns has the parts of the new link, and its own id."""
        assert case(A).blocks(page(B)).existing("1") == CaseLink("1", case(A), "BLOCKS", page(B))

    @pytest.mark.parametrize("relationship", ["", "blocks", "BLOCKS ", "LIKES", None, 3, ["BLOCKS"]])
    def test_an_unknown_relationship_is_refused_with_the_known_ones(self, relationship: object) -> None:
        """An unknown relationship is refused; the message quotes it and lists the known ones."""
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
        """An unknown entity type is refused on either side; the message lists the known ones."""
        odd = Entity(A, cast("Any", entity_type))
        with pytest.raises(InvalidLinkError) as caught:
            odd.blocks(case(B)) if is_parent else case(B).blocks(odd)
        assert str(caught.value) == (
            f"unknown entity type {entity_type!r}; use one of CASE, INCIDENT, PAGE, AGENT_CONVERSATION"
        )

    @pytest.mark.parametrize("is_parent", [True, False])
    def test_an_id_that_is_no_uuid_is_refused_on_either_side(self, is_parent: bool) -> None:
        """An id that is not a UUID is refused in a link to create, on either side."""
        odd = Entity("x", EntityType.CASE)
        with pytest.raises(InvalidLinkError, match="must be a UUID, not 'x'"):
            odd.blocks(case(B)) if is_parent else case(B).blocks(odd)

    @given(relationships, entity_types, entity_types)
    def test_at_least_one_side_is_a_case(
        self, relationship: Relationship, parent: EntityType, child: EntityType
    ) -> None:
        """A link without a case at either end is refused, for any relationship."""
        if EntityType.CASE in (parent, child):
            assert NewCaseLink(Entity(A, parent), relationship, Entity(B, child)).parent.type is parent
        else:
            with pytest.raises(InvalidLinkError, match=f"neither end of {parent} {A} .* is a case"):
                NewCaseLink(Entity(A, parent), relationship, Entity(B, child))

    @pytest.mark.parametrize("same", [A, A.upper(), UUID(A)])
    def test_an_entity_is_not_linked_to_itself(self, same: str | UUID) -> None:
        """A link of an entity to itself is refused, in any notation of its id."""
        with pytest.raises(InvalidLinkError, match=f"CASE {A} cannot be linked to itself"):
            case(A).relates_to(case(same))

    def test_one_id_of_two_types_is_two_entities(self) -> None:
        """Entities with the same id and different types are different."""
        assert case(A).blocks(incident(A)).child == incident(A)

    @pytest.mark.parametrize("is_parent", [True, False])
    @pytest.mark.parametrize("odd", [B, UUID(B), None])
    def test_what_is_no_entity_is_refused_by_name(self, odd: object, is_parent: bool) -> None:
        """The message for an end that is not an entity names the side and quotes the value."""
        parent, child = (odd, case(A)) if is_parent else (case(A), odd)
        side = "parent" if is_parent else "child"
        with pytest.raises(InvalidLinkError, match=f"^the {side} must be an Entity") as caught:
            NewCaseLink(cast("Any", parent), Relationship.BLOCKS, cast("Any", child))
        assert repr(odd) in str(caught.value)

    def test_a_long_relationship_or_type_is_cut(self) -> None:
        """The message shortens a long relationship or type."""
        with pytest.raises(InvalidLinkError) as relationship:
            NewCaseLink(case(A), "x" * 10_000, case(B))
        with pytest.raises(InvalidLinkError) as entity_type:
            NewCaseLink(case(A), "BLOCKS", Entity(B, "x" * 10_000))
        assert max(len(str(relationship.value)), len(str(entity_type.value))) < 500


class TestCaseLink:
    def test_an_unknown_relationship_stays_a_string(self) -> None:
        """An unknown relationship in a response is kept as a string."""
        link = CaseLink("1", case(A), "LIKES", case(B))
        assert (link.relationship, type(link.relationship)) == ("LIKES", str)

    @given(relationships)
    def test_a_known_relationship_becomes_its_member(self, relationship: Relationship) -> None:
        """A relationship as a plain string becomes its enum member."""
        assert CaseLink("1", case(A), relationship.value, case(B)).relationship is relationship

    def test_it_reads_from_parent_to_child(self) -> None:
        """The ``str`` of a link has its entities and not its id."""
        assert str(CaseLink("1", case(A), "LIKES", incident(B))) == f"CASE {A} LIKES INCIDENT {B}"


class TestCase:
    def test_it_is_the_end_of_a_link(self) -> None:
        """The entity of a case has its UUID in lower case."""
        assert Case(A.upper(), "SHOP-1", "Checkout hangs", "OPEN", "P1").entity == case(A)

    def test_it_reads_as_key_and_title(self) -> None:
        """The ``str`` of a case is its key and title, without gaps for missing ones."""
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
        """The group of the status decides whether a case is closed; without a group, the status does."""
        found = Case(A, "SHOP-1", "", status, "P1", "Shipped", group)
        assert (found.stage, found.is_closed) == (stage, stage == "CLOSED")


def turned(link: CaseLink) -> CaseLink:
    """Return ``link`` with its ends exchanged."""
    return CaseLink(link.id, link.child, link.relationship, link.parent)


class TestLinkReference:
    @pytest.mark.parametrize(("verb", "relationship"), VERBS)
    def test_a_link_with_a_key_is_a_link_reference(
        self, verb: Callable[[Reference, Reference], WantedLink], relationship: Relationship
    ) -> None:
        """Each method of an entity or a key returns a link whose keys are looked up later."""
        key, other = CaseKey("SHOP-1"), CaseKey("SHOP-2")
        for parent, child in ((key, other), (key, incident(A)), (incident(A), key), (case(A), key)):
            assert verb(parent, child) == LinkReference(parent, relationship, child)

    def test_it_reads_from_parent_to_child(self) -> None:
        """The ``str`` of a link has its ends as a file of links has them, and an unknown type unchanged."""
        for end, text in (
            (case(A), A),
            (page(A), f"page:{A}"),
            (agent_conversation(A), f"conversation:{A}"),
            (IncidentNumber("7"), "incident:7"),
            (Entity("x", "WIDGET"), "WIDGET:x"),
        ):
            link = LinkReference(CaseKey("SHOP-1"), Relationship.BLOCKS, end)
            assert str(link) == f"SHOP-1 BLOCKS {text}"

    def test_a_case_is_not_linked_to_itself(self) -> None:
        """A link from a key to the same key, in any spelling, is refused at once."""
        with pytest.raises(InvalidLinkError, match=r"^SHOP-1 cannot be linked to itself$"):
            CaseKey("SHOP-1").blocks(CaseKey("shop-1"))

    @pytest.mark.parametrize("end", ["SHOP-2", None, 5])
    def test_an_end_is_an_entity_or_a_key(self, end: Any) -> None:
        """An end that is a text is refused; the message says which end, and what to write."""
        for parent in (CaseKey("SHOP-1"), case(A)):
            with pytest.raises(InvalidLinkError) as caught:
                parent.blocks(end)
            assert str(caught.value) == (
                f"the child must be an entity or a key such as case(…), not {quoted(end)}"
            )
        with pytest.raises(InvalidLinkError, match=r"^the parent must be an entity or a key such as case"):
            CaseKey.blocks(end, CaseKey("SHOP-1"))

    def test_an_entity_at_an_end_is_checked(self) -> None:
        """An entity of an unknown type is refused in a link to a key too."""
        with pytest.raises(InvalidLinkError, match="unknown entity type 'WIDGET'"):
            CaseKey("SHOP-1").blocks(Entity(A, "WIDGET"))

    def test_a_new_case_link_has_no_keys(self) -> None:
        """A ``NewCaseLink`` accepts no keys; its message says how to link by keys."""
        with pytest.raises(InvalidLinkError) as caught:
            NewCaseLink(CaseKey("SHOP-1"), Relationship.BLOCKS, case(A))  # type: ignore[arg-type]
        assert str(caught.value) == (
            "the parent must be an Entity, not the case key 'SHOP-1': write case('SHOP-1').blocks(…)"
        )


class TestIdentity:
    @given(entities, entities)
    def test_relates_to_is_the_same_either_way_round(self, one: Entity, other: Entity) -> None:
        """``RELATES_TO`` has no direction, so a link and its reverse have the same identity."""
        link = CaseLink("1", one, Relationship.RELATES_TO, other)
        assert identity(link) == identity(turned(link))

    @given(links)
    def test_every_other_relationship_has_a_direction(self, link: CaseLink) -> None:
        """Every other relationship has a direction, also one that this version does not know."""
        is_symmetric = link.relationship is Relationship.RELATES_TO or link.parent == link.child
        assert (identity(link) == identity(turned(link))) is is_symmetric

    @pytest.mark.parametrize(
        "relationship", [*sorted(set(Relationship) - {Relationship.RELATES_TO}), "LIKES"]
    )
    def test_ends_that_are_exchanged_make_another_link(self, relationship: Relationship | str) -> None:
        """Exchanged ends give another identity for each relationship but ``RELATES_TO``."""
        link = CaseLink("1", case(A), relationship, case(B))
        assert identity(link) != identity(turned(link))

    @given(new_links(), st.text(min_size=1), st.booleans())
    def test_the_created_link_has_the_identity_of_the_new_one(
        self, new: NewCaseLink, id: str, is_turned: bool
    ) -> None:
        """A new link and the created link have the same identity."""
        made = CaseLink(id, new.parent, str(new.relationship), new.child)
        is_same = not is_turned or new.relationship is Relationship.RELATES_TO
        assert (identity(turned(made) if is_turned else made) == identity(new)) is is_same

    @given(new_links(), st.booleans(), st.booleans())
    def test_the_letter_case_of_an_id_does_not_count(
        self, new: NewCaseLink, is_parent_upper: bool, is_child_upper: bool
    ) -> None:
        """The letter case of an id does not change the identity of a link."""
        parent_id = new.parent.id.upper() if is_parent_upper else new.parent.id
        child_id = new.child.id.upper() if is_child_upper else new.child.id
        written = CaseLink(
            "1", Entity(parent_id, new.parent.type), new.relationship, Entity(child_id, new.child.type)
        )
        assert identity(written) == identity(new)

    @pytest.mark.parametrize("relationship", Relationship)
    def test_types_count(self, relationship: Relationship) -> None:
        """Types are part of the identity of a link."""
        ends = [(case(A), case(B)), (incident(A), case(B)), (case(A), incident(B)), (page(A), case(B))]
        assert len({identity(NewCaseLink(parent, relationship, child)) for parent, child in ends}) == len(
            ends
        )

    def test_one_id_of_two_types_is_sorted_out_by_type(self) -> None:
        """The identity of ``RELATES_TO`` does not depend on the order of two ends with the same id."""
        there, back = (
            NewCaseLink(parent, Relationship.RELATES_TO, child)
            for parent, child in itertools.permutations((case(A), incident(A)))
        )
        assert identity(there) == identity(back)

    @pytest.mark.parametrize("one", Relationship)
    @pytest.mark.parametrize("other", Relationship)
    def test_relationships_count(self, one: Relationship, other: Relationship) -> None:
        """The relationship is part of the identity of a link."""
        links = NewCaseLink(case(A), one, case(B)), NewCaseLink(case(A), other, case(B))
        assert (identity(links[0]) == identity(links[1])) is (one is other)

    @given(st.lists(links, max_size=6))
    def test_it_is_a_key(self, found: list[CaseLink]) -> None:
        """The identity of a link is hashable, and does not contain the link's id."""
        by_identity = {identity(link): link for link in found}
        for link in found:
            assert (
                identity(CaseLink(f"{link.id}0", link.parent, link.relationship, link.child)) in by_identity
            )


class TestValues:
    @given(new_links() | links | entities | st.builds(Case, *[st.text(min_size=1)] * 5))
    def test_a_value_survives_pickle_and_copy(self, value: NewCaseLink | CaseLink | Entity | Case) -> None:
        """A model survives pickling and copying, with its enum members."""
        for again in (*_pickled(value), copy.copy(value), copy.deepcopy(value)):
            assert again == value
            assert hash(again) == hash(value)
            assert repr(again) == repr(value)

    @given(new_links())
    def test_equal_parts_make_equal_links(self, new: NewCaseLink) -> None:
        """Links are values: equal links are equal members of sets and keys of dictionaries."""
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
        """A model is immutable, and accepts no misspelt attribute."""
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
