"""``caselinks bulk``: create the links in a file."""

from __future__ import annotations

import contextlib
import io
import math
import os
import stat
from collections.abc import AsyncIterator

import click

from datadog_caselinks.bulk.journal_file import files_of_journal
from datadog_caselinks.bulk.link_files import (
    LinkFileFormat,
    LinkLine,
    MalformedLine,
    count_links,
    format_of_name,
    read_link_file,
)
from datadog_caselinks.bulk.rejects import Rejects
from datadog_caselinks.calls.retry import BULK_PATIENCE, RetryPolicy
from datadog_caselinks.cli.dry_run import DryRun
from datadog_caselinks.cli.files import FileOptions, open_input, require_not_output, with_file_options
from datadog_caselinks.cli.groups import Command
from datadog_caselinks.cli.interruption import RunInterruptedError
from datadog_caselinks.cli.outcome_lines import OutcomeLines
from datadog_caselinks.cli.records import Records, is_for_people, records
from datadog_caselinks.cli.report import Report
from datadog_caselinks.cli.run import Settings, logging_to, open_client, run, with_settings
from datadog_caselinks.cli.screen import Screen
from datadog_caselinks.client import DEFAULT_CONCURRENCY, ClientOptions
from datadog_caselinks.values.errors import JournalError, LinkFileError, ParameterError
from datadog_caselinks.values.messages import counted, quoted
from datadog_caselinks.values.rate import Rate


@click.command(cls=Command, epilog="Example: caselinks bulk --sandbox examples/postmortem.csv")
@click.argument("file")
@with_file_options
@click.option(
    "--strict", is_flag=True, help="Read the whole file first; send nothing if a line is malformed."
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 1000),
    metavar="N",
    help=f"Maximum number of links in progress. Default: {DEFAULT_CONCURRENCY}, or with --rate "
    "the requests per second, if that is less.",
)
@click.option(
    "--attempts",
    type=click.IntRange(1),
    metavar="N",
    help=f"Maximum number of attempts per link. Default: {RetryPolicy().max_attempts}, or as many as fit in "
    f"{BULK_PATIENCE:g} s if the server returns 5xx. Waits for the rate limit do not count.",
)
@click.option(
    "--no-lookup",
    is_flag=True,
    help="Create each link without a lookup. This saves requests, but may create duplicates.",
)
@click.option("--dry-run", is_flag=True, help="Show what would happen to each line, and create nothing.")
@click.option(
    "--journal",
    metavar="FILE",
    help="Record each outcome in FILE. Run the same command again to continue an earlier run. "
    "caselinks undo FILE deletes what it created.",
)
@click.option(
    "--rejects",
    metavar="FILE",
    help="Write the lines that failed to FILE, each with its number and the reason. Fix them, and run FILE.",
)
@with_settings(
    quiet="Show failures and the summary only.",
    verbose="Also show a line for each link on a terminal, and each retry and wait for the rate limit.",
)
@click.pass_context
def bulk(
    context: click.Context,
    file: str,
    file_options: FileOptions,
    strict: bool,
    concurrency: int | None,
    attempts: int | None,
    no_lookup: bool,
    dry_run: bool,
    journal: str | None,
    rejects: str | None,
    settings: Settings,
) -> None:
    """Create the links in FILE that do not exist yet; - is standard input.

    \b
    FILE is CSV with the columns
      parent,relationship,child
    or JSON Lines with the same keys, or YAML as for plan. Parent and child are case
    keys, UUIDs, URLs of cases or incidents, incident:123, page:UUID or
    conversation:UUID. The optional columns parent_type and child_type are the types
    of plain UUIDs; the default is CASE.

    Without a terminal the columns, separated by tabs, are: sign and link, id of the
    link, and outcome. With --dry-run the number of the line is before them.

    The exit status is 0 if every link is created or already linked, 1 if some are
    not, 2 if nothing was sent, and above 128 if a signal ended the run.
    """
    screen = Screen(quiet=settings.quiet)
    policy = (
        RetryPolicy(max_wait=settings.max_wait, patience=BULK_PATIENCE)
        if attempts is None
        else RetryPolicy(max_wait=settings.max_wait, max_attempts=attempts)
    )
    options = ClientOptions(max_concurrency=concurrency or default_concurrency(settings.rate), retry=policy)
    with (
        open_input(file) as stream,
        records(screen, settings.output) as writer,
        logging_to(screen, settings),
    ):
        outcomes = _outcome_lines(screen, writer, settings, has_lines=dry_run)
        if dry_run:
            trial = DryRun(screen, outcomes, strict, looks_up=not no_lookup)
            try:
                run(_try_all(trial, stream, settings, file_options, journal, options))
            finally:
                screen.close()
                trial.summarize()
            context.exit(trial.exit_status)
        require_not_output("--journal", journal)
        require_not_output("--rejects", rejects)
        rejected = _rejects(rejects, file, stream, file_options, journal) if rejects else None
        report = Report(
            screen,
            outcomes,
            journal,
            rejected,
            file=file,
            max_wait=settings.max_wait,
            site_option=settings.site,
            # Not if the server ends with the command, or the output is a record of the run itself.
            has_undo_hint=not settings.in_sandbox and (journal is not None or settings.output == "table"),
        )
        work = _create_all(
            report,
            stream,
            settings,
            file_options=file_options,
            strict=strict,
            ensure=not no_lookup,
            journal=journal,
            rejects=rejected,
            options=options,
        )
        try:
            run(work)
        except RunInterruptedError as interrupt:
            report.interruption = interrupt
        finally:
            report.release()
            screen.close()
    report.summarize()
    context.exit(report.exit_status)


def default_concurrency(rate: Rate | None) -> int:
    """Return how many links to have in progress.

    With a low ``rate``, a large number would all be looked up before the first link is created.
    """
    if rate is None:
        return DEFAULT_CONCURRENCY
    return min(DEFAULT_CONCURRENCY, math.ceil(rate.requests / rate.seconds))


def _outcome_lines(screen: Screen, writer: Records, settings: Settings, *, has_lines: bool) -> OutcomeLines:
    """Return the lines that show the outcomes. With a progress bar, they need ``--verbose``."""
    is_table = settings.output == "table"
    has_lines |= settings.verbose or not (is_for_people(settings.output) and screen.has_bar)
    return OutcomeLines(
        screen,
        None if is_table else writer,
        has_lines=is_table and has_lines and not settings.quiet,
    )


def _rejects(
    path: str, file: str, stream: io.RawIOBase, file_options: FileOptions, journal: str | None
) -> Rejects:
    """Return the file of rejected lines. Its suffix must not contradict the format of ``file``."""
    formats = {LinkFileFormat(file_options["format"]) if file_options["format"] else format_of_name(file)}
    formats.add(format_of_name(path))
    if len(formats - {None}) > 1:
        raise ParameterError(f"--rejects must have the suffix of the same format as FILE, not {quoted(path)}")
    rejects = Rejects(path)
    for other in (stream.fileno(), *(files_of_journal(journal) if journal else ())):
        rejects.require_not(other)
    return rejects


async def _try_all(
    trial: DryRun,
    stream: io.RawIOBase,
    settings: Settings,
    file_options: FileOptions,
    journal: str | None,
    options: ClientOptions,
) -> None:
    async with open_client(settings, **options) as client:
        lines = read_link_file(stream, site=client.site, **file_options)
        await trial.run(client, lines, total=_count(stream, file_options), journal=journal)


def _count(stream: io.RawIOBase, file_options: FileOptions) -> int | None:
    """Return the number of links in a file, or ``None`` for a pipe, which can be read only once."""
    is_regular = stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    return count_links(stream, **file_options) if is_regular else None


async def _create_all(
    report: Report,
    stream: io.RawIOBase,
    settings: Settings,
    *,
    file_options: FileOptions,
    strict: bool,
    ensure: bool,
    journal: str | None,
    rejects: Rejects | None,
    options: ClientOptions,
) -> None:
    async with contextlib.AsyncExitStack() as opened:
        client = await opened.enter_async_context(open_client(settings, **options))
        if rejects:
            opened.enter_context(rejects)
        report.start(_count(stream, file_options), client.site.api_url)
        lines: AsyncIterator[LinkLine | MalformedLine] = read_link_file(
            stream, site=client.site, **file_options
        )
        links = report.links(await _require_well_formed(report, lines) if strict else lines)
        outcomes = client.create_links(links, ensure=ensure, journal=journal, proceed=report.proceed)
        async with contextlib.aclosing(outcomes):
            try:
                async for outcome in outcomes:
                    report.add(outcome)
            except JournalError as error:
                if report.is_blank:
                    raise
                report.stop(error, str(error))


async def _require_well_formed(
    report: Report, lines: AsyncIterator[LinkLine | MalformedLine]
) -> AsyncIterator[LinkLine | MalformedLine]:
    """Read all of ``lines``. Raises :class:`LinkFileError` if any is malformed."""
    read = [line async for line in lines]
    for line in read:
        if isinstance(line, MalformedLine):
            report.add_malformed(line)
    if report.malformed:
        raise LinkFileError(
            f"nothing was sent because of --strict: {counted(report.malformed, 'malformed line')}"
        )
    return _replay(read)


async def _replay(lines: list[LinkLine | MalformedLine]) -> AsyncIterator[LinkLine | MalformedLine]:
    for line in lines:
        yield line
