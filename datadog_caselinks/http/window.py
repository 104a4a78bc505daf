"""The arithmetic of one rate-limit window: how many requests may be under way. Knows no loop and no HTTP.

Datadog counts requests in fixed windows, aligned to the calendar, and tells with each answer what is left of
the current one (``X-RateLimit-*``). From that follows, without a clock in common:

- The server has at least ``remaining - under way`` left, where ``remaining`` is the least that an answer of
  this window told: what it has counted since is still under way, or its answer would have told less. So
  while ``under way < remaining`` another may be sent, and alone on a limit none is rejected.
- ``Reset`` is in whole seconds, rounded up, so an answer's time plus its ``Reset`` is never before the end of
  the window; the earliest such moment is the best estimate. A request that is sent after it is surely counted
  in a later window, and so is one whose answer has a second longer to go than that. Only these open a window;
  whatever else comes late closes nothing and opens nothing.
- What others take of the limit shows in ``remaining``. The share that this process had of the last window is
  what it takes at once of the next, so that all together do not ask for more than there is.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from attrs import evolve

from datadog_caselinks.rate_limit import RateLimit

_PATIENCE: Final = 1.0
"""Seconds after which a probe without an answer no longer holds up the next one."""

_SHORTEST_PENALTY: Final = 0.5
_LONGEST_PENALTY: Final = 30.0
"""Seconds to hold after a 429 that does not say how long; doubled with each one in a row."""

_UNTOLD_PERIOD: Final = 1.0
"""Seconds taken for what is left of a window that does not say: the grain of ``Reset``."""

_LONGEST_WAIT: Final = 3600.0
"""Seconds that are believed of any header; after that hour it is asked anew."""

_ALONE: Final = 0.95
"""A share of the limit from which on nobody else is thought to take of it."""

_CAUTION: Final = 0.8
"""The part of its share that is under way where others take theirs: what is known of them is always late."""


class Sent(NamedTuple):
    """A request that was counted as sent ``at`` this time, to be handed back with what came of it."""

    at: float
    is_probe: bool


class Window:
    """One bucket of the server's rate limit, as far as it is known. ``now`` is in seconds, monotonic."""

    def __init__(self) -> None:
        self._told: RateLimit | None = None  # by the answer that opened the window
        self._began = 0.0  # when the request of that answer was sent
        self._ends = 0.0
        self._remaining = 0
        self._under_way = 0
        self._unclear: deque[float] = deque()  # when requests ended that may have been counted
        self._is_open = False  # answers came, and told of no limit
        self._probes = 0
        self._probed_at = 0.0
        self._held_until = 0.0
        self._penalty = 0.0
        self._share = 0.0  # of the last window; 0 is not known
        self._mine = 0  # requests of this window with an outcome
        self._others_before = 0  # what others had taken of it before the first of mine

    def current(self, now: float) -> RateLimit | None:
        """What is known of the window at this moment; ``None`` without a limit, or once it is over."""
        if self._told is None or now >= self._ends:
            return None
        return evolve(self._told, remaining=max(self._left, 0), reset=self._ends - now)

    def may_send(self, now: float) -> bool:
        """Whether a request may be sent."""
        if now < self._held_until:
            return False
        if self._is_open:
            return True
        told = self._told
        if told is None or now >= self._ends:
            return self._probes == 0 or now >= self._probed_at + _PATIENCE
        # Even the smallest share is one. And what was lost may not have been counted: with nothing else under
        # way, one more request tells.
        return self._under_way < self._allowance(told) or (self._under_way == 0 < self._remaining)

    def blocked_until(self, now: float) -> float:
        """Until when nothing can be sent, whatever comes of what is under way; ``now`` if something can."""
        is_used_up = not self._is_unknown(now) and self._remaining <= 0
        return max(self._held_until, self._ends if is_used_up else now)

    def next_look(self, now: float) -> float:
        """When :meth:`may_send` may come to hold although no answer comes."""
        blocked_until = self.blocked_until(now)
        if blocked_until > now:
            return blocked_until
        return self._probed_at + _PATIENCE if self._is_unknown(now) else self._ends

    def adopted(self, request: Sent) -> Sent:
        """Count a request that went out as one of another bucket."""
        self._under_way += 1
        return Sent(request.at, is_probe=False)

    def sent(self, now: float) -> Sent:
        """Count a request that goes out."""
        self._under_way += 1
        is_probe = not self._is_open and (self._is_unknown(now) or self._left <= 0)
        if is_probe:
            self._probes += 1
            self._probed_at = now
        return Sent(now, is_probe)

    def withdrawn(self, request: Sent) -> None:
        """The request was not sent after all."""
        self._under_way -= 1
        self._probes -= request.is_probe

    def lost(self, now: float, request: Sent) -> None:
        """No answer came, so the server may have counted the request."""
        self.withdrawn(request)
        self._take_one(now)

    def answered(
        self,
        now: float,
        request: Sent,
        limit: RateLimit | None,
        *,
        is_rejected: bool,
        retry_after: float | None,
    ) -> None:
        """An answer came. ``is_rejected`` is a 429; ``retry_after`` is what its header of that name says."""
        self.withdrawn(request)
        if is_rejected and limit and limit.remaining is None and limit.reset is not None:
            limit = evolve(limit, remaining=0)  # which a 429 says without a header
        if limit is None or limit.remaining is None:
            self._is_open = not is_rejected and (self._is_open or self._is_news(request))
            self._take_one(now)
        else:
            self._is_open = False
            self._learn(now, request, limit, limit.remaining)
        if is_rejected:
            self._mine -= 1  # it took nothing of the limit
            self._hold(now, retry_after)
        else:
            self._penalty = 0.0

    def _is_unknown(self, now: float) -> bool:
        return self._told is None or now >= self._ends

    def _is_news(self, request: Sent, left: float = 0.0) -> bool:
        """Whether the request was surely counted in a later window than the last that is known.

        So it was if it was sent after that one's end, or if the one that it was counted in ends later. Of the
        latter more than ``left`` seconds were left when it was sent.
        """
        return self._told is None or request.at + left >= self._ends

    @property
    def _left(self) -> int:
        return self._remaining - len(self._unclear)

    def _take_one(self, now: float) -> None:
        """The server may have counted one more; an answer to whatever is sent from now on will tell.

        So it may have in the next window too, if the last one that is known is over.
        """
        self._mine += 1
        if self._told is not None and not self._is_open:
            self._unclear.append(now)
            if len(self._unclear) > _limit(self._told):  # more of them say no more
                self._unclear.popleft()

    def _learn(self, now: float, request: Sent, limit: RateLimit, remaining: int) -> None:
        left = _seconds_left(limit)
        ends = now + left
        # Reset is rounded up, so it is less than a second too long, if it is believed as it stands.
        if self._is_news(request, max(0.0, left - 1.0) if left == limit.reset else 0.0):
            self._begin(request, limit, ends, remaining)
        elif request.at >= self._began and now < self._ends:
            self._ends = min(self._ends, ends)
            self._remaining = min(self._remaining, remaining)
            self._mine += 1
        else:  # of this window or of one before or after: it cannot be known
            self._take_one(now)
            return
        while self._unclear and self._unclear[0] < request.at:
            self._unclear.popleft()

    def _begin(self, request: Sent, limit: RateLimit, ends: float, remaining: int) -> None:
        if self._told:
            self._share = min(1.0, self._mine / max(_limit(self._told) - self._left, 1))
        self._told, self._began, self._ends = limit, request.at, ends
        self._remaining, self._mine = remaining, 1
        self._others_before = max(0, _limit(limit) - remaining - 1)

    def _allowance(self, told: RateLimit) -> int:
        """How many may be under way: the part of what is left that is ours, where others take theirs.

        That is the share of the last window; without one, the share of this window so far, which is taken to
        grow by one with each answer until it is sure.
        """
        left = self._left
        if self._share:
            return int((self._share if self._share >= _ALONE else _CAUTION * self._share) * left)
        taken = max(1, _limit(told) - left - self._others_before)
        return min(self._mine + 1, left, int(self._mine / taken * left))

    def _hold(self, now: float, retry_after: float | None) -> None:
        if retry_after is not None:
            self._held_until = max(self._held_until, now + min(retry_after, _LONGEST_WAIT))
        if self.blocked_until(now) > now:
            return
        # No hint, or one of 0 seconds: without a pause it would be asked in a tight loop.
        self._penalty = min(max(2 * self._penalty, _SHORTEST_PENALTY), _LONGEST_PENALTY)
        self._held_until = now + self._penalty


def _limit(told: RateLimit) -> int:
    return told.limit or 1


def _seconds_left(told: RateLimit) -> float:
    """Of the window, at most: its ``Reset``, where 0 is less than a second, or else its whole period."""
    if told.reset is None:
        return min(told.period or _UNTOLD_PERIOD, _LONGEST_WAIT)
    return min(told.reset or 1.0, told.period or _LONGEST_WAIT, _LONGEST_WAIT)
