"""Terminal output: data on standard output; problems, progress and the summary on standard error."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from datadog_caselinks.cli.streams import OutputError

_NUMBERS: Final = TextColumn("{task.fields[failed]} failed · {task.fields[rate]:.0f}/s{task.fields[held]}")

_INTERVAL: Final = 10.0
"""Seconds between two lines of progress where there is no terminal."""


class Screen:
    """The output of a run.

    Progress is a bar if standard error is a terminal, else a line every ten seconds, and hidden if ``quiet``.
    ``TERM=dumb`` and ``CI`` also ask for lines. ``has_bar`` says which. ``clock`` returns monotonic seconds.
    """

    def __init__(self, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._is_quiet = quiet
        self._unwritable: OutputError | None = None
        self._console = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._results = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        # FORCE_COLOR asks for colours in a file. A bar redraws itself, which only a terminal can show; a
        # terminal of a CI job ends up in a log.
        is_watched = sys.stderr.isatty() and self._console.is_interactive and not os.environ.get("CI")
        self.has_bar: bool = not quiet and is_watched
        self._progress = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            _NUMBERS,
            TimeRemainingColumn(),
            console=self._console,
            disable=not self.has_bar,
            redirect_stdout=False,
            transient=True,
        )
        self._bar = self._progress.add_task("", total=None, failed=0, rate=0.0, held="")
        self._reports_in_lines = not quiet and not is_watched
        self._clock = clock
        self._began = self._reported_at = clock()
        self._total: int | None = None
        self._done_before = 0
        self._held_until = 0.0

    def start(self, total: int | None, *, done: int = 0) -> None:
        """Start the progress of ``total`` steps (``None`` if unknown); ``done`` of them are already done."""
        self._began = self._reported_at = self._clock()
        self._total = total
        self._done_before = done
        self._progress.reset(self._bar, total=total)
        self._progress.start()
        self._progress.refresh()

    def on_progress(self, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` requests are done, for a total that may still grow."""
        self._total = total
        self._progress.update(self._bar, total=total)
        self.advance(done=done, failed=0)

    def advance(self, *, done: int, failed: int) -> None:
        """Show that ``done`` steps are done, ``failed`` of them with a failure."""
        now = self._clock()
        rate = (done - self._done_before) / max(now - self._began, 1e-3)
        if now >= self._held_until:
            self._progress.update(self._bar, held="")
        self._progress.update(self._bar, completed=done, failed=failed, rate=rate)
        if self._reports_in_lines and now >= self._reported_at + _INTERVAL:
            self._reported_at = now
            of_all = f" of {self._total:,}" if self._total else ""
            left = f", {time_left(self._total - done, rate)}" if self._total else ""
            self.note(f"{done:,}{of_all}, {failed:,} failed, {rate:.0f}/s{left}")

    def hold(self, seconds: float) -> None:
        """Show that the rate limit delays all requests for ``seconds``."""
        self._held_until = self._clock() + seconds
        until = datetime.now() + timedelta(seconds=seconds)
        self._progress.update(self._bar, held=f" · rate limit until {until:%H:%M:%S}")

    def data(self, line: str | Text, row: str | None = None) -> None:
        """Write a line of the result, or ``row`` in its place if standard output is not for people.

        Raises :class:`OutputError` if standard output cannot be written.
        """
        if self._progress.live.is_started and sys.stdout.isatty():
            self._console.print(line)  # above the bar, which print() would garble
            return
        try:
            print(self._styled(line, row), flush=True)  # noqa: T201 - this is where the command prints
        except OutputError as error:
            self._unwritable = error
        if self._unwritable:
            raise self._unwritable

    def _styled(self, line: str | Text, row: str | None) -> str:
        if isinstance(line, str):
            return line
        if not self._results.is_terminal:
            return line.plain if row is None else row
        with self._results.capture() as captured:
            self._results.print(line, end="")
        return captured.get()

    def problem(self, line: str) -> None:
        """Write a line about a problem."""
        self._console.print(line, style="red")

    def note(self, line: str) -> None:
        """Write a line about the run, unless ``quiet``."""
        if not self._is_quiet:
            self._console.print(line)

    def summary(self, line: str) -> None:
        """Write a line about the run, even if ``quiet``."""
        self._console.print(line)

    def close(self) -> None:
        """Remove the progress bar."""
        if self._progress.live.is_started:  # otherwise rich before 14.3 writes an empty line
            self._progress.stop()


def time_left(steps: int, rate: float) -> str:
    """Describe how long ``steps`` take at ``rate`` per second."""
    return f"{timedelta(seconds=round(steps / rate))} left" if rate else "no progress"


class ScreenHandler(logging.Handler):
    """A log handler that shows retries and rate limit waits: all, or only the first of each logger."""

    def __init__(self, screen: Screen, *, show_all: bool) -> None:
        super().__init__(logging.DEBUG)
        self._screen = screen
        self._show_all = show_all
        self._shown: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Show ``record``, unless an earlier record of its logger was shown."""
        if (seconds := getattr(record, "wait_seconds", None)) is not None:
            self._screen.hold(seconds)
        message = record.getMessage()
        message = f"{message[0].upper()}{message[1:]}"
        show = self._screen.problem if record.levelno >= logging.WARNING else self._screen.note
        if self._show_all:
            show(message)
        elif record.name not in self._shown:
            self._shown.add(record.name)
            show(f"{message} (further messages of this kind are hidden; use --verbose)")
