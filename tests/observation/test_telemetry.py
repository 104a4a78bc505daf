"""The rules of spans and metrics: what an OpenTelemetry SDK records of calls."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from opentelemetry import metrics, trace
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NoOpTracerProvider, ProxyTracerProvider, SpanKind, StatusCode

import datadog_caselinks.client
from datadog_caselinks import (
    ApiKeys,
    BadRequestError,
    Call,
    CaseLinksClient,
    ConnectError,
    Created,
    ParameterError,
    RetryPolicy,
    SessionManager,
    parse_link,
)
from datadog_caselinks.observation.telemetry import OpenTelemetry
from datadog_caselinks.sandbox import Sandbox
from tests.support.api import Api
from tests.support.clock import Clock, in_no_time
from tests.support.ids import case, some_id
from tests.support.proxy import Proxy
from tests.support.server import Server
from tests.support.steps import answers, created, drops, listed

NEW = case(some_id(1)).blocks(case(some_id(2)))

EXPORTER = InMemorySpanExporter()
READER = InMemoryMetricReader()


@pytest.fixture(scope="module", autouse=True)
def providers() -> None:
    """Set the providers of the process, which can be set only once."""
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(EXPORTER))
    trace.set_tracer_provider(tracers)
    metrics.set_meter_provider(MeterProvider([READER]))


@pytest.fixture(autouse=True)
def spans() -> Iterator[InMemorySpanExporter]:
    EXPORTER.clear()
    yield EXPORTER
    EXPORTER.clear()


def attributes(span: ReadableSpan) -> dict[str, Any]:
    """Return the package's own attributes by their short names."""
    assert span.attributes is not None
    return {name.removeprefix("datadog_caselinks."): value for name, value in span.attributes.items()}


def measured() -> dict[tuple[str, str], float]:
    """Return the current measurements, by short name and operation or relationship."""
    data = READER.get_metrics_data()
    scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics] if data else []
    found: dict[tuple[str, str], float] = {}
    for metric in (metric for scope in scopes for metric in scope.metrics):
        for point in metric.data.data_points:
            about = " ".join(str(each) for each in (point.attributes or {}).values())
            value = point.value if isinstance(point, NumberDataPoint) else point.sum
            found[metric.name.removeprefix("datadog_caselinks."), about] = value
    return found


class TestSpans:
    async def test_each_call_is_one(self, spans: InMemorySpanExporter) -> None:
        """Each call is an internal span with its subject and its result."""
        async with (
            Sandbox(seed="demo") as sandbox,
            CaseLinksClient(sandbox.site, sandbox.credentials) as links,
        ):
            link = await links.create_link(NEW)
            await links.ensure_link(NEW)
            await links.list_links(NEW.parent)
            await links.delete_link(link)
            await links.get_case("SHOP-1")
        made = spans.get_finished_spans()
        assert [(span.name, span.kind, span.status.status_code) for span in made] == [
            (f"datadog_caselinks {name}", SpanKind.INTERNAL, StatusCode.UNSET)
            for name in ("create", "ensure", "list", "delete", "get")
        ]
        ends = {
            "parent.type": "CASE",
            "parent.id": NEW.parent.id,
            "relationship": "BLOCKS",
            "child.type": "CASE",
            "child.id": NEW.child.id,
        }
        end = {"waited_seconds": 0.0}
        assert [attributes(span) for span in made] == [
            ends | end | {"outcome": "created", "attempts": 1, "link.id": link.id},
            ends | end | {"outcome": "already_linked", "attempts": 0, "link.id": link.id},
            end
            | {
                "entity.type": "CASE",
                "entity.id": NEW.parent.id,
                "outcome": "done",
                "attempts": 1,
                "links": 1,
            },
            end | {"link.id": link.id, "outcome": "done", "attempts": 1},
            end | {"case": "SHOP-1", "outcome": "done", "attempts": 1},
        ]

    async def test_a_failure_is_an_error(
        self, spans: InMemorySpanExporter, keys: ApiKeys, at_once: RetryPolicy
    ) -> None:
        """A failed call has the class and the message of its error, and each retry is an event."""
        async with (
            Server(answers(503), answers(400)) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            with pytest.raises(BadRequestError) as raised:
                await links.list_links(NEW.parent)
        (span,) = spans.get_finished_spans()
        assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, str(raised.value))
        assert attributes(span)["error.type"] == "BadRequestError"
        assert [(event.name, dict(event.attributes or {})) for event in span.events] == [
            ("retry", {"error.type": "ServerError", "seconds": 0.0})
        ]

    async def test_what_happens_on_the_way(
        self, spans: InMemorySpanExporter, keys: ApiKeys, at_once: RetryPolicy, clock: Clock
    ) -> None:
        """A wait for the rate limit and a lookup that found the link are events of the span."""
        api = Api()
        async with (
            Server(answers(429, Retry_After="60"), api.applies(drops), api) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            await in_no_time(clock, links.create_link(NEW))
        (span,) = spans.get_finished_spans()
        assert [event.name for event in span.events] == ["wait for the rate limit", "retry", "reconciled"]
        assert attributes(span)["waited_seconds"] > 50

    async def test_a_run_is_above_its_links(self, spans: InMemorySpanExporter) -> None:
        """The span of a run is the parent of its links' spans, and not of the consumer's spans."""
        tracer = trace.get_tracer("the user's")
        async with (
            Sandbox() as sandbox,
            CaseLinksClient(sandbox.site, sandbox.credentials) as links,
        ):
            with tracer.start_as_current_span("theirs"):
                wanted = [NEW, NEW, parse_link("SHOP-1", "blocks", "SHOP-2")]
                async with contextlib.aclosing(links.create_links(wanted, ensure=True)) as outcomes:
                    async for _ in outcomes:
                        assert trace.get_current_span().name == "theirs"  # type: ignore[attr-defined]
        made = spans.get_finished_spans()
        by_id = {span.context.span_id: span for span in made if span.context}
        above = [(span.name, by_id[span.parent.span_id].name) for span in made if span.parent]
        bulk = "datadog_caselinks bulk"
        assert sorted(above) == [
            (bulk, "theirs"),
            ("datadog_caselinks ensure", bulk),
            ("datadog_caselinks ensure", bulk),
            ("datadog_caselinks get", bulk),
        ]
        (run,) = (span for span in made if span.name == bulk)
        assert attributes(run) == {
            "outcome": "done",
            "waited_seconds": 0.0,
            "links.created": 1,
            "links.already_linked": 1,
            "links.failed": 1,
        }

    async def test_one_trace_down_to_the_request(self, spans: InMemorySpanExporter, keys: ApiKeys) -> None:
        """A span of aiohttp's own instrumentation is below the call's span."""
        instrumentor = AioHttpClientInstrumentor()
        instrumentor.instrument()
        try:
            async with Server(created) as server, CaseLinksClient(server.url, keys) as links:
                await links.create_link(NEW)
        finally:
            instrumentor.uninstrument()
        request, call = spans.get_finished_spans()
        assert call.context is not None
        assert request.parent is not None
        assert (call.name, request.kind) == ("datadog_caselinks create", SpanKind.CLIENT)
        assert request.parent.span_id == call.context.span_id
        sent = server.seen[0].headers["traceparent"]
        assert f"{call.context.trace_id:032x}" in sent

    async def test_no_span_shows_a_key(self, spans: InMemorySpanExporter, keys: ApiKeys) -> None:
        """No span contains a key, even if the server echoes the keys."""
        assert isinstance(keys.api_key, str)
        echo = f'{{"errors": ["{keys.api_key} {keys.app_key}"]}}'.encode()
        async with Server(answers(400, echo)) as server, CaseLinksClient(server.url, keys) as links:
            with pytest.raises(BadRequestError):
                await links.create_link(NEW)
        (span,) = spans.get_finished_spans()
        text = span.to_json()
        assert "BadRequestError" in text
        assert keys.api_key not in text
        assert str(keys.app_key) not in text

    async def test_no_span_shows_the_login_of_a_proxy(
        self, spans: InMemorySpanExporter, keys: ApiKeys, at_once: RetryPolicy
    ) -> None:
        """No span, not even one of aiohttp's instrumentation, contains the login of a proxy."""
        instrumentor = AioHttpClientInstrumentor()
        instrumentor.instrument()
        try:
            async with Proxy(status=502).running() as proxy:
                url = proxy.url.replace("://", "://somebody:the-password@")
                async with CaseLinksClient("https://localhost:1", keys, proxy=url, retry=at_once) as links:
                    with pytest.raises(ConnectError):
                        await links.create_link(NEW)
        finally:
            instrumentor.uninstrument()
        reported = [span.to_json() for span in spans.get_finished_spans()]
        assert len(reported) == 4
        assert [text for text in reported if "the-password" in text] == []


async def test_instruments(keys: ApiKeys, at_once: RetryPolicy, clock: Clock) -> None:
    """Links, retries and the seconds of rate limit waits are counted; calls in flight return to zero."""
    before = measured()
    async with (
        Server(answers(429, Retry_After="60"), answers(503), listed, created) as server,
        CaseLinksClient(server.url, keys, retry=at_once) as links,
    ):
        await in_no_time(clock, links.list_links(NEW.parent))
        await links.create_link(NEW)
    changed = {
        name: value - before.get(name, 0) for name, value in measured().items() if value != before.get(name)
    }
    waited = changed.pop(("rate_limit.wait", "list"))
    assert 59 < waited < 62
    in_flight = {name: changed.pop(name, 0) for name in list(measured()) if name[0] == "calls.in_flight"}
    assert set(in_flight.values()) == {0}
    assert changed == {("links.created", "BLOCKS"): 1, ("retries", "list ServerError"): 1}


async def test_without_the_api_nothing_is_reported(
    monkeypatch: pytest.MonkeyPatch, keys: ApiKeys, at_once: RetryPolicy, clock: Clock
) -> None:
    """Without OpenTelemetry calls work, and the instrumentation is one empty context."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "datadog_caselinks.observation.telemetry")
    api = Api()
    async with (
        Server(answers(429, Retry_After="60"), api.applies(drops), api) as server,
        CaseLinksClient(server.url, keys, retry=at_once) as links,
    ):
        await in_no_time(clock, links.create_link(NEW))
        outcomes = [outcome async for outcome in links.create_links([NEW])]
        assert not isinstance(links._observer.call("create", NEW), Call)
    assert server.methods == ["POST", "POST", "GET", "POST"]
    assert [type(outcome) for outcome in outcomes] == [Created]


@pytest.mark.parametrize("kind", ["spans", "metrics", "neither"])
async def test_without_a_provider_nothing_is_observed(
    kind: str, monkeypatch: pytest.MonkeyPatch, keys: ApiKeys
) -> None:
    """Calls are observed only if a provider is set up, since ``opentelemetry-api`` alone records nothing."""
    spans, readings = TracerProvider(), MeterProvider()
    monkeypatch.setattr(
        trace, "get_tracer_provider", lambda: spans if kind == "spans" else ProxyTracerProvider()
    )
    monkeypatch.setattr(
        metrics, "get_meter_provider", lambda: readings if kind == "metrics" else NoOpMeterProvider()
    )
    client = CaseLinksClient("datadoghq.eu", keys)
    is_observed = isinstance(client._observer.call("create", NEW), Call)
    assert is_observed is (kind != "neither")


async def test_a_span_that_is_not_recorded(monkeypatch: pytest.MonkeyPatch, keys: ApiKeys) -> None:
    """Metrics are recorded even if a sampler leaves out the span."""
    monkeypatch.setattr(trace, "get_tracer", NoOpTracerProvider().get_tracer)
    before = measured().get(("links.created", "BLOCKS"), 0)
    monkeypatch.setattr(datadog_caselinks.client, "_opentelemetry", OpenTelemetry)
    async with Server(created) as server, CaseLinksClient(server.url, keys) as client:
        await client.create_link(NEW)
    assert measured()["links.created", "BLOCKS"] == before + 1
    assert EXPORTER.get_finished_spans() == ()


async def test_trace_configs_of_the_user(keys: ApiKeys) -> None:
    """``trace_configs`` apply to the sessions of a manager, and are refused for the caller's session."""
    seen = []

    async def on_start(*_: object) -> None:
        seen.append("start")

    config = aiohttp.TraceConfig()
    config.on_request_start.append(on_start)
    async with Server(created) as server, SessionManager(trace_configs=[config]) as sessions:
        await CaseLinksClient(server.url, keys, sessions=sessions).create_link(NEW)
        async with aiohttp.ClientSession() as session:
            with pytest.raises(ParameterError, match="trace_configs"):
                SessionManager(session, trace_configs=[config])
    assert seen == ["start"]
