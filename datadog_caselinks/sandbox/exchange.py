"""One HTTP exchange: apply the rate limit, faults and operation, then respond or close the connection.

This module connects the API, the limiter, the faults and the record to the HTTP server.
"""

from __future__ import annotations

import asyncio
import math
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Final

from aiohttp import web
from attrs import evolve, frozen

from datadog_caselinks.sandbox.api import Call, Operation, Response, authenticate, perform, route
from datadog_caselinks.sandbox.documents import write_json
from datadog_caselinks.sandbox.faults import Fault, FaultPlan, FaultRule
from datadog_caselinks.sandbox.limits import Limiter, RateLimitRule, Window
from datadog_caselinks.sandbox.record import Record, RecordedRequest, excerpt
from datadog_caselinks.sandbox.refusals import Refusal, RefusedError, bad_request
from datadog_caselinks.sandbox.store import Store
from datadog_caselinks.sandbox.variant import Variant

_WITH_OWN_HINTS: Final = frozenset({Fault.HTTP_429, Fault.HTTP_429_RETRY_AFTER, Fault.HTTP_429_NO_HINT})
# The rule that a 429 fault reports if the sandbox has none.
_FALLBACK_RULE: Final = RateLimitRule(60, 60)
_BROKEN_JSON: Final = b'{"data": {"id": '
# SO_LINGER on with zero seconds: closing the socket sends RST.
_RESET_ON_CLOSE: Final = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


@frozen
class _Outcome:
    """The outcome of a request; without a response, the sandbox closes the connection."""

    response: Response | None
    body: bytes = b""
    rule: FaultRule | None = None

    @property
    def fault(self) -> Fault | None:
        return self.rule.fault if self.rule else None


@frozen
class Exchange:
    """A handler of the requests to the API. When ``stopping`` is done, faults stop waiting."""

    store: Store
    variant: Variant
    limiter: Limiter
    plan: FaultPlan
    record: Record
    clock: Callable[[], float]
    stopping: asyncio.Future[None]

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Respond to one request, or close its connection."""
        at = self.clock()
        outcome = await self._outcome(request)
        # Recorded before the response is sent, so that a client with the response finds it in the record.
        self.record.add(
            RecordedRequest(
                at,
                request.method,
                request.raw_path,
                outcome.response.status if outcome.response else None,
                outcome.fault,
                excerpt(outcome.body),
            )
        )
        if outcome.response is None:
            return _cut(request, reset=outcome.fault is Fault.RESET)
        return await self._deliver(request, outcome.response, outcome.rule)

    async def _outcome(self, request: web.BaseRequest) -> _Outcome:
        try:
            operation, subject = route(request.method, request.path)
        except RefusedError as error:
            return _Outcome(self._refused(error.refusal))
        try:
            call = await _read_call(request, operation, subject)
        except RefusedError as error:
            window = self.limiter.window(self.clock(), operation)
            return _Outcome(_with_limits(self._refused(error.refusal), window))
        except ConnectionError:
            return _Outcome(None)
        now = self.clock()
        admitted = self.limiter.admit(now, operation)
        window = self.limiter.window(now, operation)
        if not admitted:
            return _Outcome(_with_limits(self._refused(_rate_limited(self.limiter.rule)), window), call.body)
        rule = self.plan.next_for(operation)
        response = await self._respond(call, rule)
        if rule is None or rule.fault not in _WITH_OWN_HINTS:
            response = _with_limits(response, window)
        return _Outcome(response, call.body, rule)

    async def _respond(self, call: Call, rule: FaultRule | None) -> Response | None:
        """Apply the call unless a fault prevents it; return ``None`` to close the connection instead."""
        if rule is None:
            return self._apply(call)
        match rule.fault:
            case Fault.DELAY | Fault.DRIP | Fault.TRUNCATED:
                return self._apply(call)
            case Fault.LATE_APPLY:
                await self._pause(rule.wait)
                return self._apply(call)
            case Fault.MALFORMED:
                return evolve(self._apply(call), body=_BROKEN_JSON)
            case Fault.LOST_RESPONSE:
                self._apply(call)
                return None
            case Fault.RESET:
                return None
            case Fault.HTTP_504_APPLIED:
                self._apply(call)
                return _html(504)
            case Fault.HTTP_429:
                limit, name = self.limiter.rule or _FALLBACK_RULE, self.limiter.bucket(call.operation)
                window = Window(name, limit, remaining=0, reset=math.ceil(rule.wait))
                return _with_limits(self._refused(_rate_limited(limit)), window)
            case Fault.HTTP_429_RETRY_AFTER:
                return self._refused(Refusal(429, "Too Many Requests", headers=_retry_after(rule)))
            case Fault.HTTP_503_RETRY_AFTER:
                return evolve(_html(503), headers=_retry_after(rule))
            case _:
                return _html(int(rule.fault[:3]))

    def _apply(self, call: Call) -> Response:
        try:
            return perform(call, self.store, self.variant, self.clock())
        except RefusedError as error:
            return self._refused(error.refusal)

    def _refused(self, refusal: Refusal) -> Response:
        body = write_json(refusal.document(self.variant.error_format))
        return Response(refusal.status, body, headers=refusal.headers)

    async def _deliver(
        self, request: web.BaseRequest, response: Response, rule: FaultRule | None
    ) -> web.StreamResponse:
        headers = (
            {**response.headers, "Content-Type": response.content_type} if response.body else response.headers
        )
        if rule and rule.fault in (Fault.DRIP, Fault.TRUNCATED):
            stream = web.StreamResponse(status=response.status, headers=headers)
            stream.content_length = len(response.body)
            # The client may disconnect before the end.
            with suppress(ConnectionError):
                await stream.prepare(request)
                if rule.fault is Fault.DRIP:
                    await self._drip(stream, response.body, rule.wait)
                else:
                    await stream.write(response.body[: len(response.body) // 2])
                    _cut(request, reset=False)
            return stream
        if rule and rule.fault is Fault.DELAY:
            await self._pause(rule.wait)
        return web.Response(status=response.status, headers=headers, body=response.body or None)

    async def _drip(self, response: web.StreamResponse, body: bytes, seconds: float) -> None:
        for byte in body:
            await self._pause(seconds / len(body))
            await response.write(bytes((byte,)))

    async def _pause(self, seconds: float) -> None:
        """Wait for this many seconds, or until the sandbox stops."""
        await asyncio.wait((self.stopping,), timeout=seconds)


async def _read_call(request: web.BaseRequest, operation: Operation, subject: str) -> Call:
    """Authenticate a request and read its body.

    Raises:
        RefusedError: The request is refused.
        ConnectionError: The client disconnects before the end.
    """
    scopes = authenticate(request.headers)
    try:
        body = await request.read()  # aiohttp reads at most 1 MiB
    except web.HTTPRequestEntityTooLarge:
        raise RefusedError(Refusal(413, "Request Entity Too Large")) from None
    except web.RequestPayloadError as error:
        raise bad_request(f"the body cannot be read: {error}") from None
    return Call(operation, subject, request.query_string, body, scopes)


def _cut(request: web.BaseRequest, *, reset: bool) -> web.StreamResponse:
    """Close the connection after the written data has been sent, or reset it at once."""
    if (transport := request.transport) is not None:
        if reset:
            connection = transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            transport.abort()
        else:
            transport.close()
    # aiohttp needs a response from every handler; on a closed connection it is not sent.
    return web.Response()


def _rate_limited(rule: RateLimitRule | None) -> Refusal:
    return Refusal(429, "Too Many Requests", (f"Rate limit of {rule} exceeded",))


def _with_limits(response: Response | None, window: Window | None) -> Response | None:
    if response is None or window is None:
        return response
    return evolve(response, headers={**response.headers, **window.headers()})


def _html(status: int) -> Response:
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Server Error"
    page = f"<html><head><title>{status} {phrase}</title></head><body><h1>{phrase}</h1></body></html>\n"
    return Response(status, page.encode(), "text/html")


def _retry_after(rule: FaultRule) -> dict[str, str]:
    return {"Retry-After": str(math.ceil(rule.wait))}
