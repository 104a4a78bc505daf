"""``caselinks plan``: compare the links in a file with those that exist, and apply the difference."""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import chain
from typing import Final

import click
from attrs import define, field

from datadog_caselinks.bulk.create_links import Created, Failed
from datadog_caselinks.bulk.delete_links import Deleted, NotDeleted
from datadog_caselinks.bulk.link_files import LinkLine, MalformedLine, read_link_file
from datadog_caselinks.cli.again import longer_wait, to_continue
from datadog_caselinks.cli.confirmation import confirmed, require_terminal
from datadog_caselinks.cli.files import FileOptions, open_input, with_file_options
from datadog_caselinks.cli.groups import Command
from datadog_caselinks.cli.records import (
    Records,
    error_record,
    is_for_people,
    label,
    link_record,
    records,
)
from datadog_caselinks.cli.run import (
    Settings,
    logging_to,
    open_client,
    reporting_early_end,
    run,
    with_settings,
)
from datadog_caselinks.cli.screen import Screen
from datadog_caselinks.cli.table import Change, draw_changes
from datadog_caselinks.cli.warnings import show_warnings
from datadog_caselinks.client import CaseLinksClient
from datadog_caselinks.graph.plan import LinkPlan, PlanOutcome
from datadog_caselinks.values.errors import CaseLinksError, LinkFileError, ParameterError
from datadog_caselinks.values.messages import counted
from datadog_caselinks.values.models import Entity, LinkStatus, WantedLink

_PENDING: Final = 3
"""The exit status of ``--check`` if changes are pending."""

_THE_REST: Final = "it plans the rest"
_ACTIONS: Final = {"+": "create", "-": "delete"}
_DELETED: Final = "deleted"
_NOT_DELETED: Final = "not_deleted"
_FAILURES: Final = (LinkStatus.FAILED, LinkStatus.AMBIGUOUS, _NOT_DELETED)


@click.command(cls=Command, epilog="Example: caselinks plan --sandbox --prune examples/links.yaml")
@click.argument("file")
@with_file_options
@click.option("--strict", is_flag=True, help="Plan nothing if a line is malformed or a case does not exist.")
@click.option(
    "--prune", is_flag=True, help="Also delete links between entities of FILE that are not in FILE."
)
@click.option("--apply", "applies", is_flag=True, help="Apply the plan, after asking for confirmation.")
@click.option(
    "--check", is_flag=True, help=f"End with exit status {_PENDING} if there is anything to create or delete."
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@with_settings()
@click.pass_context
def plan(
    context: click.Context,
    file: str,
    file_options: FileOptions,
    strict: bool,
    prune: bool,
    applies: bool,
    check: bool,
    yes: bool,
    settings: Settings,
) -> None:
    """Show which links to create and delete to match FILE.

    FILE is YAML, or CSV or JSON Lines as for bulk; - is standard input. Nothing is
    changed without --apply, and applying twice changes nothing. With --check, the exit
    status is 3 if changes are pending, and 0 if there are none. As in bulk, lines that
    are malformed or name an unknown case are reported, and the others are planned. Then
    nothing is pruned, and the exit status is 1. It is also 1 if you answer no.

    \b
    In YAML:
      SHOP-23:
        parent_of: [SHOP-24, SHOP-25]
        blocks: SHOP-31
    """
    if applies and check:
        raise ParameterError("use either --apply or --check, not both")
    if applies and not yes:
        require_terminal("--apply")
    screen = Screen(quiet=settings.quiet)
    application = _Application(screen, settings)

    async def work() -> None:
        async with open_client(settings) as client:
            wanted = await _read(screen, file, file_options, client)
            if strict and wanted.left_out:
                raise LinkFileError(
                    f"nothing was planned because of --strict: {counted(wanted.left_out, 'malformed line')}"
                )
            screen.start(None)
            planned = await client.plan_links(
                wanted.numbers,
                prune=prune and not wanted.left_out,
                progress=screen.on_progress,
                on_failure=None if strict else wanted.leave_out,
            )
            screen.close()
            application.left_out = wanted.left_out
            if prune and wanted.left_out:
                screen.problem("Nothing is pruned, because a line above may mean a link that exists.")
            if not applies or settings.output == "table":
                _show(screen, settings, planned)
            elif not yes:  # standard output has only the outcomes
                for sign, link in _changes(planned):
                    screen.summary(f"{sign} {planned.describe(link)}")
            await show_warnings(screen, client.resolver(), planned)
            summary = _summary(planned, wanted.left_out)
            if not (planned.create or planned.delete):
                screen.note(f"{'Only partly compared' if wanted.left_out else 'Nothing to do'}: {summary}.")
            elif not applies:
                application.is_pending = check
                screen.note(f"{summary}. Nothing was changed; use --apply to apply the plan.")
            elif yes or await confirmed(f"{summary}. Apply?"):
                await application.apply(client, planned)
            else:
                screen.note("Nothing was changed.")
                application.is_declined = True

    with logging_to(screen, settings), reporting_early_end(screen, application):
        run(work())
    context.exit(application.exit_status)


@define
class _Wanted:
    """The links of a file, and how many of its lines are left out."""

    _screen: Screen
    numbers: dict[WantedLink, list[int]] = field(factory=dict, init=False)  # of the lines of each link
    left_out: int = field(default=0, init=False)

    def add(self, line: LinkLine | MalformedLine) -> None:
        if isinstance(line, LinkLine):
            self.numbers.setdefault(line.new, []).append(line.number)
        else:
            self._report(line.number, line.reason)

    def leave_out(self, new: WantedLink, error: CaseLinksError) -> None:
        for number in self.numbers[new]:
            self._report(number, str(error))

    def _report(self, number: int, reason: str) -> None:
        self.left_out += 1
        self._screen.problem(f"line {number}: {reason}")


async def _read(screen: Screen, file: str, file_options: FileOptions, client: CaseLinksClient) -> _Wanted:
    """Read the links in ``file``, and report its malformed lines."""
    wanted = _Wanted(screen)
    with open_input(file) as stream:
        async for line in read_link_file(stream, site=client.site, **file_options):
            wanted.add(line)
    return wanted


def _show(screen: Screen, settings: Settings, planned: LinkPlan) -> None:
    """Show the links to create and delete, grouped by parent."""
    changes = defaultdict[Entity, list[Change]](list)
    for sign, link in _changes(planned):
        changes[link.parent].append((sign, link))
    if is_for_people(settings.output):
        draw_changes(planned, changes)
        return
    with records(screen, settings.output) as writer:
        for sign, link in chain.from_iterable(changes.values()):
            record = {"action": _ACTIONS[sign], "link": link_record(link, planned.details)}
            writer.add(record, [f"{sign} {planned.describe(link)}"])


def _changes(planned: LinkPlan) -> Iterator[Change]:
    """Yield each link to create and to delete with its sign."""
    yield from (("+", link) for link in planned.create)
    yield from (("-", link) for link in planned.delete)


def _summary(planned: LinkPlan, left_out: int) -> str:
    changes = [
        f"{counted(len(planned.create), 'link')} to create" if planned.create else "",
        f"{counted(len(planned.delete), 'link')} to delete" if planned.delete else "",
        f"{len(planned.keep)} already linked" if planned.keep else "",
        f"{counted(left_out, 'line')} left out" if left_out else "",
    ]
    return ", ".join(filter(None, changes)) or "the file contains no links"


class _Application:
    """The application of a plan: applies it, shows failures, and counts the outcomes."""

    def __init__(self, screen: Screen, settings: Settings) -> None:
        self._screen = screen
        self._output = settings.output
        self._max_wait = settings.max_wait
        self._counts: Counter[str] = Counter()
        self._last_error: CaseLinksError | None = None
        self.has_begun = False
        self.is_declined = False
        self.is_pending = False
        self.left_out = 0  # lines of the file

    async def apply(self, client: CaseLinksClient, planned: LinkPlan) -> None:
        """Create and delete the links of the plan."""
        self.has_begun = True
        self._screen.start(len(planned.create) + len(planned.delete))
        with records(self._screen, self._output) as writer:
            async with contextlib.aclosing(client.apply_plan(planned, trust_lists=True)) as outcomes:
                async for outcome in outcomes:
                    self._add(outcome, planned, writer)
        self._screen.close()
        self._screen.note(f"{self._summary}.")
        if self._failures or self.left_out:
            first = longer_wait(self._last_error, self._max_wait) or "fix the problems above"
            self._screen.problem(to_continue(_THE_REST, first=first))

    def _add(self, outcome: PlanOutcome, planned: LinkPlan, writer: Records) -> None:
        status = _status(outcome)
        self._counts[status] += 1
        link = planned.create[outcome.index] if isinstance(outcome, Failed) else outcome.link
        record: dict[str, object] = {"outcome": status, "link": link_record(link, planned.details)}
        if isinstance(outcome, Failed | NotDeleted):
            self._screen.problem(f"{planned.describe(link)}: {label(status)}: {outcome.error}")
            record |= error_record(outcome.error)
            self._last_error = outcome.error
        elif isinstance(outcome, Created):
            record["found_by_lookup"] = outcome.found_by_lookup
        writer.add(record, [])
        self._screen.advance(done=self._counts.total(), failed=self._failures)

    def report_early_end(self) -> None:
        """Show how much of the plan was applied before the run ended early."""
        if not self.has_begun:
            self._screen.note("Nothing was changed.")
            return
        self._screen.problem(f"So far: {self._summary}. Changes in flight may have been applied too.")
        self._screen.problem(to_continue(_THE_REST))

    @property
    def _summary(self) -> str:
        return ", ".join(f"{count} {label(status)}" for status, count in self._counts.items()) or "nothing"

    @property
    def _failures(self) -> int:
        return sum(self._counts[status] for status in _FAILURES)

    @property
    def exit_status(self) -> int:
        """The exit status: 1 if something failed, or 3 for ``--check`` if changes are pending."""
        if self._failures or self.left_out or self.is_declined:
            return 1
        return _PENDING if self.is_pending else 0


def _status(outcome: PlanOutcome) -> str:
    if isinstance(outcome, Deleted):
        return _DELETED
    return _NOT_DELETED if isinstance(outcome, NotDeleted) else outcome.status
