"""``caselinks undo``: delete the links that a run created."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import Final

import click

from datadog_caselinks.bulk.create_links import would_fail_all
from datadog_caselinks.bulk.delete_links import Deleted, NotDeleted
from datadog_caselinks.bulk.undo import Undo
from datadog_caselinks.cli.again import longer_wait, to_continue
from datadog_caselinks.cli.confirmation import confirmed, require_terminal
from datadog_caselinks.cli.groups import Command
from datadog_caselinks.cli.records import Known, Records, error_record, label, link_record, records
from datadog_caselinks.cli.run import (
    Settings,
    logging_to,
    open_client,
    reporting_early_end,
    run,
    with_settings,
)
from datadog_caselinks.cli.screen import Screen
from datadog_caselinks.values.errors import CaseLinksError, ParameterError
from datadog_caselinks.values.messages import counted
from datadog_caselinks.values.models import CaseLink, ends_of
from datadog_caselinks.values.references import name_of, relationship_in_words

_MAX_CASES: Final = 100
"""The maximum number of cases whose keys are looked up, each with a request."""

_MAX_SHOWN: Final = 10
"""The maximum number of ambiguous links that are shown."""

_THE_REST: Final = "it deletes the rest"
_DELETED: Final = "deleted"
_GONE: Final = "already_gone"
_NOT_DELETED: Final = "not_deleted"


@click.command(cls=Command, epilog="Example: caselinks undo run.journal")
@click.argument("file", metavar="RUN")
@click.option("--dry-run", is_flag=True, help="Show the links to delete, and delete nothing.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@with_settings()
@click.pass_context
def undo(context: click.Context, file: str, dry_run: bool, yes: bool, settings: Settings) -> None:
    """Delete the links that RUN created, and no others, after showing them.

    RUN is the journal of a run (bulk --journal RUN FILE), or the output of bulk --output
    jsonl. Links that existed before the run are kept, and so are links that another
    program may have created. A link that no longer exists is not an error, so you can
    repeat undo. To create the deleted links again, run bulk with the same journal.

    The exit status is 0 if no link of the run is left, and 1 if a link was not deleted
    or is ambiguous, or if you answer no.
    """
    if dry_run and yes:
        raise ParameterError("--dry-run deletes nothing; leave out --yes")
    if not (dry_run or yes):
        require_terminal("undo")
    screen = Screen(quiet=settings.quiet)
    deletion = _Deletion(screen, settings)

    async def work() -> None:
        async with open_client(settings) as client, client.undo(file) as undo:
            cases: Known = {}
            if len(ends_of(undo.links)) <= _MAX_CASES:
                cases = await client.resolver().all_details(ends_of(undo.links))
            if dry_run or settings.output == "table":
                _show(screen, settings, undo, cases)
            elif not yes:  # standard output has only the outcomes
                for link in undo.links:
                    screen.summary(f"- {_named(link, cases)}")
            deletion.report_uncertain(undo)
            summary = f"{counted(len(undo.links), 'link')} to delete on {client.site.name}"
            if not undo.links:
                nothing = "No other link" if deletion.is_uncertain else "Nothing"
                screen.note(f"{nothing} to undo: the run created none, or all were deleted.")
            elif dry_run:
                screen.note(f"{summary}. Nothing was deleted.")
            elif not (yes or await confirmed(f"{summary}. Delete?")):
                screen.note("Nothing was deleted.")
                deletion.is_declined = True
            if not (dry_run or deletion.is_declined):
                await deletion.delete(undo, cases)

    with logging_to(screen, settings), reporting_early_end(screen, deletion):
        run(work())
    context.exit(deletion.exit_status)


def _show(screen: Screen, settings: Settings, undo: Undo, cases: Known) -> None:
    with records(screen, settings.output) as writer:
        for link in undo.links:
            writer.add(
                {"action": "delete", "link": link_record(link, cases)}, [f"- {_named(link, cases)}", link.id]
            )


def _named(link: CaseLink, cases: Known) -> str:
    words = relationship_in_words(link.relationship)
    return f"{name_of(link.parent, cases)} {words} {name_of(link.child, cases)}"


class _Deletion:
    """The deletion of the links of a run: shows failures, and counts the outcomes."""

    def __init__(self, screen: Screen, settings: Settings) -> None:
        self._screen = screen
        self._output = settings.output
        self._max_wait = settings.max_wait
        self._counts: Counter[str] = Counter()
        self._last_error: CaseLinksError | None = None
        self._total = 0
        self._is_done = False
        self.is_declined = False
        self.is_uncertain = False

    def report_uncertain(self, undo: Undo) -> None:
        """Show the links that the run may have created."""
        for description in undo.ambiguous[:_MAX_SHOWN]:
            self._screen.problem(f"Not deleted: {description}")
        if (more := len(undo.ambiguous) - _MAX_SHOWN) > 0:
            self._screen.problem(f"Not deleted: {more} more")
        if undo.is_cut_off:
            self._screen.problem("Not deleted: the last line is incomplete, so the id of its link is unknown")
        self.is_uncertain = bool(undo.ambiguous) or undo.is_cut_off
        if self.is_uncertain:
            self._screen.problem(
                "To check, list the links of these cases; to delete one, run caselinks delete with its id, "
                "or with PARENT RELATIONSHIP CHILD."
            )

    async def delete(self, undo: Undo, cases: Known) -> None:
        """Delete the links, until an error shows that every further delete would fail."""
        self._total = len(undo.links)
        self._screen.start(self._total)
        with records(self._screen, self._output) as writer:
            async with contextlib.aclosing(undo.delete()) as outcomes:
                async for outcome in outcomes:
                    self._add(outcome, cases, writer)
                    if isinstance(outcome, NotDeleted) and would_fail_all(
                        outcome.error, has_created=bool(self._counts[_DELETED])
                    ):
                        break
        self._is_done = True
        self._screen.close()
        if self._total:
            self._screen.note(f"{self._summary}.")
        if left := self._total - self._counts.total():
            reason = str(self._last_error).rstrip(".")
            self._screen.problem(
                f"Stopped: {reason}. {counted(left, 'link')} not deleted for the same reason."
            )
        if self._failures:
            first = longer_wait(self._last_error, self._max_wait) or "fix the problem"
            self._screen.problem(to_continue(_THE_REST, first=first))

    def _add(self, outcome: Deleted | NotDeleted, cases: Known, writer: Records) -> None:
        record: dict[str, object] = {"link": link_record(outcome.link, cases)}
        if isinstance(outcome, Deleted):
            status = _GONE if outcome.was_gone else _DELETED
        else:
            status = _NOT_DELETED
            record |= error_record(outcome.error)
            self._last_error = outcome.error
            self._screen.problem(f"{_named(outcome.link, cases)}: {label(status)}: {outcome.error}")
        self._counts[status] += 1
        writer.add({"outcome": status, **record}, [])
        self._screen.advance(done=self._counts.total(), failed=self._counts[_NOT_DELETED])

    def report_early_end(self) -> None:
        """Show how many links were deleted before the run ended early."""
        if not self.has_begun:
            self._screen.note("Nothing was deleted.")
            return
        if not self._is_done:
            self._screen.problem(f"So far: {self._summary}. Deletes in flight may have been applied too.")
        self._screen.problem(to_continue(_THE_REST))

    @property
    def has_begun(self) -> bool:
        """Whether any delete was sent."""
        return bool(self._total)

    @property
    def _summary(self) -> str:
        return ", ".join(f"{count} {label(status)}" for status, count in self._counts.items()) or "nothing"

    @property
    def _failures(self) -> int:
        return self._total - self._counts[_DELETED] - self._counts[_GONE]

    @property
    def exit_status(self) -> int:
        """The exit status: 1 if links of the run are left, or may be."""
        return 1 if self._failures or self.is_uncertain or self.is_declined else 0
