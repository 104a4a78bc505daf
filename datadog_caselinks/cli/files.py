"""The file that a subcommand reads, and the option for its format."""

from __future__ import annotations

import contextlib
import io
import sys

import click

from datadog_caselinks.bulk.link_files import LinkFileFormat
from datadog_caselinks.errors import LinkFileError

format_option = click.option(
    "--format",
    type=click.Choice([format.value for format in LinkFileFormat]),
    help="The format of FILE. By default its suffix decides; YAML on standard input needs this option.",
)


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
