"""Examples in processes of their own, with a sandbox in their environment."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from pathlib import Path

from datadog_caselinks.sandbox import Sandbox
from tests.cli.program import pointing_at
from tests.support.waiting import MAX_SECONDS

EXAMPLES = Path(__file__).parents[2] / "examples"


@contextlib.asynccontextmanager
async def running(
    sandbox: Sandbox, example: str, *arguments: str, **variables: str
) -> AsyncIterator[Process]:
    """Run an example as its docstring says, with the sandbox in its environment."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-W", "error", "-u", str(EXAMPLES / example), *arguments),
        env=pointing_at(sandbox) | variables,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ended(process: Process, status: int = 0) -> str:
    """Return the output of an example; require ``status``, no traceback and no unclosed resource."""
    async with asyncio.timeout(MAX_SECONDS):
        printed = (await process.communicate())[0].decode()
    assert process.returncode == status, printed
    assert "Traceback" not in printed, printed
    assert "unclosed" not in printed.lower(), printed
    return printed


async def run(sandbox: Sandbox, example: str, *arguments: str, **variables: str) -> str:
    """Return the output of an example that ends with status 0."""
    async with running(sandbox, example, *arguments, **variables) as process:
        return await ended(process)


async def fail(sandbox: Sandbox, example: str, *arguments: str, **variables: str) -> str:
    """Return the output of an example that ends with status 1."""
    async with running(sandbox, example, *arguments, **variables) as process:
        return await ended(process, status=1)


@contextlib.asynccontextmanager
async def serving(sandbox: Sandbox, example: str, **variables: str) -> AsyncIterator[tuple[str, list[str]]]:
    """Run an example that serves HTTP; yield its URL, and its log, which is filled after Ctrl-C."""
    log: list[str] = []
    async with running(sandbox, example, PORT="0", **variables) as process:
        yield await _url(process), log
        process.send_signal(signal.SIGINT)
        log.extend((await ended(process)).splitlines())


async def _url(process: Process) -> str:
    assert process.stdout
    printed = []
    async with asyncio.timeout(MAX_SECONDS):
        while line := (await process.stdout.readline()).decode():
            if match := re.search(r"http://127\.0\.0\.1:\d+", line):
                return match[0]
            printed.append(line)
    raise AssertionError("".join(printed))
