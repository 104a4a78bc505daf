"""The command on systems that are not POSIX, such as Windows.

The tests remove from Python what Windows lacks. They run on every system, unlike a test on Windows itself.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from datadog_caselinks.cli import fleet, run, sandbox
from tests.cli.program import environment
from tests.support.tcp import unused_port

WITHOUT_POSIX = """
import asyncio, getpass, os, shutil, signal, ssl, subprocess, sys, tempfile, urllib.request, uuid

for module, names in {
    os: "chown fchmod fchown fork forkpty getegid geteuid getgid getpgid getpgrp killpg lchown mkfifo"
        " mknod nice openpty setsid statvfs sysconf ttyname O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_NONBLOCK",
    signal: "SIGALRM SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGTSTP SIGUSR1 SIGUSR2 SIGWINCH pthread_sigmask",
}.items():
    for name in names.split():
        vars(module).pop(name, None)
for name in "fcntl grp pty pwd readline resource syslog termios tty".split():
    sys.modules[name] = None

def missing(*_):
    raise NotImplementedError

names = ["add_signal_handler", "remove_signal_handler", "create_unix_connection", "create_unix_server"]
if sys.argv[1] != "fleet":  # its selector loop has these on Windows too
    names += ["add_reader", "connect_read_pipe"]
for name in names:
    setattr(asyncio.SelectorEventLoop, name, missing)
"""
COMMAND = f"{WITHOUT_POSIX}\nfrom datadog_caselinks.cli import main; main()"
COLLECTION = f"{WITHOUT_POSIX}\nimport pytest; raise SystemExit(pytest.main(sys.argv[1:]))"


def without_posix(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command without POSIX-only features, and with an error for each unspecified encoding."""
    options = ("-X", "warn_default_encoding", "-W", "error:'encoding' argument not specified:EncodingWarning")
    return subprocess.run(
        [sys.executable, *options, "-c", COMMAND, *arguments],
        env=environment(),
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ("create --sandbox SHOP-27 blocks SHOP-32", 0),
        ("ensure --sandbox SHOP-6 causes SHOP-5", 0),
        ("list --sandbox SHOP-2", 0),
        ("delete --sandbox 804cd682-55f6-4541-ab00-b608b282ea7d", 1),
        ("bulk --sandbox examples/postmortem.csv --journal {folder}/run.journal", 0),
        ("plan --sandbox --prune --apply --yes examples/links.yaml", 0),
        ("graph --sandbox SHOP-2 --depth 3 -o {folder}/outage.html", 0),
        ("graph --sandbox SHOP-2 -o {folder}/outage.svg", 0),
        ("doctor --sandbox", 0),
        ("sandbox --db {folder}/links.db -- {python} -c raise(SystemExit(7))", 7),
        ("fleet worker --database postgresql://127.0.0.1:{port}/none", 2),
        ("fleet status --database postgresql://127.0.0.1:{port}/none", 2),
    ],
)
def test_each_command_runs(tmp_path: Path, arguments: str, status: int) -> None:
    """Each subcommand runs without POSIX-only features."""
    places = {"folder": tmp_path, "python": sys.executable, "port": unused_port()}
    done = without_posix(*arguments.format(**places).split())
    assert "Traceback" not in done.stderr
    assert done.returncode == status, done.stderr
    if status == 0 and "--journal" in arguments:
        shown = without_posix("journal", "show", str(tmp_path / "run.journal"))
        assert (shown.returncode, shown.stdout.count("created")) == (0, done.stdout.count("✓"))


def test_standard_input_is_read() -> None:
    """A file on standard input is read without POSIX-only features."""
    lines = "parent,relationship,child\nSHOP-27,blocks,SHOP-32\n"
    done = without_posix("bulk", "--sandbox", "-", stdin=lines)
    assert (done.returncode, done.stdout.count("✓")) == (0, 1)


@pytest.mark.tools
def test_the_fast_tests_can_be_collected() -> None:
    """The fast tests, which CI runs on Windows, can be imported without POSIX-only features."""
    options = ("--collect-only", "-q", "-pno:cacheprovider", "-pno:schemathesis", "-pno:xdist")
    done = subprocess.run(
        [sys.executable, "-c", COLLECTION, *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_control_break_ends_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-Break ends a run as SIGTERM does on a system without SIGHUP."""
    monkeypatch.delattr(signal, "SIGHUP")
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)
    assert run.ending_signals() == [signal.SIGTERM, signal.SIGUSR1]


def test_powershell_can_run_what_the_sandbox_prints() -> None:
    """On Windows, the sandbox prints its variables as a PowerShell command."""
    variables = {"DD_SITE": "http://127.0.0.1:8321", "DD_API_KEY": "key"}
    printed = sandbox._assignments(variables, is_windows=True)
    assert printed == '$env:DD_SITE = "http://127.0.0.1:8321"; $env:DD_API_KEY = "key"'


def test_a_fleet_runs_in_the_loop_that_psycopg_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fleet runs in a selector event loop, because psycopg refuses the default loop of Windows."""

    class Loop(asyncio.SelectorEventLoop):
        pass

    monkeypatch.setattr(asyncio, "SelectorEventLoop", Loop)

    async def loop() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    assert isinstance(fleet._run(loop()), Loop)
