"""The links of a chunk, created by a client. Knows neither SQL nor procrastinate."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from itertools import takewhile

from datadog_caselinks.bulk.create_links import Created, Failed, Outcome, would_fail_all
from datadog_caselinks.client import CaseLinksClient
from datadog_caselinks.errors import AmbiguousResultError, CaseLinksError, ConfigurationError
from datadog_caselinks.fleet.lease import Lease
from datadog_caselinks.references import WantedLink

Tell = Callable[[int, int, Outcome], None]
"""Is called with the number of a run, the number of a link in it, and what became of that."""


class ChunkCreation:
    """Creates the links of one chunk after another by ``links``."""

    def __init__(self, links: CaseLinksClient, tell: Tell) -> None:
        self._links = links
        self._tell = tell
        self._has_created = False

    async def create(self, lease: Lease, stop: asyncio.Event) -> None:
        """Create links until each of the chunk has an outcome, or ``stop`` is set.

        Raises the first error that all further links would meet; such links have no outcome.
        """
        ours = self._links.site.api_url
        while not stop.is_set() and (pending := await lease.pending()):
            if (theirs := await lease.site()) != ours:
                raise ConfigurationError(f"the links belong to {theirs}, and this worker is for {ours}")
            cause = await self._create(pending, lease, stop)
            await lease.write()
            if cause:
                raise cause

    async def _create(
        self, pending: list[tuple[int, WantedLink]], lease: Lease, stop: asyncio.Event
    ) -> CaseLinksError | None:
        causes: list[CaseLinksError] = []
        wanted = takewhile(lambda _: not causes and not stop.is_set(), (new for _, new in pending))
        async with contextlib.aclosing(self._links.create_links(wanted, ensure=True)) as outcomes:
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
                self._tell(lease.run, number, outcome)
        return causes[0] if causes else None
