"""Graphs for tests, written as one line of text for each link."""

from __future__ import annotations

import random
from uuid import UUID

from datadog_caselinks import Case, CaseLink, Entity, EntityType, LinkGraph, Relationship

_TYPES = {"i": EntityType.INCIDENT, "p": EntityType.PAGE, "g": EntityType.AGENT_CONVERSATION}


def entity(name: str) -> Entity:
    """Return the case named ``a``, or the incident ``i:a``, page ``p:a`` or conversation ``g:a``."""
    kind, _, rest = name.rpartition(":")
    return Entity(str(UUID(bytes=rest.encode().rjust(16, b"\0"))), _TYPES.get(kind, EntityType.CASE))


def links(*texts: str) -> tuple[CaseLink, ...]:
    """Return the links of texts such as ``a BLOCKS b``, with the ids ``l0``, ``l1``, …"""
    result = []
    for number, text in enumerate(texts):
        parent, relationship, child = text.split()
        result.append(CaseLink(f"l{number}", entity(parent), relationship, entity(child)))
    return tuple(result)


def graph(*texts: str, **titles: str) -> LinkGraph:
    """Return the graph of these links around ``a``; ``b="A title"`` sets the title of the case ``b``."""
    cases = {
        entity(name): Case(entity(name).id, name.upper(), title, "OPEN", "P3")
        for name, title in titles.items()
    }
    return LinkGraph(entity("a"), links(*texts), cases)


def large(count: int) -> LinkGraph:
    """Return a reproducible graph of ``count`` entities, with all types and relationships."""
    chance = random.Random(7)
    types = [EntityType.CASE] * 8 + list(EntityType)
    entities = [Entity(str(UUID(int=number)), types[number % len(types)]) for number in range(count)]
    kinds = list(Relationship)
    created = []
    for number in range(1, count):
        other = entities[chance.randrange(number // 4, number // 3 + 1)]
        ends = (other, entities[number]) if chance.random() < 0.8 else (entities[number], other)
        created.append(CaseLink(f"tree-{number}", ends[0], chance.choice(kinds), ends[1]))
    for number in range(count // 8):
        parent, child = chance.sample(entities, 2)
        created.append(CaseLink(f"cross-{number}", parent, chance.choice(kinds), child))
    cases = {
        each: Case(each.id, f"OPS-{number}", f"Case {number} " + "of many " * (number % 9), status, "P3")
        for number, each in enumerate(entities)
        if each.type == EntityType.CASE
        for status in [("OPEN", "IN_PROGRESS", "CLOSED")[number % 3]]
    }
    return LinkGraph(entities[0], tuple(created), cases, depth=9)
