"""The rules of the gate, on a real event loop whose clock only the test advances."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from datadog_caselinks.http.gate import Gate
from datadog_caselinks.http.headers import read_rate_limit
from datadog_caselinks.http.window import Window
from datadog_caselinks.values.errors import (
    CaseLinksError,
    ConnectError,
    RateLimitError,
    RequestTimeoutError,
    TransportError,
)
from datadog_caselinks.values.rate_limit import RateLimit
from tests.support.clock import Clock
from tests.support.waiting import settle

NOON: Final = 4096.0
"""Seconds at which every test begins: a power of two, so that sums are exact."""

HOUR: Final = 3600.0


pytestmark = pytest.mark.clock(stopped_at=NOON)


@pytest.fixture
async def gate(clock: Clock) -> Gate:
    return Gate()


@pytest.fixture
async def timers(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> list[asyncio.TimerHandle]:
    loop = asyncio.get_running_loop()
    set_by_now: list[asyncio.TimerHandle] = []
    call_later = loop.call_later

    def record(*arguments: Any) -> asyncio.TimerHandle:
        set_by_now.append(call_later(*arguments))
        return set_by_now[-1]

    monkeypatch.setattr(loop, "call_later", record)
    return set_by_now


def pending(timers: list[asyncio.TimerHandle], now: float) -> list[float]:
    """Return the seconds until each active timer."""
    return [timer.when() - now for timer in timers if not timer.cancelled() and timer.when() > now]


FREE: Final = asyncio.Semaphore()
"""The slots of a caller that has more than it needs."""


def reported(remaining: int | None, *, reset: float = 60.0, name: str | None = None) -> RateLimit:
    return RateLimit(10, remaining, 60.0, reset, name)


async def ask(
    gate: Gate, limit: RateLimit | None, operation: str = "create", *, retry_after: float | None = None
) -> None:
    """Send one request with an immediate response, which is a 429 if ``retry_after`` is given."""
    with await gate.acquire(operation, max_wait=HOUR, slots=FREE) as turn:
        turn.on_response(limit, is_rate_limited=retry_after is not None, retry_after=retry_after)


class Caller:
    """A caller that requests a permit and keeps it until the test sets the outcome of its request."""

    def __init__(
        self, gate: Gate, order: list[Caller] | None = None, operation: str = "create", max_wait: float = HOUR
    ) -> None:
        self.has_turn = False
        self._turn = gate.acquire(operation, max_wait=max_wait, slots=FREE)
        self._order = order
        self.outcome: asyncio.Future[RateLimit | None] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._call())

    async def _call(self) -> None:
        with await self._turn as turn:
            self.has_turn = True
            if self._order is not None:
                self._order.append(self)
            limit = await self.outcome
            turn.on_response(limit, is_rate_limited=False, retry_after=None)

    async def hear(self, limit: RateLimit | None) -> None:
        self.outcome.set_result(limit)
        await settle()
        await self.task

    async def fail(self, error: BaseException) -> None:
        self.outcome.set_exception(error)
        await settle()
        with pytest.raises(type(error)):
            await self.task

    async def cancel(self) -> None:
        self.task.cancel()
        await settle()
        assert self.task.cancelled()


def callers(gate: Gate, count: int, **options: Any) -> list[Caller]:
    return [Caller(gate, **options) for _ in range(count)]


def turns(callers: list[Caller]) -> list[bool]:
    return [caller.has_turn for caller in callers]


@pytest.fixture
async def leftover(gate: Gate) -> AsyncIterator[list[Caller]]:
    """The callers that the fixture cancels at the end of the test."""
    found: list[Caller] = []
    yield found
    for caller in found:
        caller.task.cancel()
    await asyncio.gather(*(caller.task for caller in found), return_exceptions=True)


class TestOrder:
    async def test_first_come_first_served(self, gate: Gate, clock: Clock, leftover: list[Caller]) -> None:
        """Permits are granted in FIFO order, across responses and windows."""
        order: list[Caller] = []
        asked = leftover[:] = callers(gate, 30, order=order)
        left = 10
        await settle()
        for _ in range(100):  # more than are needed
            permitted = [caller for caller in order if not caller.task.done()]
            for caller in permitted:
                left -= 1
                await caller.hear(reported(left))
            if not permitted:  # the last request of a window is reserved for others
                clock.advance(60)
                left = 10
                await settle()
        assert order == asked

    async def test_nobody_is_overtaken(self, gate: Gate, leftover: list[Caller]) -> None:
        """A caller that arrives as a request becomes available is queued behind those that wait."""
        first, second = leftover[:] = callers(gate, 2)
        await settle()
        first.outcome.set_result(reported(1))
        third = Caller(gate)
        leftover.append(third)
        await settle()
        assert turns([first, second, third]) == [True, True, False]
        await second.hear(reported(1))
        assert third.has_turn

    async def test_nobody_is_overtaken_when_the_window_ends(
        self, gate: Gate, clock: Clock, leftover: list[Caller]
    ) -> None:
        """A caller that arrives after the end of a window, before its timer fires, is queued too."""
        await ask(gate, reported(0))
        leftover[:] = callers(gate, 1)
        await settle()
        clock.advance(60)
        leftover.append(Caller(gate))  # runs before the timer fires
        await settle()
        assert turns(leftover) == [True, False]

    async def test_without_waiting_where_nothing_is_in_the_way(
        self, gate: Gate, timers: list[asyncio.TimerHandle]
    ) -> None:
        """A permit that is available takes no iteration of the event loop."""
        turn = gate.acquire("create", max_wait=0, slots=FREE)
        with pytest.raises(StopIteration):
            turn.send(None)
        assert timers == []

    async def test_a_permit_that_is_given_back(self, gate: Gate) -> None:
        """A permit that is released without a request leaves the window to the next caller."""
        await ask(gate, reported(1))
        (await gate.acquire("create", max_wait=0, slots=FREE)).withdraw()
        with await gate.acquire("create", max_wait=0, slots=FREE):
            pass


class TestCancelling:
    async def test_a_cancelled_waiter_takes_no_permit(self, gate: Gate, leftover: list[Caller]) -> None:
        """A cancelled caller, anywhere in the queue, takes no permit, and the others keep their order."""
        order: list[Caller] = []
        asked = leftover[:] = callers(gate, 7, order=order)
        await settle()
        for number in (1, 3, 6):
            await asked[number].cancel()
        left = 10
        for number in (0, 2, 4, 5):
            assert asked[number].has_turn
            left -= 1
            await asked[number].hear(reported(left))
        assert order == [asked[number] for number in (0, 2, 4, 5)]
        assert gate.rate_limit("create") == reported(6)

    async def test_waiters_that_left_are_forgotten(self, gate: Gate, leftover: list[Caller]) -> None:
        """Callers that give up are removed from the queue behind one that still waits."""
        await ask(gate, reported(0))
        leftover[:] = callers(gate, 1)
        await settle()
        for caller in callers(gate, 50):
            await settle()
            await caller.cancel()
        assert len(gate._first._waiting) == 1

    async def test_a_permit_that_was_just_given_goes_to_the_next(
        self, gate: Gate, leftover: list[Caller]
    ) -> None:
        """A permit of a caller that is cancelled before it runs goes to the next caller."""
        first, second, third = leftover[:] = callers(gate, 3)
        await settle()
        first.outcome.set_exception(ConnectError("refused"))
        await asyncio.sleep(0)  # now the second has a permit, and has not run
        second.task.cancel()
        await settle()
        assert turns([second, third]) == [False, True]
        await third.hear(reported(9))
        assert gate.rate_limit("create") == reported(9)

    async def test_all_at_once_leave_nothing_behind(
        self, gate: Gate, clock: Clock, timers: list[asyncio.TimerHandle]
    ) -> None:
        """A hundred cancelled callers leave no timer and no used permit."""
        await ask(gate, reported(0))
        asked = callers(gate, 100)
        await settle()
        assert pending(timers, clock.time()) == [60.0]
        for caller in asked:
            caller.task.cancel()
        await settle()
        assert pending(timers, clock.time()) == []
        clock.advance(60)
        await ask(gate, reported(9))
        assert gate.rate_limit("create") == reported(9)

    async def test_at_the_head_while_others_wait_keeps_the_timer(
        self, gate: Gate, clock: Clock, leftover: list[Caller], timers: list[asyncio.TimerHandle]
    ) -> None:
        """The timer remains for the next caller when the first in the queue is cancelled."""
        await ask(gate, reported(0))
        first, second = leftover[:] = callers(gate, 2)
        await settle()
        await first.cancel()
        assert pending(timers, clock.time()) == [60.0]
        clock.advance(60)
        await settle()
        assert second.has_turn

    async def test_a_waiter_that_is_refused_in_the_meantime(
        self, gate: Gate, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A caller that is cancelled just after its refusal is cancelled, and nothing is counted."""
        first, second = Caller(gate), Caller(gate, max_wait=1)
        await settle()
        first.outcome.set_result(reported(0))
        await asyncio.sleep(0)  # now the second is refused, and has not run
        second.task.cancel()
        await settle()
        assert second.task.cancelled()
        assert not second.has_turn

    async def test_a_waiter_that_is_passed_over_before_it_knows(
        self, gate: Gate, leftover: list[Caller]
    ) -> None:
        """A caller that is cancelled just after a response is passed over, and the next one gets a permit."""
        first, second, third = leftover[:] = callers(gate, 3)
        await settle()
        first.outcome.set_result(reported(1))
        await second.cancel()
        assert turns([second, third]) == [False, True]

    async def test_a_waiter_behind_others_who_would_be_refused(
        self, gate: Gate, leftover: list[Caller]
    ) -> None:
        """A caller that is cancelled just before its refusal is passed over."""
        first, _, third = leftover[:] = [Caller(gate, max_wait=max_wait) for max_wait in (1, HOUR, 1)]
        await settle()
        first.outcome.set_result(reported(0))
        third.task.cancel()
        await settle()
        assert third.task.cancelled()
        await first.task

    async def test_a_request_in_flight_may_have_been_counted(
        self, gate: Gate, leftover: list[Caller]
    ) -> None:
        """A cancelled request in flight counts, because the server may have received it."""
        await ask(gate, reported(9))
        (caller,) = leftover[:] = callers(gate, 1)
        await settle()
        await caller.cancel()
        assert gate.rate_limit("create") == reported(8)


class TestWaiting:
    async def test_waiters_go_when_the_window_ends(
        self, gate: Gate, clock: Clock, leftover: list[Caller]
    ) -> None:
        """At the end of a window one probe is sent, and its response lets the other callers continue."""
        await ask(gate, reported(0))
        asked = leftover[:] = callers(gate, 2)
        await settle()
        clock.advance(59.5)
        await settle()
        assert turns(asked) == [False, False]
        clock.advance(0.5)
        await settle()
        assert turns(asked) == [True, False]
        await asked[0].hear(reported(9))
        assert turns(asked) == [True, True]

    async def test_a_probe_without_a_response_holds_nobody_up(
        self, gate: Gate, clock: Clock, leftover: list[Caller]
    ) -> None:
        """A probe without a response delays the next caller by one second."""
        asked = leftover[:] = callers(gate, 3)
        await settle()
        assert turns(asked) == [True, False, False]
        clock.advance(1)
        await settle()
        assert turns(asked) == [True, True, False]

    async def test_a_429_holds_everyone(self, gate: Gate, clock: Clock, leftover: list[Caller]) -> None:
        """A 429 holds back all callers, also of other operations and those that arrive later."""
        await ask(gate, reported(9))
        await ask(gate, reported(8), retry_after=5)
        asked = leftover[:] = callers(gate, 2)
        await settle()
        other = Caller(gate, operation="list")
        leftover.append(other)
        clock.advance(4.5)
        await settle()
        assert turns(leftover) == [False, False, False]
        clock.advance(0.5)
        await settle()
        assert asked[0].has_turn

    async def test_too_long_a_wait_is_an_error_at_once(self, gate: Gate, clock: Clock) -> None:
        """A wait above ``max_wait`` is an error at once, which gives the wait in seconds and the remedy."""
        await ask(gate, reported(0))
        with pytest.raises(RateLimitError) as caught, await gate.acquire("create", max_wait=59.5, slots=FREE):
            raise AssertionError
        assert clock.time() == NOON
        assert str(caught.value) == (
            "the rate limit is used up for another 60 s, and max_wait is 60 s: "
            "try again later, or increase max_wait"
        )
        assert (caught.value.status, caught.value.retry_after) == (429, 60.0)
        assert caught.value.rate_limit == reported(0)

    async def test_too_long_a_wait_names_the_limit(self, gate: Gate, clock: Clock) -> None:
        """The error of a wait that is too long has the name of the limit, to view it and to raise it."""
        await ask(gate, evolve(reported(0), name=f"case_links{'x' * 5000}"))
        with pytest.raises(RateLimitError) as caught, await gate.acquire("create", max_wait=59.5, slots=FREE):
            raise AssertionError
        message = str(caught.value)
        assert ". The limit is named case_linksxxx" in message
        assert message.endswith("show its use by limit_name, and Datadog's support can raise it")
        assert len(message) < 500

    async def test_exactly_max_wait_is_waited(self, gate: Gate, clock: Clock, leftover: list[Caller]) -> None:
        """A wait of exactly ``max_wait`` is waited."""
        await ask(gate, reported(0))
        (caller,) = leftover[:] = callers(gate, 1, max_wait=60)
        await settle()
        clock.advance(60)
        await settle()
        assert caller.has_turn

    async def test_one_who_cannot_wait_ends_although_another_before_can(
        self, gate: Gate, leftover: list[Caller]
    ) -> None:
        """Callers with different ``max_wait`` share a gate: one may fail while others wait."""
        await ask(gate, reported(0))
        _, hasty, _ = leftover[:] = [Caller(gate, max_wait=max_wait) for max_wait in (HOUR, 5, HOUR)]
        await settle()
        assert [caller.task.done() for caller in leftover] == [False, True, False]
        with pytest.raises(RateLimitError, match="max_wait is 5 s"):
            await hasty.task

    async def test_waiting_becomes_too_long(self, gate: Gate, leftover: list[Caller]) -> None:
        """A response that closes the gate for longer fails all callers that cannot wait so long."""
        first, *others = leftover[:] = [Caller(gate, max_wait=max_wait) for max_wait in (1, 1, HOUR, 1)]
        await settle()
        await first.hear(reported(0))
        assert [caller.task.done() for caller in others] == [True, False, True]
        for hasty in (others[0], others[2]):
            with pytest.raises(RateLimitError, match="is used up for another 60 s") as caught:
                await hasty.task
            assert (caught.value.retry_after, caught.value.rate_limit) == (60.0, reported(0))

    async def test_a_wait_is_logged_once(
        self, gate: Gate, clock: Clock, leftover: list[Caller], caplog: pytest.LogCaptureFixture
    ) -> None:
        """A wait is logged once for a thousand callers, and again only for the next wait."""
        caplog.set_level(logging.INFO, "datadog_caselinks.gate")
        await ask(gate, reported(0))
        asked = leftover[:] = callers(gate, 1000)
        await settle()
        clock.advance(30)
        await asked.pop().cancel()
        await asked.pop(0).cancel()
        assert _logged(caplog) == [(logging.INFO, "the rate limit is used up; waiting 60.0 s", 60.0)]
        clock.advance(30)
        await settle()
        await asked[0].hear(reported(0, reset=0.5))
        assert _logged(caplog)[1:] == [(logging.INFO, "the rate limit is used up; waiting 0.5 s", 0.5)]

    async def test_no_wait_is_not_logged(
        self, gate: Gate, leftover: list[Caller], caplog: pytest.LogCaptureFixture
    ) -> None:
        """A wait for a response is not logged as a wait for the rate limit."""
        caplog.set_level(logging.INFO, "datadog_caselinks.gate")
        leftover[:] = callers(gate, 3)
        await settle()
        assert _logged(caplog) == []

    async def test_there_is_one_timer(
        self, gate: Gate, clock: Clock, leftover: list[Caller], timers: list[asyncio.TimerHandle]
    ) -> None:
        """A gate has one timer, for any number of callers and responses."""
        leftover[:] = callers(gate, 50)
        await settle()
        assert pending(timers, clock.time()) == [1.0]
        await leftover[0].hear(reported(0))
        assert pending(timers, clock.time()) == [60.0]

    async def test_what_is_left_can_be_asked_from_anywhere(self, gate: Gate) -> None:
        """``rate_limit`` can be read in any thread, without an event loop and before the first request."""
        assert await asyncio.to_thread(gate.rate_limit, "create") is None
        await ask(gate, reported(9))
        assert await asyncio.to_thread(gate.rate_limit, "create") == reported(9)


def _logged(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str, float]]:
    """Return the level, the message and the seconds of each log record."""
    return [
        (record.levelno, record.getMessage(), vars(record)["wait_seconds"])
        for record in caplog.records
        if record.name == "datadog_caselinks.gate"
    ]


class TestReserve:
    @pytest.mark.parametrize("taken", [True, False])
    async def test_the_last_request_is_left_to_others_while_more_calls_may_wait(
        self, gate: Gate, clock: Clock, taken: bool
    ) -> None:
        """The last request of a window is reserved only if all slots are taken, since more calls may wait."""
        for left in range(9, 0, -1):
            await ask(gate, reported(left))
        slots = asyncio.Semaphore(0 if taken else 1)
        last = asyncio.create_task(gate.acquire("create", max_wait=HOUR, slots=slots))
        await settle()
        assert last.done() is not taken
        clock.advance(44.5)
        await last
        assert gate.rate_limit("create") == reported(1, reset=15.5)

    async def test_no_more_wait_than_are_left(self, gate: Gate, clock: Clock, leftover: list[Caller]) -> None:
        """Calls in the queue use all that is left of a window if no more of them wait."""
        for left in range(9, 1, -1):
            await ask(gate, reported(left))
        leftover[:] = callers(gate, 2)
        await settle()
        assert turns(leftover) == [True, True]


class TestWhatBecameOfARequest:
    @pytest.mark.parametrize("error", [ConnectError("refused"), RequestTimeoutError("too slow")])
    async def test_nothing_was_sent(self, gate: Gate, leftover: list[Caller], error: CaseLinksError) -> None:
        """A request that was never sent is not counted, and the next caller gets its place at once."""
        await ask(gate, reported(1))
        first, second = leftover[:] = callers(gate, 2)
        await settle()
        assert turns(leftover) == [True, False]
        await first.fail(error)
        assert second.has_turn
        assert gate.rate_limit("create") == reported(1)

    @pytest.mark.parametrize("error", [TransportError("reset"), RuntimeError("a bug")])
    async def test_perhaps_sent(self, gate: Gate, leftover: list[Caller], error: Exception) -> None:
        """A request that may have been sent counts, because the server may have counted it."""
        await ask(gate, reported(9))
        (caller,) = leftover[:] = callers(gate, 1)
        await settle()
        await caller.fail(error)
        assert gate.rate_limit("create") == reported(8)

    async def test_perhaps_sent_is_cleared_up_by_the_next_response(
        self, gate: Gate, clock: Clock, leftover: list[Caller]
    ) -> None:
        """A response to a later request shows that a lost request was not counted."""
        await ask(gate, reported(9))
        (caller,) = leftover[:] = callers(gate, 1)
        await settle()
        await caller.fail(TransportError("reset"))
        clock.advance(1)
        await ask(gate, reported(8, reset=59.0))
        assert gate.rate_limit("create") == reported(8, reset=59.0)

    async def test_left_without_a_word(self, gate: Gate) -> None:
        """A request without a reported response counts."""
        await ask(gate, reported(9))
        with await gate.acquire("create", max_wait=0, slots=FREE):
            pass
        assert gate.rate_limit("create") == reported(8)

    async def test_an_error_after_the_response_changes_nothing(self, gate: Gate) -> None:
        """A response that was read counts, even if an error follows."""
        with (
            contextlib.suppress(TransportError),
            await gate.acquire("create", max_wait=0, slots=FREE) as turn,
        ):
            turn.on_response(reported(9), is_rate_limited=False, retry_after=None)
            raise TransportError
        assert gate.rate_limit("create") == reported(9)

    async def test_a_lost_probe_lets_the_next_one_go(self, gate: Gate, leftover: list[Caller]) -> None:
        """A lost probe lets the next caller continue at once."""
        first, second = leftover[:] = callers(gate, 2)
        await settle()
        await first.fail(TransportError("reset"))
        assert second.has_turn


class TestBuckets:
    async def test_operations_share_one_until_it_is_named(self, gate: Gate, leftover: list[Caller]) -> None:
        """Operations share a bucket until the server names different ones."""
        await ask(gate, reported(0))
        assert gate.rate_limit("list") == gate.rate_limit("create") == reported(0)
        (other,) = leftover[:] = callers(gate, 1, operation="list")
        await settle()
        assert not other.has_turn

    async def test_other_names_are_other_buckets(self, gate: Gate, leftover: list[Caller]) -> None:
        """Operations with different names have their own buckets, which do not hold each other back."""
        await ask(gate, reported(9, name="a"), "create")
        await ask(gate, reported(8, name="b"), "list")
        await ask(gate, reported(0, name="a"), "create")
        assert gate.rate_limit("create") == reported(0, name="a")
        assert gate.rate_limit("list") == reported(8, name="b")
        creating, listing = leftover[:] = [Caller(gate, operation=name) for name in ("create", "list")]
        await settle()
        assert turns([creating, listing]) == [False, True]

    async def test_the_same_name_is_the_same_bucket(self, gate: Gate) -> None:
        """Operations with the same name share a bucket."""
        await ask(gate, reported(9, name="a"), "create")
        await ask(gate, reported(8, name="b"), "list")
        await ask(gate, reported(7, name="b"), "delete")
        assert gate.rate_limit("list") == gate.rate_limit("delete") == reported(7, name="b")
        await ask(gate, reported(3, name="b"), "list")
        assert gate.rate_limit("delete") == reported(3, name="b")
        assert gate.rate_limit("create") == reported(9, name="a")

    async def test_the_first_name_keeps_what_is_known(self, gate: Gate, leftover: list[Caller]) -> None:
        """The first name that is reported keeps the state of the unnamed bucket, and its callers."""
        await ask(gate, reported(9))
        await ask(gate, reported(8, name="a"), "create")
        assert gate.rate_limit("create") == gate.rate_limit("list") == reported(8)

    async def test_the_last_response_of_a_window_lets_nobody_slip_by(
        self, gate: Gate, leftover: list[Caller]
    ) -> None:
        """The last response of a window closes the bucket before the next caller can pass."""
        await ask(gate, reported(1, name="a"))
        first, second = leftover[:] = callers(gate, 2)
        await settle()
        await first.hear(reported(0, name="a"))
        assert not second.has_turn

    async def test_names_without_end_are_forgotten(self, gate: Gate) -> None:
        """Only the latest names are kept, so that a server with endless names does not fill the memory."""
        counts = weakref.WeakSet[object]()
        for number in range(100):
            await ask(gate, reported(9, name=f"name {number}"))
            counts.add(gate.assign_bucket("create", f"name {number}"))
        gc.collect()
        assert len(counts) == 17  # includes the unnamed bucket
        await ask(gate, reported(5, name="name 98"), "list")
        assert gate.rate_limit("list") == reported(5, name="name 98")

    async def test_an_operation_may_move(self, gate: Gate, leftover: list[Caller]) -> None:
        """A request that another bucket counts is not counted here, and the next caller continues."""
        await ask(gate, reported(1, name="a"), "create")
        listing, creating = leftover[:] = [Caller(gate, operation=name) for name in ("list", "create")]
        await settle()
        assert turns(leftover) == [True, False]
        await listing.hear(reported(5, name="b"))
        assert creating.has_turn
        assert gate.rate_limit("create") == reported(1, name="a")
        assert gate.rate_limit("list") == reported(5, name="b")

    async def test_a_late_response_moves_no_operation_back(self, gate: Gate, leftover: list[Caller]) -> None:
        """A late response with the old name does not move an operation back."""
        await ask(gate, reported(9, name="a"), "list")
        late, moved = leftover[:] = callers(gate, 2, operation="list")
        await settle()
        await moved.hear(reported(5, name="b"))
        await late.hear(reported(8, name="a"))
        assert gate.rate_limit("list") == reported(5, name="b")

    async def test_a_late_response_of_another_name_closes_nothing(
        self, gate: Gate, clock: Clock, leftover: list[Caller]
    ) -> None:
        """A late response from an older window of another bucket does not close that bucket."""
        await ask(gate, reported(9, name="a"), "create")
        (late,) = leftover[:] = callers(gate, 1, operation="list")
        await settle()
        clock.advance(60)
        await ask(gate, reported(9, name="b"), "delete")
        await late.hear(reported(0, name="b"))
        assert gate.rate_limit("delete") == gate.rate_limit("list") == reported(8, name="b")
        clock.advance(60)
        leftover.extend(callers(gate, 2, operation="list"))
        await settle()
        assert turns(leftover) == [True, True, False]  # one probe, as usual
        await leftover[1].fail(ConnectError("refused"))
        assert leftover[2].has_turn

    async def test_before_any_response_and_after_the_window_there_is_none(
        self, gate: Gate, clock: Clock
    ) -> None:
        """``rate_limit`` describes only the current window."""
        assert gate.rate_limit("create") is None
        await ask(gate, reported(9))
        clock.advance(59.5)
        assert gate.rate_limit("create") == reported(9, reset=0.5)
        clock.advance(0.5)
        assert gate.rate_limit("create") is None

    async def test_a_limit_without_a_name_leaves_the_bucket(self, gate: Gate) -> None:
        """A response without a name or without headers belongs to the bucket of its request."""
        await ask(gate, reported(9, name="a"), "create")
        await ask(gate, reported(8, name="b"), "list")
        await ask(gate, reported(7), "list")
        await ask(gate, None, "list")
        assert gate.rate_limit("list") == reported(6, name="b")


class TestFailures:
    @pytest.mark.parametrize("broken", ["_allowance", "next_check", "_open", "count", "_update"])
    async def test_an_error_of_the_calculation_strands_nobody(
        self,
        gate: Gate,
        clock: Clock,
        monkeypatch: pytest.MonkeyPatch,
        leftover: list[Caller],
        caplog: pytest.LogCaptureFixture,
        broken: str,
    ) -> None:
        """An internal error is logged and resets the window, and all calls get their permits in order."""
        order: list[Caller] = []
        await ask(gate, reported(9))
        leftover[:] = callers(gate, 12, order=order)
        await settle()
        working = getattr(Window, broken)

        def fails_once(*arguments: Any, **options: Any) -> Any:
            monkeypatch.setattr(Window, broken, working)
            raise OverflowError

        monkeypatch.setattr(Window, broken, fails_once)
        left = 9
        for number in range(12):
            if len(order) <= number:
                clock.advance(60)
                left = 9
                await settle()
            left -= 1
            await order[number].hear(reported(max(left, 0)))
        assert order == leftover
        assert gate._first._window._in_flight == 0
        [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert record.getMessage() == "cannot calculate the rate limit; starting over"
        assert record.exc_info

    async def test_an_error_before_the_first_permit(
        self, gate: Gate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A call whose permit met an internal error gets its permit."""
        await ask(gate, reported(9))

        def fails(*_: Any) -> Any:
            monkeypatch.setattr(Window, "may_send", working)
            raise OverflowError

        working = Window.may_send
        monkeypatch.setattr(Window, "may_send", fails)
        await ask(gate, reported(8))
        assert gate.rate_limit("create") == reported(8)


OPERATIONS: Final = ["create", "list", "delete"]
NUMBERS: Final = st.sampled_from(
    ["0", "1", "3", "0.5", "1e-300", "1e300", "9" * 400, "3600", "4102444800", "-1", "soon", ""]
)
HEADERS: Final = st.lists(
    st.tuples(
        st.sampled_from([f"X-RateLimit-{name}" for name in ("Limit", "Remaining", "Period", "Reset")]),
        NUMBERS | st.integers(0, 20).map(str) | st.floats().map(str),
    )
    | st.tuples(st.just("X-RateLimit-Name"), st.sampled_from(["a", "b", " "]))
    | st.just(("Date", "Fri, 01 Jan 2100 00:00:00 GMT")),
    max_size=8,
).map(CIMultiDict[str])
STEPS: Final = st.lists(
    st.tuples(st.just("ask"), st.sampled_from(OPERATIONS), st.sampled_from([0.0, 10.0, 1e9]))
    | st.tuples(st.just("answer"), HEADERS, st.none() | st.sampled_from([-1.0, 0.0, 0.5, 1e300]))
    | st.tuples(st.sampled_from(["lose", "withdraw", "cancel"]))
    | st.tuples(st.just("wait"), st.sampled_from([0.25, 1.0, 60.0, HOUR])),
    max_size=40,
)


class Story:
    """Random requests and responses: a response with a hint is a 429, and -1 is a 429 without one."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.gate = Gate()
        self.asked: list[asyncio.Task[None]] = []
        self.under_way: list[tuple[asyncio.Future[Any], str]] = []

    async def ask(self, operation: str, max_wait: float) -> None:
        self.asked.append(asyncio.create_task(self._request(operation, max_wait)))

    async def _request(self, operation: str, max_wait: float) -> None:
        outcome = asyncio.get_running_loop().create_future()
        with await self.gate.acquire(operation, max_wait=max_wait, slots=FREE) as turn:
            self.under_way.append((outcome, operation))
            limit, hint = await outcome
            turn.on_response(
                limit, is_rate_limited=hint is not None, retry_after=hint if hint != -1 else None
            )

    async def answer(self, headers: CIMultiDict[str], hint: float | None) -> None:
        self._end((read_rate_limit(headers), hint))

    async def lose(self) -> None:
        self._end(TransportError())

    async def withdraw(self) -> None:
        self._end(ConnectError())

    async def cancel(self) -> None:
        for task in self.asked[::2]:
            task.cancel()

    async def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def _end(self, outcome: Any) -> None:
        while self.under_way:
            future, _ = self.under_way.pop(0)
            if not future.done():
                future.set_exception(outcome) if isinstance(outcome, Exception) else future.set_result(
                    outcome
                )
                return

    async def tell(self, steps: list[tuple[Any, ...]]) -> None:
        for name, *arguments in steps:
            await getattr(self, name)(*arguments)
            await settle(4)
            for operation in OPERATIONS:
                if current := self.gate.rate_limit(operation):
                    assert current.remaining is not None
                    assert current.remaining >= 0
                    assert current.reset is not None
                    assert 0 < current.reset <= HOUR
        while self.under_way:
            await self.lose()
            await settle(4)
        for task in self.asked:
            task.cancel()
        for error in await asyncio.gather(*self.asked, return_exceptions=True):
            assert error is None or isinstance(error, CaseLinksError | asyncio.CancelledError)
        self.clock.advance(HOUR)
        for operation in OPERATIONS:
            await ask(self.gate, None, operation)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@given(steps=STEPS)
def test_no_response_does_harm(runner: asyncio.Runner, steps: list[tuple[Any, ...]]) -> None:
    """Any headers keep the gate working: no count is negative, and a request may be sent within an hour."""
    loop = runner.get_loop()
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock(loop)
        patch.setattr(clock, "_real", lambda: NOON)
        patch.setattr(loop, "time", clock.time)
        task = loop.create_task(Story(clock).tell(steps))
        # The clock is stopped, so a story that hangs would never end.
        for _ in range(100_000):
            if task.done():
                break
            loop.call_soon(loop.stop)
            loop.run_forever()
        assert task.done()
        task.result()
