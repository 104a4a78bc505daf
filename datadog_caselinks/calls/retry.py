"""Decide from the error of an attempt whether it is retried, and after how long. Contains no HTTP."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import warnings
from collections.abc import Callable, Coroutine
from functools import partial
from operator import attrgetter
from typing import Any, Final, ParamSpec, TypeVar

import backoff
from attrs import define, field, frozen
from attrs.validators import optional

from datadog_caselinks.http.outage import Outage, longest_wait, mark_as_outage
from datadog_caselinks.isolation import log
from datadog_caselinks.observation.events import report_retry
from datadog_caselinks.values.errors import (
    AmbiguousResultError,
    CaseLinksError,
    ConnectError,
    IncompleteListError,
    MalformedResponseError,
    ProxyAuthenticationError,
    RateLimitError,
    ResponseError,
    ResponseTooLargeError,
    StaleConnectionError,
    TLSError,
    TransportError,
    may_be_at_work,
)
from datadog_caselinks.values.parameters import require_finite_number, require_number, require_whole_number
from datadog_caselinks.values.rate_limit import LONGEST_WAIT

_logger = logging.getLogger("datadog_caselinks.retry")

BULK_PATIENCE: Final = 150.0
"""``patience`` for runs of many links, which no person waits for. A gateway that restarts drains its queue
for up to two minutes."""

_STILL_AT_WORK: Final = 5.0
"""How many times ``settle`` a lookup waits if the server may still be at work on the request."""

_SHARE_OF_UNSENT: Final = 0.2
"""The cost of a failed attempt if nothing was sent. Such an attempt is little work for the server."""

_MAX_WAITS: Final = 1000
"""The maximum number of waits that are added up. A longer sum makes no difference."""

_SECONDS: Final = attrgetter("seconds")
"""Returns the wait after a :class:`RetryableError`."""

P = ParamSpec("P")
R = TypeVar("R")


def _count(minimum: int, _: object, attribute: Any, value: float) -> None:
    if value != math.inf:  # which stands for no maximum
        require_whole_number(attribute.name, value, at_least=minimum)


def _at_least(minimum: int, _: object, attribute: Any, value: float) -> None:
    require_number(attribute.name, value, at_least=minimum)


def _finite(minimum: int, _: object, attribute: Any, value: float) -> None:
    require_finite_number(attribute.name, value, at_least=minimum)


@frozen(kw_only=True)
class RetryPolicy:
    """How often and how fast a failed attempt is retried. The defaults suit almost every program.

    ``max_attempts``
        Attempts of one call, including the first; 1 never retries.
    ``patience``
        Seconds. If the server or a gateway keeps failing a call, the client retries it beyond
        ``max_attempts``, until this time after the first failure. It has no effect if the server cannot be
        reached, or with ``max_attempts=1``.
    ``max_rate_limited``
        The number of 429 responses that one call waits out. They do not count as attempts.
    ``base``, ``cap``
        Seconds. The n-th wait is random between 0 and ``min(cap, base * 2**(n - 1))`` (full jitter).
    ``max_wait``
        Seconds. The longest wait that the server may request. If it requests a longer one, the error is
        raised immediately. A request for more than an hour counts as one for an hour.
    ``settle``
        Seconds between an ambiguous attempt and the lookup of its link, since a list may lag behind. This is
        the wait if the server itself reported a failure, such as 500 or 503. The wait is five times as long
        after a lost connection, a timeout, a gateway's 502 or 504, or a response that is not about the link,
        because the server may still be working on the request.
    ``budget``
        The size of the client's retry budget; by default five times ``max_concurrency``, and at least 500. A
        failed attempt takes one from the budget, or a fifth if nothing was sent. A success or a refusal gives
        one back, since it shows that the server works; a lookup does not. When the budget is empty, nothing
        is retried, so that retries do not multiply the load of a failing server.

    A wait that the server requests is never shortened. Jitter is added, so that clients with the same wait do
    not all continue at the same moment. After a 429, every request that counts against the same limit waits.

    Raises:
        ParameterError: A value is not a number, or is out of range. ``math.inf`` is out of range for
            ``patience``, ``base`` and ``settle``.
    """

    max_attempts: int = field(default=6, validator=partial(_count, 1))
    patience: float = field(default=0.0, validator=partial(_finite, 0))
    max_rate_limited: int = field(default=100, validator=partial(_count, 0))
    base: float = field(default=0.5, validator=partial(_finite, 0))
    cap: float = field(default=20.0, validator=partial(_at_least, 0))
    max_wait: float = field(default=120.0, validator=partial(_at_least, 0))
    settle: float = field(default=1.0, validator=partial(_finite, 0))
    budget: float | None = field(default=None, validator=optional(partial(_at_least, 0)))

    def new_outage(self) -> Outage:
        """Return an outage that counts as long once it has lasted longer than the retries of one call can."""
        waits = range(min(self.max_attempts - 1, _MAX_WAITS))
        horizon = sum(longest_wait(self.base, self.cap, number) for number in waits)
        return Outage(self.base, self.cap, horizon, self.patience, self.max_wait)

    def new_budget(self, max_concurrency: int) -> RetryBudget:
        """Return the budget, with its outage, of a client with at most this many requests in flight."""
        size = max(500.0, 5.0 * max_concurrency) if self.budget is None else self.budget
        return RetryBudget(size, self.new_outage())

    @property
    def longest_settle(self) -> float:
        """Seconds before the lookup of a link if nothing is known about the end of its create."""
        return self.settle * _STILL_AT_WORK

    def wait_before_lookup(self, error: CaseLinksError) -> float:
        """Return the seconds between an ambiguous attempt, which ended with ``error``, and its lookup."""
        factor = _STILL_AT_WORK if may_be_at_work(error) else 1.0
        return max(self.settle * factor, requested_wait(error))


class RetryBudget:
    """The number of failed attempts after which a client stops retrying.

    A failed attempt takes one, or less if nothing was sent; a success or a refusal, which shows that the
    server works, gives one back and ends ``outage``. :class:`Attempts` reports failures to both.
    """

    def __init__(self, size: float, outage: Outage | None = None) -> None:
        self._size = self._left = size
        self.outage: Outage = outage or Outage()

    @property
    def is_spent(self) -> bool:
        """Whether most recent attempts have failed, so that retries would only add to the load."""
        return self._left < 1

    def take(self, cost: float = 1.0) -> None:
        """Count a failed attempt."""
        self._left = max(self._left - cost, 0)

    def give_back(self) -> None:
        """Count a success, which ends an outage."""
        self._left = min(self._left + 1, self._size)
        self.outage.on_success()


class RetryableError(Exception):
    """A failed attempt that is retried after ``seconds``. The decorator catches it; no caller sees it."""

    def __init__(self, error: CaseLinksError, seconds: float) -> None:
        self.error = error
        self.seconds = seconds


@define(eq=False)
class Attempts:
    """The attempts of one call. It counts them, and decides whether a failed one is retried.

    ``uniform(low, high)`` returns a random number. ``last_failure`` is the latest error that counted as a
    failed attempt; a 429 and a refusal do not.
    """

    _policy: RetryPolicy
    _budget: RetryBudget
    _uniform: Callable[[float, float], float] = random.uniform
    last_failure: CaseLinksError | None = field(default=None, init=False)
    _failed: int = field(default=0, init=False)
    _first_failure: float = field(default=0.0, init=False)
    _rate_limited: int = field(default=0, init=False)
    _waits: int = field(default=0, init=False)

    def error_to_raise(self, error: CaseLinksError, *, min_wait: float = 0.0) -> Exception:
        """Record a failed attempt, and return what to raise: ``error``, or a :class:`RetryableError`.

        ``min_wait`` is the least number of seconds before another attempt.
        """
        seconds = self.record(error)
        return error if seconds is None else RetryableError(error, max(seconds, min_wait))

    def record(self, error: CaseLinksError) -> float | None:
        """Record a failed attempt, and return the seconds until the next one; ``None`` to stop."""
        if error.during_outage:
            return None  # Requester.send raised the last failure again, instead of sending
        policy = self._policy
        requested = requested_wait(error)
        if isinstance(error, RateLimitError):
            self._rate_limited += 1
            is_final = requested > policy.max_wait or self._rate_limited > policy.max_rate_limited
            return None if is_final else 0.0  # the gate makes it wait
        if not is_retryable(error):
            if isinstance(error, ResponseError):
                self._budget.give_back()  # a refusal shows that the server works
            elif isinstance(error, ResponseTooLargeError):
                self._budget.outage.on_success()
            return None
        was_spent = self._budget.is_spent  # before: the attempt that empties the budget is still retried
        self.last_failure = error
        self._failed += 1
        if policy.patience and self._failed == 1:
            self._first_failure = asyncio.get_running_loop().time()
        self._budget.take(1.0 if error.may_have_been_applied else _SHARE_OF_UNSENT)
        if not isinstance(error, StaleConnectionError):
            is_connected = not isinstance(error, ConnectError)
            self._budget.outage.on_failure(error, is_connected=is_connected, requested_wait=requested)
        if self._failed >= policy.max_attempts and not self._is_patient(error):
            return None
        if was_spent or self._budget.outage.is_long:
            mark_as_outage(error)
            return None
        if requested > policy.max_wait:
            return None
        if isinstance(error, StaleConnectionError):
            return 0.0  # the server is fine, and the next connection is a new one
        if requested:
            return requested + self._uniform(0.0, policy.base)
        self._waits += 1
        return self._uniform(0.0, longest_wait(policy.base, policy.cap, self._waits - 1))

    def _is_patient(self, error: CaseLinksError) -> bool:
        """Return whether the call has another attempt beyond ``max_attempts``, within its ``patience``."""
        policy = self._policy
        if not policy.patience or policy.max_attempts == 1 or isinstance(error, ConnectError):
            return False
        return asyncio.get_running_loop().time() - self._first_failure < policy.patience


def is_retryable(error: CaseLinksError) -> bool:
    """Return whether another attempt may succeed where this one failed."""
    if isinstance(error, TransportError):
        return not isinstance(error, TLSError | ProxyAuthenticationError)
    if isinstance(error, MalformedResponseError):
        return not isinstance(error, IncompleteListError | ResponseTooLargeError)
    return isinstance(error, ResponseError) and error.may_have_been_applied


def requested_wait(error: Exception) -> float:
    """Return the seconds that the server asks to wait: at most an hour, and 0 if it asks for no wait.

    If ``error`` is an ambiguous result, its reason counts.
    """
    reason = error.reason if isinstance(error, AmbiguousResultError) else error
    return min(reason.retry_after or 0.0, LONGEST_WAIT) if isinstance(reason, ResponseError) else 0.0


def _report_retry(details: Any) -> None:
    error, seconds = details["exception"].error, details["wait"]
    if isinstance(error, RateLimitError):
        return  # the gate reports how long it holds all requests back
    report_retry(error, seconds)
    log(
        _logger,
        logging.INFO,
        "attempt %d: %s; next in %.2f s",
        *(details["tries"], error, seconds),
        extra={"attempt": details["tries"], "error_type": type(error).__name__, "retry_seconds": seconds},
    )


def with_retries(
    attempt: Callable[P, Coroutine[Any, Any, R]],
) -> Callable[P, Coroutine[Any, Any, R]]:
    """Decorate a coroutine function that makes one attempt; each :class:`RetryableError` repeats it."""
    with warnings.catch_warnings():
        # On Python 3.14, backoff 2.2.1 calls asyncio.iscoroutinefunction here, and nowhere else.
        warnings.simplefilter("ignore", DeprecationWarning)
        # No jitter of backoff's own, which would shorten a wait that the server asked for.
        retried: Callable[P, Coroutine[Any, Any, R]] = backoff.on_exception(
            backoff.runtime,
            RetryableError,
            value=lambda: _SECONDS,  # backoff calls it once for each call that it decorates
            jitter=None,
            on_backoff=_report_retry,
            logger=None,
        )(attempt)
    return retried
