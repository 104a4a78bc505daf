"""A program: which functions of the package one ``create_link`` passes, counted by ``sys.setprofile``.

Prints the count of functions and files for a create that succeeds at once, and for one whose first attempt
gets a 503; with ``--list`` the functions too. The client has created one link before, so that imports do not
count.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from types import CodeType
from typing import Any

import datadog_caselinks
from datadog_caselinks import ApiKeys, CaseLinksClient, NewCaseLink, RetryPolicy, case

ROOT = Path(datadog_caselinks.__path__[0])
LINK = '{"data": {"type": "link", "id": "1", "attributes": %s}}'
ATTRIBUTES = (
    '{"parent_entity_id": "4417921d-0866-4a38-822c-6f2a0f65f77d", "parent_entity_type": "CASE", '
    '"relationship": "BLOCKS", "child_entity_type": "CASE", '
    '"child_entity_id": "c9a888ae-bfd4-5ac6-a16a-d64ccec67c1a"}'
)
NEW = case("4417921d-0866-4a38-822c-6f2a0f65f77d").blocks(case("c9a888ae-bfd4-5ac6-a16a-d64ccec67c1a"))
POLICY = RetryPolicy(base=0, settle=0)


class _Server(asyncio.Protocol):
    """Responds 201 to creates and with no links to lists; the first create after ``fail_next`` gets a 503."""

    fail_next = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._buffer.startswith(b"POST") and not self._buffer.endswith(b"}}}"):
            return
        status, body = "201 Created", LINK % ATTRIBUTES
        if self._buffer.startswith(b"GET"):
            status, body = "200 OK", '{"data": []}'
        elif _Server.fail_next:
            _Server.fail_next, status, body = False, "503 Service Unavailable", ""
        self._buffer = b""
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self._transport.write((head + body).encode())


async def passed(client: CaseLinksClient, new: NewCaseLink) -> set[CodeType]:
    """Return the functions of the package that one call passes."""
    seen: set[CodeType] = set()

    def profile(frame: Any, event: str, _: object) -> None:
        if event == "call" and Path(frame.f_code.co_filename).is_relative_to(ROOT):
            seen.add(frame.f_code)

    sys.setprofile(profile)
    try:
        await client.create_link(new)
    finally:
        sys.setprofile(None)
    return seen


async def main() -> None:
    """Count both, and print."""
    server = await asyncio.get_running_loop().create_server(_Server, "127.0.0.1", 0)
    url = "http://{}:{}".format(*server.sockets[0].getsockname())
    keys = ApiKeys(api_key="an-api-key", app_key="an-app-key")
    async with server, CaseLinksClient(url, keys, retry=POLICY) as client:
        await client.create_link(NEW)
        for name, fails in (("success", False), ("503, then success", True)):
            _Server.fail_next = fails
            seen = await passed(client, NEW)
            files = {code.co_filename for code in seen}
            print(f"{name}: {len(seen)} functions in {len(files)} files")
            if "--list" in sys.argv:
                for code in sorted(seen, key=lambda each: (each.co_filename, each.co_firstlineno)):
                    print(f"  {Path(code.co_filename).relative_to(ROOT)} {code.co_qualname}")


if __name__ == "__main__":
    asyncio.run(main())
