"""The file that a subcommand reads."""

from __future__ import annotations

import contextlib
import io


def opened(file: str) -> contextlib.AbstractContextManager[io.RawIOBase]:
    """``file``, or standard input for -, unbuffered. Raises :class:`OSError` if it cannot be opened."""
    if file == "-":
        return io.FileIO(0, closefd=False)
    return open(file, "rb", buffering=0)
