"""Any response is a value or an error of the package, leaks no keys, and does not affect later calls."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from attrs import Factory, define

from datadog_caselinks import (
    AmbiguousResultError,
    ApiKeys,
    CaseLinksClient,
    CaseLinksError,
    MalformedResponseError,
    RateLimitError,
    ResponseError,
    RetryPolicy,
    TransportError,
)
from tests.hostile.answers import (
    GARBLED,
    HARMLESS,
    KEYS,
    LIMITS,
    MEANINGLESS,
    OPERATIONS,
    REFUSED,
    elsewhere,
    endless,
    well,
    with_headers,
)
from tests.support.clock import Clock, in_no_time
from tests.support.leaks import assert_nothing_of, texts_of, texts_of_record
from tests.support.server import Exchange, Server, Step, head
from tests.support.steps import created
from tests.support.tcp import listening
from tests.support.waiting import settle

POLICY = RetryPolicy(max_attempts=2, max_rate_limited=1, base=0, settle=0, max_wait=60)
HOUR = 3600
"""Seconds that a server can hold a client up, and no more."""

each_operation = pytest.mark.parametrize("operation", OPERATIONS)


@define
class World:
    """A hostile server until ``is_good`` is set, another server that must get no request, and a client."""

    server: Server
    other: Server
    links: CaseLinksClient
    clock: Clock
    hostile: Step = well
    is_good: bool = False
    events: list[object] = Factory(list)

    async def outcome(self, operation: str) -> object:
        """Return the result or the error of an operation."""
        call, _ = OPERATIONS[operation]
        try:
            result: object = await in_no_time(self.clock, call(self.links))
        except CaseLinksError as error:
            return error
        return result

    async def answer(self, exchange: Exchange) -> None:
        await (well if self.is_good else self.hostile)(exchange)


@pytest.fixture
async def world(clock: Clock, caplog: pytest.LogCaptureFixture) -> AsyncIterator[World]:
    caplog.set_level(logging.DEBUG)
    keys = ApiKeys(api_key=KEYS[0], app_key=KEYS[1])
    events: list[object] = []

    async def answer(exchange: Exchange) -> None:
        await made.answer(exchange)

    async with (
        Server(answer) as server,
        Server(created) as other,
        CaseLinksClient(server.url, keys, retry=POLICY, timeout=20, on_event=events.append) as links,
    ):
        made = World(server, other, links, clock, events=events)
        yield made
        # These conditions apply to every test.
        assert other.connections == 0
        assert not any("Cookie" in seen.headers for seen in server.seen)
        assert_nothing_of(KEYS, map(repr, events))
        for record in caplog.records:
            assert_nothing_of(KEYS, texts_of_record(record))


def require_error(outcome: object, *kinds: type[CaseLinksError]) -> None:
    """Fail unless ``outcome`` is one of ``kinds``, printable, and without a key."""
    assert isinstance(outcome, kinds), outcome
    assert str(outcome).isprintable()
    assert len(str(outcome)) < 2000
    assert_nothing_of(KEYS, texts_of(outcome))


async def require_good_again(world: World, operation: str) -> None:
    """Fail unless the next call, to a server that has recovered, has the correct result."""
    world.is_good = True
    assert await world.outcome(operation) == OPERATIONS[operation][1]


@each_operation
@pytest.mark.parametrize("name", HARMLESS)
async def test_what_is_odd_and_good(world: World, name: str, operation: str) -> None:
    """An unusual but correct response is a success, and so is the next call."""
    world.hostile = HARMLESS[name]
    assert await world.outcome(operation) == OPERATIONS[operation][1]
    await require_good_again(world, operation)


@each_operation
@pytest.mark.parametrize("name", GARBLED)
async def test_a_malformed_response(world: World, name: str, operation: str) -> None:
    """A garbled response is an error for every operation, and ambiguous for creates."""
    world.hostile = GARBLED[name]
    require_error(await world.outcome(operation), TransportError, AmbiguousResultError)
    await require_good_again(world, operation)


@each_operation
@pytest.mark.parametrize("name", MEANINGLESS)
async def test_what_has_no_meaning(world: World, name: str, operation: str) -> None:
    """A success without a link is an error for every operation but a delete."""
    world.hostile = MEANINGLESS[name]
    outcome = await world.outcome(operation)
    if operation != "delete":
        require_error(outcome, MalformedResponseError, AmbiguousResultError)
    elif isinstance(outcome, CaseLinksError):
        require_error(outcome, TransportError)
    await require_good_again(world, operation)


@each_operation
@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_a_refusal(world: World, name: str, operation: str) -> None:
    """A response with an error status is an error with that status, for any body."""
    world.hostile = REFUSED[name]
    require_error(await world.outcome(operation), ResponseError, AmbiguousResultError)
    await require_good_again(world, operation)


@each_operation
@pytest.mark.parametrize("name", elsewhere("http://elsewhere.example"))
async def test_what_points_elsewhere(world: World, name: str, operation: str) -> None:
    """A response that points to another server is not followed, so that the other server gets no keys."""
    world.hostile = elsewhere(world.other.url)[name]
    require_error(await world.outcome(operation), ResponseError)
    await require_good_again(world, operation)


@pytest.mark.parametrize("operation", ["create", "list"])
@pytest.mark.parametrize("status", [None, 429, 503])
@pytest.mark.parametrize("name", LIMITS)
async def test_limits_that_no_server_means(
    world: World, name: str, status: int | None, operation: str
) -> None:
    """Absurd rate limit headers do not turn a success into an error, and have no effect after an hour."""
    world.hostile = with_headers(*LIMITS[name], status=status)
    outcome = await world.outcome(operation)
    if status:
        require_error(outcome, ResponseError, AmbiguousResultError)
    else:
        assert outcome == OPERATIONS[operation][1]
    world.clock.advance(HOUR)
    await require_good_again(world, operation)


@pytest.mark.parametrize("status", [None, 429])
@pytest.mark.parametrize("name", LIMITS)
async def test_limits_that_no_server_means_for_many_calls_at_once(
    world: World, name: str, status: int | None
) -> None:
    """Absurd rate limit headers let every one of many calls end with its link or an error."""
    world.hostile = with_headers(*LIMITS[name], status=status)
    create, expected = OPERATIONS["create"]
    calls = (create(world.links) for _ in range(25))
    for outcome in await in_no_time(world.clock, asyncio.gather(*calls, return_exceptions=True)):
        if status or isinstance(outcome, Exception):
            require_error(outcome, RateLimitError)
        else:
            assert outcome == expected
    world.clock.advance(HOUR)
    await require_good_again(world, "create")


@each_operation
@pytest.mark.parametrize(
    ("begin", "again"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
        (b"HTTP/1.1 200 OK\r\n", b"X-A: a\r\n"),
        (b"HTTP/1.1 200 OK\r\nX-A: ", b"a" * 100),
        (b"HTTP/1.1 200 ", b"OK" * 100),
        (head(200, Transfer_Encoding="chunked"), b"1\r\n \r\n"),
        (head(200, Transfer_Encoding="chunked"), b"1;" + b"a" * 100),
        (head(200, Content_Length=str(2**30)), b" "),
        (b"", b"\r\n"),
    ],
    ids=["100s", "headers", "header", "reason", "chunks", "extension", "body", "empty lines"],
)
async def test_what_never_ends(world: World, begin: bytes, again: bytes, operation: str) -> None:
    """A response without end is cut off by the timeout of each attempt."""
    world.hostile = endless(begin, again, world.clock)
    before = world.clock.time()
    require_error(await world.outcome(operation), TransportError, AmbiguousResultError)
    assert world.clock.time() - before < 5 * 20 + HOUR / 60  # attempts and lookups, of 20 s each
    await require_good_again(world, operation)


@each_operation
async def test_an_unsolicited_response(world: World, operation: str) -> None:
    """An unsolicited response between two calls is not read as the response to the second."""
    held: list[Exchange] = []

    async def keep(exchange: Exchange) -> None:
        held.append(exchange)
        await well(exchange)

    world.hostile = keep
    assert await world.outcome(operation) == OPERATIONS[operation][1]
    stolen = b'{"data": {"id": "of another", "attributes": {}}}'
    await held[-1].send(head(201, Content_Length=str(len(stolen))) + stolen)
    await settle()
    await require_good_again(world, operation)
    assert world.server.connections == 2


@each_operation
async def test_a_response_before_the_request_is_read(world: World, operation: str) -> None:
    """A response that arrives before the request is read counts as its response."""
    early = head(413, Content_Length="0", Connection="close")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(early)
        await writer.drain()
        await reader.read()

    async with (
        listening(answer) as port,
        CaseLinksClient(
            f"http://127.0.0.1:{port}", ApiKeys(api_key=KEYS[0], app_key=KEYS[1]), retry=POLICY
        ) as links,
    ):
        call, _ = OPERATIONS[operation]
        with pytest.raises(ResponseError) as caught:
            await call(links)
    require_error(caught.value, ResponseError)
    assert caught.value.status == 413


def test_operations_are_those_of_the_client() -> None:
    """The tests cover every operation of the client."""
    tried: dict[str, Any] = {name.removesuffix("_link").removesuffix("s"): name for name in OPERATIONS}
    assert set(tried) == {"create", "ensure", "list", "delete", "get_case"}
