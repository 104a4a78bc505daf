"""Which failure is worth another attempt, after how long, and how often."""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import pickle
from collections.abc import Awaitable, Callable, Generator, Iterable
from typing import Any, cast

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datadog_caselinks import (
    AmbiguousResultError,
    AuthenticationError,
    BadRequestError,
    CaseLinksError,
    ConfigurationError,
    ConflictError,
    ConnectError,
    InvalidLinkError,
    LinkFileError,
    MalformedResponseError,
    NotFoundError,
    PermissionDeniedError,
    ProxyAuthenticationError,
    RateLimitedError,
    RequestTimeoutError,
    ResponseError,
    RetryPolicy,
    ServerError,
    SessionError,
    StaleConnectionError,
    TLSError,
    TransportError,
    case,
)
from datadog_caselinks.retry import may_have_been_applied, retrying, waits

NEW = case("bf0cbac6-4c16-4cfb-b6bf-ca5e0ec37a4f").blocks(case("4417921d-0866-4a38-822c-6f2a0f65f77d"))

# Each with: is it worth repeating, and may it have been applied?
TABLE: list[tuple[CaseLinksError, bool, bool]] = [
    (CaseLinksError("x"), False, False),
    (InvalidLinkError("x"), False, False),
    (LinkFileError("x"), False, False),
    (ConfigurationError("x"), False, False),
    (SessionError("x"), False, False),
    (TransportError("x"), True, True),
    (ConnectError("x"), True, False),
    (StaleConnectionError("x"), True, False),
    (TLSError("x"), False, False),
    (ProxyAuthenticationError("x"), False, False),
    (RequestTimeoutError("x"), True, False),
    (AmbiguousResultError("x", new=NEW, reason=TransportError("y")), False, False),
    (MalformedResponseError("x", body=""), False, True),
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
    (RateLimitedError("x", status=429), True, False),
    *((ServerError("x", status=status), True, True) for status in (500, 501, 502, 503, 504, 520)),
]
REPEATED = [error for error, is_repeated, _ in TABLE if is_repeated]
FINAL = [error for error, is_repeated, _ in TABLE if not is_repeated]


def name(error: object) -> str:
    """How a parametrized test is called."""
    return (
        f"{type(error).__name__}{getattr(error, 'status', '')}"
        if isinstance(error, CaseLinksError)
        else str(error)
    )


def longest(_: float, end: float) -> float:
    return end


def shortest(start: float, _: float) -> float:
    return start


def started(
    policy: RetryPolicy, uniform: Callable[[float, float], float] = longest
) -> Generator[float, CaseLinksError, None]:
    """The generator, advanced to where it takes errors."""
    generator = waits(policy, uniform)
    next(generator)
    return generator


def limited(retry_after: float | None = None) -> RateLimitedError:
    return RateLimitedError("too many", status=429, retry_after=retry_after)


def unavailable(retry_after: float | None = None) -> ServerError:
    return ServerError("not now", status=503, retry_after=retry_after)


def all_classes(root: type[CaseLinksError]) -> Iterable[type[CaseLinksError]]:
    yield root
    for child in root.__subclasses__():
        if child.__module__.startswith("datadog_caselinks"):
            yield from all_classes(child)


class TestTable:
    def test_it_holds_every_class(self) -> None:
        """A new error cannot be forgotten here."""
        assert {type(error) for error, *_ in TABLE} == set(all_classes(CaseLinksError))

    @pytest.mark.parametrize(("error", "expected"), [(row[0], row[2]) for row in TABLE], ids=name)
    def test_may_have_been_applied(self, error: CaseLinksError, expected: bool) -> None:
        """Sent without a clear answer it may have been; never sent, or clearly refused, it was not."""
        assert may_have_been_applied(error) is expected

    @pytest.mark.parametrize("error", REPEATED, ids=name)
    def test_what_is_repeated(self, error: CaseLinksError) -> None:
        """What another attempt may mend gets one."""
        assert started(RetryPolicy()).send(error) >= 0

    @pytest.mark.parametrize("error", FINAL, ids=name)
    def test_what_is_final(self, error: CaseLinksError) -> None:
        """What would fail again is raised at once, as the very error that it was."""
        with pytest.raises(type(error)) as caught:
            started(RetryPolicy()).send(error)
        assert caught.value is error


class TestWaits:
    def test_the_range_doubles_up_to_the_cap(self) -> None:
        """Full jitter: each wait is drawn from 0 to ``base``, then to twice that, up to ``cap``."""
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
        """Whatever the policy, and wherever in its range a wait falls."""
        generator = started(
            RetryPolicy(max_attempts=attempts, base=base, cap=cap), lambda a, b: a + (b - a) * part
        )
        for _ in range(attempts - 1):
            assert 0 <= generator.send(TransportError("x")) <= cap

    @pytest.mark.parametrize("base", [0, 0.0, 1e-9, 0.5, 30])
    @pytest.mark.parametrize("error", [TransportError("x"), limited(), limited(1.0)])
    def test_thousands_do_not_overflow(self, error: CaseLinksError, base: float) -> None:
        """Two to the power of some thousands is no float."""
        generator = started(RetryPolicy(max_attempts=5000, max_rate_limited=5000, base=base))
        assert all(math.isfinite(generator.send(error)) for _ in range(4999))

    @pytest.mark.parametrize("attempts", [1, 2, 6])
    def test_the_last_attempt_is_not_followed_by_a_wait(self, attempts: int) -> None:
        """``max_attempts`` counts the first one, and the error of the last one is raised."""
        generator = started(RetryPolicy(max_attempts=attempts))
        for _ in range(attempts - 1):
            generator.send(TransportError("x"))
        last = TransportError("last")
        with pytest.raises(TransportError) as caught:
            generator.send(last)
        assert caught.value is last

    @pytest.mark.parametrize("make", [limited, unavailable])
    @given(hint=st.floats(0, 120), base=st.floats(0, 10), cap=st.floats(0, 10), part=st.floats(0, 1))
    def test_a_hint_is_never_shortened(
        self, make: Callable[[float], ResponseError], hint: float, base: float, cap: float, part: float
    ) -> None:
        """What the server asks for is the least that is waited; jitter comes on top and is bounded too."""
        generator = started(RetryPolicy(base=base, cap=cap), lambda a, b: a + (b - a) * part)
        for _ in range(3):
            assert hint <= generator.send(make(hint)) <= hint + max(base, cap)

    @pytest.mark.parametrize("make", [limited, unavailable])
    def test_a_hint_is_kept_on_the_longest_and_shortest_draw(
        self, make: Callable[[float], ResponseError]
    ) -> None:
        """On top of it come 0 to ``base`` seconds, so that not all come back at one moment."""
        assert started(RetryPolicy(base=0.5), shortest).send(make(7)) == 7
        assert started(RetryPolicy(base=0.5), longest).send(make(7)) == 7.5

    @pytest.mark.parametrize("make", [limited, unavailable])
    def test_a_hint_beyond_max_wait_is_raised_at_once(self, make: Callable[[float], ResponseError]) -> None:
        """A caller who would wait for an hour is told so instead."""
        policy = RetryPolicy(max_wait=120)
        assert started(policy).send(make(120)) >= 120
        error = make(120.1)
        with pytest.raises(type(error)) as caught:
            started(policy).send(error)
        assert caught.value is error

    @pytest.mark.parametrize("make", [limited, unavailable])
    def test_a_hint_of_zero_is_not_shortened_to_less(self, make: Callable[[float], ResponseError]) -> None:
        """Now is now; what comes on top is jitter."""
        assert started(RetryPolicy(max_wait=0), shortest).send(make(0)) == 0

    def test_rate_limits_have_their_own_allowance(self) -> None:
        """An answer of 429 is no failed attempt, and a failed attempt uses up nothing of that allowance."""
        generator = started(RetryPolicy(max_attempts=3, max_rate_limited=4))
        for error in (limited(), limited(), TransportError("1"), limited(), unavailable(), limited()):
            generator.send(error)
        with pytest.raises(RateLimitedError):
            generator.send(limited())

    def test_rate_limits_do_not_use_up_attempts(self) -> None:
        """After all of the allowance, all attempts but those that failed are left."""
        generator = started(RetryPolicy(max_attempts=3, max_rate_limited=4))
        for _ in range(4):
            generator.send(limited())
        generator.send(TransportError("1"))
        generator.send(TransportError("2"))
        with pytest.raises(TransportError, match="3"):
            generator.send(TransportError("3"))

    def test_an_allowance_of_none_raises_the_first(self) -> None:
        """``max_rate_limited=0`` leaves 429 to the caller."""
        with pytest.raises(RateLimitedError):
            started(RetryPolicy(max_rate_limited=0)).send(limited(0))

    def test_rate_limits_without_a_hint_back_off(self) -> None:
        """Along the same doubling range as failures, since both say that the server has too much to do."""
        generator = started(RetryPolicy(base=0.5, cap=20))
        errors = [TransportError("x"), limited(), limited(), unavailable(), limited(), limited(), limited()]
        assert [generator.send(error) for error in errors] == [0.5, 1, 2, 4, 8, 16, 20]

    @pytest.mark.parametrize("error", [limited(7.0), StaleConnectionError("x")])
    def test_only_waits_of_ones_own_widen_the_range(self, error: CaseLinksError) -> None:
        """A wait that the server asked for, and none at all, say nothing about the next one."""
        generator = started(RetryPolicy(base=0.5))
        generator.send(error)
        assert generator.send(TransportError("x")) == 0.5

    def test_a_stale_connection_is_repeated_at_once(self) -> None:
        """Nothing is wrong with the server; but it counts as an attempt."""
        generator = started(RetryPolicy(max_attempts=3))
        assert [generator.send(StaleConnectionError("x")) for _ in range(2)] == [0, 0]
        with pytest.raises(StaleConnectionError):
            generator.send(StaleConnectionError("x"))


class TestRetryPolicy:
    def test_it_is_a_value(self) -> None:
        """It is shared, compared and pickled."""
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
            ("base", math.nan),
            ("max_wait", math.nan),
        ],
    )
    def test_a_setting_out_of_range_is_refused_by_name(self, field: str, value: float) -> None:
        """As any wrong setting of this package, by a ``ConfigurationError``, which is a ``ValueError``."""
        with pytest.raises(ConfigurationError, match=field):
            RetryPolicy(**cast("Any", {field: value}))

    def test_settings_are_given_by_name(self) -> None:
        """Five numbers in a row say nothing."""
        with pytest.raises(TypeError):
            cast("Any", RetryPolicy)(3)


class Flaky:
    """Fails with each of ``errors`` in turn, then returns its argument; counts the attempts."""

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


def decorated(flaky: Flaky, policy: RetryPolicy = AT_ONCE) -> Callable[[str], Awaitable[str]]:
    @retrying(policy)
    async def call(value: str) -> str:
        """The call."""
        return await flaky(value)

    return call


class TestRetrying:
    @pytest.mark.parametrize("failures", [0, 1, 2])
    async def test_the_result_is_returned(self, failures: int) -> None:
        """After as many attempts as it took, and no more."""
        flaky = Flaky(*[TransportError("x")] * failures)
        assert await decorated(flaky)("value") == "value"
        assert flaky.attempts == failures + 1

    async def test_the_last_error_is_raised(self) -> None:
        """The very object, after ``max_attempts`` attempts, with nothing of the machinery in its context."""
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
        """After the one attempt."""
        flaky = Flaky(error)
        with pytest.raises(type(error)) as caught:
            await decorated(flaky)("value")
        assert caught.value is error
        assert flaky.attempts == 1

    async def test_an_error_that_is_not_ours_passes_through(self) -> None:
        """A programming mistake is not repeated."""
        flaky = Flaky(LookupError("x"))
        with pytest.raises(LookupError):
            await decorated(flaky)("value")
        assert flaky.attempts == 1

    async def test_calls_at_the_same_time_do_not_share_their_counts(self) -> None:
        """Decorated once, called a hundred times at once: each call has all its attempts."""
        flaky = {str(number): Flaky(*[TransportError("x")] * 2) for number in range(100)}

        @retrying(AT_ONCE)
        async def call(key: str) -> str:
            return await flaky[key](key)

        assert await asyncio.gather(*map(call, flaky)) == list(flaky)
        assert {each.attempts for each in flaky.values()} == {3}

    async def test_one_call_after_another_starts_anew(self) -> None:
        """Failures of an earlier call are forgotten."""
        flaky = Flaky(*[TransportError("x")] * 2)
        call = decorated(flaky)
        for _ in range(3):
            flaky.errors = [TransportError("x"), TransportError("x")]
            assert await call("value") == "value"

    async def test_rate_limits_do_not_use_up_attempts(self) -> None:
        """Three of them and two failures make six attempts, where ``max_attempts`` is three."""
        flaky = Flaky(limited(), TransportError("x"), limited(0.0), TransportError("x"), limited())
        assert await decorated(flaky)("value") == "value"
        assert flaky.attempts == 6

    async def test_cancelling_is_not_repeated(self) -> None:
        """A task that is cancelled in an attempt is cancelled."""
        flaky = Flaky(cast("Exception", asyncio.CancelledError()))
        with pytest.raises(asyncio.CancelledError):
            await decorated(flaky)("value")
        assert flaky.attempts == 1

    async def test_the_wait_is_drawn_by_the_given_function(self) -> None:
        """No randomness but the one passed in."""
        ranges: list[tuple[float, float]] = []

        def uniform(start: float, end: float) -> float:
            ranges.append((start, end))
            return 0.0

        @retrying(RetryPolicy(base=1, cap=3), uniform=uniform)
        async def call(flaky: Flaky) -> str:
            return await flaky("value")

        await call(Flaky(*[TransportError("x")] * 3))
        assert ranges == [(0, 1), (0, 2), (0, 3)]

    async def test_a_hint_is_waited_for_in_full(self, caplog: pytest.LogCaptureFixture) -> None:
        """Not even the machinery beneath, which has a jitter of its own, takes anything off."""
        with caplog.at_level(logging.INFO, "datadog_caselinks"):
            await decorated(Flaky(limited(0.001), unavailable(0.002)))("value")
        assert [cast("tuple[Any, ...]", record.args)[-1] for record in caplog.records] == [0.001, 0.002]

    async def test_what_is_decorated_stays_a_coroutine_function(self) -> None:
        """With its name and docstring; ``inspect`` and frameworks look at that."""
        call = decorated(Flaky())
        assert inspect.iscoroutinefunction(call)
        assert (call.__name__, call.__doc__) == ("call", "The call.")

    async def test_each_wait_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        """On level INFO by this package's logger: which attempt failed, why, and how long the wait is."""
        with caplog.at_level(logging.DEBUG):
            await decorated(Flaky(TransportError("gone"), limited(0.0)))("value")
        ours = [record for record in caplog.records if record.name != "asyncio"]
        assert [(record.name, record.levelname, record.getMessage()) for record in ours] == [
            ("datadog_caselinks.retry", "INFO", "attempt 1: gone; next in 0.00 s"),
            ("datadog_caselinks.retry", "INFO", "attempt 2: too many; next in 0.00 s"),
        ]
