"""Records on standard output, each at once: as a line, with tabs between or not, as JSON, as JSON Lines."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence

from datadog_caselinks.cli.screen import Screen
from datadog_caselinks.cli.streams import OutputError
from datadog_caselinks.messages import one_line
from datadog_caselinks.models import Case, CaseLink, Entity, NewCaseLink

Cases = Mapping[Entity, Case]
"""What is known of the cases at the ends of links."""


class Records:
    """Records of one kind, shown as ``output`` says: ``table``, ``json`` or ``jsonl``."""

    def __init__(self, screen: Screen, output: str, widths: Sequence[int]) -> None:
        self._screen = screen
        self._output = output
        self._widths = widths if is_for_people(output) else ()
        self._count = 0
        self._is_broken = False

    def add(self, record: Mapping[str, object], row: Sequence[str]) -> None:
        """Show one, of which ``row`` holds the columns; without any it is shown as JSON alone."""
        if self._output == "table":
            if row:
                self._write(self._line(row))
        elif self._output == "jsonl":
            self._write(json.dumps(record))
        else:
            self._write(f"{',' if self._count else '['} {json.dumps(record)}")
        self._count += 1

    def close(self) -> None:
        """Show what is still to be shown."""
        if self._output == "json" and not self._is_broken:
            self._write("]" if self._count else "[]")

    def _line(self, row: Sequence[str]) -> str:
        cells = [one_line(cell) for cell in row]
        if not self._widths:
            return "\t".join(cells)
        return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, self._widths, strict=True)).rstrip()

    def _write(self, line: str) -> None:
        try:
            self._screen.data(line)
        except OutputError:
            self._is_broken = True
            raise


def is_for_people(output: str) -> bool:
    """Whether a table is wanted, and a terminal there to show it."""
    return output == "table" and sys.stdout.isatty()


@contextlib.contextmanager
def records(screen: Screen, output: str, widths: Sequence[int] = ()) -> Iterator[Records]:
    """Records that are shown to the end, whatever comes between; on a terminal with columns of ``widths``."""
    shown = Records(screen, output, widths)
    try:
        yield shown
    finally:
        shown.close()


def entity_record(entity: Entity, cases: Cases) -> dict[str, object]:
    """An end of a link as JSON."""
    record: dict[str, object] = {"type": str(entity.type), "id": entity.id}
    if case := cases.get(entity):
        record |= {"key": case.key, "title": case.title, "status": case.status, "priority": case.priority}
    return record


def link_record(link: NewCaseLink | CaseLink, cases: Cases) -> dict[str, object]:
    """A link as JSON; one that is to be created has no id yet."""
    return {
        **({"id": link.id} if isinstance(link, CaseLink) else {}),
        "parent": entity_record(link.parent, cases),
        "relationship": str(link.relationship),
        "child": entity_record(link.child, cases),
    }
