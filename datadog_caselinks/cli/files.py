"""The file that a subcommand reads."""

from __future__ import annotations

import contextlib
import io
import sys

from datadog_caselinks.errors import LinkFileError


def opened(file: str) -> contextlib.AbstractContextManager[io.RawIOBase]:
    """``file``, or standard input for -, unbuffered.

    Raises :class:`OSError` if it cannot be opened, and :class:`LinkFileError` for standard input that is not
    there.
    """
    if file == "-":
        if not sys.stdin.readable():
            raise LinkFileError("standard input is closed")
        return io.FileIO(0, closefd=False)
    return open(file, "rb", buffering=0)
