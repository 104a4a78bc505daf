"""The input file of a subcommand, and the options that say how to read it."""

from __future__ import annotations

import contextlib
import functools
import io
import sys
from collections.abc import Callable, Iterable
from typing import Any, TypedDict, TypeVar

import click

from datadog_caselinks.bulk.link_files import LinkFileFormat
from datadog_caselinks.errors import LinkFileError, ParameterError
from datadog_caselinks.messages import quoted

T = TypeVar("T")


class FileOptions(TypedDict):
    """The values of the options, as :func:`read_link_file` accepts them."""

    format: str | None
    delimiter: str | None
    columns: dict[str, str]


def with_file_options(function: Callable[..., T]) -> Any:
    """Add the options that say how to read a file to a subcommand, as its parameter ``file_options``."""

    @click.option(
        "--format",
        type=click.Choice([format.value for format in LinkFileFormat]),
        help="The format of FILE. By default its suffix decides; YAML on standard input needs this option.",
    )
    @click.option(
        "--delimiter",
        metavar="CHARACTER",
        help="What separates the columns of CSV. By default a comma, semicolon or tab, as in the header.",
    )
    @click.option(
        "--column",
        "columns",
        metavar="COLUMN=NAME",
        multiple=True,
        help="The name of a column in FILE where it differs, such as parent=From. Repeatable.",
    )
    @functools.wraps(function)
    def command(
        *arguments: Any, format: str | None, delimiter: str | None, columns: Iterable[str], **options: Any
    ) -> T:
        file_options = FileOptions(format=format, delimiter=delimiter, columns=_by_column(columns))
        return function(*arguments, file_options=file_options, **options)

    return command


def _by_column(columns: Iterable[str]) -> dict[str, str]:
    names: dict[str, str] = {}
    for given in columns:
        column, sign, name = given.partition("=")
        column = column.strip().lower()
        if not (sign and name.strip()):
            raise ParameterError(f"--column must be COLUMN=NAME, such as parent=From, not {quoted(given)}")
        if column in names:
            raise ParameterError(f"--column {column} appears twice")
        names[column] = name
    return names


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
