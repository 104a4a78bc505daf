"""Read CSV files of links as spreadsheets write them: a header, then a row of cells for each link.

A row is usually one line. While a quoted cell is open, the row continues on the next line, within bounds: a
forgotten quotation mark must not hide the links below it.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from attrs import define, field, frozen

from datadog_caselinks.bulk.columns import COLUMNS, ColumnNames
from datadog_caselinks.values.errors import LinkFileError, ParameterError
from datadog_caselinks.values.messages import quoted

MAX_LINE: Final = 65_536
"""The maximum length of a line in bytes, and of a row of several lines. A link takes about 150."""

_MAX_HEADER_LINES: Final = 100

DELIMITERS: Final = (",", ";", "\t")
"""The delimiters that are found from the header."""

REASON: Final = "rejected_because"
"""The last column in a file of rejected lines. It is ignored when the file is read again."""

_FORMATS: Final = "it must be CSV, JSON Lines or YAML in UTF-8; in Excel, save it as CSV UTF-8"
_BINARY: Final = f"the file is binary, not text, or UTF-16 without a byte order mark: {_FORMATS}"
_NOT_UTF8: Final = f"the file is not UTF-8 text: {_FORMATS}"
_CONTROL: Final = re.compile(rb"[\0-\x08\x0e-\x1f]")
"""A character that text does not contain in any encoding with one byte for each character."""

_DECLARATION: Final = re.compile(r'"?sep=([^\w"])"?[ ,;\t]*', re.IGNORECASE)
"""The line with which a spreadsheet declares the delimiter."""

_INSIDE: Final = re.compile(rb'[^"]*+(?:""[^"]*+)*+')
"""The part of a line that belongs to the quoted cell in which the line begins."""

_INCIDENT_NUMBER: Final = re.compile(r"#[0-9]+")
"""An incident as the first cell of a row, which is not a comment."""


class _OpenQuoteError(LinkFileError):
    """A quoted cell is open at the end of the text, after ``cells`` other cells."""

    def __init__(self, cells: int = 0) -> None:
        super().__init__("is not valid CSV: a quoted field is not closed")
        self.cells = cells


class _UnbalancedError(Exception):
    """The first of the held lines has an unbalanced quotation mark."""


def require_delimiter(delimiter: str | None) -> str | None:
    r"""Return ``delimiter``, with a tab for ``\t``.

    Raises:
        ParameterError: It is not one character, or a character that cannot separate cells.
    """
    given = "\t" if delimiter == "\\t" else delimiter
    if given is not None and (len(given) != 1 or given.isalnum() or given in '"\r\n\0'):
        raise ParameterError(
            "delimiter must be one character other than a letter, digit or quotation mark, or \\t for a tab, "
            f"not {quoted(delimiter)}"
        )
    return given


@frozen
class _Splitter:
    """A splitter of rows into cells."""

    delimiter: str
    _cell: re.Pattern[str] = field(init=False)
    _open: re.Pattern[str] = field(init=False)

    def __attrs_post_init__(self) -> None:
        end = re.escape(self.delimiter)
        blank = " \t".replace(self.delimiter, "")
        blanks = f"[{blank}]*+"
        quoted_cell = f'{blanks}"([^"]*+(?:""[^"]*+)*+)'
        bare_cell = f'(?!{blanks}")([^{end}]*+)'
        cell = rf'(?:{quoted_cell}"{blanks}|{bare_cell})({end}|\Z)'
        object.__setattr__(self, "_cell", re.compile(cell))
        object.__setattr__(self, "_open", re.compile(rf"{quoted_cell}\Z"))

    def split(self, text: str) -> list[str]:
        """Return the cells of a row.

        Raises:
            LinkFileError: The row is not valid CSV, or a quoted cell is open at its end.
        """
        if '"' not in text:
            cells = text.split(self.delimiter)
            if "\r" not in text:
                return cells
            bare_cells = cells
        else:
            cells, bare_cells = self._split_quoted(text)
        if any("\r" in cell for cell in bare_cells):
            raise LinkFileError("contains a carriage return: save the file with Unix or Windows line endings")
        return cells

    def _split_quoted(self, text: str) -> tuple[list[str], list[str]]:
        """Return all cells, and those without quotation marks."""
        cells, bare_cells = [], []
        position = 0
        while match := self._cell.match(text, position):
            inside, bare, end = match.groups()
            if inside is None:
                bare_cells.append(bare)
            cells.append(bare if inside is None else inside.replace('""', '"'))
            if not end:
                return cells, bare_cells
            position = match.end()
        if self._open.match(text, position):
            raise _OpenQuoteError(len(cells))
        raise LinkFileError("is not valid CSV: text follows a closing quotation mark")

    def raw_cells(self, text: str) -> list[str]:
        """Return the cells of a row as written, or no cells if the row is not valid CSV."""
        cells = []
        position = 0
        while match := self._cell.match(text, position):
            end = match[3]
            cells.append(match[0].removesuffix(end))
            if not end:
                return cells
            position = match.end()
        return []


@frozen
class Header:
    """The header of a file.

    ``columns``
        The column of a link for each cell, or ``None`` if the cell is ignored.
    ``head``
        The first lines of a file of rejected rows.
    """

    columns: Sequence[str | None]
    head: bytes
    _splitter: _Splitter
    _line_end: str
    _has_reason: bool
    blanks: bytes = field(init=False)
    """The characters that an empty row without quotation marks may contain."""

    @blanks.default
    def _blanks(self) -> bytes:
        return (string.whitespace + self._splitter.delimiter).encode()

    @property
    def delimiter(self) -> str:
        """The character between cells."""
        return self._splitter.delimiter

    def cells(self, text: str) -> list[str]:
        """Return the cells of a row, without empty ones beyond the header."""
        try:
            cells = self._splitter.split(text)
        except LinkFileError:
            cells = self._splitter.split(self._without_reason(text))  # the error is that of the row itself
        while len(cells) > len(self.columns) and not cells[-1].strip():
            cells.pop()
        return cells

    def values(self, cells: Sequence[str]) -> dict[str, str]:
        """Return the cells of a link that are not empty, by column.

        Raises:
            LinkFileError: There are more cells than in the header, or a value is not UTF-8 text.
        """
        if len(cells) > len(self.columns):
            raise LinkFileError(f"has {len(cells)} columns, but the header has {len(self.columns)}")
        values = {
            column: value
            for column, cell in zip(self.columns, cells, strict=False)
            if column and (value := cell.strip())
        }
        if not all(map(_is_utf8, values.values())):
            raise LinkFileError("is not UTF-8 text")
        return values

    def is_comment(self, cell: str) -> bool:
        """Return whether the first cell of a row may begin a comment, and is not a value."""
        if not cell.startswith("#"):
            return False
        if self.columns[0] is None:
            # In a column that is not read, such as the name of a channel, the text may be a value.
            return cell[1:2] in ("", " ", "\t", "#")
        return not _INCIDENT_NUMBER.fullmatch(cell)

    def row(self, number: int, text: bytes) -> CsvRow:
        """Return the row ``text``. Raises ``_OpenQuoteError`` if a quoted cell is open at its end."""
        try:
            if len(text) > MAX_LINE:
                raise LinkFileError(f"is longer than {MAX_LINE} bytes")
            return CsvRow(number, text, self, self.cells(decoded(text)))
        except LinkFileError as error:
            if isinstance(error, _OpenQuoteError) and error.cells < len(self.columns):
                raise
            return CsvRow(number, text, self, error)

    def rejected(self, text: bytes, reason: str) -> bytes:
        """Return the row ``text`` with ``reason`` as its last cell, in place of an earlier reason."""
        row = self._without_reason(decoded(text))
        escaped = reason.replace('"', '""')
        return f'{row}{self.delimiter}"{escaped}"{self._line_end}'.encode(errors="surrogateescape")

    def _without_reason(self, row: str) -> str:
        """Return ``row`` with a cell for each column before the reason; more only if they are not empty."""
        cells = self._splitter.raw_cells(row)
        if not cells:
            return (
                re.sub(rf'{re.escape(self.delimiter)}"(?:[^"]|"")*+"\Z', "", row) if self._has_reason else row
            )
        while len(cells) > len(self.columns) and not cells[-1].strip(' \t"'):
            cells.pop()
        own = len(self.columns) - self._has_reason
        if self._has_reason and len(cells) > own:
            cells.pop()
        return self.delimiter.join(cells + [""] * (own - len(cells)))


@frozen
class CsvRow:
    """A row of a file.

    ``number``
        The number of its first line, from 1.
    ``text``
        The row as written, without its line end.
    """

    number: int
    text: bytes
    header: Header
    _cells: Sequence[str] | LinkFileError

    def values(self) -> Mapping[str, object]:
        """Return the values of a link by column.

        Raises:
            LinkFileError: The row is malformed.
        """
        if isinstance(self._cells, LinkFileError):
            raise self._cells
        return self.header.values(self._cells)

    def is_empty(self) -> bool:
        """Return whether all cells are empty."""
        return not isinstance(self._cells, LinkFileError) and not any(map(str.strip, self._cells))

    def is_comment(self) -> bool:
        """Return whether the only cell that is not empty is a comment, such as ``"# a, b",,``."""
        if isinstance(self._cells, LinkFileError):
            return False
        first, *others = map(str.strip, self._cells)
        return self.header.is_comment(first) and not any(others)

    def is_plausible(self) -> bool:
        """Return whether the cells may be those of several lines: line breaks are in ignored columns only."""
        columns = self.header.columns
        return (
            not isinstance(self._cells, LinkFileError)
            and len(self._cells) <= len(columns)
            and not any(
                column and "\n" in cell.strip() for column, cell in zip(columns, self._cells, strict=False)
            )
        )


@define
class CsvRows:
    """A reader of rows, which is fed the lines of a file.

    Lines are held while they may belong to an incomplete row.

    Args:
        names: The names of the columns.
        delimiter: The delimiter, or ``None`` to find it from the header.
        is_link: A function that returns whether the values of a row are a link.
        mark: The byte order mark for a file of rejected rows.
    """

    _names: ColumnNames
    _delimiter: str | None
    _is_link: Callable[[Mapping[str, object]], bool]
    _mark: bytes = b""
    header: Header | None = field(default=None, init=False)
    comments: int = field(default=0, init=False)
    """How many lines were skipped as comments."""
    first_comment: int = field(default=0, init=False)
    """The number of the first of these lines."""
    _declared: str = field(default="", init=False)
    """The delimiter that the file declares."""
    _held: list[tuple[int, bytes]] = field(factory=list, init=False)
    _held_size: int = field(default=0, init=False)

    @property
    def is_within_row(self) -> bool:
        """Whether lines are held."""
        return bool(self._held)

    def feed(self, number: int, line: bytes) -> Iterator[CsvRow]:
        """Yield the rows that are complete with ``line``. Blank lines need not be fed.

        Raises:
            LinkFileError: The file does not begin with a header.
        """
        if self.header and self.is_whole_row(line):
            yield self.header.row(number, line.strip(b"\r"))
            return
        waiting = [(number, line)]
        while waiting:
            self._hold(*waiting.pop())
            try:
                row = self._row()
            except _OpenQuoteError:
                continue
            except _UnbalancedError:
                yield self._give_up(waiting)
                continue
            self._held = []
            if row:
                yield row

    def is_whole_row(self, line: bytes) -> bool:
        """Return whether ``line`` is certainly one row, without a closer check: most lines are."""
        return bool(
            self.header
            and not self._held
            and b'"' not in line
            and b"#" not in line
            and line.strip(self.header.blanks)
        )

    def end(self) -> Iterator[CsvRow]:
        """Yield the rows that are incomplete at the end of the file.

        Raises:
            LinkFileError: The header is incomplete.
        """
        while self._held:
            waiting: list[tuple[int, bytes]] = []
            yield self._give_up(waiting)
            while waiting:
                yield from self.feed(*waiting.pop())

    def _hold(self, number: int, line: bytes) -> None:
        previous = self._held[-1][0] if self._held else number
        self._held_size = (self._held_size if self._held else 0) + number - previous + len(line)
        self._held.append((number, line))

    def _give_up(self, waiting: list[tuple[int, bytes]]) -> CsvRow:
        """Return the first held line as a malformed row, and put the others on the stack ``waiting``."""
        (number, line), *others = self._held
        self._held = []
        error = _OpenQuoteError()
        if self.header is None:
            raise LinkFileError(f"the header {error}")
        waiting.extend(reversed(others))
        return CsvRow(number, line.strip(b"\r"), self.header, error)

    def _row(self) -> CsvRow | None:
        """Return the row in the held lines, unless it is empty, a comment or the header.

        Raises:
            _OpenQuoteError: The row is incomplete.
            _UnbalancedError: The lines are not one row.
            LinkFileError: The first row is not a header.
        """
        number, line = self._held[0]
        is_continued = len(self._held) > 1
        if is_continued:
            self._require_continuation(self._held[-1][1])
        elif self._is_skipped(number, line):
            return None
        text = self._text()
        if self.header is None:
            self.header = self._find_header(text)
            return None
        row = self.header.row(number, text)
        if is_continued and not row.is_plausible():
            raise _UnbalancedError
        if row.is_comment():
            self._count_comment(number)
            return None
        return None if row.is_empty() else row

    def _require_continuation(self, line: bytes) -> None:
        """Check that ``line`` closes the quoted cell in which it begins.

        Raises:
            _OpenQuoteError: The cell is still open.
            _UnbalancedError: The row would become too long, or the cell would hide a link.
        """
        inside = _INSIDE.match(line)
        assert inside is not None  # it matches an empty text as well
        is_too_long = self._held_size > MAX_LINE or (not self.header and len(self._held) > _MAX_HEADER_LINES)
        if is_too_long or self._hides_link(inside[0]):
            raise _UnbalancedError
        if inside[0] == line:
            raise _OpenQuoteError

    def _hides_link(self, inside: bytes) -> bool:
        """Return whether a part of a quoted cell is a link by itself, so that a quotation mark is missing."""
        if self.header is None:
            return False
        try:
            return self._is_link(self.header.values(self.header.cells(decoded(inside.strip(b"\r")))))
        except LinkFileError:
            return False

    def _text(self) -> bytes:
        """Return the held lines with the blank lines between them, without the last line end."""
        (number, text), *others = self._held
        parts = [text]
        for following, line in others:
            parts.append(b"\n" * (following - number) + line)
            number = following
        return b"".join(parts).strip(b"\r")

    def _is_skipped(self, number: int, line: bytes) -> bool:
        """Return whether ``line`` is a comment, or before the header an empty row or the delimiter."""
        text = decoded(line[:MAX_LINE]).strip("\r")
        if self._is_comment(text):
            self._count_comment(number)
            return True
        if self.header:
            return False
        if declaration := _DECLARATION.fullmatch(text):
            self._declared = declaration[1]
        return bool(declaration) or not text.strip(' ,;\t"' + (self._delimiter or self._declared))

    def _count_comment(self, number: int) -> None:
        self.first_comment = self.first_comment or number
        self.comments += 1

    def _is_comment(self, text: str) -> bool:
        if self.header:
            return self._is_comment_below(self.header, text)
        if not text.lstrip(' \t"').startswith("#"):
            return False
        try:
            self._find_header(text.encode(errors="surrogateescape"))
        except LinkFileError:
            return True
        return False

    def _is_comment_below(self, header: Header, text: str) -> bool:
        """Return whether ``text`` is a comment without quotation marks around it."""
        if not header.is_comment(text.partition(header.delimiter)[0].strip()):
            return False
        if header.columns[0] is None:
            return True
        try:  # such as a link from #IR-101, if a column says that it is an incident
            return not self._is_link(header.values(header.cells(text)))
        except LinkFileError:
            return True

    def _find_header(self, text: bytes) -> Header:
        if b"\0" in text:
            raise not_text(text)
        line = decoded(text)
        delimiters = [self._delimiter] if self._delimiter else [*self._declared, *DELIMITERS]
        best: list[str | None] = []
        wrong: LinkFileError | None = None
        for delimiter in delimiters:
            splitter = _Splitter(delimiter)
            try:
                names = splitter.split(line)
            except LinkFileError as error:
                wrong = wrong or error
                continue
            columns = [self._names.column(name) or self._names.column(name.lstrip("# ")) for name in names]
            if set(self._names.required) <= set(columns):
                return self._header(splitter, names, columns, text)
            if len(set(columns)) > len(set(best)):
                best = columns
        if not _is_utf8(line):
            raise not_text(text)
        if line.lstrip().startswith("["):
            raise LinkFileError("the file looks like a JSON array: write one object on each line instead")
        if isinstance(wrong, _OpenQuoteError):
            raise wrong
        if len(text) > MAX_LINE:
            raise LinkFileError(f"the header is longer than {MAX_LINE} bytes")
        if wrong:
            raise LinkFileError(f"the header {wrong}")
        required = self._names.required
        missing = self._names.described(name for name in required if name not in best)
        needed = self._names.described(required)
        raise LinkFileError(
            f"the header {quoted(line)} lacks {missing}: the first line of CSV must contain the columns "
            f"{needed}; if they have other names or another delimiter, specify these "
            "(--column parent=NAME, --delimiter); if the file is not CSV, specify its format"
        )

    def _header(
        self, splitter: _Splitter, names: list[str], columns: list[str | None], text: bytes
    ) -> Header:
        if twice := [name for name in COLUMNS if columns.count(name) > 1]:
            raise LinkFileError(f"the header contains {twice[0]} twice")
        has_reason = names[-1].strip() == REASON
        line_end = "\r\n" if self._held[-1][1].endswith(b"\r") else "\n"
        declaration = f"sep={self._declared}{line_end}" if self._declared else ""
        reason = "" if has_reason else f"{splitter.delimiter}{REASON}"
        head = self._mark + declaration.encode() + text + f"{reason}{line_end}".encode()
        return Header(columns, head, splitter, line_end, has_reason)


def not_text(line: bytes) -> LinkFileError:
    """Return the error for a file with ``line``, which contains NUL or is not UTF-8."""
    return LinkFileError(_BINARY if _CONTROL.search(line) else _NOT_UTF8)


def decoded(text: bytes) -> str:
    """Return ``text`` as UTF-8. Other bytes become lone surrogates, which encode to the same bytes."""
    return text.decode(errors="surrogateescape")


def _is_utf8(text: str) -> bool:
    return text.isascii() or not any("\udc80" <= character <= "\udcff" for character in text)
