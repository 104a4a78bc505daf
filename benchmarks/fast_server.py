"""A minimal asyncio server, so that a benchmark measures the client.

The server creates every requested link and parses only what the response needs. Like Datadog, it reports a
rate limit in every response; the limit is never reached. It prints its URL and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import re
import time
from itertools import count
from typing import ClassVar, Final

from benchmarks.processes import serve_until_stdin_ends

_LENGTH: Final = re.compile(rb"(?i)\r\ncontent-length: (\d+)")
_ATTRIBUTES: Final = re.compile(rb'"attributes": ?(\{[^}]*\})')
_LIMIT: Final = 10_000_000
_PERIOD: Final = 10
_HEAD: Final = (
    b"HTTP/1.1 201 Created\r\n"
    b"Content-Type: application/json\r\n"
    b"X-RateLimit-Limit: %d\r\n"
    b"X-RateLimit-Period: %d\r\n"
    b"X-RateLimit-Remaining: %d\r\n"
    b"X-RateLimit-Reset: %d\r\n"
    b"X-RateLimit-Name: case_links\r\n"
    b"Content-Length: %d\r\n\r\n"
)
_BODY: Final = b'{"data":{"type":"link","id":"7f4b8a86-3c1d-4a58-9d5e-%012x","attributes":%b}}'


class _Connection(asyncio.Protocol):
    numbers: ClassVar[count[int]] = count()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        self._buffer = request = self._buffer + data
        end = request.find(b"\r\n\r\n")
        length = _LENGTH.search(request, 0, end)
        if end == -1 or not length or len(request) < end + 4 + int(length[1]):
            return
        self._buffer = b""  # a client sends its next request only after the response
        self._transport.write(_answer(request, next(self.numbers)))


def _answer(request: bytes, number: int) -> bytes:
    attributes = _ATTRIBUTES.search(request)
    assert attributes, request
    body = _BODY % (number, attributes[1])
    reset = _PERIOD - int(time.time()) % _PERIOD
    return _HEAD % (_LIMIT, _PERIOD, _LIMIT - number % _LIMIT, reset, len(body)) + body


async def _main() -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", 0, backlog=1024)
    async with server:
        await serve_until_stdin_ends("http://{}:{}".format(*server.sockets[0].getsockname()))


if __name__ == "__main__":
    asyncio.run(_main())
