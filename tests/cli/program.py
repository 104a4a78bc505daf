"""The command ``caselinks`` with an environment of its own: in this process, on pipes or on a terminal.

:func:`caselinks` runs plain invocations in a thread. :func:`start`, :func:`start_on` and :func:`on_terminal`
start processes, for tests of signals, pipes and terminals.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from asyncio import StreamReader, StreamReaderProtocol, StreamWriter
from collections.abc import Iterator, Sequence
from unittest.mock import patch

from attrs import define, field, frozen

from datadog_caselinks.cli import graph, main, run
from datadog_caselinks.sandbox import Sandbox
from datadog_caselinks.values.credentials import TOKEN_VARIABLES
from tests.cli import starter
from tests.cli.waits import waits_of
from tests.support.waiting import MAX_SECONDS

_starter: socket.socket  # True while a `starting` context is open
_one_at_a_time = threading.Lock()


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """Allow processes to be started while the context lasts; kill those that still run at its end."""
    global _starter
    _starter, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = (sys.executable, "-W", "error", "-m", starter.__name__)
    with theirs:
        process = subprocess.Popen(command, stdin=theirs.fileno(), start_new_session=True)
    # The process alone has its end of the pair now, so that tests fail, and do not wait, if it has ended.
    with process, _starter:
        yield


@frozen
class Finished:
    """The exit status and the output of a command."""

    status: int
    out: str
    err: str


@define
class Started:
    """A process, with the methods of :class:`asyncio.subprocess.Process` that tests need."""

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
    """A process whose standard streams are pipes."""

    stdin: StreamWriter
    stdout: StreamReader
    stderr: StreamReader

    async def communicate(self, data: bytes = b"") -> tuple[bytes, bytes]:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the process may not read all of it
            self.stdin.write(data)
            await self.stdin.drain()
        self.stdin.close()
        out, err, _ = await asyncio.gather(self.stdout.read(), self.stderr.read(), self.wait())
        return out, err


def environment(**variables: str) -> dict[str, str]:
    """Return the current environment with ``variables`` and without any other site, keys or proxy.

    ``CI`` is left out too, because it switches the progress bar off.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name != "CI" and not name.startswith(("DD_", "DATADOG_")) and not name.lower().endswith("_proxy")
    }
    return kept | variables


def pointing_at(sandbox: Sandbox) -> dict[str, str]:
    """Return an environment with the URL and the keys of ``sandbox``."""
    return environment(**sandbox.environment)


async def start(variables: dict[str, str], *arguments: str) -> Program:
    """Start the command on pipes."""
    (in_, stdin), (stdout, out), (stderr, err) = os.pipe(), os.pipe(), os.pipe()
    started = await start_on((in_, out, err), variables, *arguments)
    for theirs in (in_, out, err):
        os.close(theirs)
    pipes = await _writer(stdin), await _reader(stdout), await _reader(stderr)
    return Program(started.pid, started._ended, *pipes)


async def start_on(standard: tuple[int, int, int], variables: dict[str, str], *arguments: str) -> Started:
    """Start the command with these standard streams, in a session of its own."""
    reports, theirs = os.pipe()
    request = {"directory": os.getcwd(), "environment": variables, "arguments": arguments}
    socket.send_fds(_starter, [json.dumps(request).encode()], [*standard, theirs])
    os.close(theirs)
    reported, pipe = await _read_pipe(reports)

    async def status() -> int:
        line = await reported.readline()  # not until end of file: later forks keep the pipe open
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


def _needs_process(variables: dict[str, str], arguments: Sequence[str], stdin: bytes) -> bool:
    return (
        bool(stdin)
        or any(name == "-" or name.startswith("/dev/") for name in arguments)  # descriptors of the process
        or arguments[:1] in [("fleet",), ("sandbox",)]  # install signal handlers of their own
        or any(variables.get(name) != os.environ.get(name) for name in starter.READ_AT_START)
    )


def _invoke(variables: dict[str, str], arguments: Sequence[str]) -> Finished:
    """Run the command in this thread, with an environment and output streams of its own.

    Only the main thread can handle signals, so here the command does not.
    """
    written = io.BytesIO(), io.BytesIO()
    out, err = (io.TextIOWrapper(stream, "utf-8", write_through=True) for stream in written)
    with (
        _one_at_a_time,
        patch.dict(os.environ, variables, clear=True),
        patch.multiple(sys, argv=["caselinks", *arguments], stdin=io.StringIO(), stdout=out, stderr=err),
        patch.object(run, "_cancel_on_signals", lambda work: work),
        patch.object(graph, "default_sigint", contextlib.nullcontext),
        waits_of(variables),
    ):
        try:
            main()
            status = 0
        except SystemExit as exit:
            status = exit.code if isinstance(exit.code, int) else int(exit.code is not None)
    return Finished(status, *(stream.getvalue().decode() for stream in written))


async def caselinks(variables: dict[str, str], *arguments: str, stdin: bytes = b"") -> Finished:
    """Run the command to its end, in a thread if possible and otherwise as a process.

    The test fails if the command shows a traceback or a key.
    """
    if _needs_process(variables, arguments, stdin):
        process = await start(variables, *arguments)
        out, err = (output.decode() for output in await process.communicate(stdin))
        assert process.returncode is not None
        finished = Finished(process.returncode, out, err)
    else:
        finished = await asyncio.to_thread(_invoke, variables, arguments)
    assert "Traceback" not in finished.err
    for name in ("DD_API_KEY", "DD_APP_KEY", *TOKEN_VARIABLES):
        assert not variables.get(name) or variables[name] not in finished.out + finished.err
    return finished


async def on_terminal(
    variables: dict[str, str], *arguments: str, columns: int = 200, answer: bytes | None = None
) -> tuple[int, str]:
    """Run the command on a terminal and return its exit status and everything that it displayed.

    ``answer`` is typed when the command asks for a confirmation; if it is empty, Ctrl-C is pressed.
    """
    ours, theirs = os.openpty()
    variables = variables | {"TERM": "xterm-256color", "COLUMNS": str(columns)}
    process = await start_on((theirs, theirs, theirs), variables, *arguments)
    os.close(theirs)
    shown = b""
    try:
        async with asyncio.timeout(MAX_SECONDS):
            if answer is not None:
                shown = await asyncio.to_thread(_read, ours, b"[y/N]")
                if answer:
                    os.write(ours, answer)
                else:
                    process.send_signal(signal.SIGINT)
            shown += await asyncio.to_thread(_read, ours)
            status = await process.wait()
    finally:
        process.kill()  # if it still runs, the thread that reads its output would never end
    os.close(ours)
    return status, shown.decode()


def _read(terminal: int, end: bytes | None = None) -> bytes:
    """Read from a pseudo-terminal up to ``end`` or until it closes, which Linux reports as an error."""
    shown = b""
    with contextlib.suppress(OSError):
        while (end is None or end not in shown) and (chunk := os.read(terminal, 65536)):
            shown += chunk
    return shown
