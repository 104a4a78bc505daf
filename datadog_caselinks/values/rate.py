"""A client's own limit on its requests, as a value and a count. ``http/pace.py`` applies it."""

from __future__ import annotations

import re
from collections import deque
from typing import Final

from attrs import frozen

from datadog_caselinks.values.base_errors import ParameterError
from datadog_caselinks.values.messages import quoted
from datadog_caselinks.values.parameters import require_seconds, require_whole_number

_RATE: Final = re.compile(r"(\d{1,9})/(\d{1,9}(?:\.\d{1,9})?)?([smh]?)", re.ASCII)
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600}


@frozen
class Rate:
    """At most ``requests`` in any ``seconds``: ``Rate(50, 1)``, or ``Rate.parse("50/1s")``.

    Raises:
        ParameterError: ``requests`` is below 1, or ``seconds`` is not a number of seconds above 0.
    """

    requests: int
    seconds: float

    def __attrs_post_init__(self) -> None:
        require_whole_number("requests", self.requests, at_least=1)
        require_seconds("seconds", self.seconds)

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Parse ``REQUESTS/PERIOD``, such as ``50/1s``, ``50/s`` or ``600/1m``. Without a unit it is seconds.

        Raises:
            ParameterError: ``text`` has another form.
        """
        match = _RATE.fullmatch(text.strip()) if isinstance(text, str) else None
        if match is None or not (match[2] or match[3]):
            raise ParameterError(
                f"{quoted(text)} is not a rate: write REQUESTS/PERIOD, such as 50/1s, 600/1m or 5000/1h"
            )
        return cls(int(match[1]), float(match[2] or 1) * _SECONDS[match[3]])

    def __str__(self) -> str:
        return f"{self.requests}/{self.seconds:g}s"


DEFAULT_WRITE_RATE: Final = Rate(100, 60)
"""The default limit on the creates and deletes of agents."""


class RateCount:
    """A count of the events in the last period of a :class:`Rate`. Times are in seconds, of one clock."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._times: deque[float] = deque()

    def add(self, now: float, count: int = 1) -> None:
        """Add ``count`` events at the time ``now``."""
        self._times.extend([now] * count)

    def wait(self, now: float, count: int = 1) -> float:
        """Return the seconds until the rate allows ``count`` more, which is at most ``rate.requests``."""
        while self._times and self._times[0] + self._rate.seconds <= now:
            self._times.popleft()
        excess = len(self._times) + count - self._rate.requests
        return self._times[excess - 1] + self._rate.seconds - now if excess > 0 else 0.0


def parsed_rate(given: Rate | str | None) -> Rate | None:
    """Return the rate that a parameter ``rate`` gives. Raises :class:`ParameterError` for anything else."""
    if given is None or isinstance(given, Rate):
        return given
    if not isinstance(given, str):
        raise ParameterError(f'rate must be a Rate or a text such as "50/1s", not {quoted(given)}')
    return Rate.parse(given)
