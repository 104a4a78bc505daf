"""The built pages on a phone, in a small and in a wide window, in light and in dark mode."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.graph.rendering.browser import FOUND, browsing

ROOT = Path(__file__).parents[2]
PAGES = [page.stem for page in sorted((ROOT / "docs").glob("*.md")) if page.stem != "benchmark-table"]

in_a_browser = pytest.mark.skipif(FOUND is None, reason="there is no Chromium here")

PICTURES_THAT_ARE_NOT_THERE = (
    "[...document.images].filter(image => !image.naturalWidth).map(image => image.src)"
)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sphinx")
    folder = tmp_path_factory.mktemp("built")
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", str(ROOT / "docs"), str(folder)]
    subprocess.run([*command, "-d", str(folder / "doctrees")], check=True)
    return folder


def test_they_are_built_without_a_warning(built: Path) -> None:
    """Sphinx builds every page without a warning."""
    assert {path.stem for path in built.glob("*.html")} >= set(PAGES)


@in_a_browser
@pytest.mark.parametrize(("width", "dark"), [(390, False), (1100, True), (1440, False)])
async def test_no_page_scrolls_sideways(built: Path, tmp_path: Path, width: int, dark: bool) -> None:
    """No page scrolls sideways, except for code within its block, and every picture is found."""
    async with browsing(tmp_path) as tab:
        for page in PAGES:
            await tab.open((built / f"{page}.html").as_uri(), width=width, height=800, dark=dark)
            assert await tab.value("document.documentElement.scrollWidth") <= width, page
            assert await tab.value(PICTURES_THAT_ARE_NOT_THERE) == [], page


@in_a_browser
async def test_a_phone_shows_tables_whole(built: Path, tmp_path: Path) -> None:
    """On a phone, no table scrolls sideways."""
    too_wide = "[...document.querySelectorAll('.table-wrapper')].some(it => it.scrollWidth > it.clientWidth)"
    async with browsing(tmp_path) as tab:
        for page in PAGES:
            await tab.open((built / f"{page}.html").as_uri(), width=390, height=800)
            assert not await tab.value(too_wide), page
