"""Entities, links and cases as immutable values, independent of JSON and HTTP."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final
from uuid import UUID

from attrs import field, frozen

from datadog_caselinks.base_errors import InvalidLinkError
from datadog_caselinks.messages import quoted

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
    """The link may have been created: the client could not find out."""

    MALFORMED = "malformed"
    """A line of a file does not describe a link."""


# The API is in preview and may add members, which stay plain strings.
_CASE: Final = EntityType.CASE
_ENTITY_TYPES: Final = {str(member): member for member in EntityType}
_RELATIONSHIPS: Final = {str(member): member for member in Relationship}


# Members are recognized by their type: a lookup would call the hash of StrEnum, which is slow because it is
# written in Python.


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


class _Checked:
    """A slot to note that an entity was checked. It is not an attribute, so ``asdict`` omits it."""

    __slots__ = ("_is_known",)


@frozen
class Entity(_Checked):
    """A case, incident, page or agent conversation.

    Use :func:`case`, :func:`incident`, :func:`page` and :func:`agent_conversation` to get an entity: they
    check the id. The methods return links to create: ``case(a).blocks(case(b))``.

    ``id``
        The id. UUIDs are converted to lower case. An entity from a response may have any id.
    ``type``
        The type. An entity from a response may have an unknown type, as a plain string.

    Raises:
        InvalidLinkError: ``id`` is neither a non-empty string nor a ``uuid.UUID``.
    """

    id: str = field(converter=_canonical_id)
    type: EntityType | str = field(converter=_entity_type)

    def relates_to(self, child: Entity) -> NewCaseLink:
        """Return a link to create: this entity and ``child`` are related, without a direction."""
        return NewCaseLink(self, Relationship.RELATES_TO, child)

    def causes(self, child: Entity) -> NewCaseLink:
        """Return a link to create: this entity causes ``child``."""
        return NewCaseLink(self, Relationship.CAUSES, child)

    def blocks(self, child: Entity) -> NewCaseLink:
        """Return a link to create: ``child`` cannot continue until this entity is done."""
        return NewCaseLink(self, Relationship.BLOCKS, child)

    def duplicates(self, child: Entity) -> NewCaseLink:
        """Return a link to create: this entity is a duplicate of ``child``."""
        return NewCaseLink(self, Relationship.DUPLICATES, child)

    def parent_of(self, child: Entity) -> NewCaseLink:
        """Return a link to create: ``child`` is a part of this entity."""
        return NewCaseLink(self, Relationship.PARENT_OF, child)

    def successor_of(self, child: Entity) -> NewCaseLink:
        """Return a link to create: this entity succeeds ``child``."""
        return NewCaseLink(self, Relationship.SUCCESSOR_OF, child)

    def escalates_to(self, child: Entity) -> NewCaseLink:
        """Return a link to create: this entity was escalated to ``child``."""
        return NewCaseLink(self, Relationship.ESCALATES_TO, child)

    def require_known(self) -> None:
        """Check that the type is known and the id is a UUID, as the API documents.

        Raises:
            InvalidLinkError: The type is unknown, or the id is not a UUID.
        """
        if getattr(self, "_is_known", False):  # already checked: each link checks both of its ends again
            return
        known = require_known_entity_type(self.type)
        if not is_uuid(self.id):
            raise InvalidLinkError(_not_a_uuid(self.id, known))
        object.__setattr__(self, "_is_known", True)

    def __str__(self) -> str:
        return f"{self.type} {self.id}"


def _not_a_uuid(given: str, entity_type: EntityType) -> str:
    wanted = f"the id of this {entity_type.replace('_', ' ').lower()} must be a UUID"
    shown = quoted(given)
    if "://" in given:
        return f"{wanted}, not the URL {shown}: parse_reference accepts the URL of a case"
    if entity_type is EntityType.CASE and is_case_key(given):
        return f"{wanted}, not the case key {shown}: await client.get_case({shown}) finds the case"
    return f"{wanted}, not {shown}{dash_hint(given)}"


def _known_entity(id: str | UUID, type: EntityType) -> Entity:
    entity = Entity(id, type)
    entity.require_known()
    return entity


def case(id: str | UUID) -> Entity:
    """Return the case with the UUID ``id``.

    Raises:
        InvalidLinkError: ``id`` is not a UUID.
    """
    return _known_entity(id, _CASE)


def incident(id: str | UUID) -> Entity:
    """Return the incident with the UUID ``id``.

    Raises:
        InvalidLinkError: ``id`` is not a UUID.
    """
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
    if not isinstance(entity, Entity):
        raise InvalidLinkError(f"the {side} must be an Entity such as case(…), not {quoted(entity)}")
    entity.require_known()


@frozen
class NewCaseLink:
    """A link to create, from ``parent`` to ``child``.

    Raises:
        InvalidLinkError: The API documents the link as invalid: an id is not a UUID, the type of an entity or
            the relationship is unknown, neither end is a case, or an entity is linked to itself.
    """

    parent: Entity
    relationship: Relationship | str = field(converter=_relationship)
    child: Entity

    def __attrs_post_init__(self) -> None:
        parent, child = self.parent, self.child
        _require_entity("parent", parent)
        _require_entity("child", child)
        require_known_relationship(self.relationship)
        if parent.type is not _CASE is not child.type:
            raise InvalidLinkError(f"neither end of {self} is a case: at least one must be")
        if parent.id == child.id and parent == child:
            raise InvalidLinkError(f"{parent} cannot be linked to itself")

    def __str__(self) -> str:
        return f"{self.parent} {self.relationship} {self.child}"


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
        ``OPEN``, ``IN_PROGRESS`` or ``CLOSED``.
    ``priority``
        ``P1`` to ``P5``, or ``NOT_DEFINED``.
    """

    id: str
    key: str
    title: str
    status: str
    priority: str

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
        ``active``, ``stable``, ``resolved`` or ``completed``, or a name that the organization has chosen.
    """

    id: str
    number: str
    key: str
    title: str
    status: str

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

    The ends of ``RELATES_TO``, which has no direction, are sorted.
    """
    parent, child = link.parent, link.child
    if link.relationship == Relationship.RELATES_TO and (child.type, child.id) < (parent.type, parent.id):
        parent, child = child, parent
    return parent, link.relationship, child
