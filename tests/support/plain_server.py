"""A fast server in a separate process, which creates every requested link.

The program prints the port first. When the standard input ends, it prints how often it created each link.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import ClassVar, Self

from tests.support.server import head
from tests.support.steps import link_json
from tests.support.tcp import HOST
from tests.support.waiting import MAX_SECONDS

ROOT = Path(__file__).parents[2]
LIFETIME = 600.0
"""Seconds after which the server ends, if its test has not ended it. A busy machine may need minutes."""


class PlainServer:
    """The server of this module in another process.

    When the context ends, the process ends and ``created`` has the number of creates for each child id.
    """

    async def __aenter__(self) -> Self:
        pipe = asyncio.subprocess.PIPE
        command = (sys.executable, "-m", "tests.support.plain_server")
        self._process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=pipe, stdout=pipe)
        assert self._process.stdout is not None
        self.url = f"http://{HOST}:{int(await self._process.stdout.readline())}"
        self.created: dict[str, int] = {}
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            out, _err = await asyncio.wait_for(self._process.communicate(b""), MAX_SECONDS)
        except BaseException:
            self._process.kill()
            await self._process.wait()
            raise
        self.created = json.loads(out)


class _PlainProtocol(asyncio.Protocol):
    created: ClassVar[Counter[str]] = Counter()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        headers, end, rest = self._buffer.partition(b"\r\n\r\n")
        length = int(re.search(rb"(?i)content-length: (\d+)", headers + b"content-length: 0")[1])  # type: ignore[index]
        if not end or len(rest) < length:
            return
        self._buffer = rest[length:]
        attributes = json.loads(rest[:length])["data"]["attributes"]
        self.created[attributes["child_entity_id"]] += 1
        body = json.dumps({"data": link_json(attributes)}).encode()
        self._transport.write(head(201, Content_Length=str(len(body))) + body)


async def _main() -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def wait_for_end() -> None:
        while os.read(0, 1024):
            pass
        loop.call_soon_threadsafe(ended.set)

    server = await loop.create_server(_PlainProtocol, HOST, 0, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    threading.Thread(target=wait_for_end, daemon=True).start()
    try:
        await asyncio.wait_for(ended.wait(), LIFETIME)
    except TimeoutError:
        return  # without output, which could block and keep the connections open
    sys.stdout.write(json.dumps(_PlainProtocol.created))


if __name__ == "__main__":
    asyncio.run(_main())
