"""The pictures of the documentation are current, and tell in words what they show."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from docs import pictures

DOCS = Path(__file__).parents[2] / "docs"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def drawn() -> dict[str, str]:
    return pictures.pictures()


@pytest.mark.parametrize("name", ["lost-answer.svg", "lost-request.svg", "gate.svg"])
def test_a_picture_is_current(drawn: dict[str, str], name: str) -> None:
    """Drawn anew it is the same; ``python -m docs.pictures`` writes it."""
    assert (DOCS / name).read_text("utf-8") == drawn[name]


def test_none_is_forgotten(drawn: dict[str, str]) -> None:
    """A picture in the folder is one of these, or of the command, benchmark or soak, which have own tests."""
    others = {"benchmark.svg", "graph.svg", "soak.svg"}
    assert {path.name for path in DOCS.glob("*.svg")} == {*drawn, *others}


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.svg")), ids=lambda path: path.name)
def test_it_is_told_in_words_as_well(path: Path) -> None:
    """Who cannot see it reads its title and what it shows."""
    root = ElementTree.fromstring(path.read_text("utf-8"))
    title, told = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert title is not None
    assert told is not None
    assert title.text
    assert told.text
    assert root.get("aria-labelledby", "").split()[0] == title.get("id")
