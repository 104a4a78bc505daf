"""Write the lines of a file that failed, each with the reason, to a file of the same form."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from io import FileIO
from pathlib import Path
from typing import Final, Self

from attrs import frozen

from datadog_caselinks.bulk.link_csv import REASON
from datadog_caselinks.values.errors import ParameterError
from datadog_caselinks.values.messages import one_line

_OLD_REASON: Final = re.compile(rf'\A\s*\{{\s*"{REASON}"\s*:\s*"(?:[^"\\]|\\.)*+"\s*,?'.encode())


@frozen
class LineSource:
    """A line as written in its file.

    ``head``
        The beginning of a file of such lines, such as the header of CSV.
    ``text``
        The line, without its line end.
    """

    head: bytes
    _with_reason: Callable[[bytes, str], bytes]
    text: bytes

    def rejected(self, reason: str) -> bytes:
        """Return the line with ``reason``, in the form of its file."""
        return self._with_reason(self.text, one_line(reason, limit=1000))


def rejected_json(text: bytes, reason: str) -> bytes:
    """Return a line of JSON Lines with ``reason`` as its first member, otherwise unchanged."""
    text = _OLD_REASON.sub(b"{", text, count=1).strip()
    start = json.dumps({REASON: reason})
    if not text.startswith(b"{"):
        line = json.dumps({REASON: reason, "line": text.decode(errors="replace")})
        return f"{line}\n".encode()
    rest = text[1:].lstrip()
    return start[:-1].encode() + (b"" if rest.startswith(b"}") else b", ") + rest + b"\n"


def json_of_fields(fields: Mapping[str, str]) -> bytes:
    """Return the fields of a link as JSON, without an earlier reason: YAML refuses a second one."""
    return json.dumps({name: value for name, value in fields.items() if name != REASON}).encode()


def rejected_yaml(text: bytes, reason: str) -> bytes:
    """Return an item of a YAML list with ``reason``, or a comment if the fields of the link are unknown."""
    return b"- " + rejected_json(text, reason) if text else f"# {reason}\n".encode()


class Rejects:
    """A file of rejected lines, used as ``with Rejects(path) as rejects``.

    Each line is written at once, so that none is lost if the process is killed. The file is created, or
    replaced, with the first line. A file that exists is then renamed: ``~`` or ``~2``, ``~3``, … follows its
    name. No file is overwritten or deleted.

    Args:
        path: The file to write.

    Raises:
        OSError: The file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path: Path = Path(path)
        self.count: int = 0
        self.backup: Path | None = None
        """The new name of the file that existed, once it is renamed."""
        self._target = Path(os.path.realpath(path))  # a symbolic link stays
        self._is_old = False
        self._file: FileIO | None = None

    def require_not(self, other: int | str | os.PathLike[str]) -> None:
        """Check that neither the file nor its backup is ``other``, a path or a file descriptor.

        Paths are compared also if no file exists yet.

        Raises:
            ParameterError: It is the same file.
        """
        for path in (self.path, Path(f"{self.path}~")):
            if _is_same(path, other):
                raise ParameterError(f"rejected lines must not overwrite {path}, which this run uses")

    def __enter__(self) -> Self:
        self._is_old = os.path.isfile(self.path)
        if os.path.exists(self.path) and not self._is_old:  # a pipe or a device
            self._file = open(self.path, "ab", buffering=0)
            return self
        try:
            with tempfile.TemporaryFile(dir=self._target.parent):
                pass  # so that a directory without write access is found before any line is sent
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()

    def add(self, source: LineSource, reason: str) -> None:
        """Write one line.

        Raises:
            OSError: It cannot be written.
        """
        line = source.rejected(reason)
        self._file = self._file or self._open()
        _write(self._file, line if self.count else source.head + line)
        self.count += 1

    def _open(self) -> FileIO:
        if not self._is_old:
            return open(self._target, "xb", buffering=0)  # not what appeared since, such as the journal
        if os.path.isfile(self._target) and os.path.getsize(self._target):
            self.backup = _set_aside(self._target)
        return open(self._target, "ab", buffering=0)


def _is_same(path: Path, other: int | str | os.PathLike[str]) -> bool:
    with contextlib.suppress(OSError):  # such as a file that does not exist
        if os.path.samefile(path, other):
            return True
    return not isinstance(other, int) and Path(os.path.realpath(path)) == Path(os.path.realpath(other))


def _set_aside(file: Path) -> Path:
    """Rename ``file`` to the first free backup name, and return that name."""
    number = 1
    while True:
        backup = Path(f"{file}~{number if number > 1 else ''}")
        try:
            backup.touch(exist_ok=False)  # reserves the name
        except FileExistsError:
            number += 1
        else:
            return file.replace(backup)


def _write(file: FileIO, line: bytes) -> None:
    while line:
        line = line[file.write(line) :]
