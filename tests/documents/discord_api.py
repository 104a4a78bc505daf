"""A substitute for Discord's web API on loopback, with which a bot logs in and registers its commands."""

from __future__ import annotations

import json
from typing import Any, Final, Self

from aiohttp import web
from aiohttp.test_utils import TestServer

_USER: Final = {"id": "1", "username": "link", "discriminator": "0", "avatar": None}
_APPLICATION: Final = {
    "id": "2",
    "name": "link",
    "description": "",
    "icon": None,
    "verify_key": "",
    "owner": _USER,
    "bot_public": False,
    "bot_require_code_grant": False,
}


class DiscordApi:
    """A server that accepts every token; ``commands`` has the commands that a bot registered."""

    def __init__(self) -> None:
        self.commands: list[dict[str, Any]] = []
        app = web.Application()
        app.add_routes(
            [
                web.get("/users/@me", self._tell_who_asks),
                web.get("/oauth2/applications/@me", self._tell_what_asks),
                web.put("/applications/2/commands", self._register),
            ]
        )
        self._server = TestServer(app)

    async def __aenter__(self) -> Self:
        await self._server.start_server()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()

    @property
    def url(self) -> str:
        """Return the base URL, without a trailing slash."""
        return str(self._server.make_url("/")).rstrip("/")

    async def _tell_who_asks(self, _: web.Request) -> web.Response:
        return _answer(_USER)

    async def _tell_what_asks(self, _: web.Request) -> web.Response:
        return _answer(_APPLICATION)

    async def _register(self, request: web.Request) -> web.Response:
        self.commands = await request.json()
        return _answer([])


def _answer(document: object) -> web.Response:
    # discord.py does not parse JSON if the content type has a charset.
    return web.Response(body=json.dumps(document).encode(), content_type="application/json")
