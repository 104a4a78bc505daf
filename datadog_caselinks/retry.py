"""When a failed attempt is worth another, and after how long. Knows the errors; knows no HTTP."""

from __future__ import annotations

import logging
import random
import warnings
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any, ParamSpec, TypeVar

import backoff
from attrs import field, frozen

from datadog_caselinks import events
from datadog_caselinks.errors import (
    CaseLinksError,
    ConfigurationError,
    ConnectError,
    MalformedResponseError,
    ProxyAuthenticationError,
    RateLimitError,
    RequestTimeoutError,
    ResponseError,
    ResponseTooLargeError,
    ServerError,
    StaleConnectionError,
    TLSError,
    TransportError,
)

_logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


def _at_least(minimum: int, _: object, attribute: Any, value: float) -> None:
    if not value >= minimum:  # which NaN is not either
        raise ConfigurationError(f"{attribute.name} must be at least {minimum}, not {value!r}")


@frozen(kw_only=True)
class RetryPolicy:
    """How often and how fast a failed attempt is repeated. The defaults suit almost everyone.

    ``max_attempts``
        Attempts of one call, the first included; 1 never retries.
    ``max_rate_limited``
        Answers of 429 that one call sits out, which do not count as attempts.
    ``base``, ``cap``
        Seconds. The n-th wait is drawn from 0 to ``min(cap, base * 2**(n - 1))`` (full jitter).
    ``max_wait``
        Seconds. The longest wait that a server may ask for; above it the error is raised.
    ``settle``
        Seconds between an attempt that may have made a link and the look whether it did. It allows for a
        server that is still at work on it, and for a list that lags behind.
    ``budget``
        Failed attempts that a client may have beyond its successful ones: five for each of the hundred that
        are under way at once. Above it nothing is repeated, so that an outage is not answered by a multiple
        of the load; each success gives one back.

    A wait that the server asks for is never shortened; jitter comes on top of it, so that those
    who were told the same moment do not all come back at once. After a 429 the gate waits, for all.
    """

    max_attempts: int = field(default=6, validator=partial(_at_least, 1))
    max_rate_limited: int = field(default=100, validator=partial(_at_least, 0))
    base: float = field(default=0.5, validator=partial(_at_least, 0))
    cap: float = field(default=20.0, validator=partial(_at_least, 0))
    max_wait: float = field(default=120.0, validator=partial(_at_least, 0))
    settle: float = field(default=1.0, validator=partial(_at_least, 0))
    budget: float = field(default=500, validator=partial(_at_least, 0))


class RetryBudget:
    """What a client has left for retries: a failed attempt takes one, a success gives one back."""

    def __init__(self, size: float) -> None:
        self._size = self._left = size

    @property
    def is_spent(self) -> bool:
        """Whether most attempts fail at present, so that repeating them would only add to the load."""
        return self._left < 1

    def failed(self) -> None:
        """An attempt failed."""
        self._left = max(self._left - 1, 0)

    def succeeded(self, _: Any = None) -> None:
        """The server answered."""
        self._left = min(self._left + 1, self._size)


def may_have_been_applied(error: CaseLinksError) -> bool:
    """Whether the server may have done what was asked although ``error`` came of it."""
    if isinstance(error, TransportError):
        return not isinstance(error, ConnectError | RequestTimeoutError)
    return _is_unclear_answer(error) or isinstance(error, MalformedResponseError)


def _is_worth_repeating(error: CaseLinksError) -> bool:
    if isinstance(error, TransportError):
        return not isinstance(error, TLSError | ProxyAuthenticationError)
    if isinstance(error, MalformedResponseError):
        return not isinstance(error, ResponseTooLargeError)
    return _is_unclear_answer(error)


def _is_unclear_answer(error: CaseLinksError) -> bool:
    return isinstance(error, ServerError) or (isinstance(error, ResponseError) and error.status == 408)


def retrying(
    policy: RetryPolicy,
    budget: RetryBudget,
    *,
    is_credited: bool = True,
    uniform: Callable[[float, float], float] = random.uniform,
) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], Callable[P, Coroutine[Any, Any, R]]]:
    """A decorator that repeats a coroutine function as ``policy`` says, and raises its last error.

    ``is_credited`` is whether a success gives something back to the budget.
    """

    def wait_for_errors() -> Generator[float, Any, None]:
        return waits(policy, budget, uniform)

    decorate = backoff.on_exception(
        wait_for_errors,
        CaseLinksError,
        jitter=None,  # backoff's own would shorten what the server asked for
        on_backoff=_log,
        on_success=budget.succeeded if is_credited else (),
        logger=None,
    )

    def decorate_quietly(
        function: Callable[P, Coroutine[Any, Any, R]],
    ) -> Callable[P, Coroutine[Any, Any, R]]:
        with warnings.catch_warnings():
            # backoff 2.2.1 calls asyncio.iscoroutinefunction, which Python 3.14 deprecates.
            warnings.filterwarnings("ignore", r"'asyncio\.iscoroutinefunction'", DeprecationWarning)
            return decorate(function)

    return decorate_quietly


def waits(
    policy: RetryPolicy, budget: RetryBudget, uniform: Callable[[float, float], float]
) -> Generator[float, CaseLinksError, None]:
    """For each error sent in, the seconds to wait before the next attempt; raises it where there is none."""
    failed = rate_limited = 0
    ceiling = min(policy.base, policy.cap)
    error = yield 0.0  # backoff primes the generator and drops this value
    while True:
        hint = error.retry_after if isinstance(error, ResponseError) else None
        if hint is not None and hint > policy.max_wait:
            raise error
        if isinstance(error, RateLimitError):
            rate_limited += 1
            if rate_limited > policy.max_rate_limited:
                raise error
            error = yield 0.0  # the gate holds it back, with all others
            continue
        if not _is_worth_repeating(error):
            if isinstance(error, ResponseError):
                budget.succeeded()  # the server works
            raise error
        was_spent = budget.is_spent
        failed += 1
        budget.failed()
        if failed >= policy.max_attempts:
            raise error
        if was_spent:
            if not error.during_outage:  # else it has ended another call already, and says so
                error.args = (f"{error}; not tried again, since most requests fail at present",)
                error.during_outage = True
            raise error
        if isinstance(error, StaleConnectionError):
            wait = 0.0  # nothing is wrong with the server, and the next connection is a fresh one
        elif hint:
            wait = hint + uniform(0.0, policy.base)
        else:  # no hint, or "at once", which would not get easier for the server by being asked in a loop
            wait = uniform(0.0, ceiling)
            ceiling = min(2 * ceiling, policy.cap)
        error = yield wait


def _log(details: Any) -> None:
    if isinstance(details["exception"], RateLimitError):
        return  # the gate says how long it holds all
    events.retrying(details["exception"], details["wait"])
    _logger.info(
        "attempt %d: %s; next in %.2f s",
        *(details["tries"], details["exception"], details["wait"]),
        extra={
            "attempt": details["tries"],
            "error_type": type(details["exception"]).__name__,
            "retry_seconds": details["wait"],
        },
    )
