"""The rules of slots: the number of requests in flight, and buckets that do not block each other."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import pytest

from datadog_caselinks import ApiKeys, CaseLinksClient, NewCaseLink, RetryPolicy, SessionError
from datadog_caselinks.http.gate import MAX_BUCKETS
from tests.support.clock import Clock
from tests.support.ids import case, some_id
from tests.support.server import Exchange, Server
from tests.support.steps import link_json
from tests.support.waiting import MAX_SECONDS, settle

PARENT: Final = case(some_id(0))
SLOTS: Final = 5

OTHERS: Final[dict[str, Callable[[CaseLinksClient], Awaitable[object]]]] = {
    "list": lambda client: client.list_links(PARENT),
    "delete": lambda client: client.delete_link("an-id"),
    "get": lambda client: client.get_case("SHOP-1"),
}
"""An operation of another bucket each."""


_NO_LINKS: Final[Any] = []


def new_links(count: int) -> list[NewCaseLink]:
    return [PARENT.blocks(case(some_id(number))) for number in range(1, count + 1)]


class Named:
    """A server that counts each operation in its own bucket.

    Creates have ``creates`` requests left, and lists ``lists``.

    Methods in ``held`` get no response before the test removes them and calls :meth:`go_on`.
    """

    def __init__(self, creates: int = 1000, lists: int = 1000) -> None:
        self.creates = creates
        self.lists = lists
        self.held = set[str]()
        self.changed = asyncio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        seen = exchange.seen
        while seen.method in self.held:
            await self.changed.wait()
        name, left = seen.method + seen.target.partition("?")[0].rpartition("/")[2], 1000
        status, data = 200, _NO_LINKS
        match seen.method:
            case "POST":
                self.creates -= 1
                left = self.creates
                status, data = 201, link_json(seen.json["data"]["attributes"])
            case "DELETE":
                status = 204
            case _ if name.endswith("SHOP-1"):
                data = {"type": "case", "id": some_id(9), "attributes": {"key": "SHOP-1", "title": "A case"}}
            case _:
                self.lists -= 1
                left = self.lists
        body = b"" if status == 204 else json.dumps({"data": data}).encode()
        rest = {"X_RateLimit_Limit": "1000", "X_RateLimit_Period": "3600", "X_RateLimit_Reset": "3600"}
        await exchange.answer(status, body, X_RateLimit_Name=name, X_RateLimit_Remaining=str(left), **rest)

    def go_on(self, method: str) -> None:
        """Respond to this method from now on."""
        self.held.discard(method)
        self.changed.set()
        self.changed = asyncio.Event()


@pytest.fixture
async def named() -> Named:
    return Named()


@pytest.fixture
async def server(named: Named) -> AsyncIterator[Server]:
    async with Server(named) as server:
        yield server


@pytest.fixture
async def client(server: Server, keys: Any) -> AsyncIterator[CaseLinksClient]:
    """A client that has learned the bucket of each operation."""
    patient = RetryPolicy(max_wait=7200)
    async with CaseLinksClient(server.url, keys, max_concurrency=SLOTS, retry=patient) as client:
        for new in new_links(SLOTS):  # a first window is opened step by step
            await client.create_link(new)
            for call in OTHERS.values():
                await call(client)
        yield client


async def ended(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("operation", OTHERS)
async def test_calls_that_wait_for_one_bucket_hold_up_no_other(
    client: CaseLinksClient, server: Server, named: Named, operation: str
) -> None:
    """However many creates wait for their window, a call of another bucket is sent at once."""
    named.creates, sent = 3, len(server.seen)
    creates = [asyncio.create_task(client.create_link(new)) for new in new_links(50)]
    await server.until_seen(sent + 3)
    await asyncio.wait(creates, return_when=asyncio.FIRST_COMPLETED)
    await settle(50)
    await OTHERS[operation](client)
    assert sum(create.done() for create in creates) <= 3 + SLOTS
    await ended(creates)


@pytest.mark.parametrize("operation", ["delete", "get"])
async def test_lists_that_wait_for_their_window_hold_up_no_other_bucket(
    client: CaseLinksClient, server: Server, named: Named, operation: str
) -> None:
    """A list takes none of the memory for responses before it may be sent."""
    named.lists, sent = 1, len(server.seen)
    await client.list_links(PARENT)
    lists = [asyncio.create_task(client.list_links(case(some_id(number)))) for number in range(50)]
    await settle(50)
    async with asyncio.timeout(MAX_SECONDS):
        await OTHERS[operation](client)
    assert len(server.seen) == sent + 2
    await ended(lists)


async def test_no_more_are_in_flight_than_slots_over_all_buckets(
    client: CaseLinksClient, server: Server, named: Named
) -> None:
    """Each bucket has its own slots, but all buckets share the maximum of requests in flight."""
    named.held |= {"POST", "GET", "DELETE"}
    calls: list[Awaitable[object]] = [client.create_link(new) for new in new_links(12)]
    calls += [call(client) for call in OTHERS.values() for _ in range(12)]
    tasks = [asyncio.ensure_future(call) for call in calls]
    await server.until(lambda: server.busy == SLOTS)
    await settle(50)
    assert server.busy == SLOTS
    for method in list(named.held):
        named.go_on(method)
    await asyncio.gather(*tasks)
    assert server.most_busy == SLOTS


async def test_waiting_for_the_requests_of_another_bucket_takes_no_time(
    client: CaseLinksClient, server: Server, named: Named, clock: Clock
) -> None:
    """The timeout of an attempt begins when the attempt is sent."""
    named.held.add("POST")
    creates = [asyncio.create_task(client.create_link(new)) for new in new_links(SLOTS)]
    await server.until(lambda: server.busy == SLOTS)
    listing = asyncio.create_task(client.list_links(PARENT))
    await settle(50)
    sent = len(server.seen)
    clock.advance(29)
    await settle(50)
    named.go_on("POST")
    await asyncio.gather(*creates)
    assert await listing == []
    assert len(server.seen) == sent + 1


async def test_a_call_that_waits_for_a_connection_ends_with_its_client(
    client: CaseLinksClient, server: Server, named: Named
) -> None:
    """A waiting call raises an error when its client is closed, and sends nothing."""
    named.held.add("POST")
    creates = [asyncio.create_task(client.create_link(new)) for new in new_links(SLOTS)]
    await server.until(lambda: server.busy == SLOTS)
    cancelled, listing = (asyncio.create_task(client.list_links(PARENT)) for _ in range(2))
    await settle(50)
    await ended([cancelled])
    sent = len(server.seen)
    await client.close()
    with pytest.raises(SessionError, match="closed"):
        await listing
    assert len(server.seen) == sent
    await ended(creates)


@pytest.mark.parametrize("rate", [None, "1000/1s"])
async def test_a_bucket_keeps_its_slots(keys: ApiKeys, rate: str | None) -> None:
    """A server that names another bucket in each response changes nothing for the buckets in use.

    What is known of the others is forgotten.
    """
    names = itertools.count()

    async def step(exchange: Exchange) -> None:
        is_create = exchange.seen.method == "POST"
        name = "creates" if is_create else f"lists-{next(names)}"
        limit = {"X_RateLimit_Limit": "1000", "X_RateLimit_Period": "60", "X_RateLimit_Reset": "60"}
        attributes = exchange.seen.json["data"]["attributes"] if is_create else {}
        body = json.dumps({"data": link_json(attributes) if is_create else []}).encode()
        status = 201 if is_create else 200
        await exchange.answer(status, body, X_RateLimit_Name=name, X_RateLimit_Remaining="900", **limit)

    [new] = new_links(1)
    async with Server(step) as server, CaseLinksClient(server.url, keys, rate=rate) as client:
        requester = client._requester
        bounded: list[Any] = (
            [requester._slots, requester._pace._queues] if requester._pace else [requester._slots]
        )
        for _ in range(2):
            await client.create_link(new)
        creates = client._gate.bucket("create")
        before = [each[creates] for each in bounded]
        for _ in range(3 * MAX_BUCKETS):
            await client.list_links(new.parent)
        await client.create_link(new)
        gc.collect()
        assert [each[creates] for each in bounded] == before
        assert all(len(each) <= MAX_BUCKETS + 2 for each in bounded)
