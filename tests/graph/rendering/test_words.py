"""The texts in pictures, and fitting them into the available space."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datadog_caselinks import LinkGraph
from datadog_caselinks.graph.rendering.words import (
    describe,
    fitted,
    heading,
    notes,
    plain,
    text_width,
    wrapped,
)
from datadog_caselinks.values.models import Case, Entity
from tests.support.graphs import entity, graph

anything = st.text(st.characters(), max_size=60)


class TestPlain:
    @given(anything)
    def test_is_one_line_that_every_document_can_hold(self, text: str) -> None:
        """A plain text is one trimmed line without control characters or surrogates, and stays unchanged."""
        made = plain(text)
        assert made.isprintable() or set(filter(lambda c: not c.isprintable(), made)) <= set("\u200c\u200d")
        made.encode()
        assert (plain(made), made.strip()) == (made, made)

    @pytest.mark.parametrize(
        ("given", "shown"),
        [
            ("a\n\t b", "a b"),
            ("a\x00b", "a b"),
            ("\u202eevil", "evil"),
            ("\ud800", ""),
            ("👩‍💻 日本", "👩‍💻 日本"),
        ],
    )
    def test_keeps_what_can_be_seen(self, given: str, shown: str) -> None:
        """Emoji with joiners and all scripts are kept; characters that change the direction are removed."""
        assert plain(given) == shown


class TestTold:
    def test_a_case(self) -> None:
        """A case is described by its key, title, type and status."""
        made = LinkGraph(entity("a"), (), {entity("a"): Case("", "SHOP-1", "It\nis", "IN_PROGRESS", "P1")})
        assert str(describe(made, entity("a"))) == "SHOP-1 It is (case, in progress)"
        assert describe(made, entity("a")).reference == "SHOP-1"

    @pytest.mark.parametrize(
        ("status", "name", "group", "shown", "sign"),
        [
            ("OPEN", "Open", "SG_OPEN", "open", "○"),
            ("OPEN", "Waiting for QA", "SG_IN_PROGRESS", "Waiting for QA", "◐"),
            ("SUNKNOWN", "Live\n🎉", "SG_CLOSED", "Live 🎉", "✓"),
            ("RESOLVED", "", "", "resolved", "✓"),
            ("PARKED", "", "", "parked", ""),
        ],
    )
    def test_a_status_of_the_organisation(
        self, status: str, name: str, group: str, shown: str, sign: str
    ) -> None:
        """A custom status is shown with the organisation's name for it and the sign of its group."""
        found = Case("", "SHOP-1", "It", status, "P1", name, group)
        described = describe(LinkGraph(entity("a"), (), {entity("a"): found}), entity("a"))
        assert (described.status, described.sign) == (shown, sign)

    def test_what_has_no_key(self) -> None:
        """An entity without a key is shown by the beginning of its id, and referred to by all of it."""
        made = graph("a CAUSES i:b")
        assert describe(made, entity("a")).key == "00000000…"
        assert describe(made, entity("a")).reference == entity("a").id
        assert describe(made, entity("i:b")).reference == f"incident:{entity('i:b').id}"
        assert str(describe(made, Entity("short", "ROCKET_SHIP"))) == "short (rocket ship)"


class TestHeading:
    def test_names_the_root(self) -> None:
        """The heading names the root by its key, or by its type and the beginning of its id."""
        assert heading(graph("a BLOCKS b", a="One")) == "Links around A"
        assert heading(LinkGraph(entity("i:a"), ())) == "Links around incident 00000000…"

    def test_notes(self) -> None:
        """The notes count entities and links, and say what is missing."""
        assert notes(graph("a BLOCKS b")) == ["2 entities", "1 link"]
        lacking = LinkGraph(entity("a"), (), {}, depth=3, left_out=7, unread=(entity("a"),))
        assert notes(lacking) == [
            *("1 entity", "0 links", "7 more at distance 3 left out", "links of 1 could not be read")
        ]
        assert notes(graph("a BLOCKS b", "b BLOCKS a"))[-1] == "1 cycle"


class TestFitting:
    @given(anything, st.floats(20, 300), st.floats(8, 20))
    def test_a_line_fits(self, text: str, room: float, size: float) -> None:
        """A text that is too long is cut and ends with an ellipsis."""
        made = fitted(text, room, size)
        assert text_width(made, size) <= room
        assert made == text or (made.endswith("…") and text.startswith(made[:-1]))

    @given(anything.map(plain), st.floats(60, 300), st.integers(1, 4))
    def test_lines_fit(self, text: str, room: float, count: int) -> None:
        """A wrapped text has at most the given lines, each fits, and only its end may be lost."""
        lines = wrapped(text, room, 12, count)
        assert len(lines) <= count
        assert all(text_width(line, 12) <= room for line in lines)
        joined = "".join("".join(lines).split()).removesuffix("…")
        assert "".join(text.split()).startswith(joined)

    def test_breaks_between_words(self) -> None:
        """Lines break between words, unless a word alone is too long."""
        assert wrapped("one two three", 60, 12, 3) == ["one two", "three"]
        assert len(wrapped("x" * 30, 60, 12, 2)) == 2
        assert wrapped("", 60, 12, 2) == []

    def test_wide_letters_are_wide(self) -> None:
        """East Asian characters count as wide, and combining characters take no space."""
        assert text_width("日", 10) > text_width("W", 10) > text_width("i", 10)
        assert text_width("e\u0301", 10) == text_width("e", 10)
