"""Ports, connections and plain TCP servers on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

HOST = "127.0.0.1"


@contextlib.asynccontextmanager
async def listening(
    connected: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[int]:
    """Serve every TCP connection with ``connected`` and yield the port; close all connections at the end."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await connected(reader, writer)
        except (OSError, EOFError, asyncio.CancelledError):
            pass  # the client left, or the server is closing
        finally:
            writer.transport.abort()
            tasks.discard(task)

    server = await asyncio.start_server(serve, HOST, 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def unused_port() -> int:
    """Return a port that no process listens on."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        port: int = free.getsockname()[1]
        return port


def sockets_to(port: int) -> int:
    """Count the open sockets of this process that are connected to ``port``."""
    count = 0
    for found in gc.get_objects():
        if issubclass(type(found), socket.socket) and found.family == socket.AF_INET:
            with contextlib.suppress(OSError):  # closed or not connected
                count += found.getpeername()[1] == port
    return count
