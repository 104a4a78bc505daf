"""Graphs for tests of the renderers."""

from __future__ import annotations

import pytest

from datadog_caselinks import CaseLink, CaseLinksClient, Entity, LinkGraph
from datadog_caselinks.sandbox import Sandbox
from tests.graph.rendering.hostile import HOSTILE
from tests.support.graphs import entity, graph, large


@pytest.fixture
async def demo() -> LinkGraph:
    """Return the graph of the demo, which has a cycle."""
    async with Sandbox(seed="demo") as sandbox, CaseLinksClient(sandbox.url, sandbox.credentials) as links:
        return await links.read_graph("SHOP-2", depth=4)


@pytest.fixture
def hostile() -> LinkGraph:
    """Return a graph whose texts contain markup, with links of every kind and shape."""
    made = graph(
        *("a BLOCKS b", "b BLOCKS a", "a BLOCKS b", "a RELATES_TO p:c", "i:d CAUSES a", "a PARENT_OF g:e"),
        *("a DUPLICATES a", "b SUCCESSOR_OF a", "b ESCALATES_TO a", "x CAUSES y"),
        a=HOSTILE,
        b="]" * 300,
    )
    odd = CaseLink("odd", entity("a"), HOSTILE, Entity(HOSTILE, HOSTILE))
    return LinkGraph(made.root, (*made.links, odd), made.cases, unread=(odd.child,))


@pytest.fixture(scope="session")
def many() -> LinkGraph:
    """Return a graph of five hundred entities."""
    return large(500)
