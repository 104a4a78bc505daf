"""A TCP forwarder on loopback that can stop forwarding, as a network or a server that hangs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Self

from tests.support.tcp import HOST, listening


class Forwarder:
    """Forwards every connection to ``target``, a port on loopback. ``connections`` counts them."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._is_flowing = asyncio.Event()
        self._is_flowing.set()
        self.connections = 0
        self.port = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Serve until the context ends."""
        async with listening(self._connected) as self.port:
            yield self

    def hang(self) -> None:
        """Accept connections and bytes, and forward none of them."""
        self._is_flowing.clear()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await self._is_flowing.wait()
        far_reader, far_writer = await asyncio.open_connection(HOST, self._target)
        try:
            await asyncio.gather(self._pipe(reader, far_writer), self._pipe(far_reader, writer))
        finally:
            far_writer.transport.abort()

    async def _pipe(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(2**16):
            await self._is_flowing.wait()
            target.write(data)
            await target.drain()
        target.close()
