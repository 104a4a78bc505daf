"""Write the lines of a file that failed, each with the reason, to a file of the same form."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from attrs import frozen

from datadog_caselinks.bulk.link_csv import REASON
from datadog_caselinks.errors import ParameterError
from datadog_caselinks.messages import one_line

_OLD_REASON: Final = re.compile(rf'\s*\{{\s*"{REASON}"\s*:\s*"(?:[^"\\]|\\.)*+"\s*,?'.encode())


@frozen
class LineSource:
    """A line as written in its file.

    ``head``
        What a file of such lines begins with.
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


def rejected_yaml(text: bytes, reason: str) -> bytes:
    """Return an item of a YAML list with ``reason``, or a comment if the fields of the link are unknown."""
    return b"- " + rejected_json(text, reason) if text else f"# {reason}\n".encode()


class Rejects:
    """A file of rejected lines, used as ``with Rejects(path) as rejects``.

    Each line is written at once, so that none is lost if the process is killed. A file that exists is kept
    with ``~`` after its name. At the end, a file without lines is deleted.

    Args:
        path: The file to write.

    Raises:
        OSError: The file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path: Path = Path(path)
        self.count: int = 0

    def require_not(self, other: int | str) -> None:
        """Check that neither the file nor its backup is ``other``, a path or a file descriptor.

        Raises:
            ParameterError: It is the same file.
        """
        for path in (self.path, self._backup):
            with contextlib.suppress(OSError):  # such as a file that does not exist
                if os.path.samestat(os.stat(path), os.stat(other)):
                    raise ParameterError(f"rejected lines must not overwrite {path}, which this run uses")

    @property
    def _backup(self) -> Path:
        return Path(f"{self.path}~")

    def __enter__(self) -> Self:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISREG(self.path.stat().st_mode):
                self.path.replace(self._backup)
        self._file = open(self.path, "ab", buffering=0)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if not self.count and self.path.is_file():
            self.path.unlink()

    def add(self, source: LineSource, reason: str) -> None:
        """Write one line.

        Raises:
            OSError: It cannot be written.
        """
        line = source.rejected(reason)
        self._write(line if self.count else source.head + line)
        self.count += 1

    def _write(self, line: bytes) -> None:
        while line:
            line = line[self._file.write(line) :]
