"""The memory of one client for responses: a share for each, and one long response at a time."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import threading
import tracemalloc
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from datadog_caselinks import (
    ApiKeys,
    CaseLinksClient,
    NewCaseLink,
    PermissionDeniedError,
    RetryPolicy,
)
from datadog_caselinks.calls.retry import RetryBudget
from datadog_caselinks.http import envelope
from datadog_caselinks.http.wire import MAX_BODY, MAX_LIST
from datadog_caselinks.values.errors import ResponseTooLargeError
from datadog_caselinks.values.models import identity
from tests.support.ids import case, some_id
from tests.support.server import Server
from tests.support.steps import answers, link_json
from tests.support.waiting import MAX_SECONDS, settle, until

if TYPE_CHECKING:
    from tests.support.ids import KnownEntity

PARENT = case(some_id(1))


def new_link(number: int, parent: KnownEntity = PARENT) -> NewCaseLink:
    return parent.blocks(case(some_id(number + 1000)))


def listing(size: int, *links: NewCaseLink) -> bytes:
    """Return a list of ``links`` as JSON, padded to ``size`` bytes."""
    data = [
        link_json(
            {
                "parent_entity_id": link.parent.id,
                "parent_entity_type": link.parent.type,
                "relationship": link.relationship,
                "child_entity_id": link.child.id,
                "child_entity_type": link.child.type,
            }
        )
        for link in links
    ]
    body: dict[str, Any] = {"data": data, "meta": ""}
    body["meta"] = "x" * (size - len(json.dumps(body)))
    return json.dumps(body).encode()


def client_of(server: Server, keys: ApiKeys, **options: Any) -> CaseLinksClient:
    return CaseLinksClient(server.url, keys, retry=RetryPolicy(max_attempts=1, settle=0), **options)


class Busy:
    """A client that reads a long list in another call until ``end`` is called."""

    def __init__(self, client: CaseLinksClient) -> None:
        self._long = client._operations._reader._long

    async def begin(self) -> None:
        await self._long.acquire()

    def end(self) -> None:
        self._long.release()


@pytest.mark.slow
async def test_many_long_lists_at_once(keys: ApiKeys) -> None:
    """Forty lookups in lists of 8 MiB find their links, in the memory of their shares and one list."""
    count = 40
    parents = [case(some_id(number + 10)) for number in range(count)]
    body = gzip.compress(listing(MAX_LIST // 2, *(new_link(1, parent) for parent in parents)), 1)

    async with (
        Server(answers(200, body, Content_Encoding="gzip")) as server,
        client_of(server, keys) as client,
    ):
        tracemalloc.start()
        lookups = (
            client._operations.find_links(parent, {identity(new_link(1, parent))}) for parent in parents
        )
        found = await asyncio.gather(*lookups)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert [list(each.links) for each in found] == [[identity(new_link(1, parent))] for parent in parents]
    assert peak < count * 2 * MAX_BODY + 6 * MAX_LIST


class TestLongLists:
    @pytest.fixture
    async def server(self) -> AsyncIterator[Server]:
        async with Server(answers(200, listing(2 * MAX_BODY, new_link(1)))) as server:
            yield server

    async def test_one_alone_is_requested_once(self, server: Server, keys: ApiKeys) -> None:
        """A list that is longer than its share is read completely if no other long list is being read."""
        async with client_of(server, keys) as client:
            for _ in range(2):
                assert len(await client.list_links(PARENT)) == 1
        assert server.methods == ["GET"] * 2

    async def test_one_beside_another_waits_and_is_requested_again(
        self, server: Server, keys: ApiKeys
    ) -> None:
        """A second long list waits without a request, so that no timeout runs and no connection is kept."""
        async with client_of(server, keys) as client:
            busy = Busy(client)
            await busy.begin()
            call = asyncio.create_task(client.list_links(PARENT))
            await server.until_seen(1)
            await server.until(lambda: server.open_connections == 0)
            assert not call.done()
            busy.end()
            assert len(await call) == 1
            async with asyncio.timeout(MAX_SECONDS):
                assert len(await client.list_links(PARENT)) == 1, "the memory is free again"
        assert server.methods == ["GET"] * 3

    async def test_one_of_a_client_with_many_requests_in_flight(self, keys: ApiKeys) -> None:
        """The share of a request is smaller if more requests may be in flight.

        A list that is longer than the share waits for the other one and is requested again.
        """
        async with (
            Server(answers(200, listing(MAX_BODY // 4, new_link(1)))) as server,
            client_of(server, keys, max_concurrency=1000) as client,
        ):
            busy = Busy(client)
            await busy.begin()
            call = asyncio.create_task(client.list_links(PARENT))
            await server.until_seen(1)
            await server.until(lambda: server.open_connections == 0)
            busy.end()
            assert len(await call) == 1
        assert server.methods == ["GET"] * 2

    async def test_one_that_arrives_with_its_headers_is_requested_once(self, keys: ApiKeys) -> None:
        """A list that arrived as a whole is used, although it is longer than the share of its request."""
        body = listing(2**14, new_link(1))
        async with (
            Server(answers(200, body)) as server,
            client_of(server, keys, max_concurrency=10_000) as client,
        ):
            assert client._operations._reader._share < len(body)
            assert len(await client.list_links(PARENT)) == 1
        assert server.methods == ["GET"]

    async def test_an_error_is_not_requested_again(self, keys: ApiKeys) -> None:
        """An error that is longer than its share is not requested again: its beginning is enough."""
        async with Server(answers(403, b"x" * 2 * MAX_BODY)) as server, client_of(server, keys) as client:
            busy = Busy(client)
            await busy.begin()
            with pytest.raises(PermissionDeniedError):
                await client.list_links(PARENT)
        assert server.methods == ["GET"]

    async def test_one_that_is_too_long_lets_the_next_one_in(self, keys: ApiKeys) -> None:
        """A list that is too long frees the memory for the next one."""
        server = Server(answers(200, listing(MAX_LIST + 1)), answers(200, listing(2 * MAX_BODY)))
        async with server, client_of(server, keys) as client:
            with pytest.raises(ResponseTooLargeError):
                await client.list_links(PARENT)
            assert await client.list_links(PARENT) == []


async def test_one_is_decoded_at_a_time(keys: ApiKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    """One long list is decoded at a time, in a thread, even if calls are cancelled."""
    decode, busy, most, go = envelope.decode_links, 0, 0, threading.Event()

    def decode_counted(body: bytes) -> envelope.Members[Any]:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        assert go.wait(60)
        busy -= 1
        return decode(body)

    monkeypatch.setattr(envelope, "decode_links", decode_counted)
    async with Server(answers(200, listing(MAX_BODY // 2))) as server, client_of(server, keys) as client:
        calls = [asyncio.create_task(client.list_links(PARENT)) for _ in range(6)]
        await server.until_seen(6)
        for call in calls[:3]:
            await until(lambda: busy)
            call.cancel()
            await settle()
        go.set()
        await asyncio.wait(calls)
    assert most == 1


async def test_cancelled_calls_take_no_threads(keys: ApiKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of a cancelled call that is not being decoded yet is dropped, and takes no thread.

    The event loop looks names up in its threads, so without one, no request of the program would connect.
    """
    go, busy, decode = threading.Event(), threading.Event(), envelope.decode_links

    def decode_slowly(body: bytes) -> envelope.Members[Any]:
        busy.set()
        assert go.wait(60)
        return decode(body)

    monkeypatch.setattr(envelope, "decode_links", decode_slowly)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
    async with Server(answers(200, listing(MAX_BODY // 2))) as server, client_of(server, keys) as client:
        for number in range(5):
            call = asyncio.create_task(client.list_links(PARENT))
            await server.until_seen(number + 1)
            await server.until(lambda: not server.busy)
            await settle(50)
            while not busy.is_set():
                await settle()
            call.cancel()
            await asyncio.wait([call])
        try:
            async with asyncio.timeout(MAX_SECONDS):
                await asyncio.to_thread(busy.wait)
        finally:
            go.set()
        assert await client.list_links(PARENT) == []


async def test_without_a_thread_to_decode_in(keys: ApiKeys) -> None:
    """A list that finds no thread to be decoded in, since the program ends, holds up no other list."""
    loop, ended = asyncio.get_running_loop(), ThreadPoolExecutor()
    async with Server(answers(200, listing(MAX_BODY // 2))) as server, client_of(server, keys) as client:
        loop.set_default_executor(ended)
        ended.shutdown()
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            await client.list_links(PARENT)
        loop.set_default_executor(ThreadPoolExecutor())
        async with asyncio.timeout(MAX_SECONDS):
            assert await client.list_links(PARENT) == []


async def test_an_error_in_the_list_of_a_cancelled_call_is_not_logged(
    keys: ApiKeys, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An error from decoding the list of a cancelled call is not logged, since it may quote the list."""
    go, busy = threading.Event(), threading.Event()

    def fail(body: bytes) -> envelope.Members[Any]:
        busy.set()
        assert go.wait(60)
        raise ResponseTooLargeError("too long", body="")

    monkeypatch.setattr(envelope, "decode_links", fail)
    async with Server(answers(200, listing(MAX_BODY // 2))) as server, client_of(server, keys) as client:
        call = asyncio.create_task(client.list_links(PARENT))
        await until(busy.is_set)
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
        del call
        go.set()
        await until(lambda: not client._operations._reader._decoding.locked())
        gc.collect()
    assert not caplog.records


async def test_a_list_that_waits_to_be_decoded_counts_as_in_flight(keys: ApiKeys) -> None:
    """No more responses are in memory than requests may be in flight."""
    async with (
        Server(answers(200, listing(MAX_BODY // 2))) as server,
        client_of(server, keys, max_concurrency=2) as client,
    ):
        decoding = client._operations._reader._decoding
        await decoding.acquire()
        calls = [asyncio.create_task(client.list_links(PARENT)) for _ in range(4)]
        await server.until_seen(2)
        await server.until(lambda: not server.busy)
        await settle(50)
        assert len(server.seen) == 2
        decoding.release()
        await asyncio.gather(*calls)


async def test_a_lookup_earns_no_budget(keys: ApiKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lookup does not refill the retry budget, because lists may work while creates fail."""
    earned: list[RetryBudget] = []
    monkeypatch.setattr(RetryBudget, "give_back", lambda budget: earned.append(budget))
    async with Server(answers(200, listing(100, new_link(1)))) as server, client_of(server, keys) as client:
        found = await client._operations.find_links(PARENT, {identity(new_link(1)), identity(new_link(2))})
        assert found.links.keys() == {identity(new_link(1))}
        assert not earned
        await client.list_links(PARENT)
        assert len(earned) == 1
