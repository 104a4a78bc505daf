"""Preparation of the standard streams, which may be closed or have a limited encoding."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import Final

_ASCII: Final = str.maketrans("─│├└━→←↔↑↓↻■▲◉◇○◐✓…·", "-||`-><=^v@#^*~oox.-")
"""ASCII replacements of the same width for the symbols in our output."""


class OutputError(Exception):
    """The command cannot write to standard output."""


def prepare() -> None:
    """Replace closed streams, and characters that the encoding of a stream lacks."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # Closed, as by ">&-". Occupy the descriptor, or a socket would get its number. The replacement
            # discards writes and cannot be read.
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
            setattr(sys, name, os.fdopen(number, "w", closefd=False))
    codecs.register_error(__name__, _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=__name__)


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """Replace symbols by ASCII of the same width, and other characters by their code point."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end].translate(_ASCII)
    return text.encode("ascii", "backslashreplace").decode(), error.end
