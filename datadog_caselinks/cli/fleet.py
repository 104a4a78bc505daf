"""``caselinks fleet``: create the links in a file on many machines that share a PostgreSQL database."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
from attrs import asdict
from click.core import ParameterSource
from rich.console import Console
from rich.table import Table
from rich.text import Text

from datadog_caselinks.bulk.create_links import Failed, Outcome
from datadog_caselinks.bulk.link_files import LinkLine, MalformedLine, read_link_file
from datadog_caselinks.cli.files import EMPTY, FileOptions, open_input, with_file_options
from datadog_caselinks.cli.groups import Group
from datadog_caselinks.cli.interruption import RunInterruptedError
from datadog_caselinks.cli.records import is_for_people, label, records
from datadog_caselinks.cli.run import (
    Settings,
    end_within,
    logging_to,
    max_wait_option,
    open_client,
    output_option,
    rate_option,
    resolve_site,
    run,
    site_option,
    verbose_option,
)
from datadog_caselinks.cli.screen import Screen, time_left
from datadog_caselinks.values.errors import FleetError, LinkFileError
from datadog_caselinks.values.messages import counted, one_line
from datadog_caselinks.values.models import LinkStatus
from datadog_caselinks.values.rate import Rate
from datadog_caselinks.values.references import relationship_in_words

# The functions of the fleet are imported where they are used: they need an extra, and --help does not.
if TYPE_CHECKING:
    from datadog_caselinks.fleet import FleetLink, Run

_SECONDS: Final = 1.0
"""Seconds between two updates of ``status --follow``."""

_END: Final = 9.0
"""Seconds that a command has to end after a signal. Then it ends as if killed, which does no harm."""

_LIBRARIES: Final = ("procrastinate", "psycopg", "asyncio")
"""Loggers whose tracebacks are hidden: the command reports these errors itself, or recovers."""

_DATABASE_VARIABLES: Final = ("PGHOST", "PGHOSTADDR", "PGSERVICE", "PGPORT", "PGDATABASE")
"""Variables of PostgreSQL. If one is set, someone chose a database."""

_RUN_COLUMNS: Final = (
    *("run", "file", "submitted", "progress", "created", "already linked", "failed", "ambiguous", "left"),
)
_FAILURE: Final = "bold red"

T = TypeVar("T")

_database_option = click.option(
    "--database",
    metavar="URL",
    envvar="CASELINKS_DATABASE",
    default="",
    help="Such as postgresql://USER@HOST/NAME. Default: CASELINKS_DATABASE, or PG* variables such as PGHOST.",
)
_run_option = click.option("--run", "number", type=click.IntRange(1), metavar="N", help="Only run N.")
_quiet_option = click.option("--quiet", "-q", is_flag=True, help="Show results and problems only.")


def _run(work: Coroutine[Any, Any, T], last_words: Callable[[], None] = lambda: None) -> T:
    """Run ``work`` like :func:`run`, and end in time although the database may not respond.

    It uses the event loop that psycopg needs, which on Windows is not the default.
    """
    return run(end_within(_END, work, last_words), loop_factory=asyncio.SelectorEventLoop)


@contextlib.asynccontextmanager
async def _connected(database: str) -> AsyncIterator[Any]:
    """Open the app on the database. If no database is named, the error says how to name one."""
    from datadog_caselinks.fleet import connected

    async with contextlib.AsyncExitStack() as stack:
        try:
            app = await stack.enter_async_context(connected(database))
        except FleetError as error:
            if database or any(map(os.environ.get, _DATABASE_VARIABLES)):
                raise
            raise FleetError(
                "no database is named: set CASELINKS_DATABASE or use --database, such as "
                f"postgresql://USER@HOST/NAME. Without it, {error}"
            ) from error
        yield app


@click.group(cls=Group)
def fleet() -> None:
    """Create the links in a file on many machines that share a PostgreSQL database.

    \b
    Once:             caselinks fleet init
    For each file:    caselinks fleet submit FILE
    On each machine:  caselinks fleet worker
    Anywhere:         caselinks fleet status --follow

    Only the workers need keys, which they read from the environment. Set CASELINKS_DATABASE, and keep the
    password out of it: use PGPASSWORD or a password file.
    """
    for name in _LIBRARIES:
        logging.getLogger(name).addHandler(logging.NullHandler())


@fleet.command(epilog="Example: caselinks fleet init --database postgresql://me@db.example/caselinks")
@_database_option
def init(database: str) -> None:
    """Create the tables in the database, unless they exist."""

    async def create() -> None:
        from datadog_caselinks.fleet import create_tables

        async with _connected(database) as app:
            await create_tables(app)

    _run(create())
    Screen().note("The database is ready.")


@fleet.command(epilog="Example: caselinks fleet submit examples/postmortem.csv")
@click.argument("file")
@with_file_options
@_database_option
@site_option
@_quiet_option
def submit(file: str, file_options: FileOptions, database: str, site: str | None, quiet: bool) -> None:
    """Submit the links in FILE to the workers; - is standard input.

    FILE is as for bulk. If a line is malformed, nothing is submitted. The number of the run is printed to
    standard output. Links that exist already are not created again.
    """
    screen = Screen(quiet=quiet)

    async def submit_file() -> None:
        from datadog_caselinks.fleet import submit_lines

        async with _connected(database) as app:
            link_site = resolve_site(site)
            lines = _well_formed(screen, read_link_file(stream, site=link_site, **file_options))
            submission = await submit_lines(app, lines, site=link_site, source=file)
        if submission.repeated:
            repeated = counted(submission.repeated, "line that repeats", "lines that repeat")
            screen.note(f"Skipped {repeated} another line.")
        links = counted(submission.links, "link")
        screen.note(f"{links} submitted as run {submission.run}, for workers on {link_site.api_url}")
        if not submission.links:
            screen.note(EMPTY)
        screen.data(str(submission.run))  # last, since it may fail

    with open_input(file) as stream:
        _run(submit_file())


async def _well_formed(
    screen: Screen, lines: AsyncIterator[LinkLine | MalformedLine]
) -> AsyncIterator[LinkLine]:
    """Yield the links of ``lines``. Raises :class:`LinkFileError` at the end if any line is malformed."""
    malformed = 0
    async for line in lines:
        if isinstance(line, LinkLine):
            yield line
        else:
            malformed += 1
            screen.problem(f"line {line.number}: {line.reason}")
    if malformed:
        lines_are = counted(malformed, "line is", "lines are")
        raise LinkFileError(
            f"nothing was submitted: {lines_are} malformed. Fix the problems above, then run the same "
            "command again"
        )


@fleet.command(epilog="Example: caselinks fleet worker --until-done")
@click.option("--until-done", is_flag=True, help="End once every link has an outcome.")
@_database_option
@site_option
@rate_option
@max_wait_option
@_quiet_option
@verbose_option
@click.pass_context
def worker(
    context: click.Context,
    until_done: bool,
    database: str,
    site: str | None,
    rate: Rate | None,
    max_wait: float,
    quiet: bool,
    verbose: bool,
) -> None:
    """Create submitted links until Ctrl-C or SIGTERM.

    Start any number of workers on any machine. They share the server's rate limit, take over the work of dead
    workers, and survive restarts of the database.

    A worker creates the links of its own site only.

    With --until-done, the exit status is 1 if a link of an unfinished run failed or is ambiguous, even if
    another worker processed it. Runs that were done before this worker started do not count.
    """
    screen = Screen(quiet=quiet)
    settings = Settings(site, False, "table", quiet, verbose, max_wait, rate)
    report = _WorkerReport(screen)

    def note_interruption() -> None:
        screen.close()
        screen.note(f"{report.summary} To continue, start a worker on any machine.")

    async def create() -> int:
        from datadog_caselinks.fleet import add_link_tasks, list_runs, work, work_until_done

        async with open_client(settings) as client, _connected(database) as app:
            add_link_tasks(app, client, on_outcome=report.add)
            runs = await list_runs(app)
            done_before = {each.run for each in runs if not each.pending}
            site = client.site.api_url
            screen.note(f"Creating links on {site} as they are submitted.")
            for each in runs:
                if each.pending and each.site != site:
                    screen.note(f"Run {each.run} waits for a worker with --site {each.site}")
            screen.start(None)
            await (work_until_done(app) if until_done else work(app))
            runs = [each for each in await list_runs(app) if each.site == site]
            return _failures(each for each in runs if each.run not in done_before)

    try:
        with logging_to(screen, settings):
            failures = _run(create(), note_interruption)
    except RunInterruptedError:
        note_interruption()
        raise
    finally:
        screen.close()
    screen.note(report.summary)
    if failures:
        links_are = counted(failures, "link of these runs is", "links of these runs are")
        is_option = context.get_parameter_source("database") is ParameterSource.COMMANDLINE
        same = " (with the same --database)" if is_option else ""  # the URL may contain a password
        screen.problem(
            f"{links_are} failed or ambiguous. To list them: caselinks fleet status --failed{same}"
        )
        context.exit(1)


class _WorkerReport:
    """The outcomes of one worker so far."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._done = 0
        self._failures: Counter[LinkStatus] = Counter()

    def add(self, run: int, number: int, outcome: Outcome) -> None:
        """Count ``outcome``, and show it if it is a failure."""
        self._done += 1
        if isinstance(outcome, Failed):
            self._failures[outcome.status] += 1
            self._screen.problem(f"run {run}, line {number}: {label(outcome.status)}: {outcome.error}")
        self._screen.advance(done=self._done, failed=self._failures.total())

    @property
    def summary(self) -> str:
        """The totals on one line."""
        failed, ambiguous = self._failures[LinkStatus.FAILED], self._failures[LinkStatus.AMBIGUOUS]
        links = counted(self._done - failed - ambiguous, "link")
        counts = f"{failed} failed, {ambiguous} ambiguous" if ambiguous else f"{failed} failed"
        return f"{links} created or already linked, {counts}."


def _failures(runs: Iterable[Run]) -> int:
    """Return the number of links of ``runs`` that failed or are ambiguous."""
    return sum(each.failed + each.ambiguous for each in runs)


@fleet.command(epilog="Example: caselinks fleet status --failed --output jsonl")
@click.option("--failed", is_flag=True, help="List failed and ambiguous links with their errors.")
@click.option("--follow", "-f", is_flag=True, help="Show the progress until every link has an outcome.")
@_run_option
@_database_option
@output_option
@_quiet_option
@click.pass_context
def status(
    context: click.Context,
    failed: bool,
    follow: bool,
    number: int | None,
    database: str,
    output: str,
    quiet: bool,
) -> None:
    """Show the progress of the runs.

    The exit status is 1 if a link failed or is ambiguous.
    """
    screen = Screen(quiet=quiet)

    async def show() -> int:
        from datadog_caselinks.fleet import failed_links, list_runs

        async with _connected(database) as app:
            if follow:
                await _follow(screen, lambda: list_runs(app, number))
            runs = await _list_runs(app, number)
            if is_for_people(output):
                if failed:
                    await _draw_links(failed_links(app, number))
                else:
                    _draw_runs(runs)
                return _report(runs)
            with records(screen, output) as writer:
                if failed:
                    async for link in failed_links(app, number):
                        writer.add(_link_record(link), _link_row(link))
                else:
                    for each in runs:
                        writer.add(_run_record(each), _run_row(each))
        return _report(runs)

    def _report(runs: list[Run]) -> int:
        for text in _held_up(runs):
            screen.problem(text)
        failures = _failures(runs)
        if not runs:
            screen.note("There are no runs. To submit the links in a file: caselinks fleet submit FILE")
        elif failed and not failures:
            screen.note("No link is failed or ambiguous.")
        return failures

    try:
        failures = _run(show())
    finally:
        screen.close()
    context.exit(1 if failures else 0)


async def _list_runs(app: Any, number: int | None) -> list[Run]:
    """Return all runs, or only the one with this number.

    Raises:
        UsageError: No run has this number.
    """
    from datadog_caselinks.fleet import list_runs

    runs = await list_runs(app, number)
    if number and not runs:
        raise click.UsageError(f"run {number} does not exist. To see all runs: caselinks fleet status")
    return runs


async def _follow(screen: Screen, fetch: Callable[[], Awaitable[list[Run]]]) -> None:
    """Show the progress of the runs until every link has an outcome."""
    runs = await fetch()
    screen.start(sum(each.links for each in runs), done=sum(each.done for each in runs))
    reported = set[str]()
    while any(each.pending for each in runs):
        screen.advance(done=sum(each.done for each in runs), failed=_failures(runs))
        for text in set(_held_up(runs)) - reported:
            reported.add(text)
            screen.problem(text)
        await asyncio.sleep(_SECONDS)
        runs = await fetch()
    screen.close()


def _held_up(runs: Iterable[Run]) -> Iterator[str]:
    for each in runs:
        for error in each.held_up_by:
            yield f"run {each.run} is held up and will be retried: {error}"


def _draw_runs(runs: Iterable[Run]) -> None:
    """Draw the runs as a table with a header, failures in red."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in _RUN_COLUMNS:
        table.add_column(name, justify="left" if name in ("file", "submitted", "left") else "right")
    for each in runs:
        table.add_row(
            str(each.run),
            Text(one_line(each.source)),
            _local(each.submitted_at),
            f"{each.done} of {each.links} done",
            *(str(each.created), str(each.already_linked)),
            *(Text(str(count), _FAILURE if count else "") for count in (each.failed, each.ambiguous)),
            time_left(each.pending, each.rate) if each.pending else "",
        )
    if table.rows:
        Console().print(table)


async def _draw_links(links: AsyncIterator[FleetLink]) -> None:
    """Draw the links that failed below a header, each with its status in red, and its error on a line."""
    console = Console(highlight=False)
    has_header = False
    async for link in links:
        if not has_header:
            has_header = True
            console.print(Text(_aligned("run", "line", "time", "status", "link"), "bold"))
        cells = (str(link.run), str(link.number), _local(link.at), link.status)
        row = Text(_aligned(*cells, one_line(_in_words(link))))
        row.highlight_words([link.status], _FAILURE)
        console.print(row, soft_wrap=True)
        console.print(Text(f"    {one_line(link.error, limit=1000)}"), soft_wrap=True)


def _aligned(run: str, line: str, time: str, status: str, link: str) -> str:
    return f"{run:>4}  {line:>6}  {time:<19}  {status:<9}  {link}"


def _local(at: datetime) -> str:
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S}"


def _run_row(run: Run) -> list[str]:
    counts = {
        LinkStatus.CREATED: run.created,
        LinkStatus.ALREADY_LINKED: run.already_linked,
        LinkStatus.FAILED: run.failed,
        LinkStatus.AMBIGUOUS: run.ambiguous,
    }
    return [
        f"run {run.run}",
        run.source,
        f"{run.done} of {run.links} done",
        ", ".join(f"{count} {label(status)}" for status, count in counts.items()),
        time_left(run.pending, run.rate) if run.pending else "",
    ]


def _run_record(run: Run) -> dict[str, object]:
    return {**asdict(run), "submitted_at": run.submitted_at.isoformat(), "seconds_left": run.seconds_left}


def _link_row(link: FleetLink) -> list[str]:
    return [f"run {link.run}", f"line {link.number}", link.status, _in_words(link), link.error]


def _in_words(link: FleetLink) -> str:
    return f"{link.parent} {relationship_in_words(link.relationship)} {link.child}"


def _link_record(link: FleetLink) -> dict[str, object]:
    return {**asdict(link), "at": link.at.isoformat()}


@fleet.command("retry-failed", epilog="Example: caselinks fleet retry-failed --run 3")
@_run_option
@_database_option
@_quiet_option
def retry(number: int | None, database: str, quiet: bool) -> None:
    """Submit failed and ambiguous links to the workers again."""
    screen = Screen(quiet=quiet)

    async def submit_again() -> int:
        from datadog_caselinks.fleet import retry_failed

        async with _connected(database) as app:
            await _list_runs(app, number)
            return await retry_failed(app, number)

    count = _run(submit_again())
    screen.note(f"{counted(count, 'link')} submitted again.")
