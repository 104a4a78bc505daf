"""What hypothesis draws: entities, links, JSON documents. Shared by the tests of several modules."""

from __future__ import annotations

from typing import Any, Final

from hypothesis import strategies as st

from datadog_caselinks import CaseLink, Entity, EntityType, NewCaseLink, Relationship

ids: Final = st.uuids().map(str)
entity_types: Final = st.sampled_from(EntityType)
relationships: Final = st.sampled_from(Relationship)


@st.composite
def new_links(draw: st.DrawFn) -> NewCaseLink:
    """Links that may be created: a case at one end or at both."""
    ends = [Entity(draw(ids), EntityType.CASE), Entity(draw(ids), draw(entity_types))]
    if ends[0].id == ends[1].id:
        ends[1] = Entity(str(draw(st.uuids().filter(lambda id: str(id) != ends[0].id))), ends[1].type)
    parent, child = draw(st.permutations(ends))
    return NewCaseLink(parent, draw(relationships), child)


texts: Final = st.text(min_size=1, max_size=40)
"""Any non-empty string that UTF-8 can carry."""

entities: Final = st.builds(Entity, ids | texts, entity_types | texts)
"""Entities as an answer may hold them: ids that are no UUIDs, types that this version does not know."""

links: Final = st.builds(CaseLink, texts, entities, relationships | texts, entities)
"""Links as an answer may hold them."""

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
"""Whatever ``json.dumps`` writes, with the API's own names among the keys."""
