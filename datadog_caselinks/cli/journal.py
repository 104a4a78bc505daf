"""``caselinks journal``: show the journal of a bulk run."""

from __future__ import annotations

from collections import Counter
from typing import Final

import click

from datadog_caselinks.bulk.journal_file import read_journal
from datadog_caselinks.cli.screen import Screen
from datadog_caselinks.messages import MAX_STORED, one_line
from datadog_caselinks.models import LinkStatus

_STATUSES: Final = (LinkStatus.AMBIGUOUS, LinkStatus.CREATED, LinkStatus.ALREADY_LINKED, LinkStatus.FAILED)


@click.group()
def journal() -> None:
    """Show the journal of a bulk run."""


@journal.command(epilog="Example: caselinks journal show run.journal --status ambiguous")
@click.argument("file")
@click.option(
    "--status",
    type=click.Choice([status.value for status in _STATUSES]),
    help="Show only links with this status.",
)
def show(file: str, status: str | None) -> None:
    """List the links in the journal FILE. A run may be writing to it at the same time.

    \b
    Each line has these columns, separated by tabs:
      status   created, already_linked, failed, or ambiguous (it may have
               been created; the next run checks)
      time     when the status was recorded, in UTC
      link     parent, relationship and child
      details  the id of the link, or why it was not created
    """
    screen = Screen()
    counts: Counter[str] = Counter()
    for record in read_journal(file):
        counts[record.status] += 1
        if status in (None, record.status):
            details = one_line(record.link_id or record.error or "", limit=MAX_STORED)
            screen.data(f"{record.status}\t{record.at:%Y-%m-%dT%H:%M:%SZ}\t{record.new}\t{details}".rstrip())
    screen.note(", ".join(f"{counts[each]} {each}" for each in _STATUSES) + ".")
