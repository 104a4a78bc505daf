"""The links around an entity as a value, with its cycles, blockers and topological order."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Final

from attrs import field, frozen

from datadog_caselinks.graph.cycles import find_cycles
from datadog_caselinks.graph.search import distances_from
from datadog_caselinks.values.errors import ConfigurationError, CycleError, ParameterError
from datadog_caselinks.values.messages import quoted
from datadog_caselinks.values.models import (
    Case,
    CaseKey,
    CaseLink,
    Entity,
    Incident,
    IncidentNumber,
    Relationship,
    ends_of,
    require_known_relationship,
)
from datadog_caselinks.values.references import Details, name_of, parse_reference, url_of
from datadog_caselinks.values.sites import Site

if TYPE_CHECKING:
    from networkx import MultiDiGraph

_DETAILS: Final = ("key", "title", "status", "status_name", "status_group", "priority")

Cycle = tuple[CaseLink, ...]
"""Links of one relationship. The child of each is the parent of the next, and the last leads to the first."""


@frozen
class LinkGraph:
    """The links around ``root`` and ``other_roots``, up to ``depth`` links away from the nearest of them.

    ``root``
        The entity at which reading started.
    ``links``
        Every link once, in the order in which they were read.
    ``cases``
        Key, title and status of each case that could be read.
    ``depth``
        The largest possible distance from a root, in links.
    ``left_out``
        How many entities were found but not added because the graph already had ``max_nodes``. They are at
        distance ``depth``; everything nearer is included.
    ``unread``
        The entities whose own links could not be read, because the credentials cannot access them, this
        version does not know their type, or the graph takes some 256 MiB already.
    ``site``
        The site it was read from, if known.
    ``incidents``
        Number, title and status of each incident that could be read.
    ``other_roots``
        The other entities at which reading started.
    ``distances``
        How many links each entity is away from the nearest root, ignoring the direction of the links.
    ``entities``
        All entities: the roots first, then the others by distance.
    """

    root: Entity
    links: tuple[CaseLink, ...]
    cases: Mapping[Entity, Case] = field(factory=dict, repr=False)
    depth: int = 0
    left_out: int = 0
    unread: tuple[Entity, ...] = ()
    site: Site | None = None
    incidents: Mapping[Entity, Incident] = field(factory=dict, repr=False)
    other_roots: tuple[Entity, ...] = ()
    distances: Mapping[Entity, int] = field(init=False, repr=False, eq=False)
    entities: tuple[Entity, ...] = field(init=False, repr=False, eq=False)

    @distances.default
    def _default_distances(self) -> Mapping[Entity, int]:
        neighbours: dict[Entity, list[Entity]] = {}
        for link in self.links:
            neighbours.setdefault(link.parent, []).append(link.child)
            neighbours.setdefault(link.child, []).append(link.parent)
        return distances_from(self.roots, neighbours)

    @entities.default
    def _default_entities(self) -> tuple[Entity, ...]:
        ends = (end for link in self.links for end in (link.parent, link.child))
        return tuple(dict.fromkeys((*self.distances, *ends)))

    @property
    def roots(self) -> tuple[Entity, ...]:
        """The entities at which reading started."""
        return (self.root, *self.other_roots)

    @cached_property
    def details(self) -> Mapping[Entity, Details]:
        """Key, title and status of each case and incident in ``cases`` and ``incidents``."""
        return {**self.cases, **self.incidents}

    def url_of(self, entity: Entity) -> str | None:
        """Return the URL of ``entity`` in Datadog's web interface.

        Returns:
            The URL, or ``None`` unless ``entity`` is a case with a known key, or an incident with a known
            number, on one of Datadog's sites.
        """
        known = self.details.get(entity)
        return url_of(known, self.site) if known and self.site else None

    @property
    def is_complete(self) -> bool:
        """Whether the graph has every link that leads to an entity within ``depth``."""
        return not (self.left_out or self.unread)

    @cached_property
    def cycles(self) -> tuple[Cycle, ...]:
        """Cycles of links by which an entity blocks, causes, contains, succeeds or duplicates itself.

        Relationships are searched separately. Of cycles that share entities, one short cycle is included.
        """
        return tuple(find_cycles(self.links))

    def blockers_of(self, case: Case | Entity | str) -> tuple[Entity, ...]:
        """Return everything that blocks ``case``, directly or through other blockers, nearest first.

        Only blockers within this graph are found.

        Args:
            case: An entity or a case, or a text that :func:`parse_reference` accepts.

        Raises:
            ParameterError: ``case`` is not in this graph.
            InvalidLinkError: The text does not name an entity.
        """
        blocked = self._resolve(case)
        if blocked not in self.entities:
            given = quoted(case) if isinstance(case, str) else case
            raise ParameterError(
                f"case must be in this graph, which starts at {self.root}, but {given} is not"
            )
        blockers: dict[Entity, list[Entity]] = {}
        for link in self._links_of(Relationship.BLOCKS):
            blockers.setdefault(link.child, []).append(link.parent)
        return tuple(distances_from([blocked], blockers))[1:]

    def topological_order(self, relationship: Relationship = Relationship.BLOCKS) -> tuple[Entity, ...]:
        """Return the entities linked by ``relationship``, each after all of its parents.

        For ``BLOCKS`` this is an order in which all cases can be worked on.

        Raises:
            CycleError: The links contain a cycle, so no order exists. The error holds one cycle.
            ParameterError: ``relationship`` is ``RELATES_TO``, which has no direction.
            InvalidLinkError: ``relationship`` is not a relationship.
        """
        require_known_relationship(relationship)
        if relationship == Relationship.RELATES_TO:
            raise ParameterError("relationship must not be RELATES_TO: it has no direction, so no order")
        for cycle in find_cycles(self.links, relationships=[relationship]):
            ends = (cycle[0].parent, *(link.child for link in cycle))
            path = " -> ".join(name_of(end, self.details) for end in ends)
            raise CycleError(f"cannot order by {relationship}: the links form a cycle: {path}", links=cycle)
        links = self._links_of(relationship)
        linked = set(ends_of(links))
        # Adding all entities first, in their order, makes the sorter keep that order where links allow it.
        sorter = TopologicalSorter({entity: () for entity in self.entities if entity in linked})
        for link in links:
            sorter.add(link.child, link.parent)
        return tuple(sorter.static_order())

    def to_networkx(self) -> MultiDiGraph[Entity]:
        """Return the graph as a networkx ``MultiDiGraph``: entities are nodes, and links are edges.

        Nodes have ``type`` and ``distance``, for cases and incidents that could be read also ``key``,
        ``title`` and ``status``, and for cases ``status_name``, ``status_group`` and ``priority``. Edges have
        the link's id as their key, and ``relationship``.

        Raises:
            ConfigurationError: networkx is not installed.
        """
        try:
            from networkx import MultiDiGraph
        except ModuleNotFoundError:
            raise ConfigurationError("networkx is not installed; run: pip install networkx") from None
        graph: MultiDiGraph[Entity] = MultiDiGraph()
        for entity in self.entities:
            known = self.details.get(entity)
            details = {name: getattr(known, name) for name in _DETAILS if hasattr(known, name)}
            distance = {"distance": self.distances[entity]} if entity in self.distances else {}
            graph.add_node(entity, type=str(entity.type), **distance, **details)
        for link in self.links:
            graph.add_edge(link.parent, link.child, key=link.id, relationship=str(link.relationship))
        return graph

    def _resolve(self, case: Case | Entity | str) -> Entity | None:
        """Return the entity, or ``None`` for a key that no case of this graph has."""
        if isinstance(case, Case):
            return case.entity
        reference = parse_reference(case) if isinstance(case, str) else case
        if isinstance(reference, IncidentNumber):
            number = reference.number
            return next((each for each, known in self.incidents.items() if known.has_number(number)), None)
        if not isinstance(reference, CaseKey):
            return reference
        keys = {known.key.upper(): entity for entity, known in self.cases.items()}
        return keys.get(reference.key)

    def _links_of(self, relationship: Relationship) -> list[CaseLink]:
        return [link for link in self.links if link.relationship == relationship]
