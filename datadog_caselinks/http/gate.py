"""Who may send next: permits in FIFO order, within the server's rate limit. Knows no HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from typing import Final, Self

from datadog_caselinks.errors import CaseLinksError, RateLimitError
from datadog_caselinks.events import report_wait
from datadog_caselinks.http.window import SentRequest, Window
from datadog_caselinks.rate_limit import RateLimit

_logger = logging.getLogger("datadog_caselinks.gate")

_MAX_BUCKETS: Final = 16
"""Bucket names that are remembered: more than the API has operations."""


class Gate:
    """The rate limit of one site and one set of credentials, shared by all requests with them.

    The server counts in buckets, and several operations may share one. Until a response names the bucket, all
    operations are assumed to share one. Time is that of the event loop in which the gate is used.
    """

    def __init__(self) -> None:
        self._first = _Bucket()
        self._by_name: dict[str, _Bucket] = {}
        self._by_operation: dict[str, _Bucket] = {}

    async def acquire(self, operation: str, *, max_wait: float) -> Permit:
        """Wait for permission to send one request.

        Raises :class:`RateLimitError` if the limit is used up for more than ``max_wait`` seconds.
        """
        bucket = self._by_operation.get(operation, self._first)
        request = bucket.try_acquire()
        return Permit(self, operation, bucket, request or await bucket.acquire(max_wait))

    def rate_limit(self, operation: str) -> RateLimit | None:
        """Return the current window of ``operation``; ``None`` without a limit, or once it is over."""
        return self._by_operation.get(operation, self._first).rate_limit()

    def bucket(self, operation: str, name: str) -> _Bucket:
        """Return the bucket called ``name``, and count ``operation`` in it from now on."""
        if name not in self._by_name:
            self._by_name[name] = _Bucket() if self._by_name else self._first
            self._by_name[name].name = name
            if len(self._by_name) > _MAX_BUCKETS:
                del self._by_name[next(iter(self._by_name))]
        bucket = self._by_operation[operation] = self._by_name[name]
        return bucket


class Permit:
    """Permission to send one request, held until its result is known.

    Call :meth:`on_response` with what the response reported. A permit that is left by an error which says
    that nothing was sent gives the request back; one that is left without a response counts it as perhaps
    counted.
    """

    __slots__ = ("_bucket", "_gate", "_operation", "_request")

    def __init__(self, gate: Gate, operation: str, bucket: _Bucket, request: SentRequest) -> None:
        self._gate = gate
        self._operation = operation
        self._bucket = bucket
        self._request: SentRequest | None = request

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if self._request is None:
            return
        if isinstance(error, CaseLinksError) and not error.may_have_been_applied:
            self._bucket.withdraw(self._request)
        else:
            self._bucket.lose(self._request)

    def on_response(self, limit: RateLimit | None, *, is_rejected: bool, retry_after: float | None) -> None:
        """Record a response: ``limit`` from its headers, ``is_rejected`` for a 429."""
        request, self._request = self._request, None
        assert request is not None
        if limit and limit.name and limit.name != self._bucket.name:
            bucket = self._gate.bucket(self._operation, limit.name)
            if bucket is not self._bucket:
                self._bucket.withdraw(request)
                self._bucket, request = bucket, bucket.adopt(request)
        self._bucket.on_response(request, limit, is_rejected=is_rejected, retry_after=retry_after)


class _Bucket:
    """A window, and the queue of those who wait for it."""

    def __init__(self) -> None:
        self.name: str | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._window = Window()
        self._waiting: deque[tuple[asyncio.Future[SentRequest], float]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._logged_until = 0.0
        self._refused_until = 0.0

    def rate_limit(self) -> RateLimit | None:
        return self._window.current(self._loop.time()) if self._loop else None

    def try_acquire(self) -> SentRequest | None:
        """Count a request that need not wait; ``None`` if it must."""
        now = self._now()
        return None if self._waiting or not self._window.may_send(now) else self._window.send(now)

    async def acquire(self, max_wait: float) -> SentRequest:
        """Count a request once it may be sent."""
        now = self._now()
        if (wait := self._window.blocked_until(now) - now) > max_wait:
            raise _too_long(wait, max_wait, self._window.current(now))
        with report_wait(max(0.0, wait)):
            return await self._queue(max_wait)

    async def _queue(self, max_wait: float) -> SentRequest:
        permitted: asyncio.Future[SentRequest] = asyncio.get_running_loop().create_future()
        self._waiting.append((permitted, max_wait))
        self._serve()
        try:
            return await permitted
        except asyncio.CancelledError:
            if permitted.cancelled():
                with contextlib.suppress(ValueError):  # _serve may have removed it already
                    self._waiting.remove((permitted, max_wait))
            elif not permitted.exception():
                self.withdraw(permitted.result())
            self._serve()
            raise

    def adopt(self, request: SentRequest) -> SentRequest:
        """Count a request that was sent as one of another bucket."""
        return self._window.adopt(request)

    def withdraw(self, request: SentRequest) -> None:
        """Take back a request that was not sent after all."""
        self._window.withdraw(request)
        self._serve()

    def lose(self, request: SentRequest) -> None:
        """Record that no response arrived."""
        self._window.lose(self._now(), request)
        self._serve()

    def on_response(
        self, request: SentRequest, limit: RateLimit | None, *, is_rejected: bool, retry_after: float | None
    ) -> None:
        """Record a response."""
        self._window.on_response(
            self._now(), request, limit, is_rejected=is_rejected, retry_after=retry_after
        )
        if self._waiting:
            self._serve()

    def _now(self) -> float:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop.time()

    def _serve(self) -> None:
        """Grant permits in FIFO order; come back when time alone may allow the next one."""
        if self._timer:
            self._timer.cancel()
        while self._waiting:
            permitted, _ = self._waiting[0]
            now = self._now()
            blocked_until = self._window.blocked_until(now)
            if permitted.done():
                self._waiting.popleft()
            elif self._window.may_send(now):
                self._waiting.popleft()
                permitted.set_result(self._window.send(now))
            elif blocked_until > max(now, self._refused_until):
                self._refuse(now, blocked_until)
            else:
                self._log(now, blocked_until - now)
                delay = max(0.0, self._window.next_check(now) - now)
                self._timer = asyncio.get_running_loop().call_later(delay, self._serve)
                return

    def _refuse(self, now: float, until: float) -> None:
        """Fail all for whom the wait is too long, once each time that its end moves further away."""
        self._refused_until = until
        for permitted, max_wait in self._waiting:
            if until - now > max_wait and not permitted.done():
                permitted.set_exception(_too_long(until - now, max_wait, self._window.current(now)))

    def _log(self, now: float, wait: float) -> None:
        """Log each wait once, not once for each request that waits."""
        if wait > 0 and now >= self._logged_until:
            self._logged_until = now + wait
            _logger.info("the rate limit is used up; waiting %.1f s", wait, extra={"wait_seconds": wait})


def _too_long(wait: float, max_wait: float, limit: RateLimit | None) -> RateLimitError:
    return RateLimitError(
        f"the rate limit is used up for another {wait:.0f} s, and max_wait is {max_wait:.0f} s: "
        "try later, or raise max_wait of the RetryPolicy",
        status=429,
        retry_after=wait,
        rate_limit=limit,
    )
