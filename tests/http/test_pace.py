"""A limit of the client's own: no more requests than it allows, in any period."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from datadog_caselinks import (
    CallWaiting,
    CaseLink,
    CaseLinksClient,
    ParameterError,
    Rate,
    RateLimitError,
    RetryPolicy,
    SessionError,
    case,
)
from datadog_caselinks.http.pace import Pace
from datadog_caselinks.sandbox import Sandbox
from tests.support.clock import Clock
from tests.support.ids import some_id
from tests.support.waiting import settle

PARENT = case(some_id(0))
stopped = pytest.mark.parametrize("clock", [{"stopped_at": 1000.0}], indirect=True)


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
    """A text names the number of requests, and the period with its unit or in seconds."""
    assert Rate.parse(text) == rate
    assert Rate.parse(str(rate)) == rate


@pytest.mark.parametrize(
    "text", ["", "50", "50/", "/1s", "0/1s", "5/0s", "-1/1s", "1.5/1s", "50/1d", "a/b", None, 7]
)
def test_anything_else_is_refused(text: object) -> None:
    """A rate without a number of requests and a period above zero is a ParameterError."""
    with pytest.raises(ParameterError):
        Rate.parse(text)  # type: ignore[arg-type]


async def test_the_parameter_is_checked(sandbox: Sandbox) -> None:
    """A client refuses a rate of the wrong type or form when it is created."""
    for wrong in (50, (50, 1), "fast"):
        with pytest.raises(ParameterError, match="rate"):
            client_of(sandbox, wrong)  # type: ignore[arg-type]


@stopped
async def test_no_more_requests_than_allowed_are_sent(sandbox: Sandbox, clock: Clock) -> None:
    """All operations count, and the next requests wait until the first ones are a period old."""
    events: list[object] = []
    async with client_of(sandbox, "3/10s", on_event=events.append) as client:
        new = [PARENT.blocks(case(some_id(number))) for number in range(1, 5)]
        creates = [asyncio.create_task(client.create_link(each)) for each in new]
        lists = [asyncio.create_task(client.list_links(PARENT)) for _ in range(3)]
        for count in (3, 6, 7):
            while len(sandbox.requests) < count:
                await settle(1)
            await settle()
            assert len(sandbox.requests) == count
            clock.advance(9.5)
            await settle()
            assert len(sandbox.requests) == count
            clock.advance(0.5)
        await asyncio.gather(*creates, *lists)
    assert len(sandbox.links) == 4
    assert len([event for event in events if isinstance(event, CallWaiting)]) == 6


async def test_the_lower_limit_counts(sandbox: Sandbox) -> None:
    """With a rate above the limit of the server, no more requests are sent than the server allows."""
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
    """The next call in the queue takes the place of one that is cancelled while it waits."""
    async with client_of(sandbox, "1/10s") as client:
        await client.list_links(PARENT)
        first, second = (asyncio.create_task(client.list_links(PARENT)) for _ in range(2))
        await settle()
        first.cancel()
        await asyncio.wait([first])
        clock.advance(10)
        assert await second == []


class Permit:
    """A permit of the gate that was or was not given back."""

    is_withdrawn = False

    def withdraw(self) -> None:
        self.is_withdrawn = True


@stopped
async def test_buckets_share_the_rate(clock: Clock) -> None:
    """Calls of different buckets wait in queues of their own, and together keep to the rate."""
    pace, permits = Pace(Rate(1, 10)), list[Permit]()

    async def acquire() -> Any:
        await asyncio.sleep(0)
        permits.append(Permit())
        return permits[-1]

    await pace.acquire("list", acquire)
    calls = [asyncio.create_task(pace.acquire(bucket, acquire)) for bucket in ("list", "create")]
    for done in range(3):
        await settle()
        assert [call.done() for call in calls].count(True) == done
        clock.advance(10)
    assert [permit.is_withdrawn for permit in permits] == [False, False, True, False]
