"""The graph to which the page of ``caselinks sandbox`` links, drawn from the store without a request."""

from __future__ import annotations

from typing import Final

from datadog_caselinks.graph import rendering
from datadog_caselinks.graph.link_graph import LinkGraph
from datadog_caselinks.sandbox.store import Store, StoredLink
from datadog_caselinks.values.models import Case, CaseLink, Entity, Incident, ends_of

_DEPTH: Final = 3
_MAX_ENTITIES: Final = 120
"""The sandbox responds to no other request while it draws, which takes a second for this many."""


def draw(store: Store, entity_type: str, entity_id: str) -> str:
    """Return the page of the links around an entity, as near as they fit.

    Raises:
        InvalidLinkError: The id is empty.
        ConfigurationError: The extra ``pictures`` is not installed.
    """
    root = Entity(entity_id, entity_type)
    links: dict[str, CaseLink] = {}
    seen, nearest, depth, left_out = {root}, [root], 0, 0
    while nearest and depth < _DEPTH and not left_out:
        around = {
            link.id: _link(link) for entity in nearest for link in store.around(entity.type, entity.id, None)
        }
        ends = ends_of(around.values())
        found = [end for end in ends if end not in seen]
        nearest = found[: _MAX_ENTITIES - len(seen)]
        left_out = len(found) - len(nearest)
        seen.update(nearest)
        links |= {name: link for name, link in around.items() if {link.parent, link.child} <= seen}
        depth += 1
    stored = {entity: (store.case(entity.id), store.incident(entity.id)) for entity in seen}
    cases = {
        entity: Case(
            case.id, case.key, case.title, case.status, case.priority, case.status_name, case.status_group
        )
        for entity, (case, _) in stored.items()
        if case
    }
    incidents = {
        entity: Incident(incident.id, str(incident.number), incident.slug, incident.title, incident.state)
        for entity, (_, incident) in stored.items()
        if incident
    }
    return rendering.page(
        LinkGraph(root, tuple(links.values()), cases, depth=depth, left_out=left_out, incidents=incidents)
    )


def _link(link: StoredLink) -> CaseLink:
    return CaseLink(
        link.id,
        Entity(link.parent_entity_id, link.parent_entity_type),
        link.relationship,
        Entity(link.child_entity_id, link.child_entity_type),
    )
