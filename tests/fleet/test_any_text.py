"""A single link with unusual text or a failing callback does not affect the other links of its chunk."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from procrastinate import App

from datadog_caselinks import ApiKeys, CaseKey, CaseLinksClient, Relationship, RetryPolicy
from datadog_caselinks.bulk.create_links import Outcome
from datadog_caselinks.fleet import add_link_tasks, failed_links, list_runs, submit
from datadog_caselinks.fleet.database import pool_of
from datadog_caselinks.sandbox import Sandbox
from datadog_caselinks.values.models import LinkReference
from tests.fleet.work import all_done, links, made, once
from tests.support.api import Api
from tests.support.server import Exchange, Server

TEXTS = ["a\0b", "\0", "half \ud800", "\x1b[0m\r\n", "\U0001f517 Größe", "x" * 500_000]


@pytest.mark.parametrize("text", [text for text in TEXTS if "\ud800" not in text])
async def test_a_link_may_have_any_id(app: App, keys: ApiKeys, at_once: RetryPolicy, text: str) -> None:
    """Links with any id that a server may choose are created once."""
    api = Api(prefix=text)
    async with Server(api) as server, CaseLinksClient(server.url, keys, retry=at_once) as client:
        await submit(app, links(3), site=client.site)
        add_link_tasks(app, client)
        await all_done(app)
    (run,) = await list_runs(app)
    assert (run.created, run.pending, run.failed) == (3, 0, 0)
    assert len(api.links) == 3


@pytest.mark.parametrize("text", TEXTS)
async def test_an_error_may_have_any_text(app: App, keys: ApiKeys, at_once: RetryPolicy, text: str) -> None:
    """Links that are refused with any text fail with as much of the text as can be stored."""

    async def refuses(exchange: Exchange) -> None:
        if exchange.seen.method == "GET":
            await exchange.answer(200, b'{"data": []}')
        else:
            await exchange.answer(400, json.dumps({"errors": [f"refused: {text}"]}).encode())

    async with Server(refuses) as server, CaseLinksClient(server.url, keys, retry=at_once) as client:
        await submit(app, links(3), site=client.site)
        add_link_tasks(app, client)
        await all_done(app)
    errors = [link.error async for link in failed_links(app)]
    assert len(errors) == 3
    assert all("refused:" in error for error in errors)


async def test_a_row_that_is_not_a_link_fails_alone(
    app: App, sandbox: Sandbox, client: CaseLinksClient
) -> None:
    """A row that is not a valid link fails on its own and does not block its chunk."""
    wanted = links(3)
    nobody = LinkReference(CaseKey("no \ud800\0key"), Relationship.BLOCKS, wanted[0].child)
    await submit(app, [*wanted, nobody], site=client.site)
    async with pool_of(app).connection() as connection:
        await connection.execute("UPDATE caselinks_links SET relationship = 'EATS' WHERE number = 3")
    add_link_tasks(app, client)
    await all_done(app)
    failed = [(link.number, link.error) async for link in failed_links(app)]
    assert [number for number, _ in failed] == [3, 4]
    assert "EATS" in failed[0][1]
    assert "does not name an entity" in failed[1][1]
    assert made(sandbox) == once(wanted[:2])


async def test_only_rows_that_are_not_links_fail(app: App, client: CaseLinksClient) -> None:
    """A chunk with only invalid rows ends."""
    await submit(app, [LinkReference(CaseKey("?"), Relationship.BLOCKS, links(1)[0].child)], site=client.site)
    add_link_tasks(app, client)
    await all_done(app)
    assert [run.failed for run in await list_runs(app)] == [1]


@pytest.mark.parametrize("error", [ZeroDivisionError("a mistake"), asyncio.CancelledError()])
async def test_a_callback_that_raises_holds_up_no_link(
    error: BaseException,
    app: App,
    sandbox: Sandbox,
    client: CaseLinksClient,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An error of the callback is logged, and every link gets its outcome."""

    def fails(run: int, number: int, outcome: Outcome) -> None:
        raise error

    await submit(app, links(3), site=client.site)
    add_link_tasks(app, client, on_outcome=fails)
    with caplog.at_level(logging.ERROR, "datadog_caselinks"):
        await all_done(app)
    (run,) = await list_runs(app)
    assert (run.created, run.pending) == (3, 0)
    assert made(sandbox) == once(links(3))
    assert caplog.text.count("on_outcome failed") == 3
