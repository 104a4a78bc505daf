"""``caselinks sandbox``, run as a program."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from datadog_caselinks import ApiKeys, CaseLinksClient, ConflictError, RetryPolicy
from tests.cli import program
from tests.cli.program import Program, environment
from tests.support.ids import case
from tests.support.waiting import MAX_SECONDS

NEW = case("4417921d-0866-4a38-822c-6f2a0f65f77d").blocks(case("bf0cbac6-4c16-4cfb-b6bf-ca5e0ec37a4f"))


async def start(*arguments: str) -> Program:
    return await program.start(environment(DD_BEARER_TOKEN="not-for-the-sandbox"), "sandbox", *arguments)


async def exported(process: Program) -> CaseLinksClient:
    """Return a client with the variables that the sandbox prints."""
    while not (line := (await process.stdout.readline()).decode()).startswith("  export "):
        assert line, "the sandbox ended without telling its variables"
    variables = dict(re.findall(r"(DD_\w+)=(\S+)", line))
    keys = ApiKeys(api_key=variables["DD_API_KEY"], app_key=variables["DD_APP_KEY"])
    return CaseLinksClient(variables["DD_SITE"], keys, retry=RetryPolicy(settle=0))


async def ended(process: Program) -> str:
    """Send Ctrl-C, and return what the sandbox still prints."""
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    return out.decode()


async def test_it_prints_what_to_export_and_ends_with_control_c() -> None:
    """A client with the variables that the sandbox prints can create links, and Ctrl-C ends the sandbox."""
    process = await start("--port", "0")
    async with await exported(process) as client:
        assert str(await client.create_link(NEW)) == str(NEW)
    assert "Sandbox stopped." in await ended(process)


async def test_a_file_keeps_the_links_over_a_restart(tmp_path: Path) -> None:
    """With --db, a restarted sandbox has the links of the earlier one."""
    db = str(tmp_path / "links.db")
    first = await start("--port", "0", "--db", db)
    async with await exported(first) as client:
        made = await client.create_link(NEW)
    await ended(first)
    second = await start("--port", "0", "--db", db)
    async with await exported(second) as client:
        assert await client.list_links(NEW.parent) == [made]
    await ended(second)
    sqlite3.connect(db).close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_each_signal_that_ends_it_leaves_only_the_database(
    tmp_path: Path, number: signal.Signals
) -> None:
    """SIGINT, SIGTERM and SIGHUP end the sandbox and close its database.

    Process 1 of a container receives only the signals that it handles, so this includes "docker stop".
    """
    process = await start("--port", "0", "--db", str(tmp_path / "links.db"))
    async with await exported(process) as client:
        await client.create_link(NEW)
        process.send_signal(number)
        out, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert b"Sandbox stopped." in out
    assert os.listdir(tmp_path) == ["links.db"]


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs a container")
def test_process_1_of_a_container_ends_on_sigterm(tmp_path: Path) -> None:
    """The sandbox handles SIGTERM as process 1 of a container, where signals have no default effect."""
    container = ("unshare", "--user", "--map-root-user", "--pid", "--fork")
    if subprocess.run([*container, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system forbids namespaces")
    sandbox = (sys.executable, "-m", "datadog_caselinks", "sandbox", "--port", "0", "--db")
    command = [*container, *sandbox, str(tmp_path / "links.db")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        try:
            process.stdout.readline()
            first = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0]
            os.kill(int(first), signal.SIGTERM)
            assert process.wait(MAX_SECONDS) == 0
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert os.listdir(tmp_path) == ["links.db"]


async def test_rate_limit_and_faults_are_as_asked_for() -> None:
    """--rate-limit adds the rate limit headers, and --fault injects faults."""
    process = await start(
        "--port", "0", "--rate-limit", "1000/1h", "--fault", "504-applied@create", "--fault-seed", "1"
    )
    async with await exported(process) as client:
        _, created = await client.ensure_link(NEW)  # the lookup finds it after a 504
        limit = client.rate_limit
    assert created
    assert limit
    assert (limit.limit, limit.period, limit.remaining) == (1000, 3600, 997)
    await ended(process)


async def test_what_is_open_is_as_asked_for() -> None:
    """--duplicates, --list-lag, --buckets and --error-format set the behaviour that Datadog leaves open."""
    process = await start(
        *("--port", "0", "--rate-limit", "1000/1h", "--buckets", "separate", "--error-format", "strings"),
        *("--duplicates", "conflict", "--list-lag", "3600"),
    )
    async with await exported(process) as client:
        await client.create_link(NEW)
        assert await client.list_links(NEW.parent) == []
        with pytest.raises(ConflictError) as caught:
            await client.create_link(NEW)
        limit = client.rate_limit
    assert caught.value.raw_errors == ("an equal link exists",)
    assert limit
    assert (limit.name, limit.remaining) == ("case_links_create", 998)
    await ended(process)


async def test_a_command_runs_in_it_and_lends_its_status() -> None:
    """After --, a command runs with only the variables of the sandbox, and its status is the exit status."""
    listing = (
        "import os, asyncio; from datadog_caselinks import *\n"
        "assert 'DD_BEARER_TOKEN' not in os.environ\n"
        "async def main():\n"
        "    async with CaseLinksClient.from_env() as client:\n"
        f"        print(await client.list_links(case('{NEW.parent.id}')))\n"
        "asyncio.run(main()); raise SystemExit(7)\n"
    )
    process = await start("--", sys.executable, "-c", listing)
    out, err = await process.communicate()
    assert (process.returncode, out, err) == (7, b"[]\n", b"")


async def test_control_c_is_for_the_command() -> None:
    """Ctrl-C ends the command in the sandbox, which may take its time, and then the sandbox."""
    waiting = (
        "import time\n"
        "try:\n"
        "    print('up'); time.sleep(600)\n"
        "except KeyboardInterrupt:\n"
        "    raise SystemExit(9)\n"
    )
    process = await start("--", sys.executable, "-uc", waiting)
    assert await process.stdout.readline() == b"up\n"
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends Ctrl-C to the whole group
    assert await process.wait() == 9


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_ends_the_command_and_then_the_sandbox(tmp_path: Path, number: signal.Signals) -> None:
    """A signal to the sandbox ends its command with SIGTERM, and the status is that of the command."""
    waiting = "import time; print('up'); time.sleep(600)"
    process = await start("--db", str(tmp_path / "links.db"), "--", sys.executable, "-uc", waiting)
    assert await process.stdout.readline() == b"up\n"
    process.send_signal(number)
    assert await process.wait() == 128 + signal.SIGTERM
    assert os.listdir(tmp_path) == ["links.db"]


async def test_a_signal_while_the_command_starts() -> None:
    """A signal that arrives while the command of the sandbox starts ends the command too."""
    starts = """
import asyncio, os, signal, sys
start = asyncio.create_subprocess_exec

async def start_slowly(*arguments, **options):
    process = await start(*arguments, **options)
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(9):
        await asyncio.sleep(0)
    return process

asyncio.create_subprocess_exec = start_slowly
sys.argv[1:] = ["sandbox", "--", sys.executable, "-c", "import time; time.sleep(600)"]
from datadog_caselinks.cli import main
main()
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", starts, stdout=PIPE, stderr=PIPE)
    out, err = await process.communicate()
    assert (process.returncode, out, err) == (128 + signal.SIGTERM, b"", b"")


async def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """Under nohup, the sandbox and its command survive SIGHUP."""
    waiting = "import time; print('up'); time.sleep(600)"
    program = f'trap \'\' HUP; exec "$0" -m datadog_caselinks sandbox -- "$0" -uc "{waiting}"'
    process = await asyncio.create_subprocess_exec("sh", "-c", program, sys.executable, stdout=PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--fault", "fire"], "lost-response"),
        (["--rate-limit", "many"], "200/2s"),
        (["--port", "0", "--db", "/"], "/"),
        (["--list-lag", "inf"], "list_lag"),
        (["--", "no-such-command"], "no-such-command"),
    ],
)
async def test_an_invalid_option_is_reported_in_a_line(arguments: list[str], says: str) -> None:
    """An invalid option is reported in one line, with status 2."""
    process = await start(*arguments)
    _, err = await process.communicate()
    assert says in err.decode()
    assert (process.returncode, len(err.splitlines())) == (2, 1)
