"""The end of a process whose work is blocked by something that cannot be cancelled."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.waiting import MAX_SECONDS

PROGRAM = """
import asyncio, os, signal, sys, time
from datadog_caselinks.cli.run import end_within, run
import click

sys.modules[run.__module__]._SAME_SIGINT = 0  # each counts

async def work():
    hung = asyncio.ensure_future(asyncio.to_thread(time.sleep, 1000))
    os.kill(os.getpid(), signal.{first})
    while True:
        try:
            await asyncio.wait([hung])
        except asyncio.CancelledError:
            if {second}:
                os.kill(os.getpid(), signal.{first})

run(end_within({seconds}, work(), lambda: click.echo({words}, err=True)))
"""

REPEATS = """
import asyncio, os, signal, sys
from datadog_caselinks.cli.interruption import RunInterruptedError
from datadog_caselinks.cli.run import run
import click

async def work():
    os.kill(os.getpid(), signal.{first})
    os.kill(os.getpid(), signal.{first})
    try:
        await asyncio.sleep(1000)
    finally:
        os.kill(os.getpid(), signal.{first})

try:
    run(work())
except RunInterruptedError as interruption:
    click.echo("Interrupted.", err=True)
    sys.exit(interruption.exit_status)
"""

IGNORES = """
import asyncio, os, signal
from datadog_caselinks.cli.run import run
import click

async def work():
    os.kill(os.getpid(), signal.{first})
    await asyncio.sleep(0)
    click.echo({words}, err=True)

signal.signal(signal.{first}, signal.SIG_IGN)
run(work())
"""

ENDS_LATE = """
import asyncio, os, signal, threading
from datadog_caselinks.cli.interruption import RunInterruptedError
from datadog_caselinks.cli.run import end_within, run
import click

async def work():
    os.kill(os.getpid(), signal.{first})
    await asyncio.sleep(1000)

try:
    run(end_within({seconds}, work(), lambda: click.echo({words}, err=True)))
except RunInterruptedError:
    click.echo("Interrupted.", err=True)
[watchdog] = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
watchdog.function(*watchdog.args)  # its time is up
"""

RAISES = """
import asyncio, os, signal, sys
from datadog_caselinks.cli.interruption import RunInterruptedError
from datadog_caselinks.cli.run import end_within, run
import click

async def work():
    os.kill(os.getpid(), signal.{first})
    try:
        await asyncio.sleep(1000)
    finally:
        raise ExceptionGroup({words}, [ValueError()])

try:
    run(end_within(1000, work(), lambda: None))
except RunInterruptedError as interruption:
    click.echo("Interrupted.", err=True)
    sys.exit(interruption.exit_status)
"""

ENDS_MEANWHILE = """
import asyncio, os, signal, threading, time
from datadog_caselinks.cli.interruption import RunInterruptedError
from datadog_caselinks.cli.run import end_within, run
import click

speaking = threading.Event()

def speak():
    click.echo({words}, err=True)
    speaking.set()
    time.sleep(0.2)

async def work():
    os.kill(os.getpid(), signal.{first})
    await asyncio.to_thread(speaking.wait)

try:
    run(end_within({seconds}, work(), speak))
except RunInterruptedError:
    click.echo("Interrupted.", err=True)
"""


def end(
    first: str,
    *,
    second: bool = False,
    seconds: float = 0.1,
    words: str = "'the end'",
    program: str = PROGRAM,
) -> tuple[int, bytes]:
    """Run the program until it ends, and return its exit status and what it wrote to standard error."""
    program = program.format(first=first, second=second, seconds=seconds, words=words)
    read, write = os.pipe()
    with open(read, "rb") as stderr:
        process = subprocess.Popen([sys.executable, "-c", program], stderr=write, start_new_session=True)
        os.close(write)
        try:
            status = process.wait(MAX_SECONDS)  # the pipe is read only after the process has ended
        finally:
            process.kill()
        return status, stderr.read()


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGHUP", 129)])
def test_work_that_cannot_be_cancelled_is_ended(name: str, status: int) -> None:
    """A process with a hanging thread prints its last message and ends with the status of the signal."""
    assert end(name) == (status, b"the end\nInterrupted.\n")


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_second_signal_ends_it_at_once(name: str, status: int) -> None:
    """A second signal ends the process immediately."""
    assert end(name, second=True, seconds=3 * MAX_SECONDS) == (status, b"the end\nInterrupted.\n")


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_that_is_repeated_immediately_is_one(name: str, status: int) -> None:
    """Some programs signal a process and then its group; the run still ends in its usual way."""
    assert end(name, program=REPEATS) == (status, b"Interrupted.\n")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_that_is_ignored_stays_ignored(name: str) -> None:
    """A run continues after a signal that the process ignores, as a background job of a script does."""
    assert end(name, program=IGNORES) == (0, b"the end\n")


def test_last_words_that_nobody_reads_do_not_hold_it_up() -> None:
    """A last message that blocks, because the pipe is full, does not delay the end of the process."""
    status, _ = end("SIGTERM", words="'x' * 1_000_000")
    assert status == 143


def test_the_last_message_of_work_that_has_ended_appears_once() -> None:
    """A process that ends late, although its work has ended, does not print its last message again."""
    assert end("SIGTERM", program=ENDS_LATE, seconds=3 * MAX_SECONDS) == (143, b"Interrupted.\n")


def test_the_last_message_of_work_that_ends_meanwhile_appears_once() -> None:
    """Work that ends while the process is being ended prints nothing more."""
    status, shown = end("SIGTERM", program=ENDS_MEANWHILE)
    assert status == 143
    assert shown.startswith(b"the end\n")
    assert shown.count(b"Interrupted.") <= 1, "none where the machine is very slow"


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_an_error_of_the_end_is_not_an_error_of_the_work(name: str, status: int) -> None:
    """Work that raises an error because it is cancelled was interrupted, and prints no traceback."""
    assert end(name, program=RAISES) == (status, b"Interrupted.\n")
