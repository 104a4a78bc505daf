"""Read the rate limit, the time to wait and the request id from response headers.

Servers send repeated values, lists ("7, 7"), fractions, Unix timestamps, and 429s without such headers.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final, Protocol

from multidict import istr

from datadog_caselinks.values.rate_limit import RateLimit

# A larger number of seconds is a Unix timestamp: 10**8 s is three years of waiting, and as a date in 1973.
_TIMESTAMP: Final = 1e8

_RATE_LIMIT: Final = tuple(
    istr(f"X-RateLimit-{name}") for name in ("Limit", "Remaining", "Period", "Reset", "Name")
)
_RETRY_AFTER: Final = istr("Retry-After")
_DATE: Final = istr("Date")
_REQUEST_ID: Final = tuple(
    istr(name) for name in ("X-Request-Id", "Request-Id", "X-Amzn-RequestId", "X-Amz-Cf-Id", "CF-Ray")
)

_MAX_DIGITS: Final = 8
"""The maximum number of digits of a number that is used unchecked: it is in range, and not a timestamp."""

_MAX_COUNT: Final = 10**9
_MAX_SECONDS: Final = 1e8
"""Larger numbers are read as these, so that no calculation with them can overflow."""

_NO_VALUES: Final[list[Any]] = []


class Headers(Protocol):
    """Response headers with every value of a repeated name, as ``multidict`` gives them."""

    def getall(self, key: str, default: list[str], /) -> list[str]:
        """Return all values of ``key``, or ``default``."""

    def items(self) -> Iterable[tuple[str, str]]:
        """Return all names and values."""


def read_rate_limit(headers: Headers) -> RateLimit | None:
    """Return the rate limit of the ``X-RateLimit-*`` headers, or ``None`` if none of them is readable.

    Of repeated values the cautious one counts: the fewest requests, the longest wait. A ``Reset`` that is a
    Unix timestamp is taken relative to the response's own ``Date``.
    """
    values = [headers.getall(name, _NO_VALUES) for name in _RATE_LIMIT]
    if not any(values):
        return None
    try:
        (limit,), (remaining,), (period,), (reset,), (name,) = values
        window = _parse_window(limit, period, reset, name)
        if remaining.isdecimal() and len(remaining) <= _MAX_DIGITS:
            return RateLimit(window.limit, int(remaining), window.period, window.reset, window.name)
    except ValueError:  # one is missing, repeated, or not plain digits
        pass
    return _parse_leniently(values, headers)


def retry_after(headers: Headers) -> float | None:
    """Return the seconds of ``Retry-After``, a number or a date (RFC 9110, 10.2.3), or ``None``."""
    waits = _numbers(headers.getall(_RETRY_AFTER, _NO_VALUES))
    sent, until = _date(headers, _DATE), _date(headers, _RETRY_AFTER)
    if sent is not None and until is not None:
        waits.append(max(0.0, until - sent))
    return min(max(waits), _MAX_SECONDS) if waits else None


def request_id(headers: Headers) -> str | None:
    """Return the id by which the server or a proxy logs the request, or ``None``."""
    values = (value for name in _REQUEST_ID for value in headers.getall(name, _NO_VALUES))
    return next(values, None)


@functools.lru_cache(256)  # responses of the same second differ only in Remaining
def _parse_window(limit: str, period: str, reset: str, name: str) -> RateLimit:
    """Parse values that are plain digits, as in almost every response; else raise ``ValueError``."""
    if not (limit + period + reset).isdecimal() or max(len(limit), len(period), len(reset)) > _MAX_DIGITS:
        raise ValueError
    return RateLimit(int(limit), None, float(period), float(reset), name.strip() or None)


def _parse_leniently(values: list[list[str]], headers: Headers) -> RateLimit | None:
    limit, remaining, period, reset = map(_numbers, values[:4])
    names = [name.strip() for name in values[4] if name.strip()]
    if any(seconds >= _TIMESTAMP for seconds in reset):
        reset = _relative(reset, headers)
    if not (limit or remaining or period or reset or names):
        return None
    return RateLimit(
        limit=int(min(*limit, _MAX_COUNT)) if limit else None,
        remaining=int(min(*remaining, _MAX_COUNT)) if remaining else None,
        period=min(max(period), _MAX_SECONDS) if period else None,
        reset=min(max(reset), _MAX_SECONDS) if reset else None,
        name=names[0] if names else None,
    )


def _numbers(values: list[str]) -> list[float]:
    """Return every finite number of at least 0 in a header's values. A value may be a list."""
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
        # Without a zone it is UTC (RFC 9110, 5.6.7), not the zone of this machine.
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (IndexError, ValueError, OverflowError):
        return None


def _relative(values: list[float], headers: Headers) -> list[float]:
    """Return ``values`` as seconds from now; Unix timestamps are compared with the response's ``Date``."""
    sent = _date(headers, _DATE)
    if sent is None:
        return [seconds for seconds in values if seconds < _TIMESTAMP]
    return [seconds if seconds < _TIMESTAMP else max(0.0, seconds - sent) for seconds in values]
