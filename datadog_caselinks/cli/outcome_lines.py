"""The outcomes of a bulk run on standard output: aligned lines for people, or JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from attrs import define, field, frozen
from rich.text import Text

from datadog_caselinks.cli.records import Records, label
from datadog_caselinks.cli.screen import Screen
from datadog_caselinks.cli.streams import OutputError
from datadog_caselinks.values.messages import one_line
from datadog_caselinks.values.models import LinkStatus, WantedLink
from datadog_caselinks.values.references import link_in_words

_LONGEST_DELAY: Final = 1.0
"""Seconds that a line waits at most for the lines before it."""

_MAX_WIDTH: Final = 100
"""The maximum width in characters of links that are aligned. Longer ones move their ids to the right."""

_STYLES: Final = {"✓": "green", "+": "green"}


@frozen
class OutcomeLine:
    """A line for people. ``sign`` says what happened to the link ``new``, and ``note`` says it in words.

    Without a ``note``, the link was created. ``number`` is that of the line in the file, if it is shown.
    """

    sign: str
    new: WantedLink
    link_id: str = ""
    note: str = ""
    number: int | None = None

    def text(self, width: int, number_width: int = 0) -> Text:
        """Return the line, with the id after ``width`` characters of the link, or instead with a number."""
        number = "" if self.number is None else f"line {self.number:<{number_width}}  "
        link_id = "" if number else one_line(self.link_id)  # both would not fit into 80 columns
        details = (f"  {cell}" for cell in (link_id, self.note) if cell)
        link = f" {link_in_words(self.new):<{width}}"
        sign = self.sign, _STYLES.get(self.sign, "")
        return Text.assemble((number, "dim"), sign, link, *((each, "dim") for each in details))

    def row(self) -> str:
        """Return the columns of the line for programs, separated by tabs: sign and link, id, note."""
        number = [] if self.number is None else [f"line {self.number}"]
        link = f"{self.sign} {link_in_words(self.new)}"
        return "\t".join([*number, link, one_line(self.link_id), self.note or label(LinkStatus.CREATED)])


@define
class OutcomeLines:
    """The outcomes of the links of a file.

    Lines for people are in the order of the file, as long as that delays none by more than a second. JSON is
    written at once, in the order of completion, so that a killed run loses no id.

    ``failure`` is the error of standard output, if it cannot be written. What should have been written there
    is shown on standard error then.
    """

    _screen: Screen
    _records: Records | None  # JSON; None: none
    _has_lines: bool
    failure: OutputError | None = field(default=None, init=False)
    _width: int = field(default=0, init=False)  # of the longest link so far
    _number_width: int = field(default=0, init=False)  # of the longest line number so far
    _next: int = field(default=0, init=False)  # the index of the first link whose line was not shown
    _held: dict[int, OutcomeLine | None] = field(factory=dict, init=False)  # by the index of the link
    _timer: asyncio.TimerHandle | None = field(default=None, init=False)

    def expect(self, new: WantedLink, number: int) -> None:
        """Make room for a link that was read. Links are read ahead, so that their lines are aligned."""
        if self._has_lines:
            self._width = max(self._width, min(len(link_in_words(new)), _MAX_WIDTH))
            self._number_width = max(self._number_width, len(str(number)))

    def add(self, index: int, record: Mapping[str, object], line: OutcomeLine | None = None) -> None:
        """Show the outcome of the link with this index. Without ``line``, it appears in JSON only."""
        self.add_record(record, line)
        if not self._has_lines:
            return
        self._held[index] = line
        if index < self._next:  # late: the lines after it did not wait
            self._show(self._held.pop(index))
        while self._next in self._held:
            self._show(self._held.pop(self._next))
            self._next += 1
        if self._held and not self._timer:
            self._timer = asyncio.get_running_loop().call_later(_LONGEST_DELAY, self.release)

    def add_record(self, record: Mapping[str, object], line: OutcomeLine | None = None) -> None:
        """Write ``record`` as JSON."""
        if self._records:
            try:
                self._records.add(record, [])
            except OutputError as error:
                self._fail(error, line)

    def release(self) -> None:
        """Show the lines that wait for those before them."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        for index in sorted(self._held):
            self._show(self._held.pop(index))
            self._next = index + 1

    def _show(self, line: OutcomeLine | None) -> None:
        if line:
            try:
                self._screen.data(line.text(self._width, self._number_width), line.row())
            except OutputError as error:
                self._fail(error, line)

    def _fail(self, error: OutputError, line: OutcomeLine | None) -> None:
        self.failure = error
        if line:  # so that the id of a created link is not lost
            self._screen.problem(line.text(0).plain)
