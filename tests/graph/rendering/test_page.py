"""The page: complete, safe with untrusted text, strict about scripts, and usable in a browser."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from datadog_caselinks import CaseLinksClient, LinkGraph, Site
from datadog_caselinks.graph.rendering import page
from datadog_caselinks.sandbox import Sandbox
from tests.graph.rendering.browser import FOUND, Tab, browsing
from tests.graph.rendering.documents import addresses, read_page
from tests.support.graphs import entity, graph

Show = Callable[..., Awaitable[Tab]]


def data(text: str) -> Any:
    return json.loads(read_page(text).contents["script"][0])


def drawn(text: str, name: str) -> list[int]:
    return [int(its[name] or "") for _, its in read_page(text).elements if name in its]


def test_everything_is_there(demo: LinkGraph) -> None:
    """Each entity and each link is drawn once and in the data once, with the same number."""
    text = page(demo)
    reported = data(text)
    entities, links = demo.entities, demo.links

    assert drawn(text, "data-entity") == list(range(len(entities)))
    assert drawn(text, "data-link") == list(range(len(links)))
    assert [each["id"] for each in reported["entities"]] == [each.id for each in entities]
    assert [each["title"] for each in reported["entities"]] == [
        demo.details[each].title if each in demo.details else "" for each in entities
    ]
    assert [(entities[each["parent"]], entities[each["child"]]) for each in reported["links"]] == [
        (link.parent, link.child) for link in links
    ]
    assert [tuple(links[each] for each in cycle) for cycle in reported["cycles"]] == list(demo.cycles)


def test_nothing_becomes_markup(hostile: LinkGraph) -> None:
    """Untrusted titles and relationships add no elements, scripts or placeholders to the page."""
    text = page(hostile)
    found = read_page(text)

    assert text.encode()
    assert len(found.contents["script"]) == 2
    assert not {tag for tag, _ in found.elements} & {"img", "iframe", "object", "form", "base"}
    assert not [its for _, its in found.elements if any(name.startswith("on") for name in its)]
    assert "__DATA__" in data(text)["entities"][0]["title"]
    assert len(drawn(text, "data-link")) == len(hostile.links)


def test_fetches_nothing(demo: LinkGraph) -> None:
    """The page contains no network address and refers only to its own icon."""
    text = page(demo)
    attributes = [its for _, its in read_page(text).elements]
    found = [
        value
        for its in attributes
        for name, value in its.items()
        if name in ("src", "href", "action", "style")
    ]

    assert addresses(text) == []
    assert [value for value in found if not str(value).startswith("data:image/svg+xml,")] == []


def test_runs_nothing_but_its_own(hostile: LinkGraph) -> None:
    """The policy allows one script and one style by their hashes, and no request."""
    found = read_page(page(hostile))
    policy = next(its["content"] for its in found.with_tag("meta") if its.get("http-equiv")) or ""

    def digest(text: str) -> str:
        return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"

    assert [part.split() for part in policy.split("; ")] == [
        ["default-src", "'none'"],
        ["img-src", "data:"],
        ["style-src", digest(found.contents["style"][0])],
        ["script-src", digest(found.contents["script"][1])],
        ["base-uri", "'none'"],
        ["form-action", "'none'"],
    ]


def test_is_the_same_each_time(hostile: LinkGraph) -> None:
    """The same graph always results in the same page, so it can be under version control."""
    assert page(hostile) == page(hostile)


def test_says_what_is_missing() -> None:
    """The page says how many entities were left out, and which could not be read."""
    made = LinkGraph(entity("a"), (), {}, depth=2, left_out=7, unread=(entity("a"),))

    assert "7 more at distance 2 left out · links of 1 could not be read" in page(made)
    assert data(page(made))["entities"][0]["isUnread"]


TEXT_OUTSIDE_ITS_BOX = """\
[...document.querySelectorAll(".entity .key, .entity .title, .entity .status")].filter(text => {
  const inner = text.getBBox(), outer = text.closest(".entity").querySelector(".body").getBBox();
  return inner.x < outer.x || inner.x + inner.width > outer.x + outer.width;
}).map(text => text.textContent)
"""

# the size in pixels of the smallest key that is shown
LEAST_KEY = """\
Math.min(...[...document.querySelectorAll(".entity .key, .entity .far-key")]
  .filter(text => getComputedStyle(text).display !== "none")
  .map(text => parseFloat(getComputedStyle(text).fontSize) * scale))
"""

# the lowest contrast of a text with its background, and the brightness of the page
CONTRASTS = """\
(() => {
  const brightness = color => {
    const parts = color.match(/[\\d.]+/g).slice(0, 3).map(part => part / 255);
    const [r, g, b] = parts.map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const fill = element => brightness(getComputedStyle(element).fill);
  const contrast = (one, other) => (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  const boxes = [...document.querySelectorAll(".entity")].flatMap(box =>
    [...box.querySelectorAll("text")].map(text => contrast(fill(text), fill(box.querySelector(".body")))));
  const names = [...document.querySelectorAll(".name")].map(name =>
    contrast(fill(name.querySelector("text")), fill(name.querySelector("rect"))));
  return [Math.min(...boxes, ...names), brightness(getComputedStyle(document.body).backgroundColor)];
})()
"""


@pytest.fixture
async def tab(tmp_path: Path) -> AsyncIterator[Tab]:
    if FOUND is None:
        pytest.skip("Chromium is not installed")
    async with browsing(tmp_path / "profile") as tab:
        yield tab
        assert tab.problems == []


@pytest.fixture
def shown(tab: Tab, tmp_path: Path) -> Show:
    path = tmp_path / "page.html"

    async def show(made: LinkGraph, *, width: int = 1400, dark: bool = False) -> Tab:
        path.write_text(page(made))
        await tab.open(path.as_uri(), width=width, height=900, dark=dark)
        return tab

    return show


def box(made: LinkGraph, key: str) -> str:
    """Return the selector of the box of a case."""
    (number,) = (
        n for n, each in enumerate(made.entities) if each in made.cases and made.cases[each].key == key
    )
    return f'[data-entity="{number}"]'


async def lit(tab: Tab) -> int:
    found: int = await tab.value("document.querySelectorAll('.entity.lit').length")
    return found


class TestInABrowser:
    """Behaviour of the page in Chromium; skipped without it."""

    async def test_a_click_lists_all_links(self, shown: Show, demo: LinkGraph) -> None:
        """A click on a case highlights its neighbours and lists its links, and Escape closes the list."""
        tab = await shown(demo)
        await tab.click(box(demo, "SHOP-8"))

        reported = await tab.value("document.getElementById('details').innerText")
        assert re.sub(r"\s+", " ", reported.replace("\u00d7", "")).startswith(
            "SHOP-8 Payment webhooks time out and are retried case, closed"
        )
        assert re.findall(r"(← causes|causes →)\s+(SHOP-\d+)", reported) == [
            ("← causes", "SHOP-2"),
            ("causes →", "SHOP-4"),
        ]
        assert await lit(tab) == 3
        await tab.press("Escape")
        assert await tab.value("document.getElementById('details').hidden")
        assert await lit(tab) == 0

    async def test_search_finds_and_goes_there(self, shown: Show, demo: LinkGraph) -> None:
        """The search finds words of a title in any order, and Enter moves the view to the first match."""
        tab = await shown(demo)
        await tab.press("/")
        await tab.value("document.activeElement.value = 'payment hangs'")
        await tab.value("document.activeElement.dispatchEvent(new Event('input'))")
        assert (
            await tab.value("document.getElementById('hit-count').textContent")
            == f"1 of {len(demo.entities)}"
        )
        await tab.press("Enter")

        assert await tab.value("document.querySelector('.chosen').dataset.entity") in box(demo, "SHOP-1")
        view, found = await tab.middle("#view"), await tab.middle(box(demo, "SHOP-1"))
        assert abs(view["x"] - found["x"]) < 2
        assert abs(view["y"] - found["y"]) < 2

    async def test_a_case_can_be_opened(self, shown: Show, demo: LinkGraph) -> None:
        """A case opens in Datadog in a new tab, without a referrer."""
        tab = await shown(evolve(demo, site=Site.US5))
        await tab.click(box(demo, "SHOP-8"))
        link = "document.querySelector('#details a')"
        assert await tab.value(f"{link}.href") == "https://us5.datadoghq.com/cases/SHOP-8"
        assert await tab.value(f"{link}.rel + {link}.target") == "noreferrer_blank"

    async def test_cycles_can_be_clicked(self, shown: Show, demo: LinkGraph) -> None:
        """A click on a cycle highlights exactly its entities and links."""
        tab = await shown(demo)
        await tab.click("#cycles button")

        assert await lit(tab) == 3
        assert await tab.value("document.querySelectorAll('.link.lit').length") == 3

    async def test_moves_and_zooms(self, shown: Show, demo: LinkGraph) -> None:
        """Dragging moves the view without changing the selection, and the key 0 fits the whole graph."""
        tab = await shown(demo)
        await tab.click(box(demo, "SHOP-8"))
        before = await tab.middle(box(demo, "SHOP-2"))
        await tab.drag(box(demo, "SHOP-2"), 60, -40)
        after = await tab.middle(box(demo, "SHOP-2"))

        assert (round(after["x"] - before["x"]), round(after["y"] - before["y"])) == (60, -40)
        assert await lit(tab) == 3
        await tab.press("0")
        assert await tab.value(
            "[...document.querySelectorAll('.entity')].every(e => e.getBoundingClientRect().left >= 0)"
        )
        assert await tab.value("view.classList.contains('far')")

    async def test_keys_go_from_box_to_box(self, shown: Show, demo: LinkGraph) -> None:
        """One box is reachable by Tab, the others by arrow keys, and Enter selects a box."""
        tab = await shown(demo)
        assert await tab.value("document.querySelectorAll('.entity[tabindex=\"0\"]').length") == 1
        await tab.value("document.querySelector('.entity[tabindex=\"0\"]').focus()")
        await tab.press("ArrowRight")
        await tab.press("Enter")

        assert await tab.value("document.querySelectorAll('.chosen').length") == 1
        assert await tab.value("document.querySelector('.chosen').dataset.entity") != "0"

    async def test_hostile_titles_stay_text(self, shown: Show, hostile: LinkGraph) -> None:
        """Hostile titles are shown as text, and nothing in them is run or fetched."""
        tab = await shown(hostile)
        await tab.click(box(hostile, "A"))

        assert "<script>alert(1)</script>" in await tab.value("document.getElementById('details').innerText")
        assert all(request.startswith(("file:", "data:")) for request in tab.requests)

    @pytest.mark.parametrize("width", [400, 1400])
    async def test_nothing_is_wider_than_the_window(self, shown: Show, demo: LinkGraph, width: int) -> None:
        """On a phone and on a desktop, the page fits the window, and each title fits its box."""
        tab = await shown(demo, width=width)

        assert await tab.value("document.documentElement.scrollWidth") == width
        assert await tab.value(TEXT_OUTSIDE_ITS_BOX) == []

    @pytest.mark.parametrize("dark", [False, True])
    async def test_text_stands_out(self, shown: Show, demo: LinkGraph, dark: bool) -> None:
        """The contrast of all text meets WCAG for small text, in light and in dark mode."""
        tab = await shown(demo, dark=dark)

        least, ground = await tab.value(CONTRASTS)
        assert least >= 4.5
        assert (ground < 0.1) is dark

    @pytest.mark.parametrize("depth", [1, 2, 4])
    async def test_everything_is_fitted_where_it_is_readable(self, shown: Show, depth: int) -> None:
        """A page of up to forty entities opens with all of them in view and keys of at least 9 pixels."""
        async with (
            Sandbox(seed="demo") as sandbox,
            CaseLinksClient(sandbox.url, sandbox.credentials) as links,
        ):
            tab = await shown(await links.read_graph("SHOP-2", depth=depth))

        view = await tab.value("document.getElementById('view').getBoundingClientRect().toJSON()")
        for box in await tab.value(
            "[...document.querySelectorAll('.entity')].map(e => e.getBoundingClientRect().toJSON())"
        ):
            assert view["left"] <= box["left"] < box["right"] <= view["right"]
            assert view["top"] <= box["top"] < box["bottom"] <= view["bottom"]
        assert await tab.value(LEAST_KEY) >= 9

    async def test_an_incident_has_its_number(self, shown: Show, demo: LinkGraph) -> None:
        """An incident with a known number is named by it at a low zoom level."""
        tab = await shown(demo)
        far = await tab.value("[...document.querySelectorAll('.INCIDENT .far-key')].map(e => e.textContent)")
        assert sorted(each.split()[0] for each in far) == ["IR-101", "IR-102", "IR-103"]

    async def test_a_small_graph_is_larger(self, shown: Show) -> None:
        """A graph of two entities is drawn larger than a big one."""
        tab = await shown(graph("a BLOCKS b"))
        assert await tab.value("scale") > 1.2

    async def test_five_hundred(self, shown: Show, many: LinkGraph) -> None:
        """A page of five hundred entities opens with the root in the middle at a readable size."""
        tab = await shown(many)

        view, root = await tab.middle("#view"), await tab.middle('[data-entity="0"]')
        assert abs(view["x"] - root["x"]) < 2
        assert not await tab.value("view.classList.contains('far')")
        assert await tab.value("document.querySelectorAll('.entity').length") == 500
