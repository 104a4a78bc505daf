"""A server whose responses contain terminal control characters: its text stays on one line, as text."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from aiohttp.typedefs import Handler

from tests.cli.program import caselinks, environment
from tests.cli.waits import waiting_for_nothing
from tests.support.ids import some_id

HOSTILE: Final = "\x1b[2J\x1b]0;x\x07\r\n\u202e"  # clears the screen, sets the title, reverses text
PAGE: Final = f"page:{some_id(9)}"


async def _create(request: web.Request) -> web.Response:
    document = await request.json()
    document["data"]["id"] = f"id{HOSTILE}"
    return web.json_response(document, status=201)


async def _list(_: web.Request) -> web.Response:
    names = ("parent_entity_id", "parent_entity_type", "relationship", "child_entity_id", "child_entity_type")
    link: dict[str, Any] = {"id": f"id{HOSTILE}", "attributes": dict.fromkeys(names, f"x{HOSTILE}")}
    return web.json_response({"data": [link]})


async def _get(_: web.Request) -> web.Response:
    attributes = dict.fromkeys(("key", "title", "status", "priority"), f"x{HOSTILE}")
    return web.json_response({"data": {"id": some_id(1), "type": "case", "attributes": attributes}})


async def _refuse(_: web.Request) -> web.Response:
    errors: list[object] = [f"no{HOSTILE}", {"title": HOSTILE, "detail": HOSTILE}]
    return web.json_response({"errors": errors}, status=403)


@pytest.fixture
def requested() -> list[str]:
    """Return the paths of the requests that the server has received."""
    return []


@pytest.fixture
async def hostile(requested: list[str]) -> AsyncIterator[dict[str, str]]:
    """Yield the environment for a server whose responses contain control characters."""

    @web.middleware
    async def record(request: web.Request, handler: Handler) -> web.StreamResponse:
        requested.append(request.path)
        return await handler(request)

    app = web.Application(middlewares=[record])
    app.router.add_post("/api/v2/cases/link", _create)
    app.router.add_get("/api/v2/cases/link", _list)
    app.router.add_delete("/api/v2/cases/link/{id}", _refuse)
    app.router.add_get("/api/v2/cases/{key}", _get)
    async with TestServer(app) as server:
        site = str(server.make_url(""))
        yield waiting_for_nothing(environment(DD_SITE=site, DD_API_KEY="api-key", DD_APP_KEY="app-key"))


@pytest.mark.parametrize(
    "command",
    [
        ["create", "SHOP-1", "blocks", PAGE],
        ["list", "SHOP-1"],
        ["list", "SHOP-1", "--output", "jsonl"],
        ["graph", "SHOP-1"],
        ["graph", "SHOP-1", "--format", "dot"],
        ["graph", "SHOP-1", "--format", "mermaid"],
        ["delete", some_id(8)],
        ["bulk", "{file}"],
        ["plan", "--prune", "{file}"],
        ["doctor"],
    ],
    ids=" ".join,
)
async def test_no_command_shows_what_moves_a_cursor(
    command: list[str], hostile: dict[str, str], requested: list[str], tmp_path: Path
) -> None:
    """No command prints a control character from ids, keys, titles or errors of a server."""
    file = tmp_path / "links.csv"
    file.write_text(f"parent,relationship,child\nSHOP-1,blocks,{PAGE}\n")
    done = await caselinks(hostile, *(word.format(file=file) for word in command))
    assert requested
    assert_harmless(done.out + done.err)


async def test_nor_does_the_journal_of_a_run(hostile: dict[str, str], tmp_path: Path) -> None:
    """The journal of a run stores a hostile id unchanged, and shows it without control characters."""
    file, journal = tmp_path / "links.csv", tmp_path / "run.journal"
    file.write_text(f"parent,relationship,child\nSHOP-1,blocks,{PAGE}\n")
    await caselinks(hostile, "bulk", "--no-lookup", "--journal", str(journal), str(file))
    done = await caselinks(hostile, "journal", "show", str(journal))
    assert done.out.startswith("created\t")
    assert_harmless(done.out)


def assert_harmless(text: str) -> None:
    assert text
    assert all(char.isprintable() or char in "\t\n" for char in text), text
