"""``caselinks journal``: show the journal of a bulk run."""

from __future__ import annotations

from collections import Counter

import click

from datadog_caselinks.bulk.journal_file import LinkState, read_journal
from datadog_caselinks.cli.screen import Screen
from datadog_caselinks.messages import MAX_STORED, one_line


@click.group()
def journal() -> None:
    """Show the journal of a bulk run."""


@journal.command(epilog="Example: caselinks journal show run.journal --state sent")
@click.argument("file")
@click.option(
    "--state", type=click.Choice([state.value for state in LinkState]), help="Show only links in this state."
)
def show(file: str, state: str | None) -> None:
    """List the links in the journal FILE. A run may be writing to it at the same time.

    \b
    Each line has these columns, separated by tabs:
      state    linked (it exists), failed (it was not created), or
               sent (it may have been created; the next run checks)
      time     when the state was recorded, in UTC
      link     parent, relationship and child
      details  the id of the link, or why it was not created
    """
    screen = Screen()
    counts: Counter[str] = Counter()
    for record in read_journal(file):
        counts[record.state] += 1
        if state in (None, record.state):
            details = one_line(record.link_id or record.error or "", limit=MAX_STORED)
            screen.data(f"{record.state}\t{record.at:%Y-%m-%dT%H:%M:%SZ}\t{record.new}\t{details}".rstrip())
    screen.note(", ".join(f"{counts[each]} {each}" for each in LinkState) + ".")
