"""What a run shows: data on standard output; problems, progress and the summary on standard error."""

from __future__ import annotations

import logging
import os
import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_RATE = TextColumn("{task.fields[failed]} failed · {task.fields[rate]:.0f}/s")


class Screen:
    """A bar is shown only where standard error is a terminal."""

    def __init__(self) -> None:
        self._unwritable: OSError | None = None
        self._console = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._progress = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            _RATE,
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
            redirect_stdout=False,
            transient=True,
        )
        self._bar = self._progress.add_task("", total=None, failed=0, rate=0.0)

    def start(self, total: int | None) -> None:
        """Begin a run of ``total`` links, or of an unknown number."""
        self._progress.update(self._bar, total=total)
        self._progress.start()

    def advance(self, *, done: int, failed: int, seconds: float) -> None:
        """Show how far the run is after so many seconds."""
        self._progress.update(self._bar, completed=done, failed=failed, rate=done / max(seconds, 1e-3))

    def data(self, line: str) -> None:
        """A line of the result. Raises :class:`OSError` if it cannot be written."""
        if self._progress.live.is_started and sys.stdout.isatty():
            self._console.print(line)  # above the bar, which a plain write would tear
            return
        try:
            print(line, flush=True)  # noqa: T201 - this is where the command prints
        except OSError as error:
            # What could not be written is not to be tried once more at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if not isinstance(error, BrokenPipeError):
                self._unwritable = error
            # Else whoever reads has enough ("| head"), and the links are to be made all the same.
        if self._unwritable:
            raise self._unwritable

    def problem(self, line: str) -> None:
        """A line about what went wrong."""
        self._console.print(line, style="red")

    def note(self, line: str) -> None:
        """A line about the run."""
        self._console.print(line)

    def close(self) -> None:
        """Take the bar away."""
        self._progress.stop()


class Log(logging.Handler):
    """Shows what holds a run up, retries and the rate limit: all, or the first of a kind and no other."""

    def __init__(self, screen: Screen, *, all_of_a_kind: bool) -> None:
        super().__init__(logging.DEBUG)
        self._screen = screen
        self._all_of_a_kind = all_of_a_kind
        self._shown: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Show ``record``, or only if it is the first of its logger."""
        message = record.getMessage()
        message = f"{message[0].upper()}{message[1:]}"
        if self._all_of_a_kind:
            self._screen.note(message)
        elif record.name not in self._shown:
            self._shown.add(record.name)
            self._screen.note(f"{message} (the first of its kind; more are not shown)")
