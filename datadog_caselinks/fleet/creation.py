"""Creation of the links of a chunk."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from datadog_caselinks.bulk.create_links import Created, Failed, Outcome, would_fail_all
from datadog_caselinks.client import CaseLinksClient
from datadog_caselinks.errors import AmbiguousResultError, CaseLinksError, ConfigurationError
from datadog_caselinks.fleet.lease import Lease
from datadog_caselinks.isolation import log
from datadog_caselinks.models import WantedLink

_logger = logging.getLogger(__name__)

OnOutcome = Callable[[int, int, Outcome], None]
"""A callback for each outcome: the number of the run, the number of the link in it, and the outcome."""


class ChunkCreation:
    """A creator of links that works on one chunk after another."""

    def __init__(self, client: CaseLinksClient, on_outcome: OnOutcome) -> None:
        self._client = client
        self._on_outcome = on_outcome
        self._has_created = False

    async def create(self, lease: Lease, stop: asyncio.Event) -> None:
        """Create links until every link of the chunk has an outcome or ``stop`` is set.

        Raises the first error that every further link would meet too. Links with such an error have no
        outcome.
        """
        site = self._client.site.api_url
        while not stop.is_set() and (pending := await lease.pending()):
            if (wanted := await lease.site()) != site:
                raise ConfigurationError(f"the links belong to {wanted}, but this worker uses {site}")
            cause = await self._create(pending, lease, stop)
            await lease.write()
            if cause:
                raise cause

    async def _create(
        self, pending: list[tuple[int, WantedLink]], lease: Lease, stop: asyncio.Event
    ) -> CaseLinksError | None:
        causes: list[CaseLinksError] = []
        client = self._client._fenced(lease.confirm)
        run = client.create_links(
            [new for _, new in pending],
            ensure=True,
            proceed=lambda _: not causes and not stop.is_set(),
        )
        async with contextlib.aclosing(run) as outcomes:
            async for outcome in outcomes:
                number, _ = pending[outcome.index]
                match outcome:
                    case Failed(error=error) if would_fail_all(error, has_created=self._has_created):
                        causes.append(error)
                        continue
                    case Failed(error=error):
                        lease.failed(number, error, is_ambiguous=isinstance(error, AmbiguousResultError))
                    case _:
                        self._has_created |= (is_new := isinstance(outcome, Created))
                        lease.linked(number, outcome.link, is_new=is_new)
                self._report(lease.run, number, outcome)
        return causes[0] if causes else None

    def _report(self, run: int, number: int, outcome: Outcome) -> None:
        try:
            self._on_outcome(run, number, outcome)
        except Exception:  # the caller's own; it must not hold up the links
            log(_logger, logging.ERROR, "on_outcome failed for link %d of run %d", number, run, exc_info=True)
