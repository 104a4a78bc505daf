"""Preparation of the standard streams, which may be closed, go away, or have a limited encoding."""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import stat
import sys
from typing import Any, Final, TextIO

import click

_ASCII: Final = str.maketrans("─│├└━→←↔↑↓↻■▲◉◇○◐✓✗…·", "-||`-><=^v@#^*~oovx.-")
"""ASCII replacements of the same width for the symbols in our output."""


_READER_GONE: Final = (errno.EPIPE, errno.ECONNRESET, errno.EINVAL)
"""The errors of a pipe or socket without a reader; Windows reports a broken pipe as ``EINVAL``."""


class OutputError(click.ClickException):
    """The command cannot write to standard output."""


class _Standard(io.RawIOBase):
    """Standard output or standard error below its buffer, where every write ends.

    A reader that has gone away, as with ``| head``, has read enough: what it does not read is dropped, and
    the work goes on. Any other error of standard output is raised once, since results would be lost. Standard
    error holds no results, so all that cannot be written to it is dropped.
    """

    def __init__(self, stream: TextIO, raw: io.RawIOBase, *, has_results: bool) -> None:
        self._stream = stream  # closes ``raw`` when it is garbage-collected
        self._raw = raw
        self._can_fail = has_results

    def writable(self) -> bool:
        """Return true, as :class:`io.BufferedWriter` requires."""
        return True

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._raw.fileno()

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return self._raw.isatty()

    def write(self, data: Any, /) -> int:
        """Write ``data`` or a part of it, or drop it. Raises :class:`OutputError`."""
        try:
            while (written := self._raw.write(data)) is None:  # full, and another program set O_NONBLOCK
                select.select([], [self._raw], [])
        except OSError as error:
            if self._can_fail and not self._is_reader_gone(error):
                self._can_fail = False  # Python tries the buffered rest again at exit
                raise OutputError(f"cannot write to standard output: {error.strerror}") from error
            return len(data)
        return written

    def _is_reader_gone(self, error: OSError) -> bool:
        if error.errno == errno.EIO:  # a terminal that was closed, or a damaged disk
            return stat.S_ISCHR(os.fstat(self.fileno()).st_mode)
        return error.errno in _READER_GONE


def prepare() -> None:
    """Replace closed streams, and characters that the encoding of a stream lacks.

    After this, :class:`OutputError` is the only error of a write.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # Closed, as by ">&-". Occupy the descriptor, or a socket would get its number. The replacement
            # discards writes and cannot be read.
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
            setattr(sys, name, os.fdopen(number, "w", closefd=False))
    codecs.register_error(__name__, _in_ascii)
    sys.stdout = _guarded(sys.stdout, has_results=True)
    sys.stderr = _guarded(sys.stderr, has_results=False)


def _guarded(stream: TextIO, *, has_results: bool) -> TextIO:
    """Return ``stream`` on top of a :class:`_Standard`, or ``stream`` itself if it is not a file."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    raw = getattr(stream.buffer, "raw", stream.buffer)
    if not isinstance(raw, io.RawIOBase):
        stream.reconfigure(errors=__name__)
        return stream
    buffer = io.BufferedWriter(_Standard(stream, raw, has_results=has_results))
    return io.TextIOWrapper(buffer, stream.encoding, __name__, line_buffering=True)


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """Replace symbols by ASCII of the same width, and other characters by their code point."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end].translate(_ASCII)
    return text.encode("ascii", "backslashreplace").decode(), error.end
