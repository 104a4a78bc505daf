"""The record of requests: the latest ones, and counts of all. Headers are not recorded, so no keys are."""

from __future__ import annotations

from collections import Counter, deque
from typing import Final

from attrs import define, field, frozen

from datadog_caselinks.sandbox.faults import Fault

_KEPT_REQUESTS: Final = 10_000
_KEPT_CHARACTERS: Final = 500


@frozen
class RecordedRequest:
    """A request to the sandbox and its outcome.

    ``at``
        The time of the request, in seconds since the epoch.
    ``method``
        The HTTP method.
    ``path``
        The path with the query.
    ``status``
        The status of the response. ``None`` if the connection was closed before a response.
    ``fault``
        The injected fault, if any.
    ``body``
        The first 500 characters. Empty if the request was refused before its body was read.
    """

    at: float
    method: str
    path: str
    status: int | None
    fault: Fault | None
    body: str

    def __repr__(self) -> str:
        # One short line, since the report of a failed test lists many of them.
        fault = f", {self.fault}" if self.fault else ""
        return f"<{self.method} {self.path} -> {self.status or 'cut'}{fault}>"


@define
class Record:
    """The latest 10,000 requests, oldest first, and counts over all."""

    requests: deque[RecordedRequest] = field(factory=lambda: deque(maxlen=_KEPT_REQUESTS))
    statuses: Counter[int | None] = field(factory=Counter)
    faults: Counter[Fault] = field(factory=Counter)

    def add(self, request: RecordedRequest) -> None:
        """Record one request."""
        self.requests.append(request)
        self.statuses[request.status] += 1
        if request.fault is not None:
            self.faults[request.fault] += 1


def excerpt(body: bytes) -> str:
    """Return the beginning of a body as text; invalid UTF-8 is replaced."""
    return body[: 4 * _KEPT_CHARACTERS].decode("utf-8", "replace")[:_KEPT_CHARACTERS]
