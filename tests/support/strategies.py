"""Strategies for hypothesis: entities, links and JSON documents."""

from __future__ import annotations

from typing import Any, Final

from hypothesis import strategies as st

from datadog_caselinks import CaseLink, Entity, EntityType, NewCaseLink, Relationship

ids: Final = st.uuids().map(str)
entity_types: Final = st.sampled_from(EntityType)
relationships: Final = st.sampled_from(Relationship)


@st.composite
def new_links(draw: st.DrawFn) -> NewCaseLink:
    """Generate valid links to create: at least one end is a case."""
    ends = [Entity(draw(ids), EntityType.CASE), Entity(draw(ids), draw(entity_types))]
    if ends[0].id == ends[1].id:
        ends[1] = Entity(str(draw(st.uuids().filter(lambda id: str(id) != ends[0].id))), ends[1].type)
    parent, child = draw(st.permutations(ends))
    return NewCaseLink(parent, draw(relationships), child)


texts: Final = st.text(min_size=1, max_size=40)
"""Any non-empty string that can be encoded as UTF-8."""

entities: Final = st.builds(Entity, ids | texts, entity_types | texts)
"""Entities that a response may contain, including unknown types and ids that are not UUIDs."""

links: Final = st.builds(CaseLink, texts, entities, relationships | texts, entities)
"""Links that a response may contain."""

scalars: Final[st.SearchStrategy[Any]] = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["\ud800", "\x1b[31m", 10**400, "link", "4417921d-0866-4a38-822c-6f2a0f65f77d"])
)

_KEYS: Final = st.text(max_size=10) | st.sampled_from(
    [
        "data",
        "errors",
        "id",
        "type",
        "attributes",
        "title",
        "detail",
        "code",
        "status",
        "relationship",
        "parent_entity_id",
        "parent_entity_type",
        "child_entity_id",
        "child_entity_type",
    ]
)

json_values: Final[st.SearchStrategy[Any]] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=6),
    max_leaves=20,
)
"""Any value that ``json.dumps`` accepts. The keys include those of the API."""
