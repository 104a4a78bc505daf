"""The rules of text in messages: printable, on one line and of bounded length."""

from __future__ import annotations

import re
import tracemalloc
from importlib import metadata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import datadog_caselinks
from datadog_caselinks.values.messages import (
    MAX_QUOTED,
    MAX_STORED,
    counted,
    is_in_quotes,
    needs_extra,
    one_line,
    quoted,
    storable,
)

ROOT = Path(__file__).parents[2]
FOLDERS = ("datadog_caselinks", "docs", "examples")


class Named:
    """An object with a given ``repr``."""

    def __init__(self, text: object) -> None:
        self._text = text

    def __repr__(self) -> str:
        if isinstance(self._text, Exception):
            raise self._text
        return self._text  # type: ignore[return-value]


class TestQuoted:
    @given(st.text(max_size=40) | st.binary(max_size=20) | st.integers() | st.none() | st.floats())
    def test_a_short_value_is_its_repr(self, value: object) -> None:
        """A value whose ``repr`` is short is quoted completely."""
        if len(repr(value)) <= MAX_QUOTED:
            assert quoted(value) == repr(value)

    @given(st.text() | st.binary() | st.lists(st.text()) | st.builds(Named, st.text()))
    def test_it_is_bounded_and_printable(self, value: object) -> None:
        """A value of any type is quoted in at most 100 printable characters and an ellipsis."""
        assert len(quoted(value)) <= MAX_QUOTED + 1
        assert quoted(value).isprintable()

    @pytest.mark.parametrize("value", ["x" * 1000, b"x" * 1000, ["x" * 1000], Named("x" * 1000)])
    def test_a_long_value_is_cut(self, value: object) -> None:
        """A long value is shortened with an ellipsis."""
        assert quoted(value) == f"{repr(value)[:MAX_QUOTED]}…"

    @pytest.mark.parametrize("length", range(95, 104))
    def test_no_value_is_cut_without_an_ellipsis(self, length: int) -> None:
        """A text just over the limit is not shortened without an ellipsis."""
        text = "x" * length
        assert quoted(text) == (f"'{text}'" if length <= MAX_QUOTED - 2 else f"'{text[: MAX_QUOTED - 1]}…")

    def test_a_huge_text_takes_no_memory(self) -> None:
        """A long text is converted only at its beginning, which saves memory."""
        text = "\0" * 10_000_000
        tracemalloc.start()
        try:
            quoted(text)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 100_000

    @pytest.mark.parametrize("failure", [ValueError("no"), RecursionError(), AttributeError("x"), 7, None])
    def test_a_repr_that_fails(self, failure: object) -> None:
        """An object whose ``repr`` raises or returns no string is quoted by its type."""
        assert quoted(Named(failure)) == "<Named, whose repr fails>"

    def test_control_characters_become_spaces(self) -> None:
        """A ``repr`` cannot break the line or change the colors of a terminal."""
        assert quoted(Named("a\nb\x1b[31mc  d")) == "a b [31mc  d"


class TestOneLine:
    @given(st.text())
    def test_it_is_bounded_and_printable(self, text: str) -> None:
        """Any text becomes one printable line."""
        assert one_line(text).isprintable()
        assert len(one_line(text, limit=5)) <= 6

    def test_a_long_text_is_cut(self) -> None:
        """A text is cut after 300 characters, or after the given number of them."""
        assert one_line("x" * 300) == "x" * 300
        assert one_line("x" * 301) == "x" * 300 + "…"
        assert one_line("a b  c", limit=3) == "a b…"

    def test_white_space_and_control_characters_become_one_space(self) -> None:
        """White space and control characters become one space, and nothing else is escaped."""
        assert one_line(' It\'s\n\ta "test"\x1b[0m\\ \0') == 'It\'s a "test" [0m\\'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"x"', True),
        ("'x'", True),
        ("`x`", True),
        ('""', True),
        ('"', False),
        ("", False),
        ("\"x'", False),
        ('"x', False),
        ('x"', False),
        ("xx", False),
        (" 'x' ", False),
    ],
)
def test_quotation_marks_are_a_pair(text: str, expected: bool) -> None:
    """A text is in quotation marks only if it begins and ends with the same one."""
    assert is_in_quotes(text) is expected


class TestStorable:
    def test_half_a_character_becomes_a_question_mark(self) -> None:
        """A lone surrogate becomes a question mark, and the text after it is kept."""
        assert storable("a\ud800\udfffé") == "a??é"

    @given(st.text(st.characters(codec=None)))
    def test_it_is_the_beginning_in_utf_8(self, text: str) -> None:
        """A stored message is encodable, and differs from the original only in lone surrogates."""
        stored = storable(text)
        assert stored.encode().decode() == stored
        assert [a for a, b in zip(stored, text, strict=False) if a != b] == [
            "?" for char in text[:MAX_STORED] if "\ud800" <= char <= "\udfff"
        ]


@pytest.mark.parametrize(
    ("count", "nouns", "text"),
    [
        (1, ("link",), "1 link"),
        (0, ("link",), "0 links"),
        (2, ("link",), "2 links"),
        (2, ("entity", "entities"), "2 entities"),
        (1, ("entity", "entities"), "1 entity"),
    ],
)
def test_a_count_has_its_noun(count: int, nouns: tuple[str, ...], text: str) -> None:
    """A count has its noun in the singular for one, and in the plural otherwise."""
    assert counted(count, *nouns) == text


class TestNeedsExtra:
    def test_it_installs_from_the_folder(self) -> None:
        """The message names the extra, and the command that installs it from the folder of the project."""
        assert needs_extra("the command", "cli") == (
            "the command needs the extra cli. In the folder of the project, run: pip install '.[cli]'"
        )

    def test_each_extra_that_a_message_names_exists(self) -> None:
        """Every call passes an extra that the package provides."""
        sources = [path.read_text() for path in Path(datadog_caselinks.__path__[0]).rglob("*.py")]
        named = {extra for source in sources for extra in re.findall(r"needs_extra\(.+, ['\"](\w+)", source)}
        assert named == {"cli", "distributed", "mcp", "pictures", "yaml"}
        assert named <= set(metadata.metadata("datadog_caselinks").get_all("Provides-Extra", []))

    def test_every_hint_installs_from_a_folder(self) -> None:
        """While the package is not published, every ``pip install`` of it names a folder."""
        files = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
        files += [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
        texts = [path.read_text(errors="replace") for path in files if "__pycache__" not in path.parts]
        hints = [hint for text in texts for hint in re.findall(r"pip install [^\n]*", text)]
        assert len(hints) > 15
        assert [hint for hint in hints if re.search(r"(?<!/)datadog_caselinks\b", hint)] == []
