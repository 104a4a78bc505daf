"""Limit the creates and deletes of agents, and log each request with its result."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from datadog_caselinks.isolation import log
from datadog_caselinks.values.errors import CaseLinksError
from datadog_caselinks.values.messages import MAX_STORED, counted, one_line
from datadog_caselinks.values.models import WantedLink, named
from datadog_caselinks.values.rate import Rate, RateCount
from datadog_caselinks.values.references import relationship_in_words

_logger: Final = logging.getLogger(__name__)


def as_asked(wanted: WantedLink) -> str:
    """Return ``wanted`` as a sentence, such as ``SHOP-1 blocks SHOP-2``, without a lookup."""
    return f"{named(wanted.parent)} {relationship_in_words(wanted.relationship)} {named(wanted.child)}"


class Writes:
    """Admits no more links to create and delete than ``rate`` allows, over all agents, and logs each.

    A call beyond the limit is refused instead of waiting: an agent can do something else in the meantime.
    """

    def __init__(self, rate: Rate, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._count = RateCount(rate)
        self._clock = clock

    @contextlib.contextmanager
    def asked(self, action: str, links: Sequence[WantedLink]) -> Iterator[Callable[[WantedLink, str], None]]:
        """Count and log ``links``, to which ``action`` applies; yield a function that logs an outcome.

        Raises:
            CaseLinksError: The limit does not allow that many now. Nothing was written.
        """
        self._admit(action, len(links))
        pending = dict.fromkeys(links)
        for link in pending:
            log(_logger, logging.INFO, "asked to %s: %s", action, as_asked(link))

        def report(link: WantedLink, outcome: str) -> None:
            pending.pop(link, None)
            log(_logger, logging.INFO, "%s: %s: %s", action, as_asked(link), outcome)

        try:
            yield report
        except (CaseLinksError, asyncio.CancelledError) as error:
            is_error = isinstance(error, CaseLinksError)
            for link in list(pending):
                report(
                    link,
                    one_line(str(error), limit=MAX_STORED)
                    if is_error
                    else "cancelled, it may have been carried out",
                )
            raise

    def _admit(self, action: str, count: int) -> None:
        now = self._clock()
        if count > self._rate.requests:
            problem = f", and {count} were asked for: ask for fewer"
        elif wait := self._count.wait(now, count):
            problem = f": call again in {math.ceil(wait)} s"
        else:
            self._count.add(now, count)
            return
        allowed = f"{counted(self._rate.requests, 'write')} in {self._rate.seconds:g} s"
        log(
            _logger,
            logging.WARNING,
            "refused to %s %s: more than %s",
            action,
            counted(count, "link"),
            allowed,
        )
        raise CaseLinksError(f"this server allows {allowed}{problem}. Nothing was written")
