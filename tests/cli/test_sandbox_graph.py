"""The graph that the page of ``caselinks sandbox`` links to."""

from __future__ import annotations

import json
from contextlib import closing

import aiohttp
import pytest

from datadog_caselinks import CaseLinksClient, InvalidLinkError
from datadog_caselinks.cli import sandbox_graph
from datadog_caselinks.graph.rendering import page
from datadog_caselinks.sandbox import Sandbox
from datadog_caselinks.sandbox.store import Draft, Store
from tests.graph.rendering.documents import read_page
from tests.support.ids import some_id


async def test_shows_the_graph_of_the_stored_links() -> None:
    """The page shows the same entities and links that a client reads, and drawing sends no request."""
    async with Sandbox(seed="demo", draw_graph=sandbox_graph.draw) as sandbox:
        async with CaseLinksClient(sandbox.url, sandbox.credentials) as client:
            graph = await client.read_graph("SHOP-2", depth=3)
            before = len(sandbox.requests)
            address = f"{sandbox.url}/_sandbox/graph"
            async with (
                aiohttp.ClientSession() as session,
                session.get(address, params={"type": "CASE", "id": graph.root.id}) as response,
            ):
                shown = await response.text()
        assert len(sandbox.requests) == before
    drawn, expected = (json.loads(read_page(text).contents["script"][0]) for text in (shown, page(graph)))
    assert {(each["key"], each["title"], each["status"]) for each in drawn["entities"]} == {
        (each["key"], each["title"], each["status"]) for each in expected["entities"]
    }
    assert len(drawn["links"]) == len(expected["links"])


def test_says_what_is_left_out() -> None:
    """A large graph is limited, so that the sandbox remains responsive."""
    with closing(Store(":memory:")) as store:
        for number in range(1, 301):
            store.add(Draft("CASE", some_id(0), "BLOCKS", "CASE", some_id(number)), 0)
        text = sandbox_graph.draw(store, "CASE", some_id(0))
    assert "120 entities" in text
    assert "181 more at distance 1 left out" in text


def test_needs_an_entity() -> None:
    """A graph address without an entity is an error."""
    with closing(Store(":memory:")) as store, pytest.raises(InvalidLinkError):
        sandbox_graph.draw(store, "CASE", "")
