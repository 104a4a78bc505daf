"""``caselinks bulk``: the links of a file, one outcome a line."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import AsyncIterator

import click

from datadog_caselinks.bulk.link_files import LinkLine, MalformedLine, count_links, read_link_file
from datadog_caselinks.cli.files import format_option, opened
from datadog_caselinks.cli.interruption import RunInterruptedError
from datadog_caselinks.cli.records import records
from datadog_caselinks.cli.report import Report
from datadog_caselinks.cli.run import Settings, client, logging_to, run, with_settings
from datadog_caselinks.cli.screen import Screen
from datadog_caselinks.client import DEFAULT_CONCURRENCY, ClientOptions
from datadog_caselinks.errors import JournalError, LinkFileError
from datadog_caselinks.messages import counted
from datadog_caselinks.retry import RetryPolicy


@click.command(epilog="Example: caselinks bulk --sandbox examples/postmortem.csv")
@click.argument("file")
@format_option
@click.option(
    "--strict", is_flag=True, help="Read the whole file first; send nothing if a line is malformed."
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 1000),
    default=DEFAULT_CONCURRENCY,
    show_default=True,
    help="Requests under way at once.",
)
@click.option(
    "--attempts",
    type=click.IntRange(1),
    default=RetryPolicy().max_attempts,
    show_default=True,
    help="How often a link is tried. Being over the rate limit does not count.",
)
@click.option(
    "--max-wait",
    type=click.FloatRange(0),
    default=RetryPolicy().max_wait,
    show_default=True,
    help="Seconds to wait for the rate limit, or as the server asks; where it is longer the run ends.",
)
@click.option("--ensure", is_flag=True, help="Create no link that is there already: look for each first.")
@click.option(
    "--journal",
    metavar="FILE",
    help="Keep in FILE what became of each link. The same command then goes on where an earlier one ended.",
)
@with_settings(quiet="Show failures and the summary only.")
@click.pass_context
def bulk(
    context: click.Context,
    file: str,
    format: str | None,
    strict: bool,
    concurrency: int,
    attempts: int,
    max_wait: float,
    ensure: bool,
    journal: str | None,
    settings: Settings,
) -> None:
    """Create the links that FILE lists; - is standard input.

    \b
    FILE is CSV with the columns
      parent,relationship,child
    or JSON Lines with the same keys, or YAML as for plan. The ends are case keys,
    UUIDs, addresses of cases, or incident:UUID, page:UUID, conversation:UUID. The
    columns parent_type and child_type may tell what a UUID is of; the default is
    CASE.

    The exit status is 0 if every link was created or was there already, 1 if some
    were not, 2 if nothing was sent, and above 128 if a signal ended the run.
    """
    screen = Screen(quiet=settings.quiet)
    policy = RetryPolicy(max_attempts=attempts, max_wait=max_wait)
    options = ClientOptions(max_concurrency=concurrency, retry=policy)
    with (
        opened(file) as stream,
        records(screen, settings.output) as shown,
        logging_to(screen, settings),
    ):
        report = Report(screen, None if settings.quiet else shown, journal)
        work = _create_all(
            report,
            stream,
            settings,
            format=format,
            strict=strict,
            ensure=ensure,
            journal=journal,
            options=options,
        )
        try:
            run(work)
        except RunInterruptedError as interrupt:
            report.interruption = interrupt
        finally:
            screen.close()
    report.summarize()
    context.exit(report.exit_status)


async def _create_all(
    report: Report,
    stream: io.RawIOBase,
    settings: Settings,
    *,
    format: str | None,
    strict: bool,
    ensure: bool,
    journal: str | None,
    options: ClientOptions,
) -> None:
    is_regular = stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    async with client(settings, **options) as links:
        report.start(count_links(stream, format=format) if is_regular else None)
        lines: AsyncIterator[LinkLine | MalformedLine] = read_link_file(
            stream, format=format, site=links.site
        )
        wanted = report.wanted(await _all_well_formed(report, lines) if strict else lines)
        outcomes = links.create_links(wanted, ensure=ensure, journal=journal)
        async with contextlib.aclosing(outcomes):
            try:
                async for outcome in outcomes:
                    report.add(outcome)
            except JournalError as error:
                if report.is_blank:
                    raise
                report.stop(error, str(error))


async def _all_well_formed(
    report: Report, lines: AsyncIterator[LinkLine | MalformedLine]
) -> AsyncIterator[LinkLine | MalformedLine]:
    """``lines``, once they have all been read and found to be links."""
    read = [line async for line in lines]
    for line in read:
        if isinstance(line, MalformedLine):
            report.add(line)
    if report.malformed:
        raise LinkFileError(
            f"nothing was sent, as --strict demands: {counted(report.malformed, 'malformed line')}"
        )
    return _replay(read)


async def _replay(lines: list[LinkLine | MalformedLine]) -> AsyncIterator[LinkLine | MalformedLine]:
    for line in lines:
        yield line
