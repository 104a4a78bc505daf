"""A process that has imported the command, and forks for each start of it that ``program.py`` asks for.

Python takes half a second to start the command, nearly all of it for imports; a fork takes a tenth of that,
and is a process as any other. Where it matters what is imported, and when, a test starts Python itself; where
a variable is set that has been read here already, the fork starts Python.

Requests come through the socket that is standard input. Each brings four descriptors: what shall be standard
input, output and error, and one to report on, a line for the process id and one for the exit status.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

from datadog_caselinks.cli import main
from datadog_caselinks.cli.command import _COMMANDS

MAX_BYTES = 1 << 20  # of a request, which holds an environment
READ_AT_START = ("PYTHONPATH", "SSL_CERT_FILE")  # by Python and, when it is imported, by aiohttp


def serve(requests: socket.socket) -> None:
    """Start what is asked for, until nobody is there to ask. What then still runs is killed."""
    running: dict[int, tuple[int, int]] = {}  # by descriptors that become readable when the process ends
    with selectors.DefaultSelector() as events:
        events.register(requests, selectors.EVENT_READ)
        while True:
            for key, _ in events.select():
                if key.fd in running:
                    events.unregister(key.fd)
                    os.close(key.fd)
                    report(*running.pop(key.fd))
                    continue
                message, descriptors, *_ = socket.recv_fds(requests, MAX_BYTES, 4)
                if not message:
                    for process, _ in running.values():
                        os.kill(process, signal.SIGKILL)
                    return
                process, reports = start(json.loads(message), *descriptors)
                ended = os.pidfd_open(process)
                running[ended] = process, reports
                events.register(ended, selectors.EVENT_READ)


def start(request: dict[str, Any], *descriptors: int) -> tuple[int, int]:
    """Fork what is asked for; its process id, and the descriptor on which to report its end."""
    *standard, reports = descriptors
    process = os.fork()
    if not process:
        become(standard, **request)
    for descriptor in standard:
        os.close(descriptor)
    tell(reports, process)
    return process, reports


def become(
    standard: Sequence[int], *, directory: str, environment: dict[str, str], arguments: Sequence[str]
) -> NoReturn:
    """Be ``caselinks``, as though it had been started with these."""
    for number, descriptor in enumerate(standard):
        os.dup2(descriptor, number)
        os.close(descriptor)
    # These two are ignored where the tests run under nohup or in the background.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setsid()
    os.chdir(directory)
    if any(environment.get(name) != os.environ.get(name) for name in READ_AT_START):
        command = (sys.executable, "-W", "error", "-m", "datadog_caselinks", *arguments)
        os.execve(sys.executable, command, environment)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["caselinks", *arguments]
    main()
    sys.exit()


def report(process: int, reports: int) -> None:
    """Tell how ``process`` has ended: its status, or the signal with a minus before it."""
    _, status = os.waitpid(process, 0)
    tell(reports, os.waitstatus_to_exitcode(status))
    os.close(reports)


def tell(reports: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # the test has ended before
        os.write(reports, b"%d\n" % number)


if __name__ == "__main__":
    for module, _ in _COMMANDS.values():
        import_module(f"datadog_caselinks.cli.{module}")
    gc.freeze()  # what is here already is not looked through at the end of every start
    with socket.socket(fileno=os.dup(0)) as socket_of_requests:
        serve(socket_of_requests)
