"""When a failed attempt is worth another, and after how long. Knows the errors; knows no HTTP."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Generator
from typing import Any, ParamSpec, TypeVar

import backoff
from attrs import field, frozen

from datadog_caselinks.errors import (
    CaseLinksError,
    ConfigurationError,
    ConnectError,
    MalformedResponseError,
    ProxyAuthenticationError,
    RateLimitedError,
    RequestTimeoutError,
    ResponseError,
    ServerError,
    StaleConnectionError,
    TLSError,
    TransportError,
)

_logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


def _at_least(minimum: int) -> Callable[[object, Any, float], None]:
    def check(_: object, attribute: Any, value: float) -> None:
        if not value >= minimum:  # which NaN is not either
            raise ConfigurationError(f"{attribute.name} must be at least {minimum}, not {value!r}")

    return check


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

    A wait that the server asks for is never shortened; jitter comes on top of it, so that those
    who were told the same moment do not all come back at once.
    """

    max_attempts: int = field(default=6, validator=_at_least(1))
    max_rate_limited: int = field(default=100, validator=_at_least(0))
    base: float = field(default=0.5, validator=_at_least(0))
    cap: float = field(default=20.0, validator=_at_least(0))
    max_wait: float = field(default=120.0, validator=_at_least(0))


def may_have_been_applied(error: CaseLinksError) -> bool:
    """Whether the server may have done what was asked although ``error`` came of it."""
    if isinstance(error, TransportError):
        return not isinstance(error, ConnectError | RequestTimeoutError)
    return _is_unclear_answer(error) or isinstance(error, MalformedResponseError)


def _is_worth_repeating(error: CaseLinksError) -> bool:
    if isinstance(error, TransportError):
        return not isinstance(error, TLSError | ProxyAuthenticationError)
    return _is_unclear_answer(error)


def _is_unclear_answer(error: CaseLinksError) -> bool:
    return isinstance(error, ServerError) or (isinstance(error, ResponseError) and error.status == 408)


def retrying(
    policy: RetryPolicy, *, uniform: Callable[[float, float], float] = random.uniform
) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Awaitable[R]]]:
    """A decorator that repeats a coroutine function as ``policy`` says, and raises its last error."""

    def wait_for_errors() -> Generator[float, Any, None]:
        return waits(policy, uniform)

    return backoff.on_exception(
        wait_for_errors,
        CaseLinksError,
        jitter=None,  # backoff's own would shorten what the server asked for
        on_backoff=_log,
        logger=None,
    )


def waits(
    policy: RetryPolicy, uniform: Callable[[float, float], float]
) -> Generator[float, CaseLinksError, None]:
    """For each error sent in, the seconds to wait before the next attempt; raises it where there is none."""
    failed = rate_limited = 0
    ceiling = min(policy.base, policy.cap)
    error = yield 0.0  # backoff primes the generator and drops this value
    while True:
        if isinstance(error, RateLimitedError):
            rate_limited += 1
            is_over = rate_limited > policy.max_rate_limited
        else:
            failed += 1
            is_over = failed >= policy.max_attempts or not _is_worth_repeating(error)
        hint = error.retry_after if isinstance(error, ResponseError) else None
        if is_over or (hint is not None and hint > policy.max_wait):
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
    _logger.info("attempt %d: %s; next in %.2f s", details["tries"], details["exception"], details["wait"])
