"""Entities, links and cases as immutable values, independent of JSON and HTTP."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Final, overload
from uuid import UUID

from attrs import field, frozen

from datadog_caselinks.values.base_errors import InvalidLinkError
from datadog_caselinks.values.messages import quoted

_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_CASE_KEY: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*-[0-9]+")
_INCIDENT_NUMBER: Final = re.compile(r"(?:[A-Za-z][A-Za-z0-9_]*-)?[0-9]+")
_DASH: Final = re.compile("[\u00ad\u2010-\u2015\u2043\u2212\ufe58\ufe63\uff0d]")


class EntityType(StrEnum):
    """The type of an entity at either end of a link. At least one end of every link is a case."""

    CASE = "CASE"
    INCIDENT = "INCIDENT"
    PAGE = "PAGE"
    AGENT_CONVERSATION = "AGENT_CONVERSATION"


class Relationship(StrEnum):
    """The relationship of the parent of a link to its child. Only ``RELATES_TO`` has no direction."""

    RELATES_TO = "RELATES_TO"
    CAUSES = "CAUSES"
    BLOCKS = "BLOCKS"
    DUPLICATES = "DUPLICATES"
    PARENT_OF = "PARENT_OF"
    SUCCESSOR_OF = "SUCCESSOR_OF"
    ESCALATES_TO = "ESCALATES_TO"


class LinkStatus(StrEnum):
    """The outcome of one link. Outcomes, events, journals, the fleet and JSON use the same names."""

    CREATED = "created"
    """The link was created."""

    ALREADY_LINKED = "already_linked"
    """The link existed before."""

    FAILED = "failed"
    """The link was not created."""

    AMBIGUOUS = "ambiguous"
    """The link may have been created. The client could not find out."""

    MALFORMED = "malformed"
    """A line of a file does not describe a link."""


PREFIXES: Final = {
    "case": EntityType.CASE,
    "incident": EntityType.INCIDENT,
    "page": EntityType.PAGE,
    "conversation": EntityType.AGENT_CONVERSATION,
}
"""The type that each prefix of a written reference stands for."""

# The API may add members, which stay plain strings.
_CASE: Final = EntityType.CASE
_ENTITY_TYPES: Final = {str(member): member for member in EntityType}
_RELATIONSHIPS: Final = {str(member): member for member in Relationship}


_STAGES: Final = {
    **dict.fromkeys(("SG_OPEN", "OPEN", "NOT_STARTED", "TRIGGERED"), "OPEN"),
    **dict.fromkeys(("SG_IN_PROGRESS", "IN_PROGRESS", "ACKNOWLEDGED", "IMPLEMENTING"), "IN_PROGRESS"),
    **dict.fromkeys(
        ("SG_CLOSED", "CLOSED", "RESOLVED", "COMPLETED", "CANCELLED", "DECLINED"),
        "CLOSED",
    ),
}
"""The stage that each status group means, and each status whose name leaves no doubt."""

_INCIDENT_STAGES: Final = {
    "active": "OPEN",
    "stable": "IN_PROGRESS",
    "resolved": "CLOSED",
    "completed": "CLOSED",
}


# A member is returned without a lookup, which would call the hash of StrEnum: that is slow, being written in
# Python.


def _entity_type(value: EntityType | str) -> EntityType | str:
    return (
        value if type(value) is EntityType or not isinstance(value, str) else _ENTITY_TYPES.get(value, value)
    )


def _relationship(value: Relationship | str) -> Relationship | str:
    return (
        value
        if type(value) is Relationship or not isinstance(value, str)
        else _RELATIONSHIPS.get(value, value)
    )


def require_known_entity_type(value: EntityType | str) -> EntityType:
    """Return ``value`` as a member of :class:`EntityType`.

    Raises:
        InvalidLinkError: ``value`` is unknown. The message lists the members.
    """
    known = _entity_type(value)
    if type(known) is not EntityType:
        raise InvalidLinkError(f"unknown entity type {quoted(value)}; use one of {', '.join(EntityType)}")
    return known


def require_known_relationship(value: Relationship | str) -> Relationship:
    """Return ``value`` as a member of :class:`Relationship`.

    Raises:
        InvalidLinkError: ``value`` is unknown. The message lists the members.
    """
    known = _relationship(value)
    if type(known) is not Relationship:
        raise InvalidLinkError(f"unknown relationship {quoted(value)}; use one of {', '.join(Relationship)}")
    return known


def is_uuid(text: str) -> bool:
    """Return whether ``text`` is a UUID with hyphens, in upper or lower case."""
    return _UUID.fullmatch(text) is not None


def is_case_key(text: str) -> bool:
    """Return whether ``text`` has the form of a case key, such as ``SHOP-1``."""
    return _CASE_KEY.fullmatch(text) is not None


def text_of(name: object) -> str:
    """Return a key, number or id as text. Raises :class:`InvalidLinkError` if it has none, as a huge int."""
    try:
        return str(name)
    except Exception:
        raise InvalidLinkError(f"{quoted(name)} has no text: a number may have too many digits") from None


def is_incident_number(text: str) -> bool:
    """Return whether ``text`` has the form of an incident's number, such as ``123`` or ``IR-123``."""
    return _INCIDENT_NUMBER.fullmatch(text) is not None


def dash_hint(text: str) -> str:
    """Return what to write instead of a ``text`` with dashes, if hyphens make it a UUID or key; else ``""``.

    Word processors and chats replace a hyphen by a dash, which looks the same.
    """
    if not isinstance(text, str) or not (dash := _DASH.search(text)):
        return ""
    meant = _DASH.sub("-", text.strip())
    if not (is_uuid(meant) or is_case_key(meant)):
        return ""
    return f": U+{ord(dash[0]):04X} is a dash and not a hyphen, write {meant}"


def _canonical_id(value: str | UUID) -> str:
    """Return UUIDs in lower case with hyphens, so that equal ids compare equal, and other ids unchanged."""
    if isinstance(value, UUID):
        return str(value)
    if not isinstance(value, str) or not value:
        raise InvalidLinkError(f"an id must be a non-empty string or a uuid.UUID, not {quoted(value)}")
    lower = value.lower()
    return lower if lower != value and _UUID.fullmatch(value) else value


class _Linkable:
    """The methods of entities, case keys and incident numbers that return links to create.

    ``_is_known`` notes that an entity was checked. It is not an attribute, so ``asdict`` omits it.
    """

    __slots__ = ("_is_known",)

    def relates_to(self, child: Reference) -> WantedLink:
        """Return a link to create: this entity and ``child`` are related, without a direction."""
        return link_between(self, Relationship.RELATES_TO, child)

    def causes(self, child: Reference) -> WantedLink:
        """Return a link to create: this entity causes ``child``."""
        return link_between(self, Relationship.CAUSES, child)

    def blocks(self, child: Reference) -> WantedLink:
        """Return a link to create: ``child`` cannot continue until this entity is done."""
        return link_between(self, Relationship.BLOCKS, child)

    def duplicates(self, child: Reference) -> WantedLink:
        """Return a link to create: this entity is a duplicate of ``child``."""
        return link_between(self, Relationship.DUPLICATES, child)

    def parent_of(self, child: Reference) -> WantedLink:
        """Return a link to create: ``child`` is a part of this entity."""
        return link_between(self, Relationship.PARENT_OF, child)

    def successor_of(self, child: Reference) -> WantedLink:
        """Return a link to create: this entity succeeds ``child``."""
        return link_between(self, Relationship.SUCCESSOR_OF, child)

    def escalates_to(self, child: Reference) -> WantedLink:
        """Return a link to create: this entity was escalated to ``child``."""
        return link_between(self, Relationship.ESCALATES_TO, child)


@frozen
class Entity(_Linkable):
    """A case, incident, page or agent conversation.

    Use :func:`case`, :func:`incident`, :func:`page` and :func:`agent_conversation` to get an entity: they
    check the id.

    ``id``
        The id. UUIDs are converted to lower case. An entity from a response may have any id.
    ``type``
        The type. An entity from a response may have an unknown type, as a plain string.

    Raises:
        InvalidLinkError: ``id`` is neither a non-empty string nor a ``uuid.UUID``.
    """

    id: str = field(converter=_canonical_id)
    type: EntityType | str = field(converter=_entity_type)

    def require_known(self) -> None:
        """Check that the type is known and the id is a UUID, as the API documents.

        Raises:
            InvalidLinkError: The type is unknown, or the id is not a UUID.
        """
        if not getattr(self, "_is_known", False):  # each link checks both of its ends again
            self._check_known()

    def _check_known(self) -> None:
        known = require_known_entity_type(self.type)
        if not is_uuid(self.id):
            raise InvalidLinkError(_not_a_uuid(self.id, known))
        object.__setattr__(self, "_is_known", True)

    def __str__(self) -> str:
        return f"{self.type} {self.id}"


def _upper(text: str) -> str:
    if not isinstance(text, str):
        raise InvalidLinkError(f"a case key must be a string such as SHOP-1, not {quoted(text)}")
    return text.upper()


@frozen
class CaseKey(_Linkable):
    """A reference to a case by its key, such as ``SHOP-1``. The key is converted to upper case.

    ``case("SHOP-1")`` returns it. It has the same methods as an :class:`Entity`.
    """

    key: str = field(converter=_upper)

    def __str__(self) -> str:
        return self.key


def _incident_number(text: str) -> str:
    if not isinstance(text, str) or not is_incident_number(text):
        raise InvalidLinkError(
            f"the number of an incident must be a string such as 123 or IR-123, not {quoted(text)}"
        )
    return text.upper()


@frozen
class IncidentNumber(_Linkable):
    """A reference to an incident by its number, such as ``123`` or ``IR-123``, in upper case.

    ``incident("IR-123")`` returns it. It has the same methods as an :class:`Entity`.

    Raises:
        InvalidLinkError: ``number`` has another form.
    """

    number: str = field(converter=_incident_number)

    def __str__(self) -> str:
        return f"incident:{self.number}"


Reference = Entity | CaseKey | IncidentNumber
"""An entity, or the key of a case or the number of an incident that the client looks up."""


def case_name(reference: Reference) -> str:
    """Return the key or UUID of a case. Raises :class:`InvalidLinkError` if it is something else."""
    match reference:
        case CaseKey(key=name) | Entity(id=name, type=EntityType.CASE):
            return name
    raise InvalidLinkError(f"{quoted(reference)} is not a reference to a case")


def incident_name(reference: Reference) -> str:
    """Return the number or UUID of an incident. Raises :class:`InvalidLinkError` if it is something else."""
    match reference:
        case IncidentNumber(number=name) | Entity(id=name, type=EntityType.INCIDENT):
            return name
    raise InvalidLinkError(f"{quoted(reference)} is not a reference to an incident")


_NAMED: Final = {
    EntityType.CASE: "; to name a case by its key, write case('SHOP-1')",
    EntityType.INCIDENT: "; to name an incident by its number, write incident('IR-123') or incident(123)",
}
"""The advice for an entity whose UUID the user does not know."""


def _not_a_uuid(given: str, entity_type: EntityType) -> str:
    wanted = f"the id of this {entity_type.replace('_', ' ').lower()} must be a UUID"
    shown = quoted(given)
    if "://" in given:
        return f"{wanted}, not the URL {shown}: parse_reference accepts the URL of a case"
    if entity_type is EntityType.CASE and is_case_key(given):
        return f"{wanted}, not the case key {shown}: write case({shown})"
    if entity_type is EntityType.INCIDENT and is_incident_number(given):
        return f"{wanted}, not the number {shown}: write incident({shown})"
    return f"{wanted}, not {shown}{dash_hint(given) or _NAMED.get(entity_type, '')}"


def _known_entity(id: str | UUID, type: EntityType) -> Entity:
    entity = Entity(id, type)
    entity._check_known()
    return entity


@overload
def case(id: UUID) -> Entity: ...
@overload
def case(id: str) -> Entity | CaseKey: ...
def case(id: str | UUID) -> Entity | CaseKey:
    """Return the case with the UUID or key ``id``.

    A case key, such as ``SHOP-1``, gives a :class:`CaseKey`. No request is sent: the client looks the key up
    when it needs the UUID.

    Raises:
        InvalidLinkError: ``id`` is neither a UUID nor a case key.
    """
    return CaseKey(id) if isinstance(id, str) and is_case_key(id) else _known_entity(id, _CASE)


@overload
def incident(id: UUID) -> Entity: ...
@overload
def incident(id: int) -> IncidentNumber: ...
@overload
def incident(id: str) -> Entity | IncidentNumber: ...
def incident(id: str | int | UUID) -> Entity | IncidentNumber:
    """Return the incident with the UUID or number ``id``.

    A number, such as ``123`` or ``IR-123``, gives an :class:`IncidentNumber`. No request is sent: the client
    looks the number up when it needs the UUID.

    Raises:
        InvalidLinkError: ``id`` is neither a UUID nor the number of an incident.
    """
    if isinstance(id, int) or (isinstance(id, str) and is_incident_number(id)):
        return IncidentNumber(text_of(id))
    return _known_entity(id, EntityType.INCIDENT)


def page(id: str | UUID) -> Entity:
    """Return the on-call page with the UUID ``id``.

    Raises:
        InvalidLinkError: ``id`` is not a UUID.
    """
    return _known_entity(id, EntityType.PAGE)


def agent_conversation(id: str | UUID) -> Entity:
    """Return the agent conversation with the UUID ``id``.

    Raises:
        InvalidLinkError: ``id`` is not a UUID.
    """
    return _known_entity(id, EntityType.AGENT_CONVERSATION)


def _require_entity(side: str, entity: object) -> None:
    if isinstance(entity, Entity):
        entity.require_known()
        return
    if isinstance(entity, CaseKey | IncidentNumber):
        is_key = isinstance(entity, CaseKey)
        name = quoted(entity.key if isinstance(entity, CaseKey) else entity.number)
        given, function = ("case key", "case") if is_key else ("incident number", "incident")
        raise InvalidLinkError(
            f"the {side} must be an Entity, not the {given} {name}: write {function}({name}).blocks(…)"
        )
    raise InvalidLinkError(f"the {side} must be an Entity such as case(…), not {quoted(entity)}")


def _require_reference(side: str, end: object) -> Reference:
    if isinstance(end, Entity):
        end.require_known()
        return end
    if not isinstance(end, CaseKey | IncidentNumber):
        raise InvalidLinkError(f"the {side} must be an entity or a key such as case(…), not {quoted(end)}")
    return end


@frozen
class NewCaseLink:
    """A link to create, from ``parent`` to ``child``.

    Raises:
        InvalidLinkError: The API documents the link as invalid: an id is not a UUID, the type of an entity or
            the relationship is unknown, neither end is a case, or an entity is linked to itself.
    """

    parent: Entity
    relationship: Relationship = field(converter=require_known_relationship)
    child: Entity

    def __attrs_post_init__(self) -> None:
        parent, child = self.parent, self.child
        _require_entity("parent", parent)
        _require_entity("child", child)
        if parent.type is not _CASE is not child.type:
            raise InvalidLinkError(f"neither end of {self} is a case: at least one must be")
        if parent.id == child.id and parent == child:
            raise InvalidLinkError(f"{parent} cannot be linked to itself")

    def existing(self, id: str) -> CaseLink:
        """Return this link as one that exists, with its id."""
        return CaseLink(id, self.parent, self.relationship, self.child)

    def __str__(self) -> str:
        return f"{self.parent} {self.relationship} {self.child}"


def named(reference: Reference) -> str:
    """Return ``reference`` as a text that :func:`parse_reference` accepts."""
    if not isinstance(reference, Entity):
        return str(reference)
    prefix = next((prefix for prefix, type_ in PREFIXES.items() if type_ == reference.type), reference.type)
    return reference.id if reference.type == EntityType.CASE else f"{prefix}:{reference.id}"


@frozen
class LinkReference:
    """A link to create in which at least one end is a key or number, which the client looks up first.

    ``case("SHOP-1").blocks(case("SHOP-2"))`` and :func:`parse_link` return it.
    """

    parent: Reference
    relationship: Relationship
    child: Reference

    def __str__(self) -> str:
        return f"{named(self.parent)} {self.relationship} {named(self.child)}"


WantedLink = NewCaseLink | LinkReference
"""A link to create, whose keys and numbers may still have to be looked up."""


def link_between(parent: _Linkable, relationship: Relationship, child: _Linkable) -> WantedLink:
    """Return a link: a :class:`LinkReference` if an end must be looked up, else a :class:`NewCaseLink`.

    Raises:
        InvalidLinkError: :class:`NewCaseLink` refuses the link or would refuse it after the lookup, or an end
            is not a reference.
    """
    if isinstance(parent, Entity) and isinstance(child, Entity):
        return NewCaseLink(parent, relationship, child)
    parent, child = _require_reference("parent", parent), _require_reference("child", child)
    if parent == child:
        raise InvalidLinkError(f"{parent} cannot be linked to itself")
    if not (_is_case(parent) or _is_case(child)):
        ends = f"{named(parent)} {relationship} {named(child)}"
        raise InvalidLinkError(f"neither end of {ends} is a case: at least one must be")
    return LinkReference(parent, relationship, child)


def _is_case(reference: Reference) -> bool:
    return isinstance(reference, CaseKey) or (isinstance(reference, Entity) and reference.type is _CASE)


Identity = tuple[Entity, Relationship | str, Entity]
"""The parent, relationship and child of a link. Equal links have equal identities."""


@frozen
class CaseLink:
    """A link that exists.

    ``id``
        The id of the link, which ``delete_link`` accepts.
    ``parent``, ``relationship``, ``child``
        What the link connects, as the server reported it. Types and relationships that this version does not
        know are plain strings.
    """

    id: str
    parent: Entity
    relationship: Relationship | str = field(converter=_relationship)
    child: Entity

    def __str__(self) -> str:
        return f"{self.parent} {self.relationship} {self.child}"


@frozen
class Case:
    """A case. All attributes except ``id`` are empty strings if the server did not report them.

    ``id``
        The UUID.
    ``key``
        The key, such as ``SHOP-1``.
    ``title``
        The title.
    ``status``
        ``OPEN``, ``IN_PROGRESS``, ``CLOSED``, or another status of the API, which calls it deprecated: use
        ``stage`` or ``is_closed``.
    ``priority``
        ``P1`` to ``P5``, or ``NOT_DEFINED``.
    ``status_name``
        The status in the organisation's own words.
    ``status_group``
        The group of the status: ``SG_OPEN``, ``SG_IN_PROGRESS`` or ``SG_CLOSED``.
    """

    id: str
    key: str
    title: str
    status: str
    priority: str
    status_name: str = ""
    status_group: str = ""

    @property
    def stage(self) -> str:
        """How far the case is: ``OPEN``, ``IN_PROGRESS``, ``CLOSED``, or an empty string if unknown.

        ``status_group`` decides, and ``status`` only if the server reported no group.
        """
        return _STAGES.get(self.status_group or self.status, "")

    @property
    def is_closed(self) -> bool:
        """Whether the case is known to be closed."""
        return self.stage == "CLOSED"

    @property
    def entity(self) -> Entity:
        """The case as an entity, which can be linked."""
        return Entity(self.id, _CASE)

    def __str__(self) -> str:
        return f"{self.key or self.id} {self.title}".rstrip()


@frozen
class Incident:
    """An incident. All attributes except ``id`` are empty strings if the server did not report them.

    ``id``
        The UUID.
    ``number``
        The number in the incident's URL, such as ``123``.
    ``key``
        The number with the prefix that people see, such as ``IR-123``.
    ``title``
        The title.
    ``status``
        ``active``, ``stable``, ``resolved`` or ``completed``, or a name that the organisation has chosen.
    """

    id: str
    number: str
    key: str
    title: str
    status: str

    @property
    def stage(self) -> str:
        """How far the incident is: ``OPEN``, ``IN_PROGRESS``, ``CLOSED``, or an empty string if unknown."""
        return _INCIDENT_STAGES.get(self.status.lower(), "")

    @property
    def entity(self) -> Entity:
        """The incident as an entity, which can be linked."""
        return Entity(self.id, EntityType.INCIDENT)

    def has_number(self, number: str) -> bool:
        """Return whether ``number`` is exactly the number of this incident, with or without its prefix."""
        return number in (self.number, self.key) or number.upper() == self.key.upper()

    def __str__(self) -> str:
        return f"{self.key or self.number or self.id} {self.title}".rstrip()


def identity(link: NewCaseLink | CaseLink) -> Identity:
    """Return a key that two links share if they are equal: the same relationship between the same entities.

    The ends of ``RELATES_TO``, which has no direction, are sorted. ``fleet/runs.py``
    has the same rule in SQL.
    """
    parent, child = link.parent, link.child
    if link.relationship == Relationship.RELATES_TO and (child.type, child.id) < (parent.type, parent.id):
        parent, child = child, parent
    return parent, link.relationship, child


def ends_of(links: Iterable[NewCaseLink | CaseLink]) -> list[Entity]:
    """Return each parent and child of ``links`` once."""
    return list(dict.fromkeys(end for link in links for end in (link.parent, link.child)))
