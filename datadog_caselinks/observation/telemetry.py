"""Report calls to OpenTelemetry as spans and metrics. Imported only if ``opentelemetry-api`` is installed."""

from __future__ import annotations

from contextvars import Token
from functools import cache
from typing import Final

from opentelemetry import context, metrics, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, StatusCode

from datadog_caselinks.observation.events import (
    Call,
    CallEvent,
    CallFinished,
    CallRetrying,
    CallStarted,
    CallWaiting,
)
from datadog_caselinks.values.models import CaseLink, Entity, LinkStatus, NewCaseLink
from datadog_caselinks.version import __version__

_NAME: Final = "datadog_caselinks"
_SUBJECTS: Final = {
    "delete": "link.id",
    "get": "case",
    "search_cases": "query",
    "get_incident": "incident",
    "search_incidents": "incident",
}
"""The attribute that the subject of each operation has, if it is a text."""


@cache
def telemetry() -> OpenTelemetry:
    """Return the observer for OpenTelemetry. A process has one, because it has one of each instrument."""
    return OpenTelemetry()


class OpenTelemetry:
    """An observer that records a span for each call and each run, and updates four instruments.

    The span of a call is the current span during the call, so the spans of its requests become its children.
    The span of a run is never current, because the consumer of the run does other work between outcomes.
    """

    def __init__(self) -> None:
        self._tracer = trace.get_tracer(_NAME, __version__)
        meter = metrics.get_meter(_NAME, __version__)
        self._created = meter.create_counter(
            "datadog_caselinks.links.created", "{link}", "Links that were created"
        )
        self._retries = meter.create_counter(
            "datadog_caselinks.retries", "{retry}", "Failed attempts that were retried"
        )
        self._waited = meter.create_histogram(
            "datadog_caselinks.rate_limit.wait", "s", "Time that calls waited for the rate limit"
        )
        self._in_flight = meter.create_up_down_counter(
            "datadog_caselinks.calls.in_flight", "{call}", "Calls in progress"
        )
        self._open: dict[Call, tuple[Span, Token[Context] | None]] = {}

    def is_recording(self) -> bool:
        """Return whether a provider of spans or metrics is set up. The API's own providers record nothing."""
        return _records(type(trace.get_tracer_provider())) or _records(type(metrics.get_meter_provider()))

    def __call__(self, event: CallEvent) -> None:
        """Record one event."""
        call = event.call
        match event:
            case CallStarted():
                self._start(call)
            case CallFinished():
                self._finish(call)
            case CallRetrying():
                kind = type(event.error).__name__
                self._retries.add(1, {"operation": call.operation, "error.type": kind})
                self._add_event(call, "retry", {"error.type": kind, "seconds": event.seconds})
            case CallWaiting():
                self._add_event(call, "wait for the rate limit", {"seconds": event.seconds})
            case _:  # CallReconciled, the only other event
                self._add_event(call, "reconciled", {})

    def _start(self, call: Call) -> None:
        run = self._open.get(call.parent) if call.parent else None
        parent = trace.set_span_in_context(run[0]) if run else None
        span = self._tracer.start_span(f"{_NAME} {call.operation}", parent, attributes=_subject(call))
        token = None
        if call.operation != "bulk":
            token = context.attach(trace.set_span_in_context(span, parent))
        self._open[call] = span, token
        if token is not None:
            self._in_flight.add(1, {"operation": call.operation})

    def _finish(self, call: Call) -> None:
        span, token = self._open.pop(call)
        if token is not None:  # first: if an exporter raises below, no later span becomes a child of this one
            context.detach(token)
            self._in_flight.add(-1, {"operation": call.operation})
        if span.is_recording():
            span.set_attributes(_result(call))
            if call.error:
                span.set_status(StatusCode.ERROR, str(call.error))
        span.end()
        if call.outcome == LinkStatus.CREATED:
            self._created.add(1, {"relationship": str(call.result[0].relationship)})
        if call.waited:
            self._waited.record(call.waited, {"operation": call.operation})

    def _add_event(self, call: Call, name: str, attributes: dict[str, str | float]) -> None:
        self._open[call][0].add_event(name, attributes)


@cache
def _records(provider: type) -> bool:
    return not provider.__module__.startswith(("opentelemetry.trace", "opentelemetry.metrics"))


def _subject(call: Call) -> dict[str, str]:
    match call.subject:
        case NewCaseLink() as new:
            attributes = {
                "parent.type": new.parent.type,
                "parent.id": new.parent.id,
                "relationship": new.relationship,
                "child.type": new.child.type,
                "child.id": new.child.id,
            }
        case Entity() as entity:
            attributes = {"entity.type": entity.type, "entity.id": entity.id}
        case str() as name:
            attributes = {_SUBJECTS[call.operation]: name}
        case _:
            attributes = {}
    return {f"{_NAME}.{key}": str(value) for key, value in attributes.items()}


def _result(call: Call) -> dict[str, str | int | float]:
    attributes: dict[str, str | int | float] = {"outcome": call.outcome or "", "waited_seconds": call.waited}
    match call:
        case Call(operation="bulk"):
            attributes |= {f"links.{outcome}": count for outcome, count in call.result.items()}
        case Call(result=(CaseLink() as link, bool())):
            attributes |= {"attempts": call.attempts, "link.id": link.id}
        case Call(operation="list", result=list() as links):
            attributes |= {"attempts": call.attempts, "links": len(links)}
        case _:
            attributes["attempts"] = call.attempts
    if call.error:
        attributes["error.type"] = type(call.error).__name__
    return {key if key == "error.type" else f"{_NAME}.{key}": value for key, value in attributes.items()}
