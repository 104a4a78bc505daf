"""The rate limit: rules, calendar-aligned windows and the headers that report them.

Source of the headers' names and meanings: Datadog's API reference on rate limits.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Final

from attrs import define, field, frozen

from datadog_caselinks.sandbox.api import OPERATIONS, Operation
from datadog_caselinks.sandbox.variant import Buckets
from datadog_caselinks.values.errors import ParameterError
from datadog_caselinks.values.messages import quoted
from datadog_caselinks.values.parameters import is_number

_BUCKET: Final = "case_links"

_RULE: Final = re.compile(r"(?P<limit>\d{1,9})/(?P<period>\d{1,9}(?:\.\d{1,9})?)(?P<unit>[smh]?)", re.ASCII)
_UNIT_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600}


@frozen
class RateLimitRule:
    """A rate limit: ``limit`` requests in each ``period``, in seconds.

    Raises:
        ParameterError: ``limit`` or ``period`` is not above zero.
    """

    limit: int
    period: float

    def __attrs_post_init__(self) -> None:
        is_valid = is_number(self.limit) and is_number(self.period)
        if not is_valid or self.limit < 1 or not 0 < self.period < math.inf:
            raise ParameterError(
                "a rate limit needs a limit and a period above zero, "
                f"not {quoted(self.limit)} in {quoted(self.period)} s"
            )

    @classmethod
    def parse(cls, text: str) -> RateLimitRule:
        """Read ``LIMIT/PERIOD``: ``200/2s``, ``60/1m``, ``1000/1h``; without a unit the period is in seconds.

        Raises:
            ParameterError: ``text`` has another form.
        """
        match = _RULE.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise ParameterError(
                f"{quoted(text)} is not a rate limit: write LIMIT/PERIOD such as 200/2s, 60/1m or 3/10"
            )
        return cls(int(match["limit"]), float(match["period"]) * _UNIT_SECONDS[match["unit"]])

    def __str__(self) -> str:
        return f"{self.limit} request{'s' * (self.limit != 1)} in {self.period:g} seconds"


@frozen
class Window:
    """The current window of the bucket ``name``.

    ``remaining`` requests are left, and the window ends in ``reset`` whole seconds.
    """

    name: str
    rule: RateLimitRule
    remaining: int
    reset: int

    def headers(self) -> dict[str, str]:
        """Return the five rate-limit headers that Datadog sends."""
        return {
            "X-RateLimit-Limit": str(self.rule.limit),
            "X-RateLimit-Period": f"{self.rule.period:g}",
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(self.reset),
            "X-RateLimit-Name": self.name,
        }


@define
class Limiter:
    """A counter of requests, in one bucket for all operations or in one for each.

    Without a ``rule`` every request is admitted. ``now`` is in seconds since the epoch. Windows are aligned
    to the calendar, so the windows of all buckets begin and end together.
    """

    rule: RateLimitRule | None = None
    buckets: Buckets = "shared"
    _counted: tuple[RateLimitRule, float] | None = field(default=None, init=False)
    _used: Counter[str] = field(factory=Counter, init=False)

    def admit(self, now: float, operation: Operation) -> bool:
        """Count one request and return whether it is within the limit."""
        window = self.window(now, operation)
        if window is None:
            return True
        if window.remaining == 0:
            return False
        self._used[window.name] += 1
        return True

    def window(self, now: float, operation: Operation) -> Window | None:
        """Return the window that contains ``now``, or ``None`` without a rule."""
        if self.rule is None:
            return None
        # divmod keeps the index and the remainder consistent if the period is a fraction.
        index, elapsed = divmod(now, self.rule.period)
        if self._counted != (self.rule, index):
            self._counted = (self.rule, index)
            self._used.clear()
        name = self.bucket(operation)
        reset = math.ceil(self.rule.period - elapsed)
        return Window(name, self.rule, self.rule.limit - self._used[name], reset)

    def fullest(self, now: float) -> Window | None:
        """Return the window with the fewest remaining requests, or ``None`` without a rule."""
        windows = (self.window(now, operation) for operation in OPERATIONS)
        return min(filter(None, windows), key=lambda window: window.remaining, default=None)

    def bucket(self, operation: Operation) -> str:
        """Return the name of the bucket that counts the operation."""
        return _BUCKET if self.buckets == "shared" else f"{_BUCKET}_{operation}"
