"""Calculate how many requests one window of the rate limit allows in flight, without I/O or a clock.

Datadog counts requests in fixed windows, aligned to the calendar. Each response reports how many requests the
current window has left (``X-RateLimit-*``). The clocks of client and server may differ. It follows that:

- The server has at least ``remaining - in flight`` requests left, where ``remaining`` is the lowest value
  that a response of this window reported: any request that the server counted later is still in flight. So
  another request may be sent while ``in flight < remaining``, and a process that uses a limit alone gets a
  429 only for a probe, or for a request that was sent in one window and counted in a later one.
- ``Reset`` is in whole seconds, rounded up. So the time of a response plus its ``Reset`` is never before the
  end of the window, and the earliest such time is the best estimate. A request that is sent after that time
  is certainly counted in a later window, and so is a request whose response reports an end more than a second
  later. Only these requests open a new window; no other late response opens or ends one.
- Slow responses may arrive in another order than the server counted their requests. If a response may belong
  to this window or to the next one, it lowers ``remaining``, but says nothing about the end of this window.
  If the next window is then opened by a request that was sent before that response arrived, the next window
  may have counted both.
- The use by other processes shows in ``remaining``. The share that this process had of the last window is
  what it may have in flight at once in the next one, so that all processes together do not exceed the limit.
- The 429s of another process do not show anywhere. So a process that could use up a window leaves the last
  few requests of it to others, until the window may be over. It leaves none if no more requests wait than the
  window has left, so a process that is alone loses no time.
"""

from __future__ import annotations

import math
import random
import sys
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from attrs import evolve

from datadog_caselinks.values.rate_limit import LONGEST_WAIT, RateLimit

_PROBE_TIMEOUT: Final = 1.0
"""Seconds to wait for the response to a probe before another probe may be sent."""

_MAX_LOST_PROBES: Final = 100
"""How many requests that were lost before the first response of the server are remembered."""

_SHORTEST_PENALTY: Final = 0.5
_LONGEST_PENALTY: Final = 30.0
"""Seconds to wait after a 429 that does not say how long. The wait doubles with each consecutive 429."""

_DEFAULT_PERIOD: Final = 1.0
"""Seconds until the end of a window, if the server does not report it: the precision of ``Reset``."""

_ALONE: Final = 0.95
"""A process with at least this share of the limit is assumed to use it alone."""

_CAUTION: Final = 0.6
"""The part of its share that a process uses if there are others, because their use is known with a delay."""

_RESERVE: Final = 12
"""A twelfth of a window is reserved for processes that had fewer requests. It is more than the twentieth that
``_ALONE`` overlooks."""

_LAST_PART: Final = 0.25
"""The last part of a window, in which nothing is reserved for other processes any more."""

_NARROW: Final = 0.75
"""The end of a window predicts the end of the next one only if it is known to this fraction of a period."""

_DRIFT: Final = 1e-4
"""How much the clocks of client and server may drift apart, in seconds per second."""

_LONGEST_PAUSE: Final = 10.0
"""The maximum of the random pause in seconds after windows that were used up by other processes."""


class SentRequest(NamedTuple):
    """A request that was sent at the time ``at``. Pass it back with its result.

    ``is_probe`` says that it was sent to find out about an unknown window.
    """

    at: float
    is_probe: bool


class Window:
    """The state of one bucket of the server's rate limit. All times (``now``) are in monotonic seconds.

    ``uniform(low, high)`` returns a random number.
    """

    def __init__(self, uniform: Callable[[float, float], float] = random.uniform) -> None:
        self._uniform = uniform
        self._reported: RateLimit | None = None  # in the response that opened the window
        self._started_at = 0.0  # the time at which the request of that response was sent
        self._ends_at = 0.0
        self._ends_after = 0.0  # the window is certainly not over before
        self._remaining = 0
        self._in_flight = 0
        self._uncounted: deque[float] = deque(maxlen=_MAX_LOST_PROBES)  # see _count_uncertain
        self._maybe_next: deque[float] = deque()  # when requests ended that the next window may have counted
        self._is_unlimited = False  # the responses report no limit
        self._probes = 0
        self._probed_at = 0.0
        self._held_until = 0.0
        self._penalty = 0.0
        self._missed = 0  # windows, one after another, that others had used up before the first response
        self._share = 0.0  # of the last window; 0 if unknown
        self._used_by_us = 0  # requests of this window with a result
        self._used_by_others = 0  # requests of others in this window before our first one

    def unknown(self) -> Window:
        """Return a window with the requests in flight, about which nothing else is known."""
        window = Window(self._uniform)
        window._in_flight, window._probes = self._in_flight, self._probes
        return window

    def current(self, now: float) -> RateLimit | None:
        """Return the current window, or ``None`` if it is over or there is no limit."""
        if self._reported is None or now >= self._ends_at:
            return None
        return evolve(self._reported, remaining=max(self._left, 0), reset=self._ends_at - now)

    def may_send(self, now: float, demand: float = 1) -> bool:
        """Return whether a request may be sent now, if ``demand`` requests wait to be sent."""
        if now < self._held_until:
            return False
        if self._is_unlimited:
            return True
        reported = self._reported
        if reported is None or now >= self._ends_at:
            return self._probes == 0 or now >= self._probed_at + _PROBE_TIMEOUT
        reserve = self._reserve(now, reported, demand)
        # Even the smallest share allows one request. And a lost request may not have been counted: if nothing
        # else is in flight, another request finds out.
        return self._in_flight < self._allowance(reported, reserve) or (
            self._in_flight == 0 and self._remaining > reserve
        )

    def blocked_until(self, now: float) -> float:
        """Return the time until which no response can allow a request, or ``now`` if there is none."""
        is_used_up = not self._is_unknown(now) and self._remaining <= 0
        return max(self._held_until, self._ends_at if is_used_up else now)

    def next_check(self, now: float) -> float:
        """Return the time at which :meth:`may_send` may become true without a response."""
        blocked_until = self.blocked_until(now)
        if blocked_until > now:
            return blocked_until
        if self._is_unknown(now):
            return self._probed_at + _PROBE_TIMEOUT
        return self._reserved_until if now < self._reserved_until else self._ends_at

    def adopt(self, request: SentRequest) -> SentRequest:
        """Count a request that was sent for another bucket."""
        self._in_flight += 1
        return SentRequest(request.at, is_probe=False)

    def count(self, now: float) -> SentRequest:
        """Count a request that is being sent."""
        self._in_flight += 1
        is_probe = not self._is_unlimited and (self._is_unknown(now) or self._left <= 0)
        if is_probe:
            self._probes += 1
            self._probed_at = now
        return SentRequest(now, is_probe)

    def release(self, request: SentRequest) -> None:
        """Stop counting a request as in flight."""
        self._in_flight -= 1
        self._probes -= request.is_probe

    def lose(self, now: float, request: SentRequest) -> None:
        """Record that no response reported the limit, so the server may have counted the request."""
        self.release(request)
        self._count_uncertain(now)

    def on_response(
        self,
        now: float,
        request: SentRequest,
        limit: RateLimit | None,
        *,
        is_rate_limited: bool,
        retry_after: float | None,
    ) -> None:
        """Record a response.

        Args:
            now: The current time.
            request: The request, as returned by :meth:`count` or :meth:`adopt`.
            limit: The rate limit from the headers of the response, if any.
            is_rate_limited: Whether the status is 429.
            retry_after: Seconds to wait, from the ``Retry-After`` header.
        """
        self.release(request)
        is_first = False
        if is_rate_limited and limit and limit.remaining is None and limit.reset is not None:
            limit = evolve(limit, remaining=0)  # a 429 implies it
        if limit is None or limit.remaining is None:
            self._is_unlimited = not is_rate_limited and (self._is_unlimited or self._is_unknown(request.at))
            self._count_uncertain(now)
        else:
            self._is_unlimited = False
            is_first = self._update(now, request, limit, limit.remaining)
        if is_rate_limited:
            self._used_by_us -= 1  # a rejected request does not use the limit
            self._hold(now, retry_after)
            if is_first:
                self._pause()
        else:
            self._penalty = 0.0
            self._missed = 0

    def _is_unknown(self, at: float) -> bool:
        """Return whether the last known window is over at the time ``at``, or there is none.

        A request that was sent then, or whose own window is not over then, was counted in a later window.
        """
        return self._reported is None or at >= self._ends_at

    @property
    def _left(self) -> int:
        return self._remaining - len(self._uncounted)

    def _count_uncertain(self, now: float) -> None:
        """Record that the server may have counted a request, until the response to a later request shows it.

        If the last known window is over, or none is known, the next window may have counted the request, and
        may be opened by the response to an earlier one. If no other is in flight, no earlier one opens the
        first window.
        """
        self._used_by_us += 1
        if not self._is_unlimited and (self._reported or self._in_flight):
            self._uncounted.append(now)

    def _update(self, now: float, request: SentRequest, limit: RateLimit, remaining: int) -> bool:
        """Record what a response says, and return whether it is the first one of its window."""
        left = _seconds_left(limit)
        # The window of the request ends between these times: Reset is rounded up, so it is less than a second
        # too long, unless it was capped.
        after = request.at + left - 1.0 if left == limit.reset and left > 1.0 else request.at
        until = now + left
        is_first = self._is_unknown(after)
        may_be_later = False
        if is_first:
            self._open(request, limit, after, until, remaining)
        elif request.at >= self._started_at and now < self._ends_at:
            self._remaining = min(self._remaining, remaining)
            self._used_by_us += 1
            period = limit.period or 0.0  # if it is unknown, the next window may end soon
            may_be_later = until >= self._ends_after + period
            if may_be_later:
                self._maybe_next.append(now)
            elif after + period > self._ends_at:  # not of an earlier window
                self._ends_after = max(self._ends_after, after)
                self._ends_at = min(self._ends_at, until)
        else:  # this window, or one before or after it
            self._count_uncertain(now)
            return False
        while self._uncounted and self._uncounted[0] < request.at:
            counted = self._uncounted.popleft()
            if may_be_later:
                self._maybe_next.append(counted)
        return is_first

    def _open(
        self, request: SentRequest, limit: RateLimit, after: float, until: float, remaining: int
    ) -> None:
        if self._reported:
            # Of what the responses reported, without what may have been counted: that is ours already.
            self._share = min(1.0, self._used_by_us / max(_limit(self._reported) - self._remaining, 1))
        self._ends_after, self._ends_at = self._narrowed(after, until, limit.period)
        self._reported, self._started_at = limit, request.at
        most = min(_limit(limit), sys.maxsize)  # more make no difference
        self._uncounted = deque(sorted([*self._uncounted, *self._maybe_next]), most)
        self._maybe_next = deque(maxlen=most)
        self._remaining, self._used_by_us = remaining, 1
        self._used_by_others = max(0, _limit(limit) - remaining - 1)

    @property
    def _reserved_until(self) -> float:
        middle = (self._ends_after + self._ends_at) / 2
        return middle - _LAST_PART * ((self._reported and self._reported.period) or 0.0)

    def _narrowed(self, after: float, until: float, period: float | None) -> tuple[float, float]:
        """Return when the window may end: in the given interval, and a number of periods after the last one.

        Each response narrows the interval, so the end is soon known better than to the second of ``Reset``.
        """
        if self._reported is None or not period or until - after > _NARROW * period:
            return after, until  # too wide to tell one window from the next
        last_after, last_until = self._ends_after, self._ends_at
        periods = math.floor((after - last_until) / period) + 1
        if periods < 1 or periods != math.ceil((until - last_after) / period) - 1:
            return after, until  # several are possible, or none
        passed = periods * period
        drift = _DRIFT * passed
        return max(after, last_after + passed - drift), min(until, last_until + passed + drift)

    def _reserve(self, now: float, reported: RateLimit, demand: float) -> int:
        """Return how many of the remaining requests to leave to other processes."""
        if now >= self._reserved_until or demand <= self._left - self._in_flight:
            return 0
        reserve = -(-_limit(reported) // _RESERVE)
        return reserve if self._used_by_us + self._in_flight > reserve else 0

    def _allowance(self, reported: RateLimit, reserve: int) -> int:
        """Return how many requests may be in flight: this process's share of the remaining requests.

        The share is that of the last window. If that is unknown, it is the share of this window so far, and
        the allowance grows by one with each response.
        """
        left = self._left - reserve
        if self._share:
            return int((self._share if self._share >= _ALONE else _CAUTION * self._share) * left)
        taken = max(1, _limit(reported) - self._left - self._used_by_others)
        return min(self._used_by_us + 1, left, int(self._used_by_us / taken * left))

    def _hold(self, now: float, retry_after: float | None) -> None:
        if retry_after is not None:
            self._held_until = max(self._held_until, now + min(retry_after, LONGEST_WAIT))
        if self.blocked_until(now) > now:
            return
        # The server reported no wait, or 0 seconds: a pause avoids a tight loop.
        self._penalty = min(max(2 * self._penalty, _SHORTEST_PENALTY), _LONGEST_PENALTY)
        self._held_until = now + self._penalty

    def _pause(self) -> None:
        """Wait a random time beyond the window, if others have used up two windows in a row.

        Otherwise a process that probes at the same point of each window might always find it used up.
        """
        self._missed += 1
        if self._missed > 1 and self._reported and self._reported.period:
            pause = self._uniform(0.0, min(self._reported.period, _LONGEST_PAUSE))
            self._held_until = max(self._held_until, self._ends_at + pause)


def _limit(reported: RateLimit) -> int:
    return reported.limit or 1


def _seconds_left(reported: RateLimit) -> float:
    """Return the maximum of seconds left: ``Reset`` (0 means less than one second), or the period."""
    if reported.reset is None:
        return min(reported.period or _DEFAULT_PERIOD, LONGEST_WAIT)
    return min(reported.reset or 1.0, reported.period or LONGEST_WAIT, LONGEST_WAIT)
