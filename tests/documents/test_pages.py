"""The built pages on a phone, in a small and in a wide window, in light and in dark mode."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.graph.rendering.browser import FOUND, browsing

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [
    page.relative_to(DOCS).with_suffix("").as_posix()
    for page in sorted(DOCS.rglob("*.md"))
    if page.stem != "benchmark-table"
]

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


# What people type into the search, and the recipe that they want.
SEARCHES = {
    "undo": "undo",
    "revert": "undo",
    "roll back": "undo",
    "dry run": "dry-run",
    "preview": "dry-run",
    "cron": "schedule",
    "systemd timer": "schedule",
    "docker": "docker",
    "container image": "docker",
    "kubernetes": "kubernetes",
    "CronJob": "kubernetes",
    "github actions": "github-actions",
    "pull request": "github-actions",
    "aws": "aws",
    "workload token": "aws",
    "token": "aws",
    "slack incident": "slack",
    "slack": "slack",
    "duplicates": "duplicates",
    "duplicate": "duplicates",
    "jupyter": "jupyter",
    "notebook": "jupyter",
    "throttle": "throttle",
    "project page": "project",
    "postmortem": "project",
}
FIRST_SEARCHES = {recipe: text for text, recipe in reversed(SEARCHES.items())}
SEARCHED = pytest.mark.parametrize(("text", "recipe"), SEARCHES.items(), ids=list(SEARCHES))


@SEARCHED
def test_the_search_index_has_the_recipe(built: Path, text: str, recipe: str) -> None:
    """A recipe has every word of the task that it is for, in the form that Sphinx's search looks up."""
    english = pytest.importorskip("sphinx.search.en").SearchEnglish({})
    script = (built / "searchindex.js").read_text()
    index = json.loads(script.removeprefix("Search.setIndex(").removesuffix(")"))
    wanted = index["docnames"].index(f"recipes/{recipe}")
    for word in text.lower().split():
        found: set[int] = set()
        for terms in (index["terms"], index["titleterms"]):
            pages = terms.get(english.stem(word), [])
            found.update(pages if isinstance(pages, list) else [pages])
        assert wanted in found, word


@in_a_browser
async def test_the_search_shows_the_recipe_at_the_top(built: Path, tmp_path: Path) -> None:
    """The search of the built pages shows the recipe among its first five results."""
    finished = """new Promise(done => setInterval(() => {
        if (/finished/.test(document.querySelector('.search-summary')?.innerText)) done();
    }, 20))"""
    listed = "[...document.querySelectorAll('#search-results li a')].map(link => link.pathname)"
    async with browsing(tmp_path) as tab:
        for recipe, text in FIRST_SEARCHES.items():
            address = f"{(built / 'search.html').as_uri()}?q={quote(text)}"
            await tab.open(address, width=1100, height=800)
            await tab.send("Runtime.evaluate", expression=finished, awaitPromise=True)
            found = [Path(name).relative_to(built) for name in await tab.value(listed)]
            assert Path("recipes", f"{recipe}.html") in found[:5], (text, found[:6])


def test_they_are_built_without_a_warning(built: Path) -> None:
    """Sphinx builds every page without a warning."""
    files = built.rglob("*.html")
    assert {path.relative_to(built).with_suffix("").as_posix() for path in files} >= set(PAGES)


def test_the_reference_shows_no_sentence_as_a_type(built: Path) -> None:
    """No docstring has words and a colon where the reference shows them as a type."""
    assert re.findall(r"<dt[^>]*>(?:Type|Return type)<.*", (built / "reference.html").read_text()) == []


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
