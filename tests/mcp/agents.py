"""An agent for tests: the protocol's own client, in this process, over HTTP or over a program's streams."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import AsyncIterator
from typing import Any, Final

import httpx2
from attrs import frozen
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from datadog_caselinks.mcp import AgentServer, serve_http
from tests.support.server import Exchange, head

TOKEN: Final = "a-token-for-tests-only"
A_LINK: Final = {"entity": "MAIL-1", "relationship": "blocks", "other": "MAIL-2"}


@frozen
class Agent:
    """An agent that is connected to a server."""

    client: Client

    async def call(self, name: str, **arguments: Any) -> Any:
        """Call a tool that has to succeed, and return its structured content, which its text repeats."""
        result = await self.client.call_tool(name, arguments)
        assert not result.is_error, result.content
        assert json.loads(text_of(result)) == result.structured_content
        return result.structured_content

    async def refused(self, name: str, **arguments: Any) -> str:
        """Call a tool that has to fail, and return its error."""
        result = await self.client.call_tool(name, arguments)
        assert result.is_error
        assert result.structured_content is None
        return text_of(result)

    async def tools(self) -> dict[str, Any]:
        return {tool.name: tool for tool in (await self.client.list_tools()).tools}

    async def read(self, uri: str) -> str:
        """Read a resource that is a text."""
        [content] = (await self.client.read_resource(uri, cache_mode="bypass")).contents
        return str(content.model_dump()["text"])

    async def unreadable(self, uri: str) -> str:
        """Read a resource that has to fail, and return the error."""
        try:
            await self.client.read_resource(uri)
        except MCPError as error:
            return str(error)
        raise AssertionError(f"{uri} can be read")


def text_of(result: Any) -> str:
    """The only text of a result."""
    [content] = result.content
    return str(content.text)


@contextlib.asynccontextmanager
async def connected(server: Any, **options: Any) -> AsyncIterator[Agent]:
    """Connect an agent to a server in this process, or over a transport."""
    async with Client(server, **options) as client:
        yield Agent(client)


@contextlib.asynccontextmanager
async def serving(server: AgentServer) -> AsyncIterator[str]:
    """Serve over HTTP, and yield the URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.ensure_future(serve_http(server, listener, TOKEN))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
        finally:
            serving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await serving


@contextlib.asynccontextmanager
async def over_http(url: str, **options: Any) -> AsyncIterator[Agent]:
    """Connect an agent to ``url``."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with (
        httpx2.AsyncClient(headers=headers) as http,
        connected(streamable_http_client(url, http_client=http), **options) as agent,
    ):
        yield agent


def titles_in(text: str) -> list[str]:
    """What is between « and »."""
    return re.findall("«([^«»]*)»", text)


async def drips(exchange: Exchange) -> None:
    """Respond without end, for as long as the client reads."""
    await exchange.send(head(200, Content_Length="100000"))
    while not exchange.writer.is_closing():
        await exchange.send(b" ")
        await asyncio.sleep(0.001)
