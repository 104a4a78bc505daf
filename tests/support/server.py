"""An HTTP server on loopback whose responses a test scripts, request by request."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from typing import Any, Self

from attrs import define, frozen
from multidict import CIMultiDict

from tests.support.tcp import HOST
from tests.support.waiting import MAX_SECONDS


@frozen
class Seen:
    """A request as the server received it; ``connection`` numbers the server's connections from 0."""

    method: str
    target: str
    headers: CIMultiDict[str]
    body: bytes
    connection: int

    @property
    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)


@define
class Exchange:
    """A request, with methods to respond to it correctly or incorrectly."""

    seen: Seen
    writer: asyncio.StreamWriter

    async def send(self, *parts: bytes) -> None:
        """Send each of ``parts`` unchanged."""
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()

    async def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Send a complete response. A ``_`` in the name of a header means a hyphen."""
        await self.send(head(status, Content_Length=str(len(body)), **headers) + body)

    def close(self) -> None:
        """Close the connection gracefully."""
        self.writer.close()

    def reset(self) -> None:
        """Close the connection with a TCP reset."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Step = Callable[[Exchange], Awaitable[None]]
"""A function that handles one request. ``tests.support.steps`` defines common ones."""


def head(status: int, **headers: str) -> bytes:
    """Return a status line and headers. A ``_`` in the name of a header means a hyphen."""
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


class Server:
    """An HTTP server on loopback that handles each request with the next of ``steps``.

    The last step handles all further requests. When the context ends, the server closes its connections.

    Args:
        steps: The steps, in order.
        tls: The context to serve HTTPS with.
        host: The host name in the URL of the server.
    """

    def __init__(self, *steps: Step, tls: ssl.SSLContext | None = None, host: str = HOST) -> None:
        self._steps = list(steps)
        self._tls = tls
        self._host = host
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self.seen: list[Seen] = []
        self.connections = 0
        self.open_connections = 0
        self.busy = 0
        self.most_busy = 0

    @property
    def url(self) -> str:
        """The base URL of the server."""
        return f"{'https' if self._tls else 'http'}://{self._host}:{self.port}"

    @property
    def methods(self) -> list[str]:
        """The methods of all received requests."""
        return [seen.method for seen in self.seen]

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, HOST, 0, ssl=self._tls, backlog=1024)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def stop_listening(self) -> None:
        """Refuse new connections and keep the open ones."""
        self._server.close()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until ``holds()`` is true; it is checked after each change of requests or connections."""
        async with asyncio.timeout(MAX_SECONDS), self._changed:
            await self._changed.wait_for(holds)

    async def until_seen(self, count: int) -> None:
        """Wait until the server has received ``count`` requests."""
        await self.until(lambda: len(self.seen) >= count)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        number, self.connections = self.connections, self.connections + 1
        self.open_connections += 1
        try:
            await self._notify()
            while not writer.is_closing() and (seen := await _read_request(reader, number)):
                await self._handle(Exchange(seen, writer))
        except (OSError, asyncio.CancelledError):
            pass  # the client left, or the server is closing
        finally:
            writer.transport.abort()
            self.open_connections -= 1
            self._tasks.discard(task)
            await self._notify()

    async def _handle(self, exchange: Exchange) -> None:
        self.seen.append(exchange.seen)
        step = self._steps.pop(0) if len(self._steps) > 1 else self._steps[0]
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        try:
            await self._notify()
            await step(exchange)
        finally:
            self.busy -= 1

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


async def _read_request(reader: asyncio.StreamReader, connection: int) -> Seen | None:
    try:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ")
        headers = CIMultiDict[str]()
        for line in filter(None, lines[1:]):
            headers.add(*line.split(": ", 1))
        body = await reader.readexactly(int(headers.get("Content-Length", "0")))
    except asyncio.IncompleteReadError:
        return None
    return Seen(method, target, headers, body, connection)
