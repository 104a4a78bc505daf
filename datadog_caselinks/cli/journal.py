"""``caselinks journal``: show the journal of a bulk run."""

from __future__ import annotations

from collections import Counter
from typing import Final

import click

from datadog_caselinks.bulk.journal_file import LINKED, JournalRecord, read_journal
from datadog_caselinks.cli.groups import Group
from datadog_caselinks.cli.records import link_record, records, wanted_record
from datadog_caselinks.cli.run import output_option
from datadog_caselinks.cli.screen import Screen
from datadog_caselinks.values.models import LinkStatus
from datadog_caselinks.values.references import link_in_words

_STATUSES: Final = (LinkStatus.AMBIGUOUS, LinkStatus.CREATED, LinkStatus.ALREADY_LINKED, LinkStatus.FAILED)

_WIDTHS: Final = (14, 20, 40, 0)
"""The widths of the columns on a terminal."""


@click.group(cls=Group)
def journal() -> None:
    """Show the journal of a bulk run."""


@journal.command(epilog="Example: caselinks journal show run.journal --status ambiguous")
@click.argument("file")
@click.option(
    "--status",
    type=click.Choice([status.value for status in _STATUSES]),
    help="Show only links with this status.",
)
@output_option
@click.option("--quiet", "-q", is_flag=True, help="Show results only.")
def show(file: str, status: str | None, output: str, quiet: bool) -> None:
    """List the links in the journal FILE. A run may be writing to it at the same time.

    \b
    Each line has these columns; without a terminal, tabs separate them:
      status   created, already_linked, failed, or ambiguous (it may have
               been created; the next run checks)
      time     when the status was recorded, in UTC
      link     parent, relationship and child, with the keys that the run was given
      details  the id of the link, or why it was not created
    """
    screen = Screen(quiet=quiet)
    counts: Counter[str] = Counter()
    with records(screen, output, _WIDTHS) as writer:
        for record in read_journal(file):
            counts[record.status] += 1
            if status in (None, record.status):
                writer.add(_as_json(record), _as_row(record))
    screen.note(", ".join(f"{counts[each]} {each}" for each in _STATUSES) + ".")


def _as_row(record: JournalRecord) -> list[str]:
    link = link_in_words(record.wanted)
    return [record.status, f"{record.at:%Y-%m-%dT%H:%M:%SZ}", link, record.link_id or record.error or ""]


def _as_json(record: JournalRecord) -> dict[str, object]:
    new = record.new
    link = new.existing(record.link_id) if record.link_id else new
    return {
        "outcome": record.status,
        "at": record.at.isoformat(),
        **wanted_record(record.wanted),
        "link": link_record(link, {}),
        **({"found_by_lookup": record.found_by_lookup} if record.status in LINKED else {}),
        **({"error": record.error} if record.error else {}),
    }
