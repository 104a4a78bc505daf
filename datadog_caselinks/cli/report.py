"""What comes of the lines of a file: counted, shown as it comes, and summed up."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable

from attrs import define, field

from datadog_caselinks.bulk.create_links import AlreadyLinked, Created, Failed, Outcome, would_fail_all
from datadog_caselinks.bulk.link_files import LinkLine, MalformedLine
from datadog_caselinks.cli.interruption import RunInterruptedError
from datadog_caselinks.cli.records import Records, link_record
from datadog_caselinks.cli.screen import Screen
from datadog_caselinks.cli.streams import OutputError
from datadog_caselinks.errors import AmbiguousResultError, CaseLinksError
from datadog_caselinks.messages import counted
from datadog_caselinks.models import CaseLink
from datadog_caselinks.references import WantedLink


@define
class Report:
    """What has come of the lines of a file so far, and what of that is shown."""

    _screen: Screen
    _records: Records | None = None  # what is shown of each link, unless only the summary is wanted
    _journal: str | None = None  # its path, if the run has one
    malformed: int = field(default=0, init=False)
    interruption: RunInterruptedError | None = field(default=None, init=False)
    _created: Counter[str] = field(factory=Counter, init=False)  # by relationship
    _already: int = field(default=0, init=False)
    _failed: int = field(default=0, init=False)
    _unclear: int = field(default=0, init=False)
    _stopped_by: Exception | None = field(default=None, init=False)
    _under_way: dict[int, int] = field(factory=dict, init=False)  # line numbers, by the index of the link
    _failed_alike: list[int] = field(factory=list, init=False)  # lines that what stopped the run failed too
    _began: float = field(factory=time.monotonic, init=False)

    def start(self, total: int | None) -> None:
        """Begin with a file of ``total`` lines, if that is known."""
        self._screen.start(total)

    @property
    def is_blank(self) -> bool:
        """Whether no link has an outcome yet."""
        return not (self._done or self._failed or self._unclear)

    async def wanted(self, lines: AsyncIterator[LinkLine | MalformedLine]) -> AsyncIterator[WantedLink]:
        """The links of ``lines``, until it is known that all further ones would fail."""
        index = 0
        try:
            async for line in lines:
                if self._stopped_by:
                    return
                if isinstance(line, MalformedLine):
                    self.add(line)
                    continue
                self._under_way[index] = line.number
                index += 1
                yield line.new
        except OSError as error:
            self.stop(error, f"the file cannot be read further: {error}")

    def add(self, outcome: Outcome | MalformedLine) -> None:
        """Count ``outcome``, and show it."""
        match outcome:
            case Created():
                self._created[outcome.link.relationship] += 1
                number = self._under_way.pop(outcome.index)
                self._record(
                    number, "created", f"created {outcome.link.id}: {outcome.new}", link=outcome.link
                )
            case AlreadyLinked():
                self._already += 1
                number = self._under_way.pop(outcome.index)
                text = f"already linked by {outcome.link.id}: {outcome.new}"
                self._record(number, "already_linked", text, link=outcome.link)
            case Failed(error=AmbiguousResultError() as error):
                self._unclear += 1
                number = self._under_way.pop(outcome.index)
                self._screen.problem(f"line {number}: perhaps created: {error}")
                self._record(number, "perhaps_created", error=error)
                self._stopped_by = self._stopped_by or (error if error.during_outage else None)
            case Failed():
                self._failed += 1
                number = self._under_way.pop(outcome.index)
                self._fail(number, outcome.error)
                self._record(number, "not_created", error=outcome.error)
            case _:
                self.malformed += 1
                self._screen.problem(f"line {outcome.number}: {outcome.reason}")
                self._record(outcome.number, "malformed", error=outcome.reason)
        failed = self._failed + self._unclear + self.malformed
        self._screen.advance(done=self._done + failed, failed=failed)

    def _record(
        self,
        number: int,
        outcome: str,
        text: str = "",
        *,
        link: CaseLink | None = None,
        error: object = None,
    ) -> None:
        if self._records is None:
            return
        line = [f"line {number}: {text}"] if text else []
        told = {"link": link_record(link, {})} if link else {"error": str(error)}
        try:
            self._records.add({"line": number, "outcome": outcome, **told}, line)
        except OutputError as failure:
            for text in line:
                self._screen.problem(text)
            self.stop(failure, str(failure))

    def _fail(self, number: int, error: CaseLinksError) -> None:
        message = f"line {number}: not created: {error}"
        if not would_fail_all(error, has_created=bool(self._created)):
            self._screen.problem(message)
        elif type(error) is type(self._stopped_by):
            self._failed_alike.append(number)
        elif self._stopped_by:
            self._screen.problem(message)
        else:
            self.stop(error, message)

    def stop(self, error: Exception, message: str) -> None:
        """Take no further lines. Those under way may fail like this one, so it alone is shown."""
        if not self._stopped_by:
            self._stopped_by = error
            self._screen.problem(message)

    @property
    def _done(self) -> int:
        return self._created.total() + self._already

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._began

    def summarize(self) -> None:
        """Say what was done, what was not, and how to go on."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in self._created.most_common())
        counts = [f"{counted(self._created.total(), 'link')} created{f' ({kinds})' if kinds else ''}"]
        if self._already:
            counts.append(f"{self._already} already there")
        if self._unclear:
            counts.append(f"{self._unclear} perhaps created")
        if self._failed:
            counts.append(f"{self._failed} not created")
        if self.malformed:
            counts.append(f"{counted(self.malformed, 'line')} malformed")
        self._screen.summary(f"{', '.join(counts)}, in {self._seconds:.1f} s.")
        if self._stopped_by:
            alike = f"lines {_listed(self._failed_alike)} failed alike, and " if self._failed_alike else ""
            self._screen.problem(f"Stopped there: {alike}no later line was sent.")
            if self._under_way and not self.interruption:  # read, and held up by what stopped the run
                self._screen.problem(f"Not sent either: lines {_listed(self._under_way.values())}.")
        if self.interruption:
            lines = _listed(self._under_way.values())
            told = f"Under way or about to be: lines {lines}." if lines else "Nothing was under way."
            self._screen.problem(f"Interrupted. {told}")
        if not self.exit_status:
            return
        is_wrong = self._failed or self._unclear or self.malformed or self._stopped_by
        again = f"To go on, {'mend what is told above and ' if is_wrong else ''}run the same command again"
        if self._journal:
            self._screen.summary(f"{again}: the journal knows what is done.")
        elif self._created or self._unclear or self._under_way:
            self._screen.summary(f"{again} with --ensure: it makes only the links that are not there.")

    @property
    def exit_status(self) -> int:
        """As the help of the command lists them."""
        if self.interruption:
            return self.interruption.exit_status
        return 1 if self._failed or self._unclear or self.malformed or self._stopped_by else 0


def _listed(numbers: Iterable[int]) -> str:
    """``numbers`` in order, those in a row as a range: "2-5, 7"."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ", ".join(f"{first}-{last}" if first < last else f"{first}" for first, last in ranges)
