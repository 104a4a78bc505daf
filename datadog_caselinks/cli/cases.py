"""The cases and incidents at the ends of links, with the keys and titles to show."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from datadog_caselinks.models import CaseLink, Entity
from datadog_caselinks.references import Details, Resolver


async def find_details(resolver: Resolver, links: Iterable[CaseLink]) -> dict[Entity, Details]:
    """Return what is known of the ends of ``links``, except those that these credentials cannot access."""
    wanted = ends_of(links)
    found = await asyncio.gather(*map(resolver.details, wanted))
    return {entity: details for entity, details in zip(wanted, found, strict=True) if details}


def ends_of(links: Iterable[CaseLink]) -> list[Entity]:
    """Return each parent and child of ``links`` once."""
    return list(dict.fromkeys(end for link in links for end in (link.parent, link.child)))
