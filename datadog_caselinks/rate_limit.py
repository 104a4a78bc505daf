"""What the server says of its rate limit, as a value read from headers. Knows no clock, never waits."""

from __future__ import annotations

import functools
import math
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final, Protocol

from attrs import frozen
from multidict import istr

# Above this a number of seconds is taken for a Unix timestamp: 10**8 s is three years of waiting,
# and lies in 1973 as a date.
_TIMESTAMP: Final = 1e8

_NAMES: Final = tuple(
    istr(f"X-RateLimit-{name}") for name in ("Limit", "Remaining", "Period", "Reset", "Name")
)
_RETRY_AFTER: Final = istr("Retry-After")
_DATE: Final = istr("Date")

_MANY: Final = 100
"""Digits that no limit has; with three times as many a float cannot hold it."""

_NO_VALUES: Final[list[Any]] = []


class Headers(Protocol):
    """Response headers with every value of a repeated name, as ``multidict`` gives them."""

    def getall(self, key: str, default: list[str], /) -> list[str]:
        """All values of ``key``, or ``default``."""


@frozen
class RateLimit:
    """One fixed window of requests, as the ``X-RateLimit-*`` headers tell it.

    ``limit`` and ``remaining`` count requests, ``period`` and ``reset`` are seconds: the window's length
    and what is left of it when the answer was made. ``name`` is the bucket, which several operations may
    share. What the server did not say, or said in no readable way, is ``None``; zero is a value.
    """

    limit: int | None = None
    remaining: int | None = None
    period: float | None = None
    reset: float | None = None
    name: str | None = None

    @classmethod
    def from_headers(cls, headers: Headers) -> RateLimit | None:
        """Read the headers, or give ``None`` where none of them holds anything readable.

        Of repeated values the cautious one counts: the fewest requests, the longest wait.
        A ``Reset`` that is a Unix timestamp is taken relative to the answer's own ``Date``.
        """
        told = [headers.getall(name, _NO_VALUES) for name in _NAMES]
        try:
            (limit,), (remaining,), (period,), (reset,), (name,) = told
            whole, seconds, left, bucket = _in_digits(limit, period, reset, name)
            if remaining.isdecimal() and len(remaining) < _MANY:
                return cls(whole, int(remaining), seconds, left, bucket)
        except ValueError:
            pass  # missing, repeated, or more to it than digits
        return _by_all_means(told, headers)


def retry_after(headers: Headers) -> float | None:
    """Seconds to wait by ``Retry-After``, given as a number or as a date (RFC 9110, 10.2.3), or ``None``."""
    waits = _numbers(headers.getall(_RETRY_AFTER, _NO_VALUES))
    sent, until = _date(headers, _DATE), _date(headers, _RETRY_AFTER)
    if sent is not None and until is not None:
        waits.append(max(0.0, until - sent))
    return max(waits, default=None)


@functools.lru_cache(256)  # all but Remaining is the same in each answer of a second
def _in_digits(limit: str, period: str, reset: str, name: str) -> tuple[int, float, float, str | None]:
    """The numbers as they stand in almost every answer; ``ValueError`` for any others."""
    digits = limit + period + reset
    if not digits.isdecimal() or len(digits) >= _MANY or float(reset) >= _TIMESTAMP:
        raise ValueError
    return int(limit), float(period), float(reset), name.strip() or None


def _by_all_means(told: list[list[str]], headers: Headers) -> RateLimit | None:
    limit, remaining, period, reset = map(_numbers, told[:4])
    names = [name.strip() for name in told[4] if name.strip()]
    if any(seconds >= _TIMESTAMP for seconds in reset):
        reset = _relative(reset, headers)
    if not (limit or remaining or period or reset or names):
        return None
    return RateLimit(
        limit=int(min(limit)) if limit else None,
        remaining=int(min(remaining)) if remaining else None,
        period=max(period) if period else None,
        reset=max(reset) if reset else None,
        name=names[0] if names else None,
    )


def _numbers(values: list[str]) -> list[float]:
    """Every finite number of at least 0 among a header's values, each of which may be a list ("7, 7")."""
    numbers = []
    for text in ",".join(values).split(","):
        try:
            number = float(text)
        except ValueError:
            continue
        if math.isfinite(number) and number >= 0:
            numbers.append(number)
    return numbers


def _date(headers: Headers, name: str) -> float | None:
    try:
        date = parsedate_to_datetime(headers.getall(name, _NO_VALUES)[0])
        # Without a zone it is UTC (RFC 9110, 5.6.7), and not the zone of this machine.
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (IndexError, ValueError, OverflowError):
        return None


def _relative(values: list[float], headers: Headers) -> list[float]:
    """``values`` in seconds from now; those that are Unix timestamps by the answer's own ``Date``."""
    sent = _date(headers, _DATE)
    if sent is None:
        return [seconds for seconds in values if seconds < _TIMESTAMP]
    return [seconds if seconds < _TIMESTAMP else max(0.0, seconds - sent) for seconds in values]
