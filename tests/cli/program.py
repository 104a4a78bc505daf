"""``caselinks`` as a program of its own, with an environment of its own, on pipes or on a terminal."""

from __future__ import annotations

import asyncio
import os
import pty
import sys
from asyncio.subprocess import PIPE, Process

from attrs import frozen

from datadog_caselinks.sandbox import Sandbox


@frozen
class Finished:
    status: int
    out: str
    err: str


def environment(**variables: str) -> dict[str, str]:
    """The environment with no site, no keys and no proxy but these."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("DD_") and not name.lower().endswith("_proxy")
    }
    return kept | variables


def pointing_at(sandbox: Sandbox) -> dict[str, str]:
    keys = sandbox.credentials
    return environment(DD_SITE=sandbox.url, DD_API_KEY=keys.api_key, DD_APP_KEY=keys.app_key)


async def start(variables: dict[str, str], *arguments: str) -> Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", "datadog_caselinks", *arguments),
        env=variables,
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
    )


async def caselinks(variables: dict[str, str], *arguments: str, stdin: bytes = b"") -> Finished:
    """Run the command to its end. Whatever happens there is no traceback, and no key."""
    process = await start(variables, *arguments)
    out, err = (output.decode() for output in await process.communicate(stdin))
    assert process.returncode is not None
    assert "Traceback" not in err
    for name in ("DD_API_KEY", "DD_APP_KEY", "DD_BEARER_TOKEN"):
        assert not variables.get(name) or variables[name] not in out + err
    return Finished(process.returncode, out, err)


async def on_terminal(variables: dict[str, str], *arguments: str, columns: int = 200) -> tuple[int, str]:
    """Run the command on a terminal: its exit status, and all that it showed there."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", "datadog_caselinks", *arguments),
        env=variables | {"TERM": "xterm-256color", "COLUMNS": str(columns)},
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = await asyncio.to_thread(_read_all, ours)
    return await process.wait(), shown


def _read_all(terminal: int) -> str:
    """What is written to a pseudo-terminal until it closes, which Linux reports as an error."""
    chunks = []
    try:
        while chunk := os.read(terminal, 65536):
            chunks.append(chunk)
    except OSError:
        pass
    os.close(terminal)
    return b"".join(chunks).decode()
