"""Faults: failures between a client and the API, and the rules that select which requests fail."""

from __future__ import annotations

import math
import random
import re
from collections import deque
from collections.abc import Iterable
from enum import StrEnum
from typing import Final, cast

from attrs import define, field, frozen

from datadog_caselinks.sandbox.api import OPERATIONS, Operation
from datadog_caselinks.values.errors import ParameterError
from datadog_caselinks.values.messages import quoted
from datadog_caselinks.values.parameters import is_number, require_items, require_whole_number


class Fault(StrEnum):
    """A failure of a request. *Applied* means that a valid create or delete took effect."""

    LOST_RESPONSE = "lost-response"
    """Applied; then the connection is closed without a response."""

    RESET = "reset"
    """Not applied. The connection is reset (TCP RST)."""

    DELAY = "delay"
    """Applied immediately; the response is sent after the given seconds."""

    LATE_APPLY = "late-apply"
    """Applied after the given seconds, even if the client has disconnected; then the response is sent."""

    DRIP = "drip"
    """Applied; the body is sent byte by byte over the given seconds. Not for a delete."""

    TRUNCATED = "truncated"
    """Applied; half of the body is sent, then the connection is closed. Not for a delete."""

    MALFORMED = "malformed"
    """Applied; the status is correct and the body is invalid JSON. Not for a delete."""

    HTTP_408 = "408"
    """Not applied. Request timeout."""

    HTTP_429 = "429"
    """Not applied. The response has all ``X-RateLimit`` headers; the window ends after the given seconds."""

    HTTP_429_RETRY_AFTER = "429-retry-after"
    """Not applied. The response has no ``X-RateLimit`` header; ``Retry-After`` gives the seconds."""

    HTTP_429_NO_HINT = "429-no-hint"
    """Not applied. The response has neither ``X-RateLimit`` headers nor ``Retry-After``, and is HTML."""

    HTTP_500 = "500"
    """Not applied. Internal server error, in HTML."""

    HTTP_502 = "502"
    """Not applied. Bad gateway, in HTML."""

    HTTP_503 = "503"
    """Not applied. Service unavailable, in HTML."""

    HTTP_503_RETRY_AFTER = "503-retry-after"
    """Not applied. Service unavailable, in HTML; ``Retry-After`` gives the seconds."""

    HTTP_504 = "504"
    """Not applied. Gateway timeout, in HTML."""

    HTTP_512 = "512"
    """Not applied. A status that only Datadog uses and that its clients retry like 502, in HTML."""

    HTTP_504_APPLIED = "504-applied"
    """Applied; the response is a gateway timeout, in HTML."""


_TIMED: Final = frozenset(
    {
        Fault.DELAY,
        Fault.LATE_APPLY,
        Fault.DRIP,
        Fault.HTTP_429,
        Fault.HTTP_429_RETRY_AFTER,
        Fault.HTTP_503_RETRY_AFTER,
    }
)
_NEED_A_BODY: Final = frozenset({Fault.DRIP, Fault.TRUNCATED, Fault.MALFORMED})
_DEFAULT_SECONDS: Final = 1.0
_RULE: Final = re.compile(
    r"(?P<fault>[^=@:]+)(?:=(?P<seconds>[^=@:]+))?(?:@(?P<operation>[^=@:]+))?(?::(?P<percent>[^=@:]+)%)?"
)
_NUMBER: Final = re.compile(r"\d{1,9}(?:\.\d{1,9})?", re.ASCII)


def _fault(given: Fault | str) -> Fault:
    try:
        return Fault(given)
    except ValueError:
        raise ParameterError(f"{quoted(given)} is not a fault; the faults are: {_listed(Fault)}") from None


@frozen
class FaultRule:
    """A fault, how often it happens, and for which operation.

    Args:
        fault: The fault, or its value.
        seconds: The duration, for faults that have one. ``None`` means one second.
        probability: The share of the requests that fail, from 0 to 1.
        operation: The operation that fails, such as ``create`` or ``list``. ``None`` means every operation.

    Raises:
        ParameterError: The combination is invalid, such as seconds for a fault without a duration, or a fault
            of the body for a delete, whose response has no body.
    """

    fault: Fault = field(converter=_fault)
    seconds: float | None = field(default=None, kw_only=True)
    probability: float = field(default=1.0, kw_only=True)
    operation: Operation | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.seconds is not None:
            if self.fault not in _TIMED:
                raise ParameterError(f"{self.fault} takes no seconds; these faults do: {_listed(_TIMED)}")
            if not is_number(self.seconds) or not 0 <= self.seconds < math.inf:
                raise ParameterError(
                    f"the seconds of a fault must be at least 0 and finite, not {_shown(self.seconds)}"
                )
        if not is_number(self.probability) or not 0 <= self.probability <= 1:
            raise ParameterError(
                f"a probability must be from 0 to 1 (0% to 100%), not {_shown(self.probability)}"
            )
        if self.operation is not None and self.operation not in OPERATIONS:
            raise ParameterError(
                f"{quoted(self.operation)} is not an operation; the operations are: {', '.join(OPERATIONS)}"
            )
        if self.operation == "delete" and self.fault in _NEED_A_BODY:
            raise ParameterError(
                f"{self.fault} is a fault of the body, and the response to a delete has no body"
            )

    @classmethod
    def parse(cls, text: str) -> FaultRule:
        """Read ``FAULT[=SECONDS][@OPERATION][:PERCENT%]``.

        ``lost-response`` affects every request, ``lost-response:5%`` one request in twenty on average,
        ``delay=0.2:10%`` delays one in ten by 0.2 seconds, ``503@create:2.5%`` affects creates only.
        ``FAULT`` is a value of :class:`Fault`.

        Raises:
            ParameterError: The fault is unknown, or the rule is invalid.
        """
        match = _RULE.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise ParameterError(
                f"{quoted(text)} is not a fault rule: write FAULT[=SECONDS][@OPERATION][:PERCENT%], "
                "such as lost-response:5% or delay=0.2@create:10%"
            )
        name, seconds, operation, percent = match.group("fault", "seconds", "operation", "percent")
        return cls(
            name,
            seconds=None if seconds is None else _number(text, seconds),
            probability=1.0 if percent is None else _number(text, percent) / 100,
            operation=cast("Operation | None", operation),
        )

    @property
    def wait(self) -> float:
        """The duration in seconds: ``seconds``, or the default of one second."""
        return _DEFAULT_SECONDS if self.seconds is None else self.seconds

    def applies_to(self, operation: Operation) -> bool:
        """Return whether the rule applies to requests of this operation."""
        if operation == "delete" and self.fault in _NEED_A_BODY:
            return False
        return self.operation in (None, operation)


@define
class FaultPlan:
    """A plan that selects the fault of each request: the first queued one, else a random one by the rules.

    The rules are drawn independently, in order, and the first hit is used.
    """

    rules: tuple[FaultRule, ...]
    _random: random.Random
    _queue: deque[FaultRule] = field(factory=deque, init=False)

    def queue(self, rule: FaultRule, count: int) -> None:
        """Apply the fault of ``rule`` to the next ``count`` requests that the rule applies to."""
        require_whole_number("count", count, at_least=1)
        self._queue.extend([rule] * count)

    def next_for(self, operation: Operation) -> FaultRule | None:
        """Return the rule whose fault this request gets, or ``None``."""
        for index, rule in enumerate(self._queue):
            if rule.applies_to(operation):
                del self._queue[index]
                return rule
        for rule in self.rules:
            if rule.applies_to(operation) and self._random.random() < rule.probability:
                return rule
        return None


def read_rules(rules: Iterable[FaultRule | str]) -> tuple[FaultRule, ...]:
    """Parse the rules that are given as text."""
    require_items("faults", rules, of="fault rules")
    return tuple(rule if isinstance(rule, FaultRule) else FaultRule.parse(rule) for rule in rules)


def _shown(value: object) -> str:
    return f"{value:g}" if is_number(value) else quoted(value)


def _listed(faults: Iterable[Fault]) -> str:
    return ", ".join(sorted(faults))


def _number(text: str, number: str) -> float:
    if not _NUMBER.fullmatch(number):
        raise ParameterError(f"{quoted(number)} in the fault rule {quoted(text)} is not a number")
    return float(number)
