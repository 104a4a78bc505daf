"""A fork server for ``program.py``: a process that has imported the package and forks for each start of it.

Starting the command takes half a second, almost all of it for imports. A fork takes a tenth of that and is a
real process for signals, pipes and terminals. Tests of the imports themselves start Python directly. If a
variable in READ_AT_START differs, the fork executes Python again.

Requests arrive on the socket that is standard input. Each comes with four descriptors: standard input,
output and error of the new process, and one for the report, which is a line with the process id and a line
with the exit status.
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
from pkgutil import walk_packages
from typing import Any, NoReturn

import datadog_caselinks
from datadog_caselinks import ConfigurationError
from datadog_caselinks.cli import main
from tests.cli.waits import waits_of

MAX_BYTES = 1 << 20  # a request contains an environment
READ_AT_START = ("PYTHONPATH", "SSL_CERT_FILE")  # read by Python itself, and by aiohttp on import


def serve(requests: socket.socket) -> None:
    """Start the requested processes until the socket is closed; then kill those that still run."""
    running: dict[int, tuple[int, int]] = {}  # keys become readable when the process ends
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
    """Fork the requested process; return its id and the descriptor for the report of its end."""
    *standard, reports = descriptors
    process = os.fork()
    if not process:
        become(standard, **request)
    for descriptor in standard:
        os.close(descriptor)
    report_number(reports, process)
    return process, reports


def become(
    standard: Sequence[int], *, directory: str, environment: dict[str, str], arguments: Sequence[str]
) -> NoReturn:
    """Run ``caselinks`` in this process as if it had been started with these arguments."""
    for number, descriptor in enumerate(standard):
        os.dup2(descriptor, number)
        os.close(descriptor)
    # Both signals are ignored if the tests run under nohup or in the background.
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
    with waits_of(environment):
        main()
    sys.exit()


def report(process: int, reports: int) -> None:
    """Report the exit status of ``process``, or the negative number of the signal that ended it."""
    _, status = os.waitpid(process, 0)
    report_number(reports, os.waitstatus_to_exitcode(status))
    os.close(reports)


def report_number(reports: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # the test has already ended
        os.write(reports, b"%d\n" % number)


if __name__ == "__main__":
    for module in walk_packages(
        datadog_caselinks.__path__,
        "datadog_caselinks.",
        onerror=lambda _: None,  # a package whose extra is not installed
    ):
        if not module.name.endswith("__main__"):  # this would run the command
            with contextlib.suppress(ImportError, ConfigurationError):  # an extra is not installed
                import_module(module.name)
    gc.freeze()  # so that the forks do not scan these objects when they end
    with socket.socket(fileno=os.dup(0)) as socket_of_requests:
        serve(socket_of_requests)
