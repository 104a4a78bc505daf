"""The client's own rate: no more requests than allowed in any period."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import pytest

from datadog_caselinks import (
    ApiKeys,
    BearerToken,
    CallFinished,
    CallWaiting,
    CaseLink,
    CaseLinksClient,
    ConfigurationError,
    ParameterError,
    Rate,
    RateLimitError,
    RetryPolicy,
    SessionError,
    SessionManager,
)
from datadog_caselinks.http.gate import Bucket
from datadog_caselinks.http.pace import Pace
from datadog_caselinks.sandbox import Sandbox
from tests.support.clock import Clock
from tests.support.ids import case, some_id
from tests.support.needs import needs_upload_tracker
from tests.support.server import Exchange, Server
from tests.support.steps import Held, answers, created, drops, link_json, listed
from tests.support.waiting import MAX_SECONDS, settle, until

PARENT = case(some_id(0))
stopped = pytest.mark.clock(stopped_at=1000.0)


def client_of(sandbox: Sandbox, rate: Rate | str | None, **options: object) -> CaseLinksClient:
    return CaseLinksClient(sandbox.site, sandbox.credentials, rate=rate, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("50/1s", Rate(50, 1)),
        (" 50/s ", Rate(50, 1)),
        ("3/10", Rate(3, 10)),
        ("600/1.5m", Rate(600, 90)),
        ("5000/h", Rate(5000, 3600)),
    ],
)
def test_a_rate_can_be_written(text: str, rate: Rate) -> None:
    """The text of a rate has the number of requests and the period, in seconds or with a unit."""
    assert Rate.parse(text) == rate
    assert Rate.parse(str(rate)) == rate


@pytest.mark.parametrize(
    "text", ["", "50", "50/", "/1s", "0/1s", "5/0s", "-1/1s", "1.5/1s", "50/1d", "a/b", None, 7]
)
def test_anything_else_is_refused(text: object) -> None:
    """A rate without a positive number of requests and a positive period is a ``ParameterError``."""
    with pytest.raises(ParameterError):
        Rate.parse(text)  # type: ignore[arg-type]


async def test_the_parameter_is_checked(sandbox: Sandbox) -> None:
    """A client refuses a rate of the wrong type or form when it is created."""
    for wrong in (50, (50, 1), "fast"):
        with pytest.raises(ParameterError, match="rate"):
            client_of(sandbox, wrong)  # type: ignore[arg-type]


@stopped
async def test_no_more_requests_than_allowed_are_sent(sandbox: Sandbox, clock: Clock) -> None:
    """A rate counts all operations, and each further request waits until an earlier one is a period old."""
    events: list[object] = []
    async with client_of(sandbox, "3/10s", on_event=events.append) as client:
        new = [PARENT.blocks(case(some_id(number))) for number in range(1, 5)]
        creates = [asyncio.create_task(client.create_link(each)) for each in new]
        lists = [asyncio.create_task(client.list_links(PARENT)) for _ in range(3)]
        for count in (3, 6, 7):
            await until_received(sandbox, count)
            await settle()
            assert len(sandbox.requests) == count
            clock.advance(9.5)
            await settle()
            assert len(sandbox.requests) == count
            clock.advance(0.5)
        await asyncio.gather(*creates, *lists)
    assert len(sandbox.links) == 4
    assert len([event for event in events if isinstance(event, CallWaiting)]) == 6


@stopped
async def test_no_wait_counts_twice(clock: Clock, keys: ApiKeys) -> None:
    """A call that waits for the rate and for the server's window has waited no longer than it took."""
    events: list[object] = []
    used_up = {**RATE_LIMIT, "X_RateLimit_Remaining": "0"}
    async with (
        Server(answers(200, b'{"data": []}', **used_up)) as server,
        CaseLinksClient(server.url, keys, rate="1/10s", retry=NO_WAIT, on_event=events.append) as client,
    ):
        await client.list_links(PARENT)
        waiting = asyncio.create_task(client.list_links(PARENT))
        for seconds in (10, 51):
            await settle(50)
            clock.advance(seconds)
        await waiting
    waits = [event.seconds for event in events if isinstance(event, CallWaiting)]
    finished = [event for event in events if isinstance(event, CallFinished)]
    assert waits == [pytest.approx(10, abs=1), pytest.approx(50, abs=1)]
    assert finished[-1].call.waited == pytest.approx(finished[-1].seconds, abs=1) == pytest.approx(61, abs=1)


async def test_the_lower_limit_counts(sandbox: Sandbox) -> None:
    """A rate above the limit of the server sends no more requests than the server allows."""
    sandbox.rate_limit = "5/24h"
    async with client_of(sandbox, "1000/1s", retry=RetryPolicy(max_wait=1)) as client:
        new = [PARENT.blocks(case(some_id(number))) for number in range(1, 21)]
        results = await asyncio.gather(*map(client.create_link, new), return_exceptions=True)
    assert Counter(map(type, results)) == {CaseLink: 5, RateLimitError: 15}
    assert len(sandbox.requests) == len(sandbox.links) == 5


@stopped
async def test_a_closed_client_does_not_wait(sandbox: Sandbox, clock: Clock) -> None:
    """Calls that wait for the rate fail as soon as the client is closed."""
    client = client_of(sandbox, "1/1h")
    await client.list_links(PARENT)
    waiting = [asyncio.create_task(client.list_links(PARENT)) for _ in range(3)]
    await settle()
    await client.close()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [SessionError] * 3


@stopped
async def test_a_cancelled_call_holds_up_no_other(sandbox: Sandbox, clock: Clock) -> None:
    """A cancelled call in the queue passes its place to the next one."""
    async with client_of(sandbox, "1/10s") as client:
        await client.list_links(PARENT)
        first, second = (asyncio.create_task(client.list_links(PARENT)) for _ in range(2))
        await settle()
        first.cancel()
        await asyncio.wait([first])
        clock.advance(10)
        assert await second == []


class Permit:
    """A permit of the gate that may have been released."""

    is_withdrawn = False

    def withdraw(self) -> None:
        self.is_withdrawn = True


@stopped
async def test_buckets_share_the_rate(clock: Clock) -> None:
    """Calls of different buckets wait in separate queues, and keep to the rate together."""
    pace, permits, listing, creating = Pace(Rate(1, 10)), list[Permit](), Bucket(), Bucket()

    async def acquire() -> Any:
        await asyncio.sleep(0)
        permits.append(Permit())
        return permits[-1]

    await pace.acquire(listing, acquire, Permit.withdraw)
    calls = [
        asyncio.create_task(pace.acquire(bucket, acquire, Permit.withdraw)) for bucket in (listing, creating)
    ]
    for done in range(3):
        await settle()
        assert [call.done() for call in calls].count(True) == done
        clock.advance(10)
    assert [permit.is_withdrawn for permit in permits] == [False, False, True, False]


class Tokens:
    """A token callable whose refresh takes as long as the test wants. It counts the refreshes."""

    def __init__(self) -> None:
        self.count = 0
        self.is_valid = asyncio.Event()
        self.is_valid.set()

    async def __call__(self) -> str:
        await self.is_valid.wait()
        self.count += 1
        return f"token-{self.count}"


NO_WAIT = RetryPolicy(base=0, settle=0, max_wait=1000)


@stopped
async def test_the_refresh_of_a_token_does_not_gather_requests(clock: Clock) -> None:
    """Requests count towards the rate when they are sent, not when they wait for a token."""
    tokens = Tokens()
    async with (
        Server(listed) as server,
        CaseLinksClient(server.url, BearerToken(tokens), rate="1/10s", retry=NO_WAIT) as client,
    ):
        tokens.is_valid.clear()
        lists = []
        for _ in range(3):
            lists.append(asyncio.create_task(client.list_links(PARENT)))
            await settle(50)
            clock.advance(10)
        tokens.is_valid.set()
        for count in (1, 2, 3):
            await until_sent(server, count)
            clock.advance(10)
        await asyncio.gather(*lists)


async def test_a_token_callable_that_hangs_holds_up_its_own_call_alone() -> None:
    """Calls of a client with a rate read their credentials side by side."""
    tokens, never = Tokens(), asyncio.Event()

    async def token() -> str:
        text = await tokens()
        if tokens.count == 3:
            await never.wait()
        return text

    async with (
        asyncio.timeout(MAX_SECONDS),
        Server(listed) as server,
        CaseLinksClient(server.url, BearerToken(token), rate="100/1s") as client,
    ):
        calls = [asyncio.create_task(client.list_links(case(some_id(number)))) for number in range(10)]
        hanging = calls.pop(2)
        await asyncio.gather(*calls)
        assert (len(server.seen), hanging.done()) == (9, False)
        never.set()
        await hanging


@stopped
async def test_a_token_that_expires_during_a_wait_is_read_again(clock: Clock) -> None:
    """Credentials are read before the permit, and again if the wait for it took more than half a minute."""
    used_up = answers(200, b'{"data": []}', **RATE_LIMIT, X_RateLimit_Remaining="0")
    tokens = Tokens()
    async with (
        Server(used_up) as server,
        CaseLinksClient(server.url, BearerToken(tokens), retry=NO_WAIT) as client,
    ):
        await client.list_links(PARENT)
        waiting = asyncio.create_task(client.list_links(PARENT))
        await settle(50)
        assert (len(server.seen), tokens.count) == (1, 2)
        clock.advance(61)
        await waiting
    assert [seen.headers["Authorization"] for seen in server.seen] == ["Bearer token-1", "Bearer token-3"]


@stopped
async def test_a_token_that_cannot_be_read_again_takes_no_permit(clock: Clock) -> None:
    """A call whose token callable fails raises that error and releases its place to the next call."""
    used_up = answers(200, b'{"data": []}', **RATE_LIMIT, X_RateLimit_Remaining="0")
    one_left = answers(200, b'{"data": []}', **RATE_LIMIT, X_RateLimit_Remaining="1")
    is_broken = False

    async def token() -> str:
        if is_broken:
            raise OSError
        return "a-token"

    async with (
        Server(used_up, one_left) as server,
        CaseLinksClient(server.url, BearerToken(token), max_concurrency=1, retry=NO_WAIT) as client,
    ):
        await client.list_links(PARENT)
        waiting = asyncio.create_task(client.list_links(PARENT))
        await settle(50)
        is_broken = True
        clock.advance(61)
        with pytest.raises(ConfigurationError):
            await waiting
        is_broken = False
        assert await client.list_links(PARENT) == []
    assert len(server.seen) == 2


@stopped
async def test_the_wait_for_requests_in_flight_does_not_gather_requests(clock: Clock, keys: Any) -> None:
    """A request that waits for a slot counts towards the rate when it is sent."""
    named, names = Held(created), {"POST": "a", "GET": "b"}

    async def serve(exchange: Exchange) -> None:
        method = exchange.seen.method
        limit = {**RATE_LIMIT, "X_RateLimit_Name": names[method], "X_RateLimit_Remaining": "900"}
        if method == "POST":
            body = json.dumps({"data": link_json(exchange.seen.json["data"]["attributes"])}).encode()
            if len(server.seen) > 2:
                await named(exchange)
            else:
                await exchange.answer(201, body, **limit)
        else:
            await exchange.answer(200, b'{"data": []}', **limit)

    async with (
        Server(serve) as server,
        CaseLinksClient(server.url, keys, rate="2/10s", max_concurrency=1, retry=NO_WAIT) as client,
    ):
        await client.create_link(PARENT.blocks(case(some_id(1))))
        await client.list_links(PARENT)  # now each operation has a bucket of its own
        clock.advance(10)
        creating = asyncio.create_task(client.create_link(PARENT.blocks(case(some_id(2)))))
        await until_sent(server, 3)
        lists = [asyncio.create_task(client.list_links(PARENT)) for _ in range(3)]
        await settle(50)
        clock.advance(10)
        named.release()
        await creating
        await until_sent(server, 5)
        clock.advance(10)
        await until_sent(server, 6)
        await asyncio.gather(*lists)


@stopped
async def test_of_two_operations_that_get_ready_together_one_waits(clock: Clock) -> None:
    """One of two operations that read their credentials again at the same time gives its permit back."""

    async def serve(exchange: Exchange) -> None:
        is_create = exchange.seen.method == "POST"
        limit = {**RATE_LIMIT, "X_RateLimit_Name": exchange.seen.method, "X_RateLimit_Remaining": "900"}
        attributes = exchange.seen.json["data"]["attributes"] if is_create else {}
        body = json.dumps({"data": link_json(attributes) if is_create else []}).encode()
        await exchange.answer(201 if is_create else 200, body, **limit)

    tokens, new = Tokens(), PARENT.blocks(case(some_id(1)))
    async with (
        Server(serve) as server,
        CaseLinksClient(
            server.url, BearerToken(tokens), rate="1/40s", max_concurrency=1, retry=NO_WAIT
        ) as client,
    ):
        for call in (client.create_link(new), client.list_links(PARENT)):
            await call
            clock.advance(40)
        await client.list_links(PARENT)
        calls = [asyncio.create_task(client.create_link(new)), asyncio.create_task(client.list_links(PARENT))]
        await settle(50)
        tokens.is_valid.clear()
        clock.advance(40)
        await settle(50)
        tokens.is_valid.set()
        for count in (4, 5):
            await until_sent(server, count)
            clock.advance(40)
        await asyncio.gather(*calls)


@pytest.mark.parametrize("is_shared", [False, True])
@stopped
async def test_aiohttp_repeats_no_request_by_itself(clock: Clock, keys: Any, is_shared: bool) -> None:
    """A rate makes the client, and not aiohttp, repeat a GET or DELETE on a dropped connection.

    The rule also holds for a shared pool that other clients have used before.
    """
    async with SessionManager() as sessions, Server(listed, drops, listed) as server:
        if is_shared:
            async with CaseLinksClient(server.url, keys, sessions=sessions) as other:
                await other.list_links(PARENT)
        options: Any = {"sessions": sessions} if is_shared else {}
        async with CaseLinksClient(server.url, keys, rate="1/10s", retry=NO_WAIT, **options) as client:
            if not is_shared:
                await client.list_links(PARENT)
                clock.advance(10)
            listing = asyncio.create_task(client.list_links(PARENT))
            await until_sent(server, 2)
            clock.advance(10)
            await until_sent(server, 3)
            assert await listing == []


@needs_upload_tracker
async def test_without_a_rate_aiohttp_may_repeat_a_request(keys: Any) -> None:
    """Without a rate, aiohttp may repeat a request, which saves a wait and an attempt."""
    once = RetryPolicy(max_attempts=1)
    async with (
        Server(listed, drops, listed) as server,
        CaseLinksClient(server.url, keys, retry=once) as client,
    ):
        assert [await client.list_links(PARENT) for _ in range(2)] == [[], []]
        assert len(server.seen) == 3


RATE_LIMIT = {"X_RateLimit_Limit": "1000", "X_RateLimit_Period": "60", "X_RateLimit_Reset": "60"}


async def until_received(sandbox: Sandbox, count: int) -> None:
    await until(lambda: len(sandbox.requests) >= count)


async def until_sent(server: Server, count: int) -> None:
    """Wait until the server has seen ``count`` requests, and check that it sees no more."""
    await until(lambda: len(server.seen) >= count)
    await settle(50)
    assert len(server.seen) == count
