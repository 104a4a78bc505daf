"""YAML files of links: scalars are strings, and every error has its line number."""

from __future__ import annotations

import json
import sys
import threading
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datadog_caselinks import LinkFileError, LinkLine, MalformedLine, read_link_file
from datadog_caselinks.bulk import link_files, link_yaml
from datadog_caselinks.bulk.link_csv import MAX_LINE
from datadog_caselinks.bulk.link_files import MAX_YAML, count_links
from datadog_caselinks.bulk.link_yaml import YamlRow, read_rows
from tests.bulk import reading
from tests.bulk.reading import InPieces, raw_file

INCIDENT = "61c41aec-dddd-59db-a8d2-bb09606ec3a2"
A = "bf0cbac6-4c16-4cfb-b6bf-ca5e0ec37a4f"


read = partial(reading.read, format="yaml")
refusal = partial(reading.refusal, format="yaml")


async def numbers_and_links(content: str, length: int = MAX_LINE) -> list[tuple[int, str]]:
    """Return each line's number with its link, or with the reason why it is malformed."""
    lines = await read(content, length)
    return [(line.number, str(line.new if isinstance(line, LinkLine) else line.reason)) for line in lines]


class TestMapping:
    @pytest.mark.parametrize("length", [MAX_LINE, 1, 7])
    async def test_of_parents_relationships_and_children(self, length: int) -> None:
        """A mapping of parents has one child or a list in any YAML notation, each with its line number."""
        content = (
            "# the links of the outage\n"
            "\n"
            "SHOP-23:\n"
            "  parent_of: [SHOP-24, SHOP-25]\n"
            "  blocks: SHOP-27   # a comment\n"
            "  Child of: SHOP-26\n"
            f"incident:{INCIDENT}:\n"
            "  causes:\n"
            "    - SHOP-9\n"
            f"    - {A}\n"
            f'"page:{INCIDENT}": {{escalates-to: shop-1}}\n'
        )
        assert await numbers_and_links(content, length) == [
            (4, "SHOP-23 PARENT_OF SHOP-24"),
            (4, "SHOP-23 PARENT_OF SHOP-25"),
            (5, "SHOP-23 BLOCKS SHOP-27"),
            (6, "SHOP-26 PARENT_OF SHOP-23"),
            (9, f"incident:{INCIDENT} CAUSES SHOP-9"),
            (10, f"INCIDENT {INCIDENT} CAUSES CASE {A}"),
            (11, f"page:{INCIDENT} ESCALATES_TO SHOP-1"),
        ]

    async def test_a_tag_calls_nothing(self) -> None:
        """YAML tags do not construct or call anything."""
        (line,) = await read("SHOP-1: {blocks: !!python/object/apply:os.abort x}\n")
        assert isinstance(line, MalformedLine)

    @pytest.mark.parametrize("word", ["no", "on", "007", "1e9", "2024-01-01", "0x1F", "!!int 12"])
    async def test_a_scalar_is_what_is_written(self, word: str) -> None:
        """A YAML scalar is never converted to a boolean, a number or a date."""
        [(_, reason)] = await numbers_and_links(f"SHOP-1:\n  blocks: {word}\n")
        assert reason.startswith(f"{word.removeprefix('!!int ')!r} does not name an entity")

    async def test_what_is_no_link_is_alone_in_that(self) -> None:
        """A malformed entry is reported with its line, and the links around it are read."""
        content = (
            "SHOP-1:\n"
            "  blocks: [SHOP-2, shop, SHOP-1]\n"
            "  likes: SHOP-3\n"
            "  causes:\n"
            "  relates_to: [SHOP-4, {a: b}]\n"
            "SHOP-5:\n"
            "SHOP-6: SHOP-7\n"
            "SHOP-8: {blocks: []}\n"
        )
        reported = await numbers_and_links(content)
        assert [(number, reason.split(";")[0]) for number, reason in reported] == [
            (2, "SHOP-1 BLOCKS SHOP-2"),
            (2, "'shop' does not name an entity"),
            (2, "SHOP-1 cannot be linked to itself"),
            (3, "unknown relationship 'likes'"),
            (4, "'causes' needs the name of a child or a list of names"),
            (5, "SHOP-1 RELATES_TO SHOP-4"),
            (5, "'relates_to' needs the name of a child or a list of names"),
            (6, "'SHOP-5' has no relationships: write SHOP-1: {blocks: [SHOP-2, SHOP-3]}"),
            (7, "'SHOP-6' has no relationships: write SHOP-1: {blocks: [SHOP-2, SHOP-3]}"),
        ]

    @pytest.mark.parametrize(
        ("content", "key", "first"),
        [
            ("SHOP-1: {blocks: SHOP-2}\nSHOP-3: {}\nshop-1: {}\n", "line 3: 'shop-1'", 1),
            ("SHOP-1:\n  relates-to: SHOP-2\n  RELATES_TO: []\n", "line 3: 'RELATES_TO'", 2),
            ("SHOP-1:\n  parent of: SHOP-2\n  PARENT_OF: []\n", "line 3: 'PARENT_OF'", 2),
            ("- parent: SHOP-1\n- child: SHOP-2\n  Child: SHOP-3\n", "line 3: 'Child'", 2),
            ("---\n? &a SHOP-1\n: {}\n? *a\n: {}\n", "line 2: 'SHOP-1'", 2),
        ],
    )
    async def test_a_duplicate_key_is_refused(self, content: str, key: str, first: int) -> None:
        """A duplicate key fails the whole file, because most YAML readers silently keep the last value."""
        assert await refusal(content) == f"{key} already appears in line {first}: combine both under one key"

    async def test_a_name_may_be_an_alias(self) -> None:
        """A name may be an alias, and the link has the line number of the anchor."""
        content = f"---\nSHOP-1: {{blocks: &outage 'incident:{INCIDENT}'}}\n"
        content += "SHOP-2: {blocks: *outage}\n"
        assert await numbers_and_links(content) == [
            (2, f"SHOP-1 BLOCKS incident:{INCIDENT}"),
            (2, f"SHOP-2 BLOCKS incident:{INCIDENT}"),
        ]

    @pytest.mark.parametrize(
        ("content", "line"),
        [
            ("SHOP-1: &x {blocks: SHOP-3}\nSHOP-2: *x\n", 1),
            ("SHOP-1:\n  blocks: &x [SHOP-3]\n  causes: *x\n", 2),
            ("- &x {parent: SHOP-1}\n- *x\n", 1),
        ],
    )
    async def test_an_alias_of_more_than_a_name_is_refused(self, content: str, line: int) -> None:
        """An alias of a list or mapping is refused: a short file could expand to a billion links."""
        assert await refusal(content) == (f"line {line}: an alias repeats this list or mapping: write it out")

    async def test_a_key_must_be_a_name(self) -> None:
        """A key that is a list or a mapping is refused."""
        assert await refusal("SHOP-1: {}\n? [SHOP-2]\n: {}\n") == (
            "line 2: a key must be a name, not a list or mapping"
        )


class TestList:
    async def test_of_the_rows_that_json_lines_have(self) -> None:
        """A list has the rows of JSON Lines: names in any case, other keys ignored, empty values missing."""
        content = (
            "- parent: SHOP-1\n"
            "  relationship: blocks\n"
            "  child: SHOP-2\n"
            "  note: what it is\n"
            f"- {{Parent_ID: {A}, relationship: RELATES_TO, child: {INCIDENT}, child_type: incident}}\n"
            "- parent: SHOP-1\n"
            "  parent_type:\n"
            "  relationship: ~\n"
            "- SHOP-3\n"
            "- {parent: SHOP-1, relationship: [BLOCKS], child: SHOP-2}\n"
            "- {parent: SHOP-1, parent_id: SHOP-1, relationship: BLOCKS, child: SHOP-2}\n"
        )
        assert await numbers_and_links(content) == [
            (1, "SHOP-1 BLOCKS SHOP-2"),
            (5, f"CASE {A} RELATES_TO INCIDENT {INCIDENT}"),
            (6, "lacks relationship, child"),
            (9, "is not a mapping: write parent, relationship and child, or use the parents as keys"),
            (10, "'relationship' must be a string"),
            (11, "contains parent twice"),
        ]


class TestWholeFiles:
    @pytest.mark.parametrize("start", ["# links\n", "---\n", "%YAML 1.1\n---\n", "\n \n", "\ufeff", ""])
    async def test_it_may_begin_in_any_way(self, start: str) -> None:
        """A comment, a marker, blank lines or a byte order mark may come before the first key."""
        assert [text for _, text in await numbers_and_links(f"{start}SHOP-1:\n  blocks: SHOP-2\n")] == [
            "SHOP-1 BLOCKS SHOP-2"
        ]

    async def test_it_may_be_indented(self) -> None:
        """Indented YAML, as copied from another file, is read."""
        assert await numbers_and_links("  - {parent: SHOP-1, relationship: blocks, child: SHOP-2}\n") == [
            (1, "SHOP-1 BLOCKS SHOP-2")
        ]

    async def test_the_loop_runs_on_while_it_is_understood(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """YAML is parsed in another thread, so that the event loop continues."""
        threads: list[threading.Thread] = []

        def read_elsewhere(text: str) -> list[YamlRow]:
            threads.append(threading.current_thread())
            return read_rows(text)

        monkeypatch.setattr(link_yaml, "read_rows", read_elsewhere)
        assert await numbers_and_links("SHOP-1: {blocks: SHOP-2}") == [(1, "SHOP-1 BLOCKS SHOP-2")]
        assert threads != [threading.current_thread()]

    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    async def test_numbers_are_those_that_an_editor_shows(self, end: str) -> None:
        """Line numbers match those of an editor: blank lines count, and line ends of YAML alone do not."""
        lines = ["", "# \u2028 \x85", "SHOP-1:", "", " ", "  blocks: SHOP-2", ""]
        assert await numbers_and_links(end.join(lines)) == [(6, "SHOP-1 BLOCKS SHOP-2")]

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (
                "SHOP-1: {blocks: SHOP-2\n",
                "while parsing a flow mapping in line 1, expected ',' or '}', but got",
            ),
            ("SHOP-1:\n  blocks: 'x\n", "while scanning a quoted scalar in line 2, found unexpected end of"),
            ("SHOP-1:\n\tblocks: x\n", "found character '\\t' that cannot start any token in line 2"),
            ("SHOP-1: *x\n", "found undefined alias 'x' in line 1"),
            (
                "--- {}\n--- {}\n",
                "expected a single document in the stream in line 1, but found another document",
            ),
            ("SHOP-1: \x07\n", "unacceptable character #x0007: special characters are not allowed"),
            (f"SHOP-1: {'[' * 5000}\n", "it is nested too deeply"),
            ('"\\UFFFFFFFF": x\n', "a number in it is too large"),
            ('"\\U00110000": x\n', "a number in it is too large"),
            (f"%YAML 1.{'9' * 5000}\n--- x\n", "a number in it is too large"),
        ],
    )
    async def test_what_is_no_yaml(self, content: str, reason: str) -> None:
        """A syntax error fails the whole file, and the message has its position."""
        assert (await refusal(content)).startswith(f"the file is not valid YAML: {reason}")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("# nothing yet\n", "the file is empty: write SHOP-1: {blocks: [SHOP-2, SHOP-3]}"),
            ("--- SHOP-1\n", "the file is not a list of links: write SHOP-1: {blocks: [SHOP-2, SHOP-3]}"),
            (b"SHOP-1:\n  blocks: \xe9\n", "line 2 is not UTF-8 text"),
            (f"SHOP-1: {'x' * MAX_LINE}\n", f"line 1 is longer than {MAX_LINE} bytes"),
        ],
    )
    async def test_what_is_no_list_of_links(self, content: str | bytes, message: str) -> None:
        """A file that is empty, is not a list of links, or has an invalid line is refused as a whole."""
        assert await refusal(content) == message

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("line", "size"),
        [(f"#{'x' * 1000}\n", MAX_YAML), ("#\n", 20_000), ("\n", 20_000)],  # short lines take long to parse
    )
    async def test_it_is_read_up_to_a_size(
        self, line: str, size: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A YAML file above the size limit is refused, because it is kept in memory; blank lines count."""
        monkeypatch.setattr(link_files, "MAX_YAML", size)
        fitting = "--- {}\n" + line * ((size - 14) // len(line)) + "# end\n"
        assert await read(fitting) == []
        assert await refusal(fitting + line * 2 + "# end") == (
            f"the file is longer than {size} bytes, the limit for YAML: use CSV instead"
        )

    async def test_without_pyyaml(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without PyYAML, the error says what to install."""
        monkeypatch.delitem(sys.modules, "datadog_caselinks.bulk.link_yaml")
        monkeypatch.setitem(sys.modules, "yaml", None)
        assert await refusal("SHOP-1: {}\n") == (
            "a YAML file needs the extra yaml. In the folder of the project, run: pip install '.[yaml]'"
        )

    def test_how_many_links_it_holds_is_not_known_before(self) -> None:
        """The number of links in a YAML file is unknown before parsing, and the file position is kept."""
        file = raw_file(b"\n# x\nSHOP-1: {}\n")
        assert (count_links(file, format="yaml"), file.tell()) == (None, 0)

    @given(
        st.text("{}[]\"',:\n\r\t-?&*!|>%@#a0 ~\ufeff\u2028")
        | st.lists(
            st.sampled_from(
                ["SHOP-1:", "  blocks: SHOP-2", "- parent: x", "  - &a b", "*a", "? x", "|", "!!set"]
            )
        ).map("\n".join),
        st.integers(1, 50),
    )
    async def test_any_text_is_links_or_refused(self, text: str, length: int) -> None:
        """Any text yields links with valid line numbers and printable reasons, or raises LinkFileError."""
        content = f"# x\n{text}"
        try:
            lines = [line async for line in read_link_file(InPieces(content.encode(), length), format="yaml")]
        except LinkFileError as error:
            assert str(error).isprintable()  # noqa: PT017 - some files are good
            return
        assert all(1 <= line.number <= content.count("\n") + 1 for line in lines)
        assert all(line.reason.isprintable() for line in lines if isinstance(line, MalformedLine))

    def test_every_link_that_json_can_write_is_read(self) -> None:
        """YAML files may be written as JSON, which is a subset."""
        assert read_rows(json.dumps([{"parent": "a", "child": "b"}])) == [
            YamlRow(1, {"parent": "a", "child": "b"})
        ]
