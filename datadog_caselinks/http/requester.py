"""Send one request of one client: wait for a slot and a permit, send it, and report the rate limit."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from functools import partial
from typing import Final
from weakref import WeakKeyDictionary

from datadog_caselinks.http.gate import Bucket, Gate, Permit
from datadog_caselinks.http.headers import retry_after
from datadog_caselinks.http.outage import Outage, mark_as_outage
from datadog_caselinks.http.pace import Pace
from datadog_caselinks.http.transport import Transport
from datadog_caselinks.http.wire import Request, Response
from datadog_caselinks.observation.events import report_request
from datadog_caselinks.values.credentials import AuthHeaders
from datadog_caselinks.values.errors import CaseLinksError, SessionError
from datadog_caselinks.values.rate import Rate

_CLOSED: Final = "this client is closed: create a new one"

_FRESH: Final = 30.0
"""Seconds after which a waiting request reads its credentials again, because a token may have expired."""


class Requester:
    """Sends the requests of one client: a bounded number in flight, at the pace that the rate limit allows.

    Args:
        transport: The transport that sends each request.
        gate: The gate of the rate limit.
        outage: The outage of the server, which holds requests back.
        max_in_flight: The maximum number of requests in flight.
        max_wait: The longest wait for the rate limit, in seconds.
        rate: The client's own limit, if it has one.
    """

    def __init__(
        self,
        transport: Transport,
        gate: Gate,
        outage: Outage,
        *,
        max_in_flight: int,
        max_wait: float,
        rate: Rate | None = None,
    ) -> None:
        self._transport = transport
        self._gate = gate
        self._outage = outage
        self._in_flight = asyncio.Semaphore(max_in_flight)
        self._max_in_flight = max_in_flight
        self._slots: WeakKeyDictionary[Bucket, asyncio.Semaphore] = WeakKeyDictionary()
        self._max_wait = max_wait
        self._pace = Pace(rate) if rate else None
        self._is_closed = False

    async def send(self, request: Request, last_failure: CaseLinksError | None = None) -> Response:
        """Send ``request`` once, when a slot is free, no outage holds it back and the rate limit allows it.

        ``last_failure`` is the error of the latest failed attempt, if this is a retry. It is raised again,
        and nothing is sent, if the server has failed for so long that no request is retried any more.

        Raises:
            TransportError: There is no response. Every status that the server sends is a response.
            RateLimitError: The limit is used up for longer than ``max_wait``.
            SessionError: The client is closed.
            ConfigurationError: The credentials could not be read.
            CaseLinksError: ``last_failure``.
        """
        response = await self._send(request, last_failure)
        self._in_flight.release()
        return response

    @contextlib.asynccontextmanager
    async def sending(
        self, request: Request, last_failure: CaseLinksError | None = None
    ) -> AsyncGenerator[Response, None]:
        """Send like :meth:`send`, and count the request as in flight until the end of the block."""
        response = await self._send(request, last_failure)
        try:
            yield response
        finally:
            self._in_flight.release()

    async def _send(self, request: Request, last_failure: CaseLinksError | None) -> Response:
        """Return the response to a request, which still counts as in flight."""
        # Before the queue: a call of a closed client must not wait to fail.
        if self._is_closed:
            raise SessionError(_CLOSED)
        self._transport.require_usable()
        # The slot comes before the permit: the window of a permit that waits for a slot could end. Each
        # bucket has its own slots, since calls that wait for one window must not hold up those of another.
        bucket = self._gate.bucket(request.operation)
        slots = self._slots.get(bucket)
        if slots is None:
            slots = self._slots[bucket] = asyncio.Semaphore(self._max_in_flight)
        async with slots:
            # In the slot, so that a request which waits holds back those behind it.
            if self._outage.is_on:
                await self._outage.wait()
            if last_failure and self._outage.is_long:
                mark_as_outage(last_failure)
                raise last_failure
            # Before the queue of the rate, where one refresh of a token would hold up all requests, and
            # before the permit, which would become stale.
            auth = await self._transport.authenticate()
            acquire = partial(
                self._acquire, request.operation, slots, auth, asyncio.get_running_loop().time()
            )
            if self._pace:
                auth, permit = await self._pace.acquire(bucket, acquire, self._withdraw)
            else:
                auth, permit = await acquire()
            try:
                with permit:
                    if self._is_closed:
                        raise SessionError(_CLOSED)
                    report_request(request.operation)
                    response = await self._transport.send(request, auth)
                    _report_to_gate(permit, response)
                    if response.status == 429:
                        self._outage.on_success()  # the server works
                    return response
            except BaseException:
                self._in_flight.release()
                raise

    async def _acquire(
        self, operation: str, slots: asyncio.Semaphore, auth: AuthHeaders, read_at: float
    ) -> tuple[AuthHeaders, Permit]:
        """Return current credentials and a permit, and count the request in flight.

        ``auth`` was read at ``read_at``.
        """
        permit = await self._gate.acquire(operation, max_wait=self._max_wait, slots=slots)
        try:
            if asyncio.get_running_loop().time() - read_at > _FRESH:
                auth = await self._transport.authenticate()
            await self._in_flight.acquire()  # bounds the requests of all buckets together
        except BaseException:
            permit.withdraw()
            raise
        return auth, permit

    def _withdraw(self, acquired: tuple[AuthHeaders, Permit]) -> None:
        acquired[1].withdraw()
        self._in_flight.release()

    def close(self) -> None:
        """Refuse further requests, including those that wait."""
        self._is_closed = True
        self._outage.close()
        if self._pace:
            self._pace.close()


def _report_to_gate(permit: Permit, response: Response) -> None:
    """Report to the gate what ``response`` says about the rate limit.

    An error without rate-limit headers says nothing: it came from something in front of the server's counter,
    so the request may not have been counted. A 401 is reported although it has no such headers: all requests
    with these credentials get it, so those that wait need not wait for a response with a limit.
    """
    limit = response.rate_limit()
    is_rate_limited = response.status == 429
    if limit or is_rate_limited or response.status < 300 or response.status == 401:
        wait = retry_after(response.headers) if is_rate_limited else None
        permit.on_response(limit, is_rate_limited=is_rate_limited, retry_after=wait)
