"""A substitute for Slack on loopback: the parts of its web API and Socket Mode that a bot needs."""

from __future__ import annotations

import asyncio
from typing import Any, Self

from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.support.waiting import MAX_SECONDS


class Slack:
    """A server that sends commands to the connected bot and receives its messages."""

    def __init__(self) -> None:
        self._said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._sockets: asyncio.Queue[web.WebSocketResponse] = asyncio.Queue()
        self._acknowledged: asyncio.Queue[str] = asyncio.Queue()
        app = web.Application()
        app.add_routes(
            [
                web.post("/api/auth.test", self._tell_who_asks),
                web.post("/api/apps.connections.open", self._offer_a_socket),
                web.get("/socket", self._serve_a_socket),
                web.post("/respond", self._hear),
            ]
        )
        self._server = TestServer(app)

    async def __aenter__(self) -> Self:
        await self._server.start_server()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()

    @property
    def api_url(self) -> str:
        """Return the base URL of the web API."""
        return str(self._server.make_url("/api/"))

    def command(self, text: str) -> dict[str, str]:
        """Return the payload that Slack sends for ``/link`` with ``text``."""
        return {
            "command": "/link",
            "text": text,
            "response_url": str(self._server.make_url("/respond")),
            "team_id": "T1",
            "channel_id": "C1",
            "user_id": "U1",
        }

    async def send(self, text: str) -> None:
        """Send a command to the bot after it has connected, and return when it acknowledges the command."""
        envelope = {"type": "slash_commands", "envelope_id": "E1", "payload": self.command(text)}
        async with asyncio.timeout(MAX_SECONDS):
            socket = await self._sockets.get()
            await socket.send_json(envelope)
            assert await self._acknowledged.get() == "E1"

    @property
    def is_silent(self) -> bool:
        """Return whether no message of a bot is waiting to be read."""
        return self._said.empty()

    async def heard(self) -> dict[str, Any]:
        """Return the next message that a bot sends to the response URL of the command."""
        async with asyncio.timeout(MAX_SECONDS):
            return await self._said.get()

    async def _tell_who_asks(self, _: web.Request) -> web.Response:
        return web.json_response({"ok": True, "team_id": "T1", "user_id": "U2", "bot_id": "B1"})

    async def _offer_a_socket(self, _: web.Request) -> web.Response:
        url = self._server.make_url("/socket").with_scheme("ws")
        return web.json_response({"ok": True, "url": str(url)})

    async def _serve_a_socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await self._sockets.put(socket)
        async for message in socket:
            await self._acknowledged.put(message.json()["envelope_id"])
        return socket

    async def _hear(self, request: web.Request) -> web.Response:
        await self._said.put(await request.json())
        return web.Response(text="ok")
