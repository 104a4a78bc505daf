"""The pictures of the documentation are current and have a text description."""

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


@pytest.mark.parametrize("name", ["lost-response.svg", "lost-request.svg", "gate.svg"])
def test_a_picture_is_current(drawn: dict[str, str], name: str) -> None:
    """Drawing a picture again results in the same file; ``python -m docs.pictures`` writes it."""
    assert (DOCS / name).read_text("utf-8") == drawn[name]


def test_no_picture_is_left_over(drawn: dict[str, str]) -> None:
    """Each picture in the folder is drawn here or has tests of its own."""
    others = {"benchmark.svg", "graph.svg", "sharing.svg", "soak.svg"}
    assert {path.name for path in DOCS.glob("*.svg")} == {*drawn, *others}


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.svg")), ids=lambda path: path.name)
def test_each_has_a_title_and_a_description(path: Path) -> None:
    """Each picture has a title and a description for screen readers."""
    root = ElementTree.fromstring(path.read_text("utf-8"))
    title, description = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert title is not None
    assert description is not None
    assert title.text
    assert description.text
    assert root.get("aria-labelledby", "").split()[0] == title.get("id")
