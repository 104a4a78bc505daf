"""The rate limit: rules, calendar-aligned windows and the headers that tell of them. Knows no server.

Source of the headers' names and meanings: Datadog's API reference on rate limits.
"""

from __future__ import annotations

import math
import re
from typing import Final

from attrs import define, field, frozen

from datadog_caselinks.errors import ConfigurationError

BUCKET: Final = "case_links"

_RULE: Final = re.compile(r"(?P<limit>\d{1,9})/(?P<period>\d{1,9}(?:\.\d{1,9})?)(?P<unit>[smh]?)", re.ASCII)
_UNIT_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600}


@frozen
class RateLimitRule:
    """``limit`` requests in each ``period`` of so many seconds.

    Raises :class:`ConfigurationError` unless both are above zero.
    """

    limit: int
    period: float

    def __attrs_post_init__(self) -> None:
        if self.limit < 1 or not 0 < self.period < math.inf:
            raise ConfigurationError(
                f"a rate limit needs a limit and a period above zero, not {self.limit} in {self.period:g} s"
            )

    @classmethod
    def parse(cls, text: str) -> RateLimitRule:
        """Read ``LIMIT/PERIOD``: ``200/2s``, ``60/1m``, ``1000/1h``; without a unit the period is in seconds.

        Raises :class:`ConfigurationError` for anything else.
        """
        match = _RULE.fullmatch(text)
        if match is None:
            raise ConfigurationError(
                f"{text!r} is no rate limit: write LIMIT/PERIOD such as 200/2s, 60/1m or 3/10"
            )
        return cls(int(match["limit"]), float(match["period"]) * _UNIT_SECONDS[match["unit"]])

    def __str__(self) -> str:
        return f"{self.limit} requests in {self.period:g} seconds"


@frozen
class Window:
    """What is left of the current window: ``remaining`` requests, ``reset`` whole seconds until it ends."""

    rule: RateLimitRule
    remaining: int
    reset: int

    def headers(self) -> dict[str, str]:
        """The five headers that Datadog sends."""
        return {
            "X-RateLimit-Limit": str(self.rule.limit),
            "X-RateLimit-Period": f"{self.rule.period:g}",
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(self.reset),
            "X-RateLimit-Name": BUCKET,
        }


@define
class Limiter:
    """Counts the requests of one bucket; without a ``rule`` it lets everything pass.

    ``now`` is in seconds since the epoch, since windows are aligned to the calendar.
    """

    rule: RateLimitRule | None = None
    _counted: tuple[RateLimitRule, float] | None = field(default=None, init=False)
    _used: int = field(default=0, init=False)

    def admit(self, now: float) -> bool:
        """Count one request and say whether it is within the limit."""
        window = self.window(now)
        if window is None:
            return True
        if window.remaining == 0:
            return False
        self._used += 1
        return True

    def window(self, now: float) -> Window | None:
        """The window that ``now`` lies in, or ``None`` without a rule."""
        if self.rule is None:
            return None
        # divmod, so that the index and the rest agree where the period is a fraction.
        index, elapsed = divmod(now, self.rule.period)
        if self._counted != (self.rule, index):
            self._counted, self._used = (self.rule, index), 0
        return Window(self.rule, self.rule.limit - self._used, math.ceil(self.rule.period - elapsed))
