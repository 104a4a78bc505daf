"""What is linked, and the links: frozen values. Knows no JSON and no HTTP."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final
from uuid import UUID

from attrs import field, frozen

from datadog_caselinks.base_errors import InvalidLinkError
from datadog_caselinks.messages import shortened

_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_CASE_KEY: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*-[0-9]+")


class EntityType(StrEnum):
    """What can stand at either end of a link. At least one end is a case."""

    CASE = "CASE"
    INCIDENT = "INCIDENT"
    PAGE = "PAGE"
    AGENT_CONVERSATION = "AGENT_CONVERSATION"


class Relationship(StrEnum):
    """How the parent of a link relates to its child. All have a direction but ``RELATES_TO``."""

    RELATES_TO = "RELATES_TO"
    CAUSES = "CAUSES"
    BLOCKS = "BLOCKS"
    DUPLICATES = "DUPLICATES"
    PARENT_OF = "PARENT_OF"
    SUCCESSOR_OF = "SUCCESSOR_OF"
    ESCALATES_TO = "ESCALATES_TO"


class LinkStatus(StrEnum):
    """The outcome of one link, under the same name in the library, events, journals, the fleet and JSON.

    ``AMBIGUOUS``: the link may have been created. ``MALFORMED``: a line of a file that is not a link.
    """

    CREATED = "created"
    ALREADY_LINKED = "already_linked"
    FAILED = "failed"
    AMBIGUOUS = "ambiguous"
    MALFORMED = "malformed"


# A preview API may add others, which stay plain strings.
_CASE: Final = EntityType.CASE
_ENTITY_TYPES: Final = {str(member): member for member in EntityType}
_RELATIONSHIPS: Final = {str(member): member for member in Relationship}


# A member is told apart first: the hash of one, which a look-up takes, is a function in Python.


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
    """``value`` as a member; raises :class:`InvalidLinkError` that lists the members if it is none."""
    known = _entity_type(value)
    if type(known) is not EntityType:
        raise InvalidLinkError(f"unknown entity type {shortened(value)}; known are {', '.join(EntityType)}")
    return known


def require_known_relationship(value: Relationship | str) -> Relationship:
    """``value`` as a member; raises :class:`InvalidLinkError` that lists the members if it is none."""
    known = _relationship(value)
    if type(known) is not Relationship:
        raise InvalidLinkError(
            f"unknown relationship {shortened(value)}; known are {', '.join(Relationship)}"
        )
    return known


def is_uuid(text: str) -> bool:
    """Whether ``text`` is a UUID as the API writes them, in upper or lower case."""
    return _UUID.fullmatch(text) is not None


def is_case_key(text: str) -> bool:
    """Whether ``text`` is the key of a case, such as ``SHOP-1``."""
    return _CASE_KEY.fullmatch(text) is not None


def _identifier(value: str | UUID) -> str:
    """UUIDs in their one canonical form, lower case with hyphens, so that equal ids compare equal."""
    if isinstance(value, UUID):
        return str(value)
    if not isinstance(value, str) or not value:
        raise InvalidLinkError(f"an id must be a non-empty string or a uuid.UUID, not {shortened(value)}")
    lower = value.lower()
    return lower if lower != value and _UUID.fullmatch(value) else value


@frozen
class Entity:
    """A case, incident, page or agent conversation: its ``id`` and its ``type``.

    It is made by :func:`case`, :func:`incident`, :func:`page` and :func:`agent_conversation`, which check
    the id. An entity read from an answer may carry a type that this version does not know, as a plain
    string, and any id.

    A relationship's own name makes a link to be created: ``case(a).blocks(case(b))``.
    """

    id: str = field(converter=_identifier)
    type: EntityType | str = field(converter=_entity_type)
    _is_known: bool = field(default=False, init=False, eq=False, repr=False)

    def relates_to(self, child: Entity) -> NewCaseLink:
        """This and ``child`` are associated, in either direction."""
        return NewCaseLink(self, Relationship.RELATES_TO, child)

    def causes(self, child: Entity) -> NewCaseLink:
        """This is a cause of ``child``."""
        return NewCaseLink(self, Relationship.CAUSES, child)

    def blocks(self, child: Entity) -> NewCaseLink:
        """``child`` cannot go on until this is done."""
        return NewCaseLink(self, Relationship.BLOCKS, child)

    def duplicates(self, child: Entity) -> NewCaseLink:
        """This says the same as ``child``."""
        return NewCaseLink(self, Relationship.DUPLICATES, child)

    def parent_of(self, child: Entity) -> NewCaseLink:
        """``child`` is a part of this."""
        return NewCaseLink(self, Relationship.PARENT_OF, child)

    def successor_of(self, child: Entity) -> NewCaseLink:
        """This follows ``child``."""
        return NewCaseLink(self, Relationship.SUCCESSOR_OF, child)

    def escalates_to(self, child: Entity) -> NewCaseLink:
        """This was escalated to ``child``."""
        return NewCaseLink(self, Relationship.ESCALATES_TO, child)

    def require_known(self) -> None:
        """Raise :class:`InvalidLinkError` unless this is an entity that the API documents.

        That is a known type, and a UUID as the id.
        """
        if self._is_known:  # a link asks once more, of both its ends
            return
        known = require_known_entity_type(self.type)
        if not is_uuid(self.id):
            raise InvalidLinkError(_not_a_uuid(self.id, known))
        object.__setattr__(self, "_is_known", True)

    def __str__(self) -> str:
        return f"{self.type} {self.id}"


def _not_a_uuid(given: str, entity_type: EntityType) -> str:
    shown = given if len(given) <= 80 else f"{given[:80]}…"
    name = entity_type.replace("_", " ").lower()
    if "://" in given:
        return f"{shown!r} is a URL, and the id of this {name} must be its UUID"
    if entity_type is EntityType.CASE and is_case_key(given):
        return (
            f"{shown!r} is a case key, and the id of this case must be its UUID: "
            f"await links.get_case({shown!r}) finds it"
        )
    return f"{shown!r} is no UUID, which the id of this {name} must be"


def _made(id: str | UUID, type: EntityType) -> Entity:
    entity = Entity(id, type)
    entity.require_known()
    return entity


def case(id: str | UUID) -> Entity:
    """The case with this UUID. Raises :class:`InvalidLinkError` for anything but a UUID."""
    return _made(id, _CASE)


def incident(id: str | UUID) -> Entity:
    """The incident with this UUID. Raises :class:`InvalidLinkError` for anything but a UUID."""
    return _made(id, EntityType.INCIDENT)


def page(id: str | UUID) -> Entity:
    """The on-call page with this UUID. Raises :class:`InvalidLinkError` for anything but a UUID."""
    return _made(id, EntityType.PAGE)


def agent_conversation(id: str | UUID) -> Entity:
    """The agent conversation with this UUID. Raises :class:`InvalidLinkError` for anything but a UUID."""
    return _made(id, EntityType.AGENT_CONVERSATION)


def _require_entity(side: str, entity: object) -> None:
    if not isinstance(entity, Entity):
        raise InvalidLinkError(f"the {side} must be an Entity such as case(…), not {shortened(entity)}")
    entity.require_known()


@frozen
class NewCaseLink:
    """A link to be created: ``parent`` stands in ``relationship`` to ``child``.

    Raises :class:`InvalidLinkError` for what the API documents as wrong: an id that is no UUID, an unknown
    type or relationship, no case at either end, an entity linked to itself.
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
            raise InvalidLinkError(f"neither side of {self} is a case, and at least one must be")
        if parent.id == child.id and parent == child:
            raise InvalidLinkError(f"{parent} cannot be linked to itself")

    def __str__(self) -> str:
        return f"{self.parent} {self.relationship} {self.child}"


Identity = tuple[Entity, Relationship | str, Entity]


@frozen
class CaseLink:
    """A link that exists, as the server tells it: the ``id`` to delete it by, and what it links."""

    id: str
    parent: Entity
    relationship: Relationship | str = field(converter=_relationship)
    child: Entity

    def __str__(self) -> str:
        return f"{self.parent} {self.relationship} {self.child}"


@frozen
class Case:
    """A case as people know it: ``key`` such as ``SHOP-1``, ``title``, ``status`` and ``priority``.

    ``status`` is ``OPEN``, ``IN_PROGRESS`` or ``CLOSED``; ``priority`` is ``P1`` to ``P5``, or
    ``NOT_DEFINED``. What the server leaves out is an empty string, but for the ``id``.
    """

    id: str
    key: str
    title: str
    status: str
    priority: str

    @property
    def entity(self) -> Entity:
        """The case as the end of a link."""
        return Entity(self.id, _CASE)

    def __str__(self) -> str:
        return f"{self.key or self.id} {self.title}".rstrip()


def identity(link: NewCaseLink | CaseLink) -> Identity:
    """What makes two links the same: both ends and the relationship; either way round for ``RELATES_TO``."""
    parent, child = link.parent, link.child
    if link.relationship == Relationship.RELATES_TO and (child.type, child.id) < (parent.type, parent.id):
        parent, child = child, parent
    return parent, link.relationship, child
