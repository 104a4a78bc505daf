"""The input file of a subcommand."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable
from typing import Any, Final

import click

from datadog_caselinks.bulk.link_files import LinkFileFormat
from datadog_caselinks.errors import LinkFileError

format_option: Final[Callable[[Any], Any]] = click.option(
    "--format",
    type=click.Choice([format.value for format in LinkFileFormat]),
    help="The format of FILE. By default its suffix decides; YAML on standard input needs this option.",
)


def open_input(file: str) -> contextlib.AbstractContextManager[io.RawIOBase]:
    """Open ``file``, or standard input for -, unbuffered.

    Raises:
        OSError: The file cannot be opened.
        LinkFileError: Standard input is closed.
    """
    if file == "-":
        if not sys.stdin.readable():
            raise LinkFileError("standard input is closed")
        return io.FileIO(0, closefd=False)
    return open(file, "rb", buffering=0)
