"""Ask for confirmation before a change. Without a terminal, refuse."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading

import click

from datadog_caselinks.values.errors import ParameterError


def require_terminal(asker: str) -> None:
    """Raise :class:`ParameterError` if ``asker``, an option or subcommand, cannot ask for confirmation."""
    if not sys.stdin.isatty():
        raise ParameterError(f"{asker} cannot ask for confirmation without a terminal; add --yes")


async def confirmed(question: str) -> bool:
    """Ask ``question``, and return whether the answer is yes. Any other answer counts as no."""
    click.echo(f"{question} [y/N] ", nl=False, err=True)
    loop, responded, lines = asyncio.get_running_loop(), asyncio.Event(), list[bytes]()

    def read() -> None:
        with contextlib.suppress(OSError):  # the terminal has gone away
            lines.append(os.read(sys.stdin.fileno(), 1024))
        with contextlib.suppress(RuntimeError):  # the run was interrupted, and the loop is closed
            loop.call_soon_threadsafe(responded.set)

    # In a thread, since Windows has no loop.add_reader. If the thread held the lock of sys.stdin at exit,
    # Python would abort, so it uses os.read.
    threading.Thread(target=read, daemon=True).start()
    try:
        await responded.wait()
    except asyncio.CancelledError:
        click.echo(err=True)
        raise
    return b"".join(lines).strip().lower() in (b"y", b"yes")
