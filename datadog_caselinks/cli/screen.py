"""What a run shows: data on standard output; problems, progress and the summary on standard error."""

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

from datadog_caselinks.cli.streams import OutputError

_FIGURES: Final = TextColumn("{task.fields[failed]} failed · {task.fields[rate]:.0f}/s{task.fields[held]}")

_INTERVAL: Final = 10.0
"""Seconds between two lines of progress where there is no terminal for a bar."""


class Screen:
    """Progress is a bar where standard error is a terminal, else a line now and then; none if ``quiet``.

    ``clock`` is in seconds, monotonic.
    """

    def __init__(self, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._is_quiet = quiet
        self._unwritable: OutputError | None = None
        self._console = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)
        has_bar = self._console.is_terminal and not self._console.is_dumb_terminal
        self._progress = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            _FIGURES,
            TimeRemainingColumn(),
            console=self._console,
            disable=quiet or not has_bar,
            redirect_stdout=False,
            transient=True,
        )
        self._bar = self._progress.add_task("", total=None, failed=0, rate=0.0, held="")
        self._tells_in_lines = not quiet and not has_bar
        self._clock = clock
        self._began = self._told_at = clock()
        self._total: int | None = None
        self._before = 0
        self._held_until = 0.0

    def start(self, total: int | None, *, done: int = 0) -> None:
        """Begin a run of ``total`` steps, or of an unknown number, of which some may be ``done`` already."""
        self._began = self._told_at = self._clock()
        self._total = total
        self._before = done
        self._progress.reset(self._bar, total=total)
        self._progress.start()

    def answered(self, count: int, asked: int) -> None:
        """Show that ``count`` questions are answered, of as many as were ``asked`` so far."""
        self._total = asked
        self._progress.update(self._bar, total=asked)
        self.advance(done=count, failed=0)

    def advance(self, *, done: int, failed: int) -> None:
        """Show how far the run is: ``done`` steps, ``failed`` of them not well."""
        now = self._clock()
        rate = (done - self._before) / max(now - self._began, 1e-3)
        if now >= self._held_until:
            self._progress.update(self._bar, held="")
        self._progress.update(self._bar, completed=done, failed=failed, rate=rate)
        if self._tells_in_lines and now >= self._told_at + _INTERVAL:
            self._told_at = now
            of_all = f" of {self._total:,}" if self._total else ""
            left = f", {time_left(self._total - done, rate)}" if self._total else ""
            self.note(f"{done:,}{of_all}, {failed:,} failed, {rate:.0f}/s{left}")

    def hold(self, seconds: float) -> None:
        """Show that the rate limit holds everything for so long."""
        self._held_until = self._clock() + seconds
        until = datetime.now() + timedelta(seconds=seconds)
        self._progress.update(self._bar, held=f" · rate limit until {until:%H:%M:%S}")

    def data(self, line: str) -> None:
        """A line of the result. Raises :class:`OutputError` if it cannot be written."""
        if self._progress.live.is_started and sys.stdout.isatty():
            self._console.print(line)  # above the bar, which a plain write would tear
            return
        try:
            print(line, flush=True)  # noqa: T201 - this is where the command prints
        except OSError as error:
            # What could not be written is not to be tried once more at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if not isinstance(error, BrokenPipeError):
                self._unwritable = OutputError(f"standard output cannot be written: {error.strerror}")
            # Else whoever reads has enough ("| head"), and the links are to be made all the same.
        if self._unwritable:
            raise self._unwritable

    def problem(self, line: str) -> None:
        """A line about what went wrong."""
        self._console.print(line, style="red")

    def note(self, line: str) -> None:
        """A line about the run, unless ``quiet``."""
        if not self._is_quiet:
            self._console.print(line)

    def summary(self, line: str) -> None:
        """A line about the run that is shown in any case."""
        self._console.print(line)

    def close(self) -> None:
        """Take the bar away."""
        if self._progress.live.is_started:  # else rich before 14.3 would write an empty line
            self._progress.stop()


def time_left(steps: int, rate: float) -> str:
    """How long so many ``steps`` take at ``rate`` a second."""
    return f"{timedelta(seconds=round(steps / rate))} left" if rate else "not moving"


class Log(logging.Handler):
    """Shows what holds a run up, retries and the rate limit: all, or the first of a kind and no other."""

    def __init__(self, screen: Screen, *, all_of_a_kind: bool) -> None:
        super().__init__(logging.DEBUG)
        self._screen = screen
        self._all_of_a_kind = all_of_a_kind
        self._shown: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Show ``record``, or only if it is the first of its logger."""
        if (seconds := getattr(record, "wait_seconds", None)) is not None:
            self._screen.hold(seconds)
        message = record.getMessage()
        message = f"{message[0].upper()}{message[1:]}"
        show = self._screen.problem if record.levelno >= logging.WARNING else self._screen.note
        if self._all_of_a_kind:
            show(message)
        elif record.name not in self._shown:
            self._shown.add(record.name)
            show(f"{message} (the first of its kind; more are not shown)")
