"""What the sandbox has seen: the latest requests, and counts of all. Is given no headers: no keys."""

from __future__ import annotations

from collections import Counter, deque
from typing import Final

from attrs import define, field, frozen

from datadog_caselinks.sandbox.faults import Fault

_KEPT_REQUESTS: Final = 10_000
_KEPT_CHARACTERS: Final = 500


@frozen
class RecordedRequest:
    """One request and what became of it.

    ``at``      seconds since the epoch
    ``path``    with the query
    ``status``  ``None`` where the connection was cut before an answer
    ``fault``   the fault that it suffered, if any
    ``body``    the first 500 characters; empty where it was refused before its body was read
    """

    at: float
    method: str
    path: str
    status: int | None
    fault: Fault | None
    body: str

    def __repr__(self) -> str:
        # One line that says what happened, since failing tests show many of them.
        suffered = f", {self.fault}" if self.fault else ""
        return f"<{self.method} {self.path} -> {self.status or 'cut'}{suffered}>"


@define
class Record:
    """The latest 10,000 requests, oldest first, and counts over all."""

    requests: deque[RecordedRequest] = field(factory=lambda: deque(maxlen=_KEPT_REQUESTS))
    statuses: Counter[int | None] = field(factory=Counter)
    faults: Counter[Fault] = field(factory=Counter)

    def add(self, request: RecordedRequest) -> None:
        """Take down one request."""
        self.requests.append(request)
        self.statuses[request.status] += 1
        if request.fault is not None:
            self.faults[request.fault] += 1


def excerpt(body: bytes) -> str:
    """The beginning of a request's body as text, whatever its bytes are."""
    return body[: 4 * _KEPT_CHARACTERS].decode("utf-8", "replace")[:_KEPT_CHARACTERS]
