"""Spreadsheets from different programs: the files in spreadsheets/ contain the same two links."""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

from datadog_caselinks import LinkLine, MalformedLine, read_link_file
from datadog_caselinks.bulk.link_files import count_links

FOLDER: Final = Path(__file__).parent / "spreadsheets"
FILES: Final = sorted(path.name for path in FOLDER.iterdir())
LINKS: Final = ["SHOP-1 BLOCKS SHOP-2", "SHOP-3 CAUSES SHOP-4"]

DELIMITERS: Final = {"pipes-with-the-option.csv": "|", "carets-with-the-option.csv": "^"}
COLUMNS: Final = {
    "columns-from-and-to.csv": {"parent": "From", "relationship": "kind of LINK", "child": "To"}
}
OTHERS: Final = {
    "forgotten-quotation-mark.csv": [
        "SHOP-1 BLOCKS SHOP-2",
        "is not valid CSV: a quoted field is not closed",
        "SHOP-3 CAUSES SHOP-4",
        "SHOP-7 BLOCKS SHOP-8",
    ]
}


async def read(path: Path) -> list[LinkLine | MalformedLine]:
    """Read the file with the options that it needs, and compare the number of lines with count_links."""
    columns: Mapping[str, str] | None = COLUMNS.get(path.name)
    with open(path, "rb", buffering=0) as file:  # noqa: ASYNC230 - opening it blocks nobody
        count = count_links(file, delimiter=DELIMITERS.get(path.name), columns=columns)
        lines = read_link_file(file, delimiter=DELIMITERS.get(path.name), columns=columns)
        found = [line async for line in lines]
    assert count == len(found)
    return found


def described(line: LinkLine | MalformedLine) -> str:
    """Return the link, or the reason why the line is malformed."""
    return line.reason if isinstance(line, MalformedLine) else str(line.new)


@pytest.mark.parametrize("name", FILES)
async def test_the_links_of_a_spreadsheet_are_read(name: str) -> None:
    """Each file yields its links and nothing else."""
    found = await read(FOLDER / name)
    assert list(map(described, found)) == OTHERS.get(name, LINKS)


@pytest.mark.parametrize("name", FILES)
async def test_each_link_has_the_number_of_its_first_line(name: str) -> None:
    """A row has the number of its first line in an editor."""
    content = (FOLDER / name).read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        content = content.decode("utf-16").encode()
    lines = content.split(b"\n")
    for line in await read(FOLDER / name):
        assert line.source
        assert lines[line.number - 1].strip(b"\r") == line.source.text.split(b"\n")[0].strip(b"\r")


@pytest.mark.parametrize("name", FILES)
async def test_rejected_lines_are_read_as_the_file_was(name: str, tmp_path: Path) -> None:
    """A file of rejected lines yields the same lines, also if it is rejected again."""
    expected = [described(line) for line in await read(FOLDER / name)]
    path = FOLDER / name
    for folder in (tmp_path / "once", tmp_path / "twice"):
        folder.mkdir()
        lines = await read(path)
        path = folder / name
        path.write_bytes(rejected(lines))
        assert path.read_bytes().count(b"rejected_because") == 1
        assert path.read_bytes().count(b'"a ""reason"", and more"') == len(lines)
        assert [described(line) for line in await read(path)] == expected


def rejected(lines: Sequence[LinkLine | MalformedLine]) -> bytes:
    """Return a file of rejected lines."""
    sources = [line.source for line in lines if line.source]
    return sources[0].head + b"".join(source.rejected('a "reason", and more') for source in sources)
