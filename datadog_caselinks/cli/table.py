"""The links of an entity as a table on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from datadog_caselinks.messages import one_line
from datadog_caselinks.models import Case, CaseLink, Entity, Relationship
from datadog_caselinks.references import named

_WIDE: Final = 120
"""Columns of a terminal from which on the whole id of a link leaves room for titles."""

_COLUMNS: Final = ("relationship", "entity", "title", "status", "link")
_TITLE: Final = _COLUMNS.index("title")
_STATUS_STYLES: Final = {"OPEN": "yellow", "IN_PROGRESS": "cyan", "CLOSED": "green"}


def draw_links(links: Iterable[CaseLink], cases: Mapping[Entity, Case], around: Entity) -> None:
    """Draw ``links``, each by the direction that it has from ``around`` and by its other end."""
    console = Console()
    rows = [[one_line(cell) for cell in _row(link, cases, around)] for link in links]
    if console.width < _WIDE:
        rows = [[*cells, f"{link_id[:8]}…"] for *cells, link_id in rows]
    widths = [max(map(cell_len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
    room = console.width - sum(widths) - 2 * len(widths)
    widths[_TITLE] = max(widths[_TITLE] + min(room, 0), len("title"))  # which alone gives way
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name, width in zip(_COLUMNS, widths, strict=True):
        table.add_column(name, no_wrap=True, overflow="ellipsis", width=width)
    for relationship, entity, title, status, link_id in rows:
        styled = Text(status, style=_STATUS_STYLES.get(status, ""))
        table.add_row(relationship, entity, Text(title), styled, Text(link_id, style="dim"))
    console.print(table)


def _row(link: CaseLink, cases: Mapping[Entity, Case], around: Entity) -> list[str]:
    other = link.child if link.parent == around else link.parent
    kind, _, other_id = named(other).rpartition(":")
    case = cases.get(other) or Case(other_id, kind or "case", other_id, "", "")
    return [f"{_arrow(link, around)} {link.relationship}", case.key, case.title, case.status, link.id]


def _arrow(link: CaseLink, around: Entity) -> str:
    if link.relationship == Relationship.RELATES_TO:
        return "↔"
    return "→" if link.parent == around else "←"
