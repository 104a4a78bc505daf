"""The choices of a sandbox where the API documentation is ambiguous."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

from attrs import field, frozen

from datadog_caselinks.values.errors import ParameterError
from datadog_caselinks.values.messages import quoted
from datadog_caselinks.values.parameters import is_number

Duplicates = Literal["allow", "conflict", "bad-request"]
Buckets = Literal["shared", "separate"]
ErrorFormat = Literal["mixed", "strings", "objects", "generic"]
UnknownCases = Literal["allow", "not-found"]
MalformedIds = Literal["bad-request", "not-found"]
IncidentSearch = Literal["slug", "public-id", "text", "all"]


def _one_of(allowed: tuple[str, ...]) -> Any:
    def check(_: object, attribute: Any, value: object) -> None:
        if value not in allowed:
            raise ParameterError(f"{attribute.name} must be one of {', '.join(allowed)}, not {quoted(value)}")

    return check


def _seconds(_: object, attribute: Any, value: float) -> None:
    if not is_number(value) or not 0 <= value < math.inf:
        raise ParameterError(f"{attribute.name} must be seconds, at least 0, not {quoted(value)}")


@frozen(kw_only=True)
class Variant:
    """A set of choices where the API documentation is ambiguous; :class:`Sandbox` documents each of them.

    Raises:
        ParameterError: A value is invalid.
    """

    duplicates: Duplicates = field(default="allow", validator=_one_of(get_args(Duplicates)))
    list_lag: float = field(default=0.0, validator=_seconds)
    buckets: Buckets = field(default="shared", validator=_one_of(get_args(Buckets)))
    error_format: ErrorFormat = field(default="mixed", validator=_one_of(get_args(ErrorFormat)))
    unknown_cases: UnknownCases = field(default="allow", validator=_one_of(get_args(UnknownCases)))
    malformed_ids: MalformedIds = field(default="bad-request", validator=_one_of(get_args(MalformedIds)))
    incident_search: IncidentSearch = field(default="slug", validator=_one_of(get_args(IncidentSearch)))
