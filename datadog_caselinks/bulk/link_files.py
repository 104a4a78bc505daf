"""Read files of links in CSV, JSON Lines or YAML: each line is a link, or the reason why it is not one."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import csv
import io
import itertools
import json
import os
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from functools import partial
from pathlib import PurePath
from typing import Final

from attrs import define, field, frozen

from datadog_caselinks.errors import InvalidLinkError, LinkFileError, ParameterError
from datadog_caselinks.messages import quoted
from datadog_caselinks.models import EntityType, LinkStatus
from datadog_caselinks.parameters import require
from datadog_caselinks.references import WantedLink, parse_link, parse_reference
from datadog_caselinks.sites import Site

COLUMNS: Final = ("parent", "parent_type", "relationship", "child", "child_type")
"""The columns of a CSV file and the keys of a JSON line.

The types are optional and default to CASE. ``parent_id`` and ``child_id`` are accepted as well.
"""

MAX_LINE: Final = 65_536
"""The maximum length of a line in bytes. A link takes about 150."""

MAX_YAML: Final = 1_048_576
"""The maximum size of a YAML file in bytes, about 25,000 links: it is held in memory as a whole."""

_REQUIRED: Final = ("parent", "relationship", "child")
_ALIASES: Final = {"parent_id": "parent", "child_id": "child"}


class LinkFileFormat(StrEnum):
    """The format of a file of links. ``JSONL`` is JSON Lines: one object on each line."""

    CSV = "csv"
    JSONL = "jsonl"
    YAML = "yaml"


_SUFFIXES: Final = {
    ".csv": LinkFileFormat.CSV,
    ".jsonl": LinkFileFormat.JSONL,
    ".ndjson": LinkFileFormat.JSONL,
    ".yaml": LinkFileFormat.YAML,
    ".yml": LinkFileFormat.YAML,
}


@frozen
class LinkLine:
    """A line that describes a link. ``number`` counts from 1."""

    number: int
    new: WantedLink


@frozen
class MalformedLine:
    """A line that does not describe a link, and the reason. ``number`` counts from 1."""

    number: int
    reason: str

    @property
    def status(self) -> LinkStatus:
        """Return ``LinkStatus.MALFORMED``."""
        return LinkStatus.MALFORMED


async def read_link_file(
    file: io.RawIOBase, *, format: LinkFileFormat | str | None = None, site: Site | None = None
) -> AsyncGenerator[LinkLine | MalformedLine, None]:
    """Read the links of ``file``, an unbuffered binary stream: ``open(path, "rb", buffering=0)``.

    Every format is UTF-8. CSV has a header, and JSON Lines an object on each line, with the names in
    :data:`COLUMNS`; other names are ignored. YAML is a list of such objects, or a mapping from parents to
    relationships to children, and needs the extra ``yaml``. Blank lines are skipped. Memory is bounded for
    files of any length, and the event loop is not blocked while reading from a pipe.

    Args:
        file: The stream to read.
        format: The format, ``csv``, ``jsonl`` or ``yaml``. By default, the suffix of ``file.name`` decides;
            without a known suffix, the file is JSON Lines if its first character is ``{``, else CSV.
        site: The site that URLs must belong to. By default, any site.

    Returns:
        A :class:`LinkLine` or a :class:`MalformedLine` for each line except the header and blank lines. The
        ends of a link have the forms that :func:`parse_reference` accepts.

    Raises:
        LinkFileError: The file is empty, is not text, lacks a required column, is not valid YAML, has a
            duplicate key in YAML, or is a YAML file of more than 1 MiB.
        ParameterError: The format is unknown, or an argument has the wrong type.
        OSError: The file cannot be read.
    """
    if isinstance(file, io.TextIOBase) or not hasattr(file, "read"):
        raise ParameterError(
            'file must be a binary stream such as open(path, "rb", buffering=0), not ' + quoted(file)
        )
    if site is not None:
        require("site", site, Site, "a Site, such as Site.EU1")
    lines = _Lines()
    parser = _Parser(_format_of(file, format), site)
    async for chunk in _chunks(file):
        for number, line in lines.split(chunk):
            if parsed := parser.parse(number, line):
                yield parsed
    for number, line in lines.last():
        if parsed := parser.parse(number, line):
            yield parsed
    if not parser.has_begun:
        raise LinkFileError("the file is empty: it must contain at least a header or a link")
    if parser.document:
        for parsed in await asyncio.to_thread(parser.document.lines, site):
            yield parsed


def count_links(file: io.RawIOBase, *, format: LinkFileFormat | str | None = None) -> int | None:
    """Return how many lines :func:`read_link_file` will yield, or ``None`` for YAML.

    ``file`` must be seekable; its position does not change. In YAML, lines and links are not the same.
    """
    known = _format_of(file, format)
    if known is LinkFileFormat.YAML:
        return None
    begin = file.tell()
    lines = _Lines()
    count = 0
    for chunk in itertools.chain(iter(lambda: file.read(MAX_LINE) or b"", b""), [b"\n"]):
        for _, line in lines.split(chunk):
            known = known or _assumed_format(line)
            count += 1
    file.seek(begin)
    return count - (known is LinkFileFormat.CSV and count > 0)


def _format_of(file: io.RawIOBase, format: LinkFileFormat | str | None) -> LinkFileFormat | None:
    """Return the given format, or the format of the suffix of the file's name, if it is known."""
    if format is not None:
        try:
            return LinkFileFormat(format)
        except ValueError:
            known = ", ".join(LinkFileFormat)
            raise ParameterError(f"format must be one of {known}, not {quoted(format)}") from None
    name = getattr(file, "name", None)
    return (
        _SUFFIXES.get(PurePath(os.fsdecode(name)).suffix.lower()) if isinstance(name, str | bytes) else None
    )


def _assumed_format(first_line: bytes) -> LinkFileFormat:
    return LinkFileFormat.JSONL if first_line.lstrip().startswith(b"{") else LinkFileFormat.CSV


@define
class _Lines:
    """A splitter of chunks into numbered lines, without blank lines.

    It keeps at most ``MAX_LINE`` + 1 bytes of a line, enough to see that the line is too long.
    """

    _number: int = field(default=0, init=False)
    _partial: bytes = field(default=b"", init=False)

    def split(self, chunk: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield the number and content of each line that ends in ``chunk``."""
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            self._keep(piece)
            yield from self.last()
        self._keep(rest)

    def last(self) -> Iterator[tuple[int, bytes]]:
        """Yield the unfinished line, unless it is blank."""
        self._number += 1
        line, self._partial = self._partial, b""
        if self._number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if line.strip():
            yield self._number, line

    def _keep(self, piece: bytes) -> None:
        self._partial += piece[: MAX_LINE + 1 - len(self._partial)]


async def _chunks(file: io.RawIOBase) -> AsyncGenerator[bytes, None]:
    """Yield the content of ``file``, read in daemon threads.

    Threads of the event loop's executor would delay the exit: Ctrl-C would have to wait for the next line
    of a terminal or pipe.
    """
    loop = asyncio.get_running_loop()

    def read(chunk: asyncio.Future[bytes]) -> None:
        result: bytes | Exception | None
        try:
            result = file.read(MAX_LINE)
        except Exception as error:  # any error belongs to the waiting task
            result = error
        if result is None:
            result = BlockingIOError("the file is in non-blocking mode and has no data yet")
        with contextlib.suppress(RuntimeError):  # the loop was closed while reading
            loop.call_soon_threadsafe(_settle, chunk, result)

    while True:
        chunk: asyncio.Future[bytes] = loop.create_future()
        threading.Thread(target=read, args=(chunk,), daemon=True, name="caselinks-read").start()
        if not await chunk:
            return
        yield chunk.result()


def _settle(chunk: asyncio.Future[bytes], result: bytes | Exception) -> None:
    if chunk.cancelled():
        return
    if isinstance(result, Exception):
        chunk.set_exception(result)
    else:
        chunk.set_result(result)


@define
class _Parser:
    """A parser of lines in one format; without one, the first line decides between JSON Lines and CSV."""

    _format: LinkFileFormat | None
    _site: Site | None
    has_begun: bool = field(default=False, init=False)
    document: _YamlDocument | None = field(default=None, init=False)
    _columns: list[str] | None = field(default=None, init=False)

    def parse(self, number: int, line: bytes) -> LinkLine | MalformedLine | None:
        """Parse one line; return ``None`` for the header, and for YAML, which is parsed as a whole."""
        if not self.has_begun:
            _require_text(line)
            self.has_begun = True
            self._format = self._format or _assumed_format(line)
            if self._format is LinkFileFormat.YAML:
                self.document = _YamlDocument()
            elif self._format is LinkFileFormat.CSV:
                self._columns = _header(line)
                return None
        if self.document:
            self.document.add(number, line)
            return None
        return _line(number, lambda: self._row(_text(line)), self._site)

    def _row(self, text: str) -> Mapping[str, object]:
        return _json_row(text) if self._columns is None else _csv_row(text, self._columns)


@define
class _YamlDocument:
    """The lines of a YAML file, which is parsed once it is complete."""

    _text: list[str] = field(factory=list, init=False)
    _size: int = field(default=0, init=False)
    _lines: int = field(default=0, init=False)

    def add(self, number: int, line: bytes) -> None:
        """Add a line, and the blank lines skipped before it."""
        skipped = number - self._lines - 1
        self._size += skipped + len(line) + 1
        if self._size > MAX_YAML:
            raise LinkFileError(
                f"the file is longer than {MAX_YAML} bytes, the limit for YAML: use CSV instead"
            )
        try:
            self._text.append("\n" * skipped + _text(line))
        except LinkFileError as error:
            raise LinkFileError(f"line {number} {error}") from None
        self._lines = number

    def lines(self, site: Site | None) -> list[LinkLine | MalformedLine]:
        """Parse the document, and return its links."""
        try:
            from datadog_caselinks.bulk.link_yaml import read_rows  # imported lazily: PyYAML is optional
        except ImportError:
            raise LinkFileError(
                "the file is YAML, and PyYAML is not installed: pip install 'datadog_caselinks[yaml]'"
            ) from None
        rows = read_rows("\n".join(self._text))
        return [_line(row.number, partial(_yaml_row, row.fields), site) for row in rows]


def _line(
    number: int, read_row: Callable[[], Mapping[str, object]], site: Site | None
) -> LinkLine | MalformedLine:
    try:
        return LinkLine(number, _link(read_row(), site))
    except (InvalidLinkError, LinkFileError) as error:
        return MalformedLine(number, str(error))


def _require_text(first_line: bytes) -> None:
    if first_line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise LinkFileError("the file is UTF-16: save it as UTF-8")
    try:
        # Incrementally: a line that is too long may be cut within a character.
        is_text = "\0" not in codecs.getincrementaldecoder("utf-8")().decode(first_line)
    except UnicodeDecodeError:
        is_text = False
    if not is_text:
        raise LinkFileError("the file is binary, not text: it must be CSV, JSON Lines or YAML in UTF-8")


def _text(line: bytes) -> str:
    if len(line) > MAX_LINE:
        raise LinkFileError(f"is longer than {MAX_LINE} bytes")
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise LinkFileError("is not UTF-8 text") from None


def _header(line: bytes) -> list[str]:
    if line.lstrip().startswith(b"["):
        raise LinkFileError("the file looks like a JSON array: write one object on each line instead")
    try:
        columns = [_column(name.strip().lower()) for name in _csv_fields(_text(line))]
    except LinkFileError as error:
        raise LinkFileError(f"the header {error}") from None
    if twice := [name for name in COLUMNS if columns.count(name) > 1]:
        raise LinkFileError(f"the header contains {twice[0]} twice")
    missing = [name for name in _REQUIRED if name not in columns]
    if not missing:
        return columns
    if b";" in line or b"\t" in line:
        hint = "separate the columns with commas"
    else:
        hint = (
            f"the first line of CSV must contain the columns {','.join(_REQUIRED)}; "
            "if the file is not CSV, specify its format"
        )
    raise LinkFileError(f"the header lacks {', '.join(missing)}: {hint}")


def _csv_fields(text: str) -> list[str]:
    line = text.strip("\r\n")
    if "\r" in line:
        raise LinkFileError("contains a carriage return: save the file with Unix or Windows line endings")
    # Line by line, so that an unbalanced quotation mark does not affect the following lines.
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error as error:
        reason = str(error).replace("unexpected end of data", "a quoted field does not end on its line")
        raise LinkFileError(f"is not valid CSV: {reason}") from None


def _csv_row(text: str, columns: list[str]) -> dict[str, str]:
    fields = _csv_fields(text)
    if len(fields) > len(columns):
        raise LinkFileError(f"has {len(fields)} columns, but the header has {len(columns)}")
    return {name: value.strip() for name, value in zip(columns, fields, strict=False) if value.strip()}


def _json_row(text: str) -> Mapping[str, object]:
    try:
        row = json.loads(text, object_pairs_hook=tuple)  # keeps duplicate names
    except (ValueError, RecursionError) as error:
        raise LinkFileError(f"is not valid JSON: {error}") from None
    if not isinstance(row, tuple):
        raise LinkFileError("is not a JSON object")
    return _named(row)


def _yaml_row(fields: Mapping[str, str] | str) -> Mapping[str, object]:
    if isinstance(fields, str):
        raise LinkFileError(fields)
    return _named(fields.items())


def _named(row: Iterable[tuple[str, object]]) -> Mapping[str, object]:
    """Return the values by column; a column of a link must not appear twice."""
    values: dict[str, object] = {}
    for name, value in row:
        column = _column(name)
        if column in values and column in COLUMNS:
            raise LinkFileError(f"contains {column} twice")
        values[column] = value
    return values


def _column(name: str) -> str:
    return _ALIASES.get(name, name)


def _link(row: Mapping[str, object], site: Site | None) -> WantedLink:
    if missing := [name for name in _REQUIRED if name not in row]:
        raise LinkFileError(f"lacks {', '.join(missing)}")
    values = {"parent_type": EntityType.CASE, "child_type": EntityType.CASE, **row}
    if odd := [name for name in COLUMNS if not isinstance(values[name], str)]:
        raise LinkFileError(f"{odd[0]} must be a string")
    text = {name: str(values[name]) for name in COLUMNS}
    parent, child = (
        parse_reference(text[end], site=site, type=text[f"{end}_type"].upper()) for end in ("parent", "child")
    )
    return parse_link(parent, text["relationship"], child)
