"""The rule that errors in log handlers, observers, metrics and progress callbacks do not change a call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any, Final

import pytest
from opentelemetry import context, trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

from datadog_caselinks import (
    ApiKeys,
    CaseLinksClient,
    CaseLinksError,
    NewCaseLink,
    RetryPolicy,
    read_link_file,
)
from datadog_caselinks.isolation import isolated, log
from datadog_caselinks.observation import telemetry
from datadog_caselinks.sandbox import Fault, Sandbox
from tests.support.clock import Clock, hurrying
from tests.support.ids import case, some_id
from tests.support.server import Server
from tests.support.steps import answers, created
from tests.support.waiting import until


class OddError(BaseException):
    """An error that ``except Exception`` does not catch, as pytest's own failures are."""


RAISED: Final = {
    "a full disk": OSError(28, "No space left on device"),
    "a cancellation": asyncio.CancelledError(),
    "no Exception": OddError(),
    "an error of this package": CaseLinksError("from a handler"),
}

each_error = pytest.mark.parametrize("error", RAISED.values(), ids=RAISED)


class Failing(logging.Handler):
    """A log handler, or a filter, that raises ``error`` for each record."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error
        self.raised = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.raised += 1
        raise self.error

    def filter(self, record: logging.LogRecord) -> bool:
        return True


class FailingFilter(Failing):
    def emit(self, record: logging.LogRecord) -> None:
        pass

    def filter(self, record: logging.LogRecord) -> bool:
        self.raised += 1
        raise self.error


@pytest.fixture
def package_logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("datadog_caselinks")
    handlers, level = list(logger.handlers), logger.level
    logger.setLevel(logging.DEBUG)
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)


def links(count: int) -> list[NewCaseLink]:
    return [case(some_id(0)).blocks(case(some_id(number))) for number in range(1, count + 1)]


async def create_all(client: CaseLinksClient, clock: Clock, count: int) -> None:
    """Create ``count`` links at once, and fail if any call fails or hangs."""
    async with hurrying(clock):
        made = await asyncio.gather(*(client.create_link(new) for new in links(count)))
    assert len({link.id for link in made}) == count


class TestLogs:
    @each_error
    @pytest.mark.parametrize("kind", [Failing, FailingFilter])
    @pytest.mark.parametrize("limit", [1, 8])
    @pytest.mark.slow
    async def test_a_handler_that_raises_at_a_wait_for_the_rate_limit(
        self, package_logger: logging.Logger, clock: Clock, kind: type[Failing], error: Exception, limit: int
    ) -> None:
        """A log handler that raises at a wait for the rate limit does not stop the call or later ones."""
        package_logger.addHandler(handler := kind(error))
        now = clock.time()
        async with (
            Sandbox(rate_limit=f"{limit}/60s", clock=lambda: 1e9 + clock.time() - now) as sandbox,
            CaseLinksClient(sandbox.site, sandbox.credentials) as client,
        ):
            await create_all(client, clock, 3 * limit)
            assert len(sandbox.links) == 3 * limit
        assert handler.raised >= 1

    @each_error
    async def test_a_handler_that_raises_at_a_retry(
        self, package_logger: logging.Logger, error: Exception, at_once: RetryPolicy
    ) -> None:
        """A log handler that raises at a retry does not stop the retry or the lookup."""
        package_logger.addHandler(handler := Failing(error))
        async with (
            Sandbox() as sandbox,
            CaseLinksClient(sandbox.site, sandbox.credentials, retry=at_once) as client,
        ):
            sandbox.fail_next(Fault.LOST_RESPONSE)
            await client.create_link(*links(1))
            assert len(sandbox.links) == 1
        assert handler.raised == 1

    @each_error
    async def test_a_handler_that_raises_at_a_comment(
        self, package_logger: logging.Logger, error: Exception, tmp_path: Path
    ) -> None:
        """A log handler that raises at the note about comments does not end the reading of a file."""
        package_logger.addHandler(handler := Failing(error))
        path = tmp_path / "links.csv"
        path.write_text(f"parent,relationship,child\n# x\n{some_id(1)},blocks,{some_id(2)}\n")
        with FileIO(path) as file:
            assert [line.number async for line in read_link_file(file)] == [3]
        assert handler.raised == 1

    @pytest.mark.clock(stopped_at=1000.0)
    async def test_a_handler_that_blocks(self, package_logger: logging.Logger, clock: Clock) -> None:
        """A log handler that blocks does not extend the wait."""

        class Slow(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if "rate limit" in record.getMessage():
                    clock.advance(40.0)
                    blocked.set()

        blocked = asyncio.Event()
        package_logger.addHandler(Slow())
        async with (
            Server(answers(429, Retry_After="60"), created) as server,
            CaseLinksClient(server.url, ApiKeys(api_key="k" * 8, app_key="a" * 8)) as client,
        ):
            task = asyncio.create_task(client.create_link(*links(1)))
            await server.until_seen(1)
            await blocked.wait()
            clock.advance(20.0)
            await until(task.done)
            await task

    async def test_a_handler_that_uses_the_client(self, package_logger: logging.Logger, clock: Clock) -> None:
        """A log handler may use the client: read the rate limit, or start another call."""
        started: list[asyncio.Task[Any]] = []

        class Curious(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                assert client.rate_limit is not None
                if not started:
                    started.append(asyncio.ensure_future(client.list_links(case(some_id(0)))))

        package_logger.addHandler(Curious())
        now = clock.time()
        async with (
            Sandbox(rate_limit="5/1s", clock=lambda: 1e9 + clock.time() - now) as sandbox,
            CaseLinksClient(sandbox.site, sandbox.credentials) as client,
        ):
            await create_all(client, clock, 12)
            async with hurrying(clock):
                await started[0]

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
    def test_what_ends_the_program_passes(self, package_logger: logging.Logger, error: BaseException) -> None:
        """An exception that ends the program, such as ``KeyboardInterrupt``, passes through a handler."""
        package_logger.addHandler(Failing(error))
        with pytest.raises(type(error)):
            log(package_logger, logging.INFO, "a message")
        with pytest.raises(type(error)), isolated(package_logger, "a message"):
            raise error

    def test_a_record_names_the_line_that_logs(
        self, package_logger: logging.Logger, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A log record has the file and the function of the line that logs."""
        log(package_logger, logging.INFO, "a message")
        assert [record.funcName for record in caplog.records] == ["test_a_record_names_the_line_that_logs"]


class TestObservers:
    @each_error
    async def test_an_observer_that_raises(
        self, package_logger: logging.Logger, error: BaseException, at_once: RetryPolicy
    ) -> None:
        """An observer that raises does not stop the call, even if the log fails too."""
        package_logger.addHandler(handler := Failing(error))

        def fails(event: object) -> None:
            raise error

        async with (
            Sandbox() as sandbox,
            CaseLinksClient(sandbox.site, sandbox.credentials, retry=at_once, on_event=fails) as client,
        ):
            sandbox.fail_next(Fault.HTTP_503)
            outcomes = [outcome async for outcome in client.create_links(links(3))]
            assert {outcome.status for outcome in outcomes} == {"created"}
        assert handler.raised > 6

    @each_error
    async def test_progress_that_raises(
        self, client: CaseLinksClient, error: BaseException, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A progress callback that raises is logged, and the plan or graph is complete."""

        def fails(done: int, total: int) -> None:
            raise error

        plan = await client.plan_links(links(2), progress=fails)
        assert len(plan.create) == 2
        graph = await client.read_graph(case(some_id(0)), progress=fails)
        assert graph.root == case(some_id(0))
        assert {record.getMessage() for record in caplog.records} == {"progress failed"}


class FailingProcessor(SpanProcessor):
    """A processor of spans that raises ``error`` when a span ends, or when it starts too."""

    def __init__(self, error: BaseException, *, at_start: bool) -> None:
        self._error = error
        self._at_start = at_start

    def on_start(self, span: object, parent_context: object = None) -> None:
        if self._at_start:
            raise self._error

    def on_end(self, span: ReadableSpan) -> None:
        raise self._error


class TestTelemetry:
    @each_error
    @pytest.mark.parametrize("at_start", [True, False])
    async def test_an_exporter_that_raises(
        self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, error: BaseException, at_start: bool
    ) -> None:
        """A span exporter that raises does not stop the call or leave a current span."""
        provider = TracerProvider()
        provider.add_span_processor(FailingProcessor(error, at_start=at_start))
        observer = telemetry.OpenTelemetry()
        observer._tracer = provider.get_tracer("test")
        monkeypatch.setattr(observer, "is_recording", lambda: True)
        monkeypatch.setattr(telemetry, "telemetry", lambda: observer)
        async with CaseLinksClient(sandbox.site, sandbox.credentials) as client:
            before = context.get_current()
            await client.create_link(*links(1))
            assert context.get_current() == before
        assert len(sandbox.links) == 1

    async def test_a_provider_that_cannot_be_loaded(
        self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A tracer provider that cannot be loaded leaves calls without spans."""

        def fails() -> None:
            raise StopIteration

        async with CaseLinksClient(sandbox.site, sandbox.credentials) as client:
            monkeypatch.setattr(trace, "get_tracer_provider", fails)
            await client.create_link(*links(1))
        monkeypatch.setattr(telemetry, "telemetry", fails)
        async with CaseLinksClient(sandbox.site, sandbox.credentials) as client:
            await client.create_link(*links(2)[1:])
        assert len(sandbox.links) == 2
