"""Read files of links in CSV, JSON Lines or YAML: each line is a link, or the reason why it is not one."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import io
import json
import logging
import os
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from functools import partial
from pathlib import PurePath
from typing import Final

from attrs import define, field, frozen

from datadog_caselinks.bulk.columns import COLUMNS, REQUIRED, ColumnNames
from datadog_caselinks.bulk.link_csv import MAX_LINE, CsvRow, CsvRows, not_text, require_delimiter
from datadog_caselinks.bulk.rejects import LineSource, json_of_fields, rejected_json, rejected_yaml
from datadog_caselinks.isolation import log
from datadog_caselinks.values.errors import InvalidLinkError, LinkFileError, ParameterError
from datadog_caselinks.values.messages import needs_extra, quoted
from datadog_caselinks.values.models import EntityType, LinkStatus, WantedLink
from datadog_caselinks.values.parameters import require
from datadog_caselinks.values.references import parse_link, parse_reference
from datadog_caselinks.values.sites import Site

_logger = logging.getLogger(__name__)

MAX_YAML: Final = 1_048_576
"""The maximum size of a YAML file in bytes, about 25,000 links: it is held in memory as a whole."""


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
    """A line that describes a link.

    ``number``
        The number of the line, from 1.
    ``new``
        The link.
    ``source``
        The line as written. ``source.rejected(reason)`` returns it for a file of lines to fix and read again.
    """

    number: int
    new: WantedLink
    source: LineSource | None = field(default=None, eq=False, repr=False)


@frozen
class MalformedLine:
    """A line that does not describe a link.

    ``number``
        The number of the line, from 1.
    ``reason``
        The reason.
    ``source``
        The line as written, as for :class:`LinkLine`.
    """

    number: int
    reason: str
    source: LineSource | None = field(default=None, eq=False, repr=False)

    @property
    def status(self) -> LinkStatus:
        """Return ``LinkStatus.MALFORMED``."""
        return LinkStatus.MALFORMED


async def read_link_file(
    file: io.RawIOBase,
    *,
    format: LinkFileFormat | str | None = None,
    site: Site | None = None,
    delimiter: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> AsyncGenerator[LinkLine | MalformedLine, None]:
    """Read the links of ``file``, an unbuffered binary stream: ``open(path, "rb", buffering=0)``.

    Every format is UTF-8, or UTF-16 with a byte order mark. CSV has a header, and JSON Lines an object on
    each line, with the names in :data:`COLUMNS`; other names are ignored. YAML is a list of such objects, or
    a mapping from parents to relationships to children, and needs the extra ``yaml``. Blank lines, and empty
    rows and comments in CSV, are skipped; the number of comments is logged. Memory is bounded for files of
    any length, and the event loop is not blocked while reading from a pipe.

    Args:
        file: The stream to read.
        format: The format, ``csv``, ``jsonl`` or ``yaml``. By default, the suffix of ``file.name`` decides;
            without a known suffix, the file is JSON Lines if its first character is ``{``, else CSV.
        site: The site that URLs must belong to. By default, any site.
        delimiter: The character between the cells of CSV. By default, a comma, a semicolon or a tab is found
            from the header, or another character from a first line such as ``sep=|``.
        columns: The names of columns in the file where they differ: ``{"parent": "From", "child": "To"}``.

    Returns:
        A :class:`LinkLine` or a :class:`MalformedLine` for each row of CSV, line of JSON Lines or link of
        YAML. The ends of a link have the forms that :func:`parse_reference` accepts, and the relationship
        those of :func:`parse_link`.

    Raises:
        LinkFileError: The file is empty, is not text, lacks a required column, is not valid YAML, has a
            duplicate key in YAML, or is a YAML file of more than 1 MiB. At the end of JSON Lines: no line has
            a column of ``columns``.
        ParameterError: The format, the delimiter or a column is unknown, or an argument has the wrong type.
        OSError: The file cannot be read.
    """
    if isinstance(file, io.TextIOBase) or not hasattr(file, "read"):
        raise ParameterError(
            'file must be a binary stream such as open(path, "rb", buffering=0), not ' + quoted(file)
        )
    if site is not None:
        require("site", site, Site, "a Site, such as Site.EU1")
    parser = _Parser(_format_of(file, format), require_delimiter(delimiter), ColumnNames(columns or {}))
    async for chunk in _chunks(file):
        for row in parser.feed(chunk):
            yield row.line(site)
    for row in parser.end():
        yield row.line(site)
    if comments := parser.comments:
        message = "Skipped as comments: %s. If such a row is a link, quote its first cell."
        log(_logger, logging.INFO, message, comments)
    if parser.is_empty:
        raise LinkFileError("the file is empty: it must contain at least a header or a link")
    if parser.document:
        lines = await asyncio.to_thread(parser.document.lines, parser.names, parser.found, site)
        parser.require_given_columns()
        for line in lines:
            yield line
    else:
        parser.require_given_columns()


def count_links(
    file: io.RawIOBase,
    *,
    format: LinkFileFormat | str | None = None,
    delimiter: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> int | None:
    """Return how many lines :func:`read_link_file` will yield, or ``None`` if that is unknown.

    ``file`` must be seekable; its position does not change. The number is unknown for YAML, and for a file
    that :func:`read_link_file` refuses.
    """
    known = _format_of(file, format)
    parser = _Parser(known, require_delimiter(delimiter), ColumnNames(columns or {}))
    if known is LinkFileFormat.YAML:
        return None
    begin = file.tell()
    count = 0
    try:
        for chunk in iter(lambda: file.read(MAX_LINE) or b"", b""):
            count += parser.count(chunk)
        return count + sum(1 for _ in parser.end())
    except LinkFileError:
        return None
    finally:
        file.seek(begin)


def _format_of(file: io.RawIOBase, format: LinkFileFormat | str | None) -> LinkFileFormat | None:
    """Return the given format, or the format of the suffix of the file's name, if it is known."""
    if format is not None:
        try:
            return LinkFileFormat(format)
        except ValueError:
            known = ", ".join(LinkFileFormat)
            raise ParameterError(f"format must be one of {known}, not {quoted(format)}") from None
    name = getattr(file, "name", None)
    return format_of_name(name) if isinstance(name, str | bytes) else None


def format_of_name(name: str | bytes) -> LinkFileFormat | None:
    """Return the format of a file with this name, if the suffix is known."""
    return _SUFFIXES.get(PurePath(os.fsdecode(name)).suffix.lower())


@define
class _Lines:
    """A splitter of chunks into numbered lines of UTF-8, without blank lines.

    It keeps at most ``MAX_LINE`` + 1 bytes of a line, enough to see that the line is too long.
    """

    mark: bytes = field(default=b"", init=False)
    """The byte order mark of UTF-8, if the file begins with any byte order mark."""
    _number: int = field(default=0, init=False)
    _partial: bytes = field(default=b"", init=False)
    _start: bytes | None = field(default=b"", init=False)
    """The first bytes, or ``None`` as soon as they show whether there is a byte order mark."""
    _decoder: codecs.IncrementalDecoder | None = field(default=None, init=False)

    def split(self, chunk: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield the number and content of each line that ends in ``chunk``."""
        if self._start is not None:
            chunk, self._start = self._start + chunk, None
            if len(chunk) < len(codecs.BOM_UTF8):
                self._start = chunk
                return
        yield from self._split(chunk)

    def last(self) -> Iterator[tuple[int, bytes]]:
        """Yield the lines that were incomplete so far."""
        if self._start:
            chunk, self._start = self._start, None
            yield from self._split(chunk)
        if self._decoder:
            self._keep(self._decoder.decode(b"", final=True).encode())
        yield from self._line()

    def _split(self, chunk: bytes) -> Iterator[tuple[int, bytes]]:
        *ended, rest = self._utf8(chunk).split(b"\n")
        for piece in ended:
            self._keep(piece)
            yield from self._line()
        self._keep(rest)

    def _utf8(self, chunk: bytes) -> bytes:
        if not (self._number or self._partial or self._decoder):  # the beginning of the file
            if chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                self.mark = codecs.BOM_UTF8
                self._decoder = codecs.getincrementaldecoder("utf-16")(errors="replace")
            elif chunk.startswith(codecs.BOM_UTF8):
                self.mark = codecs.BOM_UTF8
        return self._decoder.decode(chunk).encode() if self._decoder else chunk

    def _line(self) -> Iterator[tuple[int, bytes]]:
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


@frozen
class _Row:
    """A line of CSV or JSON Lines, or a link of YAML, before it is parsed."""

    number: int
    source: LineSource
    read: Callable[[], Mapping[str, object]]

    def line(self, site: Site | None) -> LinkLine | MalformedLine:
        """Parse the row."""
        try:
            return LinkLine(self.number, _link(self.read(), site), self.source)
        except (InvalidLinkError, LinkFileError) as error:
            return MalformedLine(self.number, str(error), self.source)


@define
class _Parser:
    """A parser of chunks in one format; without one, the first line decides between JSON Lines and CSV."""

    _format: LinkFileFormat | None
    _delimiter: str | None
    names: ColumnNames
    document: _YamlDocument | None = field(default=None, init=False)
    found: set[str] = field(factory=set, init=False)
    """The columns that a line of JSON Lines, or a link of YAML, has."""
    _lines: _Lines = field(factory=_Lines, init=False)
    _csv: CsvRows | None = field(default=None, init=False)
    _has_begun: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        if self._delimiter and not self._format:
            self._format = LinkFileFormat.CSV

    @property
    def comments(self) -> str:
        """A description of the lines that were skipped as comments."""
        if self._csv is None or not self._csv.comments:
            return ""
        first = f"line {self._csv.first_comment}"
        return first if self._csv.comments == 1 else f"{self._csv.comments} lines, the first is {first}"

    @property
    def is_empty(self) -> bool:
        """Whether there was neither a header nor a line."""
        return not self._has_begun and not (self._csv and self._csv.header)

    def require_given_columns(self) -> None:
        """Raise :class:`LinkFileError` if no line or link has a column that was given a name.

        :class:`CsvRows` checks the header of CSV, and lines without any column are malformed.
        """
        if self.found and (missing := [name for name in self.names.given if name not in self.found]):
            described = self.names.described(missing)
            raise LinkFileError(f"no link of the file has {described}: correct the name, or do not give one")

    def feed(self, chunk: bytes) -> Iterator[_Row]:
        """Yield the rows that end in ``chunk``. The rows of YAML are in ``document``."""
        for number, line in self._lines.split(chunk):
            yield from self._feed(number, line)

    def count(self, chunk: bytes) -> int:
        """Return the number of rows that end in ``chunk``, faster than ``feed``."""
        count = 0
        for number, line in self._lines.split(chunk):
            is_whole = self._csv.is_whole_row(line) if self._csv else self._has_begun
            count += 1 if is_whole else sum(1 for _ in self._feed(number, line))
        return count

    def end(self) -> Iterator[_Row]:
        """Yield the remaining rows."""
        for number, line in self._lines.last():
            yield from self._feed(number, line)
        if self._csv:
            yield from map(_csv_row, self._csv.end())

    def _feed(self, number: int, line: bytes) -> Iterator[_Row]:
        if self._format is None and not (self._csv and self._csv.is_within_row) and line.lstrip()[:1] == b"{":
            self._format = LinkFileFormat.JSONL
        if self._format in (LinkFileFormat.JSONL, LinkFileFormat.YAML):
            if not self._has_begun:
                _require_text(line)
                self._has_begun = True
            if self._format is LinkFileFormat.JSONL:
                yield _Row(
                    number,
                    LineSource(b"", rejected_json, line),
                    partial(_json_row, line, self.names, self.found),
                )
            else:
                self.document = self.document or _YamlDocument()
                self.document.add(number, line)
            return
        if self._csv is None:
            self._csv = CsvRows(self.names, self._delimiter, _is_link, self._lines.mark)
        yield from map(_csv_row, self._csv.feed(number, line))
        if self._csv.header:
            self._format = LinkFileFormat.CSV


def _csv_row(row: CsvRow) -> _Row:
    return _Row(row.number, LineSource(row.header.head, row.header.rejected, row.text), row.values)


def _is_link(values: Mapping[str, object]) -> bool:
    try:
        _link(values, None)
    except (InvalidLinkError, LinkFileError):
        return False
    return True


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

    def lines(self, names: ColumnNames, found: set[str], site: Site | None) -> list[LinkLine | MalformedLine]:
        """Parse the document, and return its links."""
        try:
            from datadog_caselinks.bulk.link_yaml import read_rows  # imported lazily: PyYAML is optional
        except ImportError:
            raise LinkFileError(needs_extra("a YAML file", "yaml")) from None
        rows = read_rows("\n".join(self._text))
        return [_yaml_row(row.number, row.fields, names, found).line(site) for row in rows]


def _require_text(first_line: bytes) -> None:
    try:
        # Incrementally: a line that is too long may be cut within a character.
        is_text = "\0" not in codecs.getincrementaldecoder("utf-8")().decode(first_line)
    except UnicodeDecodeError:
        is_text = False
    if not is_text:
        raise not_text(first_line)


def _text(line: bytes) -> str:
    if len(line) > MAX_LINE:
        raise LinkFileError(f"is longer than {MAX_LINE} bytes")
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise LinkFileError("is not UTF-8 text") from None


def _json_row(line: bytes, names: ColumnNames, found: set[str]) -> Mapping[str, object]:
    text = _text(line)
    try:
        row = json.loads(text, object_pairs_hook=tuple)  # keeps duplicate names
    except (ValueError, RecursionError) as error:
        raise LinkFileError(f"is not valid JSON: {error}") from None
    if not isinstance(row, tuple):
        raise LinkFileError("is not a JSON object")
    return _named(row, names, found)


def _yaml_row(number: int, fields: Mapping[str, str] | str, names: ColumnNames, found: set[str]) -> _Row:
    def read() -> Mapping[str, object]:
        if isinstance(fields, str):
            raise LinkFileError(fields)
        return _named(fields.items(), names, found)

    text = b"" if isinstance(fields, str) else json_of_fields(fields)
    return _Row(number, LineSource(b"", rejected_yaml, text), read)


def _named(row: Iterable[tuple[str, object]], names: ColumnNames, found: set[str]) -> Mapping[str, object]:
    """Return the values by column, and add the columns to ``found``; a column must not appear twice."""
    values: dict[str, object] = {}
    for name, value in row:
        column = names.column(name)
        if column in values:
            raise LinkFileError(f"contains {column} twice")
        if column:
            values[column] = value
    found.update(values)
    return values


def _link(row: Mapping[str, object], site: Site | None) -> WantedLink:
    if missing := [name for name in REQUIRED if name not in row]:
        raise LinkFileError(f"lacks {', '.join(missing)}")
    values = {"parent_type": EntityType.CASE, "child_type": EntityType.CASE, **row}
    if odd := [name for name in COLUMNS if not isinstance(values[name], str)]:
        raise LinkFileError(f"{odd[0]} must be a string")
    text = {name: str(values[name]) for name in COLUMNS}
    parent, child = (
        parse_reference(text[end], site=site, type=text[f"{end}_type"].upper()) for end in ("parent", "child")
    )
    return parse_link(parent, text["relationship"], child)
