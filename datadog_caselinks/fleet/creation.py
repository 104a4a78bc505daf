"""Creation of the links of a chunk."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable
from typing import Final

from datadog_caselinks.bulk.create_links import Created, Failed, Outcome, would_fail_all
from datadog_caselinks.client import CaseLinksClient
from datadog_caselinks.fleet.lease import Lease
from datadog_caselinks.isolation import isolated
from datadog_caselinks.values.errors import (
    AmbiguousResultError,
    CaseLinksError,
    PermissionDeniedError,
)
from datadog_caselinks.values.models import WantedLink

_logger = logging.getLogger(__name__)

OnOutcome = Callable[[int, int, Outcome], None]
"""A callback for each outcome: the number of the run, the number of the link in it, and the outcome."""

_MAX_REFUSALS: Final = 3
"""How often a 403 for one link may hold up all links. After that it is recorded as the error of this link."""


class ChunkCreation:
    """A creator of links that works on one chunk after another."""

    def __init__(self, client: CaseLinksClient, on_outcome: OnOutcome) -> None:
        self._client = client
        self._on_outcome = on_outcome
        self._has_created = False
        self._refusals: Counter[tuple[int, int]] = Counter()

    async def create(self, lease: Lease, stop: asyncio.Event) -> None:
        """Create links until every link of the chunk has an outcome or ``stop`` is set.

        Links with an error that every further link would have too get no outcome.

        Raises:
            CaseLinksError: The first of these errors.
        """
        while not stop.is_set() and (pending := await lease.pending()):
            cause = await self._create(pending, lease, stop)
            await lease.write()
            if cause:
                raise cause

    async def _create(
        self, pending: list[tuple[int, WantedLink]], lease: Lease, stop: asyncio.Event
    ) -> CaseLinksError | None:
        held: list[tuple[int, Failed]] = []
        client = self._client._fenced(lease.confirm)
        run = client.create_links(
            [new for _, new in pending],
            ensure=True,
            proceed=lambda _: not held and not stop.is_set(),
        )
        async with contextlib.aclosing(run) as outcomes:
            async for outcome in outcomes:
                number, _ = pending[outcome.index]
                if isinstance(outcome, Failed) and self._would_fail_all(lease.run, number, outcome.error):
                    held.append((number, outcome))
                else:
                    self._record(lease, number, outcome)
        causes: list[CaseLinksError] = []
        for number, failed in held:  # if another link was created since, a 403 concerns one case only
            if self._would_fail_all(lease.run, number, failed.error):
                causes.append(failed.error)
                self._refusals[lease.run, number] += isinstance(failed.error, PermissionDeniedError)
            else:
                self._record(lease, number, failed)
        return causes[0] if causes else None

    def _would_fail_all(self, run: int, number: int, error: CaseLinksError) -> bool:
        is_of_one_case = self._has_created or self._refusals[run, number] >= _MAX_REFUSALS
        return would_fail_all(error, has_created=is_of_one_case)

    def _record(self, lease: Lease, number: int, outcome: Outcome) -> None:
        if isinstance(outcome, Failed):
            is_ambiguous = isinstance(outcome.error, AmbiguousResultError)
            lease.failed(number, outcome.error, is_ambiguous=is_ambiguous)
        else:
            self._has_created |= (is_new := isinstance(outcome, Created))
            lease.linked(number, outcome.link, is_new=is_new)
        with isolated(_logger, "on_outcome failed for link %d of run %d", number, lease.run):
            self._on_outcome(lease.run, number, outcome)
