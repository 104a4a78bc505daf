"""Links for people to read on a terminal: those of an entity as a table, those of a plan by their parents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from datadog_caselinks.graph.plan import LinkPlan
from datadog_caselinks.messages import one_line
from datadog_caselinks.models import Case, CaseLink, Entity, NewCaseLink, Relationship
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


Change = tuple[str, NewCaseLink | CaseLink]
"""A link to create, with a plus before it, or to delete, with a minus."""


def draw_changes(planned: LinkPlan, changes: Mapping[Entity, Sequence[Change]]) -> None:
    """Draw ``changes`` of ``planned`` below their parents, with titles, each on one line."""
    console = Console(highlight=False)
    links = [link for each in changes.values() for _, link in each]
    wide = max((len(link.relationship) for link in links), default=0)
    for parent, below in changes.items():
        lines = [Text.assemble(*_named(planned, parent, "bold"))]
        for sign, link in below:
            style = "green" if sign == "+" else "red"
            said = f"  {sign} {link.relationship:<{wide}}  "
            lines.append(Text.assemble((said, style), *_named(planned, link.child, style)))
        for line in lines:
            console.print(line, no_wrap=True, overflow="ellipsis")


def _named(planned: LinkPlan, entity: Entity, style: str) -> list[tuple[str, str]]:
    case = planned.cases.get(entity)
    title = one_line(case.title) if case else ""
    return [(one_line(planned.name_of(entity)), style), (f"  {title}", "dim")]


def _row(link: CaseLink, cases: Mapping[Entity, Case], around: Entity) -> list[str]:
    other = link.child if link.parent == around else link.parent
    kind, _, other_id = named(other).rpartition(":")
    case = cases.get(other) or Case(other_id, kind or "case", other_id, "", "")
    return [f"{_arrow(link, around)} {link.relationship}", case.key, case.title, case.status, link.id]


def _arrow(link: CaseLink, around: Entity) -> str:
    if link.relationship == Relationship.RELATES_TO:
        return "↔"
    return "→" if link.parent == around else "←"
