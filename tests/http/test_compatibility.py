"""The rules for an aiohttp that does not report what it sent, as before 3.14.4."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from types import SimpleNamespace
from typing import cast
from unittest.mock import AsyncMock

import aiohttp
import pytest

from datadog_caselinks import (
    AmbiguousResultError,
    ApiKeys,
    CaseLinksClient,
    CaseLinksError,
    ConnectError,
    NotFoundError,
    RetryPolicy,
    SessionManager,
    case,
)
from datadog_caselinks.http import compatibility, transport
from datadog_caselinks.http.compatibility import BlindTracker, Decompressed, closing
from datadog_caselinks.http.wire import MAX_LIST
from datadog_caselinks.values.errors import ResponseTooLargeError
from tests.support.api import Api
from tests.support.ids import some_id
from tests.support.needs import needs_middlewares
from tests.support.server import Server, Step
from tests.support.steps import UNCLEAR, answers, created, deleted, drops

NEW = case(some_id(1)).blocks(case(some_id(2)))
KEYS = ApiKeys(api_key="the-api-key", app_key="the-app-key")
AT_ONCE = RetryPolicy(max_attempts=3, base=0, settle=0)


@pytest.fixture(autouse=True)
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the tracker of the client by one that sees nothing."""
    monkeypatch.setattr(transport, "UploadTracker", BlindTracker)
    monkeypatch.setattr(compatibility, "UploadTracker", BlindTracker)


def test_a_response_without_a_connection() -> None:
    """A response that has lost its connection can be closed."""
    closing(cast("aiohttp.ClientResponse", SimpleNamespace(_protocol=None)))()


async def test_a_success() -> None:
    """Creates, lists and deletes succeed with any aiohttp."""
    async with Server(Api()) as server, CaseLinksClient(server.url, KEYS, retry=AT_ONCE) as client:
        link = await client.create_link(NEW)
        assert await client.list_links(NEW.parent) == [link]
        await client.delete_link(link)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "https://caselinks.invalid"])
async def test_no_connection(url: str) -> None:
    """A request without a connection is reported as never sent."""
    async with CaseLinksClient(url, KEYS, retry=RetryPolicy(max_attempts=1)) as client:
        with pytest.raises(ConnectError, match="nothing was sent"):
            await client.create_link(NEW)


@pytest.mark.parametrize("step", UNCLEAR.values(), ids=list(UNCLEAR))
async def test_after_connecting(step: Step) -> None:
    """A create that fails after connecting is looked up before it is sent again."""
    api = Api()
    async with Server(step, api) as server, CaseLinksClient(server.url, KEYS, retry=AT_ONCE) as client:
        await client.create_link(NEW)
    assert server.methods == ["POST", "GET", "POST"]
    assert len(api.links) == 1


async def test_an_error_of_a_hook() -> None:
    """An error that is not aiohttp's makes a create ambiguous, since the request may have been sent."""

    async def fail(*_: object) -> None:
        raise RuntimeError

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(fail)
    sessions = SessionManager(trace_configs=[trace])
    async with (
        Server(created) as server,
        sessions,
        CaseLinksClient(server.url, KEYS, sessions=sessions, retry=AT_ONCE) as client,
    ):
        with pytest.raises(AmbiguousResultError):
            await client.create_link(NEW)


async def test_a_delete_whose_response_is_lost() -> None:
    """A delete that aiohttp would repeat unseen is repeated by the client, which then expects a 404."""
    async with (
        Server(created, deleted, drops, answers(404)) as server,
        CaseLinksClient(server.url, KEYS, retry=AT_ONCE) as client,
    ):
        await client.create_link(NEW)  # opens the connection
        await client.delete_link("some-link")
        await client.delete_link("some-link")
        with pytest.raises(NotFoundError):
            await client.delete_link("some-link")
    assert server.methods == ["POST", *["DELETE"] * 4]


async def test_a_connector_without_a_socket_factory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connector of aiohttp before 3.12 is created without ``socket_factory``, which it does not accept."""
    monkeypatch.delattr(aiohttp, "AddrInfoType", raising=False)
    async with Server(Api()) as server, CaseLinksClient(server.url, KEYS, retry=AT_ONCE) as client:
        await client.create_link(NEW)


BODY = json.dumps({"data": [], "meta": "x" * 300_000}).encode()


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


class TestDecompression:
    """Compressed responses where aiohttp decompresses all that has arrived, as before 3.14.0."""

    @pytest.fixture(autouse=True)
    def at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(compatibility, "_DECOMPRESSES_IN_PIECES", False)

    @pytest.mark.parametrize(
        ("encoding", "body"),
        [
            ("gzip", gzip.compress(BODY)),
            ("GZIP", gzip.compress(BODY[:100]) + gzip.compress(BODY[100:])),
            ("deflate", zlib.compress(BODY)),
            ("deflate", raw_deflate(BODY)),
            ("identity", BODY),
        ],
        ids=["gzip", "two members", "deflate", "raw deflate", "identity"],
    )
    async def test_a_list(self, encoding: str, body: bytes) -> None:
        """Lists in the encodings that every server has are read."""
        step = answers(200, body, Content_Encoding=encoding)
        async with Server(step) as server, CaseLinksClient(server.url, KEYS, retry=AT_ONCE) as client:
            assert await client.list_links(NEW.parent) == []
            assert await client.list_links(NEW.parent) == []
        assert server.connections == 1

    @pytest.mark.parametrize(
        ("encoding", "body", "error"),
        [
            ("gzip", BODY, "is gzip, and its body is not"),
            ("gzip", gzip.compress(BODY)[:-100], "not JSON|not valid JSON"),
            ("gzip", b"", "empty|Expecting value"),
            ("br", b"anything", "is br, which needs the package aiohttp>=3.14"),
            ("zstd", b"anything", "is zstd, which needs the package aiohttp>=3.14"),
        ],
        ids=["not gzip", "half of a gzip", "nothing", "Brotli", "Zstandard"],
    )
    async def test_a_flaw(self, encoding: str, body: bytes, error: str) -> None:
        """A body that cannot be decompressed is an error that says why."""
        step = answers(200, body, Content_Encoding=encoding)
        async with Server(step) as server, CaseLinksClient(server.url, KEYS, retry=AT_ONCE) as client:
            with pytest.raises(CaseLinksError, match=error):
                await client.list_links(NEW.parent)

    async def test_a_piece_that_ends_within_the_header(self) -> None:
        """A piece that has no content yet is not the end of a body."""
        packed = gzip.compress(b"text")
        content = SimpleNamespace(readany=AsyncMock(side_effect=[packed[:5], packed[5:], b""]))
        decompressed = Decompressed(cast("aiohttp.StreamReader", content), "gzip")
        assert [await decompressed.readany() for _ in range(2)] == [b"text", b""]

    async def test_a_bomb(self) -> None:
        """A small body that becomes a large one takes the memory of its limit only."""
        bomb = gzip.compress(bytes(2**28), 9)
        async with (
            Server(answers(200, bomb, Content_Encoding="gzip")) as server,
            CaseLinksClient(server.url, KEYS, retry=AT_ONCE) as client,
        ):
            tracemalloc.start()
            with pytest.raises(ResponseTooLargeError):
                await client.list_links(NEW.parent)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert peak < 3 * MAX_LIST

    @needs_middlewares
    async def test_a_middleware_reads_what_it_expects(self) -> None:
        """A middleware that reads a compressed body gets it decompressed."""
        read = []

        async def middleware(
            request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            response = await handler(request)
            read.append(await response.json())
            return response

        step = answers(200, gzip.compress(BODY), Content_Encoding="gzip", Content_Type="application/json")
        async with (
            Server(step) as server,
            aiohttp.ClientSession(middlewares=[middleware]) as session,
            CaseLinksClient(server.url, KEYS, sessions=session, retry=AT_ONCE) as client,
        ):
            assert await client.list_links(NEW.parent) == []
        assert read == [json.loads(BODY)]
