"""``caselinks`` as a program of its own, with an environment of its own, on pipes or on a terminal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import signal
import socket
import subprocess
import sys
from asyncio import StreamReader, StreamReaderProtocol, StreamWriter
from collections.abc import Iterator

from attrs import define, field, frozen

from datadog_caselinks.sandbox import Sandbox
from tests.cli import starter

_starter: socket.socket  # while `starting` holds


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """Within this, programs can be started. What then still runs is killed."""
    global _starter
    _starter, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = (sys.executable, "-W", "error", "-m", starter.__name__)
    with theirs, subprocess.Popen(command, stdin=theirs.fileno(), start_new_session=True), _starter:
        yield


@frozen
class Finished:
    status: int
    out: str
    err: str


@define
class Started:
    """A process, with what a test needs of :class:`asyncio.subprocess.Process`."""

    pid: int
    _ended: asyncio.Task[int] = field(alias="ended")

    @property
    def returncode(self) -> int | None:
        return self._ended.result() if self._ended.done() else None

    async def wait(self) -> int:
        return await self._ended

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@define
class Program(Started):
    """One that has pipes."""

    stdin: StreamWriter
    stdout: StreamReader
    stderr: StreamReader

    async def communicate(self, data: bytes = b"") -> tuple[bytes, bytes]:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it need not read all
            self.stdin.write(data)
            await self.stdin.drain()
        self.stdin.close()
        out, err, _ = await asyncio.gather(self.stdout.read(), self.stderr.read(), self.wait())
        return out, err


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


async def start(variables: dict[str, str], *arguments: str) -> Program:
    """Start the command on pipes."""
    (in_, stdin), (stdout, out), (stderr, err) = os.pipe(), os.pipe(), os.pipe()
    started = await start_on((in_, out, err), variables, *arguments)
    for theirs in (in_, out, err):
        os.close(theirs)
    pipes = await _writer(stdin), await _reader(stdout), await _reader(stderr)
    return Program(started.pid, started._ended, *pipes)


async def start_on(standard: tuple[int, int, int], variables: dict[str, str], *arguments: str) -> Started:
    """Start the command on these descriptors, in a session of its own."""
    reports, theirs = os.pipe()
    request = {"directory": os.getcwd(), "environment": variables, "arguments": arguments}
    socket.send_fds(_starter, [json.dumps(request).encode()], [*standard, theirs])
    os.close(theirs)
    reported, pipe = await _read_pipe(reports)

    async def status() -> int:
        line = await reported.readline()  # and no further: what was forked meanwhile holds it open
        pipe.close()
        return int(line)

    return Started(int(await reported.readline()), asyncio.create_task(status()))


async def _read_pipe(descriptor: int) -> tuple[StreamReader, asyncio.ReadTransport]:
    reader = StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: StreamReaderProtocol(reader), os.fdopen(descriptor, "rb")
    )
    return reader, transport


async def _reader(descriptor: int) -> StreamReader:
    return (await _read_pipe(descriptor))[0]


async def _writer(descriptor: int) -> StreamWriter:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(
        lambda: StreamReaderProtocol(StreamReader()), os.fdopen(descriptor, "wb")
    )
    return StreamWriter(transport, protocol, None, loop)


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
    variables = variables | {"TERM": "xterm-256color", "COLUMNS": str(columns)}
    process = await start_on((theirs, theirs, theirs), variables, *arguments)
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
