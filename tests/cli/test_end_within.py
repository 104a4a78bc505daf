"""The end of a process whose work is blocked by something that cannot be cancelled."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.waiting import MAX_SECONDS

PROGRAM = """
import asyncio, os, signal, time
from datadog_caselinks.cli.run import end_within, run
import click

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


def end(
    first: str, *, second: bool = False, seconds: float = 0.1, words: str = "'the end'"
) -> tuple[int, bytes]:
    """Run the program until it ends, and return its exit status and what it wrote to standard error."""
    program = PROGRAM.format(first=first, second=second, seconds=seconds, words=words)
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


def test_last_words_that_nobody_reads_do_not_hold_it_up() -> None:
    """A last message that blocks, because the pipe is full, does not delay the end of the process."""
    status, _ = end("SIGTERM", words="'x' * 1_000_000")
    assert status == 143
