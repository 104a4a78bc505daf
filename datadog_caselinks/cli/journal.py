"""``caselinks journal``: what the journal of a bulk run holds."""

from __future__ import annotations

from collections import Counter

import click

from datadog_caselinks.bulk.journal_file import LinkState, read_journal
from datadog_caselinks.cli.screen import Screen
from datadog_caselinks.messages import MAX_STORED, one_line


@click.group()
def journal() -> None:
    """Look at the journal of a bulk run."""


@journal.command(epilog="Example: caselinks journal show run.journal --state sent")
@click.argument("file")
@click.option(
    "--state", type=click.Choice([state.value for state in LinkState]), help="Show these links only."
)
def show(file: str, state: str | None) -> None:
    """List the links of the journal FILE; a run may be writing it meanwhile.

    \b
    Each line holds, with tabs between:
      the state   linked (it is there), failed (it was not made), or
                  sent (it may have been made; the next run looks for it)
      the time    when that was written, in UTC
      the link    parent, relationship and child
      the rest    the id of the link, or why it was not made
    """
    screen = Screen()
    counts: Counter[str] = Counter()
    for record in read_journal(file):
        counts[record.state] += 1
        if state in (None, record.state):
            told = one_line(record.link_id or record.error or "", limit=MAX_STORED)
            screen.data(f"{record.state}\t{record.at:%Y-%m-%dT%H:%M:%SZ}\t{record.new}\t{told}".rstrip())
    screen.note(", ".join(f"{counts[each]} {each}" for each in LinkState) + ".")
