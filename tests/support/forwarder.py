"""A TCP forwarder on loopback that can hang, or cut a connection, as a network or a server does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Literal, NoReturn, Self

from tests.support.tcp import HOST, listening


class Forwarder:
    """Forwards every connection to ``target``, a port on loopback. ``connections`` counts them."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._is_flowing = asyncio.Event()
        self._is_flowing.set()
        self._cut_at: tuple[bytes, Literal["unsent", "sent", "responded"]] | None = None
        self._hangs = False
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

    def cut_at(
        self, request: bytes, when: Literal["unsent", "sent", "responded"], *, hangs: bool = False
    ) -> None:
        """Cut the next connection with this request, before or after it is sent, or when the response comes.

        With ``hangs``, new connections hang after that.
        """
        self._cut_at, self._hangs = (request, when), hangs

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await self._is_flowing.wait()
        far_reader, far_writer = await asyncio.open_connection(HOST, self._target)
        try:
            is_cut = asyncio.Event()
            await asyncio.gather(
                self._pipe(reader, far_writer, is_cut),
                self._pipe(far_reader, writer, is_cut, is_response=True),
            )
        finally:
            far_writer.transport.abort()

    async def _pipe(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        is_cut: asyncio.Event,
        *,
        is_response: bool = False,
    ) -> None:
        while data := await source.read(2**16):
            await self._is_flowing.wait()
            when = ""
            if not is_response and self._cut_at and self._cut_at[0] in data:
                (_, when), self._cut_at = self._cut_at, None
                is_cut.set()
            if when == "unsent" or (is_response and is_cut.is_set()):
                self._cut()
            target.write(data)
            await target.drain()
            if when == "sent":
                self._cut()
        target.close()

    def _cut(self) -> NoReturn:
        if self._hangs:
            self.hang()
        raise ConnectionResetError
