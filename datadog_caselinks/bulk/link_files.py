"""Files of links, CSV, JSON Lines or YAML: each is a link or the reason why it is none. Knows no HTTP."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import csv
import io
import itertools
import json
import re
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Final

from attrs import define, field, frozen

from datadog_caselinks.errors import InvalidLinkError, LinkFileError
from datadog_caselinks.models import EntityType
from datadog_caselinks.references import WantedLink, parse_link, parse_reference
from datadog_caselinks.sites import Site

COLUMNS: Final = ("parent", "parent_type", "relationship", "child", "child_type")
"""The columns of a CSV file and the keys of a JSON line.

The types may be missing, and default to CASE. ``parent_id`` and ``child_id`` stand for the ends as well.
"""

MAX_LINE: Final = 65_536
"""Bytes of the longest line that is read: a link takes some 150."""

MAX_YAML: Final = 1_048_576
"""Bytes of the longest YAML file that is read: some 25,000 links. It must be held in memory as a whole."""

_YAML_BEGINS: Final = re.compile(rb"#|---|%YAML|-\s|[^{\[,;\t][^,;\t]*:\s")
"""The first line of a YAML file with its end: a comment, a list, a key. The header of a CSV file is none."""

_REQUIRED: Final = ("parent", "relationship", "child")
_ALIASES: Final = {"parent_id": "parent", "child_id": "child"}


@frozen
class LinkLine:
    """A line that holds a link. ``number`` counts from 1."""

    number: int
    new: WantedLink


@frozen
class MalformedLine:
    """A line that holds none, and why. ``number`` counts from 1."""

    number: int
    reason: str


async def read_link_file(
    file: io.RawIOBase, *, site: Site | None = None
) -> AsyncGenerator[LinkLine | MalformedLine, None]:
    """Read the links of ``file``, an unbuffered binary stream: ``open(path, "rb", buffering=0)``.

    A file whose first line begins with ``{`` is JSON Lines. One that begins with a key and a colon, ``- ``,
    ``---`` or a comment is YAML, and needs the extra ``yaml``. Any other is CSV with a header. All are UTF-8.
    The names in :data:`COLUMNS` are read and others ignored; YAML can also be a mapping from parents to
    relationships to children. The ends of a link are written as for :func:`parse_reference`, addresses being
    those of ``site``. Blank lines are skipped. Memory is bounded however long the file, of which YAML may
    have 1 MiB, and the event loop runs on while a pipe is waited for.

    Raises :class:`LinkFileError` for a file that is empty, is not text, has not the columns, or is YAML of
    another form or with a key that stands twice, and whatever reading ``file`` raises.
    """
    lines = _Lines()
    parser = _Parser(site)
    async for chunk in _chunks(file):
        for number, line in lines.cut(chunk):
            if parsed := parser.parse(number, line):
                yield parsed
    for number, line in lines.last():
        if parsed := parser.parse(number, line):
            yield parsed
    if not parser.has_begun:
        raise LinkFileError("the file is empty: it needs a header and a line for each link")
    if parser.document:
        for parsed in await asyncio.to_thread(parser.document.lines, site):
            yield parsed


def count_links(file: io.RawIOBase) -> int | None:
    """How many lines :func:`read_link_file` will yield of ``file``, seekable, which stays where it is.

    ``None`` for YAML, where lines and links are not the same.
    """
    begin = file.tell()
    lines = _Lines()
    count = headers = 0
    for chunk in itertools.chain(iter(lambda: file.read(MAX_LINE) or b"", b""), [b"\n"]):
        for _, line in lines.cut(chunk):
            if not count and _is_yaml(line):
                file.seek(begin)
                return None
            headers = headers or int(not count and not _is_json(line))
            count += 1
    file.seek(begin)
    return count - headers


@define
class _Lines:
    """Cuts chunks into numbered lines without the blank ones, and keeps of a line that is too long only
    as much as shows that it is.
    """

    _number: int = field(default=0, init=False)
    _begun: bytes = field(default=b"", init=False)

    def cut(self, chunk: bytes) -> Iterator[tuple[int, bytes]]:
        """The lines that ``chunk`` ends."""
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            self._keep(piece)
            yield from self.last()
        self._keep(rest)

    def last(self) -> Iterator[tuple[int, bytes]]:
        """The line that has begun, if it is none of the blank ones."""
        self._number += 1
        line, self._begun = self._begun, b""
        if self._number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if line.strip():
            yield self._number, line

    def _keep(self, piece: bytes) -> None:
        self._begun += piece[: MAX_LINE + 1 - len(self._begun)]


async def _chunks(file: io.RawIOBase) -> AsyncGenerator[bytes, None]:
    """What ``file`` holds, read by threads that do not keep the program from ending.

    The loop's own executor would: Ctrl-C had to wait for the next line of a terminal or pipe.
    """
    loop = asyncio.get_running_loop()

    def read(chunk: asyncio.Future[bytes]) -> None:
        result: bytes | Exception | None
        try:
            result = file.read(MAX_LINE)
        except Exception as error:  # whatever it is, the task that waits must have it
            result = error
        if result is None:
            result = BlockingIOError("the file does not block, and has nothing to read yet")
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
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
    """What the first line has told: that it is JSON or YAML, or the columns of a CSV file."""

    _site: Site | None
    has_begun: bool = field(default=False, init=False)
    document: _YamlDocument | None = field(default=None, init=False)
    _columns: list[str] | None = field(default=None, init=False)

    def parse(self, number: int, line: bytes) -> LinkLine | MalformedLine | None:
        """What one line holds; ``None`` for the header, and for YAML, which is to be read as a whole."""
        if not self.has_begun:
            _require_text(line)
            self.has_begun = True
            if _is_yaml(line):
                self.document = _YamlDocument()
            elif not _is_json(line):
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
    """The lines of a YAML file, of which none can be understood before the last is there."""

    _text: list[str] = field(factory=list, init=False)
    _size: int = field(default=0, init=False)
    _lines: int = field(default=0, init=False)

    def add(self, number: int, line: bytes) -> None:
        """Take a line, and the blank ones that were left out before it."""
        skipped = number - self._lines - 1
        self._size += skipped + len(line) + 1
        if self._size > MAX_YAML:
            raise LinkFileError(
                f"of YAML {MAX_YAML} bytes are read, and the file is longer: write CSV instead"
            )
        try:
            self._text.append("\n" * skipped + _text(line))
        except LinkFileError as error:
            raise LinkFileError(f"line {number} {error}") from None
        self._lines = number

    def lines(self, site: Site | None) -> list[LinkLine | MalformedLine]:
        """What the document holds."""
        try:
            from datadog_caselinks.bulk.link_yaml import read_rows  # which PyYAML comes with
        except ImportError:
            raise LinkFileError(
                "the file is YAML, for which PyYAML is missing: pip install 'datadog_caselinks[yaml]'"
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
        # Not to the end, where a line that is too long may be cut within a character.
        is_text = "\0" not in codecs.getincrementaldecoder("utf-8")().decode(first_line)
    except UnicodeDecodeError:
        is_text = False
    if not is_text:
        raise LinkFileError("the file is binary, not text: it must be CSV, JSON Lines or YAML in UTF-8")


def _is_yaml(first_line: bytes) -> bool:
    return _YAML_BEGINS.match(first_line.lstrip() + b"\n") is not None


def _is_json(first_line: bytes) -> bool:
    return first_line.lstrip().startswith(b"{")


def _text(line: bytes) -> str:
    if len(line) > MAX_LINE:
        raise LinkFileError(f"is longer than {MAX_LINE} bytes")
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise LinkFileError("is not UTF-8 text") from None


def _header(line: bytes) -> list[str]:
    if line.lstrip().startswith(b"["):
        raise LinkFileError("the file looks like a JSON array: write one object a line instead")
    try:
        columns = [_column(name.strip().lower()) for name in _csv_fields(_text(line))]
    except LinkFileError as error:
        raise LinkFileError(f"the header {error}") from None
    if twice := [name for name in COLUMNS if columns.count(name) > 1]:
        raise LinkFileError(f"the header names {twice[0]} twice")
    missing = [name for name in _REQUIRED if name not in columns]
    if not missing:
        return columns
    if b";" in line or b"\t" in line:
        hint = "the columns must be separated by commas"
    else:
        hint = f"the first line must name the columns {','.join(_REQUIRED)}, and may name the types"
    raise LinkFileError(f"the header lacks {', '.join(missing)}: {hint}")


def _csv_fields(text: str) -> list[str]:
    line = text.strip("\r\n")
    if "\r" in line:
        raise LinkFileError("has a carriage return within: save the file with Unix or Windows line ends")
    # Line by line: one unbalanced quotation mark must not swallow the lines that follow.
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error as error:
        reason = str(error).replace("unexpected end of data", "a quoted field does not end on its line")
        raise LinkFileError(f"is no CSV: {reason}") from None


def _csv_row(text: str, columns: list[str]) -> dict[str, str]:
    fields = _csv_fields(text)
    if len(fields) > len(columns):
        raise LinkFileError(f"has {len(fields)} columns, and the header {len(columns)}")
    return {name: value.strip() for name, value in zip(columns, fields, strict=False) if value.strip()}


def _json_row(text: str) -> Mapping[str, object]:
    try:
        row = json.loads(text, object_pairs_hook=tuple)  # which keeps a name that stands twice
    except (ValueError, RecursionError) as error:
        raise LinkFileError(f"is no JSON: {error}") from None
    if not isinstance(row, tuple):
        raise LinkFileError("is no JSON object")
    return _named(row)


def _yaml_row(fields: Mapping[str, str] | str) -> Mapping[str, object]:
    if isinstance(fields, str):
        raise LinkFileError(fields)
    return _named(fields.items())


def _named(row: Iterable[tuple[str, object]]) -> Mapping[str, object]:
    """``row`` by the names of the columns, of which each may stand in it once."""
    values: dict[str, object] = {}
    for name, value in row:
        column = _column(name)
        if column in values and column in COLUMNS:
            raise LinkFileError(f"names {column} twice")
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
