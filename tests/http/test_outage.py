"""The rules of outages: a short one fails no call, and a long one costs few additional requests.

No request is sent: a replacement for the transport fails at the times that the test sets. The fake clock
is set from one timer to the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import json
import logging
import random
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, cast

import pytest
from multidict import CIMultiDict

from datadog_caselinks import (
    ApiKeys,
    CaseLinksClient,
    CaseLinksError,
    ConfigurationError,
    ConnectError,
    ProxyAuthenticationError,
    ResponseTooLargeError,
    RetryPolicy,
    SessionError,
    TLSError,
    TransportError,
)
from datadog_caselinks.bulk.create_links import would_fail_all
from datadog_caselinks.calls.retry import BULK_PATIENCE, Attempts
from datadog_caselinks.http.outage import Outage, mark_as_outage
from datadog_caselinks.http.transport import Transport
from datadog_caselinks.http.wire import Request, Response
from datadog_caselinks.values.models import NewCaseLink
from tests.support.clock import Clock
from tests.support.ids import case, some_id
from tests.support.tcp import HOST
from tests.support.waiting import settle

pytestmark = pytest.mark.clock(stopped_at=1000.0)

Failing = Callable[[Request], Exception | int]


def refused(_: Request) -> ConnectError:
    return ConnectError("connection refused; nothing was sent")


def dropped(_: Request) -> TransportError:
    return TransportError("the connection was lost before a response arrived")


def responds(status: int) -> Failing:
    return lambda _: status


class Site:
    """A server that fails between ``away_from`` and ``back_at``, and takes 50 ms for every other response."""

    def __init__(
        self, clock: Clock, failing: Failing, *, away_from: float = 0.12, back_at: float, **headers: str
    ) -> None:
        self._clock = clock
        self._headers = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
        self._failing = failing
        self._began = clock.time()
        self._away_from = away_from
        self._back_at = back_at
        self.requests = Counter[str]()
        self.links: dict[tuple[str, ...], dict[str, Any]] = {}
        self._around = defaultdict[str, list[dict[str, Any]]](list)
        self.twice = 0

    @property
    def _is_away(self) -> bool:
        return self._away_from <= self._clock.time() - self._began < self._back_at

    async def send(self, request: Request) -> Response:
        self.requests[request.operation] += 1
        if self._is_away:
            await asyncio.sleep(0.001)
            return self._fail(request)
        await asyncio.sleep(0.05)
        if self._is_away:  # the server failed during the request
            return self._fail(request)
        return Response(request, *self._respond(request))

    def _fail(self, request: Request) -> Response:
        failure = self._failing(request)
        if isinstance(failure, Exception):
            raise failure
        return Response(request, failure, self._headers, b"")

    def _respond(self, request: Request) -> tuple[int, CIMultiDict[str], bytes]:
        if request.operation == "list":
            entity = cast("Any", request.subject)
            return 200, CIMultiDict(), json.dumps({"data": self._around[entity.id]}).encode()
        attributes = json.loads(cast("bytes", request.body))["data"]["attributes"]
        key = tuple(attributes.values())
        self.twice += key in self.links
        link = {"id": f"link-{len(self.links)}", "type": "link", "attributes": attributes}
        self.links[key] = link
        for name in ("parent_entity_id", "child_entity_id"):
            self._around[attributes[name]].append(link)
        return 201, CIMultiDict(), json.dumps({"data": link}).encode()


async def in_virtual_time(clock: Clock, call: Awaitable[Any]) -> Any:
    """Return the result of ``call``; the clock jumps to the next timer when nothing else can run."""
    loop = cast("Any", asyncio.get_running_loop())

    async def advance() -> None:
        while True:
            for _ in range(2000):
                await asyncio.sleep(0)
                if len(loop._ready) == 0:
                    break
            timers = [handle._when for handle in loop._scheduled if not handle._cancelled]
            if timers:
                clock.advance(max(0.0, heapq.nsmallest(1, timers)[0] - clock.time()))

    task = asyncio.create_task(advance())
    try:
        return await call
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def wanted(count: int) -> Iterable[NewCaseLink]:
    parents = [case(some_id(number)) for number in range(1, 51)]
    return (parents[number % 50].blocks(case(some_id(number + 100))) for number in range(count))


async def gathered(
    clock: Clock, site: Site, monkeypatch: pytest.MonkeyPatch, count: int, **options: Any
) -> list[Any]:
    """Return the results of ``count`` simultaneous calls of ``create_link``."""
    monkeypatch.setattr(Transport, "send", lambda _, request, __: site.send(request))
    keys = ApiKeys(api_key="the-api-key", app_key="the-app-key")
    async with CaseLinksClient(f"http://{HOST}:9", keys, **options) as client:
        calls = (client.create_link(new) for new in wanted(count))
        results: list[Any] = await in_virtual_time(clock, asyncio.gather(*calls, return_exceptions=True))
        return results


def failures(results: Iterable[Any]) -> Counter[str]:
    return Counter(type(result).__name__ for result in results if isinstance(result, Exception))


@pytest.fixture(autouse=True)
def same_luck() -> None:
    random.seed(20261)


class TestShort:
    @pytest.mark.parametrize(("concurrency", "count"), [(1, 100), (100, 400), (1000, 1500)])
    @pytest.mark.parametrize("seconds", [0.25, 5])
    @pytest.mark.parametrize(
        "failing", [refused, dropped, responds(503), responds(502)], ids=["refused", "dropped", "503", "502"]
    )
    @pytest.mark.slow
    async def test_it_fails_no_call(
        self,
        failing: Failing,
        seconds: float,
        concurrency: int,
        count: int,
        clock: Clock,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """An outage of five seconds fails no call, and no link is created twice."""
        site = Site(clock, failing, back_at=0.12 + seconds)
        results = await gathered(clock, site, monkeypatch, count, max_concurrency=concurrency)
        assert failures(results) == {}
        assert (len(site.links), site.twice) == (count, 0)
        assert site.requests["create"] <= count + 2 * concurrency + 20

    async def test_the_requests_behind_a_failure_wait(
        self, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Few probes with growing waits are sent while no request succeeds."""
        site = Site(clock, refused, away_from=0, back_at=7)
        results = await gathered(clock, site, monkeypatch, 1000, max_concurrency=10)
        assert failures(results) == {}
        assert site.requests["create"] <= 1000 + 10 + 6


class TestLong:
    @pytest.mark.parametrize("concurrency", [10, 100, 1000])
    @pytest.mark.parametrize("failing", [refused, responds(503)], ids=["refused", "503"])
    @pytest.mark.slow
    async def test_it_costs_hardly_more_requests_than_calls(
        self, failing: Failing, concurrency: int, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An outage of ten minutes causes at most 2 % more creates than there are calls."""
        site = Site(clock, failing, away_from=0, back_at=600)
        results = await gathered(clock, site, monkeypatch, 1000, max_concurrency=concurrency)
        assert sum(failures(results).values()) == 1000
        assert all(error.during_outage for error in results)
        assert site.requests["create"] <= 1000 * 1.02

    async def test_a_refused_connection_ends_as_one(
        self, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A call that waited in vain raises the error of its own last attempt."""
        site = Site(clock, refused, away_from=0, back_at=600)
        [error] = await gathered(clock, site, monkeypatch, 1)
        assert isinstance(error, ConnectError)
        assert str(error).startswith("connection refused")
        assert site.requests["create"] <= 6

    async def test_nobody_waits_for_the_next_success(
        self, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A call in a long outage is sent once and at once, and the first success ends the outage."""
        site = Site(clock, refused, away_from=0, back_at=600)
        monkeypatch.setattr(Transport, "send", lambda _, request, __: site.send(request))
        keys = ApiKeys(api_key="the-api-key", app_key="the-app-key")
        new, *more = wanted(4)
        async with CaseLinksClient(f"http://{HOST}:9", keys) as client:
            for _ in range(2):
                with pytest.raises(ConnectError):
                    await in_virtual_time(clock, client.create_link(new))
            before, now = site.requests["create"], clock.time()
            with pytest.raises(ConnectError, match="No further retries"):
                await in_virtual_time(clock, client.create_link(new))
            assert site.requests["create"] == before + 1
            assert clock.time() < now + 0.01
            clock.advance(700)
            for each in more:
                await in_virtual_time(clock, client.create_link(each))
            site._began, site._back_at = clock.time(), 3  # away again: retried as at first
            assert await in_virtual_time(clock, client.create_link(new))

    async def test_an_old_one_says_nothing_of_a_new_one(
        self, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A failure long after an outage begins another one, in which calls are retried."""
        site = Site(clock, refused, away_from=0, back_at=600)
        monkeypatch.setattr(Transport, "send", lambda _, request, __: site.send(request))
        keys = ApiKeys(api_key="the-api-key", app_key="the-app-key")
        new, other = wanted(2)
        async with CaseLinksClient(f"http://{HOST}:9", keys) as client:
            with pytest.raises(ConnectError):
                await in_virtual_time(clock, client.create_link(new))
            clock.advance(595 - (clock.time() - site._began))
            assert await in_virtual_time(clock, client.create_link(other))

    @pytest.mark.parametrize("status", [500, 503])
    async def test_a_server_that_asks_for_a_long_wait(
        self, status: int, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Ten responses in a row that ask for a wait above ``max_wait`` are an outage, which ends a run."""
        site = Site(clock, responds(status), away_from=0, back_at=600, Retry_After="300")
        errors = await gathered(clock, site, monkeypatch, 100, max_concurrency=10)
        assert [would_fail_all(error, has_created=True) for error in errors] == [False] * 9 + [True] * 91
        assert site.requests == {"create": 100}
        assert clock.time() - site._began < 1

    @pytest.mark.parametrize(
        "failure",
        [TLSError("expired"), ProxyAuthenticationError("407"), ConfigurationError("no token")],
        ids=lambda failure: type(failure).__name__,
    )
    async def test_probes_without_news(
        self, failure: Exception, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An outage ends for the waiting calls even if no probe fails or succeeds as requests do."""
        errors: list[Exception] = [ConnectError("refused"), *[failure] * 100]
        site = Site(clock, lambda _: errors.pop(0), away_from=0, back_at=600)
        results = await gathered(clock, site, monkeypatch, 100, max_concurrency=1)
        assert failures(results)[type(failure).__name__] == 99
        assert clock.time() - site._began < 15.5 + 20 + 5

    async def test_probes_of_calls_that_give_up(self, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        """An outage ends for the waiting calls even if the callers of all probes give up."""
        site = Site(clock, refused, away_from=0, back_at=600)
        send = site.send

        async def never(request: Request) -> Response:
            if site.requests["create"]:
                await asyncio.sleep(0.1)
                current = asyncio.current_task()
                assert current is not None
                current.cancel()
                await asyncio.sleep(1)
            return await send(request)

        monkeypatch.setattr(site, "send", never)
        results = await gathered(clock, site, monkeypatch, 100, max_concurrency=1)
        assert failures(results).keys() <= {"ConnectError"}
        assert clock.time() - site._began < 15.5 + 20 + 5

    @pytest.mark.parametrize("status", [404, 429])
    async def test_a_response_of_a_server_that_works(
        self,
        status: int,
        clock: Clock,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """A refusal or a 429 ends an outage, since the server works."""
        caplog.set_level(logging.INFO)
        statuses = [503] * 10
        site = Site(clock, lambda _: statuses.pop() if statuses else status, away_from=0, back_at=1e6)
        policy = RetryPolicy(max_rate_limited=0)
        await gathered(clock, site, monkeypatch, 100, retry=policy, max_concurrency=10)
        assert [text for text in caplog.messages if "outage" in text][1:] == ["the outage is over"]

    async def test_too_large_a_response(self) -> None:
        """A response that is too large ends an outage, since the server works."""
        budget = RetryPolicy().new_budget(1)
        budget.outage.on_failure(ConnectError("refused"), is_connected=False)
        Attempts(RetryPolicy(), budget).record(ResponseTooLargeError("too large", body=""))
        assert not budget.outage.is_on


class TestPatience:
    @pytest.mark.parametrize("status", [502, 503, 504, 512])
    @pytest.mark.parametrize("count", [1, 500])
    @pytest.mark.slow
    async def test_bulk_outlives_two_minutes(
        self, count: int, status: int, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The patience of ``bulk`` survives two minutes of errors from a proxy."""
        site = Site(clock, responds(status), away_from=0, back_at=120)
        results = await gathered(
            clock, site, monkeypatch, count, retry=RetryPolicy(patience=BULK_PATIENCE), max_concurrency=50
        )
        assert failures(results) == {}
        assert (len(site.links), site.twice) == (count, 0)

    async def test_it_ends(self, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        """The patience of a call ends with an error, and sooner if the server cannot be reached."""
        began = clock.time()
        for failing, least, most in ((responds(503), 150, 200), (refused, 7, 40)):
            site = Site(clock, failing, away_from=0, back_at=1e6)
            began = clock.time()
            results = await gathered(clock, site, monkeypatch, 1, retry=RetryPolicy(patience=BULK_PATIENCE))
            assert isinstance(results[0], CaseLinksError)
            assert least <= clock.time() - began <= most

    async def test_one_attempt_stays_one(self, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        """``max_attempts=1`` never retries, with any patience; any more attempts are patient."""
        for attempts in (1, 2):
            site = Site(clock, responds(503), away_from=0, back_at=1e6)
            policy = RetryPolicy(max_attempts=attempts, patience=60)
            await gathered(clock, site, monkeypatch, 1, retry=policy)
            assert (site.requests.total() > 4) == (attempts > 1)


class TestPartial:
    @pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
    @pytest.mark.slow
    async def test_a_server_that_fails_now_and_then_is_not_away(
        self, share: float, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A server that fails half of all requests is not in an outage, and each link is created."""
        draw = random.Random(7)
        site = Site(clock, responds(503), back_at=0)
        respond = site.send

        async def send(request: Request) -> Response:
            if draw.random() < share:
                site.requests[request.operation] += 1
                await asyncio.sleep(0.02)
                return Response(request, 503, CIMultiDict(), b"")
            return await respond(request)

        monkeypatch.setattr(site, "send", send)
        began = clock.time()
        policy = RetryPolicy(max_attempts=20, budget=1e6)
        results = await gathered(clock, site, monkeypatch, 500, retry=policy)
        assert failures(results) == {}
        assert (len(site.links), site.twice) == (500, 0)
        assert clock.time() - began < 300


class TestState:
    def test_an_error_is_marked_once(self) -> None:
        """An error that several calls share says once that it was not retried."""
        error = ConnectError("refused")
        for _ in range(2):
            mark_as_outage(error)
        assert str(error) == "refused. No further retries: most recent requests have failed"

    async def test_a_success_in_between(self) -> None:
        """Only failures in a row begin an outage: after a success, as many are needed as at first."""
        outage = Outage(1.0, 1.0, 100.0)
        for _ in range(2):
            outage.on_success()
            for _ in range(9):
                outage.on_failure(TransportError("gone"), is_connected=True)
            assert not outage.is_on
        outage.on_failure(TransportError("gone"), is_connected=True)
        assert outage.is_on

    async def test_a_probe_is_postponed(self, clock: Clock) -> None:
        """A failure with a Retry-After postpones the probe that was due earlier."""
        outage = Outage(1.0, 1.0, 100.0, uniform=lambda _, longest: longest)
        outage.on_failure(ConnectError("refused"), is_connected=False)
        waiting = asyncio.create_task(outage.wait())
        await settle()
        outage.on_failure(ConnectError("refused"), is_connected=False, requested_wait=5.0)
        clock.advance(1.0)
        await settle()
        assert not waiting.done()
        clock.advance(4.0)
        await settle()
        assert waiting.done()


class TestClosing:
    async def test_what_waits_ends_with_the_client(
        self, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A call that waits for the end of an outage fails when its client is closed."""
        site = Site(clock, refused, away_from=0, back_at=600)
        monkeypatch.setattr(Transport, "send", lambda _, request, __: site.send(request))
        client = CaseLinksClient(f"http://{HOST}:9", ApiKeys(api_key="the-api-key", app_key="the-app-key"))
        calls = [asyncio.create_task(client.create_link(new)) for new in wanted(3)]
        await settle()
        clock.advance(0.002)
        await settle()
        late = asyncio.create_task(client.create_link(next(iter(wanted(1)))))
        await settle()
        assert not late.done()
        await client.close()
        with pytest.raises(SessionError):
            await in_virtual_time(clock, late)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)

    async def test_none_begins_after_it(self, clock: Clock) -> None:
        """Failures of requests that were in flight when the client was closed hold no call back."""
        outage = Outage(base=1, cap=8, horizon=60)
        outage.close()
        for _ in range(20):
            outage.on_failure(ConnectError("refused"), is_connected=False)
        assert not outage.is_on

    async def test_a_cancelled_call_takes_no_probe(
        self, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """If the callers that waited first are cancelled, the next one sends the probe."""
        site = Site(clock, refused, away_from=0, back_at=0.1)
        monkeypatch.setattr(Transport, "send", lambda _, request, __: site.send(request))
        keys = ApiKeys(api_key="the-api-key", app_key="the-app-key")
        first, *others = wanted(6)
        async with CaseLinksClient(f"http://{HOST}:9", keys) as client:
            begun = asyncio.create_task(client.create_link(first))
            await settle()
            clock.advance(0.002)
            await settle()
            calls = [asyncio.create_task(client.create_link(new)) for new in others]
            await settle()
            for call in (begun, *calls[:-1]):
                call.cancel()
            assert await in_virtual_time(clock, calls[-1])
