"""The page of the sandbox: its state, its limits, and no markup from clients."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import pytest

from datadog_caselinks import ParameterError
from datadog_caselinks.sandbox import Fault, Sandbox
from datadog_caselinks.sandbox.store import Store
from tests.graph.rendering.browser import FOUND, browsing

if TYPE_CHECKING:
    from tests.sandbox.caller import Caller

CallerOf = Callable[[Sandbox], "Caller"]
MARKUP = "<script>alert(1)</script><img src=x onerror=alert(2)>__NONCE____STATE__"


async def test_needs_no_credentials(caller: Caller) -> None:
    """The page is HTML, and needs no credentials."""
    reply = await caller.send("GET", "/", headers={})

    assert reply.status == 200
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
    assert b"<title>Case-link sandbox</title>" in reply.body


async def test_fetches_nothing_from_elsewhere(caller: Caller) -> None:
    """The page fetches only its own state."""
    page = (await caller.send("GET", "/")).body.decode()

    assert set(re.findall(r"https?://[\w./-]+", page)) == {"http://www.w3.org/2000/svg"}
    (icon,) = re.findall(r'<link rel="icon" href="(data:[^"]*)">', page)
    assert set(re.findall(r'(?:src|href|action)="([^"]*)"', page)) <= {"/_sandbox/state", icon}


async def test_shows_what_to_do_first(caller: Caller, sandbox: Sandbox) -> None:
    """The page of an empty sandbox shows the keys to export and a command to run."""
    page = (await caller.send("GET", "/")).body.decode()
    state = (await caller.send("GET", "/_sandbox/state", headers={})).json

    assert "caselinks create incident:" in page
    assert state == {
        "keys": {"DD_API_KEY": "sandbox-api-key", "DD_APP_KEY": "sandbox-app-key"},
        "links": {"total": 0, "latest": []},
        "names": {},
        "has_graph": False,
        "requests": {"total": 0, "latest": []},
        "statuses": {},
        "rejected": 0,
        "faults": {},
        "window": None,
    }


async def test_state_counts_and_shows(caller: Caller, sandbox: Sandbox) -> None:
    """The state has the newest links and requests first, all counts, and the rate limit."""
    sandbox.rate_limit = "3/10s"
    sandbox.fail_next(Fault.LOST_RESPONSE, operation="delete")
    await caller.create()
    await caller.create(relationship="CAUSES")
    # aiohttp itself retries a DELETE on a reused connection, here above the limit.
    await caller.delete("unknown")

    state = (await caller.send("GET", "/_sandbox/state")).json

    assert state["links"]["total"] == 2
    assert [link["relationship"] for link in state["links"]["latest"]] == ["CAUSES", "BLOCKS"]
    assert state["links"]["latest"][1]["id"] == sandbox.links[0].id
    assert [(each["number"], each["status"]) for each in state["requests"]["latest"]] == [
        (4, 429),
        (3, None),
        (2, 201),
        (1, 201),
    ]
    assert state["requests"]["latest"][1]["fault"] == "lost-response"
    assert state["statuses"] == {"201": 2, "cut": 1, "429": 1}
    assert (state["rejected"], state["faults"]) == (1, {"lost-response": 1})
    assert state["window"] == {
        "name": "case_links",
        "rule": {"limit": 3, "period": 10.0},
        "remaining": 0,
        "reset": 10,
    }


async def test_state_has_keys_and_titles() -> None:
    """The state has the keys and titles of the cases and incidents of its links."""
    async with Sandbox(seed="demo") as sandbox, aiohttp.ClientSession() as session:
        state = await (await session.get(f"{sandbox.url}/_sandbox/state")).json()
        names = state["names"]
        ends = {
            (link[f"{end}_entity_type"], link[f"{end}_entity_id"])
            for link in state["links"]["latest"]
            for end in ("parent", "child")
        }
    assert {"key": "SHOP-2", "title": "orders-db connection pool exhausted"} in names.values()
    assert "IR-101" in {name["key"] for name in names.values()}
    assert set(names) == {entity_id for type_, entity_id in ends if type_ in ("CASE", "INCIDENT")}


@pytest.mark.browser
async def test_shows_keys_and_titles(tmp_path: Path) -> None:
    """A link on the page shows the keys and titles of its ends."""
    if FOUND is None:
        pytest.skip("Chromium is not installed")
    async with Sandbox(seed="demo") as sandbox, browsing(tmp_path / "profile") as tab:
        await tab.open(sandbox.url, width=1400, height=900)
        shown = await tab.value("[...document.querySelectorAll('#links .entity')].map(e => e.innerText)")
        assert "SHOP-2\norders-db connection pool exhausted" in shown
        assert tab.problems == []


async def test_links_to_the_graph() -> None:
    """With ``draw_graph``, the graph of an entity is a page of its own, and errors are text."""

    def draw(store: Store, entity_type: str, entity_id: str) -> str:
        if not entity_id:
            raise ParameterError("no id")
        return f"<p>{entity_type} {entity_id} {len(store)}"

    async with Sandbox(seed="demo", draw_graph=draw) as sandbox, aiohttp.ClientSession() as session:
        graph = f"{sandbox.url}/_sandbox/graph"
        response = await session.get(graph, params={"type": "CASE", "id": "x"})
        assert (response.status, response.content_type) == (200, "text/html")
        assert await response.text() == f"<p>CASE x {len(sandbox.links)}"
        response = await session.get(graph)
        assert (response.status, response.content_type) == (400, "text/plain")
        assert await response.text() == "no id"
        assert (await (await session.get(f"{sandbox.url}/_sandbox/state")).json())["has_graph"]
        assert list(sandbox.requests) == []


async def test_caps_what_it_shows(caller: Caller, sandbox: Sandbox) -> None:
    """The page shows the newest 200 links and requests, with the totals."""
    await asyncio.gather(*(caller.create() for _ in range(205)))

    state = (await caller.send("GET", "/_sandbox/state")).json

    for part in (state["links"], state["requests"]):
        assert (part["total"], len(part["latest"])) == (205, 200)
    assert [link["id"] for link in state["links"]["latest"]] == [link.id for link in sandbox.links[:4:-1]]
    assert [each["number"] for each in state["requests"]["latest"]] == list(range(205, 5, -1))
    assert (
        "the newest ${count(latest.length)} of ${count(total)}"
        in (await caller.send("GET", "/")).body.decode()
    )


async def test_does_not_count_itself(caller: Caller, sandbox: Sandbox) -> None:
    """Requests for the page and its state are not counted as requests to the API."""
    for path in ("/", "/_sandbox/state"):
        await caller.send("GET", path)
    assert list(sandbox.requests) == []

    assert (await caller.send("POST", "/_sandbox/state")).status == 404


async def test_shows_markup_as_text(caller: Caller, sandbox: Sandbox) -> None:
    """Markup that a client sends, in a path, a query or a body, is shown as text."""
    before = (await caller.send("GET", "/")).body.decode()
    await caller.send("GET", "/" + MARKUP)
    await caller.list(MARKUP)
    await caller.create(colour=MARKUP, relationship=MARKUP)
    await caller.create(note=MARKUP)

    page = (await caller.send("GET", "/")).body.decode()

    assert page.count("<") == before.count("<")
    (data,) = re.findall(r'<script type="application/json" id="state">(.*?)</script>', page, re.DOTALL)
    state = json.loads(data)
    assert MARKUP in state["requests"]["latest"][0]["body"]
    assert state == (await caller.send("GET", "/_sandbox/state")).json


async def test_runs_no_other_script(caller: Caller) -> None:
    """The policy of the page allows its own script and style only, by a number that is used once."""
    first, second = await caller.send("GET", "/"), await caller.send("GET", "/")

    policies = [reply.headers["Content-Security-Policy"] for reply in (first, second)]
    nonces = [re.findall(r"'nonce-([^']+)'", policy) for policy in policies]
    assert nonces[0] != nonces[1]
    assert re.findall(r'nonce="([^"]+)"', first.body.decode()) == nonces[0]
    assert policies[0].startswith("default-src 'none'; ")
    assert "unsafe" not in policies[0]


async def test_state_is_never_sniffed_or_cached(caller: Caller) -> None:
    """The state is never sniffed or cached by a browser."""
    for path in ("/", "/_sandbox/state"):
        headers = (await caller.send("GET", path)).headers
        assert (headers["X-Content-Type-Options"], headers["Cache-Control"]) == ("nosniff", "no-store")


async def test_script_writes_text_only() -> None:
    """The script of the page uses no function that parses a string as markup."""
    from importlib import resources

    page = resources.files("datadog_caselinks.sandbox").joinpath("page.html").read_text("utf-8")

    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "DOMParser"):
        assert way not in page
