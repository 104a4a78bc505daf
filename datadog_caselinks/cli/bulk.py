"""``caselinks bulk``: the links of a file, one outcome a line."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import os
import signal
import stat
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable

import click
from attrs import define, field

from datadog_caselinks.bulk import Created, Failed, Outcome
from datadog_caselinks.cli.screen import FirstRetry, Screen
from datadog_caselinks.client import DEFAULT_CONCURRENCY, CaseLinksClient, ClientOptions
from datadog_caselinks.errors import (
    AmbiguousResultError,
    AuthenticationError,
    CaseLinksError,
    ConnectError,
    LinkFileError,
    PermissionDeniedError,
)
from datadog_caselinks.link_files import LinkLine, MalformedLine, count_links, read_link_file
from datadog_caselinks.models import NewCaseLink
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
    help="How often a link is tried that was surely not made. Being over the rate limit does not count.",
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
    quiet: bool,
) -> None:
    """Create the links that FILE lists; - is standard input.

    \b
    FILE is CSV with the columns
      parent_id,parent_type,relationship,child_id,child_type
    or JSON Lines with the same keys. The types default to CASE.

    \b
    Exit status:
      0    every link was created
      1    some were not
      2    nothing was sent: usage, configuration, or no such file of links
      130  interrupted by Ctrl-C; 143 by SIGTERM, 129 by SIGHUP
    """
    screen = Screen(quiet=quiet)
    logger = logging.getLogger("datadog_caselinks")
    logger.setLevel(logging.INFO)
    logger.addHandler(FirstRetry(screen))
    run = _Run(screen)
    options = ClientOptions(max_concurrency=concurrency, retry=RetryPolicy(max_attempts=attempts))
    with _opened(file) as stream:
        try:
            asyncio.run(_create_all(run, stream, in_sandbox=in_sandbox, strict=strict, options=options))
        except (KeyboardInterrupt, asyncio.CancelledError):
            run.ended_by = run.ended_by or signal.SIGINT
        finally:
            screen.close()
    run.summarize()
    context.exit(run.exit_status)


def _opened(file: str) -> contextlib.AbstractContextManager[io.RawIOBase]:
    if file == "-":
        return io.FileIO(0, closefd=False)
    return open(file, "rb", buffering=0)


async def _create_all(
    run: _Run, stream: io.RawIOBase, *, in_sandbox: bool, strict: bool, options: ClientOptions
) -> None:
    task = asyncio.current_task()
    assert task is not None
    for end in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(end, run.end, end, task)
    is_regular = stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    async with _client(in_sandbox, options) as links:
        run.start(count_links(stream) if is_regular else None)
        lines: AsyncIterator[LinkLine | MalformedLine] = read_link_file(stream)
        wanted = run.wanted(await _all_well_formed(run, lines) if strict else lines)
        async with contextlib.aclosing(links.create_links(wanted)) as outcomes:
            async for outcome in outcomes:
                run.report(outcome)


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
    run: _Run, lines: AsyncIterator[LinkLine | MalformedLine]
) -> AsyncIterator[LinkLine | MalformedLine]:
    """``lines``, once they have all been read and found to be links."""
    read = [line async for line in lines]
    for line in read:
        if isinstance(line, MalformedLine):
            run.report(line)
    if run.malformed:
        raise LinkFileError(
            f"nothing was sent, as --strict demands: {_counted(run.malformed, 'malformed line')}"
        )
    return _replay(read)


async def _replay(lines: list[LinkLine | MalformedLine]) -> AsyncIterator[LinkLine | MalformedLine]:
    for line in lines:
        yield line


@define
class _Run:
    """What has come of the lines of a file so far, and what of that is shown."""

    _screen: Screen
    malformed: int = field(default=0, init=False)
    ended_by: int = field(default=0, init=False)  # a signal
    _created: Counter[str] = field(factory=Counter, init=False)  # by relationship
    _failed: int = field(default=0, init=False)
    _unclear: int = field(default=0, init=False)
    _stopped_by: Exception | None = field(default=None, init=False)
    _under_way: dict[int, int] = field(factory=dict, init=False)  # line numbers, by the index of the link
    _failed_alike: list[int] = field(factory=list, init=False)  # lines that what stopped the run failed too
    _began: float = field(factory=time.monotonic, init=False)

    def end(self, by: int, task: asyncio.Task[None]) -> None:
        """A signal ends the run."""
        self.ended_by = by
        task.cancel()

    def start(self, total: int | None) -> None:
        """Begin with a file of ``total`` lines, if that is known."""
        self._screen.start(total)

    async def wanted(self, lines: AsyncIterator[LinkLine | MalformedLine]) -> AsyncIterator[NewCaseLink]:
        """The links of ``lines``, until it is known that all further ones would fail."""
        index = 0
        try:
            async for line in lines:
                if self._stopped_by:
                    return
                if isinstance(line, MalformedLine):
                    self.report(line)
                    continue
                self._under_way[index] = line.number
                index += 1
                yield line.new
        except OSError as error:
            self._stop(error, f"the file cannot be read further: {error}")

    def report(self, outcome: Outcome | MalformedLine) -> None:
        """Count ``outcome``, and show it."""
        match outcome:
            case Created():
                self._created[outcome.link.relationship] += 1
                number = self._under_way.pop(outcome.index)
                self._tell(f"line {number}: created {outcome.link.id}: {outcome.link}")
            case Failed(error=AmbiguousResultError()):
                self._unclear += 1
                number = self._under_way.pop(outcome.index)
                self._screen.problem(f"line {number}: perhaps created: {outcome.error}")
            case Failed():
                self._failed += 1
                self._fail(self._under_way.pop(outcome.index), outcome.error)
            case _:
                self.malformed += 1
                self._screen.problem(f"line {outcome.number}: {outcome.reason}")
        failed = self._failed + self._unclear + self.malformed
        self._screen.advance(done=self._created.total() + failed, failed=failed, seconds=self._seconds)

    def _tell(self, line: str) -> None:
        try:
            self._screen.data(line)
        except OSError as error:
            self._screen.problem(line)
            self._stop(error, f"standard output cannot be written: {error}")

    def _fail(self, number: int, error: CaseLinksError) -> None:
        message = f"line {number}: not created: {error}"
        if not self._concerns_all_links(error):
            self._screen.problem(message)
        elif self._stopped_by:
            self._failed_alike.append(number)
        else:
            self._stop(error, message)

    def _concerns_all_links(self, error: CaseLinksError) -> bool:
        if isinstance(error, PermissionDeniedError):
            return not self._created  # else it is only this case that may not be linked
        return isinstance(error, AuthenticationError | ConnectError)

    def _stop(self, error: Exception, message: str) -> None:
        """Take no further lines. Those under way may fail like this one, so it alone is shown."""
        if not self._stopped_by:
            self._stopped_by = error
            self._screen.problem(message)

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._began

    def summarize(self) -> None:
        """Say what was done, what was not, and how to go on."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in self._created.most_common())
        counts = [f"{_counted(self._created.total(), 'link')} created{f' ({kinds})' if kinds else ''}"]
        if self._unclear:
            counts.append(f"{self._unclear} perhaps created")
        if self._failed:
            counts.append(f"{self._failed} not created")
        if self.malformed:
            counts.append(f"{_counted(self.malformed, 'line')} malformed")
        self._screen.note(f"{', '.join(counts)}, in {self._seconds:.1f} s.")
        if self._stopped_by:
            alike = f", like lines {_listed(self._failed_alike)}" if self._failed_alike else ""
            self._screen.problem(f"Stopped there{alike}: no line after that was sent.")
        if self.ended_by:
            lines = _listed(self._under_way.values())
            told = f"Under way, so perhaps created: lines {lines}." if lines else "Nothing was under way."
            self._screen.problem(f"Interrupted. {told}")
        if self.exit_status and (self._created or self._unclear or self._under_way):
            self._screen.note(
                "Before you run the file again, take out the lines that were created, "
                "and those perhaps created that are there."
            )

    @property
    def exit_status(self) -> int:
        """As the help of the command lists them."""
        if self.ended_by:
            return 128 + self.ended_by  # as shells report a program that a signal ended
        return 1 if self._failed or self._unclear or self.malformed or self._stopped_by else 0


def _listed(numbers: Iterable[int]) -> str:
    """``numbers`` in order, those in a row as a range: "2-5, 7"."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ", ".join(f"{first}-{last}" if first < last else f"{first}" for first, last in ranges)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
