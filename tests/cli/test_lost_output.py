"""The command when the reader of its output goes away: a pager, ``| head``, a log collector, a full disk."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from datadog_caselinks.sandbox import Sandbox
from tests.cli.program import Started, environment, pointing_at, start_on
from tests.support.ids import some_id
from tests.support.tcp import unused_port
from tests.support.waiting import MAX_SECONDS, until

LINES = [f"{some_id(1)},{'blocks' if number % 10 else 'bloks'},{some_id(number)}" for number in range(2, 202)]
MALFORMED = 20


def closed_pipe() -> int:
    """Return the writing end of a pipe without a reader, as after ``| head``, or ``| less`` and ``q``."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def full_disk() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def hung_up_terminal() -> int:
    """Return a terminal whose window is closed."""
    ours, theirs = pty.openpty()
    os.close(ours)
    return theirs


GONE = (closed_pipe, full_disk, hung_up_terminal)


@contextlib.contextmanager
def opened(*descriptors: int) -> Iterator[None]:
    """Close ``descriptors`` at the end."""
    try:
        yield
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


async def start_with(out: int, err: int, variables: dict[str, str], *arguments: str) -> Started:
    """Start the command on these streams, which are closed here, and with an empty standard input."""
    empty = os.open(os.devnull, os.O_RDONLY)
    with opened(*{empty, out, err}):
        return await start_on((empty, out, err), variables, *arguments)


# Its standard output is a pipe that is read only while the program waits for room.
FILLS_A_PIPE = """
import os, select, sys

reading, writing = os.pipe()
os.dup2(writing, 1)
os.set_blocking(1, False)

from datadog_caselinks.cli import streams

streams.prepare()
wait, read = select.select, bytearray()

def drain(*arguments):
    read.extend(os.read(reading, 1_000_000))
    return wait(*arguments)

select.select = drain
print("x" * 1_000_000, flush=True)
read.extend(os.read(reading, 1_000_000))
sys.stderr.write(str(len(read)))
"""


async def status_with(out: int, err: int, variables: dict[str, str], *arguments: str) -> int:
    return await (await start_with(out, err, variables, *arguments)).wait()


async def accepts(port: int) -> bool:
    """Return whether a server accepts connections at ``port``."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    writer.close()
    return True


def null() -> int:
    return os.open(os.devnull, os.O_WRONLY)


def same(path: Path, *lines: str) -> str:
    path.write_text("\n".join(["parent,relationship,child", *lines, ""]))
    return str(path)


@pytest.fixture
def file(tmp_path: Path) -> str:
    """Write a file with malformed lines, which the command reports on standard error."""
    return same(tmp_path / "links.csv", *LINES)


@pytest.fixture
def good(tmp_path: Path) -> str:
    return same(tmp_path / "good.csv", *(line for line in LINES if "blocks" in line))


class TestStandardError:
    @pytest.mark.parametrize("gone", GONE)
    async def test_bulk_creates_every_link(
        self, sandbox: Sandbox, file: str, gone: Callable[[], int]
    ) -> None:
        """A run with a closed standard error creates every link, and its status reports the failures."""
        status = await status_with(null(), gone(), pointing_at(sandbox), "bulk", file, "--verbose")
        assert (status, len(sandbox.links)) == (1, len(LINES) - MALFORMED)

    @pytest.mark.parametrize("gone", GONE)
    async def test_a_lost_summary_is_not_a_failure(
        self, sandbox: Sandbox, good: str, gone: Callable[[], int]
    ) -> None:
        """A run that loses only its summary has the exit status of its links."""
        status = await status_with(null(), gone(), pointing_at(sandbox), "bulk", good)
        assert (status, len(sandbox.links)) == (0, len(LINES) - MALFORMED)

    async def test_a_reader_may_go_away_during_the_run(self, sandbox: Sandbox, file: str) -> None:
        """A run continues after the reader of both streams has left, as in ``2>&1 | head``."""
        reader, writer = os.pipe()
        process = await start_with(writer, writer, pointing_at(sandbox), "bulk", file)
        with opened(reader):
            assert await asyncio.to_thread(os.read, reader, 20)
        assert (await process.wait(), len(sandbox.links)) == (1, len(LINES) - MALFORMED)

    async def test_a_reader_may_come_back(self, sandbox: Sandbox, tmp_path: Path) -> None:
        """Messages are dropped only while they cannot be shown: a restarted reader gets the later ones."""
        collector = tmp_path / "pipe"
        os.mkfifo(collector)
        reader = os.open(collector, os.O_RDONLY | os.O_NONBLOCK)
        (stdin, ours), (results, stdout), err = os.pipe(), os.pipe(), os.open(collector, os.O_WRONLY)
        os.close(reader)
        with opened(stdin, stdout, err):
            process = await start_on(
                (stdin, stdout, err), pointing_at(sandbox), "bulk", "-", "--output", "jsonl"
            )
        with open(results, "rb") as out, open(ours, "wb", buffering=0) as lines:  # noqa: ASYNC230
            lines.write(b"parent,relationship,child\ndropped\n")
            assert b"malformed" in await asyncio.to_thread(out.readline)
            reader = os.open(collector, os.O_RDONLY | os.O_NONBLOCK)
            lines.write(b"shown\n")
            assert b"malformed" in await asyncio.to_thread(out.readline)
        with open(reader, "rb") as err_again:  # noqa: ASYNC230
            assert await process.wait() == 1
            assert [line[:7] for line in err_again][:1] == [b"line 3:"]

    @pytest.mark.parametrize("gone", GONE)
    async def test_a_plan_is_applied(self, sandbox: Sandbox, good: str, gone: Callable[[], int]) -> None:
        """A plan is applied completely without standard error, and the status is that of its changes."""
        arguments = ("plan", "--apply", "--yes", good)
        status = await status_with(null(), gone(), pointing_at(sandbox), *arguments)
        assert (status, len(sandbox.links)) == (0, len(LINES) - MALFORMED)

    @pytest.mark.parametrize("gone", GONE)
    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (["list", "--sandbox", "SHOP-2"], 0),
            (["list", "--sandbox", "SHOP-999"], 1),
            (["list", "SHOP-2"], 2),  # no keys are set
            (["lst"], 2),
            (["bulk"], 2),
            (["bulk", "/nowhere"], 2),
            (["doctor", "--sandbox"], 0),
            (["graph", "--sandbox", "SHOP-2", "--max-nodes", "3"], 1),
        ],
    )
    async def test_the_status_stays(
        self, arguments: list[str], expected: int, gone: Callable[[], int]
    ) -> None:
        """An error that cannot be shown keeps its exit status."""
        assert await status_with(null(), gone(), environment(), *arguments) == expected

    async def test_an_interruption_that_cannot_be_shown(self, sandbox: Sandbox) -> None:
        """Ctrl-C ends a run with status 130 although the message cannot be shown."""
        sandbox.fail_next("delay", seconds=600)
        process = await start_with(
            null(), closed_pipe(), pointing_at(sandbox), "create", some_id(1), "blocks", some_id(2)
        )
        await until(lambda: sandbox.requests)
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130


class TestStandardOutput:
    @pytest.mark.parametrize("gone", [closed_pipe, hung_up_terminal])
    @pytest.mark.parametrize("output", ["table", "json", "jsonl"])
    async def test_a_reader_that_has_read_enough(
        self, sandbox: Sandbox, good: str, output: str, gone: Callable[[], int]
    ) -> None:
        """A closed standard output is not an error: every change is still applied, and the status is 0."""
        variables, options = pointing_at(sandbox), ("--output", output)
        assert await status_with(gone(), null(), variables, "bulk", good, *options) == 0
        assert await status_with(gone(), null(), variables, "plan", good, "--apply", "--yes", *options) == 0
        assert len(sandbox.links) == len(LINES) - MALFORMED
        ids = [link.id for link in sandbox.links]
        assert await status_with(gone(), null(), variables, "delete", *ids, *options) == 0
        assert sandbox.links == []

    @pytest.mark.parametrize("gone", [closed_pipe, hung_up_terminal])
    @pytest.mark.parametrize(
        "arguments",
        [
            ["--help"],
            ["bulk", "--help"],
            ["--version"],
            ["list", "--sandbox", "SHOP-2"],
            ["graph", "--sandbox", "SHOP-2"],
            ["plan", "--sandbox", "examples/links.yaml"],
            ["doctor", "--sandbox"],
        ],
    )
    async def test_a_command_that_only_reads_succeeds_too(
        self, arguments: list[str], gone: Callable[[], int]
    ) -> None:
        """A command that only reads succeeds with a closed standard output, and shows no traceback."""
        reader, writer = os.pipe()
        status = await status_with(gone(), writer, environment(), *arguments)
        with open(reader, "rb") as shown:  # noqa: ASYNC230 - all is written
            assert b"Error" not in shown.read()
        assert status == 0

    async def test_a_file_that_is_a_pipe_without_a_reader(self) -> None:
        """A graph written to a pipe without a reader is not an error."""
        arguments = ("graph", "--sandbox", "SHOP-2", "--quiet", "-o", "/dev/stdout")
        assert await status_with(closed_pipe(), null(), environment(), *arguments) == 0

    @pytest.mark.parametrize("option", ["--help", "--version"])
    def test_results_that_are_lost_are_a_failure(self, option: str) -> None:
        """A full disk is reported in one line, with status 1."""
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                [sys.executable, "-m", "datadog_caselinks", option],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        error = "Error: cannot write to standard output: No space left on device\n"
        assert (done.returncode, done.stderr) == (1, error)

    async def test_every_link_is_deleted_though_none_can_be_reported(
        self, sandbox: Sandbox, good: str
    ) -> None:
        """If the deleted ids cannot be printed, every link is still deleted, and the status is 1."""
        assert await status_with(null(), null(), pointing_at(sandbox), "bulk", good) == 0
        ids = [link.id for link in sandbox.links]
        assert await status_with(full_disk(), null(), pointing_at(sandbox), "delete", *ids) == 1
        assert sandbox.links == []

    def test_a_pipe_that_another_program_left_non_blocking(self) -> None:
        """Output waits for the reader of a full pipe, even if another program has set O_NONBLOCK."""
        done = subprocess.run(
            [sys.executable, "-c", FILLS_A_PIPE],
            capture_output=True,
            text=True,
            timeout=MAX_SECONDS,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "1000001")


class TestSandbox:
    @pytest.mark.parametrize("gone", [closed_pipe, hung_up_terminal])
    async def test_a_sandbox_serves_on(self, gone: Callable[[], int]) -> None:
        """A sandbox continues to serve after its output is closed, until a signal ends it."""
        port = unused_port()
        process = await start_with(gone(), gone(), environment(), "sandbox", "--port", str(port))
        await until(lambda: accepts(port))
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
