"""Steps for a scripted server: good responses, errors, broken connections and silence."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.support.server import Exchange, Step, head


def link_id(attributes: dict[str, str]) -> str:
    """Return the id that :func:`created` gives to a link: the id of the child with a prefix."""
    return f"link-{attributes['child_entity_id']}"


def link_json(attributes: dict[str, str]) -> dict[str, Any]:
    """Return the JSON of a link, as the API formats it."""
    return {"type": "link", "id": link_id(attributes), "attributes": attributes}


async def created(exchange: Exchange) -> None:
    """Respond as if the requested link had been created."""
    body = json.dumps({"data": link_json(exchange.seen.json["data"]["attributes"])}).encode()
    await exchange.answer(201, body, Content_Type="application/vnd.api+json")


async def listed(exchange: Exchange) -> None:
    """Respond with an empty list of links."""
    await exchange.answer(200, b'{"data": []}')


async def deleted(exchange: Exchange) -> None:
    """Respond as if the link had been deleted."""
    await exchange.answer(204)


def answers(status: int, body: bytes = b"", **headers: str) -> Step:
    """Return a step that sends this response. A ``_`` in the name of a header means a hyphen."""

    async def step(exchange: Exchange) -> None:
        await exchange.answer(status, body, **headers)

    return step


def sends(*parts: bytes) -> Step:
    """Return a step that sends these bytes and closes the connection."""

    async def step(exchange: Exchange) -> None:
        await exchange.send(*parts)
        exchange.close()

    return step


async def drops(exchange: Exchange) -> None:
    """Close the connection without a response."""
    exchange.close()


async def resets(exchange: Exchange) -> None:
    """Reset the connection without a response."""
    exchange.reset()


async def is_silent(_: Exchange) -> None:
    """Never respond."""
    await asyncio.Event().wait()


def repeats(head: bytes, chunk: bytes) -> Step:
    """Return a step that sends ``head`` and then ``chunk`` without end."""

    async def step(exchange: Exchange) -> None:
        await exchange.send(head)
        while True:
            await exchange.send(chunk)

    return step


class Held:
    """A step that delays its responses until the test releases them."""

    def __init__(self, step: Step = created) -> None:
        self._step = step
        self._permits = asyncio.Semaphore(0)

    async def __call__(self, exchange: Exchange) -> None:
        await self._permits.acquire()
        await self._step(exchange)

    def release(self, count: int = 1) -> None:
        """Let the server send ``count`` more responses."""
        for _ in range(count):
            self._permits.release()


UNCLEAR: dict[str, Step] = {
    "dropped": drops,
    "reset": resets,
    "dropped within the headers": sends(b"HTTP/1.1 201 Created\r\nContent-Le"),
    "dropped within the body": sends(head(201, Content_Length="99"), b'{"data"'),
    "a garbage status line": sends(b"HTTP/1.1 none of your business\r\n\r\n"),
    "not gzip": answers(201, b"nonsense", Content_Encoding="gzip"),
    **{str(status): answers(status) for status in (408, 500, 502, 503, 504)},
}
"""Steps after which a client cannot know whether its request was processed."""

_OTHER = {
    "parent_entity_type": "CASE",
    "parent_entity_id": "4417921d-0866-4a38-822c-6f2a0f65f77d",
    "relationship": "BLOCKS",
    "child_entity_type": "CASE",
    "child_entity_id": "bf0cbac6-4c16-4cfb-b6bf-ca5e0ec37a4f",
}

MALFORMED: dict[str, Step] = {
    "201 without a body": answers(201),
    "201 of broken JSON": answers(201, b'{"data": {"id": '),
    "201 that is not a link": answers(201, b'{"data": {}}'),
    "201 about another link": answers(201, json.dumps({"data": link_json(_OTHER)}).encode()),
    "204": answers(204),
}
"""Steps that report success but do not describe the link."""
