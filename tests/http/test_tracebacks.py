"""The rules for local variables in tracebacks: error trackers store them, and none may contain a key."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

import aiohttp
import pytest
from rich.pretty import pretty_repr

from datadog_caselinks import ApiKeys, BearerToken, CaseLinksClient, Credentials, RetryPolicy
from datadog_caselinks.http.wire import Response
from tests.hostile.answers import OPERATIONS
from tests.support.clock import Clock, in_no_time
from tests.support.leaks import assert_nothing_of, texts_of
from tests.support.server import Exchange, Server, Step
from tests.support.waiting import settle

SECRETS = API_KEY, APP_KEY, TOKEN = "the-api-key", "the-app-key", "the-token"
POLICY = RetryPolicy(max_attempts=2, max_rate_limited=1, base=0, settle=0)

PLACES: Final[dict[str, Callable[[str], bytes]]] = {
    "a header": lambda sent: f"HTTP/1.1 201 Created\r\nX-Echo: {sent}\r\n".encode(),
    "the name of a header": lambda sent: f"HTTP/1.1 201 Created\r\n{sent}: x\r\n".encode(),
    "the reason": lambda sent: f"HTTP/1.1 201 {sent}\r\n".encode(),
    "the name of the rate limit": lambda sent: (
        f"HTTP/1.1 429 No\r\nX-RateLimit-Name: {sent}\r\nX-RateLimit-Remaining: 0\r\n".encode()
    ),
    "a cookie": lambda sent: f"HTTP/1.1 201 Created\r\nSet-Cookie: {sent}=x\r\n".encode(),
}
"""The beginning of a response that contains what was sent."""

BREAKS: Final[dict[str, Callable[[str], bytes]]] = {
    "no body": lambda _: b"Content-Length: 9\r\n\r\n",
    "half a body": lambda sent: f"Content-Length: 999\r\n\r\n{sent}".encode(),
    "half a chunk": lambda sent: f"Transfer-Encoding: chunked\r\n\r\n999\r\n{sent}".encode(),
    "a broken chunk": lambda sent: f"Transfer-Encoding: chunked\r\n\r\n{sent}\r\n{sent}".encode(),
    "not gzip": lambda sent: f"Content-Encoding: gzip\r\nContent-Length: 999\r\n\r\n{sent}".encode(),
    "half of a gzip": lambda sent: (
        b"Content-Encoding: gzip\r\nContent-Length: 999\r\n\r\n" + gzip.compress(sent.encode())[:-9]
    ),
    "an unknown encoding": lambda sent: (
        f"Content-Encoding: {sent}\r\nContent-Length: {len(sent)}\r\n\r\n{sent}".encode()
    ),
    "a broken document": lambda sent: (
        f'Content-Length: {len(sent) + 20}\r\n\r\n{{"data": "{sent}"         '.encode()
    ),
    "half the headers": lambda sent: f"X-A: {sent}".encode(),
    "a broken header": lambda sent: f"{sent}\r\n\r\n".encode(),
    "a header too long": lambda sent: f"X-A: {sent * 9000}\r\n\r\n".encode(),
    "two lengths": lambda sent: f"Content-Length: 1\r\nContent-Length: {sent}\r\n\r\n".encode(),
}
"""The rest of it, which is not what it should be."""


def echoes(place: str, rest: str, then: Callable[[Exchange], None]) -> Step:
    """Return a step that sends the keys back in ``place``, and then calls ``then``."""

    async def step(exchange: Exchange) -> None:
        headers = exchange.seen.headers
        sent = headers.get("Authorization", "").removeprefix("Bearer ") or headers["DD-API-KEY"]
        await exchange.send(PLACES[place](sent) + BREAKS[rest](sent))
        then(exchange)
        await asyncio.Event().wait()

    return step


def frames_of(error: BaseException | None) -> Iterator[FrameType]:
    """Yield every frame that a report of ``error`` shows."""
    while error is not None:
        traceback = error.__traceback__
        while traceback is not None:
            yield traceback.tb_frame
            traceback = traceback.tb_next
        error = error.__cause__ or error.__context__


def require_clean(error: BaseException) -> None:
    """Fail if a report of ``error`` shows a key, or a frame has a response of aiohttp."""
    values = (value for frame in frames_of(error) for value in frame.f_locals.values())
    held = list({id(value): value for value in values}.values())  # each once, as many frames share one
    assert_nothing_of(SECRETS, map(pretty_repr, held))  # as rich shows them: also the fields of attrs classes
    assert_nothing_of(SECRETS, texts_of(error))
    assert not [value for value in held if isinstance(value, aiohttp.ClientResponse)]


async def error_of(client: CaseLinksClient, operation: str) -> BaseException:
    """Return what an operation raises. No local variable here is a key."""
    try:
        await OPERATIONS[operation][0](client)
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


CREDENTIALS: Final[dict[str, Credentials]] = {
    "create": ApiKeys(api_key=API_KEY, app_key=APP_KEY),
    "list": BearerToken(TOKEN),
    "get_case": ApiKeys(api_key=API_KEY, app_key=APP_KEY),
}


@pytest.mark.parametrize(
    ("place", "operation"),
    [("a header", "create"), ("a header", "get_case"), *((place, "list") for place in PLACES)],
)
@pytest.mark.parametrize("rest", BREAKS)
@pytest.mark.slow
async def test_a_response_that_breaks_off(place: str, rest: str, operation: str, clock: Clock) -> None:
    """No frame shows the keys, wherever a server echoes them before the connection ends."""
    step = echoes(place, rest, Exchange.close)
    async with (
        Server(step) as server,
        CaseLinksClient(server.url, CREDENTIALS[operation], retry=POLICY) as client,
    ):
        error = await in_no_time(clock, error_of(client, operation))
    require_clean(error)


async def end(ending: str, client: CaseLinksClient) -> None:
    """List links, and end the call after five seconds in one of three ways."""
    if ending == "timeout":
        async with asyncio.timeout(5):
            await OPERATIONS["list"][0](client)
    elif ending == "wait_for":
        await asyncio.wait_for(OPERATIONS["list"][0](client), 5)
    else:
        await OPERATIONS["list"][0](client)


@pytest.mark.parametrize(
    "rest", ["no body", "half a body", "half a chunk", "half of a gzip", "half the headers"]
)
@pytest.mark.parametrize("ending", ["timeout of the client", "cancel", "timeout", "wait_for"])
@pytest.mark.slow
async def test_a_response_that_hangs(ending: str, rest: str, clock: Clock) -> None:
    """No frame shows the keys when the client or its caller ends a call whose response does not end."""
    is_sent = asyncio.Event()
    step = echoes("a header", rest, lambda _: is_sent.set())
    async with (
        Server(step) as server,
        CaseLinksClient(server.url, CREDENTIALS["list"], retry=POLICY) as client,
    ):
        task = asyncio.ensure_future(end(ending, client))
        await is_sent.wait()
        await settle(50)
        if ending == "cancel":
            task.cancel()
        with pytest.raises((asyncio.CancelledError, TimeoutError)) as caught:
            await in_no_time(clock, task)
    require_clean(caught.value)


@pytest.mark.parametrize("operation", ["create", "list", "get_case"])
async def test_no_variable_of_the_package_is_a_container_of_keys(operation: str, clock: Clock) -> None:
    """A complete error response is kept in no local variable whose items a tracker could store."""
    step = echoes("a header", "a broken document", Exchange.close)
    async with (
        Server(step) as server,
        CaseLinksClient(server.url, CREDENTIALS[operation], retry=POLICY) as client,
    ):
        error = await in_no_time(clock, error_of(client, operation))
    shown = [value for frame in frames_of(error) for value in frame.f_locals.values()]
    assert any(isinstance(value, Response) for value in shown)
    require_clean(error)
