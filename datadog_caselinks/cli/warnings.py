"""The warnings of a plan, grouped by kind, with the keys of cases and the numbers of incidents."""

from __future__ import annotations

from typing import Final

from datadog_caselinks.calls.resolver import Resolver
from datadog_caselinks.cli.screen import Screen
from datadog_caselinks.graph.contradictions import ContradictionKind
from datadog_caselinks.graph.plan import LinkPlan
from datadog_caselinks.values.messages import one_line
from datadog_caselinks.values.models import Entity, ends_of
from datadog_caselinks.values.references import name_of

_MAX_SHOWN: Final = 10
"""The warnings of one kind that are shown before the rest is only counted."""

_MAX_LOOKUPS: Final = 100
"""The cases and incidents that are looked up for their names, a request each."""

_HEADINGS: Final = {
    ContradictionKind.CYCLE: "cycles",
    ContradictionKind.SEVERAL_PARENTS: "entities have several parents",
}


async def show_warnings(screen: Screen, resolver: Resolver, planned: LinkPlan) -> None:
    """Show the warnings of ``planned``: a few of each kind, and how many others there are."""
    groups = {kind: [each for each in planned.warnings if each.kind is kind] for kind in ContradictionKind}
    ends = ends_of(link for group in groups.values() for each in group[:_MAX_SHOWN] for link in each.links)
    unnamed = [end for end in ends if end not in planned.details]
    known = {**planned.details, **await resolver.all_details(unnamed[:_MAX_LOOKUPS])}

    def name(entity: Entity) -> str:
        return one_line(name_of(entity, known))

    for kind, group in groups.items():
        lines = [each.describe(name) for each in group[:_MAX_SHOWN]]
        if len(group) == 1:
            screen.problem(f"Warning: {lines[0]}")
        elif group:
            screen.problem(f"Warning: {len(group)} {_HEADINGS[kind]}")
            for line in lines:
                screen.problem(f"  {line}")
        if len(group) > _MAX_SHOWN:
            screen.problem(f"  … and {len(group) - _MAX_SHOWN} more")
