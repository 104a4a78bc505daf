"""``caselinks bulk``: the links of a file, one outcome a line."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import os
import signal
import stat
from collections.abc import AsyncIterator

import click

from datadog_caselinks.cli.report import Report, counted
from datadog_caselinks.cli.screen import FirstOfAKind, Screen
from datadog_caselinks.client import DEFAULT_CONCURRENCY, CaseLinksClient, ClientOptions
from datadog_caselinks.errors import JournalError, LinkFileError
from datadog_caselinks.link_files import LinkLine, MalformedLine, count_links, read_link_file
from datadog_caselinks.retry import RetryPolicy
from datadog_caselinks.sandbox import Sandbox


@click.command(epilog="Example: caselinks bulk --sandbox examples/postmortem.csv")
@click.argument("file")
@click.option("--sandbox", "in_sandbox", is_flag=True, help="Link in a local Datadog that ends with the run.")
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
@click.option("--quiet", "-q", is_flag=True, help="Show failures and the summary only.")
@click.pass_context
def bulk(
    context: click.Context,
    file: str,
    in_sandbox: bool,
    strict: bool,
    concurrency: int,
    attempts: int,
    max_wait: float,
    ensure: bool,
    journal: str | None,
    quiet: bool,
) -> None:
    """Create the links that FILE lists; - is standard input.

    \b
    FILE is CSV with the columns
      parent_id,parent_type,relationship,child_id,child_type
    or JSON Lines with the same keys. The types default to CASE.

    \b
    Exit status:
      0    every link was created, or was there already
      1    some were not
      2    nothing was sent: usage, configuration, or no such file of links
      130  interrupted by Ctrl-C; 143 by SIGTERM, 129 by SIGHUP
    """
    screen = Screen(quiet=quiet)
    logger = logging.getLogger("datadog_caselinks")
    logger.setLevel(logging.INFO)
    logger.addHandler(FirstOfAKind(screen))
    report = Report(screen, journal)
    policy = RetryPolicy(max_attempts=attempts, max_wait=max_wait)
    options = ClientOptions(max_concurrency=concurrency, retry=policy)
    with _opened(file) as stream:
        try:
            asyncio.run(
                _create_all(
                    report,
                    stream,
                    in_sandbox=in_sandbox,
                    strict=strict,
                    ensure=ensure,
                    journal=journal,
                    options=options,
                )
            )
        except (KeyboardInterrupt, asyncio.CancelledError):
            report.ended_by = report.ended_by or signal.SIGINT
        finally:
            screen.close()
    report.summarize()
    context.exit(report.exit_status)


def _opened(file: str) -> contextlib.AbstractContextManager[io.RawIOBase]:
    if file == "-":
        return io.FileIO(0, closefd=False)
    return open(file, "rb", buffering=0)


async def _create_all(
    report: Report,
    stream: io.RawIOBase,
    *,
    in_sandbox: bool,
    strict: bool,
    ensure: bool,
    journal: str | None,
    options: ClientOptions,
) -> None:
    _end_at_signals(report)
    is_regular = stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    async with _client(in_sandbox, options) as links:
        report.start(count_links(stream) if is_regular else None)
        lines: AsyncIterator[LinkLine | MalformedLine] = read_link_file(stream)
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


def _end_at_signals(report: Report) -> None:
    """Let what ends services end this run as Ctrl-C does."""
    task = asyncio.current_task()
    assert task is not None

    def end(by: int) -> None:
        report.ended_by = by
        task.cancel()

    for by in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(by) is signal.SIG_IGN:  # as nohup leaves it
            continue
        asyncio.get_running_loop().add_signal_handler(by, end, by)


@contextlib.asynccontextmanager
async def _client(in_sandbox: bool, options: ClientOptions) -> AsyncIterator[CaseLinksClient]:
    if in_sandbox:
        async with (
            Sandbox() as sandbox,
            CaseLinksClient(sandbox.site, sandbox.credentials, **options) as links,
        ):
            yield links
    else:
        async with CaseLinksClient.from_env(**options) as links:
            yield links


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
