"""The report of a bulk run: shows and counts the outcome of each line of a file, then summarizes them."""

from __future__ import annotations

import math
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Collection
from typing import Final

from attrs import define, field

from datadog_caselinks.bulk.create_links import Created, Failed, Outcome, would_fail_all
from datadog_caselinks.bulk.link_files import LinkLine, MalformedLine
from datadog_caselinks.bulk.rejects import Rejects
from datadog_caselinks.cli.again import longer_wait, to_continue, to_undo
from datadog_caselinks.cli.files import EMPTY
from datadog_caselinks.cli.interruption import RunInterruptedError
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
from datadog_caselinks.values.errors import AmbiguousResultError, LinkFileError
from datadog_caselinks.values.messages import counted
from datadog_caselinks.values.models import LinkStatus, WantedLink
from datadog_caselinks.values.references import relationship_in_words

_MAX_LINES: Final = 20_000
"""Created links whose lines are remembered."""

_FAILURES = (LinkStatus.FAILED, LinkStatus.AMBIGUOUS, LinkStatus.MALFORMED)


@define
class Report:
    """The outcomes of the lines of a file so far."""

    _screen: Screen
    _outcomes: OutcomeLines
    _journal: str | None = None  # the path of the journal, if there is one
    _rejects: Rejects | None = None
    _file: str = field(default="-", kw_only=True)
    _max_wait: float = field(default=math.inf, kw_only=True)
    _site_option: str | None = field(default=None, kw_only=True)
    _has_undo_hint: bool = field(default=True, kw_only=True)
    interruption: RunInterruptedError | None = field(default=None, init=False)
    _counts: Counter[LinkStatus] = field(factory=Counter, init=False)
    _created: Counter[str] = field(factory=Counter, init=False)  # by relationship
    _stopped_by: Exception | None = field(default=None, init=False)
    _reason: str = field(default="", init=False)  # the message about what stopped the run
    _open: dict[int, LinkLine] = field(factory=dict, init=False)  # without an outcome, by the link's index
    _sent: int = field(default=0, init=False)  # links that were sent or are about to be
    _lines: OrderedDict[str, int] = field(factory=OrderedDict, init=False)  # of links created, by id
    _site: str = field(default="", init=False)
    _same_failure: list[int] = field(factory=list, init=False)  # lines with the error that stopped the run
    _began: float = field(factory=time.monotonic, init=False)

    def start(self, total: int | None, site: str) -> None:
        """Start the progress display for a file of ``total`` lines, or of an unknown length.

        ``site`` is the URL of the API, which the record of each created link has, for an undo.
        """
        self._site = site
        self._screen.start(total)

    @property
    def malformed(self) -> int:
        """The number of malformed lines."""
        return self._counts[LinkStatus.MALFORMED]

    @property
    def is_blank(self) -> bool:
        """Whether no link has an outcome yet."""
        return self._counts.total() == self.malformed

    def proceed(self, index: int) -> bool:
        """Return whether to send the link with this index; not after an error that stopped the run."""
        if self._stopped_by:
            return False
        self._sent = index + 1
        return True

    async def links(self, lines: AsyncIterator[LinkLine | MalformedLine]) -> AsyncIterator[WantedLink]:
        """Yield the links of ``lines`` until an error shows that all further links would fail."""
        index = 0
        try:
            async for line in lines:
                if self._stopped_by:
                    return
                if isinstance(line, MalformedLine):
                    self.add_malformed(line)
                    continue
                self._open[index] = line
                self._outcomes.expect(line.new, line.number)
                index += 1
                yield line.new
        except LinkFileError as error:
            if not index:
                raise
            self.stop(error, str(error))
        except OSError as error:
            self.stop(error, f"cannot read the rest of the file: {error}")

    def add(self, outcome: Outcome) -> None:
        """Count and show the outcome of one link."""
        line = self._open.pop(outcome.index)
        number = line.number
        status = outcome.status
        self._counts[status] += 1
        record = {"line": number, "outcome": status, **wanted_record(line.new)}
        if isinstance(outcome, Failed):
            self._reject(line, str(outcome.error))
            self._show_failure(line, outcome)
            self._show(outcome.index, record | error_record(outcome.error))
        else:
            shown = OutcomeLine("=", line.new, outcome.link.id, label(status))
            record |= {"link": link_record(outcome.link, {}), "found_by_lookup": outcome.found_by_lookup}
            if isinstance(outcome, Created):
                record["site"] = self._site
                self._created[outcome.link.relationship] += 1
                self._remember(outcome.link.id, number)
                note = "found by a lookup" if outcome.found_by_lookup else ""
                shown = OutcomeLine("✓", line.new, outcome.link.id, note)
            elif first := self._lines.get(outcome.link.id):
                shown = OutcomeLine("=", line.new, outcome.link.id, f"repeats line {first}")
                record["repeats_line"] = first
            self._show(outcome.index, record, shown)
        self._advance()

    def _show(self, index: int | None, record: dict[str, object], line: OutcomeLine | None = None) -> None:
        if index is None:
            self._outcomes.add_record(record)
        else:
            self._outcomes.add(index, record, line)
        self._stop_if_lost()

    def _stop_if_lost(self) -> None:
        if failure := self._outcomes.failure:
            self.stop(failure, str(failure))

    def _remember(self, link_id: str, number: int) -> None:
        """Remember the line of a link that was created, to name it if a later line repeats it."""
        self._lines[link_id] = number
        if len(self._lines) > _MAX_LINES:
            self._lines.popitem(last=False)

    def add_malformed(self, line: MalformedLine) -> None:
        """Count and show a line that is not a link."""
        self._counts[LinkStatus.MALFORMED] += 1
        self._reject(line, line.reason)
        self._screen.problem(f"line {line.number}: {line.reason}")
        self._show(None, malformed_record(line))
        self._advance()

    def _reject(self, line: LinkLine | MalformedLine, reason: str) -> None:
        """Write a line that failed to the file of rejected lines, with its number in the input."""
        if self._rejects is None or line.source is None:
            return
        known = self._rejects.backup
        try:
            self._rejects.add(line.source, f"line {line.number}: {reason}")
        except OSError as error:
            self.stop(error, f"cannot write the rejected lines: {error}")
        if self._rejects.backup != known:
            self._screen.summary(f"The earlier {self._rejects.path} was moved to {self._rejects.backup}.")

    def _advance(self) -> None:
        self._screen.advance(done=self._counts.total(), failed=self._failures)

    def _show_failure(self, line: LinkLine, outcome: Failed) -> None:
        number, error = line.number, outcome.error
        message = f"line {number}: {label(outcome.status)}: {with_keys(line.new, error)}"
        if isinstance(error, AmbiguousResultError):
            if error.during_outage and not self._stopped_by:
                self.stop(error, message)
            else:
                self._screen.problem(message)
        elif not would_fail_all(error, has_created=bool(self._created)):
            self._screen.problem(message)
        elif type(error) is type(self._stopped_by):
            self._same_failure.append(number)
        elif self._stopped_by:
            self._screen.problem(message)
        else:
            self.stop(error, message)

    def release(self) -> None:
        """Show the lines that wait for those before them."""
        self._outcomes.release()
        self._stop_if_lost()

    def stop(self, error: Exception, message: str) -> None:
        """Read no further lines, and show ``message`` unless the run was stopped already."""
        if not self._stopped_by:
            self._stopped_by = error
            self._reason = message
            self._screen.problem(message)

    @property
    def _in_flight(self) -> list[int]:
        return [line.number for index, line in self._open.items() if index < self._sent]

    @property
    def _failures(self) -> int:
        return sum(self._counts[status] for status in _FAILURES)

    def summarize(self) -> None:
        """Show the totals, what was not done, and how to continue."""
        relationships = ", ".join(
            f"{count} {relationship_in_words(name)}" for name, count in self._created.most_common()
        )
        totals = [counted(self._counts[LinkStatus.CREATED], "link") + " created"]
        if relationships:
            totals[0] += f" ({relationships})"
        for status in LinkStatus:
            if status != LinkStatus.CREATED and self._counts[status]:
                totals.append(f"{self._counts[status]} {label(status)}")
        seconds = time.monotonic() - self._began
        self._screen.summary(f"{', '.join(totals)}, in {seconds:.1f} s.")
        if self._stopped_by:
            self._screen.problem(f"Stopped: {self._stopped}.")
        elif not (self._counts or self.interruption):
            self._screen.note(EMPTY)
        if self.interruption:
            lines = self._in_flight
            in_flight = (
                f"In flight or about to be sent: {_lines(lines)}." if lines else "Nothing was in flight."
            )
            self._screen.problem(f"Interrupted. {in_flight}")
        if self.exit_status:
            self._screen.summary(self._to_continue)
        if self._created and self._has_undo_hint:
            if self._journal:
                self._screen.note(f"To undo this run: {to_undo(self._journal, self._site_option)}")
            elif not self.exit_status:  # else the last line is the command to continue
                self._screen.note("To be able to undo a run, add --journal FILE.")

    @property
    def _stopped(self) -> str:
        """Why the run stopped. The reason is repeated if other failures were shown after it."""
        stopped = "no later line was sent"
        if self._same_failure:
            stopped = f"{_lines(self._same_failure)} failed for the same reason, and {stopped}"
        if self._failures > 1:
            stopped = f"{self._reason.rstrip('.')}. {stopped[0].upper()}{stopped[1:]}"
        return stopped

    @property
    def _to_continue(self) -> str:
        """How to continue, with the command."""
        # Without lookups, a link that may exist would be created again.
        flag = "" if self._journal else "--no-lookup"
        if self._rejects and self._rejects.count and not (self._stopped_by or self.interruption):
            first = f"fix the {counted(self._rejects.count, 'line')} in {self._rejects.path}"
            file = self._file, str(self._rejects.path)
            return to_continue(first=first, file=file, flag=flag, option="--rejects")
        first = "fix the problems above" if self._failures or self._stopped_by else ""
        wait = longer_wait(self._stopped_by, self._max_wait)
        then = "the journal records what is done" if self._journal else "it creates only the missing links"
        return to_continue(then, first=wait or first, flag=flag)

    @property
    def exit_status(self) -> int:
        """The exit status, as documented in the help of the command."""
        if self.interruption:
            return self.interruption.exit_status
        return 1 if self._failures or self._stopped_by else 0


def _lines(numbers: Collection[int]) -> str:
    """Name these lines in order, with consecutive ones as a range: "lines 2-5, 7"."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    named = ", ".join(f"{first}-{last}" if first < last else f"{first}" for first, last in ranges)
    return f"{'line' if len(numbers) == 1 else 'lines'} {named}"
