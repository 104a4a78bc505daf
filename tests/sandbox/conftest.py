"""What the sandbox's tests share: a clock that stands still, a sandbox, and plain HTTP to talk to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import aiohttp
import pytest
from attrs import define, frozen

from datadog_caselinks.sandbox import Sandbox

CASE = "bf0cbac6-4c16-4cfb-b6bf-ca5e0ec37a4f"
OTHER_CASE = "4417921d-0866-4a38-822c-6f2a0f65f77d"


@define
class Clock:
    """Seconds since the epoch, moved by the test; the start lies on the border of every window."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@frozen
class Reply:
    """An answer that has been read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def details(self) -> list[str]:
        """The details of a 400."""
        return [error["detail"] for error in self.json["errors"]]


@define
class Caller:
    """Sends requests to one sandbox, with its keys unless other ``headers`` are given."""

    sandbox: Sandbox
    http: aiohttp.ClientSession

    async def send(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **options: Any
    ) -> Reply:
        if headers is None:
            headers = (await self.sandbox.credentials.authenticate()).headers
        url = self.sandbox.url + path
        async with self.http.request(method, url, headers=headers, **options) as response:
            return Reply(response.status, response.headers, await response.read())

    async def create(self, *, headers: Mapping[str, str] | None = None, **attributes: Any) -> Reply:
        """Create the link of the reference's example, with changes; ``None`` leaves one out."""
        document = {"data": {"type": "link", "attributes": self.attributes(**attributes)}}
        return await self.send("POST", "/api/v2/cases/link", json=document, headers=headers)

    async def create_two(self) -> tuple[Reply, asyncio.Task[Reply]]:
        """Two creates, of which a slow fault holds one up: the other's reply, and the one that waits."""
        two = [asyncio.create_task(self.create()) for _ in range(2)]
        (done,), (waiting,) = await asyncio.wait(two, return_when=asyncio.FIRST_COMPLETED)
        return done.result(), waiting

    async def list(self, entity_id: str = CASE, entity_type: str = "CASE", **query: str) -> Reply:
        query = {"entity_type": entity_type, "entity_id": entity_id, **query}
        return await self.send("GET", "/api/v2/cases/link", params=query)

    async def get(self, name: str, *, headers: Mapping[str, str] | None = None) -> Reply:
        return await self.send("GET", f"/api/v2/cases/{name}", headers=headers)

    async def delete(self, link_id: str, *, headers: Mapping[str, str] | None = None) -> Reply:
        return await self.send("DELETE", f"/api/v2/cases/link/{link_id}", headers=headers)

    @staticmethod
    def attributes(**changes: Any) -> dict[str, Any]:
        attributes = {
            "parent_entity_type": "CASE",
            "parent_entity_id": CASE,
            "relationship": "BLOCKS",
            "child_entity_type": "CASE",
            "child_entity_id": OTHER_CASE,
            **changes,
        }
        return {name: value for name, value in attributes.items() if value is not None}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def sandbox(clock: Clock) -> AsyncIterator[Sandbox]:
    async with Sandbox(clock=clock) as sandbox:
        yield sandbox


@pytest.fixture
def caller_of(http: aiohttp.ClientSession) -> Callable[[Sandbox], Caller]:
    return lambda sandbox: Caller(sandbox, http)


@pytest.fixture
def caller(sandbox: Sandbox, caller_of: Callable[[Sandbox], Caller]) -> Caller:
    return caller_of(sandbox)
