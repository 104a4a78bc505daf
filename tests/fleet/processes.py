"""A sandbox in a process of its own, and killing processes."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path

from datadog_caselinks.sandbox.store import Store, StoredLink
from tests.cli.program import Program, environment

MAX_SECONDS = 240
"""Longer than anything here takes on a machine that does other things too."""


@contextlib.asynccontextmanager
async def sandbox_process(db: Path, *options: str) -> AsyncIterator[dict[str, str]]:
    """Yield the environment for a sandbox process that keeps its links in ``db``."""
    process = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-u",
            "-m",
            "datadog_caselinks",
            "sandbox",
            "--port",
            "0",
            "--db",
            str(db),
            *options,
        ),
        env=environment(),
        stdout=PIPE,
    )
    try:
        assert process.stdout is not None
        async for line in process.stdout:
            if b"export" in line:
                break
        yield environment(**dict(re.findall(r"(DD_\w+)=(\S+)", line.decode())))
    finally:
        process.terminate()
        await process.wait()


def stored(db: Path) -> list[StoredLink]:
    """Return the links that a sandbox stored in ``db``."""
    with contextlib.closing(Store(db)) as store:
        return store.all()


async def killed(process: Program) -> None:
    """Kill a running process with ``kill -9``."""
    assert process.returncode is None
    process.send_signal(signal.SIGKILL)
    await process.communicate()
    assert process.returncode == -signal.SIGKILL
