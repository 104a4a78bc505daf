"""An HTTP proxy on loopback."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import ssl
from collections.abc import AsyncIterator
from typing import Self

from attrs import Factory, define

from tests.support.server import head
from tests.support.tcp import HOST, listening


@define
class Proxy:
    """An HTTP proxy that tunnels with CONNECT.

    Args:
        login: The ``user:password`` that a client must send. By default, every client is accepted.
        status: The status of the response to CONNECT. The proxy opens a tunnel only if it is 200.
        tls: The context to serve clients with, for a proxy with an ``https`` URL.
        requests: The received requests.
        port: The port, while the proxy runs.
    """

    login: str | None = None
    status: int = 200
    tls: ssl.SSLContext | None = None
    requests: list[bytes] = Factory(list)
    port: int = 0

    @property
    def url(self) -> str:
        """The URL of the proxy, with its login."""
        login = f"{self.login}@" if self.login else ""
        return f"{'https' if self.tls else 'http'}://{login}{HOST}:{self.port}"

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Serve until the context ends."""
        async with listening(self._connected, self.tls) as self.port:
            yield self

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        self.requests.append(request)
        expected = base64.b64encode((self.login or "").encode())
        status = self.status if not self.login or expected in request else 407
        writer.write(head(status, Content_Length="0") if status != 200 else head(200))
        await writer.drain()
        if status == 200:
            target = re.match(rb"CONNECT ([^ :]+):(\d+) ", request)
            assert target, request
            await _tunnel(reader, writer, target[1].decode(), int(target[2]))


async def _tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int) -> None:
    far_reader, far_writer = await asyncio.open_connection(host, port)

    async def pipe(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(2**16):
                target.write(data)
                await target.drain()
        target.close()

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(pipe(reader, far_writer))
            group.create_task(pipe(far_reader, writer))
    finally:
        far_writer.transport.abort()
