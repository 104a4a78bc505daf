"""The cases at the ends of links, with the keys and titles to show."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from datadog_caselinks.errors import NotFoundError, PermissionDeniedError
from datadog_caselinks.models import Case, CaseLink, Entity, EntityType
from datadog_caselinks.references import Resolver


async def find_cases(resolver: Resolver, links: Iterable[CaseLink]) -> dict[Entity, Case]:
    """Return the cases at the ends of ``links``, except those that these credentials cannot access."""

    async def get(entity: Entity) -> Case | None:
        try:
            return await resolver.case(entity)
        except (NotFoundError, PermissionDeniedError):
            return None

    wanted = [entity for entity in ends_of(links) if entity.type == EntityType.CASE]
    found = await asyncio.gather(*map(get, wanted))
    return {entity: case for entity, case in zip(wanted, found, strict=True) if case}


def ends_of(links: Iterable[CaseLink]) -> list[Entity]:
    """Return each parent and child of ``links`` once."""
    return list(dict.fromkeys(end for link in links for end in (link.parent, link.child)))
