"""The input and output files of the subcommands, and the options that say how to read the input."""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, TypedDict, TypeVar

import click

from datadog_caselinks.bulk.link_files import LinkFileFormat
from datadog_caselinks.values.errors import LinkFileError, ParameterError
from datadog_caselinks.values.messages import quoted

T = TypeVar("T")

EMPTY: Final = "The file contains no links."
"""The message about a valid file without links, such as a header alone."""


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
        help="Format of FILE. Default: by its suffix and content. For YAML on standard input, set it.",
    )
    @click.option(
        "--delimiter",
        metavar="CHARACTER",
        help="Separator of the columns of CSV. Default: the comma, semicolon or tab of the header.",
    )
    @click.option(
        "--column",
        "columns",
        metavar="COLUMN=NAME",
        multiple=True,
        help="The name in FILE of a column, if it differs, such as parent=From. Repeatable.",
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


_IRREPLACEABLE: Final = (errno.EACCES, errno.EBUSY, errno.EPERM, errno.EROFS)
"""The errors with which a file that may be writable cannot be replaced."""


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


def require_not_output(option: str, file: str | None) -> None:
    """Check that neither standard output nor standard error is written to ``file``, the value of ``option``.

    Raises:
        ParameterError: One of them is written to this regular file.
    """
    if file and os.path.isfile(file) and any(os.path.samefile(file, number) for number in (1, 2)):
        raise ParameterError(
            f"standard output or standard error is written to {file}: name another file for {option}"
        )


def require_writable(file: str) -> None:
    """Raise :class:`OSError` if ``file`` cannot be written. Its content stays unchanged."""
    if Path(file).is_fifo():
        return  # opening and closing it would end its reader
    is_new = not os.path.lexists(file)
    with open(file, "ab"):
        pass
    if is_new:
        os.unlink(file)


def write_file(file: str, text: str) -> None:
    """Write ``text`` to ``file``. After an error, a full disk for example, its content is unchanged.

    The text goes to a new file beside it, which then takes its place. Symbolic links, the mode and, where
    possible, the owner stay. A device or a pipe, such as ``/dev/stdout``, is written directly. So is a file
    that cannot be replaced: one in a read-only directory, or mounted, or open in another program on Windows.

    Raises:
        OSError: The file cannot be written.
    """
    data = text.encode("utf-8")
    try:
        if _is_stream(file):
            with contextlib.suppress(BrokenPipeError):  # its reader has read enough
                _write(file, data, "ab")
        else:
            _replace(os.path.realpath(file), data)
    except OSError as error:  # names another file, or none
        raise OSError(error.errno, error.strerror, file) from error


def _is_stream(file: str) -> bool:
    """Return whether ``file`` is a device, a pipe, or another name of an open file, such as ``/dev/fd/3``."""
    is_special = os.path.exists(file) and not os.path.isfile(file)
    return is_special or os.path.abspath(file).startswith(("/dev/std", "/dev/fd/", "/proc/"))


def _replace(file: str, data: bytes) -> None:
    aside = os.path.join(os.path.dirname(file), f".caselinks-{uuid.uuid4().hex}")
    try:
        _write(aside, data, "xb")
        if os.path.exists(file):
            _copy_owner(file, aside)
            shutil.copymode(file, aside)
        os.replace(aside, file)
    except OSError as error:
        if error.errno not in _IRREPLACEABLE or not os.path.exists(file):
            raise
        _write(file, data, "wb")
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)


def _copy_owner(source: str, target: str) -> None:
    owner = os.stat(source)
    with contextlib.suppress(AttributeError, PermissionError):  # Windows has no chown
        os.chown(target, owner.st_uid, owner.st_gid)


def _write(file: str, data: bytes, mode: str) -> None:
    with open(file, mode) as stream:
        stream.write(data)
