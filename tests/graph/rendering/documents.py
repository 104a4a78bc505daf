"""Parsers of pictures and pages that use only the standard library."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

from attrs import Factory, define

SVG = "{http://www.w3.org/2000/svg}"


def read_svg(text: str) -> ElementTree.Element:
    """Return the root of an SVG document; raise an error if it is not well-formed."""
    return ElementTree.fromstring(text)


def numbered(root: ElementTree.Element, name: str) -> list[int]:
    """Return the numbers in the attribute ``name`` of all elements, in document order."""
    return [int(element.attrib[name]) for element in root.iter() if name in element.attrib]


def texts(element: ElementTree.Element) -> str:
    """Return all text in an element."""
    return "".join(element.itertext())


@define
class Page(HTMLParser):
    """A parsed HTML page: its elements, and the content of each script and style."""

    elements: list[tuple[str, dict[str, str | None]]] = Factory(list)
    contents: dict[str, list[str]] = Factory(dict)
    _within: str = ""

    def __attrs_pre_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._within = tag
        if tag in ("script", "style"):
            self.contents.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within in ("script", "style"):
            self.contents[self._within][-1] += data

    def with_tag(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of each element with this tag."""
        return [attributes for name, attributes in self.elements if name == tag]


def read_page(text: str) -> Page:
    """Parse a page completely."""
    page = Page()
    page.feed(text)
    page.close()
    return page


def addresses(text: str) -> list[str]:
    """Return all network addresses in a text, except the namespace of SVG."""
    found = re.findall(r"""https?://[\w./-]+|(?<=["'(=\s])//\w[\w./-]*""", text)
    return [each for each in found if each != "http://www.w3.org/2000/svg"]
