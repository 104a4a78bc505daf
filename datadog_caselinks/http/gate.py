"""Grant permits to send requests, in FIFO order and within the server's rate limit."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections import deque
from typing import Final, Self

from datadog_caselinks.http.window import SentRequest, Window
from datadog_caselinks.isolation import log
from datadog_caselinks.observation.events import report_wait
from datadog_caselinks.values.errors import CaseLinksError, RateLimitError
from datadog_caselinks.values.rate_limit import RateLimit, where_to_raise

_logger = logging.getLogger("datadog_caselinks.gate")

MAX_BUCKETS: Final = 16
"""The maximum number of buckets. The API has fewer operations."""


class Gate:
    """The gate through which all requests to one site with the same credentials pass.

    The server counts requests in buckets, and several operations may share a bucket. All operations are
    assumed to share one until a response names another. The gate uses the time of the event loop.
    """

    def __init__(self) -> None:
        self._first = Bucket()
        self._by_name: dict[str, Bucket] = {}
        self._by_operation: dict[str, Bucket] = {}

    async def acquire(self, operation: str, *, max_wait: float, slots: asyncio.Semaphore) -> Permit:
        """Wait until a request may be sent, and return the permit.

        Args:
            operation: The operation of the request.
            max_wait: The maximum wait for the end of the rate limit's window, in seconds.
            slots: The slots of the caller. If all are taken, the gate assumes that more requests follow.

        Raises:
            RateLimitError: The rate limit is used up for more than ``max_wait`` seconds.
        """
        bucket = self.bucket(operation)
        request = bucket.try_acquire(slots)
        return Permit(self, operation, bucket, request or await bucket.acquire(max_wait, slots))

    def rate_limit(self, operation: str) -> RateLimit | None:
        """Return the current window of ``operation``, or ``None`` if it is over or there is no limit."""
        return self.bucket(operation).rate_limit()

    def bucket(self, operation: str) -> Bucket:
        """Return the bucket that counts ``operation``, as far as is known."""
        return self._by_operation.get(operation, self._first)

    def assign_bucket(self, operation: str, name: str) -> Bucket:
        """Assign ``operation`` to the bucket ``name``, and return the bucket."""
        if name not in self._by_name:
            self._by_name[name] = Bucket() if self._by_name else self._first
            self._by_name[name].name = name
            if len(self._by_name) > MAX_BUCKETS:
                del self._by_name[next(iter(self._by_name))]
        bucket = self._by_operation[operation] = self._by_name[name]
        return bucket


class Permit:
    """A permit to send one request, used as ``with permit:`` around the request.

    Call :meth:`on_response` if a response arrives. If the block ends without it, the server may have counted
    the request, unless the block raises an error which says that nothing was sent.
    """

    __slots__ = ("_bucket", "_gate", "_operation", "_request")

    def __init__(self, gate: Gate, operation: str, bucket: Bucket, request: SentRequest) -> None:
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

    def withdraw(self) -> None:
        """Give the permit back: no request is sent."""
        request, self._request = self._request, None
        assert request is not None
        self._bucket.withdraw(request)

    def on_response(
        self, limit: RateLimit | None, *, is_rate_limited: bool, retry_after: float | None
    ) -> None:
        """Record a response.

        Args:
            limit: The rate limit from the headers of the response, if any.
            is_rate_limited: Whether the status is 429.
            retry_after: Seconds to wait, from the ``Retry-After`` header.
        """
        request, self._request = self._request, None
        assert request is not None
        if limit and limit.name and limit.name != self._bucket.name:
            bucket = self._gate.assign_bucket(self._operation, limit.name)
            if bucket is not self._bucket:
                self._bucket.withdraw(request)
                self._bucket, request = bucket, bucket.adopt(request)
        self._bucket.on_response(request, limit, is_rate_limited=is_rate_limited, retry_after=retry_after)


class Bucket:
    """A window of the rate limit, and the queue of requests that wait for it. Only the gate creates them."""

    def __init__(self) -> None:
        self.name: str | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._window = Window()
        self._waiting: deque[tuple[asyncio.Future[SentRequest], float, asyncio.Semaphore]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._logged_until = 0.0
        self._refused_until = 0.0

    def rate_limit(self) -> RateLimit | None:
        """Return the current window, or ``None`` if it is over or there is no limit."""
        return self._window.current(self._loop.time()) if self._loop else None

    def try_acquire(self, slots: asyncio.Semaphore) -> SentRequest | None:
        """Count a request, or return ``None`` if it has to wait."""
        now = self._now()
        try:
            if self._waiting or not self._window.may_send(now, math.inf if slots.locked() else 1):
                return None
            return self._window.count(now)
        except Exception:
            self._start_over()
            return None

    async def acquire(self, max_wait: float, slots: asyncio.Semaphore) -> SentRequest:
        """Wait until a request may be sent, and count it."""
        now = self._now()
        if (wait := self._window.blocked_until(now) - now) > max_wait:
            raise _too_long(wait, max_wait, self._window.current(now))
        with report_wait(max(0.0, wait)):
            return await self._queue(max_wait, slots)

    async def _queue(self, max_wait: float, slots: asyncio.Semaphore) -> SentRequest:
        permitted: asyncio.Future[SentRequest] = asyncio.get_running_loop().create_future()
        self._waiting.append((permitted, max_wait, slots))
        self._serve()
        try:
            return await permitted
        except asyncio.CancelledError:
            if permitted.cancelled():
                with contextlib.suppress(ValueError):  # _serve may have removed it already
                    self._waiting.remove((permitted, max_wait, slots))
            elif not permitted.exception():
                self.withdraw(permitted.result())
            self._serve()
            raise

    def adopt(self, request: SentRequest) -> SentRequest:
        """Count a request that was sent for another bucket."""
        return self._window.adopt(request)

    def withdraw(self, request: SentRequest) -> None:
        """Stop counting a request that was not sent."""
        self._window.release(request)
        self._serve()

    def lose(self, request: SentRequest) -> None:
        """Record that no response reported the limit."""
        self._window.lose(self._now(), request)
        self._serve()

    def on_response(
        self,
        request: SentRequest,
        limit: RateLimit | None,
        *,
        is_rate_limited: bool,
        retry_after: float | None,
    ) -> None:
        """Record a response."""
        try:
            self._window.on_response(
                self._now(), request, limit, is_rate_limited=is_rate_limited, retry_after=retry_after
            )
        except Exception:
            self._start_over()
        if self._waiting:
            self._serve()

    def _now(self) -> float:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop.time()

    def _serve(self) -> None:
        """Grant permits in FIFO order, and set a timer for when the next one may become possible."""
        if self._timer:
            self._timer.cancel()
        try:
            self._grant()
        except Exception:
            self._start_over()
            self._grant()

    def _start_over(self) -> None:
        """Forget the window after an error in the calculation, so that no call fails or waits forever."""
        self._window, self._refused_until = self._window.unknown(), 0.0
        log(_logger, logging.ERROR, "cannot calculate the rate limit; starting over", exc_info=True)

    def _grant(self) -> None:
        while self._waiting:
            permitted, _, slots = self._waiting[0]
            demand = math.inf if slots.locked() else len(self._waiting)
            now = self._now()
            blocked_until = self._window.blocked_until(now)
            if permitted.done():
                self._waiting.popleft()
            elif self._window.may_send(now, demand):
                request = self._window.count(now)  # first: if it fails, the waiting request is still queued
                self._waiting.popleft()
                permitted.set_result(request)
            elif blocked_until > max(now, self._refused_until):
                self._refuse(now, blocked_until)
            else:
                delay = max(0.0, self._window.next_check(now) - now)
                self._timer = asyncio.get_running_loop().call_later(delay, self._serve)
                self._log(now, blocked_until - now)
                return

    def _refuse(self, now: float, until: float) -> None:
        """Fail the requests that would wait too long. Called once for each later end of the wait."""
        self._refused_until = until
        for permitted, max_wait, _ in self._waiting:
            if until - now > max_wait and not permitted.done():
                permitted.set_exception(_too_long(until - now, max_wait, self._window.current(now)))

    def _log(self, now: float, wait: float) -> None:
        """Log each wait once, not once for each waiting request."""
        if wait > 0 and now >= self._logged_until:
            self._logged_until = now + wait
            extra = {"wait_seconds": wait}
            log(_logger, logging.INFO, "the rate limit is used up; waiting %.1f s", wait, extra=extra)


def _too_long(wait: float, max_wait: float, limit: RateLimit | None) -> RateLimitError:
    message = (
        f"the rate limit is used up for another {wait:.0f} s, and max_wait is {max_wait:.0f} s: "
        "try again later, or increase max_wait."
    )
    return RateLimitError(
        f"{message}{where_to_raise(limit)}".rstrip("."),
        status=429,
        retry_after=wait,
        rate_limit=limit,
    )
