"""Files of links, CSV or JSON Lines: each line is a link or the reason why it is none. Knows no HTTP."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import csv
import io
import json
import threading
from collections.abc import AsyncGenerator, Mapping
from typing import Final

from attrs import define, field, frozen

from datadog_caselinks.errors import InvalidLinkError, LinkFileError
from datadog_caselinks.models import Entity, EntityType, NewCaseLink

COLUMNS: Final = ("parent_id", "parent_type", "relationship", "child_id", "child_type")
"""The columns of a CSV file and the keys of a JSON line. The types may be missing, and default to CASE."""

MAX_LINE: Final = 65_536
"""Bytes of the longest line that is read: a link takes some 150."""

_REQUIRED: Final = ("parent_id", "relationship", "child_id")


@frozen
class LinkLine:
    """A line that holds a link. ``number`` counts from 1."""

    number: int
    new: NewCaseLink


@frozen
class MalformedLine:
    """A line that holds none, and why. ``number`` counts from 1."""

    number: int
    reason: str


async def read_link_file(file: io.RawIOBase) -> AsyncGenerator[LinkLine | MalformedLine, None]:
    """Read the links of ``file``, an unbuffered binary stream: ``open(path, "rb", buffering=0)``.

    A file whose first line begins with ``{`` is JSON Lines, any other is CSV with a header; both take
    the names in :data:`COLUMNS` and ignore others, and both are UTF-8. Blank lines are skipped. Memory is
    bounded however long the file, and the event loop runs on while a pipe is waited for.

    Raises :class:`LinkFileError` for a file that is empty, is not text, or has not the columns.
    """
    parser = _Parser()
    number = 0
    async for line in _lines(file):
        number += 1
        if parsed := parser.parse(number, line):
            yield parsed
    if not parser.has_begun:
        raise LinkFileError("the file is empty: it needs a header and a line for each link")


def count_links(file: io.RawIOBase) -> int:
    """How many links ``file``, which must be seekable, seems to hold: its lines but the blank and the header.

    Leaves ``file`` at its beginning.
    """
    lines = io.BufferedReader(file, MAX_LINE)
    first = next((line for line in lines if line.strip()), b"")
    count = sum(1 for line in lines if line.strip()) + _is_json(first)
    lines.detach().seek(0)
    return count


async def _lines(file: io.RawIOBase) -> AsyncGenerator[bytes, None]:
    """The lines of ``file``; of one that is too long, its beginning."""
    rest, is_skipping = b"", False
    async for chunk in _chunks(file):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if not is_skipping:
                yield line
            is_skipping = False
        if len(rest) > MAX_LINE:
            if not is_skipping:
                yield rest
            rest, is_skipping = b"", True
    if rest and not is_skipping:
        yield rest


async def _chunks(file: io.RawIOBase) -> AsyncGenerator[bytes, None]:
    """What ``file`` holds, read by threads that do not keep the program from ending.

    The loop's own executor would: Ctrl-C had to wait for the next line of a terminal or pipe.
    """
    loop = asyncio.get_running_loop()

    def read(chunk: asyncio.Future[bytes]) -> None:
        try:
            result: bytes | OSError = file.read(MAX_LINE) or b""
        except OSError as error:
            result = error
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(_settle, chunk, result)

    while True:
        chunk: asyncio.Future[bytes] = loop.create_future()
        threading.Thread(target=read, args=(chunk,), daemon=True, name="caselinks-read").start()
        if not await chunk:
            return
        yield chunk.result()


def _settle(chunk: asyncio.Future[bytes], result: bytes | OSError) -> None:
    if chunk.cancelled():
        return
    if isinstance(result, OSError):
        chunk.set_exception(result)
    else:
        chunk.set_result(result)


@define
class _Parser:
    """What the first line has told: that it is JSON, or the columns of a CSV file."""

    has_begun: bool = field(default=False, init=False)
    _columns: list[str] | None = field(default=None, init=False)

    def parse(self, number: int, line: bytes) -> LinkLine | MalformedLine | None:
        """What one line holds; ``None`` for a blank one and the header."""
        if not self.has_begun:
            text = _first_text(line)
            if not text.strip():
                return None
            self.has_begun = True
            if _is_json(line):
                return _parsed(number, text, None)
            self._columns = _header(text)
            return None
        try:
            text = line.decode()
        except UnicodeDecodeError:
            return MalformedLine(number, "is not UTF-8 text")
        return _parsed(number, text, self._columns) if text.strip() else None


def _parsed(number: int, text: str, columns: list[str] | None) -> LinkLine | MalformedLine:
    try:
        return LinkLine(number, _link(_json_row(text) if columns is None else _csv_row(text, columns)))
    except (InvalidLinkError, LinkFileError) as error:
        return MalformedLine(number, str(error))


def _is_json(first_line: bytes) -> bool:
    return first_line.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{")


def _first_text(line: bytes) -> str:
    if line.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise LinkFileError("the file is UTF-16: save it as UTF-8")
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise LinkFileError("the file is binary, not text: it must be CSV or JSON Lines in UTF-8")
    return text


def _header(text: str) -> list[str]:
    columns = [name.strip().lower() for name in _csv_fields(text)]
    missing = [name for name in _REQUIRED if name not in columns]
    if not missing:
        return columns
    if text.lstrip().startswith("["):
        hint = "it looks like a JSON array: write one object a line instead"
    elif ";" in text or "\t" in text:
        hint = "the columns must be separated by commas"
    else:
        hint = f"the first line must name the columns {','.join(COLUMNS)}"
    raise LinkFileError(f"the header lacks {', '.join(missing)}: {hint}")


def _csv_fields(text: str) -> list[str]:
    # Line by line: one unbalanced quotation mark must not swallow the lines that follow.
    if len(text) > MAX_LINE:
        raise LinkFileError(f"is longer than {MAX_LINE} bytes")
    try:
        return next(csv.reader([text.strip("\r\n")], strict=True))
    except csv.Error as error:
        raise LinkFileError(f"is no CSV: {error}") from None


def _csv_row(text: str, columns: list[str]) -> dict[str, str]:
    fields = _csv_fields(text)
    if len(fields) > len(columns):
        raise LinkFileError(f"has {len(fields)} columns, and the header {len(columns)}")
    return {name: value.strip() for name, value in zip(columns, fields, strict=False) if value.strip()}


def _json_row(text: str) -> Mapping[str, object]:
    if len(text) > MAX_LINE:
        raise LinkFileError(f"is longer than {MAX_LINE} bytes")
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LinkFileError(f"is no JSON: {error}") from None
    if not isinstance(row, dict):
        raise LinkFileError("is no JSON object")
    return row


def _link(row: Mapping[str, object]) -> NewCaseLink:
    if missing := [name for name in _REQUIRED if name not in row]:
        raise LinkFileError(f"lacks {', '.join(missing)}")
    values = {"parent_type": EntityType.CASE, "child_type": EntityType.CASE, **row}
    if odd := [name for name in COLUMNS if not isinstance(values[name], str)]:
        raise LinkFileError(f"{odd[0]} must be a string")
    text = {name: str(values[name]) for name in COLUMNS}
    return NewCaseLink(
        Entity(text["parent_id"], text["parent_type"].upper()),
        text["relationship"].upper(),
        Entity(text["child_id"], text["child_type"].upper()),
    )
