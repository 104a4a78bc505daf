"""The rules of the window: each rule by itself, and one or more clients against a model of the server.

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
from datadog_caselinks.values.rate_limit import RateLimit

GRAIN = 1.0
"""Seconds: ``Reset`` is reported in whole ones, rounded up."""

ROUNDING = 1e-9
"""Seconds: the error of sums and differences of times."""

HOUR = 3600.0


@define
class Server:
    """A server that counts in windows of ``period`` seconds. Its clock is ``ahead`` of the clients' clock.

    The server also checks a client that is alone. Two kinds of request may be rejected although the client
    does its best: probes, and requests that were sent in one window and are counted in a later one. The end
    of a window is known up to a second too late, so a probe may also be sent into a window after other
    requests, and take the place of one of them. Any other rejection is ``overdrawn``.
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
        """Return the number of the window that contains ``now``."""
        return math.floor((now + self.ahead) / self.period)

    def start(self, window: int) -> float:
        """Return the start of ``window``."""
        return window * self.period - self.ahead

    def see(self, request: SentRequest) -> None:
        """Record that a request was sent."""
        window = self.window(request.at)
        if not request.is_probe:
            self._sent_into.add(window)
        elif window in self._sent_into:
            self._on_top.append(request)

    def take(self, now: float, request: SentRequest) -> tuple[RateLimit, bool]:
        """Count a request that arrives, and return the response and whether it is a 429."""
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
    """A response on its way to the client."""

    request: SentRequest
    limit: RateLimit
    is_rate_limited: bool


class Alone(RuleBasedStateMachine):
    """A client alone on its limit, with random delays, orders of arrival, and lost requests and responses.

    A request that the client gives up has arrived by then, or never arrives.
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
    def what_is_reported_is_possible(self) -> None:
        """A reported count is never negative or above the limit, and belongs to a window that is not over."""
        if reported := self.window.current(self.now):
            assert reported.remaining is not None
            assert reported.reset is not None
            assert 0 <= reported.remaining <= self.server.limit
            assert 0 < reported.reset <= self.server.period + ROUNDING

    @invariant()
    def it_looks_again(self) -> None:
        """A client that may not send always has a later moment for its next check, without any response."""
        if not self.window.may_send(self.now):
            assert self.now < self.window.next_check(self.now)

    def teardown(self) -> None:
        """A client may send within one period, plus the grain of ``Reset``, after the last response."""
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
    """A client with requests to send, at most ``slots`` of them in flight."""

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

    The first request is sent at 0, when at least the part ``first`` of a window remains; the others follow.
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
        """Return the start of the last window that this number of requests needs."""
        return self.server.start(self.server.window(0.0) + math.ceil(requests / self.server.limit) - 1)


def simulated(clients: int, requests: int, **options: Any) -> Simulation:
    """Run a simulation to its end, and check that every request is sent and no slot is lost."""
    simulation = Simulation(clients, requests, **options)
    simulation.run()
    assert [(client.todo, client.slots) for client in simulation.clients] == [(0, 100)] * clients
    return simulation


class TestClientsOfOneLimit:
    @pytest.mark.parametrize("seed", range(10))
    @pytest.mark.slow
    def test_alone_nothing_is_rate_limited_and_no_window_is_lost(self, seed: int) -> None:
        """A client alone gets no 429, and takes at most 3 % plus the grain of ``Reset`` above the minimum."""
        alone = simulated(1, 2000, seed=seed)
        assert alone.rejected == 0
        assert alone.done_at <= 1.03 * alone.floor(2000) + GRAIN

    @pytest.mark.parametrize("seed", range(30))
    @pytest.mark.slow
    def test_alone_on_a_slow_line_only_probes_come_too_many(self, seed: int) -> None:
        """A client alone on a slow line overdraws no window, although responses overtake each other."""
        alone = simulated(1, 2000, seed=seed, slowest=0.12, first=0)
        assert alone.server.overdrawn == 0

    @pytest.mark.parametrize("seed", range(10))
    @pytest.mark.slow
    def test_four_share_a_limit(self, seed: int) -> None:
        """At most 10 % of four clients' requests are rejected, and nearly all of each window is used."""
        four = simulated(4, 2000, seed=seed)
        assert four.rejected <= 0.1 * 2000
        assert four.done_at <= 1.1 * four.floor(2000) + GRAIN

    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize("clients", [2, 4, 20])
    @pytest.mark.slow
    def test_however_many_there_are_all_get_done(self, clients: int, seed: int) -> None:
        """Up to 20 clients finish in time, even if each gets only a few requests of a window."""
        together = simulated(clients, 2000, seed=seed)
        assert together.done_at <= 1.2 * together.floor(2000) + GRAIN

    @pytest.mark.parametrize("clients", [2, 4])
    def test_nobody_starves(self, clients: int) -> None:
        """With the delays of the internet, every client gets a part of every window."""
        together = simulated(clients, 2000, seed=0, slowest=0.12)
        assert max(client.longest_gap for client in together.clients) <= 1.25 * together.server.period


def reported(
    remaining: int | None,
    *,
    limit: int | None = 10,
    period: float | None = 60.0,
    reset: float | None = 60.0,
) -> RateLimit:
    """Return the rate limit of a response: ``remaining`` of ``limit`` requests in a window of 60 s.

    The windows begin at 100 and 160, and a request that is sent later finds less time left.
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
    """Record a request with a 429 that arrives at the same moment."""
    hear(window, now, window.count(now), limit, is_rate_limited=True, **hint)


def opened(limit: RateLimit | None, now: float = 100.0) -> Window:
    """Return a window that one request has opened; this client used all of the window before."""
    window = Window()
    hear(window, now - 1, window.count(now - 1), RateLimit(10, 9, 60.0, 1.0))
    hear(window, now, window.count(now), limit)
    return window


def burst(window: Window, now: float) -> list[SentRequest]:
    """Count all requests that may be sent at once."""
    sent: list[SentRequest] = []
    while window.may_send(now) and len(sent) < 1000:
        sent.append(window.count(now))
    return sent


def remaining(window: Window, now: float) -> int | None:
    current = window.current(now)
    return current.remaining if current else None


class TestProbes:
    def test_the_first_request_goes_alone(self) -> None:
        """The first request of an unknown window is sent alone, as a probe."""
        window = Window()
        assert [request.is_probe for request in burst(window, 0.0)] == [True]

    def test_the_next_probe_waits_a_second(self) -> None:
        """A probe without a response holds other requests back for one second."""
        window = Window()
        burst(window, 0.0)
        assert window.next_check(0.5) == 1.0
        assert burst(window, 0.99) == []
        assert len(burst(window, 1.0)) == 1
        assert window.next_check(1.5) == 2.0
        assert burst(window, 1.99) == []

    def test_a_probe_that_was_not_sent_is_replaced_at_once(self) -> None:
        """A probe that was not sent is replaced at once, since it has used and reported nothing."""
        window = Window()
        for _ in range(3):
            window.release(window.count(0.0))
            assert window.may_send(0.0)

    def test_one_of_two_that_was_not_sent_does_not_make_room(self) -> None:
        """A released probe allows no other request while a second probe is in flight."""
        window = Window()
        first, _ = window.count(0.0), window.count(1.0)
        window.release(first)
        assert not window.may_send(1.99)
        assert window.may_send(2.0)

    def test_a_lost_probe_is_replaced_at_once(self) -> None:
        """A lost probe is replaced at once; the pause before a retry does not belong to the window."""
        window = Window()
        window.lose(0.5, window.count(0.0))
        assert len(burst(window, 0.5)) == 1

    def test_the_end_of_a_window_is_found_out_by_a_probe(self) -> None:
        """The first request after the end of a window is a probe, and no request is sent before the end."""
        window = opened(reported(0))
        assert burst(window, 159.9) == []
        assert window.next_check(100.0) == window.blocked_until(100.0) == 160.0
        assert [request.is_probe for request in burst(window, 160.0)] == [True]

    def test_requests_of_the_last_window_do_not_keep_a_probe_back(self) -> None:
        """Requests of the last window may hang, and do not hold back the probe of the next one."""
        window = opened(reported(3))
        assert len(burst(window, 100.0)) == 3
        assert window.next_check(150.0) == 160.0
        assert len(burst(window, 160.0)) == 1

    def test_the_last_request_of_a_window_is_no_probe(self) -> None:
        """The last request of a window is not a probe, and holds no probe back after the end."""
        window = opened(reported(1))
        assert not window.count(159.5).is_probe
        assert len(burst(window, 160.0)) == 1


class TestRemaining:
    def test_no_more_are_in_flight_than_remain(self) -> None:
        """No more requests are in flight than the window has left."""
        window = opened(reported(5))
        assert len(burst(window, 100.0)) == 5

    def test_a_late_response_does_not_raise_it(self) -> None:
        """A late response does not increase the remaining count: the least that a window reported counts."""
        window = opened(reported(9))
        first, second = window.count(101.0), window.count(101.0)
        hear(window, 102.0, second, reported(7))
        hear(window, 103.0, first, reported(8))
        assert remaining(window, 103.0) == 7

    def test_what_others_take_is_seen(self) -> None:
        """Requests of other processes reduce the remaining count, because they share the limit."""
        window = opened(reported(9))
        hear(window, 102.0, window.count(101.0), reported(2))
        assert remaining(window, 102.0) == 2
        hear(window, 104.0, window.count(103.0), reported(0))
        assert not window.may_send(104.0)

    def test_the_earliest_end_counts(self) -> None:
        """The earliest reported end of a window counts, because rounding and delays only make it later."""
        window = opened(reported(9))
        hear(window, 101.0, window.count(100.5), reported(8, reset=58.0))
        hear(window, 102.0, window.count(101.0), reported(7, reset=58.0))
        assert window.current(102.0) == reported(7, reset=57.0)

    def test_an_older_windows_response_closes_nothing(self) -> None:
        """A response from an older window without remaining requests does not close the current window."""
        window = opened(reported(9))
        late = window.count(101.0)
        hear(window, 160.0, window.count(160.0), reported(9))
        hear(window, 161.0, late, reported(0, reset=59.0))
        assert remaining(window, 161.0) == 8  # the request may have been counted in either window
        assert window.may_send(161.0)

    def test_an_older_windows_response_opens_nothing(self) -> None:
        """A response from an older window with remaining requests does not open the current window."""
        window = opened(reported(9))
        late = window.count(101.0)
        hear(window, 160.0, window.count(160.0), reported(0))
        hear(window, 161.0, late, reported(8, reset=1.0))
        assert not window.may_send(219.9)

    def test_a_response_after_the_end_of_its_window_opens_no_other(self) -> None:
        """A response that arrives after the end of its window does not open the next one."""
        window = opened(reported(9))
        late = window.count(159.0)
        hear(window, 160.5, late, reported(8))
        assert window.current(160.5) is None
        assert len(burst(window, 160.5)) == 1

    def test_a_response_shows_that_the_window_was_over_earlier(self) -> None:
        """A response with more time left than the window shows that a new window has already begun."""
        window = opened(reported(9, period=2.0, reset=2.0))
        early = window.count(100.5)
        hear(window, 101.25, window.count(101.25), reported(7, period=2.0, reset=2.0))
        assert remaining(window, 101.25) == 7
        assert window.blocked_until(101.25) == 101.25
        hear(window, 101.5, early, reported(8, period=2.0, reset=1.0))
        assert remaining(window, 101.5) == 6

    def test_a_response_of_the_same_window_begins_no_other(self) -> None:
        """A response of the same window, whose ``Reset`` is rounded up, does not begin another window."""
        window = opened(reported(9, period=2.0, reset=2.0))
        hear(window, 100.75, window.count(100.75), reported(8, period=2.0, reset=2.0))
        hear(window, 100.9, window.count(100.8), reported(9, period=2.0, reset=2.0))
        assert remaining(window, 100.9) == 8

    @pytest.mark.parametrize("answered", [160.0, 160.2])
    def test_a_request_that_was_counted_after_the_probe_is_not_forgotten(self, answered: float) -> None:
        """A request that was counted after the probe counts, even if its response arrives before."""
        window = opened(reported(9))
        late = window.count(159.0)
        probe = window.count(160.0)
        hear(window, answered, late, reported(8))
        hear(window, 160.3, probe, reported(9))
        assert remaining(window, 160.3) == 8
        assert len(burst(window, 160.3)) == 8

    def test_a_withdrawn_request_takes_nothing(self) -> None:
        """A request that was released before it was sent uses nothing of the window."""
        window = opened(reported(2))
        for request in burst(window, 100.0):
            window.release(request)
        assert len(burst(window, 100.0)) == 2


class TestOtherOrders:
    """Responses around the end of a window arrive in another order than the server counted their requests."""

    @pytest.mark.parametrize("period", [4.0, None])
    def test_a_response_that_may_be_of_the_next_window_counts_there_too(self, period: float | None) -> None:
        """The next window has counted a request whose response arrives before the one that opens it."""
        window = Window()
        probe = window.count(0.0)
        newer = window.count(1.0)
        hear(window, 2.0, probe, reported(2, limit=3, period=period, reset=1.0))
        older = window.count(2.0)
        hear(window, 2.0, newer, reported(1, limit=3, period=period, reset=2.0))
        hear(window, 2.0, older, reported(2, limit=3, period=period, reset=2.0))
        assert remaining(window, 2.0) == 1
        assert len(burst(window, 2.0)) == 1

    def test_a_later_response_shows_that_it_was_counted_in_the_last_window(self) -> None:
        """The response to a later request shows whether the window has counted such a request."""
        window = Window()
        probe = window.count(0.0)
        last = window.count(1.0)
        hear(window, 2.0, probe, reported(2, limit=3, period=4.0, reset=1.0))
        first = window.count(2.0)
        hear(window, 2.5, last, reported(1, limit=3, period=4.0, reset=2.0))
        hear(window, 2.5, first, reported(2, limit=3, period=4.0, reset=2.0))
        hear(window, 3.0, window.count(2.75), reported(1, limit=3, period=4.0, reset=2.0))
        assert remaining(window, 3.0) == 1

    def test_a_lost_request_before_such_a_response_counts_there_too(self) -> None:
        """The next window may have counted a request that was lost before such a response was requested."""
        window = Window()
        probe, lost = window.count(0.0), window.count(1.0)
        hear(window, 2.0, probe, reported(5, period=3.0, reset=1.0))
        older = window.count(2.0)
        window.lose(2.2, lost)
        newer, later = window.count(2.3), window.count(2.4)
        hear(window, 2.5, newer, reported(7, period=3.0, reset=1.0))
        hear(window, 2.6, older, reported(9, period=3.0, reset=2.0))
        assert remaining(window, 2.6) == 7
        hear(window, 2.7, later, reported(7, period=3.0, reset=1.0))
        assert remaining(window, 2.7) == 6  # it was sent after the lost request only

    def test_a_response_of_the_last_window_does_not_end_this_one(self) -> None:
        """A response of the last window does not end this one, so an older response does not open another."""
        window = Window()
        probe, late = window.count(0.0), window.count(1.0)
        hear(window, 4.6, probe, reported(9, period=4.0, reset=4.0))
        older, newer = window.count(5.0), window.count(5.0)
        hear(window, 5.5, newer, reported(7, period=4.0, reset=3.0))
        hear(window, 5.9, late, reported(8, period=4.0, reset=1.0))
        hear(window, 6.0, older, reported(8, period=4.0, reset=3.0))
        assert remaining(window, 6.0) == 7

    def test_responses_that_may_be_of_the_next_window_do_not_pile_up(self) -> None:
        """A window without ``Reset`` remembers no more responses than the limit."""
        window = opened(reported(9, reset=None))
        sizes = []
        for count in (10, 10_000):
            for _ in range(count):
                hear(window, 101.0, window.count(101.0), reported(9, reset=None))
            sizes.append(len(pickle.dumps(window)))
        assert sizes[1] < sizes[0] + 50


class TestReserve:
    """A process that could use up a window leaves a twelfth of it to others, for most of the window."""

    def test_the_last_requests_are_left_while_more_wait(self) -> None:
        """The last request of a window of 10 is reserved until a quarter period before its end."""
        window = opened(reported(9))
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
        """The reserve is used if all waiting requests fit into what is left of the window."""
        window = opened(reported(2))
        window.count(100.0)
        window.count(100.0)
        assert not window.may_send(100.0, 3)
        window = opened(reported(2))
        assert window.may_send(100.0, 2)

    def test_what_is_in_flight_does_not_wait(self) -> None:
        """Requests in flight take their part of the window before those that wait."""
        window = opened(reported(9))
        for _ in range(8):
            window.count(100.0)
        assert window.may_send(100.0, 1)
        assert not window.may_send(100.0, 2)

    def test_a_process_that_had_little_may_take_it(self) -> None:
        """A process that got no more of a window than the reserve may use the reserve."""
        window = Window()
        hear(window, 100.0, window.count(100.0), reported(16, limit=200))
        assert window.may_send(100.0, math.inf)
        window = Window()
        hear(window, 100.0, window.count(100.0), reported(1, limit=12))
        assert window.may_send(100.0, math.inf)

    def test_the_smallest_limit_has_none(self) -> None:
        """A window of one request has no reserve."""
        window = opened(reported(1, limit=1))
        window.count(100.0)
        window.release(window.count(100.0))
        assert not window.may_send(100.0, math.inf)
        window.release(SentRequest(100.0, is_probe=False))
        assert window.may_send(100.0, math.inf)

    def test_nothing_is_left_where_a_window_may_be_over_at_any_time(self) -> None:
        """A window of one second has no reserve, since ``Reset`` in whole seconds hides its end."""
        window = opened(reported(2, period=1.0, reset=1.0))
        assert len(burst(window, 100.9)) == 2
        window = opened(reported(2, period=1.0, reset=1.0))
        window.count(100.9)
        assert window.may_send(100.9, math.inf)


class TestEnds:
    """The end of a window follows from the ends of the windows before it."""

    def two_seconds(self) -> Window:
        """Return a window of two seconds that ends between 102.0 and 102.1."""
        window = Window()
        hear(window, 100.1, window.count(100.0), reported(9, period=2.0, reset=2.0))
        hear(window, 101.6, window.count(101.5), reported(8, period=2.0, reset=1.0))
        hear(window, 102.05, window.count(102.0), reported(7, period=2.0, reset=1.0))
        return window

    def test_without_a_reset_it_may_end_at_any_time(self) -> None:
        """A window whose responses do not say when it ends may end right after the request."""
        window = Window()
        hear(window, 100.1, window.count(100.0), RateLimit(10, 9, 60.0, None))
        assert window._ends_after == 100.0

    def test_each_response_narrows_the_end(self) -> None:
        """A window ends after the time of sending plus ``Reset`` less one second, for every response."""
        window = self.two_seconds()
        assert window.blocked_until(101.5) == 101.5
        assert (window._ends_after, window._ends_at) == (102.0, 102.1)

    def test_the_next_window_ends_a_period_later(self) -> None:
        """The next window ends one period later, with a little tolerance for clocks that drift apart."""
        window = self.two_seconds()
        hear(window, 102.2, window.count(102.1), reported(9, period=2.0, reset=2.0))
        assert window.next_check(103.9) == pytest.approx(104.1, abs=0.001)
        hear(window, 108.9, window.count(108.7), reported(9, period=2.0, reset=2.0))
        assert window.next_check(109.9) == pytest.approx(110.1, abs=0.001)

    def test_windows_that_are_not_aligned_end_as_their_responses_say(self) -> None:
        """Windows that are not a whole number of periods apart say nothing about each other's ends."""
        window = self.two_seconds()
        hear(window, 103.6, window.count(103.5), reported(9, period=2.0, reset=2.0))
        assert window.next_check(105.0) == 105.6

    def test_slow_responses_say_too_little(self) -> None:
        """A response that takes longer than half a window does not change the known end."""
        window = self.two_seconds()
        hear(window, 102.9, window.count(102.2), reported(9, period=2.0, reset=2.0))
        assert window.next_check(104.8) == 104.9


class TestPause:
    def test_after_two_windows_that_others_used_up_the_next_probe_is_at_another_time(self) -> None:
        """After two windows used up by others, the next probe is sent at a random time."""
        window = Window(lambda low, high: (low + high) / 2)
        for now in (100.0, 160.0):
            reject(window, now, reported(0))
            assert window.blocked_until(now) == now + 60.0 + (now > 100.0) * 5.0
        reject(window, 225.0, reported(0, period=2.0, reset=2.0))
        assert window.blocked_until(225.0) == 228.0
        hear(window, 228.0, window.count(228.0), reported(5))
        reject(window, 280.0, reported(0))
        assert window.blocked_until(280.0) == 340.0

    def test_a_copy_about_which_nothing_is_known_pauses_too(self) -> None:
        """A window that replaces another one draws its pauses from the same random numbers."""
        window = Window(lambda low, high: high).unknown()
        for now in (100.0, 160.0):
            reject(window, now, reported(0))
        assert window.blocked_until(160.0) == 230.0

    def test_a_rejection_after_a_success_makes_no_pause(self) -> None:
        """A rejection after a success in the same window causes no pause, since this process got its part."""
        window = Window(lambda low, high: high)
        for now in (100.0, 160.0, 220.0):
            first, second = window.count(now), window.count(now)
            hear(window, now, first, reported(0))
            hear(window, now, second, reported(0), is_rate_limited=True)
            reject(window, now, reported(0))
            assert window.blocked_until(now) == now + 60.0


class TestAdoptedRequests:
    def test_a_request_is_in_flight_until_its_response(self) -> None:
        """A request of another bucket takes no place among the requests of this bucket."""
        window = opened(reported(2))
        own = burst(window, 100.0)
        window.release(window.adopt(Window().count(99.0)))
        assert not window.may_send(100.0)
        for request in own:
            window.release(request)
        assert len(burst(window, 100.0)) == 2

    def test_a_probe_of_another_bucket_does_not_count_as_one(self) -> None:
        """An adopted request keeps the time at which it was sent, but does not count as a probe."""
        assert Window().adopt(SentRequest(99.0, is_probe=True)) == SentRequest(99.0, is_probe=False)


class TestLostRequests:
    def test_they_count_until_a_response_to_something_later(self) -> None:
        """A lost request counts as used until a response to a later request has reported the count."""
        window = opened(reported(9))
        earlier = window.count(101.0)
        for _ in range(3):
            window.lose(102.0, window.count(101.0))
        assert remaining(window, 102.0) == 6
        hear(window, 103.0, earlier, reported(8))
        assert remaining(window, 103.0) == 5
        same_moment = window.count(102.0)
        hear(window, 103.0, same_moment, reported(8))
        assert remaining(window, 103.0) == 5
        hear(window, 104.0, window.count(103.0), reported(7))
        assert remaining(window, 104.0) == 7

    def test_one_counts_where_there_is_but_one(self) -> None:
        """A lost request counts even in a window of one."""
        window = opened(reported(1, limit=1))
        window.lose(101.0, window.count(100.5))
        assert remaining(window, 101.0) == 0

    def test_so_does_a_response_that_says_nothing(self) -> None:
        """A request whose response has no rate limit headers counts like a lost one."""
        window = opened(reported(9))
        hear(window, 101.0, window.count(100.5))
        assert remaining(window, 101.0) == 8
        hear(window, 103.0, window.count(102.0), reported(8))
        assert remaining(window, 103.0) == 8

    def test_only_those_lost_before_are_cleared_up(self) -> None:
        """A response says nothing about requests that were lost after its own request was sent."""
        window = opened(reported(9))
        window.lose(101.0, window.count(100.0))
        request = window.count(102.0)
        window.lose(103.0, window.count(100.0))
        hear(window, 104.0, request, reported(7))
        assert remaining(window, 104.0) == 6

    def test_there_are_never_fewer_than_none(self) -> None:
        """The remaining count is never negative, even if more requests were lost than remain."""
        window = opened(reported(3))
        for request in burst(window, 100.0):
            window.lose(101.0, request)
        hear(window, 102.0, window.count(101.0), reported(1))
        assert remaining(window, 102.0) == 0

    def test_they_do_not_close_a_window_till_its_end(self) -> None:
        """Lost requests do not close a window until its end: one probe at a time finds out what is left."""
        window = opened(reported(3))
        for request in burst(window, 100.0):
            window.lose(101.0, request)
        [one] = burst(window, 102.0)
        assert one.is_probe
        assert window.blocked_until(102.0) == 102.0
        hear(window, 103.0, one, reported(2))
        assert len(burst(window, 103.0)) == 2

    def test_in_a_window_that_is_used_up_nothing_finds_out(self) -> None:
        """A window that the server reported as used up sends no probe."""
        window = opened(reported(0))
        assert burst(window, 101.0) == []

    def test_a_probe_that_was_lost_after_the_next_one_was_sent_counts(self) -> None:
        """A probe that was lost counts, because the next probe may have been counted before it."""
        window = opened(reported(9))
        first, second = window.count(160.0), window.count(161.0)
        window.lose(161.5, first)
        hear(window, 162.0, second, reported(9))
        assert remaining(window, 162.0) == 8

    def test_a_probe_that_was_lost_before_the_first_response_counts(self) -> None:
        """A probe that was lost counts in the first window too, if the response to an older one opens it."""
        window = Window()
        first, second = window.count(0.0), window.count(1.0)
        window.lose(1.5, second)
        hear(window, 2.0, first, reported(9))
        assert remaining(window, 2.0) == 8

    def test_the_next_window_owes_nothing(self) -> None:
        """Requests that were lost in one window do not count in the next."""
        window = opened(reported(9))
        for request in burst(window, 100.0):
            window.lose(101.0, request)
        hear(window, 160.0, window.count(160.0), reported(9))
        assert remaining(window, 160.0) == 9

    @pytest.mark.parametrize("is_lost", [True, False])
    def test_where_there_is_no_limit_they_do_not_pile_up(self, is_lost: bool) -> None:
        """Lost requests do not accumulate if the server has no limit."""
        window = Window()
        sizes = []
        for count in (1, 10_000):
            for _ in range(count):
                window.lose(1.0, window.count(0.0)) if is_lost else hear(window, 1.0, window.count(0.0))
            sizes.append(len(pickle.dumps(window)))
        assert sizes[1] < sizes[0] + 50

    def test_where_there_is_no_limit_any_more_they_do_not_pile_up(self) -> None:
        """Lost requests do not accumulate after a limit has ended, even while an old probe is in flight."""
        window = opened(reported(9))
        window.count(160.0)
        hear(window, 161.0, window.count(161.0))
        sizes = []
        for count in (1, 10_000):
            for _ in range(count):
                window.lose(162.0, window.count(161.5))
            sizes.append(len(pickle.dumps(window)))
        assert sizes[1] < sizes[0] + 50

    def test_they_count_in_the_next_window_if_an_older_request_opens_it(self) -> None:
        """Lost requests count in the next window if the response of an older request opens it."""
        window = opened(reported(9))
        older = window.count(159.0)
        window.lose(160.5, window.count(160.0))
        window.lose(160.5, window.count(160.0))
        window.on_response(160.5, older, reported(7, reset=60.0), is_rate_limited=False, retry_after=None)
        current = window.current(160.5)
        assert current is not None
        assert current.remaining == 5

    def test_in_an_outage_before_the_first_response_they_do_not_pile_up(self) -> None:
        """Lost requests do not accumulate before the first response, even while a probe is in flight."""
        window = Window()
        window.count(0.0)
        sizes = []
        for count in (100, 10_000):
            for _ in range(count):
                window.lose(2.0, window.count(1.0))
            sizes.append(len(pickle.dumps(window)))
        assert sizes[1] < sizes[0] + 50

    def test_in_an_outage_they_do_not_pile_up(self) -> None:
        """An outage accumulates no more lost requests than the limit."""
        window = opened(reported(9))
        sizes = []
        for count in (10, 10_000):
            for _ in range(count):
                window.lose(201.0, window.count(200.0))
            sizes.append(len(pickle.dumps(window)))
        assert sizes[1] < sizes[0] + 50


class TestHolding:
    def test_without_a_hint_pauses_double_up_to_half_a_minute(self) -> None:
        """Without a hint, the pauses after rejections double up to 30 seconds."""
        window, now, pauses = Window(), 0.0, []
        for _ in range(8):
            reject(window, now)
            assert window.next_check(now) == window.blocked_until(now)
            pauses.append(window.blocked_until(now) - now)
            now = window.blocked_until(now)
            assert window.may_send(now)
        assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30]

    @pytest.mark.parametrize("limit", [None, reported(5)])
    def test_a_success_resets_the_pause(self, limit: RateLimit | None) -> None:
        """A success resets the pause, so that the next 429 begins with the shortest one."""
        window = Window()
        for now in (0.0, 1.0, 2.0):
            reject(window, now)
        hear(window, 10.0, window.count(10.0), limit)
        reject(window, 11.0, limit)
        assert window.blocked_until(11.0) == 11.5

    def test_many_at_once_are_one_refusal(self) -> None:
        """A hundred rejections at the same time lengthen the pause once."""
        window = opened(None)
        for request in burst(window, 100.0)[:100]:
            hear(window, 100.0, request, is_rate_limited=True)
        assert window.blocked_until(100.0) == 100.5

    def test_a_429_with_only_the_end_of_its_window(self) -> None:
        """A 429 with nothing but ``Reset`` closes the window until that time."""
        window = Window()
        reject(window, 100.0, reported(None, limit=None, period=None, reset=30.0))
        assert window.blocked_until(100.0) == 130.0

    def test_the_end_of_a_used_up_window_is_a_hint(self) -> None:
        """A 429 of a used up window adds no pause to the end of the window."""
        window = opened(reported(9))
        reject(window, 101.0, reported(0, reset=59.0))
        assert window.blocked_until(101.0) == 160.0
        assert len(burst(window, 160.0)) == 1

    def test_retry_after_holds_everyone(self) -> None:
        """``Retry-After`` holds every request back, even with requests left or without a limit."""
        for limit in (reported(9), None):
            window = opened(limit)
            reject(window, 101.0, limit, retry_after=7.0)
            assert burst(window, 107.9) == []
            assert window.next_check(101.0) == window.blocked_until(101.0) == 108.0
            assert window.may_send(108.0)

    def test_the_longest_retry_after_counts(self) -> None:
        """The longest ``Retry-After`` counts; one that ends earlier lets no request through."""
        window = opened(None)
        first, second = burst(window, 100.0)[:2]
        hear(window, 100.0, first, is_rate_limited=True, retry_after=20.0)
        hear(window, 101.0, second, is_rate_limited=True, retry_after=3.0)
        assert window.blocked_until(101.0) == 120.0

    def test_a_retry_after_of_0_is_no_hint(self) -> None:
        """A ``Retry-After`` of 0 is ignored, because it would cause a tight loop."""
        window = Window()
        reject(window, 0.0, retry_after=0.0)
        assert window.blocked_until(0.0) == 0.5

    def test_a_window_that_is_used_up_longer_than_retry_after_holds(self) -> None:
        """The later of ``Retry-After`` and the end of a used up window counts."""
        window = opened(reported(9))
        reject(window, 101.0, reported(0, reset=59.0), retry_after=5.0)
        assert window.blocked_until(101.0) == 160.0

    @pytest.mark.parametrize("seconds", [3601.0, 1e300])
    def test_hints_are_believed_for_an_hour(self, seconds: float) -> None:
        """A hint counts for at most one hour, Datadog's longest period; then a probe is sent."""
        window = Window()
        reject(window, 0.0, retry_after=seconds)
        assert window.blocked_until(0.0) == HOUR
        for limit in (reported(0, reset=seconds, period=None), reported(0, reset=None, period=seconds)):
            assert opened(limit).blocked_until(100.0) == 100.0 + HOUR
        assert opened(reported(0, reset=seconds, period=2 * seconds)).blocked_until(100.0) == 100.0 + HOUR

    def test_nothing_blocked_is_now(self) -> None:
        """``blocked_until`` is now if the window is unknown, has requests left, or has no limit."""
        for window in (Window(), opened(reported(1)), opened(None)):
            assert window.blocked_until(100.0) == 100.0


class TestNoLimit:
    def test_any_number_goes_out(self) -> None:
        """A server that reports no limit gets any number of requests at once."""
        window = Window()
        hear(window, 0.1, window.count(0.0))
        sent = burst(window, 0.1)
        assert len(sent) == 1000
        assert not any(request.is_probe for request in sent)
        assert window.current(0.1) is None

    @pytest.mark.parametrize("limit", [reported(None), RateLimit(name="links")])
    def test_a_limit_without_remaining_is_none(self, limit: RateLimit) -> None:
        """A limit without a remaining count is ignored, because only a 429 can show that it is exceeded."""
        window = Window()
        hear(window, 0.1, window.count(0.0), limit)
        assert len(burst(window, 0.1)) == 1000

    def test_one_response_that_says_nothing_opens_nothing(self) -> None:
        """One response without rate limit headers may be a proxy's, and does not lift the window's limit."""
        window = opened(reported(3))
        hear(window, 101.0, window.count(100.0))
        assert remaining(window, 101.0) == 2
        assert len(burst(window, 101.0)) == 2

    def test_a_server_that_stops_reporting(self) -> None:
        """A probe whose response reports no limit lifts the limit."""
        window = opened(reported(3))
        hear(window, 160.0, window.count(160.0))
        assert len(burst(window, 160.0)) == 1000
        assert window.current(160.0) is None

    def test_an_older_windows_response_does_not_close_it_again(self) -> None:
        """A response from an older window without a limit does not bring the limit back."""
        window = opened(reported(3))
        late = window.count(101.0)
        hear(window, 160.0, window.count(160.0))
        hear(window, 161.0, late)
        assert len(burst(window, 161.0)) == 1000

    def test_a_response_from_the_last_second_of_a_window_opens_nothing(self) -> None:
        """A response to a request of the last window without a limit does not open the next window."""
        window = opened(reported(9))
        hear(window, 160.5, window.count(159.5))
        assert len(burst(window, 160.5)) == 1

    def test_a_late_probe_that_hears_nothing_opens_nothing(self) -> None:
        """A late probe without rate limit headers opens nothing if a later probe has reported the limit."""
        window = opened(reported(3))
        first, second = window.count(160.0), window.count(161.0)
        hear(window, 161.0, second, reported(0))
        hear(window, 162.0, first)
        assert not window.may_send(162.0)

    def test_a_limit_that_is_reported_later_closes(self) -> None:
        """A limit that is first reported later counts the requests in flight."""
        window = Window()
        hear(window, 0.0, window.count(0.0))
        sent = burst(window, 0.0)[:4]
        for request in burst(window, 0.0):
            window.release(request)
        assert window.may_send(0.0)
        hear(window, 1.0, sent[0], reported(9))
        assert remaining(window, 1.0) == 9
        hear(window, 160.0, window.count(160.0))
        assert window.may_send(160.0)
        hear(window, 161.0, window.count(161.0), reported(0))
        assert burst(window, 162.0) == []

    def test_a_429_closes(self) -> None:
        """A 429 from a server without a limit is followed by a probe, whose success lifts the restriction."""
        window = opened(None)
        reject(window, 100.0)
        assert window.current(100.5) is None
        (probe,) = burst(window, 100.5)
        assert probe.is_probe
        hear(window, 100.6, probe)
        assert len(burst(window, 100.6)) == 1000


class TestAbsentAndOddValues:
    def test_without_reset_the_period_counts(self) -> None:
        """A window without ``Reset`` ends after its period at the latest."""
        assert opened(reported(0, reset=None)).blocked_until(100.0) == 160.0

    def test_without_reset_a_response_of_the_last_second_opens_no_other(self) -> None:
        """A response without ``Reset`` in the last second of a window does not begin another window."""
        window = opened(reported(9, reset=None))
        hear(window, 159.8, window.count(159.5), reported(8, reset=None))
        assert remaining(window, 159.9) == 8
        assert window.current(160.0) is None

    def test_without_both_it_is_a_second(self) -> None:
        """A window without ``Reset`` and period lasts one second, and then a probe is sent."""
        assert opened(reported(0, reset=None, period=None)).blocked_until(100.0) == 101.0

    def test_no_window_is_longer_than_its_period(self) -> None:
        """A window is never longer than its period, for any ``Reset``."""
        assert opened(reported(0, reset=500.0)).blocked_until(100.0) == 160.0

    def test_a_period_of_0_is_ignored(self) -> None:
        """A period of 0 is ignored."""
        assert opened(reported(0, reset=5.0, period=0.0)).blocked_until(100.0) == 105.0
        assert opened(reported(0, reset=None, period=0.0)).blocked_until(100.0) == 101.0

    def test_a_reset_of_0_is_less_than_a_second(self) -> None:
        """A ``Reset`` of 0 was rounded, and means less than one second."""
        assert opened(reported(0, reset=0.0)).blocked_until(100.0) == 101.0
        assert opened(reported(0, reset=0.0, period=0.5)).blocked_until(100.0) == 100.5

    def test_fractions_count(self) -> None:
        """Fractions of a second in ``Reset`` and in the period count."""
        assert opened(reported(0, reset=0.25)).blocked_until(100.0) == 100.25
        assert opened(reported(0, reset=None, period=1.5)).blocked_until(100.0) == 101.5

    def test_a_reset_too_short_to_add_up_makes_a_pause(self) -> None:
        """A ``Reset`` too short to change the time is ignored, and the 429 causes a pause."""
        window = Window()
        reject(window, 100.0, reported(0, reset=1e-300))
        assert window.blocked_until(100.0) == 100.5

    @pytest.mark.parametrize("limit", [None, 0, 3])
    def test_remaining_counts_without_a_limit_to_match(self, limit: int | None) -> None:
        """The remaining count is used as reported, also if the limit is absent, zero or smaller."""
        window = opened(reported(5, limit=limit))
        assert len(burst(window, 100.0)) == 5

    def test_huge_counts(self) -> None:
        """The largest count that a header can have is handled."""
        most = int(1.7e308)
        window = opened(reported(most, limit=most))
        hear(window, 101.0, window.count(100.0), reported(most, limit=most))
        assert len(burst(window, 101.0)) == 1000
        hear(window, 160.0, window.count(160.0), reported(most, limit=1))
        assert len(burst(window, 160.0)) >= 1
        hear(window, 220.0, window.count(220.0), reported(0, limit=most))
        assert not window.may_send(220.0)


class TestCurrent:
    def test_from_nothing_to_the_end(self) -> None:
        """``current`` is ``None`` before the first response and after the end; it subtracts lost requests."""
        window = Window()
        assert window.current(0.0) is None
        request = window.count(0.0)
        assert window.current(0.0) is None
        hear(window, 1.0, request, reported(9))
        assert window.current(1.0) == reported(9, reset=40.0)
        assert window.current(11.0) == reported(9, reset=30.0)
        window.lose(12.0, window.count(11.0))
        assert window.current(12.0) == reported(8, reset=29.0)
        assert window.current(40.5) == reported(8, reset=0.5)
        assert window.current(41.0) is None

    def test_the_name_is_kept(self) -> None:
        """``current`` has the name of the limit."""
        current = opened(evolve(reported(9), name="links")).current(100.0)
        assert current
        assert current.name == "links"


class TestShare:
    def first(self, remaining: int) -> tuple[Window, int]:
        window = Window()
        hear(window, 100.0, window.count(100.0), reported(remaining, limit=100))
        return window, remaining

    def test_a_first_window_is_opened_step_by_step(self) -> None:
        """A first window is opened step by step: each response that shows no other user adds one request."""
        window, left = self.first(99)
        for answers in range(1, 20):
            sent = burst(window, 100.0 + answers)
            assert len(sent) == answers + 1
            for request in sent[1:]:
                window.release(request)
            left -= 1
            hear(window, 100.5 + answers, sent[0], reported(left, limit=100))

    def test_what_others_took_before_the_first_request_is_not_their_share(self) -> None:
        """Requests that others sent before the first request do not count towards their share."""
        window, _ = self.first(50)
        hear(window, 101.0, window.count(100.0), reported(49, limit=100))
        assert len(burst(window, 101.0)) == 3

    def test_what_others_took_before_says_nothing_of_the_little_that_is_left(self) -> None:
        """A first window with little left is opened step by step too."""
        window, _ = self.first(3)
        assert len(burst(window, 100.0)) == 2

    @pytest.mark.parametrize(("left", "taken_by_all", "answers"), [(99, 2, 25), (50, 3, 10)])
    def test_where_others_take_as_well_it_is_a_part_of_what_is_left(
        self, left: int, taken_by_all: int, answers: int
    ) -> None:
        """A process that shares a limit gets the same part of the rest as it got of what was used."""
        window, left = self.first(left)
        for number in range(1, answers + 1):
            left -= taken_by_all
            hear(window, 100.0 + number, window.count(100.0 + number - 0.5), reported(left, limit=100))
        assert len(burst(window, 150.0)) == left * (1 + answers) // (1 + taken_by_all * answers)

    def test_the_share_of_the_last_window_is_taken_at_once(self) -> None:
        """The share of the last window is used at once, less two fifths, since it is known late."""
        window, left = self.first(99)
        for answers in range(1, 25):
            left -= 4
            hear(window, 100.0 + answers, window.count(100.0 + answers - 0.5), reported(left, limit=100))
        hear(window, 160.0, window.count(160.0), reported(99, limit=100))
        assert len(burst(window, 160.0)) == int(0.6 * 25 / 97 * 99)

    @pytest.mark.parametrize(("of_others", "allowed"), [(1, int(19 / 20 * 99)), (2, int(0.6 * 18 / 20 * 98))])
    def test_with_19_of_20_nobody_else_is_thought_to_be_there(self, of_others: int, allowed: int) -> None:
        """A process that used 19 of 20 requests counts as alone, and loses no two fifths of a window."""
        window, _ = self.first(99)
        sent = [window.count(100.0) for _ in range(19 - of_others)]
        for number, request in enumerate(sent, start=1):
            hear(window, 101.0, request, reported(99 - number - of_others, limit=100))
        hear(window, 160.0, window.count(160.0), reported(100 - of_others, limit=100))
        assert len(burst(window, 160.0)) == allowed

    def test_alone_it_is_all(self) -> None:
        """A process alone on its limit gets the whole window."""
        window, _ = self.first(99)
        hear(window, 160.0, window.count(160.0), reported(99, limit=100))
        assert len(burst(window, 160.0)) == 99

    def test_it_is_no_more_than_all(self) -> None:
        """A share is never more than what the window has left."""
        window, _ = self.first(99)
        for _number in range(3):
            hear(window, 101.0, window.count(100.0), reported(99, limit=100))
        hear(window, 160.0, window.count(160.0), reported(60, limit=100))
        assert len(burst(window, 160.0)) == 60

    def test_what_was_rejected_took_nothing(self) -> None:
        """Rejected requests do not increase a share."""
        window = Window()
        hear(window, 100.0, window.count(100.0), reported(5))
        requests = [window.count(100.0) for _ in range(10)]
        hear(window, 101.0, requests.pop(), reported(0))
        for request in requests:
            hear(window, 101.0, request, reported(0), is_rate_limited=True)
        hear(window, 160.0, window.count(160.0), reported(9))
        assert len(burst(window, 160.0)) == int(0.6 * 2 / 10 * 9)

    def test_a_window_that_was_full_before_leaves_the_share_unknown(self) -> None:
        """A window that was full leaves the share unknown, and the next one is opened step by step."""
        window = Window()
        reject(window, 100.0, reported(0))
        hear(window, 160.0, window.count(160.0), reported(9))
        assert len(burst(window, 160.0)) == 2

    def test_a_rejected_request_that_opens_a_window_leaves_one(self) -> None:
        """A rejected request that opens a window allows one request, for any share."""
        window = Window()
        reject(window, 100.0, reported(5))
        assert len(burst(window, 101.0)) == 1

    def test_even_the_smallest_share_is_one(self) -> None:
        """The smallest share is one request, so that no process starves."""
        window, _ = self.first(99)
        hear(window, 101.0, window.count(100.0), reported(0, limit=100))
        hear(window, 160.0, window.count(160.0), reported(20, limit=100))
        assert len(burst(window, 160.0)) == 1

    def test_what_was_lost_is_ones_own(self) -> None:
        """A lost request counts as this process's own, and not as another's."""
        window, _ = self.first(99)
        for request in burst(window, 100.0):
            window.lose(101.0, request)
        hear(window, 102.0, window.count(101.5), reported(96, limit=100))
        hear(window, 160.0, window.count(160.0), reported(99, limit=100))
        assert len(burst(window, 160.0)) == 99

    def test_each_that_was_lost_is_one(self) -> None:
        """Each lost request counts as one own request; the rest of the used count is others'."""
        window, _ = self.first(99)
        for request in [window.count(100.0) for _ in range(10)]:
            window.lose(101.0, request)
        hear(window, 102.0, window.count(101.5), reported(79, limit=100))
        hear(window, 160.0, window.count(160.0), reported(99, limit=100))
        assert len(burst(window, 160.0)) == int(0.6 * 12 / 21 * 99)

    def test_a_response_that_comes_after_its_window_is_not_taken_for_two_requests(self) -> None:
        """A response that arrives after its window does not count its request twice."""
        window, _ = self.first(99)
        sent = [window.count(100.0) for _ in range(99)]
        for number, request in enumerate(sent[:50]):
            hear(window, 101.0, request, reported(49 - number, limit=100))
        for request in sent[50:]:
            hear(window, 160.5, request, reported(50, limit=100))
        hear(window, 161.5, window.count(161.0), reported(99, limit=100))
        assert len(burst(window, 161.5)) == 99

    def test_what_was_lost_and_not_counted_makes_no_more_of_what_is_left(self) -> None:
        """Lost requests that were not counted do not raise the share above what was used."""
        window = Window()
        hear(window, 100.0, window.count(100.0), reported(9))
        for request in [window.count(100.0) for _ in range(6)]:
            window.lose(101.0, request)
        hear(window, 102.0, window.count(101.5), reported(4))
        assert len(burst(window, 102.0)) == 4
