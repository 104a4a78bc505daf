"""The rules of retries: which failures are retried, after which wait, how often, and within which budget."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import logging
import math
import pickle
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, cast

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from datadog_caselinks import (
    AmbiguousResultError,
    AuthenticationError,
    BadRequestError,
    CaseLinksError,
    ConfigurationError,
    ConflictError,
    ConnectError,
    CycleError,
    FleetError,
    IncompleteListError,
    InvalidLinkError,
    JournalError,
    LinkFileError,
    MalformedResponseError,
    NotFoundError,
    ParameterError,
    PermissionDeniedError,
    ProxyAuthenticationError,
    RateLimitError,
    RequestTimeoutError,
    ResponseError,
    ResponseTooLargeError,
    RetryPolicy,
    ServerError,
    SessionError,
    StaleConnectionError,
    TLSError,
    TransportError,
)
from datadog_caselinks.calls.retry import Attempts, RetryBudget, with_retries
from datadog_caselinks.http.outage import Outage
from tests.support.clock import Clock
from tests.support.ids import case
from tests.support.waiting import settle

NEW = case("bf0cbac6-4c16-4cfb-b6bf-ca5e0ec37a4f").blocks(case("4417921d-0866-4a38-822c-6f2a0f65f77d"))

# Each error, whether it is retried, and whether it may have been applied.
TABLE: list[tuple[CaseLinksError, bool, bool]] = [
    (CaseLinksError("x"), False, False),
    (InvalidLinkError("x"), False, False),
    (LinkFileError("x"), False, False),
    (ConfigurationError("x"), False, False),
    (ParameterError("x"), False, False),
    (CycleError("x", links=()), False, False),
    (FleetError("x"), False, False),
    (JournalError("x"), False, False),
    (SessionError("x"), False, False),
    (TransportError("x"), True, True),
    (ConnectError("x"), True, False),
    (StaleConnectionError("x"), True, False),
    (TLSError("x"), False, False),
    (ProxyAuthenticationError("x"), False, False),
    (RequestTimeoutError("x"), True, False),
    (AmbiguousResultError("x", new=NEW, reason=TransportError("y")), False, True),
    (RequestTimeoutError("x", sent=True), True, True),
    (MalformedResponseError("x", body=""), True, True),
    (IncompleteListError("x", body=""), False, True),
    (ResponseTooLargeError("x", body=""), False, True),
    *(
        (ResponseError("x", status=status), False, False)
        for status in (301, 302, 304, 307, 308, 402, 405, 410, 418)
    ),
    (ResponseError("x", status=408), True, True),
    (BadRequestError("x", status=400), False, False),
    (BadRequestError("x", status=422), False, False),
    (AuthenticationError("x", status=401), False, False),
    (PermissionDeniedError("x", status=403), False, False),
    (NotFoundError("x", status=404), False, False),
    (ConflictError("x", status=409), False, False),
    (RateLimitError("x", status=429), True, False),
    *((ServerError("x", status=status), True, True) for status in (500, 501, 502, 503, 504, 520)),
]
REPEATED = [error for error, is_repeated, _ in TABLE if is_repeated]
FAILURES = [error for error in REPEATED if not isinstance(error, RateLimitError)]
FINAL = [error for error, is_repeated, _ in TABLE if not is_repeated]


def name(error: object) -> str:
    """Return the id of a parametrized test."""
    return (
        f"{type(error).__name__}{getattr(error, 'status', '')}"
        if isinstance(error, CaseLinksError)
        else str(error)
    )


def longest(_: float, end: float) -> float:
    return end


def shortest(start: float, _: float) -> float:
    return start


class Started:
    """The decisions of one call: ``send`` takes an error, and returns the wait or raises an error."""

    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts

    def send(self, error: CaseLinksError) -> float:
        seconds = self._attempts.record(error)
        if seconds is None:
            raise error
        return seconds


def started(
    policy: RetryPolicy,
    uniform: Callable[[float, float], float] = longest,
    *,
    budget: RetryBudget | None = None,
) -> Started:
    """Return the decisions of a new call; with a budget that never ends, or with ``budget``."""
    return Started(Attempts(policy, budget or RetryBudget(math.inf), uniform))


def retrying(
    policy: RetryPolicy, budget: RetryBudget, *, uniform: Callable[[float, float], float] = random.uniform
) -> Callable[[Callable[..., Coroutine[Any, Any, Any]]], Callable[..., Coroutine[Any, Any, Any]]]:
    """Return a decorator that retries a coroutine function as the client's calls do."""

    def decorate(
        function: Callable[..., Coroutine[Any, Any, Any]],
    ) -> Callable[..., Coroutine[Any, Any, Any]]:
        @with_retries
        async def attempt(attempts: Attempts, *args: Any) -> Any:
            try:
                result = await function(*args)
            except CaseLinksError as error:
                raise attempts.error_to_raise(error)  # noqa: B904 - its context is the error itself
            budget.give_back()
            return result

        @functools.wraps(function)
        async def call(*args: Any) -> Any:
            return await attempt(Attempts(policy, budget, uniform), *args)

        return call

    return decorate


def limited(retry_after: float | None = None) -> RateLimitError:
    return RateLimitError("too many", status=429, retry_after=retry_after)


def unavailable(retry_after: float | None = None) -> ServerError:
    return ServerError("not now", status=503, retry_after=retry_after)


def all_classes(root: type[CaseLinksError]) -> Iterable[type[CaseLinksError]]:
    yield root
    for child in root.__subclasses__():
        if child.__module__.startswith("datadog_caselinks") and not child.__name__.startswith("_"):
            yield from all_classes(child)


class TestTable:
    def test_it_holds_every_class(self) -> None:
        """The table has every public class of errors, so that a new class cannot be forgotten."""
        assert {type(error) for error, *_ in TABLE} == set(all_classes(CaseLinksError))

    @pytest.mark.parametrize(("error", "expected"), [(row[0], row[2]) for row in TABLE], ids=name)
    def test_may_have_been_applied(self, error: CaseLinksError, expected: bool) -> None:
        """A request may have been applied if it was sent and its result is unclear."""
        assert error.may_have_been_applied is expected

    @pytest.mark.parametrize("error", REPEATED, ids=name)
    def test_what_is_repeated(self, error: CaseLinksError) -> None:
        """A failure that another attempt may overcome is retried."""
        assert started(RetryPolicy()).send(error) >= 0

    @pytest.mark.parametrize("error", FINAL, ids=name)
    def test_what_is_final(self, error: CaseLinksError) -> None:
        """A failure that would happen again is raised at once, unchanged."""
        with pytest.raises(type(error)) as caught:
            started(RetryPolicy()).send(error)
        assert caught.value is error


class TestWaits:
    def test_the_range_doubles_up_to_the_cap(self) -> None:
        """Each wait is random between 0 and ``base``, which doubles with each attempt up to ``cap``."""
        ranges: list[tuple[float, float]] = []

        def uniform(start: float, end: float) -> float:
            ranges.append((start, end))
            return end / 2

        generator = started(RetryPolicy(max_attempts=10, base=0.5, cap=20), uniform)
        drawn = [generator.send(TransportError("x")) for _ in range(8)]
        assert ranges == [(0, end) for end in (0.5, 1, 2, 4, 8, 16, 20, 20)]
        assert drawn == [end / 2 for _, end in ranges]

    @given(st.floats(0, 1e6), st.floats(0, 1e6), st.integers(2, 40), st.floats(0, 1))
    def test_no_wait_is_above_the_cap(self, base: float, cap: float, attempts: int, part: float) -> None:
        """A wait is never above the cap, for any policy."""
        generator = started(
            RetryPolicy(max_attempts=attempts, base=base, cap=cap), lambda a, b: a + (b - a) * part
        )
        for _ in range(attempts - 1):
            assert 0 <= generator.send(TransportError("x")) <= cap

    @pytest.mark.parametrize("base", [0, 0.0, 1e-9, 0.5, 30])
    @pytest.mark.parametrize("error", [TransportError("x"), unavailable(1.0), limited(), limited(1.0)])
    def test_thousands_do_not_overflow(self, error: CaseLinksError, base: float) -> None:
        """Thousands of attempts do not overflow the range of the wait."""
        generator = started(RetryPolicy(max_attempts=5000, max_rate_limited=5000, base=base))
        assert all(math.isfinite(generator.send(error)) for _ in range(4999))

    @pytest.mark.parametrize("attempts", [1, 2, 6])
    def test_the_last_attempt_is_not_followed_by_a_wait(self, attempts: int) -> None:
        """The number of attempts includes the first one, and the error of the last one is raised."""
        generator = started(RetryPolicy(max_attempts=attempts))
        for _ in range(attempts - 1):
            generator.send(TransportError("x"))
        last = TransportError("last")
        with pytest.raises(TransportError) as caught:
            generator.send(last)
        assert caught.value is last

    @given(hint=st.floats(0, 120), base=st.floats(0, 10), cap=st.floats(0, 10), part=st.floats(0, 1))
    def test_a_hint_is_never_shortened(self, hint: float, base: float, cap: float, part: float) -> None:
        """A requested wait is never shortened, and the added jitter is bounded."""
        generator = started(RetryPolicy(base=base, cap=cap), lambda a, b: a + (b - a) * part)
        for _ in range(3):
            assert hint <= generator.send(unavailable(hint)) <= hint + max(base, cap)

    def test_a_hint_is_kept_on_the_longest_and_shortest_draw(self) -> None:
        """A requested wait is extended by 0 to ``base`` seconds, so that clients do not return together."""
        assert started(RetryPolicy(base=0.5), shortest).send(unavailable(7)) == 7
        assert started(RetryPolicy(base=0.5), longest).send(unavailable(7)) == 7.5

    @pytest.mark.parametrize("make", [limited, unavailable])
    def test_a_hint_beyond_max_wait_is_raised_at_once(self, make: Callable[[float], ResponseError]) -> None:
        """A requested wait above ``max_wait`` raises the error at once."""
        policy = RetryPolicy(max_wait=120)
        assert started(policy).send(make(120)) >= 0
        error = make(120.1)
        with pytest.raises(type(error)) as caught:
            started(policy).send(error)
        assert caught.value is error

    def test_a_hint_of_more_than_an_hour_counts_as_an_hour(self) -> None:
        """A requested wait of more than one hour is read as one hour, with any ``max_wait``."""
        for max_wait in (3600, math.inf):
            assert started(RetryPolicy(max_wait=max_wait), shortest).send(unavailable(86_400)) == 3600
        assert RetryPolicy().wait_before_lookup(unavailable(86_400)) == 3600

    def test_a_hint_of_zero_is_treated_like_none(self) -> None:
        """A requested wait of zero is treated as none: the range doubles, which avoids a tight loop."""
        generator = started(RetryPolicy(max_wait=0, base=0.5))
        assert [generator.send(unavailable(0)) for _ in range(3)] == [0.5, 1, 2]

    @pytest.mark.parametrize("retry_after", [None, 0.0, 7.0, 120.0])
    def test_a_rate_limit_is_waited_for_at_the_gate(self, retry_after: float | None) -> None:
        """A 429 adds no wait of its own, because the gate holds back all calls."""
        generator = started(RetryPolicy(max_wait=120))
        assert [generator.send(limited(retry_after)) for _ in range(5)] == [0] * 5

    def test_rate_limits_have_their_own_allowance(self) -> None:
        """Responses with 429 and failed attempts are counted separately."""
        generator = started(RetryPolicy(max_attempts=3, max_rate_limited=4))
        for error in (limited(), limited(), TransportError("1"), limited(), unavailable(), limited()):
            generator.send(error)
        with pytest.raises(RateLimitError):
            generator.send(limited())

    def test_rate_limits_do_not_use_up_attempts(self) -> None:
        """Responses with 429 do not use up attempts."""
        generator = started(RetryPolicy(max_attempts=3, max_rate_limited=4))
        for _ in range(4):
            generator.send(limited())
        generator.send(TransportError("1"))
        generator.send(TransportError("2"))
        with pytest.raises(TransportError, match="3"):
            generator.send(TransportError("3"))

    def test_an_allowance_of_none_raises_the_first(self) -> None:
        """A 429 is raised to the caller if ``max_rate_limited`` is 0."""
        with pytest.raises(RateLimitError):
            started(RetryPolicy(max_rate_limited=0)).send(limited(0))

    @pytest.mark.parametrize(
        "error", [limited(), limited(7.0), unavailable(7.0), StaleConnectionError("x")], ids=repr
    )
    def test_only_waits_of_ones_own_widen_the_range(self, error: CaseLinksError) -> None:
        """A wait for the server or the gate, or a retry without a wait, does not widen the range."""
        generator = started(RetryPolicy(base=0.5))
        generator.send(error)
        assert generator.send(TransportError("x")) == 0.5

    def test_a_stale_connection_is_repeated_at_once(self) -> None:
        """A stale connection is retried at once, and counts as an attempt."""
        generator = started(RetryPolicy(max_attempts=3))
        assert [generator.send(StaleConnectionError("x")) for _ in range(2)] == [0, 0]
        with pytest.raises(StaleConnectionError):
            generator.send(StaleConnectionError("x"))


class TestRetryPolicy:
    def test_it_is_a_value(self) -> None:
        """A policy is a value: equal policies compare equal, also after pickling."""
        policy = RetryPolicy(max_attempts=2)
        assert pickle.loads(pickle.dumps(policy)) == policy == attrs.evolve(RetryPolicy(), max_attempts=2)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("max_attempts", 0),
            ("max_attempts", -1),
            ("max_rate_limited", -1),
            ("base", -0.1),
            ("cap", -1),
            ("max_wait", -1),
            ("settle", -0.1),
            ("budget", -0.1),
            ("budget", -math.inf),
            ("base", math.nan),
            ("max_wait", math.nan),
            ("settle", math.nan),
            ("budget", math.nan),
        ],
    )
    def test_a_setting_out_of_range_is_refused_by_name(self, field: str, value: float) -> None:
        """A setting out of range raises a ``ParameterError``, which is a ``ValueError``."""
        with pytest.raises(ParameterError, match=field):
            RetryPolicy(**cast("Any", {field: value}))

    def test_the_least_of_each_is_accepted(self) -> None:
        """The smallest value of each setting is accepted."""
        least = RetryPolicy(max_attempts=1, max_rate_limited=0, base=0, cap=0, max_wait=0, settle=0, budget=0)
        assert set(attrs.astuple(least)) == {0, 1}

    def test_a_budget_may_be_endless(self) -> None:
        """A budget of ``math.inf`` is accepted, and never ends."""
        assert RetryPolicy(budget=math.inf).budget == math.inf

    def test_settings_are_given_by_name(self) -> None:
        """Settings are keyword arguments, since seven numbers in a row would be unreadable."""
        with pytest.raises(TypeError):
            cast("Any", RetryPolicy)(3)


class Flaky:
    """A callable that raises each of ``errors`` in turn, then returns its argument."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.attempts = 0

    async def __call__(self, value: str) -> str:
        self.attempts += 1
        await asyncio.sleep(0)
        if self.errors:
            raise self.errors.pop(0)
        return value


AT_ONCE = RetryPolicy(max_attempts=3, max_rate_limited=3, base=0)


def decorated(
    flaky: Flaky, policy: RetryPolicy = AT_ONCE, *, budget: RetryBudget | None = None
) -> Callable[[str], Awaitable[str]]:
    @retrying(policy, budget or RetryBudget(math.inf))
    async def call(value: str) -> str:
        """Call ``flaky``."""
        return await flaky(value)

    return call


class TestRetrying:
    @pytest.mark.parametrize("failures", [0, 1, 2])
    async def test_the_result_is_returned(self, failures: int) -> None:
        """The result is returned after as many attempts as necessary."""
        flaky = Flaky(*[TransportError("x")] * failures)
        assert await decorated(flaky)("value") == "value"
        assert flaky.attempts == failures + 1

    async def test_the_last_error_is_raised(self) -> None:
        """The error of the last attempt is raised as the same object, with a clean context."""
        errors = [TransportError(str(number)) for number in range(4)]
        flaky = Flaky(*errors)
        with pytest.raises(TransportError) as caught:
            await decorated(flaky)("value")
        assert caught.value is errors[2]
        assert flaky.attempts == 3
        seen: list[BaseException] = []
        context: BaseException | None = caught.value
        while context is not None:
            assert not isinstance(context, StopIteration | GeneratorExit | RuntimeError)
            assert context not in seen
            seen.append(context)
            context = context.__cause__ or context.__context__

    @pytest.mark.parametrize("error", FINAL, ids=name)
    async def test_a_final_error_is_raised_at_once(self, error: CaseLinksError) -> None:
        """A final error is raised after one attempt."""
        flaky = Flaky(error)
        with pytest.raises(type(error)) as caught:
            await decorated(flaky)("value")
        assert caught.value is error
        assert flaky.attempts == 1

    async def test_an_error_that_is_not_ours_passes_through(self) -> None:
        """An error that is not the package's is not retried."""
        flaky = Flaky(LookupError("x"))
        with pytest.raises(LookupError):
            await decorated(flaky)("value")
        assert flaky.attempts == 1

    async def test_calls_at_the_same_time_do_not_share_their_counts(self) -> None:
        """A hundred calls at the same time have their own attempts."""
        flaky = {str(number): Flaky(*[TransportError("x")] * 2) for number in range(100)}

        @retrying(AT_ONCE, RetryBudget(math.inf))
        async def call(key: str) -> str:
            return await flaky[key](key)

        assert await asyncio.gather(*map(call, flaky)) == list(flaky)
        assert {each.attempts for each in flaky.values()} == {3}

    async def test_one_call_after_another_starts_anew(self) -> None:
        """A call does not count the failures of an earlier call."""
        flaky = Flaky(*[TransportError("x")] * 2)
        call = decorated(flaky)
        for _ in range(3):
            flaky.errors = [TransportError("x"), TransportError("x")]
            assert await call("value") == "value"

    async def test_rate_limits_do_not_use_up_attempts(self) -> None:
        """Three responses with 429 and two failures take six attempts, although ``max_attempts`` is three."""
        flaky = Flaky(limited(), TransportError("x"), limited(0.0), TransportError("x"), limited())
        assert await decorated(flaky)("value") == "value"
        assert flaky.attempts == 6

    async def test_cancelling_is_not_repeated(self) -> None:
        """A cancelled attempt is not retried."""
        flaky = Flaky(cast("Exception", asyncio.CancelledError()))
        with pytest.raises(asyncio.CancelledError):
            await decorated(flaky)("value")
        assert flaky.attempts == 1

    async def test_the_wait_is_drawn_by_the_given_function(self) -> None:
        """The waits are drawn only by the function that was passed in."""
        ranges: list[tuple[float, float]] = []

        def uniform(start: float, end: float) -> float:
            ranges.append((start, end))
            return 0.0

        @retrying(RetryPolicy(base=1, cap=3), RetryBudget(math.inf), uniform=uniform)
        async def call(flaky: Flaky) -> str:
            return await flaky("value")

        await call(Flaky(*[TransportError("x")] * 3))
        assert ranges == [(0, 1), (0, 2), (0, 3)]

    async def test_a_hint_is_waited_for_in_full(self, caplog: pytest.LogCaptureFixture, clock: Clock) -> None:
        """A requested wait is waited in full."""
        flaky = Flaky(unavailable(60.0))
        with caplog.at_level(logging.INFO, "datadog_caselinks"):
            task = asyncio.ensure_future(decorated(flaky)("value"))
            await settle()
            clock.advance(30)
            await settle()
            assert flaky.attempts == 1
            clock.advance(31)
            assert await task == "value"
        assert [cast("tuple[Any, ...]", record.args)[-1] for record in caplog.records] == [60.0]

    async def test_what_is_decorated_stays_a_coroutine_function(self) -> None:
        """A decorated coroutine function keeps its name, its docstring and its kind."""

        @with_retries
        async def call() -> None:
            """The call."""

        assert inspect.iscoroutinefunction(call)
        assert (call.__name__, call.__doc__) == ("call", "The call.")

    async def test_each_wait_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        """Each wait is logged on level INFO with the attempt, its error and the seconds."""
        with caplog.at_level(logging.DEBUG):
            await decorated(Flaky(TransportError("gone"), limited(0.0)))("value")
        ours = [record for record in caplog.records if record.name != "asyncio"]
        assert [(record.name, record.levelname, record.getMessage()) for record in ours] == [
            ("datadog_caselinks.retry", "INFO", "attempt 1: gone; next in 0.00 s"),
        ]
        reported = vars(ours[0])
        assert (reported["attempt"], reported["error_type"], reported["retry_seconds"]) == (
            1,
            "TransportError",
            0.0,
        )


SPENT = ". No further retries: most recent requests have failed"
OFTEN = RetryPolicy(max_attempts=1000, base=0)


async def failure(call: Awaitable[object]) -> CaseLinksError:
    """Return the error that ``call`` raises."""
    with pytest.raises(CaseLinksError) as caught:
        await call
    return caught.value


def outage() -> Flaky:
    """Return an operation that fails thousands of times."""
    return Flaky(*[TransportError("x") for _ in range(5000)])


class Outages(Outage):
    """An outage that records each failure."""

    def __init__(self) -> None:
        super().__init__()
        self.failures: list[tuple[Exception, bool, float]] = []

    def on_failure(self, error: Exception, *, is_connected: bool, requested_wait: float = 0.0) -> None:
        self.failures.append((error, is_connected, requested_wait))


class TestAttempts:
    def test_the_outage_gets_each_failure(self) -> None:
        """The outage gets each failed attempt, except for one whose pooled connection was stale."""
        refused, failed = ConnectError("x"), ServerError("x", status=503, retry_after=3)
        attempts = Attempts(RetryPolicy(), RetryBudget(math.inf, outage := Outages()))
        for error in (refused, StaleConnectionError("x"), failed):
            attempts.record(error)
            assert attempts.last_failure is error
        assert outage.failures == [(refused, False, 0.0), (failed, True, 3)]

    def test_a_failure_without_a_request_costs_less(self) -> None:
        """Two failures to connect leave more of the budget than two requests that failed."""
        for error, is_spent in ((ConnectError("x"), False), (TransportError("x"), True)):
            attempts = Attempts(RetryPolicy(), budget := RetryBudget(2))
            for _ in range(2):
                attempts.record(error)
            assert budget.is_spent is is_spent

    @pytest.mark.parametrize(
        ("error", "max_attempts", "is_patient"),
        [(TransportError("x"), 2, True), (TransportError("x"), 1, False), (ConnectError("x"), 2, False)],
    )
    async def test_patience_is_counted_from_the_first_failure(
        self, error: CaseLinksError, max_attempts: int, is_patient: bool, clock: Clock
    ) -> None:
        """A call with ``patience`` has more attempts, but not if it cannot connect or may have only one."""
        policy = RetryPolicy(max_attempts=max_attempts, patience=60)
        attempts = Attempts(policy, RetryBudget(math.inf))
        assert (attempts.record(error) is not None) is (max_attempts > 1)
        clock.advance(30)
        assert (attempts.record(error) is not None) is is_patient
        clock.advance(31)
        assert attempts.record(error) is None


class TestOutageOfAPolicy:
    def test_it_is_long_after_the_longest_time_of_one_call(self) -> None:
        """An outage has the settings of its policy, and is long after the sum of the waits of a call."""
        policy = RetryPolicy(max_attempts=4, base=1, cap=3, patience=5, max_wait=7)
        expected = Outage(base=1, cap=3, horizon=1 + 2 + 3, patience=5, max_wait=7)
        for outage in (policy.new_outage(), policy.new_budget(1).outage):
            assert vars(outage) == vars(expected)


class TestWaitBeforeLookup:
    @pytest.mark.parametrize(
        ("error", "seconds"),
        [
            (ServerError("x", status=500), 2),
            (ServerError("x", status=504), 10),
            (TransportError("x"), 10),
            (ServerError("x", status=500, retry_after=7), 7),
            (ServerError("x", status=504, retry_after=7), 10),
        ],
    )
    def test_it_is_longer_if_the_server_may_be_at_work(self, error: CaseLinksError, seconds: float) -> None:
        """A lookup waits ``settle``, five times as long if the server may be at work, or as it asked."""
        assert RetryPolicy(settle=2).wait_before_lookup(error) == seconds


class TestRetryBudget:
    @pytest.mark.parametrize(
        ("budget", "max_concurrency", "size"),
        [(None, 1, 500), (None, 100, 500), (None, 200, 1000), (7, 200, 7)],
    )
    def test_its_size(self, budget: float | None, max_concurrency: int, size: int) -> None:
        """A client may have five failed attempts per request in flight and at least 500, or ``budget``."""
        found = RetryPolicy(budget=budget).new_budget(max_concurrency)
        found.take(size - 1)
        assert not found.is_spent
        found.take(0.5)
        assert found.is_spent

    @given(st.integers(0, 5), st.lists(st.booleans(), max_size=40))
    @example(size=3, outcomes=[False, False, False, True, False])
    def test_it_is_spent_at_nothing_and_never_above_its_size(self, size: int, outcomes: list[bool]) -> None:
        """A failure takes one from the budget and a success returns one, from 0 to ``size``."""
        budget, left = RetryBudget(size), size
        for is_success in outcomes:
            if is_success:
                budget.give_back()
                left = min(left + 1, size)
            else:
                budget.take()
                left = max(left - 1, 0)
            assert budget.is_spent is (left == 0)

    @pytest.mark.slow
    async def test_one_failure_in_ten_never_spends_it(self) -> None:
        """A failure rate of 10 % never uses up the budget in 100,000 calls."""
        draw = random.Random(20261)
        budget = RetryPolicy().new_budget(100)
        failures = 0

        @retrying(RetryPolicy(base=0), budget)
        async def call() -> None:
            nonlocal failures
            assert not budget.is_spent
            if draw.random() < 0.1:
                failures += 1
                raise TransportError("x")

        for _ in range(100_000):
            await call()
        assert failures > 10_000
        assert not budget.is_spent

    @given(
        calls=st.integers(1, 40),
        size=st.integers(0, 60) | st.floats(0, 60),
        max_attempts=st.integers(1, 8),
        is_gathered=st.booleans(),
    )
    async def test_an_outage_causes_no_more_retries_than_the_budget(
        self, calls: int, size: float, max_attempts: int, is_gathered: bool
    ) -> None:
        """N calls that all fail make N attempts, and at most as many retries as the budget."""
        flaky = outage()
        policy = RetryPolicy(max_attempts=max_attempts, base=0)
        call = decorated(flaky, policy, budget=RetryBudget(size))
        if is_gathered:
            await asyncio.gather(*(failure(call("value")) for _ in range(calls)))
        else:
            for _ in range(calls):
                await failure(call("value"))
        assert calls <= flaky.attempts <= calls + size

    @pytest.mark.parametrize("size", [1, 2, 10])
    async def test_it_pays_for_as_many_attempts_as_it_says(self, size: int) -> None:
        """A budget of N allows N retries."""
        flaky = outage()
        await failure(decorated(flaky, OFTEN, budget=RetryBudget(size))("value"))
        assert flaky.attempts == 1 + size

    @pytest.mark.parametrize("error", FAILURES, ids=name)
    async def test_once_it_is_spent_a_call_fails_after_its_one_attempt(self, error: CaseLinksError) -> None:
        """A call that finds the budget used up fails with the same class of error, which says so."""
        flaky = Flaky(copy.copy(error))
        budget = RetryBudget(1)
        budget.take()
        raised = await failure(decorated(flaky, budget=budget)("value"))
        assert flaky.attempts == 1
        assert type(raised) is type(error)
        assert str(raised) == f"{error}{SPENT}"
        assert raised.during_outage
        again = pickle.loads(pickle.dumps(raised))
        assert (type(again), str(again), vars(again)) == (type(raised), str(raised), vars(raised))

    @pytest.mark.parametrize("error", FINAL, ids=name)
    async def test_what_is_final_anyway_says_nothing_of_it(self, error: CaseLinksError) -> None:
        """A final error, such as a missing link, does not mention the budget."""
        raised = await failure(decorated(Flaky(copy.copy(error)), budget=RetryBudget(0))("value"))
        assert str(raised) == str(error)
        assert not raised.during_outage

    async def test_a_last_attempt_says_nothing_of_it(self) -> None:
        """The error of the last attempt does not mention the budget, which would not have changed it."""
        once = RetryPolicy(max_attempts=1)
        raised = await failure(decorated(Flaky(TransportError("x")), once, budget=RetryBudget(0))("value"))
        assert str(raised) == "x"
        assert not raised.during_outage

    async def test_it_says_so_once(self) -> None:
        """An error that several calls share says once that it was not retried."""
        shared = TransportError("x")
        budget = RetryBudget(0)
        for _ in range(3):
            assert await failure(decorated(Flaky(shared), budget=budget)("value")) is shared
            assert str(shared) == f"x{SPENT}"

    async def test_recovery_is_noticed_at_once(self) -> None:
        """The first success after an outage allows the next retry."""
        budget = RetryBudget(3)
        await failure(decorated(outage(), OFTEN, budget=budget)("value"))
        denied = Flaky(TransportError("x"))
        await failure(decorated(denied, budget=budget)("value"))
        assert await decorated(Flaky(), budget=budget)("value") == "value"
        repeated = Flaky(TransportError("x"))
        assert await decorated(repeated, budget=budget)("value") == "value"
        assert (denied.attempts, repeated.attempts) == (1, 2)

    async def test_an_endless_one_is_never_spent(self) -> None:
        """An infinite budget leaves the number of retries to ``max_attempts``."""
        flaky, budget = outage(), RetryBudget(math.inf)
        raised = await failure(decorated(flaky, OFTEN, budget=budget)("value"))
        assert (flaky.attempts, str(raised), budget.is_spent) == (1000, "x", False)

    async def test_none_at_all_never_repeats(self) -> None:
        """A budget of zero allows no retry, even after successes."""
        budget = RetryBudget(0)
        for _ in range(3):
            assert await decorated(Flaky(), budget=budget)("value") == "value"
        flaky = Flaky(TransportError("x"))
        await failure(decorated(flaky, budget=budget)("value"))
        assert flaky.attempts == 1

    async def test_calls_and_operations_share_it(self) -> None:
        """All operations of a client share one budget."""
        budget = RetryBudget(5)
        created, listed = outage(), outage()
        await failure(decorated(created, OFTEN, budget=budget)("value"))
        await failure(decorated(listed, OFTEN, budget=budget)("value"))
        assert (created.attempts > 1, listed.attempts) == (True, 1)
        await decorated(Flaky(), budget=budget)("value")
        assert not budget.is_spent

    async def test_every_failed_attempt_takes_one(self) -> None:
        """Each failed attempt takes one from the budget, also the last attempt of a call."""
        budget = RetryBudget(3)
        for attempts in (1, 2):
            policy = RetryPolicy(max_attempts=attempts, base=0)
            assert not budget.is_spent
            await failure(decorated(outage(), policy, budget=budget)("value"))
        assert budget.is_spent

    async def test_a_rate_limit_takes_nothing_of_it(self) -> None:
        """A 429 takes nothing from the budget, and is waited out even without one."""
        flaky, budget = Flaky(limited(), limited(7.0)), RetryBudget(0)
        assert await decorated(flaky, budget=budget)("value") == "value"
        assert flaky.attempts == 3

    @pytest.mark.parametrize("left", [0, 1])
    def test_a_final_rate_limit_leaves_it_as_it_is(self, left: int) -> None:
        """A final 429 does not change the budget."""
        budget = RetryBudget(1)
        if not left:
            budget.take()
        error = limited()
        with pytest.raises(RateLimitError) as caught:
            started(RetryPolicy(max_rate_limited=0), budget=budget).send(error)
        assert (str(caught.value), caught.value.during_outage) == ("too many", False)
        assert budget.is_spent is (left == 0)

    @pytest.mark.parametrize("error", FINAL, ids=name)
    def test_a_final_response_gives_one_back(self, error: CaseLinksError) -> None:
        """A final response returns one to the budget, since the server works; other errors do not."""
        budget = RetryBudget(1)
        budget.take()
        with pytest.raises(type(error)):
            started(RetryPolicy(), budget=budget).send(error)
        assert budget.is_spent is not isinstance(error, ResponseError)

    def test_final_responses_save_nothing_up(self) -> None:
        """Final responses do not raise a budget above its size."""
        budget = RetryBudget(1)
        for _ in range(5):
            with pytest.raises(NotFoundError):
                started(RetryPolicy(), budget=budget).send(NotFoundError("x", status=404))
        budget.take()
        assert budget.is_spent
