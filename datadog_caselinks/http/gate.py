"""Who may send next: first come, first served, within the server's rate limit. Knows no HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from types import TracebackType
from typing import Final, Self

from datadog_caselinks import events
from datadog_caselinks.errors import CaseLinksError, RateLimitError
from datadog_caselinks.http.window import Sent, Window
from datadog_caselinks.rate_limit import RateLimit
from datadog_caselinks.retry import may_have_been_applied

_logger = logging.getLogger(__name__)

_BUCKETS: Final = 16
"""Names that are remembered: each operation is counted in one, and no server has more to tell apart."""


class Gate:
    """The rate limit of one site and one set of credentials, for all who ask there.

    The server counts in buckets, and several operations may share one. Until the answers name them, all
    operations are taken to share one. Its time is that of the event loop which it is used in.
    """

    def __init__(self) -> None:
        self._first = _Bucket()
        self._named: dict[str, _Bucket] = {}
        self._of_operation: dict[str, _Bucket] = {}

    async def turn(self, operation: str, *, max_wait: float) -> Turn:
        """Wait for the turn of one request; what it gives is entered with ``with`` at once.

        Raises :class:`RateLimitError` if the limit leaves nothing for more than ``max_wait`` seconds.
        """
        bucket = self._of_operation.get(operation, self._first)
        return Turn(self, operation, bucket, bucket.pass_by() or await bucket.enter(max_wait))

    def rate_limit(self, operation: str) -> RateLimit | None:
        """The current window of ``operation``; ``None`` without a limit, or once the window is over."""
        return self._of_operation.get(operation, self._first).current()

    def named(self, operation: str, name: str) -> _Bucket:
        """What ``operation`` is counted in, now that an answer told its name."""
        if name not in self._named:
            self._named[name] = _Bucket() if self._named else self._first
            self._named[name].name = name
            if len(self._named) > _BUCKETS:
                del self._named[next(iter(self._named))]
        bucket = self._of_operation[operation] = self._named[name]
        return bucket


class Turn:
    """One request that may be sent now, until it is known what came of it.

    Whoever holds it tells by :meth:`answered` what the answer said. If it is left by an error that says that
    nothing was sent, the request did not count; if it is left without a word, it may have.
    """

    __slots__ = ("_bucket", "_gate", "_operation", "_request")

    def __init__(self, gate: Gate, operation: str, bucket: _Bucket, request: Sent) -> None:
        self._gate = gate
        self._operation = operation
        self._bucket = bucket
        self._request: Sent | None = request

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        request = self._request
        if request is None:
            return
        if isinstance(error, CaseLinksError) and not may_have_been_applied(error):
            self._bucket.withdrawn(request)
        else:
            self._bucket.lost(request)

    def answered(self, limit: RateLimit | None, *, is_rejected: bool, retry_after: float | None) -> None:
        """An answer came: ``limit`` by its headers, ``is_rejected`` for a 429."""
        request, self._request = self._request, None
        assert request is not None
        if limit and limit.name and limit.name != self._bucket.name:
            bucket = self._gate.named(self._operation, limit.name)
            if bucket is not self._bucket:
                self._bucket.withdrawn(request)
                self._bucket, request = bucket, bucket.adopted(request)
        self._bucket.answered(request, limit, is_rejected=is_rejected, retry_after=retry_after)


class _Bucket:
    """A window, and those who wait for it in the order in which they came."""

    def __init__(self) -> None:
        self.name: str | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._window = Window()
        self._waiting: deque[tuple[asyncio.Future[Sent], float]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._logged_until = 0.0
        self._refused_until = 0.0

    def current(self) -> RateLimit | None:
        return self._window.current(self._loop.time()) if self._loop else None

    def pass_by(self) -> Sent | None:
        """The turn of one who need not wait."""
        now = self._now()
        return None if self._waiting or not self._window.may_send(now) else self._window.sent(now)

    async def enter(self, max_wait: float) -> Sent:
        now = self._now()
        if (wait := self._window.blocked_until(now) - now) > max_wait:
            raise _too_long(wait, max_wait, self._window.current(now))
        with events.waiting(max(0.0, wait)):
            return await self._queue(max_wait)

    async def _queue(self, max_wait: float) -> Sent:
        turn: asyncio.Future[Sent] = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, max_wait))
        self._serve()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                with contextlib.suppress(ValueError):  # it was just taken out
                    self._waiting.remove((turn, max_wait))
            elif not turn.exception():
                self.withdrawn(turn.result())
            self._serve()
            raise

    def adopted(self, request: Sent) -> Sent:
        return self._window.adopted(request)

    def withdrawn(self, request: Sent) -> None:
        self._window.withdrawn(request)
        self._serve()

    def lost(self, request: Sent) -> None:
        self._window.lost(self._now(), request)
        self._serve()

    def answered(
        self, request: Sent, limit: RateLimit | None, *, is_rejected: bool, retry_after: float | None
    ) -> None:
        self._window.answered(self._now(), request, limit, is_rejected=is_rejected, retry_after=retry_after)
        if self._waiting:
            self._serve()

    def _now(self) -> float:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop.time()

    def _serve(self) -> None:
        """Let go whoever may, from the first; come back when time alone may let the next one go."""
        if self._timer:
            self._timer.cancel()
        while self._waiting:
            turn, _ = self._waiting[0]
            now = self._now()
            blocked_until = self._window.blocked_until(now)
            if turn.done():
                self._waiting.popleft()
            elif self._window.may_send(now):
                self._waiting.popleft()
                turn.set_result(self._window.sent(now))
            elif blocked_until > max(now, self._refused_until):
                self._refuse(now, blocked_until)
            else:
                self._log(now, blocked_until - now)
                delay = max(0.0, self._window.next_look(now) - now)
                self._timer = asyncio.get_running_loop().call_later(delay, self._serve)
                return

    def _refuse(self, now: float, until: float) -> None:
        """Tell all for whom it is too long, once for each time that the end of the wait moves away."""
        self._refused_until = until
        for turn, max_wait in self._waiting:
            if until - now > max_wait and not turn.done():
                turn.set_exception(_too_long(until - now, max_wait, self._window.current(now)))

    def _log(self, now: float, wait: float) -> None:
        """Say once for each wait, and not for each who waits, how long it is."""
        if wait > 0 and now >= self._logged_until:
            self._logged_until = now + wait
            _logger.info("the rate limit is used up; waiting %.1f s", wait, extra={"wait_seconds": wait})


def _too_long(wait: float, max_wait: float, limit: RateLimit | None) -> RateLimitError:
    return RateLimitError(
        f"the rate limit leaves nothing for another {wait:.0f} s, and max_wait is {max_wait:.0f} s: "
        "try later, or raise max_wait of the RetryPolicy",
        status=429,
        retry_after=wait,
        rate_limit=limit,
    )
