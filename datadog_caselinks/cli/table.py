"""Links on a terminal: the links of an entity as a table, the changes of a plan grouped by parent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from datadog_caselinks.graph.plan import LinkPlan
from datadog_caselinks.values.messages import one_line
from datadog_caselinks.values.models import Case, CaseLink, Entity, NewCaseLink, Relationship, is_uuid, named
from datadog_caselinks.values.references import Details, name_of, relationship_in_words, status_of

_WIDE: Final = 120
"""The terminal width from which the ids of the links leave room for titles."""

_COLUMNS: Final = ("relationship", "entity", "title", "status", "link")
_STAGE_STYLES: Final = {"OPEN": "yellow", "IN_PROGRESS": "cyan", "CLOSED": "green"}


def draw_links(
    links: Iterable[CaseLink], cases: Mapping[Entity, Details], around: Entity, *, has_ids: bool
) -> bool:
    """Draw ``links``, each with its direction as seen from ``around`` and the entity at its other end.

    No id is shortened. On a narrow terminal the ids of the links are left out unless ``has_ids``; then lines
    may be longer than the terminal is wide.

    Returns:
        Whether the ids of the links are shown.
    """
    console = Console()
    has_ids |= console.width >= _WIDE
    rows = [[one_line(cell) for cell in _row(link, cases, around)] for link in links]
    names = _COLUMNS if has_ids else _COLUMNS[:-1]
    table = Table(box=None, header_style="bold", pad_edge=False)
    widths = []
    for name, cells in zip(names, zip(*rows, strict=True), strict=False):
        # rich narrows columns that may wrap before others, here the titles; no_wrap below then cuts these.
        width = max((len(cell) for cell in cells if name != "title" or is_uuid(cell)), default=0)
        widths.append(max(width, len(name)))
        table.add_column(name, no_wrap=name != "title", overflow="ellipsis", min_width=widths[-1])
    for relationship, entity, title, status, link_id, stage in rows:
        row: list[str | Text] = [
            relationship,
            entity,
            Text(title, no_wrap=True),
            Text(status, style=_STAGE_STYLES.get(stage, "")),
            Text(link_id, style="dim"),
        ]
        table.add_row(*row[: len(names)])
    needed = sum(widths) + 2 * (len(widths) - 1)
    if has_ids or any(is_uuid(row[2]) for row in rows):
        console.width = max(console.width, needed)
    console.print(table)
    return has_ids


def draw_cases(cases: Iterable[Case]) -> None:
    """Draw ``cases``, one on a line. A title that is too long is cut."""
    console = Console(highlight=False)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("case", "status", "priority", "title"):
        table.add_column(name, no_wrap=True, overflow="ellipsis" if name == "title" else "fold")
    for case in cases:
        key, status, priority, title = map(one_line, (case.key, status_of(case), case.priority, case.title))
        table.add_row(
            Text(key or case.id, style="bold"),
            Text(status, style=_STAGE_STYLES.get(case.stage, "")),
            Text(priority),
            Text(title),
        )
    if table.row_count:
        console.print(table)


def draw_fields(fields: Mapping[str, str]) -> None:
    """Draw the names and values of ``fields``, except empty ones. No value is cut."""
    console = Console(highlight=False)
    width = max(map(len, fields))
    for name, value in fields.items():
        if value:
            line = Text.assemble((f"{name:<{width}}  ", "dim"), (one_line(value), ""))
            console.print(line, soft_wrap=True)


Change = tuple[str, NewCaseLink | CaseLink]
"""A sign and a link: ``+`` for a link to create, ``-`` for one to delete."""


def draw_changes(planned: LinkPlan, changes: Mapping[Entity, Sequence[Change]]) -> None:
    """Draw ``changes`` of ``planned``, grouped by parent, with titles, each on one line."""
    console = Console(highlight=False)
    links = [link for each in changes.values() for _, link in each]
    width = max((len(relationship_in_words(link.relationship)) for link in links), default=0)
    for parent, below in changes.items():
        lines = [Text.assemble(*_named(planned, parent, "bold"))]
        for sign, link in below:
            style = "green" if sign == "+" else "red"
            prefix = f"  {sign} {relationship_in_words(link.relationship):<{width}}  "
            lines.append(Text.assemble((prefix, style), *_named(planned, link.child, style)))
        for line in lines:
            console.print(line, no_wrap=True, overflow="ellipsis")


def _named(planned: LinkPlan, entity: Entity, style: str) -> list[tuple[str, str]]:
    case = planned.details.get(entity)
    title = one_line(case.title) if case else ""
    return [(one_line(planned.name_of(entity)), style), (f"  {title}", "dim")]


def _row(link: CaseLink, cases: Mapping[Entity, Details], around: Entity) -> list[str]:
    other = link.child if link.parent == around else link.parent
    kind, _, other_id = named(other).rpartition(":")
    known = cases.get(other) or Case(other_id, kind or "case", other_id, "", "")
    name = name_of(other, {other: known}) if other in cases else known.key
    relationship = f"{_arrow(link, around)} {relationship_in_words(link.relationship)}"
    return [relationship, name, known.title, status_of(known), link.id, known.stage]


def _arrow(link: CaseLink, around: Entity) -> str:
    if link.relationship == Relationship.RELATES_TO:
        return "↔"
    return "→" if link.parent == around else "←"
