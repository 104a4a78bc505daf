"""Programs of this folder in processes of their own, bounded in time. Knows nothing of what they do."""

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
    """``python -m benchmarks.MODULE``, running; what it says on standard error is shown."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.{module}", *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        """The next line that it prints."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def result(self) -> Any:
        """The JSON that it prints at its end, for which closing its standard input may be the sign.

        Raises :class:`RuntimeError` if it fails, and ends it if it does not end.
        """
        try:
            told, _ = self._process.communicate(timeout=MAX_SECONDS)
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
        if self._process.returncode:
            raise RuntimeError(f"{self._process.args!r} failed")
        return json.loads(told or "null")


class Server:
    """A server in another process: where it is, and once it has ended what it ``counted``."""

    def __init__(self, module: str, **options: Any) -> None:
        self._program = Program(module, json.dumps(options))
        self.url = self._program.line()
        self.counted: Any = None

    def end(self) -> None:
        """End it."""
        self.counted = self._program.result()


@contextmanager
def serving(module: str, **options: Any) -> Iterator[Server]:
    """The server that ``module`` is, for as long as it is needed."""
    server = Server(module, **options)
    try:
        yield server
    finally:
        server.end()


def started(measurement: str, **parameters: Any) -> Program:
    """A measurement of ``worker.py`` in a fresh process."""
    return Program("worker", measurement, json.dumps(parameters))


def measured(measurement: str, **parameters: Any) -> Any:
    """What a measurement of ``worker.py`` in a fresh process gives."""
    return started(measurement, **parameters).result()


async def serve_until_stdin_ends(url: str) -> None:
    """In a server: print ``url``, and return once standard input ends, as it does if the parent dies."""
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
