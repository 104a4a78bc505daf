"""Outages: while a server fails every request, requests wait, and a few of them find out when it is back.

Without this, each of ten thousand waiting calls would be sent to a server that is restarting, and would use
up its attempts, or the budget of all. Instead the first failures hold back the requests behind them.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections import deque
from collections.abc import Callable
from typing import Final

from datadog_caselinks.isolation import log
from datadog_caselinks.values.base_errors import CaseLinksError

_logger = logging.getLogger(__name__)

_SUSPICIOUS: Final = 10
"""Failures in a row, without a success between them, after which requests are held back. Even if half of all
requests fail, ten failures in a row are rare."""

_MAX_DOUBLINGS: Final = 64
"""Enough to reach any cap; a float overflows at a thousand."""


def longest_wait(base: float, cap: float, number: int) -> float:
    """Return the longest wait before retry ``number``, counted from 0: exponential, and at most ``cap``."""
    return min(cap, base * 2.0 ** min(number, _MAX_DOUBLINGS))


def mark_as_outage(error: CaseLinksError) -> None:
    """Say in ``error`` that no more retries follow, since the server fails most requests."""
    if not error.during_outage:  # an error that several calls share is marked once
        error.args = (f"{error}. No further retries: most recent requests have failed",)
        error.during_outage = True


class Outage:
    """The outage of one client's server, if there is one.

    It begins with a failure to connect, or with some failures in a row after sending. While :attr:`is_on`,
    each request waits in :meth:`wait`. After each of a series of growing waits one request is sent as a
    probe. The first success ends the outage and lets all requests go. An outage that lasts longer than
    ``horizon``, or than ``patience`` if the server can be reached, becomes :attr:`is_long`: no request waits
    any more, each is sent once, and none is retried. An outage also becomes long if its probes have no
    result, such as those of cancelled calls, or if the server asks for a wait above ``max_wait``.

    Args:
        base: Seconds. The n-th wait for a probe is random, between half of ``base * 2**(n - 1)`` and all
            of it.
        cap: Seconds. The longest wait for a probe.
        horizon: Seconds after which an outage is long if the server cannot be reached. 0: nothing ever waits.
        patience: Seconds after which an outage is long if the server or a gateway can be reached, and fails.
        max_wait: Seconds. The longest wait for a probe that the server may request.
        uniform: Returns a random number between two numbers.
    """

    def __init__(
        self,
        base: float = 0.0,
        cap: float = 0.0,
        horizon: float = 0.0,
        patience: float = 0.0,
        max_wait: float = math.inf,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._base = base
        self._cap = cap
        self._horizon = horizon
        self._patience = max(horizon, patience)
        self._max_wait = max_wait
        self._uniform = uniform
        self.is_on: bool = False
        self.is_long: bool = False
        self._failures = 0
        self._began = self._last_failure = 0.0
        self._limit = horizon
        self._probes = 0
        self._next_probe = 0.0
        self._is_probed = False
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def on_failure(self, error: Exception, *, is_connected: bool, requested_wait: float = 0.0) -> None:
        """Record a failed request.

        Args:
            error: The failure, for the log.
            is_connected: Whether there was a connection. A failure to connect concerns every request.
            requested_wait: The seconds that the server asks to wait; no probe is sent sooner.
        """
        if not self._horizon:
            return
        now = asyncio.get_running_loop().time()
        if now - self._last_failure > self._patience:
            self.on_success()  # the last outage was too long ago to say anything about this failure
        self._last_failure = now
        self._failures += 1
        if self.is_on:
            self._next_probe = max(self._next_probe, now + requested_wait)
        elif not self.is_long and (not is_connected or self._failures >= _SUSPICIOUS):
            self.is_on, self._began, self._probes = True, now, 0
            self._next_probe = now + max(requested_wait, self._wait())
            log(_logger, logging.INFO, "an outage begins, and requests wait: %s", error)
        if self.is_on:
            self._limit, self._is_probed = self._patience if is_connected else self._horizon, False
            if requested_wait > self._max_wait or now - self._began >= self._limit:
                self._become_long()

    def on_success(self) -> None:
        """Record a success, which ends the outage."""
        if not self._failures:
            return
        if self.is_on or self.is_long:
            log(_logger, logging.INFO, "the outage is over")
        self.is_long, self._failures = False, 0
        self._release()

    async def wait(self) -> None:
        """Wait until the outage is over or long, or until this request is due as a probe."""
        loop = asyncio.get_running_loop()
        released: asyncio.Future[None] = loop.create_future()
        self._waiting.append(released)
        if self._timer is None:
            self._set_timer(loop)
        await released

    def close(self) -> None:
        """Let all requests go, which then find the client closed. No other outage begins."""
        self._horizon = 0.0
        self._release()

    def _become_long(self) -> None:
        self.is_long = True
        self._release()

    def _release(self) -> None:
        self.is_on = False
        if self._timer:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            _let_go(self._waiting.popleft())

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_at(self._next_probe, self._probe, loop)

    def _probe(self, loop: asyncio.AbstractEventLoop) -> None:
        """Send the next request that waits, unless a probe was postponed."""
        self._timer = None
        now = loop.time()
        if now >= self._next_probe:
            if self._is_probed and now - self._began >= self._limit:
                self._become_long()  # no probe had a result in all that time
                return
            self._is_probed = True
            while self._waiting and not _let_go(self._waiting.popleft()):
                pass
            self._probes += 1
            self._next_probe = now + self._wait()
        if self._waiting:
            self._set_timer(loop)

    def _wait(self) -> float:
        longest = longest_wait(self._base, self._cap, self._probes)
        return self._uniform(longest / 2, longest)


def _let_go(released: asyncio.Future[None]) -> bool:
    """Let a request go, and return whether it was still waiting: it may have been cancelled."""
    if released.done():
        return False
    released.set_result(None)
    return True
