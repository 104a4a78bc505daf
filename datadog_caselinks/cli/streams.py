"""The standard streams, made fit for use whoever started the command. Imports no library."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import Final

_ASCII: Final = str.maketrans("─│├└━→←↔↑↓↻■▲◉◇○◐✓…·", "-||`-><=^v@#^*~oox.-")
"""What stands for the signs that are shown beside words, where an encoding has not even those."""


class OutputError(Exception):
    """Standard output cannot be written."""


def prepare() -> None:
    """Replace the streams that are closed, and let none fail for a letter that its encoding has not."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # As >&- leaves it. Its number is taken before a socket gets it: what is written is lost, and
            # standard input is not readable.
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
            setattr(sys, name, os.fdopen(number, "w", closefd=False))
    codecs.register_error(__name__, _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=__name__)


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """Signs by others of the same width, any other letter by its number."""
    assert isinstance(error, UnicodeEncodeError)
    signs = error.object[error.start : error.end].translate(_ASCII)
    return signs.encode("ascii", "backslashreplace").decode(), error.end
