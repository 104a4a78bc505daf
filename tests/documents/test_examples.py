"""Every example runs as it stands, against a sandbox."""

from __future__ import annotations

import asyncio
import csv
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from datadog_caselinks.models import Entity, NewCaseLink
from datadog_caselinks.sandbox import Fault, Sandbox

EXAMPLES = Path(__file__).parents[2] / "examples"
CASE = "4417921d-0866-4a38-822c-6f2a0f65f77d"
OTHER = "bf0cbac6-4c16-4cfb-b6bf-ca5e0ec37a4f"


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox() as sandbox:
        yield sandbox


async def start(
    sandbox: Sandbox, example: str, *arguments: str, **environment: str
) -> asyncio.subprocess.Process:
    """Start an example with the sandbox in its environment, as its docstring says."""
    keys = sandbox.credentials
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-W", "error", "-u", str(EXAMPLES / example), *arguments),
        env={
            **os.environ,
            "DD_SITE": sandbox.url,
            "DD_API_KEY": keys.api_key,
            "DD_APP_KEY": keys.app_key,
            **environment,
        },
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def test_gather_links_a_chain(sandbox: Sandbox) -> None:
    """Ten made-up cases make a chain of nine links, two of them at the second case."""
    process = await start(sandbox, "gather.py")
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert output.decode().count("made:  ") == len(sandbox.links) == 9
    assert "2 links at case" in output.decode()


async def test_gather_says_what_was_not_made(sandbox: Sandbox) -> None:
    """A link that the server refuses is told, with the reason, and the others are made."""
    sandbox.fail_next(Fault.HTTP_503_RETRY_AFTER, operation="create", seconds=1000)
    process = await start(sandbox, "gather.py", CASE, OTHER, CASE)
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert output.decode().count("not made:") == 1


async def test_the_web_service_links_and_refuses(sandbox: Sandbox) -> None:
    """A request makes a link; a malformed one is answered with what is wrong; Ctrl-C ends it cleanly."""
    process = await start(sandbox, "web_service.py", PORT="0")
    assert process.stdout
    line = (await process.stdout.readline()).decode()
    url = line.split()[3]
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{url}/incidents/{OTHER}/causes/{CASE}") as made:
            assert made.status == 201
            assert (await made.json())["link"] == sandbox.links[0].id
        async with session.post(f"{url}/incidents/{OTHER}/causes/DDFC-1") as refused:
            assert refused.status == 400
            assert "is a case key" in await refused.text()
        sandbox.fail_next(Fault.HTTP_429_RETRY_AFTER, seconds=1000)
        async with session.post(f"{url}/incidents/{OTHER}/causes/{CASE}") as failed:
            assert failed.status == 502
            assert "the server asks for 1000 s" in await failed.text()
    process.send_signal(signal.SIGINT)
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert "Traceback" not in output.decode()


async def test_the_bot_answers_on_the_console(sandbox: Sandbox) -> None:
    """A command makes a link; what it cannot understand it explains."""
    process = await start(sandbox, "bot.py")
    output, _ = await process.communicate(
        f"/link {CASE} blocks {OTHER}\nhello\n/link X-1 blocks {CASE}\n".encode()
    )
    assert process.returncode == 0, output.decode()
    usage, done, other_talk, wrong_id = output.decode().splitlines()
    assert done == f"Done: CASE {CASE} BLOCKS CASE {OTHER} (link {sandbox.links[0].id})"
    assert other_talk == f"Sorry: {usage}"
    assert wrong_id.startswith("Sorry: 'X-1' is a case key")


async def test_the_bot_answers_in_the_chat(sandbox: Sandbox) -> None:
    """With a webhook the answer is posted there, over the session that the links use too."""
    said: list[str] = []

    async def hear(request: web.Request) -> web.Response:
        said.append((await request.json())["text"])
        return web.Response()

    chat = web.Application()
    chat.add_routes([web.post("/hook", hear)])
    runner = web.AppRunner(chat)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    process = await start(sandbox, "bot.py", CHAT_WEBHOOK_URL=f"http://{host}:{port}/hook")
    await process.communicate(f"/link {CASE} blocks {OTHER}\n".encode())
    await runner.cleanup()
    assert [text.split(":")[0] for text in said] == ["Done"]


def test_the_post_mortem_is_believable() -> None:
    """Some forty links, all valid, each once, among cases, incidents and pages, with every relationship."""
    with (EXAMPLES / "postmortem.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    links = [
        NewCaseLink(
            Entity(row["parent_id"], row["parent_type"]),
            row["relationship"],
            Entity(row["child_id"], row["child_type"]),
        )
        for row in rows
    ]
    assert 35 <= len(set(links)) == len(links) <= 45
    assert {entity.type for link in links for entity in (link.parent, link.child)} == {
        "CASE",
        "INCIDENT",
        "PAGE",
    }
    assert len({link.relationship for link in links}) == 7
