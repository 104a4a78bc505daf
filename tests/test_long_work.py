"""Work on thousands of links is done in a thread, so that the event loop continues."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest

from datadog_caselinks import (
    ApiKeys,
    CaseLinksClient,
    MalformedResponseError,
    RetryPolicy,
    case,
    incident,
)
from datadog_caselinks.graph import plan, reading
from datadog_caselinks.http import wire
from tests.support.ids import some_id
from tests.support.leftovers import leaving_nothing
from tests.support.server import Server
from tests.support.steps import answers

OUTAGE = incident(some_id(1))
FEW, MANY = 3, 500
wanted = [OUTAGE.causes(case(some_id(number + 2))) for number in range(MANY)]


def threads_of(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> set[bool]:
    """Return a set that records whether each call of a function runs in the thread of the event loop."""
    function: Callable[..., Any] = getattr(owner, name)
    loops, found = threading.get_ident(), set[bool]()

    @wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        found.add(threading.get_ident() == loops)
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, name, called)
    return found


async def make(client: CaseLinksClient, count: int) -> None:
    await asyncio.gather(*map(client.create_link, wanted[:count]))


class TestList:
    @pytest.mark.parametrize(("count", "is_in_loop"), [(FEW, True), (MANY, False)])
    async def test_is_read_in_a_thread_if_it_is_long(
        self, count: int, is_in_loop: bool, client: CaseLinksClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A long list is read in a thread and a short one in the event loop, with equal results."""
        await make(client, count)
        found = threads_of(monkeypatch, wire, "read_links")
        listed = await client.list_links(OUTAGE)
        assert {link.child for link in listed} == {new.child for new in wanted[:count]}
        assert found == {is_in_loop}

    async def test_that_is_malformed(self, keys: ApiKeys, at_once: RetryPolicy) -> None:
        """A malformed list that is read in a thread raises its error, and is retried."""
        endless = answers(200, b'{"data": [' + b"{}, " * 2**16)
        async with Server(endless) as server, CaseLinksClient(server.url, keys, retry=at_once) as links:
            with pytest.raises(MalformedResponseError, match="not valid JSON"):
                await links.list_links(OUTAGE)
        assert len(server.seen) == 3

    async def test_that_nobody_waits_for_any_more(
        self, client: CaseLinksClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A call that is cancelled while its list is read ends at once, and the thread ends later."""
        await make(client, MANY)
        begun, end, loop = asyncio.Event(), threading.Event(), asyncio.get_running_loop()

        def read(answer: wire.Response) -> list[Any]:
            loop.call_soon_threadsafe(begun.set)
            end.wait()
            return []

        async with leaving_nothing():
            monkeypatch.setattr(wire, "read_links", read)
            task = asyncio.create_task(client.list_links(OUTAGE))
            await begun.wait()
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            end.set()
            del task


async def test_a_plan_is_compared_in_a_thread(
    client: CaseLinksClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan is compared in a thread, as are the entities that it must list."""
    compared = threads_of(monkeypatch, plan, "compare")
    looked_for = threads_of(monkeypatch, plan, "_entities_to_list")
    assert len((await client.plan_links(wanted)).create) == MANY
    assert compared == looked_for == {False}


async def test_a_graph_is_joined_in_a_thread(
    client: CaseLinksClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list is added to a graph in a thread, and the graph is built in a thread."""
    await make(client, FEW)
    steps = threads_of(monkeypatch, reading._Walk, "_add_list")
    made = threads_of(monkeypatch, reading._Walk, "build_graph")
    assert len((await client.read_graph(OUTAGE)).links) == FEW
    assert steps == made == {False}
