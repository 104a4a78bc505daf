"""Programs of this folder in processes of their own, with a time limit."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent
MAX_SECONDS: Final = 900.0
"""Beyond this a program hangs, and is ended."""


class Program:
    """A running ``python -m benchmarks.MODULE``, whose standard error is shown."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.{module}", *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        """Return the next line that the program prints."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def result(self) -> Any:
        """Close standard input, and return the JSON that the program prints at its end.

        Raises :class:`RuntimeError` if the program fails, and kills the program after the time limit.
        """
        try:
            reported, _ = self._process.communicate(timeout=MAX_SECONDS)
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
        if self._process.returncode:
            raise RuntimeError(f"{self._process.args!r} failed")
        return json.loads(reported or "null")


class Server:
    """A server in another process: its ``url``, and after its end what it ``counted``."""

    def __init__(self, module: str, **options: Any) -> None:
        self._program = Program(module, json.dumps(options))
        self.url = self._program.line()
        self.counted: Any = None

    def end(self) -> None:
        """End the server."""
        self.counted = self._program.result()


@contextmanager
def serving(module: str, **options: Any) -> Iterator[Server]:
    """Run the server in ``module`` while the context lasts."""
    server = Server(module, **options)
    try:
        yield server
    finally:
        server.end()


def started(measurement: str, **parameters: Any) -> Program:
    """Start a measurement of ``worker.py`` in a new process."""
    return Program("worker", measurement, json.dumps(parameters))


def measured(measurement: str, **parameters: Any) -> Any:
    """Return the result of a measurement of ``worker.py`` in a new process."""
    return started(measurement, **parameters).result()


async def serve_until_stdin_ends(url: str) -> None:
    """Print the ``url`` of a server, and return when standard input ends, as it does if the parent dies."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def wait_for_end() -> None:
        while os.read(0, 1024):
            pass
        loop.call_soon_threadsafe(ended.set)

    print(url, flush=True)
    threading.Thread(target=wait_for_end, daemon=True).start()
    async with asyncio.timeout(MAX_SECONDS):
        await ended.wait()
