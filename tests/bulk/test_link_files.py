"""Files of links: each line is a link or has a reason why it is malformed, for any content."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
import os
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from datadog_caselinks import (
    IncidentNumber,
    LinkFileError,
    LinkFileFormat,
    LinkLine,
    LinkStatus,
    MalformedLine,
    NewCaseLink,
    ParameterError,
    Site,
    WantedLink,
    agent_conversation,
    case,
    incident,
    page,
    parse_link,
    read_link_file,
)
from datadog_caselinks.bulk.columns import COLUMNS
from datadog_caselinks.bulk.link_csv import MAX_LINE
from datadog_caselinks.bulk.link_files import count_links
from tests.bulk.reading import InPieces, raw_file, read, refusal
from tests.support.strategies import json_values, new_links

A = "bf0cbac6-4c16-4cfb-b6bf-ca5e0ec37a4f"
B = "4417921d-0866-4a38-822c-6f2a0f65f77d"
HEADER = "parent,relationship,child"
GOOD = f"{A},BLOCKS,{B}"
NEW = case(A).blocks(case(B))
Pipe = tuple[io.FileIO, io.FileIO]
OBJECT = {"parent": A, "relationship": "BLOCKS", "child": B}
JSON_LINE = json.dumps(OBJECT)
FORMATS = "it must be CSV, JSON Lines or YAML in UTF-8; in Excel, save it as CSV UTF-8"
BINARY = f"the file is binary, not text, or UTF-16 without a byte order mark: {FORMATS}"


class Broken(io.RawIOBase):
    """A stream whose second read fails."""

    def __init__(self, first: bytes, error: Exception) -> None:
        self._first = first
        self._error = error

    def read(self, size: int = -1, /) -> bytes:
        if not self._first:
            raise self._error
        first, self._first = self._first, b""
        return first


async def read_one(content: str | bytes) -> LinkLine | MalformedLine:
    (line,) = await read(content)
    return line


async def reason(content: str | bytes) -> str:
    """Return the reason of the only malformed line."""
    (bad,) = [line for line in await read(content) if isinstance(line, MalformedLine)]
    return bad.reason


def written(links: list[NewCaseLink], form: str) -> bytes:
    """Write ``links`` with the standard library, and return the file's content."""
    rows = [
        {
            "parent": new.parent.id,
            "parent_type": str(new.parent.type),
            "relationship": str(new.relationship),
            "child": new.child.id,
            "child_type": str(new.child.type),
        }
        for new in links
    ]
    if form == "json":
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, quoting=csv.QUOTE_ALL if form == "quoted" else csv.QUOTE_MINIMAL)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


@pytest.mark.slow
class TestBothForms:
    @given(
        st.lists(new_links(), min_size=1, max_size=5),
        st.sampled_from(["csv", "quoted", "json"]),
        st.integers(1, 200),
        st.booleans(),
    )
    async def test_what_was_written_is_read(
        self, wanted: list[NewCaseLink], form: str, length: int, has_bom: bool
    ) -> None:
        """Every written link is read, for any chunk size, with or without a byte order mark."""
        content = b"\xef\xbb\xbf" * has_bom + written(wanted, form)
        first = 1 if form == "json" else 2
        assert await read(content, length) == [
            LinkLine(number, new) for number, new in enumerate(wanted, first)
        ]

    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    @pytest.mark.parametrize("last_end", [True, False])
    async def test_line_ends(self, end: str, last_end: bool) -> None:
        """Unix and Windows line endings are read, and the last line needs none."""
        for content, first in ((f"{HEADER}{end}{GOOD}{end}{GOOD}", 2), (f"{JSON_LINE}{end}{JSON_LINE}", 1)):
            lines = await read(content + end * last_end)
            assert lines == [LinkLine(first, NEW), LinkLine(first + 1, NEW)]

    async def test_blank_lines_are_skipped_and_counted(self) -> None:
        """Blank lines are skipped, and line numbers match those of an editor."""
        assert await read(f"\n \t\r\n{HEADER}\n\n{GOOD}\n\r\n  \n{GOOD}\n\n") == [
            LinkLine(5, NEW),
            LinkLine(8, NEW),
        ]
        assert await read(f"\n\n{JSON_LINE}\n\n{JSON_LINE}") == [LinkLine(3, NEW), LinkLine(5, NEW)]

    @pytest.mark.parametrize("is_json", [True, False])
    async def test_types_default_to_case(self, is_json: bool) -> None:
        """An end without a type is a case."""
        assert await read(JSON_LINE if is_json else f"{HEADER}\n{GOOD}") == [
            LinkLine(1 if is_json else 2, NEW)
        ]

    async def test_types_and_relationships_in_any_letter_case(self) -> None:
        """Types and relationships are case-insensitive."""
        line = await read_one(
            f"child_type,child,relationship,parent,parent_type\nincident,{B},relates_to,{A.upper()},Case"
        )
        assert line == LinkLine(2, case(A).relates_to(incident(B)))
        line = await read_one(
            json.dumps(
                {**OBJECT, "parent_type": "case", "child_type": "Page", "relationship": "Escalates_To"}
            )
        )
        assert line == LinkLine(1, case(A).escalates_to(page(B)))

    async def test_other_columns_are_ignored(self) -> None:
        """Unknown columns of CSV and unknown keys of JSON are ignored."""
        assert await read(f"note,{HEADER},\n1,{GOOD},\n") == [LinkLine(2, NEW)]
        assert await read(json.dumps({**OBJECT, "note": {"deep": [1]}})) == [LinkLine(1, NEW)]

    @pytest.mark.parametrize(
        ("change", "wrong"),
        [
            ({"parent": "x"}, "'x' does not name an entity; write a case key such as SHOP-1, a UUID, "),
            (
                {"parent": f"incident:{A}", "parent_type": "PAGE"},
                f"'incident:{A}' does not have the type PAGE",
            ),
            (
                {"child": "SHOP-1", "child_type": "PAGE"},
                "'SHOP-1' is a case key, but the type is",
            ),
            ({"parent": "SHOP-1", "child": "shop-1"}, "SHOP-1 cannot be linked to itself"),
            ({"relationship": "LIKES"}, "unknown relationship 'LIKES'; use one of relates to"),
            ({"child_type": "WIDGET"}, "unknown entity type 'WIDGET'; use one of CASE"),
            ({"child": A}, "cannot be linked to itself"),
            ({"parent_type": "PAGE", "child_type": "PAGE"}, "is a case: at least one must be"),
        ],
    )
    @pytest.mark.parametrize("is_json", [True, False])
    async def test_a_link_that_the_api_refuses_is_malformed(
        self, change: dict[str, str], wrong: str, is_json: bool
    ) -> None:
        """A link that the API would refuse is malformed with the reason of parse_link; others are read."""
        row = {"parent_type": "CASE", "child_type": "CASE", **OBJECT, **change}
        good = {"parent_type": "CASE", "child_type": "CASE", **OBJECT}
        encode = json.dumps if is_json else lambda row: ",".join(row.values())
        header = "" if is_json else ",".join(row) + "\n"
        before, bad, after = await read(header + "\n".join(map(encode, (good, row, good))))
        assert isinstance(bad, MalformedLine)
        assert wrong in bad.reason
        assert [before, after] == [LinkLine(bad.number - 1, NEW), LinkLine(bad.number + 1, NEW)]

    @pytest.mark.parametrize("missing", OBJECT)
    async def test_a_missing_value_is_named(self, missing: str) -> None:
        """A missing, empty or truncated value is named in the reason."""
        assert await reason(json.dumps({**OBJECT, missing: None})) == f"{missing} must be a string"
        rest = {name: value for name, value in OBJECT.items() if name != missing}
        assert await reason(json.dumps(rest)) == f"lacks {missing}"
        row = [value if name != missing else " " for name, value in OBJECT.items()]
        assert await reason(f"{HEADER}\n{','.join(row)}") == f"lacks {missing}"

    @pytest.mark.parametrize("good", [f"{HEADER}\n{GOOD}", f"{JSON_LINE}\n{JSON_LINE}"])
    @pytest.mark.parametrize("length", [MAX_LINE, 7000, 1])
    async def test_a_line_that_is_no_utf8_is_alone_in_that(self, good: str, length: int) -> None:
        """A line that is not UTF-8 is malformed, and the lines around it are read."""
        *_, before, bad, after = await read(
            good.encode() + b"\n\xe9t\xe9\n" + good.splitlines()[-1].encode(), length
        )
        assert bad == MalformedLine(3, "is not UTF-8 text")
        assert [before, after] == [LinkLine(2, NEW), LinkLine(4, NEW)]

    @pytest.mark.parametrize("good", [f"{HEADER}\n{GOOD}", f"{JSON_LINE}\n{JSON_LINE}"])
    @pytest.mark.parametrize("size", [MAX_LINE + 1, 2 * MAX_LINE, 5 * MAX_LINE + 17])
    @pytest.mark.parametrize("length", [MAX_LINE, MAX_LINE - 1, 1000])
    @pytest.mark.parametrize("filler", ["x", "\u20ac"])
    async def test_a_line_that_is_too_long_is_alone_in_that(
        self, good: str, size: int, length: int, filler: str
    ) -> None:
        """A line that is too long is malformed, and the lines around it are read."""
        last = good.splitlines()[-1]
        long = (filler * size).encode()[:size].decode(errors="ignore")
        long += "x" * (size - len(long.encode()))
        for tail in ("", f"\n{last}", f"\n{last}\n"):
            lines = {line.number: line for line in await read(f"{good}\n{long}{tail}", length)}
            assert lines[2] == LinkLine(2, NEW)
            assert lines[3] == MalformedLine(3, f"is longer than {MAX_LINE} bytes")
            assert lines.get(4) == (LinkLine(4, NEW) if tail else None)

    @pytest.mark.parametrize("length", [MAX_LINE, 1000])
    @pytest.mark.parametrize("filler", ["x", "\u00e9", "\u20ac", "\U0001f600"])
    async def test_the_length_is_counted_in_bytes(self, filler: str, length: int) -> None:
        """The length limit of a line counts bytes, regardless of the chunk size."""
        start = f"{HEADER},note\n"
        room = MAX_LINE - len(f"{GOOD},")
        width = len(filler.encode())
        note = filler * (room // width) + "x" * (room % width)
        assert await read(f"{start}{GOOD},{note}\n{GOOD}", length) == [LinkLine(2, NEW), LinkLine(3, NEW)]
        assert await read(f"{start}{GOOD},{note}x\n{GOOD}", length) == [
            MalformedLine(2, f"is longer than {MAX_LINE} bytes"),
            LinkLine(3, NEW),
        ]

    async def test_a_reason_fits_a_terminal(self) -> None:
        """A reason is one printable line of bounded length."""
        bad = "\x1b[31m" * 8000
        for text in (
            await reason(f"{HEADER}\n{bad},BLOCKS,{B}"),
            await reason(f"{HEADER}\n{A},{bad},{B}"),
            await reason(json.dumps({**OBJECT, "child_type": bad[:9000]})),
            await reason(json.dumps({**OBJECT, "parent": "\ud800" * 9000})),
        ):
            assert text.isprintable()
            assert len(text) < 1000


ROWS = [
    (f"SHOP-1,BLOCKS,{B}", parse_link("SHOP-1", "BLOCKS", B)),
    ("shop-1,blocks,shop-2", parse_link("SHOP-1", "BLOCKS", "SHOP-2")),
    (
        "https://app.datadoghq.com/cases/SHOP-1,relates-to,app.datadoghq.com/cases/SHOP-2",
        parse_link("SHOP-1", "RELATES_TO", "SHOP-2"),
    ),
    (f"SHOP-1,CAUSES,incident:{B}", parse_link("SHOP-1", "CAUSES", incident(B))),
    (f"case:{A},CAUSES,Incident: {B}", case(A).causes(incident(B))),
    (f"page:{A},ESCALATES_TO,{B}", page(A).escalates_to(case(B))),
    (f"conversation:{A},RELATES_TO,case:shop-2", parse_link(agent_conversation(A), "RELATES_TO", "SHOP-2")),
]


class TestEnds:
    @pytest.mark.parametrize(("row", "wanted"), ROWS)
    async def test_every_form_that_people_write(self, row: str, wanted: WantedLink) -> None:
        """An end may be a key, a UUID, a case URL or a prefixed id, in CSV and in JSON Lines."""
        names = HEADER.split(",")
        assert await read_one(f"{HEADER}\n{row}") == LinkLine(2, wanted)
        assert await read_one(json.dumps(dict(zip(names, row.split(","), strict=True)))) == LinkLine(
            1, wanted
        )

    @pytest.mark.parametrize("parent", ["parent", "parent_id"])
    @pytest.mark.parametrize("child", ["child", "child_id"])
    async def test_names_of_the_ends(self, parent: str, child: str) -> None:
        """The columns of the ends may have the suffix ``_id``."""
        assert await read_one(f"{parent},relationship,{child}\n{GOOD}") == LinkLine(2, NEW)
        assert await read_one(f"{parent.upper()},relationship,{child}\n{GOOD}") == LinkLine(2, NEW)
        assert await read_one(json.dumps({parent: A, "relationship": "BLOCKS", child: B})) == LinkLine(1, NEW)

    @pytest.mark.parametrize("end", ["parent", "child"])
    async def test_both_names_of_an_end(self, end: str) -> None:
        """Two columns for one end are refused: in a header the whole file, in an object only its line."""
        assert await refusal(f"{HEADER},{end}_id\n{GOOD},{A}") == f"the header contains {end} twice"
        assert await reason(json.dumps({**OBJECT, f"{end}_id": A})) == f"contains {end} twice"

    async def test_a_type_in_a_column_of_its_own(self) -> None:
        """A type column applies to UUIDs; a conflicting prefix or a case key is refused."""
        header = f"{HEADER},child_type"
        good, *bad = await read(
            f"{header}\nSHOP-1,BLOCKS,{B},incident\nSHOP-1,BLOCKS,page:{B},incident\n{A},BLOCKS,SHOP-2,page"
        )
        assert good == LinkLine(2, parse_link("SHOP-1", "BLOCKS", incident(B)))
        assert bad[0] == MalformedLine(3, f"'page:{B}' does not have the type INCIDENT")
        assert isinstance(bad[1], MalformedLine)
        assert bad[1].reason.startswith("'SHOP-2' is a case key, but the type is")

    @pytest.mark.parametrize("is_json", [True, False])
    async def test_a_url_of_another_site(self, is_json: bool) -> None:
        """A URL of another site is malformed, with both sites named; without a site, any is accepted."""
        address = "https://app.datadoghq.eu/cases/SHOP-1"
        row = json.dumps({**OBJECT, "child": address}) if is_json else f"{HEADER}\n{A},BLOCKS,{address}"
        wanted = parse_link(A, "BLOCKS", "SHOP-1")
        for site in (None, Site.EU1):
            [line] = await read(row, site=site)
            assert isinstance(line, LinkLine)
            assert line.new == wanted
        [bad] = await read(row, site=Site.US3)
        assert isinstance(bad, MalformedLine)
        assert "is on EU1 (datadoghq.eu), but this client uses US3 (us3.datadoghq.com)" in bad.reason


class TestCsv:
    async def test_names_of_columns_in_any_letter_case_and_order(self) -> None:
        """Column names are read in any letter case and order, with blanks around them."""
        assert await read(f" Child ,RELATIONSHIP, parent\n {B} , blocks ,{A} \n") == [LinkLine(2, NEW)]

    async def test_an_empty_type_is_the_default(self) -> None:
        """An empty type means the default."""
        assert await read(f"{','.join(COLUMNS)}\n{A},,BLOCKS,{B}, \n") == [LinkLine(2, NEW)]

    async def test_too_many_columns_are_refused(self) -> None:
        """A row with more cells than the header is malformed."""
        assert await reason(f"{HEADER}\n{GOOD},CASE\n") == "has 4 columns, but the header has 3"

    async def test_a_line_end_of_another_system_is_named(self) -> None:
        """A carriage return within a line is malformed, and the reason says how to save the file."""
        assert await reason(f"{HEADER}\n{GOOD}\r{GOOD}") == (
            "contains a carriage return: save the file with Unix or Windows line endings"
        )

    async def test_a_repeated_column_is_refused(self) -> None:
        """A repeated column of a link is refused, and a repeated unknown column is ignored."""
        twice = json.dumps(OBJECT)[:-1]
        assert await reason(f'{twice}, "parent": "{B}"}}') == "contains parent twice"
        assert await read_one(f'{twice}, "note": {{"a": 1, "a": 2}}, "note": 3}}') == LinkLine(1, NEW)
        assert await refusal(f"note,{HEADER},note,Parent\n".encode()) == "the header contains parent twice"
        assert await read(f"note,{HEADER},note\n,{GOOD},\n") == [LinkLine(2, NEW)]

    async def test_quoted_values(self) -> None:
        """Quoted cells may contain commas and doubled quotation marks, as in RFC 4180."""
        assert await read(f'note,{HEADER}\n"a, ""b""",{GOOD}\n') == [LinkLine(2, NEW)]

    @pytest.mark.parametrize("bad", [f'"{GOOD}', f'{GOOD},"', f'"{A}"x,BLOCKS,{B}', '"'])
    async def test_an_unbalanced_quotation_mark_affects_its_line_alone(self, bad: str) -> None:
        """An unbalanced quotation mark affects only its own line."""
        before, malformed, after = await read(f"{HEADER},note\n{GOOD}\n{bad}\n{GOOD}\n")
        assert isinstance(malformed, MalformedLine)
        assert malformed.number == 3
        assert malformed.reason.startswith("is not valid CSV: ")
        assert [before, after] == [LinkLine(2, NEW), LinkLine(4, NEW)]

    async def test_an_object_among_rows_is_malformed(self) -> None:
        """A JSON object in a CSV file is malformed, because the first line decides the format."""
        assert await reason(f"{HEADER}\n{JSON_LINE}")

    async def test_a_header_alone_is_an_empty_list(self) -> None:
        """A file with only a header contains no links."""
        assert await read(f"{HEADER}\n") == []


NOTES = f"{HEADER},note"
OPEN = "is not valid CSV: a quoted field is not closed"


class TestRowsOfSeveralLines:
    @pytest.mark.parametrize("length", [MAX_LINE, 1, 7])
    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    async def test_a_line_break_in_an_ignored_column(self, length: int, end: str) -> None:
        """A quoted cell may contain line breaks, and the row has the number of its first line."""
        content = end.join([NOTES, f'{GOOD},"a', "", 'b ""c"", d', f'e",{end}{GOOD},x', ""])
        assert await read(content, length) == [LinkLine(2, NEW), LinkLine(6, NEW)]

    async def test_two_cells_with_line_breaks_in_a_row(self) -> None:
        """The line that closes one quoted cell may open the next."""
        content = f'one,{HEADER},two\n"a\nb",{GOOD},"c\nd"\n,{GOOD},\n'
        assert await read(content) == [LinkLine(2, NEW), LinkLine(5, NEW)]

    async def test_a_carriage_return_in_an_ignored_cell(self) -> None:
        """A quoted cell may contain a carriage return."""
        assert await read(f'{NOTES}\n{GOOD},"a\rb"\n') == [LinkLine(2, NEW)]
        assert (await reason(f'{NOTES}\n{GOOD},"a"\n{GOOD}\r,"b"\r{GOOD}')).startswith("is not valid CSV")
        assert (await reason(f'{NOTES}\n{A},"BLOCKS",{B}\rx')).startswith("contains a carriage return")

    async def test_a_malformed_row_of_several_lines_is_one_line(self) -> None:
        """A malformed row of several lines is reported once."""
        before, after = await read(f'{NOTES}\n{A},LIKES,{B},"a\nb\nc"\n{GOOD},\n')
        assert isinstance(before, MalformedLine)
        assert (before.number, before.reason.split(";")[0]) == (2, "unknown relationship 'LIKES'")
        assert after == LinkLine(5, NEW)

    @pytest.mark.parametrize(
        ("rows", "numbers"),
        [
            (f'{GOOD},"x\n{GOOD},\n{GOOD},"\n', [3]),
            (f'{GOOD},"x\n{GOOD},"\n{GOOD},\n', [4]),
            (f'{GOOD},"x\n{GOOD},y\n', [3]),
            (f'{GOOD},"x\n{GOOD},"y\n{GOOD},\n', [4]),
            (f'"{GOOD},\n{GOOD},"x"\n{GOOD},\n', [3, 4]),
            (f'{GOOD},"x\n"y"z\n{GOOD},\n', [4]),
            (f'{GOOD},"x\ny",1,2\n{GOOD},\n', [4]),
            (f'{A},"BLOCKS\nx",{B},\n{GOOD},\n', [4]),
            (f'{GOOD},x,"y\nz"\n{GOOD},\n', [4]),
            (f'{GOOD},"x\ny","z"\n{GOOD},\n', [4]),
            (f'{GOOD},"x\ny","z\n{GOOD},\n', [4]),
        ],
    )
    async def test_a_forgotten_quotation_mark_hides_no_link(self, rows: str, numbers: list[int]) -> None:
        """A quoted cell that would contain a link, or that ends within text, is malformed on its own."""
        lines = await read(f"{NOTES}\n{rows}")
        assert [line.number for line in lines if isinstance(line, LinkLine)] == numbers
        assert MalformedLine(2, OPEN) in lines
        assert count_links(raw_file(f"{NOTES}\n{rows}".encode())) == len(lines)

    async def test_links_after_a_forgotten_quotation_mark_do_not_wait(self, pipe: Pipe) -> None:
        """A link after an unclosed quotation mark is yielded before more of the pipe is read."""
        file, writer = pipe
        async with aclosing(read_link_file(file)) as lines:
            writer.write(f'{NOTES}\n{GOOD},"x\n{GOOD},\n'.encode())
            assert [await anext(lines), await anext(lines)] == [MalformedLine(2, OPEN), LinkLine(3, NEW)]
            writer.close()

    @pytest.mark.parametrize("filler", ["x\n", '""\n', "\n", '","\n'])
    @pytest.mark.slow
    async def test_a_row_is_not_longer_than_a_line(self, filler: str) -> None:
        """A row that is not closed within 64 KiB is malformed, and its further lines are read as rows."""
        many = (MAX_LINE // len(filler) + 1) * filler
        lines = await read(f'{NOTES}\n{GOOD},"x\n{many}y"\n{GOOD},\n')
        assert lines[0] == MalformedLine(2, OPEN)
        assert lines[-1] == LinkLine(4 + many.count("\n"), NEW)

    async def test_a_header_of_several_lines(self) -> None:
        """The name of an unknown column may contain a line break."""
        assert await read(f'{HEADER},"Notes\n(""optional"")"\n{GOOD},\n') == [LinkLine(3, NEW)]
        assert await refusal(f'{HEADER},"Notes\n{GOOD}\n') == f"the header {OPEN}"
        for line in ("x\n", '","\n'):
            assert await refusal(f'{HEADER},"Notes\n{line * MAX_LINE}') == f"the header {OPEN}"


class TestComments:
    @pytest.mark.parametrize("length", [MAX_LINE, 1])
    async def test_they_are_skipped_and_counted(self, caplog: pytest.LogCaptureFixture, length: int) -> None:
        """A CSV line that begins with # is skipped as a comment, and the number of them is logged."""
        caplog.set_level("INFO", "datadog_caselinks")
        content = f'\n# "by hand\n{HEADER}\n#{GOOD}\n"# a, b",,\n{GOOD}\n'
        assert await read(content, length) == [LinkLine(6, NEW)]
        await read(f"{HEADER}\n{GOOD}\n# x", length)
        advice = "If such a row is a link, quote its first cell."
        assert caplog.messages == [
            f"Skipped as comments: 3 lines, the first is line 2. {advice}",
            f"Skipped as comments: line 3. {advice}",
        ]

    @pytest.mark.parametrize(
        "parent", ["#101", '"#101"', " #101 ", "#IR-101", '"#IR-101"', '"incident:#101"']
    )
    @pytest.mark.parametrize("delimiter", [",", ";", "\t"])
    async def test_an_incident_number_is_not_a_comment(self, parent: str, delimiter: str) -> None:
        """A row whose parent is the number of an incident is a link, also if it begins with #."""
        content = f"parent,parent_type,relationship,child\n{parent},INCIDENT,causes,SHOP-1\n"
        content = content.replace(",", delimiter)
        (line,) = await read(content)
        assert isinstance(line, LinkLine)
        assert isinstance(line.new.parent, IncidentNumber)
        assert count_links(raw_file(content.encode())) == 1

    @pytest.mark.parametrize(
        "row",
        [
            "#101,INCIDENT,cuases,SHOP-1",
            "#101,,causes,SHOP-1",
            "#101",
            '"#101",,,',
            '"#IR-101",INCIDENT,cuases,SHOP-1',
            '"#SHOP-2",,blocks,SHOP-1',
            '"# by hand",,blocks,SHOP-1',
            '"#101"x,INCIDENT,causes,SHOP-1',
        ],
    )
    async def test_a_row_that_is_not_a_comment_is_never_dropped(self, row: str) -> None:
        """A row that begins with an incident number, or has a quoted # before other cells, is malformed."""
        (line,) = await read(f"parent,parent_type,relationship,child\n{row}\n")
        assert isinstance(line, MalformedLine)

    async def test_a_row_that_is_out_of_use(self) -> None:
        """A link is a comment with # before a key or UUID, or with # and a blank before any parent."""
        header = "parent,parent_type,relationship,child"
        rows = [
            "#SHOP-1,,blocks,SHOP-2",
            "# 101,INCIDENT,causes,SHOP-1",
            '# "open',
            "#101 is solved,,,",
            "#a,b,c,d,e",
            '#a,"b"c',
        ]
        assert await read("\n".join([header, *rows])) == []

    @pytest.mark.parametrize(
        ("header", "row", "delimiter"),
        [
            ("relationship\tparent\tchild", "\t#SHOP-1\tSHOP-2", "\t"),
            ("relationship\tparent\tchild", " \t# x\tSHOP-2", "\t"),
            ("parent#relationship#child", "#blocks#SHOP-2", "#"),
            ("note#parent#relationship#child", "##blocks#SHOP-2", "#"),
        ],
    )
    async def test_an_empty_first_cell_is_not_a_comment(self, header: str, row: str, delimiter: str) -> None:
        """A row whose first cell is empty is not a comment, also if # follows it or separates the cells."""
        (line,) = await read(f"{header}\n{row}\n", delimiter=delimiter)
        assert isinstance(line, MalformedLine)

    async def test_a_sign_in_an_ignored_column_is_a_value(self) -> None:
        """A # in an unknown first column is a value, unless a blank follows."""
        content = f"#,{HEADER}\n#inc-1,{GOOD}\n# 1,{GOOD}\n##,{GOOD}\n#,,,\n"
        assert await read(content) == [LinkLine(2, NEW)]
        assert await read(f'#,{HEADER}\n"#inc-1",{GOOD}\n"# 1",{GOOD}\n"# 1",,,\n') == [
            LinkLine(2, NEW),
            LinkLine(3, NEW),
        ]
        (line,) = await read(f"#,{HEADER}\n#inc-1,,,\n")
        assert isinstance(line, MalformedLine)

    async def test_only_comments(self) -> None:
        """A file of comments is refused as empty."""
        assert (await refusal("# a\n# b\n")).startswith("the file is empty")

    async def test_json_lines_after_a_comment(self) -> None:
        """The first line that is not a comment decides the format."""
        assert await read(f"# by hand\n{JSON_LINE}\n") == [LinkLine(2, NEW)]


class TestDelimiters:
    @pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", "^", ":", "~", " ", "§", "\\t"])
    async def test_one_that_is_given(self, delimiter: str) -> None:
        """The delimiter may be any character that no key contains, and ``\t`` means a tab."""
        sign = delimiter.replace("\\t", "\t")
        row = sign.join([A, '"BLOCKS"', B, '"a, b"'])
        content = f"{NOTES.replace(',', sign)}\n{row}\n{sign * 4}\n"
        assert await read(content, delimiter=delimiter) == [LinkLine(2, NEW)]
        assert count_links(raw_file(content.encode()), delimiter=delimiter) == 1

    @pytest.mark.parametrize("delimiter", ["", ",,", "a", "7", '"', "\n", "\r", "\0"])
    async def test_one_that_cannot_separate(self, delimiter: str) -> None:
        """A delimiter that can be part of a value is refused."""
        with pytest.raises(
            ParameterError, match=r"^delimiter must be one character other than a .*, or \\t for a tab, not"
        ):
            await read(HEADER, delimiter=delimiter)

    async def test_a_declared_one(self) -> None:
        """A file may declare its delimiter in a ``sep=`` line before the header."""
        row = GOOD.replace(",", "|")
        assert await read(f"sep=|\nparent|relationship|child\n{row}\n") == [LinkLine(3, NEW)]
        assert await read(f"SEP=;\n\n{HEADER}\n{GOOD}\n") == [LinkLine(4, NEW)]
        assert await read(f"sep=;\nparent|relationship|child\n{row}\n", delimiter="|") == [LinkLine(3, NEW)]
        assert (await refusal(f"sep=x\n{HEADER}\n")).startswith("the header 'sep=x' lacks")

    async def test_a_delimiter_decides_the_format(self) -> None:
        """A given delimiter makes the file CSV, unless another format is given."""
        assert (await refusal(JSON_LINE, delimiter=";")).startswith("the header ")
        assert await read(JSON_LINE, delimiter=";", format="jsonl") == [LinkLine(1, NEW)]

    async def test_other_bytes_in_ignored_columns(self) -> None:
        """Other columns than those of a link may contain bytes that are not UTF-8."""
        content = f"{HEADER},Priorit\xe4t\n{GOOD},\xe9\n{GOOD}\xe9,\n{GOOD},".encode("latin-1")
        good, bad, last = await read(content)
        assert bad == MalformedLine(3, "is not UTF-8 text")
        assert [good, last] == [LinkLine(2, NEW), LinkLine(4, NEW)]


class TestNamesOfColumns:
    @pytest.mark.parametrize("format", ["csv", "jsonl", "yaml"])
    async def test_names_that_are_given(self, format: str) -> None:
        """A column may have any given name, in any letter case and in every format."""
        content = {
            "csv": f"from,parent,Relationship, TO \n{A},x,BLOCKS,{B}\n",
            "jsonl": json.dumps({"from": A, "parent": "x", "RELATIONSHIP": "BLOCKS", "To": B}),
            "yaml": f"- {{from: {A}, parent: x, relationship: BLOCKS, To: {B}}}",
        }[format]
        (line,) = await read(content, format=format, columns={"parent": "From", "child": "to"})
        assert isinstance(line, LinkLine)
        assert line.new == NEW

    async def test_a_name_that_is_not_in_the_file(self) -> None:
        """The error for a missing column asks for the names in the file, each with the column of a link."""
        message = await refusal(f"{HEADER}\n{GOOD}\n", columns={"parent": "From"})
        assert message.startswith(
            f"the header {HEADER!r} lacks From (parent): the first line of CSV must contain the columns "
            "From (parent), relationship, child; if"
        )

    @pytest.mark.parametrize("header", ["Parent ID,Relationship,Child-Id", "PARENT_ID,RELATIONSHIP,child id"])
    async def test_words_are_separated_as_people_like(self, header: str) -> None:
        """Blanks, hyphens and underscores in a column name are equal."""
        assert await read(f"{header}\n{GOOD}\n") == [LinkLine(2, NEW)]

    @pytest.mark.parametrize("column", ["parent_type", "child_type"])
    async def test_a_name_that_the_header_lacks(self, column: str) -> None:
        """A column that was given a name must be in CSV: otherwise a typo would turn incidents into cases."""
        content = f"{HEADER},kind\n{GOOD},INCIDENT\n"
        lacks = rf"lacks kidn \({column}\): the first line of CSV must contain the columns .*{column}"
        with pytest.raises(LinkFileError, match=lacks):
            await read(content, columns={column: "kidn"})
        (line,) = await read(content, columns={column: "kind"})
        assert isinstance(line, LinkLine)
        assert "INCIDENT" in str(line.new)

    @pytest.mark.parametrize("column", ["parent_type", "child_type"])
    @pytest.mark.parametrize("format", ["jsonl", "yaml"])
    async def test_a_name_that_no_line_has(self, format: str, column: str) -> None:
        """A column that was given a name must be in some line of JSON Lines, or link of YAML, as in CSV."""
        link = {"parent": A, "relationship": "BLOCKS", "child": B}
        lines = [json.dumps(each) for each in (link, link | {"kind": "INCIDENT"})]
        content = "\n".join(lines if format == "jsonl" else [f"- {line}" for line in lines])
        message = await refusal(content, format=format, columns={column: "kidn"})
        assert message.startswith(f"no link of the file has kidn ({column}): ")
        first, second = await read(content, format=format, columns={column: "kind"})
        assert isinstance(second, LinkLine)
        assert (first, "INCIDENT" in str(second.new)) == (LinkLine(1, NEW), True)

    async def test_a_name_that_no_line_can_have(self) -> None:
        """If no line is an object with columns of a link, each line says why, and the names do not matter."""
        assert [type(line) for line in await read("{}\n[]", format="jsonl", columns={"parent": "x"})] == [
            MalformedLine,
            MalformedLine,
        ]

    @pytest.mark.parametrize(
        ("columns", "says"),
        [
            ({"prnt": "From"}, "^unknown column 'prnt' of a link; use one of parent, parent_type, "),
            ({"From": "Parent"}, "^unknown column 'From' of a link; exchange 'From' and 'Parent'$"),
            ({"parent": "x", "child": "X"}, "^parent and child have the same name 'X': each column of a "),
        ],
    )
    async def test_names_that_cannot_be(self, columns: dict[str, str], says: str) -> None:
        """An unknown column, or one name for two columns, is refused before anything is read."""
        with pytest.raises(ParameterError, match=says):
            await read(HEADER, columns=columns)


class TestJsonLines:
    @pytest.mark.parametrize(
        "bad", ["{", "{}x", "[1]", "7", "null", '"x"', HEADER, "[" * 60_000, "9" * 60_000, "NaN"]
    )
    async def test_what_is_no_object_affects_its_line_alone(self, bad: str) -> None:
        """A line that is not a JSON object is malformed, and the lines around it are read."""
        before, malformed, after = await read(f"{JSON_LINE}\n{bad}\n{JSON_LINE}\n")
        assert isinstance(malformed, MalformedLine)
        assert malformed.number == 2
        assert malformed.reason.startswith(("is not valid JSON: ", "is not a JSON object"))
        assert [before, after] == [LinkLine(1, NEW), LinkLine(3, NEW)]

    async def test_the_first_line_may_be_the_bad_one(self) -> None:
        """A first line that begins with a brace makes the file JSON Lines, even if it is malformed."""
        bad, good = await read(f"{{\n{JSON_LINE}\n")
        assert isinstance(bad, MalformedLine)
        assert (bad.number, good) == (1, LinkLine(2, NEW))

    @pytest.mark.parametrize("name", COLUMNS)
    @pytest.mark.parametrize("value", [None, 7, True, [A], {"id": A}])
    async def test_a_value_that_is_no_string_is_refused(self, name: str, value: object) -> None:
        """A value that is not a string is malformed, and is not converted."""
        assert await reason(json.dumps({**OBJECT, name: value})) == f"{name} must be a string"

    @pytest.mark.slow
    @given(json_values)
    async def test_any_json_is_a_link_or_a_reason(self, value: object) -> None:
        """Any JSON value is read as a link or as a malformed line."""
        first, second = await read(f"{JSON_LINE}\n{json.dumps(value)}")
        assert first == LinkLine(1, NEW)
        assert isinstance(second, LinkLine | MalformedLine)

    @given(
        st.fixed_dictionaries(dict.fromkeys(COLUMNS, st.sampled_from([A, B, "CASE", "blocks"]) | json_values))
    )
    async def test_any_values_are_a_link_or_a_reason(self, row: dict[str, Any]) -> None:
        """An object with any values for the known keys is a link or a malformed line."""
        line = await read_one(json.dumps(row))
        assert line.number == 1
        assert isinstance(line, LinkLine) or line.reason.isprintable()


class TestWholeFiles:
    @pytest.mark.parametrize("content", [b"", b"\n", b"\r\n \n\t\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n\n"])
    async def test_an_empty_file(self, content: bytes) -> None:
        """An empty file is refused, because it is usually a mistake."""
        assert await refusal(content) == "the file is empty: it must contain at least a header or a link"

    @pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
    async def test_an_encoding_that_cannot_be_known(self, encoding: str) -> None:
        """UTF-16 without a byte order mark and UTF-32 are refused, and the message says what is read."""
        assert await refusal(f"{HEADER}\n{GOOD}\n".encode(encoding)) == BINARY

    @pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
    @pytest.mark.parametrize("length", [1, 2, 3, 7, MAX_LINE])
    @pytest.mark.parametrize("start", [f"{HEADER}\n{GOOD}\n", f"{JSON_LINE}\n{JSON_LINE}\n"])
    @pytest.mark.slow
    async def test_utf16_with_a_byte_order_mark(self, encoding: str, length: int, start: str) -> None:
        """UTF-16 with a byte order mark is read, for any chunk size."""
        content = f"\ufeff{start}\u660e\U0001f600\u0a0a".encode(encoding)
        *links, last = await read(content, length)
        assert links == [LinkLine(2, NEW)] if start.startswith("p") else [LinkLine(1, NEW), LinkLine(2, NEW)]
        assert isinstance(last, MalformedLine)
        assert last.number == 3

    async def test_a_second_byte_order_mark(self) -> None:
        """A second byte order mark, which some programs add, is not part of the first column name."""
        assert await read(f"\ufeff{HEADER}\n{GOOD}\n".encode("utf-16")) == [LinkLine(2, NEW)]

    @pytest.mark.parametrize("rest", [b"", b"\xd8", b"\x00\xd8", b"\x00\xd8x\x00"])
    async def test_utf16_that_is_damaged(self, rest: bytes) -> None:
        """An incomplete UTF-16 character affects only its own line."""
        content = f"\ufeff{HEADER}\n{GOOD}\nbad".encode("utf-16-le") + rest
        good, bad = await read(content)
        assert good == LinkLine(2, NEW)
        assert bad == MalformedLine(3, "lacks relationship, child")

    @pytest.mark.parametrize(
        "content",
        [
            b"PK\x03\x04\x14\0\x06\0",
            b"\0" * 100,
            b"\x1f\x8b\x08\0",
            b"\x1f\x8b\x08\n",
            b"a\0b\n",
        ],
    )
    @pytest.mark.parametrize("format", [None, "csv"])
    async def test_a_binary_file(self, content: bytes, format: str | None) -> None:
        """A binary file, such as a workbook with the wrong suffix, is refused."""
        assert await refusal(content, format=format) == BINARY

    @pytest.mark.parametrize("format", ["jsonl", "yaml"])
    @pytest.mark.parametrize("content", [b"\x1f\x8b\x08\r\n", b"a\0b\n"])
    async def test_a_binary_file_of_a_known_format(self, content: bytes, format: str) -> None:
        """A binary file is refused, also if the format is given."""
        assert await refusal(content, format=format) == BINARY

    @pytest.mark.parametrize(
        "content",
        [
            "\u00dcbergeordnet;Beziehung;Kind\r\n".encode("cp1252"),
            b"# by hand\n\xdcbergeordnet;relationship;child\r\n",
            b"\x89PNG\r\n\x1a\n",
            b"\xff" * MAX_LINE * 2,
        ],
    )
    @pytest.mark.parametrize("format", [None, "csv"])
    async def test_a_file_in_another_encoding(self, content: bytes, format: str | None) -> None:
        """A header that is not UTF-8, such as one in Windows-1252, is refused, and the message says so."""
        message = await refusal(content, format=format)
        assert message == f"the file is not UTF-8 text: {FORMATS}"

    @pytest.mark.parametrize("format", ["jsonl", "yaml"])
    async def test_a_first_line_in_another_encoding(self, format: str) -> None:
        """A first line of JSON Lines or YAML that is not UTF-8 is refused, and the message says so."""
        message = await refusal('{"\u00dcber": 1}\n'.encode("cp1252"), format=format)
        assert message == f"the file is not UTF-8 text: {FORMATS}"

    @pytest.mark.parametrize(
        ("header", "missing", "hint"),
        [
            ("parent|relationship|child", "parent, relationship, child", "or another delimiter, specify"),
            (
                "From,Kind,To",
                "parent, relationship, child",
                "other names or another delimiter, specify these",
            ),
            ("parent,relationship;child", "relationship, child", "must contain the columns"),
            (
                "parent,child",
                "relationship",
                "the first line of CSV must contain the columns parent, relationship, child; if",
            ),
            (GOOD, "parent, relationship, child", "the first line of CSV must contain the columns"),
            ("hello", "parent, relationship, child", "the first line of CSV must contain the columns"),
        ],
    )
    async def test_a_header_without_the_columns(self, header: str, missing: str, hint: str) -> None:
        """The error for a header without required columns lists them and suggests a likely cause."""
        message = await refusal(f"{header}\n{GOOD}\n")
        assert message.startswith(f"the header {header!r} lacks {missing}: ")
        assert hint in message

    @pytest.mark.parametrize("indent", [None, 2])
    @pytest.mark.parametrize("separators", [None, (",", ":")])
    async def test_a_json_array(self, indent: int | None, separators: tuple[str, str] | None) -> None:
        """A JSON array is refused, and the message says to write one object per line."""
        message = await refusal(json.dumps([OBJECT], indent=indent, separators=separators))
        assert message.endswith("looks like a JSON array: write one object on each line instead")

    @pytest.mark.parametrize(
        "header", [f'"{HEADER}', f'{HEADER},"x"y', "x" * (MAX_LINE + 1), HEADER.replace(",", "\r")]
    )
    async def test_a_header_that_is_no_csv(self, header: str) -> None:
        """An error in the header is reported as such."""
        assert (await refusal(f"{header}\n{GOOD}\n")).startswith("the header ")

    @given(
        st.binary()
        | st.text().map(str.encode)
        | st.binary().map(f"{HEADER}\n{GOOD}\n".encode().__add__)
        | st.binary().map(f"{JSON_LINE}\n".encode().__add__)
        | st.text('{}[]",:\n\r\\a0 \ufeff').map(str.encode),
        st.integers(1, 50),
    )
    @example(b"{" * 70_000, MAX_LINE)
    @example(b'{"a":' * 13_000, MAX_LINE)
    @example(b'parent,relationship,child\n"', MAX_LINE)
    async def test_any_bytes_are_lines_or_refused(self, content: bytes, length: int) -> None:
        """Any bytes yield lines in ascending order without repetition, or raise LinkFileError."""
        try:
            lines = await read(content, length)
        except LinkFileError as error:
            assert str(error).isprintable()  # noqa: PT017 - some files are good
            return
        numbers = [line.number for line in lines]
        assert numbers == sorted(set(numbers))
        assert all(1 <= number <= content.count(b"\n") + 1 for number in numbers)


class TestFormat:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("links.csv", "csv"),
            ("links.jsonl", "jsonl"),
            ("LINKS.NDJSON", "jsonl"),
            ("links.yaml", "yaml"),
            (b"links.yml", "yaml"),
            ("links.yaml.txt", None),
            ("links", None),
            (7, None),
        ],
    )
    async def test_the_suffix_decides(self, name: object, expected: str | None) -> None:
        """A known suffix decides the format; any other name, or a file descriptor, does not."""
        contents = {"csv": f"{HEADER}\n{GOOD}", "jsonl": JSON_LINE, "yaml": f"{A}: {{blocks: {B}}}"}
        for format, text in contents.items():
            file = InPieces(text.encode(), MAX_LINE)
            file.name = name  # type: ignore[attr-defined]
            try:
                lines = [line async for line in read_link_file(file)]
            except LinkFileError:
                lines = []
            is_read = [line.new for line in lines if isinstance(line, LinkLine)] == [NEW]
            assert is_read is (format == expected if expected else format != "yaml")

    @pytest.mark.parametrize("format", ["csv", LinkFileFormat.CSV])
    async def test_an_explicit_format_overrides_the_suffix(self, format: str) -> None:
        """An explicit format overrides the suffix."""
        file = InPieces(f"{HEADER}\n{GOOD}".encode(), MAX_LINE)
        file.name = "links.yaml"  # type: ignore[attr-defined]
        assert [line async for line in read_link_file(file, format=format)] == [LinkLine(2, NEW)]
        counted = raw_file(f"{HEADER}\n{GOOD}".encode())
        assert count_links(counted, format=format) == 1

    @pytest.mark.parametrize("format", ["xml", "CSV", ""])
    async def test_an_unknown_format_is_refused(self, format: str) -> None:
        """An unknown format is refused, and the message lists the known ones."""
        message = f"format must be one of csv, jsonl, yaml, not {format!r}"
        with pytest.raises(ParameterError) as caught:
            await read(GOOD, format=format)
        assert str(caught.value) == message
        with pytest.raises(ParameterError):
            count_links(raw_file(b""), format=format)

    async def test_yaml_without_a_name_needs_a_format(self) -> None:
        """YAML without a name or a format is read as CSV, and the error says to specify the format."""
        message = await refusal("SHOP-1:\n  blocks: SHOP-2\n")
        assert message.endswith("if the file is not CSV, specify its format")

    def test_a_malformed_line_has_the_status_malformed(self) -> None:
        """A malformed line has the status MALFORMED."""
        assert MalformedLine(1, "x").status is LinkStatus.MALFORMED


class TestCountLinks:
    @given(
        st.lists(st.sampled_from([GOOD, "", " \t", "bad", "{", "\x1c"]), max_size=10),
        st.sampled_from(
            [HEADER, JSON_LINE, f"\n\n{HEADER}", f" \n{JSON_LINE}", f"\ufeff{HEADER}", f"\ufeff{JSON_LINE}"]
        ),
        st.sampled_from(["\n", "\r\n"]),
        st.booleans(),
    )
    @example([], f"\ufeff\n{HEADER}", "\n", True)
    async def test_it_is_the_number_of_lines_that_reading_yields(
        self, lines: list[str], start: str, end: str, last_end: bool
    ) -> None:
        """``count_links`` returns the number of lines that reading yields, for a progress bar."""
        content = (end.join([start, *lines]) + end * last_end).encode()
        assert count_links(raw_file(content)) == len(await read(content))

    @pytest.mark.parametrize("content", [b"", b"\n\n", f"{HEADER}\n".encode()])
    def test_it_may_be_none(self, content: bytes) -> None:
        """The count is 0 for an empty file, blank lines or a header alone."""
        assert count_links(raw_file(content)) == 0

    def test_it_leaves_the_file_at_its_beginning(self) -> None:
        """Counting leaves the file at its beginning and open."""
        file = raw_file(f"{HEADER}\n{GOOD}\n".encode())
        assert count_links(file) == 1
        assert file.tell() == 0
        assert not file.closed


class TestMemory:
    @pytest.mark.parametrize("start", [f"{HEADER}\n", f"{JSON_LINE}\n", "x"])
    @pytest.mark.slow
    async def test_it_is_bounded(self, start: str) -> None:
        """Reading and counting a line of 20 MB takes less than 2 MB of memory."""
        content = start.encode() + b"x" * 20_000_000
        tracemalloc.start()
        try:
            with contextlib.suppress(LinkFileError):
                await read(content)
            count_links(raw_file(content))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 2_000_000


class TestReading:
    async def test_a_file_from_disk(self, tmp_path: Any) -> None:
        """A file is read that is opened as the docstring says."""
        path = tmp_path / "links.csv"
        path.write_bytes(f"{HEADER}\n".encode() + f"{GOOD}\n".encode() * 3000)
        with open(path, "rb", buffering=0) as file:  # noqa: ASYNC230 - opening it blocks nobody
            lines = [line async for line in read_link_file(file)]
        assert lines == [LinkLine(number, NEW) for number in range(2, 3002)]

    async def test_the_loop_runs_on_while_a_pipe_is_waited_for(self, pipe: Pipe) -> None:
        """Reading from a pipe does not block the event loop."""
        file, writer = pipe

        async def write() -> None:
            for text in (f"{HEADER}\n", f"{GOOD}\n{GOOD[:10]}", f"{GOOD[10:]}\n{GOOD[:50]}", GOOD[50:]):
                for _ in range(100):
                    await asyncio.sleep(0)
                writer.write(text.encode())
            writer.close()

        task = asyncio.create_task(write())
        lines = [line async for line in read_link_file(file)]
        await task
        assert lines == [LinkLine(number, NEW) for number in (2, 3, 4)]

    async def test_lines_are_yielded_as_they_come(self, pipe: Pipe) -> None:
        """Each link is yielded before the writer has written the next one."""
        file, writer = pipe
        async with aclosing(read_link_file(file)) as lines:
            writer.write(f"{HEADER}\n".encode())
            for number in (2, 3, 4):
                writer.write(f"{GOOD}\n".encode())
                assert await anext(lines) == LinkLine(number, NEW)
            writer.close()
            assert await anext(lines, None) is None

    async def test_cancelling_while_a_pipe_is_waited_for(self, pipe: Pipe) -> None:
        """Cancelling a read from an idle pipe returns immediately."""
        file, writer = pipe
        writer.write(f"{HEADER}\n{GOOD}\n".encode())
        seen: list[LinkLine | MalformedLine] = []
        has_seen = asyncio.Event()

        async def consume() -> None:
            async for line in read_link_file(file):
                seen.append(line)
                has_seen.set()

        task = asyncio.create_task(consume())
        await has_seen.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert seen == [LinkLine(2, NEW)]

    async def test_what_comes_after_cancelling_is_dropped(self, pipe: Pipe) -> None:
        """Data that arrives after the cancellation is dropped without an error."""
        file, writer = pipe
        complaints: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        task = asyncio.ensure_future(anext(read_link_file(file)))
        await asyncio.sleep(0)
        (reader,) = _readers()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        writer.write(b"late")
        reader.join()
        await asyncio.sleep(0)
        assert complaints == []

    def test_a_loop_that_ends_is_not_missed_by_the_reader(self, pipe: Pipe) -> None:
        """Data that arrives after the event loop was closed is dropped without an error."""
        file, writer = pipe

        async def give_up() -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await anext(read_link_file(file))

        asyncio.run(give_up())
        writer.close()
        for thread in _readers():
            thread.join()

    async def test_no_thread_keeps_the_program(self, pipe: Pipe) -> None:
        """The reading thread is a daemon, so that Ctrl-C ends the program without another line of input."""
        file, writer = pipe
        task = asyncio.ensure_future(anext(read_link_file(file)))
        await asyncio.sleep(0)
        assert _readers()
        assert all(thread.daemon for thread in _readers())
        writer.write(f"{HEADER}\n{GOOD}\n".encode())
        writer.close()
        assert await task == LinkLine(2, NEW)

    @pytest.mark.parametrize(
        "error", [OSError(5, "gone"), ValueError("I/O operation on closed file"), MemoryError("x")]
    )
    async def test_a_read_that_fails_is_raised(self, error: Exception) -> None:
        """A failed read raises its own error, after the lines before it."""
        lines = read_link_file(Broken(f"{HEADER}\n{GOOD}\n{GOOD}".encode(), error))
        assert await anext(lines) == LinkLine(2, NEW)
        with pytest.raises(type(error)) as caught:
            async with asyncio.timeout(10):
                await anext(lines)
        assert caught.value is error

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such pipes")
    async def test_a_pipe_that_does_not_block_is_no_short_file(self, pipe: Pipe) -> None:
        """A non-blocking pipe without data raises an error, because ending would lose later links."""
        file, writer = pipe
        os.set_blocking(file.fileno(), False)
        writer.write(f"{HEADER}\n{GOOD}\n".encode())
        lines = read_link_file(file)
        assert await anext(lines) == LinkLine(2, NEW)
        with pytest.raises(OSError, match="block"):
            await anext(lines)
        writer.close()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """Yield both ends of a pipe."""
    reader, writer = os.pipe()
    with open(reader, "rb", buffering=0) as file, open(writer, "wb", buffering=0) as other:
        yield file, other
        # Readers must see the end of this pipe before another pipe reuses its file descriptor.
        other.close()
        for thread in _readers():
            thread.join()


def _readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "caselinks-read"]
