"""The pages of one search: which results are new, and when the search ends."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Final, Generic, TypeVar

from datadog_caselinks.http.envelope import IncidentPage
from datadog_caselinks.http.wire import PAGE_SIZE
from datadog_caselinks.isolation import log
from datadog_caselinks.values.messages import quoted
from datadog_caselinks.values.models import Case, Incident

_logger = logging.getLogger(__name__)

Found = TypeVar("Found", Case, Incident)

_MAX_REPEATED: Final = 10
"""Pages in a row without anything new that end a search. New cases or incidents may shift some pages."""


class Search(Generic[Found]):
    """One search for ``query``, over all its pages. The log calls the results ``noun``."""

    def __init__(self, noun: str, query: str) -> None:
        self._noun = noun
        self._query = query
        self._seen = set[str]()
        self._repeated = 0

    def new_on(self, page: Sequence[Found]) -> Iterator[Found]:
        """Yield the results on ``page`` that were on no earlier page."""
        self._repeated += 1
        for each in page:
            if each.id not in self._seen:
                self._repeated = 0
                self._seen.add(each.id)
                yield each

    def repeats_itself(self) -> bool:
        """Return whether the last pages had nothing new: then the server ignores the number of the page."""
        if self._repeated < _MAX_REPEATED:
            return False
        message = "the search for %s ends: %d pages in a row have no new %s"
        log(_logger, logging.WARNING, message, quoted(self._query), self._repeated, self._noun)
        return True


def next_offset(page: IncidentPage, offset: int) -> int | None:
    """Return the offset of the page after ``page``, which began at ``offset``; ``None`` after the last."""
    (incidents, skipped, _), total = page
    size = len(incidents) + skipped
    offset += size or PAGE_SIZE
    has_more = bool(size) if total is None else offset < total
    # The total may be wrong: after a full page, the next one is requested.
    return offset if has_more or size >= PAGE_SIZE else None
