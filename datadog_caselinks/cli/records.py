"""Records on standard output, each written at once: as a row of columns, as JSON or as JSON Lines."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence

from datadog_caselinks.bulk.link_files import MalformedLine
from datadog_caselinks.cli.screen import Screen
from datadog_caselinks.cli.streams import OutputError
from datadog_caselinks.values.errors import (
    AmbiguousResultError,
    CaseLinksError,
    InvalidLinkError,
    ResponseError,
)
from datadog_caselinks.values.messages import MAX_STORED, one_line, storable
from datadog_caselinks.values.models import (
    Case,
    CaseKey,
    CaseLink,
    Entity,
    LinkStatus,
    NewCaseLink,
    WantedLink,
    named,
)
from datadog_caselinks.values.references import Details, link_in_words

Known = Mapping[Entity, Details]
"""What is known of the ends of links."""


class Records:
    """A writer of records of one kind, in the format ``output``: ``table``, ``json`` or ``jsonl``."""

    def __init__(self, screen: Screen, output: str, widths: Sequence[int]) -> None:
        self._screen = screen
        self._output = output
        self._widths = widths if is_for_people(output) else ()
        self._count = 0
        self._is_broken = False

    def add(self, record: Mapping[str, object], row: Sequence[str]) -> None:
        """Write one record. ``row`` holds its columns; if it is empty, the record appears in JSON only."""
        if self._output == "table":
            if row:
                self._write(self._line(row))
        elif self._output == "jsonl":
            self._write(json.dumps(record))
        else:
            self._write(f"{',' if self._count else '['} {json.dumps(record)}")
        self._count += 1

    def close(self) -> None:
        """Write the end of a JSON list."""
        if self._output == "json" and not self._is_broken:
            self._write("]" if self._count else "[]")

    def _line(self, row: Sequence[str]) -> str:
        cells = [one_line(cell, limit=MAX_STORED) for cell in row]
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
    """Return whether to draw a table: ``output`` is ``table`` and standard output is a terminal."""
    return output == "table" and sys.stdout.isatty()


@contextlib.contextmanager
def records(screen: Screen, output: str, widths: Sequence[int] = ()) -> Iterator[Records]:
    """Open a :class:`Records` and close it at the end, also after an error.

    ``widths`` are the widths of the columns on a terminal; elsewhere tabs separate the columns.
    """
    writer = Records(screen, output, widths)
    try:
        yield writer
    finally:
        writer.close()


def label(status: str) -> str:
    """Return ``status`` in words, such as "already linked"."""
    return status.replace("_", " ")


def entity_record(entity: Entity, known: Known) -> dict[str, object]:
    """Return an end of a link as JSON."""
    record: dict[str, object] = {"type": str(entity.type), "id": entity.id}
    if found := known.get(entity):
        record |= {"key": found.key, "title": found.title, "status": found.status}
        if isinstance(found, Case):
            record |= {"priority": found.priority}
            record |= {"status_name": found.status_name, "status_group": found.status_group}
        else:
            record |= {"number": found.number}
    return record


def link_record(link: NewCaseLink | CaseLink, known: Known) -> dict[str, object]:
    """Return a link as JSON. A link that does not exist yet has no id."""
    return {
        **({"id": link.id} if isinstance(link, CaseLink) else {}),
        "parent": entity_record(link.parent, known),
        "relationship": str(link.relationship),
        "child": entity_record(link.child, known),
    }


def wanted_record(new: WantedLink) -> dict[str, object]:
    """Return a link as a file writes it, with the names of the columns: a record is a line to run again."""
    return {
        "parent": named(new.parent),
        "relationship": str(new.relationship),
        "child": named(new.child),
    }


def error_record(error: BaseException) -> dict[str, object]:
    """Return an error as JSON: its message, its class, and the HTTP status of the response, if there was one.

    The status of an ambiguous result is that of the response which left the result open.
    """
    reason = error.reason if isinstance(error, AmbiguousResultError) else error
    status = reason.status if isinstance(reason, ResponseError) else None
    return {"error": str(error), "error_type": type(error).__name__, "error_status": status}


def with_keys(new: WantedLink, error: CaseLinksError) -> str:
    """Return the message of ``error``, after the keys in ``new`` if the message names UUIDs only."""
    message = str(error)
    ends = [end for end in (new.parent, new.child) if not isinstance(end, Entity)]
    keys = [end.key if isinstance(end, CaseKey) else end.number for end in ends]
    return f"{link_in_words(new)}: {message}" if keys and not any(key in message for key in keys) else message


def malformed_record(line: MalformedLine) -> dict[str, object]:
    """Return a malformed line as JSON, with its text as written."""
    text = storable(line.source.text.decode(errors="replace")) if line.source else ""
    return {
        "line": line.number,
        "outcome": LinkStatus.MALFORMED,
        "text": text,
        "error": line.reason,
        "error_type": InvalidLinkError.__name__,
        "error_status": None,
    }
