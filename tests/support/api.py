"""A step for a scripted server that behaves like Datadog's API and stores links."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import Any
from urllib.parse import parse_qs, urlsplit

from attrs import Factory, define, field

from tests.support.server import Exchange, Step

LINKS_PATH = "/api/v2/cases/link"


@define
class Api:
    """A step that creates, lists and deletes ``links`` as the API does.

    Each link gets a unique id, which begins with ``prefix``.
    """

    links: list[dict[str, Any]] = Factory(list)
    prefix: str = "link-"
    _numbers: Iterator[int] = field(factory=count, init=False)

    async def __call__(self, exchange: Exchange) -> None:
        match exchange.seen.method:
            case "POST":
                self.make(exchange.seen.json["data"]["attributes"])
                await exchange.answer(201, json.dumps({"data": self.links[-1]}).encode())
            case "GET":
                await exchange.answer(200, json.dumps({"data": self._around(exchange.seen.target)}).encode())
            case _:
                kept = [link for link in self.links if not exchange.seen.target.endswith(f"/{link['id']}")]
                is_gone, self.links = len(kept) < len(self.links), kept
                await exchange.answer(204 if is_gone else 404)

    def make(self, attributes: dict[str, str]) -> None:
        """Store a link, even if an equal one exists already."""
        self.links.append(
            {"type": "link", "id": f"{self.prefix}{next(self._numbers)}", "attributes": attributes}
        )

    def applies(self, step: Step) -> Step:
        """Return a step that stores the requested link and then responds with ``step``."""

        async def applied(exchange: Exchange) -> None:
            self.make(exchange.seen.json["data"]["attributes"])
            await step(exchange)

        return applied

    def _around(self, target: str) -> list[dict[str, Any]]:
        query = {name: values[0] for name, values in parse_qs(urlsplit(target).query).items()}
        wanted = query["entity_type"], query["entity_id"]
        return [
            link
            for link in self.links
            for ends in [link["attributes"]]
            if wanted
            in [(ends[f"{side}_entity_type"], ends[f"{side}_entity_id"]) for side in ("parent", "child")]
        ]
