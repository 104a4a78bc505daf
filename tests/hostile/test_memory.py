"""The memory of a client is bounded, however much a server sends. The bounds are in bytes, not in time."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
import zlib
from typing import Final

import pytest

from datadog_caselinks import ApiKeys, CaseLinksClient, CaseLinksError, RetryPolicy
from datadog_caselinks.http import envelope
from datadog_caselinks.http.wire import MAX_BODY, MAX_LIST
from datadog_caselinks.values.errors import ResponseTooLargeError
from tests.hostile.answers import OPERATIONS, endless, good
from tests.support.ids import case, some_id
from tests.support.server import Exchange, Server, Step, head
from tests.support.steps import answers, link_json

ONCE = RetryPolicy(max_attempts=1, settle=0)
GIGABYTE: Final = 2**30
PIECE: Final = 2**20


def sending(count: int, piece: bytes, **headers: str) -> Step:
    """Return a step that sends ``piece`` ``count`` times, or until the client closes."""

    async def step(exchange: Exchange) -> None:
        await exchange.send(head(good(exchange.seen)[0], Content_Length=str(count * len(piece)), **headers))
        for _ in range(count):
            await exchange.send(piece)

    return step


def _deflated() -> bytes:
    """Return a compressed piece of zeros that can be repeated within a stream."""
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    return packer.compress(bytes(PIECE)) + packer.flush(zlib.Z_FULL_FLUSH)


ENDLESS: Final[dict[str, Step]] = {
    "1 GB": sending(GIGABYTE // PIECE, bytes(PIECE)),
    "1 GB in chunks": endless(head(200, Transfer_Encoding="chunked"), b"10000\r\n" + bytes(2**16) + b"\r\n"),
    "1 GB of gzip": sending(GIGABYTE // PIECE, gzip.compress(bytes(PIECE)), Content_Encoding="gzip"),
    "1 GB of deflate": sending(GIGABYTE // PIECE, _deflated(), Content_Encoding="deflate"),
    "a header without an end": endless(b"HTTP/1.1 200 OK\r\nX-A: ", b"a" * 2**16),
    "headers without an end": endless(b"HTTP/1.1 200 OK\r\n", b"X-A: a\r\n" * 2**13),
}
"""Bodies longer than the client reads. Only a delete succeeds, because its result is the status."""


def full(begin: bytes, again: bytes, end: bytes) -> bytes:
    """Return a document of nearly the maximum length."""
    return begin + again * ((MAX_BODY - len(begin) - len(end)) // len(again)) + end


DOCUMENTS: Final[dict[str, bytes]] = {
    "numbers": full(b'{"data": [0', b",0", b"]}"),
    "lists": full(b'{"data": [[]', b",[]", b"]}"),
    "objects": full(b'{"data": [{}', b",{}", b"]}"),
    "errors": full(b'{"errors": [[]', b",[]", b"]}"),
    "a string": full(b'{"data": "', b"x", b'"}'),
    "a number": full(b'{"data": ', b"9", b"}"),
    "depth": full(b'{"data": ', b"[", b""),
    "names": full(b'{"data": {"a": 0', b',"a": 0', b"}}"),
    "escapes": full(b'{"data": "', b"\\u00e9", b'"}'),
}


async def attempt(step: Step, operation: str) -> tuple[object, int]:
    """Return the result or the error of one attempt, and its peak memory."""
    keys = ApiKeys(api_key="api-key", app_key="app-key")
    async with Server(step) as server, CaseLinksClient(server.url, keys, retry=ONCE) as links:
        call, _ = OPERATIONS[operation]
        tracemalloc.start()
        try:
            outcome: object = await call(links)
        except CaseLinksError as error:
            outcome = error
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        await asyncio.sleep(0)
    return outcome, peak


@pytest.mark.parametrize("operation", ["create", "list", "delete"])
@pytest.mark.parametrize("name", ENDLESS)
async def test_more_than_is_read(name: str, operation: str) -> None:
    """A body without end takes a few times the maximum size of a list, in any compression."""
    outcome, peak = await attempt(ENDLESS[name], operation)
    if operation == "delete" and "header" not in name:
        assert outcome is None
    else:
        assert isinstance(outcome, CaseLinksError)
    assert peak < 4 * MAX_LIST


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("operation", ["create", "list"])
@pytest.mark.parametrize("name", DOCUMENTS)
async def test_a_document_that_is_more_than_it_seems(name: str, operation: str, status: int) -> None:
    """A document that decodes into many objects takes a bounded multiple of its size.

    A list may be longer, and takes proportionally more.
    """
    body = gzip.compress(DOCUMENTS[name], 1)
    outcome, peak = await attempt(answers(status, body, Content_Encoding="gzip"), operation)
    assert isinstance(outcome, CaseLinksError)
    assert peak < 64 * MAX_BODY


@pytest.mark.parametrize("again", [b",1", b",{}", b",[]", b',{"a":0}', b',{"a":{},"b":[[]]}'])
@pytest.mark.parametrize("begin", [b'{"data": [{}', b'{"errors": [{}', b"[{}"])
async def test_a_long_list_of_tiny_members_is_not_decoded(
    begin: bytes, again: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long list of tiny members is refused before it is decoded, which would take thirty times its size."""
    decoded: list[bytes] = []
    monkeypatch.setattr(envelope, "loads", decoded.append)
    body = begin + again * ((MAX_LIST - 20) // len(again)) + (b"]" if begin == b"[{}" else b"]}")
    step = answers(200, gzip.compress(body, 1), Content_Encoding="gzip")
    outcome, peak = await attempt(step, "list")
    assert isinstance(outcome, ResponseTooLargeError)
    assert not decoded
    assert peak < 4 * MAX_LIST


async def test_a_long_list_of_links_is_read() -> None:
    """All 54,000 links of a list of 15 MB are returned."""
    parent = case(some_id(1))
    attributes = {
        "parent_entity_id": parent.id,
        "parent_entity_type": "CASE",
        "relationship": "BLOCKS",
        "child_entity_id": some_id(2),
        "child_entity_type": "CASE",
    }
    one = json.dumps(link_json(attributes), separators=(",", ":")).encode()
    count = 15_000_000 // (len(one) + 1)
    body = b'{"data":[' + b",".join([one] * count) + b"]}"
    keys = ApiKeys(api_key="api-key", app_key="app-key")
    step = answers(200, gzip.compress(body, 1), Content_Encoding="gzip")
    async with Server(step) as server, CaseLinksClient(server.url, keys, retry=ONCE) as client:
        assert len(await client.list_links(parent)) == count


@pytest.mark.parametrize(("encoding", "library"), [("br", "brotli"), ("zstd", "backports.zstd")])
@pytest.mark.parametrize("operation", ["create", "list", "delete"])
async def test_encodings_that_a_library_adds(encoding: str, library: str, operation: str) -> None:
    """A compressed eighth of a gigabyte in an optional encoding, such as Brotli, takes bounded memory too."""
    packer = pytest.importorskip(library)
    bomb = answers(200, packer.compress(bytes(GIGABYTE // 8)), Content_Encoding=encoding)
    outcome, peak = await attempt(bomb, operation)
    if operation == "delete":
        assert outcome is None
    else:
        assert isinstance(outcome, CaseLinksError)
    assert peak < 4 * MAX_LIST
