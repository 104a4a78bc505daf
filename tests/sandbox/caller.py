"""A plain HTTP client for tests of the sandbox."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import aiohttp
from attrs import define, frozen

from datadog_caselinks.sandbox import Sandbox

CASE = "bf0cbac6-4c16-4cfb-b6bf-ca5e0ec37a4f"
OTHER_CASE = "4417921d-0866-4a38-822c-6f2a0f65f77d"


@frozen
class Reply:
    """A response whose body has been read."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def details(self) -> list[str]:
        """The details of all errors in the body."""
        return [error["detail"] for error in self.json["errors"]]


@define
class Caller:
    """A plain HTTP client of one sandbox. It sends the sandbox's keys unless other ``headers`` are given."""

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
        """Create the example link of the API reference with changed attributes; ``None`` omits one."""
        document = {"data": {"type": "link", "attributes": self.attributes(**attributes)}}
        return await self.send("POST", "/api/v2/cases/link", json=document, headers=headers)

    async def create_two(self) -> tuple[Reply, asyncio.Task[Reply]]:
        """Send two creates while a slow fault delays one; return the first reply and the delayed task."""
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
