"""The sandbox in a thread of its own, for sync code and the pytest plugin."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from datadog_caselinks.sandbox import Fault, RateLimitRule, Sandbox, thread
from datadog_caselinks.values.errors import ParameterError
from tests.support.waiting import MAX_SECONDS

CASE = "bf0cbac6-4c16-4cfb-b6bf-ca5e0ec37a4f"
# So long that a test which waited for it would hang.
NEVER = 1e6

ACTS: dict[str, Callable[[Sandbox], object]] = {
    "links": lambda sandbox: sandbox.links,
    "requests": lambda sandbox: sandbox.requests,
    "add_case": lambda sandbox: sandbox.add_case("SHOP-1"),
    "rate_limit": lambda sandbox: setattr(sandbox, "rate_limit", "1/1h"),
    "fail_next": lambda sandbox: sandbox.fail_next(Fault.HTTP_503),
}


def get(sandbox: Sandbox, name: str) -> int:
    """Return the status of a sync request for a case."""
    keys = sandbox.credentials
    headers = {"DD-API-KEY": keys.api_key, "DD-APPLICATION-KEY": keys.app_key}
    request = urllib.request.Request(f"{sandbox.url}/api/v2/cases/{name}", headers=headers)
    try:
        with urllib.request.urlopen(request) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def sandbox_threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name == "caselinks sandbox"]


class TestInThread:
    def test_serves_sync_code(self) -> None:
        """Cases, faults, the limit, requests and links work as in an event loop."""
        with Sandbox(seed="demo").in_thread() as sandbox:
            sandbox.add_case("PAY-1")
            sandbox.fail_next(Fault.HTTP_503)
            statuses = [get(sandbox, name) for name in ("SHOP-1", "SHOP-1", "PAY-1", "PAY-2")]
            sandbox.rate_limit = "1/1h"
            statuses += [get(sandbox, "PAY-1"), get(sandbox, "PAY-1")]

            assert statuses == [503, 200, 200, 404, 200, 429]
            assert [request.status for request in sandbox.requests] == statuses
            assert sandbox.rejected == 1
            assert sandbox.rate_limit == RateLimitRule(1, 3600)
            assert len(sandbox.links) == 44

    def test_ends_with_the_block(self) -> None:
        """After the block no socket listens and no thread runs, and the requests are readable."""
        with Sandbox().in_thread() as sandbox:
            assert sandbox_threads()
            assert get(sandbox, CASE) == 404
            url = sandbox.url

        assert not sandbox_threads()
        assert [request.status for request in sandbox.requests] == [404]
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(url)
        with pytest.raises(RuntimeError, match="is not running"):
            _ = sandbox.links

    def test_ends_after_an_error(self) -> None:
        """An error in the block is raised unchanged."""
        with pytest.raises(ZeroDivisionError), Sandbox().in_thread():
            _ = 1 / 0
        assert not sandbox_threads()

    def test_that_cannot_start_leaves_nothing(self) -> None:
        """A sandbox that cannot start raises the same error as in an event loop, and leaves no thread."""
        with Sandbox().in_thread() as sandbox:
            port = int(sandbox.url.rpartition(":")[2])
            with (
                pytest.raises(ParameterError, match=f"port {port} .*in use"),
                Sandbox(port=port).in_thread(),
            ):
                raise AssertionError("it started")
            assert len(sandbox_threads()) == 1

    def test_ends_during_a_slow_response(self) -> None:
        """A slow response is sent as soon as the block ends."""
        reached = threading.Event()

        def clock() -> float:
            reached.set()
            return 0.0

        with ThreadPoolExecutor() as threads:
            with Sandbox(clock=clock).in_thread() as sandbox:
                sandbox.fail_next(Fault.DELAY, seconds=NEVER)
                answer = threads.submit(get, sandbox, CASE)
                assert reached.wait(MAX_SECONDS)
            assert answer.result() == 404


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_another_thread_waits_for_a_request(
    act: Callable[[Sandbox], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call from another thread waits for the end of a request, and fails after a timeout."""
    reached, go_on = threading.Event(), threading.Event()

    def clock() -> float:
        reached.set()
        assert go_on.wait(MAX_SECONDS)
        return 0.0

    with ThreadPoolExecutor() as threads, Sandbox(clock=clock).in_thread() as sandbox:
        answer: Future[int] = threads.submit(get, sandbox, CASE)
        try:
            assert reached.wait(MAX_SECONDS)
            monkeypatch.setattr(thread, "_PATIENCE", 0)
            with pytest.raises(TimeoutError):
                act(sandbox)
        finally:
            monkeypatch.undo()
            go_on.set()
        assert answer.result() in (404, 429, 503)
