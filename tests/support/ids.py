"""Entity ids for tests, and entities with these ids, typed so that their links need no lookup."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast
from uuid import UUID

import datadog_caselinks
from datadog_caselinks import Entity, NewCaseLink, Reference

if TYPE_CHECKING:

    class KnownEntity(Entity):
        """An entity whose links to other entities are typed as such: they need no lookup."""

        def relates_to(self, child: Reference) -> NewCaseLink: ...
        def causes(self, child: Reference) -> NewCaseLink: ...
        def blocks(self, child: Reference) -> NewCaseLink: ...
        def duplicates(self, child: Reference) -> NewCaseLink: ...
        def parent_of(self, child: Reference) -> NewCaseLink: ...
        def successor_of(self, child: Reference) -> NewCaseLink: ...
        def escalates_to(self, child: Reference) -> NewCaseLink: ...


def some_id(number: int) -> str:
    """Return a UUID that is unique to ``number``."""
    return str(UUID(int=number))


def case(id: str | UUID) -> KnownEntity:
    """Return the case with a UUID."""
    return cast("KnownEntity", datadog_caselinks.case(id))


def incident(id: str | UUID) -> KnownEntity:
    """Return the incident with a UUID."""
    return cast("KnownEntity", datadog_caselinks.incident(id))
