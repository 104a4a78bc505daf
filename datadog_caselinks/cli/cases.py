"""The cases and incidents at the ends of links, with the keys and titles to show."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from datadog_caselinks.calls.resolver import Resolver
from datadog_caselinks.values.models import CaseLink, Entity, NewCaseLink
from datadog_caselinks.values.references import Details


async def find_details(resolver: Resolver, links: Iterable[CaseLink]) -> dict[Entity, Details]:
    """Return what is known of the ends of ``links``, except those that these credentials cannot access."""
    return await get_details(resolver, ends_of(links))


async def get_details(resolver: Resolver, wanted: Sequence[Entity]) -> dict[Entity, Details]:
    """Return what is known of these entities, except those that these credentials cannot access."""
    found = await asyncio.gather(*map(resolver.details, wanted))
    return {entity: details for entity, details in zip(wanted, found, strict=True) if details}


def ends_of(links: Iterable[NewCaseLink | CaseLink]) -> list[Entity]:
    """Return each parent and child of ``links`` once."""
    return list(dict.fromkeys(end for link in links for end in (link.parent, link.child)))
