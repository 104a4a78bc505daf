"""The cases at the ends of links, with the keys and titles to show."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from datadog_caselinks.errors import NotFoundError, PermissionDeniedError
from datadog_caselinks.models import Case, CaseLink, Entity, EntityType, NewCaseLink
from datadog_caselinks.references import Resolver


async def find_cases(resolver: Resolver, links: Iterable[CaseLink]) -> dict[Entity, Case]:
    """Return the cases at the ends of ``links``, except those that these credentials cannot access."""
    return await get_cases(resolver, [end for end in ends_of(links) if end.type == EntityType.CASE])


async def get_cases(resolver: Resolver, wanted: Sequence[Entity]) -> dict[Entity, Case]:
    """Return these cases, except those that these credentials cannot access."""

    async def get(entity: Entity) -> Case | None:
        try:
            return await resolver.case(entity)
        except (NotFoundError, PermissionDeniedError):
            return None

    found = await asyncio.gather(*map(get, wanted))
    return {entity: case for entity, case in zip(wanted, found, strict=True) if case}


def ends_of(links: Iterable[NewCaseLink | CaseLink]) -> list[Entity]:
    """Return each parent and child of ``links`` once."""
    return list(dict.fromkeys(end for link in links for end in (link.parent, link.child)))
