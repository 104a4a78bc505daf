"""A graph as a self-contained HTML page to pan, zoom, search and click."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from hashlib import sha256
from html import escape
from importlib import resources
from typing import Any, Final

from datadog_caselinks.graph.link_graph import LinkGraph
from datadog_caselinks.graph.rendering.layout import Direction, best_layout
from datadog_caselinks.graph.rendering.svg import STYLE, draw, legend
from datadog_caselinks.graph.rendering.words import describe, heading, is_directed, notes, plain, words
from datadog_caselinks.values.models import EntityType

_FILES: Final = resources.files(__package__)
_TEMPLATE: Final = _FILES.joinpath("page.html").read_text("utf-8")
_SCRIPT: Final = _FILES.joinpath("page.js").read_text("utf-8")
_STAGE: Final = (1000.0, 740.0)  # pixels, in the window of a laptop
_STYLE: Final = STYLE + _FILES.joinpath("page.css").read_text("utf-8")


def page(graph: LinkGraph, *, direction: Direction = "auto") -> str:
    """Return ``graph`` as an HTML page that needs no network and no other file.

    The page follows the reader's light or dark mode. ``direction`` is that of :func:`svg`.

    Raises:
        ConfigurationError: The extra ``pictures`` is not installed.
    """
    drawing = draw(graph, best_layout(graph, direction, *_STAGE))
    parts = {
        "POLICY": (
            f"default-src 'none'; img-src data:; style-src '{_hash(_STYLE)}'; script-src '{_hash(_SCRIPT)}'; "
            "base-uri 'none'; form-action 'none'"
        ),
        "STYLE": _STYLE,
        "SCRIPT": _SCRIPT,
        "HEADING": escape(heading(graph)),
        "NOTES": escape(" · ".join(notes(graph))),
        "SIZE": f"{drawing.width:.0f} {drawing.height:.0f}",
        "DRAWING": drawing.markup,
        "LEGEND": "\n".join(
            f'<li><svg class="picture" width="{width:.0f}" height="16" aria-hidden="true">{sample}</svg>'
            f"{escape(text)}</li>"
            for sample, width, text in legend(graph)
        ),
        # Without a "<" the data cannot end the script element that contains it.
        "DATA": json.dumps(_data(graph), ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
    }
    return re.sub("__([A-Z]+)__", lambda match: parts[match[1]], _TEMPLATE)


def _hash(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


def _data(graph: LinkGraph) -> dict[str, Any]:
    """Return what the script shows about boxes and lines, indexed by the numbers in the drawing."""
    number = {entity: index for index, entity in enumerate(graph.entities)}
    link_number = {link.id: index for index, link in enumerate(graph.links)}
    return {
        "entities": [
            {
                "key": description.key,
                "title": description.title,
                "type": description.type,
                "status": description.status,
                "sign": description.sign,
                "reference": description.reference,
                "id": plain(entity.id),
                "url": graph.url_of(entity) or "",
                "isNamed": entity.type == EntityType.CASE or entity in graph.incidents,
                "isUnread": entity in graph.unread,
            }
            for entity in graph.entities
            for description in [describe(graph, entity)]
        ],
        "links": [
            {
                "parent": number[link.parent],
                "child": number[link.child],
                "relationship": words(link.relationship),
                "hasDirection": is_directed(link),
            }
            for link in graph.links
        ],
        "cycles": [[link_number[link.id] for link in cycle] for cycle in graph.cycles],
    }
