"""``caselinks plan``: the links as a file states them, against those that are there."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import Counter, defaultdict
from itertools import chain
from typing import Final

import click

from datadog_caselinks.bulk.create_links import AlreadyLinked, Created, Failed
from datadog_caselinks.bulk.link_files import MalformedLine, read_link_file
from datadog_caselinks.cli.files import format_option, opened
from datadog_caselinks.cli.interruption import RunInterruptedError
from datadog_caselinks.cli.records import Records, is_for_people, link_record, records
from datadog_caselinks.cli.run import Settings, client, logging_to, run, with_settings
from datadog_caselinks.cli.screen import Screen
from datadog_caselinks.cli.streams import OutputError
from datadog_caselinks.cli.table import Change, draw_changes
from datadog_caselinks.client import CaseLinksClient
from datadog_caselinks.errors import AmbiguousResultError, CaseLinksError, ConfigurationError, LinkFileError
from datadog_caselinks.graph.plan import Deleted, LinkPlan, NotDeleted, PlanOutcome
from datadog_caselinks.messages import counted
from datadog_caselinks.models import Entity
from datadog_caselinks.references import WantedLink

_ACTIONS: Final = {"+": "create", "-": "delete"}
_OUTCOMES: Final = {
    Created: "created",
    AlreadyLinked: "already linked",
    Failed: "not created",
    Deleted: "deleted",
    NotDeleted: "not deleted",
}
_UNCLEAR: Final = "perhaps created"


@click.command(epilog="Example: caselinks plan --sandbox --prune examples/links.yaml")
@click.argument("file")
@format_option
@click.option("--prune", is_flag=True, help="Also delete links between entities of FILE that FILE lacks.")
@click.option("--apply", "applies", is_flag=True, help="Do it, after asking.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_settings()
@click.pass_context
def plan(
    context: click.Context,
    file: str,
    format: str | None,
    prune: bool,
    applies: bool,
    yes: bool,
    settings: Settings,
) -> None:
    """Show what to create and delete so that the links are as FILE states them.

    FILE is YAML, or CSV or JSON Lines as for bulk; - is standard input. Nothing is
    changed without --apply, and applying twice changes nothing.

    \b
    In YAML:
      SHOP-23:
        parent_of: [SHOP-24, SHOP-25]
        blocks: SHOP-31
    """
    if applies and not yes and not sys.stdin.isatty():
        raise ConfigurationError("there is no terminal to ask whether to do it: say --yes")
    screen = Screen(quiet=settings.quiet)
    application = _Application(screen, settings)

    async def work() -> None:
        async with client(settings) as links:
            wanted = await _wanted(screen, file, format, links)
            screen.start(None)
            planned = await links.plan_links(wanted, prune=prune, progress=screen.answered)
            screen.close()
            if not (applies and settings.output != "table"):
                _show(screen, settings, planned)
            for warning in planned.warnings:
                screen.problem(f"Warning: {warning}")
            told = _told(planned)
            if not (planned.create or planned.delete):
                screen.note(f"Nothing to do: {told}.")
            elif not applies:
                screen.note(f"{told}. Nothing was changed; --apply does it.")
            elif yes or await _confirmed(told):
                await application.make(links, planned)
            else:
                screen.note("Nothing was changed.")

    with logging_to(screen, settings):
        try:
            run(work())
        except RunInterruptedError:
            application.ended_early()
            raise
        except (CaseLinksError, OutputError):
            if application.has_begun:
                application.ended_early()
            raise
        finally:
            screen.close()
    context.exit(application.exit_status)


async def _wanted(screen: Screen, file: str, format: str | None, links: CaseLinksClient) -> list[WantedLink]:
    """The links that ``file`` states, each of which must be well-formed."""
    with opened(file) as stream:
        lines = [line async for line in read_link_file(stream, format=format, site=links.site)]
    malformed = [line for line in lines if isinstance(line, MalformedLine)]
    for line in malformed:
        screen.problem(f"line {line.number}: {line.reason}")
    if malformed:
        raise LinkFileError(f"nothing was planned: {counted(len(malformed), 'malformed line')}")
    return [line.new for line in lines if not isinstance(line, MalformedLine)]


def _show(screen: Screen, settings: Settings, planned: LinkPlan) -> None:
    """The difference: the links to create and to delete of each parent together."""
    changes = defaultdict[Entity, list[Change]](list)
    for sign, links in (("+", planned.create), ("-", planned.delete)):
        for link in links:
            changes[link.parent].append((sign, link))
    if is_for_people(settings.output):
        draw_changes(planned, changes)
        return
    with records(screen, settings.output) as shown:
        for sign, link in chain.from_iterable(changes.values()):
            record = {"action": _ACTIONS[sign], "link": link_record(link, planned.cases)}
            shown.add(record, [f"{sign} {planned.describe(link)}"])


def _told(planned: LinkPlan) -> str:
    changes = [
        f"{counted(len(planned.create), 'link')} to create" if planned.create else "",
        f"{counted(len(planned.delete), 'link')} to delete" if planned.delete else "",
        f"{counted(len(planned.keep), 'link')} there already" if planned.keep else "",
    ]
    return ", ".join(filter(None, changes)) or "the file states no links"


async def _confirmed(told: str) -> bool:
    """Ask. Whatever is no yes is a no."""
    click.echo(f"{told}. Do it? [y/N] ", nl=False, err=True)
    loop, answered = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sys.stdin, answered.set)
    try:
        await answered.wait()
    except asyncio.CancelledError:
        click.echo(err=True)
        raise
    finally:
        loop.remove_reader(sys.stdin)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


class _Application:
    """What comes of the links of a plan that is applied."""

    def __init__(self, screen: Screen, settings: Settings) -> None:
        self._screen = screen
        self._output = settings.output
        self._counts: Counter[str] = Counter()
        self.has_begun = False

    async def make(self, links: CaseLinksClient, planned: LinkPlan) -> None:
        """Do what is planned."""
        self.has_begun = True
        self._screen.start(len(planned.create) + len(planned.delete))
        with records(self._screen, self._output) as shown:
            async with contextlib.aclosing(links.apply_plan(planned)) as outcomes:
                async for outcome in outcomes:
                    self._add(outcome, planned, shown)
        self._screen.close()
        self._screen.note(f"{self._summary}.")

    def _add(self, outcome: PlanOutcome, planned: LinkPlan, shown: Records) -> None:
        is_unclear = isinstance(outcome, Failed) and isinstance(outcome.error, AmbiguousResultError)
        became = _UNCLEAR if is_unclear else _OUTCOMES[type(outcome)]
        self._counts[became] += 1
        link = planned.create[outcome.index] if isinstance(outcome, Failed) else outcome.link
        record = {"outcome": became.replace(" ", "_"), "link": link_record(link, planned.cases)}
        if isinstance(outcome, Failed | NotDeleted):
            self._screen.problem(f"{planned.describe(link)}: {became}: {outcome.error}")
            record["error"] = str(outcome.error)
        shown.add(record, [])
        self._screen.advance(done=self._counts.total(), failed=self._failed)

    def ended_early(self) -> None:
        """Say how far it came."""
        if not self.has_begun:
            self._screen.note("Nothing was changed.")
            return
        told = "What was under way may be done too: the same command plans what is left."
        self._screen.problem(f"So far: {self._summary}. {told}")

    @property
    def _summary(self) -> str:
        return ", ".join(f"{count} {became}" for became, count in self._counts.items()) or "nothing"

    @property
    def _failed(self) -> int:
        failures = (_OUTCOMES[Failed], _UNCLEAR, _OUTCOMES[NotDeleted])
        return sum(self._counts[became] for became in failures)

    @property
    def exit_status(self) -> int:
        """1 if anything could not be done."""
        return 1 if self._failed else 0
