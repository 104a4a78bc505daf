"""Calls as spans and metrics of OpenTelemetry, by its API alone: what is done with them is the user's.

Imported only where that is installed.
"""

from __future__ import annotations

from contextvars import Token
from functools import cache
from importlib.metadata import version
from typing import Final

from opentelemetry import context, metrics, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, StatusCode

from datadog_caselinks.events import (
    Call,
    CallEvent,
    CallFinished,
    CallRetrying,
    CallStarted,
    CallWaiting,
    OnEvent,
)
from datadog_caselinks.models import CaseLink, Entity, NewCaseLink

_NAME: Final = "datadog_caselinks"

_MADE: Final = frozenset({"create", "ensure"})
"""The operations that return a link, and whether it is new."""


@cache
def telemetry() -> OnEvent:
    """What passes events on to OpenTelemetry: one for the process, as its instruments are."""
    return _Telemetry()


class _Telemetry:
    """A span for each call and each run, and four instruments.

    A span is current for as long as its call, so that what is sent meanwhile stands below it; that of a run
    is not, since whoever consumes the run goes on with something else in between.
    """

    def __init__(self) -> None:
        self._tracer = trace.get_tracer(_NAME, version(_NAME))
        meter = metrics.get_meter(_NAME, version(_NAME))
        self._created = meter.create_counter(
            "datadog_caselinks.links.created", "{link}", "Links that were created"
        )
        self._retries = meter.create_counter(
            "datadog_caselinks.retries", "{retry}", "Attempts that failed and were repeated"
        )
        self._waited = meter.create_histogram(
            "datadog_caselinks.rate_limit.wait", "s", "How long the rate limit held calls back"
        )
        self._in_flight = meter.create_up_down_counter(
            "datadog_caselinks.calls.in_flight", "{call}", "Calls that have begun and not ended"
        )
        self._open: dict[Call, tuple[Span, Token[Context] | None]] = {}

    def __call__(self, event: CallEvent) -> None:
        call = event.call
        match event:
            case CallStarted():
                self._start(call)
            case CallFinished():
                self._finish(call)
            case CallRetrying():
                kind = type(event.error).__name__
                self._retries.add(1, {"operation": call.operation, "error.type": kind})
                self._tell(call, "retry", {"error.type": kind, "seconds": event.seconds})
            case CallWaiting():
                self._tell(call, "wait for the rate limit", {"seconds": event.seconds})
            case _:
                self._tell(call, "reconciled", {})

    def _start(self, call: Call) -> None:
        run = self._open.get(call.parent) if call.parent else None
        parent = trace.set_span_in_context(run[0]) if run else None
        span = self._tracer.start_span(f"{_NAME} {call.operation}", parent, attributes=_subject(call))
        token = None
        if call.operation != "bulk":
            token = context.attach(trace.set_span_in_context(span, parent))
            self._in_flight.add(1, {"operation": call.operation})
        self._open[call] = span, token

    def _finish(self, call: Call) -> None:
        span, token = self._open.pop(call)
        if span.is_recording():
            span.set_attributes(_result(call))
            if call.error:
                span.set_status(StatusCode.ERROR, str(call.error))
        span.end()
        if token is not None:
            context.detach(token)
            self._in_flight.add(-1, {"operation": call.operation})
        if call.outcome == "created":
            self._created.add(1, {"relationship": str(call.result[0].relationship)})
        if call.waited:
            self._waited.record(call.waited, {"operation": call.operation})

    def _tell(self, call: Call, name: str, attributes: dict[str, str | float]) -> None:
        self._open[call][0].add_event(name, attributes)


def _subject(call: Call) -> dict[str, str]:
    match call.subject:
        case NewCaseLink() as new:
            told = {
                "parent.type": new.parent.type,
                "parent.id": new.parent.id,
                "relationship": new.relationship,
                "child.type": new.child.type,
                "child.id": new.child.id,
            }
        case Entity() as entity:
            told = {"entity.type": entity.type, "entity.id": entity.id}
        case str() as name if call.operation == "delete":
            told = {"link.id": name}
        case str() as name:
            told = {"case": name}
        case _:
            told = {}
    return {f"{_NAME}.{key}": str(value) for key, value in told.items()}


def _result(call: Call) -> dict[str, str | int | float]:
    told: dict[str, str | int | float] = {"outcome": call.outcome or "", "waited_seconds": call.waited}
    match call:
        case Call(operation="bulk"):
            told |= {f"links.{outcome}": count for outcome, count in call.result.items()}
        case Call(result=(CaseLink() as link, bool())):
            told |= {"attempts": call.attempts, "link.id": link.id}
        case Call(operation="list", result=list() as links):
            told |= {"attempts": call.attempts, "links": len(links)}
        case _:
            told["attempts"] = call.attempts
    if call.error:
        told["error.type"] = type(call.error).__name__
    return {key if key == "error.type" else f"{_NAME}.{key}": value for key, value in told.items()}
