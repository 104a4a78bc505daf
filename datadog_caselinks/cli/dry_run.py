"""The dry run of ``caselinks bulk``: shows what would happen to each line, and creates nothing."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Final

from attrs import define, field

from datadog_caselinks.bulk.create_links import AlreadyLinked, Failed, would_fail_all
from datadog_caselinks.bulk.link_files import LinkLine, MalformedLine
from datadog_caselinks.bulk.preview import Preview, WouldCreate
from datadog_caselinks.cli.files import EMPTY
from datadog_caselinks.cli.outcome_lines import OutcomeLine, OutcomeLines
from datadog_caselinks.cli.records import (
    error_record,
    label,
    link_record,
    malformed_record,
    wanted_record,
    with_keys,
)
from datadog_caselinks.cli.screen import Screen
from datadog_caselinks.client import CaseLinksClient
from datadog_caselinks.values.messages import counted
from datadog_caselinks.values.models import LinkStatus, WantedLink

_WOULD_CREATE: Final = "would_create"
_REPEATED: Final = "repeated"
_FAILURES: Final = (LinkStatus.FAILED, LinkStatus.MALFORMED)


@define
class DryRun:
    """A run that looks up the links of a file, shows what it would do, and counts that."""

    _screen: Screen
    _outcomes: OutcomeLines
    _strict: bool
    _looks_up: bool
    _counts: Counter[str] = field(factory=Counter, init=False)
    _numbers: dict[int, int] = field(factory=dict, init=False)  # of lines, by the index of the link
    _is_complete: bool = field(default=False, init=False)
    _stopped_by: str = field(default="", init=False)  # the message about an error that every line would have

    async def run(
        self,
        client: CaseLinksClient,
        lines: AsyncIterator[LinkLine | MalformedLine],
        *,
        total: int | None,
        journal: str | None,
    ) -> None:
        """Show what would happen to each of ``lines``."""
        self._screen.start(total)
        previews = client.preview_links(self._links(lines), journal=journal)
        try:
            async with contextlib.aclosing(previews) as outcomes:
                async for outcome in outcomes:
                    self._add(outcome)
                    if self._stopped_by or self._outcomes.failure:
                        break
            self._is_complete = not self._stopped_by
        finally:
            self._outcomes.release()
        if self._outcomes.failure:
            raise self._outcomes.failure

    async def _links(self, lines: AsyncIterator[LinkLine | MalformedLine]) -> AsyncIterator[WantedLink]:
        index = 0
        async for line in lines:
            if isinstance(line, MalformedLine):
                self._count(LinkStatus.MALFORMED)
                self._screen.problem(f"line {line.number}: {line.reason}")
                self._outcomes.add_record(malformed_record(line))
                continue
            self._outcomes.expect(line.new, line.number)
            self._numbers[index] = line.number
            index += 1
            yield line.new

    def _add(self, outcome: Preview) -> None:
        number = self._numbers.pop(outcome.index)
        if isinstance(outcome, Failed):
            status = str(LinkStatus.FAILED)
            shown = None
            details = error_record(outcome.error)
            message = f"line {number}: {with_keys(outcome.new, outcome.error)}"
            self._screen.problem(message)
            has_found = self._counts.total() > sum(self._counts[status] for status in _FAILURES)
            if would_fail_all(outcome.error, has_created=has_found):
                self._stopped_by = message
        else:
            details = {"link": link_record(outcome.link, {})}
            if isinstance(outcome, AlreadyLinked):
                status = LinkStatus.ALREADY_LINKED
                shown = OutcomeLine("=", outcome.new, outcome.link.id, label(status), number)
            elif isinstance(outcome, WouldCreate):
                status = _WOULD_CREATE
                shown = OutcomeLine("+", outcome.new, note=label(status), number=number)
            else:
                status = _REPEATED
                shown = OutcomeLine("=", outcome.new, note=label(status), number=number)
        self._count(status)
        record = {"line": number, "outcome": status, **wanted_record(outcome.new), **details}
        self._outcomes.add(outcome.index, record, shown)

    def _count(self, status: str) -> None:
        self._counts[status] += 1
        failed = sum(self._counts[each] for each in _FAILURES)
        self._screen.advance(done=self._counts.total(), failed=failed)

    def summarize(self) -> None:
        """Show the totals, unless the run ended before it had any."""
        if not (self._is_complete or self._counts):
            return
        totals = [f"{counted(self._counts[_WOULD_CREATE], 'link')} would be created"]
        for status in (LinkStatus.ALREADY_LINKED, _REPEATED, *_FAILURES):
            if self._counts[status]:
                totals.append(f"{self._counts[status]} {label(status)}")
        if self._stopped_by:
            reason = self._stopped_by.rstrip(".")
            self._screen.problem(f"Stopped: {reason}. Every further line would fail for the same reason.")
        elif self._strict and self._counts[LinkStatus.MALFORMED]:
            self._screen.problem("With --strict, nothing would be sent, because a line is malformed.")
        if not self._looks_up and (self._counts[LinkStatus.ALREADY_LINKED] or self._counts[_REPEATED]):
            self._screen.problem("With --no-lookup, links that exist or are repeated may be created again.")
        far = "" if self._is_complete else ", incomplete"
        self._screen.summary(f"Dry run{far}: {', '.join(totals)}. Nothing was created.")
        if not self._counts:
            self._screen.note(EMPTY)

    @property
    def exit_status(self) -> int:
        """The exit status: 1 if a line is malformed or would fail."""
        return 1 if any(self._counts[status] for status in _FAILURES) else 0
