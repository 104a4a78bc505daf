"""The window: alone and with others against a model of the server, and each of its rules by itself.

Time is a number that is passed in, so nothing here waits.
"""

from __future__ import annotations

import heapq
import itertools
import math
import pickle
import random
from collections.abc import Callable
from typing import Any

import pytest
from attrs import Factory, define, evolve, field, frozen
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from datadog_caselinks.http.window import SentRequest, Window
from datadog_caselinks.rate_limit import RateLimit

GRAIN = 1.0
"""Seconds: ``Reset`` is told in whole ones, rounded up."""

HOUR = 3600.0


@define
class Server:
    """Counts in windows of ``period`` seconds, aligned to a clock ``ahead`` of the clients' by so much.

    It also judges a client that is alone. Two kinds of request may be rejected although the client does all
    that it can know: probes, and those that were so long on their way that they are counted in a later
    window than they were sent in. Since the end of a window is known up to a second too late, a probe may
    also come on top of what was sent into its window before, and take the place of one of those. Whatever
    else is rejected in a window is ``overdrawn``.
    """

    limit: int
    period: float
    ahead: float
    overdrawn: int = field(default=0, init=False)
    _window: int = field(default=-1, init=False)
    _used: int = field(default=0, init=False)
    _excused: int = field(default=0, init=False)
    _sent_into: set[int] = field(factory=set, init=False)
    _on_top: list[SentRequest] = field(factory=list, init=False)

    def window(self, now: float) -> int:
        """The number of the window that ``now`` is in."""
        return math.floor((now + self.ahead) / self.period)

    def start(self, window: int) -> float:
        """When ``window`` begins."""
        return window * self.period - self.ahead

    def see(self, request: SentRequest) -> None:
        """A request is sent."""
        window = self.window(request.at)
        if not request.is_probe:
            self._sent_into.add(window)
        elif window in self._sent_into:
            self._on_top.append(request)

    def take(self, now: float, request: SentRequest) -> tuple[RateLimit, bool]:
        """A request arrives: what the answer tells, and whether it is a 429."""
        window = self.window(now)
        if window != self._window:
            self._window, self._used, self._excused = window, 0, 0
        is_rate_limited = self._used == self.limit
        self._used += not is_rate_limited
        self._excused += any(request is probe for probe in self._on_top)
        if is_rate_limited and not request.is_probe and self.window(request.at) == window:
            self._excused -= 1
            self.overdrawn += self._excused < 0
        reset = float(math.ceil(self.start(window + 1) - now))
        return RateLimit(self.limit, self.limit - self._used, self.period, reset, "links"), is_rate_limited


# Multiples of a power of two: sums are exact, so that a window ends for both sides at the same moment.
moments = st.integers(0, 640).map(lambda ticks: ticks / 64)
pauses = st.integers(1, 192).map(lambda ticks: ticks / 64)


@frozen
class Answer:
    """On its way back to the client."""

    request: SentRequest
    limit: RateLimit
    is_rate_limited: bool


class Alone(RuleBasedStateMachine):
    """A client alone on its limit, with any delays, any order of arrival, and any requests and answers lost.

    What is given up has arrived by then or never does.
    """

    @initialize(limit=st.integers(1, 20), period=st.integers(1, 8), ahead=moments, now=moments)
    def begin(self, limit: int, period: int, ahead: float, now: float) -> None:
        self.window = Window(lambda low, _: low)
        self.server = Server(limit, float(period), ahead)
        self.now = now
        self.to_server: list[SentRequest] = []
        self.to_client: list[Answer] = []

    @rule(count=st.integers(1, 30))
    def send(self, count: int) -> None:
        for _ in range(count):
            if not self.window.may_send(self.now):
                break
            self.to_server.append(self.window.count(self.now))
            self.server.see(self.to_server[-1])

    @precondition(lambda self: self.to_server)
    @rule(data=st.data(), count=st.integers(1, 30))
    def arrive(self, data: st.DataObject, count: int) -> None:
        for _ in range(min(count, len(self.to_server))):
            request = self.to_server.pop(data.draw(st.integers(0, len(self.to_server) - 1)))
            self.to_client.append(Answer(request, *self.server.take(self.now, request)))
            assert not self.server.overdrawn

    @precondition(lambda self: self.to_client)
    @rule(data=st.data(), count=st.integers(1, 30))
    def hear(self, data: st.DataObject, count: int) -> None:
        for _ in range(min(count, len(self.to_client))):
            self.answer(self.to_client.pop(data.draw(st.integers(0, len(self.to_client) - 1))))

    def answer(self, answer: Answer) -> None:
        self.window.on_response(
            self.now, answer.request, answer.limit, is_rate_limited=answer.is_rate_limited, retry_after=None
        )

    @precondition(lambda self: self.to_client)
    @rule(data=st.data())
    def lose_an_answer(self, data: st.DataObject) -> None:
        answer = self.to_client.pop(data.draw(st.integers(0, len(self.to_client) - 1)))
        self.window.lose(self.now, answer.request)

    @precondition(lambda self: self.to_server)
    @rule(data=st.data())
    def lose_a_request(self, data: st.DataObject) -> None:
        request = self.to_server.pop(data.draw(st.integers(0, len(self.to_server) - 1)))
        self.window.lose(self.now, request)

    @precondition(lambda self: self.to_server)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        self.window.release(self.to_server.pop(data.draw(st.integers(0, len(self.to_server) - 1))))

    @rule(seconds=pauses)
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: not self.window.may_send(self.now))
    @rule()
    def look_again(self) -> None:
        self.now = self.window.next_check(self.now)

    @invariant()
    def what_is_told_is_possible(self) -> None:
        """A count is never negative or above the limit, and a window that is over is not told."""
        if told := self.window.current(self.now):
            assert told.remaining is not None
            assert told.reset is not None
            assert 0 <= told.remaining <= self.server.limit
            assert 0 < told.reset <= self.server.period

    @invariant()
    def it_looks_again(self) -> None:
        """Who may not send is told a later moment to look, however long no answer comes."""
        if not self.window.may_send(self.now):
            assert self.now < self.window.next_check(self.now)

    def teardown(self) -> None:
        """Once all is answered, something may be sent after at most one period and the grain of ``Reset``."""
        if not hasattr(self, "window"):
            return
        self.arrive_and_hear_all()
        answered = self.now
        while not self.window.may_send(self.now):
            self.now = self.window.next_check(self.now)
            assert self.now <= answered + self.server.period + GRAIN

    def arrive_and_hear_all(self) -> None:
        for request in self.to_server:
            self.to_client.append(Answer(request, *self.server.take(self.now, request)))
        for answer in self.to_client:
            self.answer(answer)


TestAlone = pytest.mark.slow(Alone.TestCase)
TestAlone.settings = settings(max_examples=200, stateful_step_count=40)


@define
class Client:
    """So many requests to make; ``slots`` of them may be under way at once."""

    todo: int
    window: Window = Factory(Window)
    slots: int = 100
    served_at: float = 0.0
    longest_gap: float = 0.0
    looks_at: float = -1.0

    def may_send(self, now: float) -> bool:
        demand = math.inf if self.todo > self.slots else self.todo
        return self.todo > 0 and self.slots > 0 and self.window.may_send(now, demand)


class Simulation:
    """Clients of one server in virtual time, with random delays that are the same for each ``seed``.

    The first request is sent at 0, when at least the part ``first`` of a window is left; the others follow.
    """

    def __init__(
        self, clients: int, requests: int, *, seed: int, slowest: float = 0.02, first: float = 0.5
    ) -> None:
        random.seed(seed)  # for the pauses of the windows
        self.random = random.Random(seed)
        self.slowest = slowest
        self.server = Server(200, 2.0, self.random.uniform(0, 2 - 2 * first))
        self.clients = [Client(requests // clients) for _ in range(clients)]
        self.now = 0.0
        self.rejected = 0
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = itertools.count()
        for number, client in enumerate(self.clients):
            self.at(self.random.uniform(0, 0.15) if number else 0.0, self.pump, client)

    def run(self) -> None:
        while self._events:
            self.now, _, event, arguments = heapq.heappop(self._events)
            event(*arguments)

    def at(self, when: float, event: Callable[..., None], *arguments: object) -> None:
        heapq.heappush(self._events, (when, next(self._count), event, arguments))

    def later(self, event: Callable[..., None], *arguments: object) -> None:
        self.at(self.now + self.random.uniform(self.slowest / 10, self.slowest), event, *arguments)

    def pump(self, client: Client) -> None:
        while client.may_send(self.now):
            client.todo -= 1
            client.slots -= 1
            request = client.window.count(self.now)
            self.server.see(request)
            self.later(self.arrive, client, request)
        if client.todo and client.slots and client.looks_at != client.window.next_check(self.now):
            client.looks_at = client.window.next_check(self.now)
            self.at(client.looks_at, self.pump, client)

    def arrive(self, client: Client, request: SentRequest) -> None:
        self.later(self.hear, client, request, *self.server.take(self.now, request))

    def hear(self, client: Client, request: SentRequest, limit: RateLimit, is_rate_limited: bool) -> None:
        client.window.on_response(self.now, request, limit, is_rate_limited=is_rate_limited, retry_after=None)
        client.slots += 1
        client.todo += is_rate_limited
        self.rejected += is_rate_limited
        if not is_rate_limited:
            client.longest_gap = max(client.longest_gap, self.now - client.served_at)
            client.served_at = self.now
        self.pump(client)

    @property
    def done_at(self) -> float:
        return max(client.served_at for client in self.clients)

    def floor(self, requests: int) -> float:
        """When the last window that the limit forces begins."""
        return self.server.start(self.server.window(0.0) + math.ceil(requests / self.server.limit) - 1)


def simulated(clients: int, requests: int, **options: Any) -> Simulation:
    """Run to its end, which it must come to: each request is made, and no slot is lost."""
    simulation = Simulation(clients, requests, **options)
    simulation.run()
    assert [(client.todo, client.slots) for client in simulation.clients] == [(0, 100)] * clients
    return simulation


class TestClientsOfOneLimit:
    @pytest.mark.parametrize("seed", range(10))
    @pytest.mark.slow
    def test_alone_nothing_is_rate_limited_and_no_window_is_lost(self, seed: int) -> None:
        """2,000 requests at 200 per 2 s: at most 1.03 of the floor, and the grain of ``Reset``."""
        alone = simulated(1, 2000, seed=seed)
        assert alone.rejected == 0
        assert alone.done_at <= 1.03 * alone.floor(2000) + GRAIN

    @pytest.mark.parametrize("seed", range(30))
    @pytest.mark.slow
    def test_alone_on_a_slow_line_only_probes_come_too_many(self, seed: int) -> None:
        """Answers that overtake each other, also across the end of a window, are no more to be had of it."""
        alone = simulated(1, 2000, seed=seed, slowest=0.12, first=0)
        assert alone.server.overdrawn == 0

    @pytest.mark.parametrize("seed", range(10))
    @pytest.mark.slow
    def test_four_share_a_limit(self, seed: int) -> None:
        """At most 10 % are rejected, and nearly all of each window is used."""
        four = simulated(4, 2000, seed=seed)
        assert four.rejected <= 0.1 * 2000
        assert four.done_at <= 1.1 * four.floor(2000) + GRAIN

    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize("clients", [2, 4, 20])
    @pytest.mark.slow
    def test_however_many_there_are_all_get_done(self, clients: int, seed: int) -> None:
        """Also where each has only a few requests of a window."""
        together = simulated(clients, 2000, seed=seed)
        assert together.done_at <= 1.2 * together.floor(2000) + GRAIN

    @pytest.mark.parametrize("clients", [2, 4])
    def test_nobody_starves(self, clients: int) -> None:
        """Where answers take as long as they do over the internet, each gets something of every window."""
        together = simulated(clients, 2000, seed=0, slowest=0.12)
        assert max(client.longest_gap for client in together.clients) <= 1.25 * together.server.period


def told(
    remaining: int | None,
    *,
    limit: int | None = 10,
    period: float | None = 60.0,
    reset: float | None = 60.0,
) -> RateLimit:
    """What headers say: of ``limit`` requests so many remain of a window of 60 s.

    The windows begin at 100 and 160, and what is left of one is less for a request that is sent later.
    """
    return RateLimit(limit, remaining, period, reset)


def hear(
    window: Window,
    now: float,
    request: SentRequest,
    limit: RateLimit | None = None,
    *,
    is_rate_limited: bool = False,
    retry_after: float | None = None,
) -> None:
    if limit and limit.reset == limit.period == 60.0:
        limit = evolve(limit, reset=float(math.ceil(60.0 - (request.at - 100.0) % 60.0)))
    window.on_response(now, request, limit, is_rate_limited=is_rate_limited, retry_after=retry_after)


def reject(window: Window, now: float, limit: RateLimit | None = None, **hint: float) -> None:
    """A request is sent, and the answer is a 429 at the same moment."""
    hear(window, now, window.count(now), limit, is_rate_limited=True, **hint)


def opened(limit: RateLimit | None, now: float = 100.0) -> Window:
    """A window that one request opened, of which all of the last one was this client's."""
    window = Window()
    hear(window, now - 1, window.count(now - 1), RateLimit(10, 9, 60.0, 1.0))
    hear(window, now, window.count(now), limit)
    return window


def burst(window: Window, now: float) -> list[SentRequest]:
    """All that go out at once."""
    sent: list[SentRequest] = []
    while window.may_send(now) and len(sent) < 1000:
        sent.append(window.count(now))
    return sent


def remaining(window: Window, now: float) -> int | None:
    current = window.current(now)
    return current.remaining if current else None


class TestProbes:
    def test_the_first_request_goes_alone(self) -> None:
        """While nothing is known, one request finds out."""
        window = Window()
        assert [request.is_probe for request in burst(window, 0.0)] == [True]

    def test_the_next_probe_waits_a_second(self) -> None:
        """A probe that hangs does not hold up everyone for as long as it may hang."""
        window = Window()
        burst(window, 0.0)
        assert window.next_check(0.5) == 1.0
        assert burst(window, 0.99) == []
        assert len(burst(window, 1.0)) == 1
        assert window.next_check(1.5) == 2.0
        assert burst(window, 1.99) == []

    def test_a_probe_that_was_not_sent_is_replaced_at_once(self) -> None:
        """It told nothing, and took nothing."""
        window = Window()
        for _ in range(3):
            window.release(window.count(0.0))
            assert window.may_send(0.0)

    def test_one_of_two_that_was_not_sent_does_not_make_room(self) -> None:
        """The other is still under way, and has its second."""
        window = Window()
        first, _ = window.count(0.0), window.count(1.0)
        window.release(first)
        assert not window.may_send(1.99)
        assert window.may_send(2.0)

    def test_a_lost_probe_is_replaced_at_once(self) -> None:
        """The pause before the next attempt is not the window's affair."""
        window = Window()
        window.lose(0.5, window.count(0.0))
        assert len(burst(window, 0.5)) == 1

    def test_the_end_of_a_window_is_found_out_by_a_probe(self) -> None:
        """Only what is sent after the end is surely counted in the next window."""
        window = opened(told(0))
        assert burst(window, 159.9) == []
        assert window.next_check(100.0) == window.blocked_until(100.0) == 160.0
        assert [request.is_probe for request in burst(window, 160.0)] == [True]

    def test_requests_of_the_last_window_do_not_keep_a_probe_back(self) -> None:
        """They may hang for long, and are not counted twice."""
        window = opened(told(3))
        assert len(burst(window, 100.0)) == 3
        assert window.next_check(150.0) == 160.0
        assert len(burst(window, 160.0)) == 1

    def test_the_last_request_of_a_window_is_no_probe(self) -> None:
        """SentRequest just before the end, it does not keep one back either."""
        window = opened(told(1))
        assert not window.count(159.5).is_probe
        assert len(burst(window, 160.0)) == 1


class TestRemaining:
    def test_no_more_are_under_way_than_remain(self) -> None:
        """Each that is under way may take one of them."""
        window = opened(told(5))
        assert len(burst(window, 100.0)) == 5

    def test_a_late_answer_does_not_raise_it(self) -> None:
        """Answers overtake each other, and within a window the least that was told counts."""
        window = opened(told(9))
        first, second = window.count(101.0), window.count(101.0)
        hear(window, 102.0, second, told(7))
        hear(window, 103.0, first, told(8))
        assert remaining(window, 103.0) == 7

    def test_what_others_take_is_seen(self) -> None:
        """Other processes use the same limit."""
        window = opened(told(9))
        hear(window, 102.0, window.count(101.0), told(2))
        assert remaining(window, 102.0) == 2
        hear(window, 104.0, window.count(103.0), told(0))
        assert not window.may_send(104.0)

    def test_the_earliest_end_counts(self) -> None:
        """``Reset`` is rounded up and an answer takes its time, so no end that is told is too early."""
        window = opened(told(9))
        hear(window, 101.0, window.count(100.5), told(8, reset=58.0))
        hear(window, 102.0, window.count(101.0), told(7, reset=58.0))
        assert window.current(102.0) == told(7, reset=57.0)

    def test_an_older_windows_answer_closes_nothing(self) -> None:
        """Nothing remained of the window before, and this one is another."""
        window = opened(told(9))
        late = window.count(101.0)
        hear(window, 160.0, window.count(160.0), told(9))
        hear(window, 161.0, late, told(0, reset=59.0))
        assert remaining(window, 161.0) == 8  # it may have been counted in either
        assert window.may_send(161.0)

    def test_an_older_windows_answer_opens_nothing(self) -> None:
        """Of the window before there was much left, and nothing is of this one."""
        window = opened(told(9))
        late = window.count(101.0)
        hear(window, 160.0, window.count(160.0), told(0))
        hear(window, 161.0, late, told(8, reset=1.0))
        assert not window.may_send(219.9)

    def test_an_answer_after_the_end_of_its_window_opens_no_other(self) -> None:
        """What is known of a window ends with it, whenever it was heard."""
        window = opened(told(9))
        late = window.count(159.0)
        hear(window, 160.5, late, told(8))
        assert window.current(160.5) is None
        assert len(burst(window, 160.5)) == 1

    def test_an_answer_tells_that_the_window_was_over_earlier(self) -> None:
        """Its end is known up to a second too late; an answer that has longer to go is of the next one."""
        window = opened(told(9, period=2.0, reset=2.0))
        early = window.count(100.5)
        hear(window, 101.25, window.count(101.25), told(7, period=2.0, reset=2.0))
        assert remaining(window, 101.25) == 7
        assert window.blocked_until(101.25) == 101.25
        hear(window, 101.5, early, told(8, period=2.0, reset=1.0))
        assert remaining(window, 101.5) == 6

    def test_an_answer_of_the_same_window_tells_of_no_other(self) -> None:
        """It has at most as long to go as the window has, and the second that it is rounded up by."""
        window = opened(told(9, period=2.0, reset=2.0))
        hear(window, 100.75, window.count(100.75), told(8, period=2.0, reset=2.0))
        hear(window, 100.9, window.count(100.8), told(9, period=2.0, reset=2.0))
        assert remaining(window, 100.9) == 8

    @pytest.mark.parametrize("answered", [160.0, 160.2])
    def test_a_request_that_was_counted_after_the_probe_is_not_forgotten(self, answered: float) -> None:
        """SentRequest before the end, it arrived after the probe, and yet was answered before it."""
        window = opened(told(9))
        late = window.count(159.0)
        probe = window.count(160.0)
        hear(window, answered, late, told(8))
        hear(window, 160.3, probe, told(9))
        assert remaining(window, 160.3) == 8
        assert len(burst(window, 160.3)) == 8

    def test_a_withdrawn_request_takes_nothing(self) -> None:
        """What was never sent was never counted."""
        window = opened(told(2))
        for request in burst(window, 100.0):
            window.release(request)
        assert len(burst(window, 100.0)) == 2


class TestReserve:
    """A process that could use up a window leaves a twelfth of it to others, for most of the window."""

    def test_the_last_requests_are_left_while_more_wait(self) -> None:
        """A window of 10 has a reserve of one, until a quarter before its earliest end."""
        window = opened(told(9))
        sent = 0
        while window.may_send(100.0, math.inf):
            window.count(100.0)
            sent += 1
        assert sent == 8
        assert window.next_check(100.0) == 144.5
        assert not window.may_send(144.4, math.inf)
        assert window.may_send(144.5, math.inf)
        assert window.next_check(144.5) == 160.0

    def test_what_waits_may_take_the_rest(self) -> None:
        """If all that waits is within what is left, nothing has to wait for the next window."""
        window = opened(told(2))
        window.count(100.0)
        window.count(100.0)
        assert not window.may_send(100.0, 3)
        window = opened(told(2))
        assert window.may_send(100.0, 2)

    def test_a_process_that_had_little_may_take_it(self) -> None:
        """The reserve is for those who come when another process has used up the rest."""
        window = Window()
        hear(window, 100.0, window.count(100.0), told(16, limit=200))
        assert window.may_send(100.0, math.inf)

    def test_the_smallest_limit_has_none(self) -> None:
        """A window of one request is for the first that comes."""
        window = opened(told(1, limit=1))
        window.count(100.0)
        window.release(window.count(100.0))
        assert not window.may_send(100.0, math.inf)
        window.release(SentRequest(100.0, is_probe=False))
        assert window.may_send(100.0, math.inf)

    def test_nothing_is_left_where_a_window_may_be_over_at_any_time(self) -> None:
        """``Reset`` is in whole seconds, which says nothing about a window of a second."""
        window = opened(told(2, period=1.0, reset=1.0))
        assert len(burst(window, 100.9)) == 2
        window = opened(told(2, period=1.0, reset=1.0))
        window.count(100.9)
        assert window.may_send(100.9, math.inf)


class TestEnds:
    """The end of a window follows from the ends of the windows before it."""

    def two_seconds(self) -> Window:
        """A window of two seconds that ends between 102.0 and 102.1."""
        window = Window()
        hear(window, 100.1, window.count(100.0), told(9, period=2.0, reset=2.0))
        hear(window, 101.1, window.count(101.0), told(8, period=2.0, reset=1.0))
        late = window.count(101.0)
        window.on_response(
            101.2, late, told(7, period=2.0, reset=2.0), is_rate_limited=False, retry_after=None
        )
        return window

    def test_each_response_narrows_the_end(self) -> None:
        """It is after the time of sending plus ``Reset`` less a second, for every response."""
        window = self.two_seconds()
        assert window.blocked_until(101.5) == 101.5
        assert (window._ends_after, window._ends_at) == (102.0, 102.1)

    def test_the_next_window_ends_a_period_later(self) -> None:
        """Windows are aligned to the calendar; clocks may drift apart a little."""
        window = self.two_seconds()
        hear(window, 102.2, window.count(102.1), told(9, period=2.0, reset=2.0))
        assert window.next_check(103.9) == pytest.approx(104.1, abs=0.001)
        hear(window, 108.9, window.count(108.7), told(9, period=2.0, reset=2.0))
        assert window.next_check(109.9) == pytest.approx(110.1, abs=0.001)

    def test_windows_that_are_not_aligned_end_as_their_responses_say(self) -> None:
        """If no number of periods fits, the last windows say nothing about this one."""
        window = self.two_seconds()
        hear(window, 103.6, window.count(103.5), told(9, period=2.0, reset=2.0))
        assert window.next_check(105.0) == 105.6

    def test_slow_responses_say_too_little(self) -> None:
        """A response that takes longer than half the window may be of several windows."""
        window = self.two_seconds()
        hear(window, 102.9, window.count(102.2), told(9, period=2.0, reset=2.0))
        assert window.next_check(104.8) == 104.9


class TestPause:
    def test_after_two_windows_that_others_used_up_the_next_probe_is_at_another_time(self) -> None:
        """Otherwise it might find each window used up, as it always comes at the same time of it."""
        window = Window(lambda low, high: (low + high) / 2)
        for now in (100.0, 160.0):
            reject(window, now, told(0))
            assert window.blocked_until(now) == now + 60.0 + (now > 100.0) * 5.0
        reject(window, 225.0, told(0, period=2.0, reset=2.0))
        assert window.blocked_until(225.0) == 228.0
        hear(window, 228.0, window.count(228.0), told(5))
        reject(window, 280.0, told(0))
        assert window.blocked_until(280.0) == 340.0

    def test_a_rejection_after_a_success_makes_no_pause(self) -> None:
        """This process had its part of the window."""
        window = Window(lambda low, high: high)
        for now in (100.0, 160.0, 220.0):
            first, second = window.count(now), window.count(now)
            hear(window, now, first, told(0))
            hear(window, now, second, told(0), is_rate_limited=True)
            reject(window, now, told(0))
            assert window.blocked_until(now) == now + 60.0


class TestAdoptedRequests:
    def test_one_is_under_way_until_it_is_answered(self) -> None:
        """It went out as one of another bucket, beside those of this one, and takes the place of none."""
        window = opened(told(2))
        own = burst(window, 100.0)
        window.release(window.adopt(Window().count(99.0)))
        assert not window.may_send(100.0)
        for request in own:
            window.release(request)
        assert len(burst(window, 100.0)) == 2


class TestLostRequests:
    def test_they_count_until_an_answer_to_something_later(self) -> None:
        """The server may have counted them, and an answer to what was sent after them tells."""
        window = opened(told(9))
        earlier = window.count(101.0)
        for _ in range(3):
            window.lose(102.0, window.count(101.0))
        assert remaining(window, 102.0) == 6
        hear(window, 103.0, earlier, told(8))
        assert remaining(window, 103.0) == 5
        same_moment = window.count(102.0)
        hear(window, 103.0, same_moment, told(8))
        assert remaining(window, 103.0) == 5
        hear(window, 104.0, window.count(103.0), told(7))
        assert remaining(window, 104.0) == 7

    def test_one_counts_where_there_is_but_one(self) -> None:
        """It may have been that one."""
        window = opened(told(1, limit=1))
        window.lose(101.0, window.count(100.5))
        assert remaining(window, 101.0) == 0

    def test_so_does_an_answer_that_says_nothing(self) -> None:
        """It was answered, and perhaps not counted."""
        window = opened(told(9))
        hear(window, 101.0, window.count(100.5))
        assert remaining(window, 101.0) == 8
        hear(window, 103.0, window.count(102.0), told(8))
        assert remaining(window, 103.0) == 8

    def test_only_those_lost_before_are_cleared_up(self) -> None:
        """An answer tells nothing of what was lost after its request went out."""
        window = opened(told(9))
        window.lose(101.0, window.count(100.0))
        request = window.count(102.0)
        window.lose(103.0, window.count(100.0))
        hear(window, 104.0, request, told(7))
        assert remaining(window, 104.0) == 6

    def test_there_are_never_fewer_than_none(self) -> None:
        """What is lost may be more than what remains."""
        window = opened(told(3))
        for request in burst(window, 100.0):
            window.lose(101.0, request)
        hear(window, 102.0, window.count(101.0), told(1))
        assert remaining(window, 102.0) == 0

    def test_they_do_not_close_a_window_till_its_end(self) -> None:
        """If they were not counted there is something left: one request at a time finds out."""
        window = opened(told(3))
        for request in burst(window, 100.0):
            window.lose(101.0, request)
        [one] = burst(window, 102.0)
        assert one.is_probe
        assert window.blocked_until(102.0) == 102.0
        hear(window, 103.0, one, told(2))
        assert len(burst(window, 103.0)) == 2

    def test_in_a_window_that_is_used_up_nothing_finds_out(self) -> None:
        """The server has told that nothing is left."""
        window = opened(told(0))
        assert burst(window, 101.0) == []

    def test_a_probe_that_was_lost_after_the_next_one_was_sent_counts(self) -> None:
        """The second may have been counted before the first, and then tells nothing of it."""
        window = opened(told(9))
        first, second = window.count(160.0), window.count(161.0)
        window.lose(161.5, first)
        hear(window, 162.0, second, told(9))
        assert remaining(window, 162.0) == 8

    def test_the_next_window_owes_nothing(self) -> None:
        """What was lost in a window was counted in it."""
        window = opened(told(9))
        for request in burst(window, 100.0):
            window.lose(101.0, request)
        hear(window, 160.0, window.count(160.0), told(9))
        assert remaining(window, 160.0) == 9

    @pytest.mark.parametrize("is_lost", [True, False])
    def test_where_there_is_no_limit_they_do_not_pile_up(self, is_lost: bool) -> None:
        """There is nothing that they could have been counted in."""
        window = Window()
        sizes = []
        for count in (1, 10_000):
            for _ in range(count):
                window.lose(1.0, window.count(0.0)) if is_lost else hear(window, 1.0, window.count(0.0))
            sizes.append(len(pickle.dumps(window)))
        assert sizes[1] < sizes[0] + 50

    def test_where_there_is_no_limit_any_more_they_do_not_pile_up(self) -> None:
        """Not even while a probe hangs that was sent when there was one."""
        window = opened(told(9))
        window.count(160.0)
        hear(window, 161.0, window.count(161.0))
        sizes = []
        for count in (1, 10_000):
            for _ in range(count):
                window.lose(162.0, window.count(161.5))
            sizes.append(len(pickle.dumps(window)))
        assert sizes[1] < sizes[0] + 50

    def test_they_count_in_the_next_window_if_an_older_request_opens_it(self) -> None:
        """Its answer was made before they were counted, and so does not tell of them."""
        window = opened(told(9))
        older = window.count(159.0)
        window.lose(160.5, window.count(160.0))
        window.lose(160.5, window.count(160.0))
        window.on_response(160.5, older, told(7, reset=60.0), is_rate_limited=False, retry_after=None)
        current = window.current(160.5)
        assert current is not None
        assert current.remaining == 5

    def test_in_an_outage_they_do_not_pile_up(self) -> None:
        """More of them than the limit could not have been counted."""
        window = opened(told(9))
        sizes = []
        for count in (10, 10_000):
            for _ in range(count):
                window.lose(201.0, window.count(200.0))
            sizes.append(len(pickle.dumps(window)))
        assert sizes[1] < sizes[0] + 50


class TestHolding:
    def test_without_a_hint_pauses_double_up_to_half_a_minute(self) -> None:
        """A server that only says no is asked ever less often."""
        window, now, pauses = Window(), 0.0, []
        for _ in range(8):
            reject(window, now)
            assert window.next_check(now) == window.blocked_until(now)
            pauses.append(window.blocked_until(now) - now)
            now = window.blocked_until(now)
            assert window.may_send(now)
        assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30]

    @pytest.mark.parametrize("limit", [None, told(5)])
    def test_a_success_resets_the_pause(self, limit: RateLimit | None) -> None:
        """The next 429 begins with the shortest pause."""
        window = Window()
        for now in (0.0, 1.0, 2.0):
            reject(window, now)
        hear(window, 10.0, window.count(10.0), limit)
        reject(window, 11.0, limit)
        assert window.blocked_until(11.0) == 11.5

    def test_many_at_once_are_one_refusal(self) -> None:
        """A hundred that were under way together do not make the pause a hundred times longer."""
        window = opened(None)
        for request in burst(window, 100.0)[:100]:
            hear(window, 100.0, request, is_rate_limited=True)
        assert window.blocked_until(100.0) == 100.5

    def test_a_429_that_tells_the_end_of_its_window_alone(self) -> None:
        """Nothing is left until then, which it says without a number."""
        window = Window()
        reject(window, 100.0, told(None, limit=None, period=None, reset=30.0))
        assert window.blocked_until(100.0) == 130.0

    def test_the_end_of_a_used_up_window_is_a_hint(self) -> None:
        """No pause is added to it."""
        window = opened(told(9))
        reject(window, 101.0, told(0, reset=59.0))
        assert window.blocked_until(101.0) == 160.0
        assert len(burst(window, 160.0)) == 1

    def test_retry_after_holds_everyone(self) -> None:
        """Also where the window has something left, or there is no limit otherwise."""
        for limit in (told(9), None):
            window = opened(limit)
            reject(window, 101.0, limit, retry_after=7.0)
            assert burst(window, 107.9) == []
            assert window.next_check(101.0) == window.blocked_until(101.0) == 108.0
            assert window.may_send(108.0)

    def test_the_longest_retry_after_counts(self) -> None:
        """One that ends earlier does not let anyone go."""
        window = opened(None)
        first, second = burst(window, 100.0)[:2]
        hear(window, 100.0, first, is_rate_limited=True, retry_after=20.0)
        hear(window, 101.0, second, is_rate_limited=True, retry_after=3.0)
        assert window.blocked_until(101.0) == 120.0

    def test_a_retry_after_of_0_is_no_hint(self) -> None:
        """Believed, it would make a tight loop."""
        window = Window()
        reject(window, 0.0, retry_after=0.0)
        assert window.blocked_until(0.0) == 0.5

    def test_a_window_that_is_used_up_longer_than_retry_after_holds(self) -> None:
        """The later of both counts."""
        window = opened(told(9))
        reject(window, 101.0, told(0, reset=59.0), retry_after=5.0)
        assert window.blocked_until(101.0) == 160.0

    @pytest.mark.parametrize("seconds", [3601.0, 1e300])
    def test_hints_are_believed_for_an_hour(self, seconds: float) -> None:
        """It is Datadog's longest period; after it the server is asked anew."""
        window = Window()
        reject(window, 0.0, retry_after=seconds)
        assert window.blocked_until(0.0) == HOUR
        for limit in (told(0, reset=seconds, period=None), told(0, reset=None, period=seconds)):
            assert opened(limit).blocked_until(100.0) == 100.0 + HOUR
        assert opened(told(0, reset=seconds, period=2 * seconds)).blocked_until(100.0) == 100.0 + HOUR

    def test_nothing_blocked_is_now(self) -> None:
        """Neither while it is not known, nor with something left, nor without a limit."""
        for window in (Window(), opened(told(1)), opened(None)):
            assert window.blocked_until(100.0) == 100.0


class TestNoLimit:
    def test_any_number_goes_out(self) -> None:
        """A server that tells of no limit is not slowed down."""
        window = Window()
        hear(window, 0.1, window.count(0.0))
        sent = burst(window, 0.1)
        assert len(sent) == 1000
        assert not any(request.is_probe for request in sent)
        assert window.current(0.1) is None

    @pytest.mark.parametrize("limit", [told(None), RateLimit(name="links")])
    def test_a_limit_without_remaining_is_none(self, limit: RateLimit) -> None:
        """It cannot be kept by what is not told; a 429 tells when it is too much."""
        window = Window()
        hear(window, 0.1, window.count(0.0), limit)
        assert len(burst(window, 0.1)) == 1000

    def test_one_answer_that_says_nothing_opens_nothing(self) -> None:
        """Something in between answered, and within a window its limit stands."""
        window = opened(told(3))
        hear(window, 101.0, window.count(100.0))
        assert remaining(window, 101.0) == 2
        assert len(burst(window, 101.0)) == 2

    def test_a_server_that_stops_telling(self) -> None:
        """If the probe of the next window hears of no limit, there is none any more."""
        window = opened(told(3))
        hear(window, 160.0, window.count(160.0))
        assert len(burst(window, 160.0)) == 1000
        assert window.current(160.0) is None

    def test_an_older_windows_answer_does_not_close_it_again(self) -> None:
        """It says nothing, and of a window that is over."""
        window = opened(told(3))
        late = window.count(101.0)
        hear(window, 160.0, window.count(160.0))
        hear(window, 161.0, late)
        assert len(burst(window, 161.0)) == 1000

    def test_an_answer_from_the_last_second_of_a_window_opens_nothing(self) -> None:
        """It says nothing of the next one."""
        window = opened(told(9))
        hear(window, 160.5, window.count(159.5))
        assert len(burst(window, 160.5)) == 1

    def test_a_late_probe_that_hears_nothing_opens_nothing(self) -> None:
        """A later probe has told of the limit since."""
        window = opened(told(3))
        first, second = window.count(160.0), window.count(161.0)
        hear(window, 161.0, second, told(0))
        hear(window, 162.0, first)
        assert not window.may_send(162.0)

    def test_a_limit_that_is_told_later_closes(self) -> None:
        """What is under way by then counts against it."""
        window = Window()
        hear(window, 0.0, window.count(0.0))
        sent = burst(window, 0.0)[:4]
        for request in burst(window, 0.0):
            window.release(request)
        assert window.may_send(0.0)
        hear(window, 1.0, sent[0], told(9))
        assert remaining(window, 1.0) == 9
        hear(window, 160.0, window.count(160.0))
        assert window.may_send(160.0)
        hear(window, 161.0, window.count(161.0), told(0))
        assert burst(window, 162.0) == []

    def test_a_429_closes(self) -> None:
        """There is a limit after all, so that the next request goes alone; its success opens again."""
        window = opened(None)
        reject(window, 100.0)
        assert window.current(100.5) is None
        (probe,) = burst(window, 100.5)
        assert probe.is_probe
        hear(window, 100.6, probe)
        assert len(burst(window, 100.6)) == 1000


class TestAbsentAndOddValues:
    def test_without_reset_the_period_counts(self) -> None:
        """The window ends after its whole length at the latest."""
        assert opened(told(0, reset=None)).blocked_until(100.0) == 160.0

    def test_without_reset_an_answer_of_the_last_second_opens_no_other(self) -> None:
        """The period says how long a window is, and not how much is left of it."""
        window = opened(told(9, reset=None))
        hear(window, 159.8, window.count(159.5), told(8, reset=None))
        assert remaining(window, 159.9) == 8
        assert window.current(160.0) is None

    def test_without_both_it_is_a_second(self) -> None:
        """Then it is asked anew."""
        assert opened(told(0, reset=None, period=None)).blocked_until(100.0) == 101.0

    def test_no_window_is_longer_than_its_period(self) -> None:
        """Whatever ``Reset`` says."""
        assert opened(told(0, reset=500.0)).blocked_until(100.0) == 160.0

    def test_a_period_of_0_is_not_told(self) -> None:
        """No window has this length."""
        assert opened(told(0, reset=5.0, period=0.0)).blocked_until(100.0) == 105.0
        assert opened(told(0, reset=None, period=0.0)).blocked_until(100.0) == 101.0

    def test_a_reset_of_0_is_less_than_a_second(self) -> None:
        """It was rounded, and the window is not over."""
        assert opened(told(0, reset=0.0)).blocked_until(100.0) == 101.0
        assert opened(told(0, reset=0.0, period=0.5)).blocked_until(100.0) == 100.5

    def test_fractions_count(self) -> None:
        """A server may tell the moment exactly."""
        assert opened(told(0, reset=0.25)).blocked_until(100.0) == 100.25
        assert opened(told(0, reset=None, period=1.5)).blocked_until(100.0) == 101.5

    def test_a_reset_too_short_to_add_up_makes_a_pause(self) -> None:
        """A hint that ends at once is none, and the next request does not go in a tight loop."""
        window = Window()
        reject(window, 100.0, told(0, reset=1e-300))
        assert window.blocked_until(100.0) == 100.5

    @pytest.mark.parametrize("limit", [None, 0, 3])
    def test_remaining_counts_without_a_limit_to_match(self, limit: int | None) -> None:
        """It is what is left, also of a limit that is absent, zero or smaller."""
        window = opened(told(5, limit=limit))
        assert len(burst(window, 100.0)) == 5

    def test_huge_counts(self) -> None:
        """The largest number that headers can say is a number."""
        most = int(1.7e308)
        window = opened(told(most, limit=most))
        hear(window, 101.0, window.count(100.0), told(most, limit=most))
        assert len(burst(window, 101.0)) == 1000
        hear(window, 160.0, window.count(160.0), told(most, limit=1))
        assert len(burst(window, 160.0)) >= 1
        hear(window, 220.0, window.count(220.0), told(0, limit=most))
        assert not window.may_send(220.0)


class TestCurrent:
    def test_from_nothing_to_the_end(self) -> None:
        """Nothing before the first answer; then what it told, less what was lost; nothing once it is over."""
        window = Window()
        assert window.current(0.0) is None
        request = window.count(0.0)
        assert window.current(0.0) is None
        hear(window, 1.0, request, told(9))
        assert window.current(1.0) == told(9, reset=40.0)
        assert window.current(11.0) == told(9, reset=30.0)
        window.lose(12.0, window.count(11.0))
        assert window.current(12.0) == told(8, reset=29.0)
        assert window.current(40.5) == told(8, reset=0.5)
        assert window.current(41.0) is None

    def test_the_name_is_kept(self) -> None:
        """It is the bucket's."""
        current = opened(evolve(told(9), name="links")).current(100.0)
        assert current
        assert current.name == "links"


class TestShare:
    def first(self, remaining: int) -> tuple[Window, int]:
        window = Window()
        hear(window, 100.0, window.count(100.0), told(remaining, limit=100))
        return window, remaining

    def test_a_first_window_is_opened_step_by_step(self) -> None:
        """Others may be about to use it too: one more is under way with each answer that tells of none."""
        window, left = self.first(99)
        for answers in range(1, 20):
            sent = burst(window, 100.0 + answers)
            assert len(sent) == answers + 1
            for request in sent[1:]:
                window.release(request)
            left -= 1
            hear(window, 100.5 + answers, sent[0], told(left, limit=100))

    def test_what_others_took_before_the_first_request_is_not_their_share(self) -> None:
        """They may have taken it long ago."""
        window, _ = self.first(50)
        hear(window, 101.0, window.count(100.0), told(49, limit=100))
        assert len(burst(window, 101.0)) == 3

    def test_what_others_took_before_says_nothing_of_the_little_that_is_left(self) -> None:
        """It is opened step by step, as any first window."""
        window, _ = self.first(3)
        assert len(burst(window, 100.0)) == 2

    @pytest.mark.parametrize(("left", "taken_by_all", "answers"), [(99, 2, 25), (50, 3, 10)])
    def test_where_others_take_as_well_it_is_a_part_of_what_is_left(
        self, left: int, taken_by_all: int, answers: int
    ) -> None:
        """As large as one's part of what was taken: all together then ask for no more than there is."""
        window, left = self.first(left)
        for number in range(1, answers + 1):
            left -= taken_by_all
            hear(window, 100.0 + number, window.count(100.0 + number - 0.5), told(left, limit=100))
        assert len(burst(window, 150.0)) == left * (1 + answers) // (1 + taken_by_all * answers)

    def test_the_share_of_the_last_window_is_taken_at_once(self) -> None:
        """There is no need to find it out again; less two fifths, since what is known of others is late."""
        window, left = self.first(99)
        for answers in range(1, 25):
            left -= 4
            hear(window, 100.0 + answers, window.count(100.0 + answers - 0.5), told(left, limit=100))
        hear(window, 160.0, window.count(160.0), told(99, limit=100))
        assert len(burst(window, 160.0)) == int(0.6 * 25 / 97 * 99)

    @pytest.mark.parametrize(("of_others", "allowed"), [(1, int(19 / 20 * 99)), (2, int(0.6 * 18 / 20 * 98))])
    def test_with_19_of_20_nobody_else_is_thought_to_be_there(self, of_others: int, allowed: int) -> None:
        """A stray request of another does not cost two fifths of every window."""
        window, _ = self.first(99)
        sent = [window.count(100.0) for _ in range(19 - of_others)]
        for number, request in enumerate(sent, start=1):
            hear(window, 101.0, request, told(99 - number - of_others, limit=100))
        hear(window, 160.0, window.count(160.0), told(100 - of_others, limit=100))
        assert len(burst(window, 160.0)) == allowed

    def test_alone_it_is_all(self) -> None:
        """Nobody else took anything."""
        window, _ = self.first(99)
        hear(window, 160.0, window.count(160.0), told(99, limit=100))
        assert len(burst(window, 160.0)) == 99

    def test_it_is_no_more_than_all(self) -> None:
        """Requests of this window may have been counted in the one before."""
        window, _ = self.first(99)
        for _number in range(3):
            hear(window, 101.0, window.count(100.0), told(99, limit=100))
        hear(window, 160.0, window.count(160.0), told(60, limit=100))
        assert len(burst(window, 160.0)) == 60

    def test_what_was_rejected_took_nothing(self) -> None:
        """Whoever asks most does not get most."""
        window = Window()
        hear(window, 100.0, window.count(100.0), told(5))
        requests = [window.count(100.0) for _ in range(10)]
        hear(window, 101.0, requests.pop(), told(0))
        for request in requests:
            hear(window, 101.0, request, told(0), is_rate_limited=True)
        hear(window, 160.0, window.count(160.0), told(9))
        assert len(burst(window, 160.0)) == int(0.6 * 2 / 10 * 9)

    def test_a_window_that_was_full_before_leaves_the_share_unknown(self) -> None:
        """Nothing was had of it; the next one is opened step by step."""
        window = Window()
        reject(window, 100.0, told(0))
        hear(window, 160.0, window.count(160.0), told(9))
        assert len(burst(window, 160.0)) == 2

    def test_a_rejected_request_that_opens_a_window_leaves_one(self) -> None:
        """Whatever the share, the next request is let go as long as anything is left."""
        window = Window()
        reject(window, 100.0, told(5))
        assert len(burst(window, 101.0)) == 1

    def test_even_the_smallest_share_is_one(self) -> None:
        """Nobody starves beside one who takes nearly everything."""
        window, _ = self.first(99)
        hear(window, 101.0, window.count(100.0), told(0, limit=100))
        hear(window, 160.0, window.count(160.0), told(20, limit=100))
        assert len(burst(window, 160.0)) == 1

    def test_what_was_lost_is_ones_own(self) -> None:
        """It may have been counted, and then it was not others who took it."""
        window, _ = self.first(99)
        for request in burst(window, 100.0):
            window.lose(101.0, request)
        hear(window, 102.0, window.count(101.5), told(96, limit=100))
        hear(window, 160.0, window.count(160.0), told(99, limit=100))
        assert len(burst(window, 160.0)) == 99

    def test_each_that_was_lost_is_one(self) -> None:
        """What was taken beyond them was taken by others."""
        window, _ = self.first(99)
        for request in [window.count(100.0) for _ in range(10)]:
            window.lose(101.0, request)
        hear(window, 102.0, window.count(101.5), told(79, limit=100))
        hear(window, 160.0, window.count(160.0), told(99, limit=100))
        assert len(burst(window, 160.0)) == int(0.6 * 12 / 21 * 99)

    def test_a_response_that_comes_after_its_window_is_not_taken_for_two_requests(self) -> None:
        """The responses that came in time have reported that the server had counted it."""
        window, _ = self.first(99)
        sent = [window.count(100.0) for _ in range(99)]
        for number, request in enumerate(sent[:50]):
            hear(window, 101.0, request, told(49 - number, limit=100))
        for request in sent[50:]:
            hear(window, 160.5, request, told(50, limit=100))
        hear(window, 161.5, window.count(161.0), told(99, limit=100))
        assert len(burst(window, 161.5)) == 99

    def test_what_was_lost_and_not_counted_makes_no_more_of_what_is_left(self) -> None:
        """One cannot have taken more of the limit than was taken."""
        window = Window()
        hear(window, 100.0, window.count(100.0), told(9))
        for request in [window.count(100.0) for _ in range(6)]:
            window.lose(101.0, request)
        hear(window, 102.0, window.count(101.5), told(4))
        assert len(burst(window, 102.0)) == 4
