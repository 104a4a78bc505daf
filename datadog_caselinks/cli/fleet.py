"""``caselinks fleet``: the links of a file, created by workers on many machines, by way of a PostgreSQL."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Final

import click
from attrs import asdict

from datadog_caselinks.bulk.create_links import Failed, Outcome
from datadog_caselinks.bulk.link_files import LinkLine, MalformedLine, read_link_file
from datadog_caselinks.cli.files import format_option, opened
from datadog_caselinks.cli.interruption import RunInterruptedError
from datadog_caselinks.cli.records import records
from datadog_caselinks.cli.run import (
    Settings,
    client,
    logging_to,
    output_option,
    run,
    site_of,
    site_option,
    verbose_option,
)
from datadog_caselinks.cli.screen import Screen, time_left
from datadog_caselinks.errors import AmbiguousResultError, LinkFileError
from datadog_caselinks.fleet import (
    FleetLink,
    Run,
    add_link_tasks,
    connected,
    create_tables,
    failed_links,
    list_runs,
    retry_failed,
    submit_lines,
    work,
    work_until_done,
)
from datadog_caselinks.messages import counted

_SECONDS: Final = 1.0
"""Between two looks of ``status --follow``."""

_LIBRARIES: Final = ("procrastinate", "psycopg", "asyncio")
"""Who logs with tracebacks what we tell in a line, or outlive."""

_RUN_WIDTHS: Final = (6, 24, 18, 55, 0)
_LINK_WIDTHS: Final = (6, 8, 7, 81, 0)

_database_option = click.option(
    "--database",
    metavar="URL",
    envvar="CASELINKS_DATABASE",
    default="",
    help="postgresql://USER@HOST/NAME. Default: CASELINKS_DATABASE, or what PGHOST and the like say.",
)
_run_option = click.option("--run", "number", type=click.IntRange(1), metavar="N", help="That run alone.")
_quiet_option = click.option("--quiet", "-q", is_flag=True, help="Show results and problems only.")


@click.group()
def fleet() -> None:
    """Let many machines create the links of a file, by way of a PostgreSQL.

    \b
    Once:             caselinks fleet init
    For each file:    caselinks fleet submit FILE
    On each machine:  caselinks fleet worker
    Anywhere:         caselinks fleet status --follow

    Whoever submits needs no keys; the workers take theirs from the environment. Set CASELINKS_DATABASE, and
    keep the password out of it by PGPASSWORD or a password file.
    """
    for name in _LIBRARIES:
        logging.getLogger(name).addHandler(logging.NullHandler())


@fleet.command(epilog="Example: caselinks fleet init --database postgresql://me@db.example/caselinks")
@_database_option
def init(database: str) -> None:
    """Create the tables in the database, where they are not there yet."""

    async def create() -> None:
        async with connected(database) as app:
            await create_tables(app)

    run(create())
    Screen().note("The database has the tables of a fleet.")


@fleet.command(epilog="Example: caselinks fleet submit examples/postmortem.csv")
@click.argument("file")
@format_option
@_database_option
@site_option
@_quiet_option
def submit(file: str, format: str | None, database: str, site: str | None, quiet: bool) -> None:
    """Hand the links that FILE lists to the workers; - is standard input.

    FILE is as for bulk. If a line is malformed nothing is submitted. Standard output is the number of the
    run. A link that is there already is found, and not made again.
    """
    screen = Screen(quiet=quiet)

    async def hand_over() -> None:
        async with connected(database) as app:
            belong_to = site_of(site)
            lines = _well_formed(screen, read_link_file(stream, format=format, site=belong_to))
            done = await submit_lines(app, lines, site=belong_to, source=file)
        screen.data(str(done.run))
        if done.repeated:
            screen.note(
                f"Left out: {counted(done.repeated, 'line that repeats', 'lines that repeat')} another."
            )
        screen.note(f"{counted(done.links, 'link')} submitted as run {done.run}.")

    with opened(file) as stream:
        run(hand_over())


async def _well_formed(
    screen: Screen, lines: AsyncIterator[LinkLine | MalformedLine]
) -> AsyncIterator[LinkLine]:
    """``lines``, of which each malformed one is told; at the end it raises if there were any."""
    malformed = 0
    async for line in lines:
        if isinstance(line, LinkLine):
            yield line
        else:
            malformed += 1
            screen.problem(f"line {line.number}: {line.reason}")
    if malformed:
        raise LinkFileError(f"nothing was submitted: {counted(malformed, 'malformed line')}")


@fleet.command(epilog="Example: caselinks fleet worker --until-done")
@click.option("--until-done", is_flag=True, help="End once every link has an outcome.")
@_database_option
@site_option
@_quiet_option
@verbose_option
def worker(until_done: bool, database: str, site: str | None, quiet: bool, verbose: bool) -> None:
    """Create the links that are submitted, until Ctrl-C or SIGTERM.

    Start as many as you like, where you like: they share the server's rate limit, and what a dead one had in
    hand the others take up. Restarts of the database are outlived.
    """
    screen = Screen(quiet=quiet)
    settings = Settings(site, in_sandbox=False, output="table", quiet=quiet, verbose=verbose)
    told = _Told(screen)

    async def create() -> None:
        async with client(settings) as links, connected(database) as app:
            add_link_tasks(app, links, tell=told.add)
            screen.note(f"Creating links on {links.site.api_url} as they are submitted.")
            screen.start(None)
            await (work_until_done(app) if until_done else work(app))

    try:
        with logging_to(screen, settings):
            run(create())
    except RunInterruptedError:
        screen.note(f"{told.summary} What is left waits: start a worker again, on any machine.")
        raise
    finally:
        screen.close()
    screen.note(told.summary)


class _Told:
    """What one worker did so far, as it tells."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._done = self._failed = 0

    def add(self, run: int, number: int, outcome: Outcome) -> None:
        """Count ``outcome``, and tell it if it is none that was wanted."""
        self._done += 1
        if isinstance(outcome, Failed):
            self._failed += 1
            perhaps = "perhaps" if isinstance(outcome.error, AmbiguousResultError) else "not"
            self._screen.problem(f"run {run}, line {number}: {perhaps} created: {outcome.error}")
        self._screen.advance(done=self._done, failed=self._failed)

    @property
    def summary(self) -> str:
        """All of it in a line."""
        return f"{counted(self._done - self._failed, 'link')} done here, {self._failed} failed."


@fleet.command(epilog="Example: caselinks fleet status --failed --output jsonl")
@click.option("--failed", is_flag=True, help="List the links that failed, each with its error.")
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
    """Show how far the runs are.

    The exit status is 1 if a link failed.
    """
    screen = Screen(quiet=quiet)

    async def show() -> int:
        async with connected(database) as app:
            if follow:
                await _follow(screen, lambda: list_runs(app, number))
            runs = await list_runs(app, number)
            if number and not runs:
                raise click.UsageError(f"there is no run {number}")
            with records(screen, output, _LINK_WIDTHS if failed else _RUN_WIDTHS) as shown:
                if failed:
                    async for link in failed_links(app, number):
                        shown.add(_link_record(link), _link_row(link))
                else:
                    for each in runs:
                        shown.add(_run_record(each), _run_row(each))
        for text in _held_up(runs):
            screen.problem(text)
        return sum(each.not_made for each in runs)

    try:
        not_made = run(show())
    finally:
        screen.close()
    context.exit(1 if not_made else 0)


async def _follow(screen: Screen, look: Callable[[], Awaitable[list[Run]]]) -> None:
    """Show the progress of the runs until every link has an outcome."""
    runs = await look()
    screen.start(sum(each.links for each in runs), done=sum(each.done for each in runs))
    told = set[str]()
    while any(each.pending for each in runs):
        screen.advance(done=sum(each.done for each in runs), failed=sum(each.not_made for each in runs))
        for text in set(_held_up(runs)) - told:
            told.add(text)
            screen.problem(text)
        await asyncio.sleep(_SECONDS)
        runs = await look()
    screen.close()


def _held_up(runs: Iterable[Run]) -> Iterator[str]:
    for each in runs:
        for error in each.held_up_by:
            yield f"run {each.run} is held up, and is tried again: {error}"


def _run_row(run: Run) -> list[str]:
    counts = [
        (run.created, "created"),
        (run.already_linked, "already linked"),
        (run.failed, "failed"),
        (run.ambiguous, "perhaps created"),
    ]
    return [
        f"run {run.run}",
        run.source,
        f"{run.done} of {run.links} done",
        ", ".join(f"{count} {kind}" for count, kind in counts),
        time_left(run.pending, run.rate) if run.pending else "",
    ]


def _run_record(run: Run) -> dict[str, object]:
    return {**asdict(run), "submitted_at": run.submitted_at.isoformat(), "seconds_left": run.seconds_left}


def _link_row(link: FleetLink) -> list[str]:
    text = f"{link.parent} {link.relationship} {link.child}"
    return [f"run {link.run}", f"line {link.number}", link.state, text, link.error]


def _link_record(link: FleetLink) -> dict[str, object]:
    return {**asdict(link), "at": link.at.isoformat()}


@fleet.command("retry-failed", epilog="Example: caselinks fleet retry-failed --run 3")
@_run_option
@_database_option
@_quiet_option
def again(number: int | None, database: str, quiet: bool) -> None:
    """Hand the links that failed, or are ambiguous, to the workers once more."""
    screen = Screen(quiet=quiet)

    async def hand_over() -> int:
        async with connected(database) as app:
            return await retry_failed(app, number)

    count = run(hand_over())
    screen.note(f"{counted(count, 'link')} handed over once more.")
