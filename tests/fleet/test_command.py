"""``caselinks fleet``, run as a program with a real database and a sandbox."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from datadog_caselinks import AmbiguousResultError, ApiKeys, CaseLinksError, Failed
from datadog_caselinks.cli import fleet as cli_fleet
from datadog_caselinks.cli import run
from datadog_caselinks.cli.screen import Screen
from datadog_caselinks.sandbox import Fault, Sandbox
from tests.cli.program import Finished, caselinks, environment, on_terminal, pointing_at, start, start_on
from tests.support.forwarder import Forwarder
from tests.support.ids import case, some_id
from tests.support.postgres import PASSWORD
from tests.support.tcp import unused_port
from tests.support.waiting import MAX_SECONDS, until

HEADER = b"parent,relationship,child\n"
REPORTS_ITS_END = """
import click
from datadog_caselinks.cli import fleet, main, run

def end_process(last_words):
    click.echo("The process ends itself.", err=True)
    end(last_words)

end, run._end_process = run._end_process, end_process
fleet._END = 0.1
main()
"""
FILE = HEADER + b"".join(f"{some_id(1)},blocks,{some_id(n)}\n".encode() for n in range(2, 6))


@pytest.fixture
async def variables(sandbox: Sandbox, database: str) -> dict[str, str]:
    """Return an environment for the sandbox and a database with the tables."""
    variables = pointing_at(sandbox) | {"CASELINKS_DATABASE": database}
    done = Finished(0, "", "The database is ready.\n")
    assert await fleet(variables, "init") == done
    return variables


async def fleet(variables: dict[str, str], *arguments: str, stdin: bytes = b"") -> Finished:
    done = await caselinks(variables, "fleet", *arguments, stdin=stdin)
    assert PASSWORD not in done.out + done.err
    return done


async def has_progress(variables: dict[str, str], progress: str) -> bool:
    """Return whether ``status`` shows this progress of the only run."""
    return (await fleet(variables, "status")).out.split("\t")[2] == progress


async def until_looked_at(database: str) -> None:
    """Wait until a command has read the runs from the database."""
    looks = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%held_up_by%'"
    async with await psycopg.AsyncConnection.connect(database) as connection:

        async def has_looked() -> bool:
            await connection.rollback()  # otherwise the query would return the same snapshot
            return (await connection.execute(looks + " AND pid <> pg_backend_pid()")).rowcount > 0

        await until(has_looked)


async def test_the_links_of_a_file_are_created(variables: dict[str, str], sandbox: Sandbox) -> None:
    """submit stores the links of a file, a worker creates them, and status shows the result."""
    submitted = await fleet(variables, "submit", "-", stdin=FILE)
    assert submitted == Finished(0, "1\n", f"4 links submitted as run 1, for workers on {sandbox.url}\n")
    assert (await fleet(variables, "status")).out == (
        "run 1\t-\t0 of 4 done\t0 created, 0 already linked, 0 failed, 0 ambiguous\tno progress\n"
    )
    done = await fleet(variables, "worker", "--until-done")
    summary = f"Creating links on {sandbox.url} as they are submitted.\n"
    summary += "4 links created or already linked, 0 failed.\n"
    assert done == Finished(0, "", summary)
    status = await fleet(variables, "status", "--follow")
    assert status == Finished(
        0, "run 1\t-\t4 of 4 done\t4 created, 0 already linked, 0 failed, 0 ambiguous\t\n", ""
    )
    assert len(sandbox.links) == 4


async def test_a_worker_ends_when_its_own_site_is_done(variables: dict[str, str], sandbox: Sandbox) -> None:
    """With --until-done, a worker reports the runs of other sites, and does not wait for them."""
    for site in ("datadoghq.eu", sandbox.url):
        await fleet(variables, "submit", "--quiet", "--site", site, "-", stdin=FILE)
    done = await fleet(variables, "worker", "--until-done")
    assert (done.status, done.err.splitlines()[1:]) == (
        0,
        [
            "Run 1 waits for a worker with --site https://api.datadoghq.eu",
            "4 links created or already linked, 0 failed.",
        ],
    )


async def test_submit_needs_no_keys(variables: dict[str, str], database: str) -> None:
    """submit needs no keys, and a worker without keys names the missing variables."""
    without = environment(CASELINKS_DATABASE=database)
    assert (await fleet(without, "submit", "--quiet", "-", stdin=FILE)) == Finished(0, "1\n", "")
    done = await fleet(without, "worker")
    assert done.status == 2
    assert "DD_API_KEY and DD_APP_KEY are not set" in done.err


async def test_a_malformed_line_keeps_all_from_being_submitted(variables: dict[str, str]) -> None:
    """A malformed line is reported with its number, nothing is submitted, and the status is 2."""
    done = await fleet(variables, "submit", "-", stdin=FILE + b"x,blocks,y\n")
    assert done.status == 2
    assert done.err.splitlines()[0].startswith("line 6: 'x' does not name an entity")
    assert done.err.splitlines()[1] == (
        "Error: nothing was submitted: 1 line is malformed. Fix the problems above, then run the same "
        "command again"
    )
    assert (await fleet(variables, "status")).out == ""


async def test_a_terminal_shows_a_header_and_times(variables: dict[str, str], sandbox: Sandbox) -> None:
    """A terminal shows runs and failed links as tables, with local times and failures in red."""
    status, shown = await on_terminal(variables, "fleet", "status", columns=120)
    assert (status, shown.splitlines()[0].split(".")[0]) == (0, "There are no runs")
    unknown = "".join(f"SHOP-{number},blocks,{some_id(2)}\n" for number in (1, 2))
    await fleet(variables, "submit", "-", stdin=FILE + unknown.encode())
    _, shown = await on_terminal(variables, "fleet", "status", columns=120)
    header, row = shown.splitlines()[:2]
    assert re.sub(r"\x1b\[[0-9;]*m", "", header).split("  ")[0] == "run"
    assert "submitted" in header
    assert re.search(r"1  -  +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +0 of 6 done +0 +0 +0 +0  no progress", row)
    assert "\x1b[1;31m" not in row
    await fleet(variables, "worker", "--until-done", "--quiet")
    status, shown = await on_terminal(variables, "fleet", "status", columns=120)
    assert status == 1
    assert re.search(r"6 of 6 done +4 +0  \x1b\[1;31m +2\x1b\[0m +0$", shown.splitlines()[1].rstrip())
    status, shown = await on_terminal(variables, "fleet", "status", "--failed", columns=120)
    assert status == 1
    assert re.search(r"run +line +time +status +link", re.sub(r"\x1b\[[0-9;]*m", "", shown))
    assert "\x1b[1;31mfailed" in shown
    assert f"\x1b[1;31mfailed\x1b[0m     SHOP-1 blocks {some_id(2)}" in shown
    assert "    cannot get case SHOP-1: 404 case not found. It does not exist" in shown


@pytest.mark.parametrize("arguments", [["--help"], ["submit", "--help"], ["worker", "--help"]])
def test_help_needs_no_extra(arguments: list[str]) -> None:
    """The help of each command works without the extra, and the command itself names the extra."""
    program = (
        "import sys; sys.modules['procrastinate'] = None\nfrom datadog_caselinks.cli import main\nmain()"
    )

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program, "fleet", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=MAX_SECONDS, check=False)

    done = run(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: ")
    done = run("status")
    hint = "In the folder of the project, run: pip install '.[distributed]'"
    assert (done.returncode, done.stderr) == (
        2,
        f"Error: datadog_caselinks.fleet needs the extra distributed. {hint}\n",
    )


async def test_a_database_that_is_not_named(tmp_path: Path) -> None:
    """An error says how to specify a database only if none is specified."""
    names = {"PGHOST", "PGHOSTADDR", "PGSERVICE", "PGPORT", "PGDATABASE", "CASELINKS_DATABASE"}
    variables = {name: value for name, value in environment().items() if name not in names}
    done = await fleet(variables, "status")
    assert done.status == 2
    assert done.err.startswith(
        "Error: no database is named: set CASELINKS_DATABASE or use --database, such as "
        "postgresql://USER@HOST/NAME. Without it, cannot use the database: "
    )
    for named in ({"PGHOST": str(tmp_path)}, {"CASELINKS_DATABASE": f"host={tmp_path}"}):
        done = await fleet(variables | named, "status")
        assert (done.status, done.err.startswith("Error: cannot use the database: ")) == (2, True)


async def test_lines_that_repeat_a_link_are_reported(variables: dict[str, str], sandbox: Sandbox) -> None:
    """Repeated lines are skipped and counted."""
    done = await fleet(variables, "submit", "-", stdin=FILE + FILE.splitlines(keepends=True)[1])
    assert done.err.splitlines() == [
        "Skipped 1 line that repeats another line.",
        f"4 links submitted as run 1, for workers on {sandbox.url}",
    ]


async def test_links_that_failed_are_listed_and_tried_again(
    variables: dict[str, str], sandbox: Sandbox
) -> None:
    """Failed links are listed with line and error, and retry-failed submits them again.

    The worker says that the command that lists them needs the same option --database.
    """
    await fleet(variables, "submit", "-", stdin=HEADER + f"SHOP-1,blocks,{some_id(2)}\n".encode())
    done = await fleet(
        variables | {"CASELINKS_DATABASE": ""},
        *("worker", "--until-done", "--database", variables["CASELINKS_DATABASE"]),
    )
    assert done.status == 1
    assert done.err.splitlines()[1].startswith("run 1, line 2: failed: cannot get case SHOP-1: 404")
    assert done.err.splitlines()[-1] == (
        "1 link of these runs is failed or ambiguous. To list them: caselinks fleet status --failed "
        "(with the same --database)"
    )
    await fleet(variables, "retry-failed")
    done = await fleet(variables, "worker", "--until-done")
    assert done.err.splitlines()[-1].endswith("To list them: caselinks fleet status --failed")
    assert (await fleet(variables, "worker", "--until-done")).status == 0  # nothing was left to do
    assert (await fleet(variables, "status", "--quiet")).status == 1
    listed = await fleet(variables, "status", "--failed")
    assert listed.out.startswith(
        f"run 1\tline 2\tfailed\tSHOP-1 blocks {some_id(2)}\tcannot get case SHOP-1: 404"
    )
    (record,) = json.loads((await fleet(variables, "status", "--failed", "--output", "json")).out)
    assert (record["run"], record["number"], record["status"]) == (1, 2, "failed")
    sandbox.add_case("SHOP-1", id=some_id(1))
    assert (await fleet(variables, "retry-failed", "--run", "1")).err == "1 link submitted again.\n"
    assert (await fleet(variables, "retry-failed", "--quiet")).err == ""
    assert (await fleet(variables, "worker", "--until-done", "--quiet")) == Finished(0, "", "")
    assert (await fleet(variables, "status", "--run", "1")).status == 0
    assert len(sandbox.links) == 1


def test_a_link_that_may_have_been_created_is_ambiguous(capsys: pytest.CaptureFixture[str]) -> None:
    """A link that may have been created is reported as ambiguous, and not as failed."""
    new = case(some_id(1)).blocks(case(some_id(2)))
    report = cli_fleet._WorkerReport(Screen())
    error = AmbiguousResultError("who knows", new=new, reason=CaseLinksError("lost"))
    report.add(3, 7, Failed(new, error, 0))
    assert capsys.readouterr().err == "run 3, line 7: ambiguous: who knows\n"
    assert report.summary == "0 links created or already linked, 0 failed, 1 ambiguous."


async def test_a_run_that_is_not_there_is_reported(variables: dict[str, str]) -> None:
    """An unknown run number is an error with status 2, not a run without links."""
    for command in ("status", "retry-failed"):
        done = await fleet(variables, command, "--run", "7")
        assert done.status == 2
        assert done.err.endswith("Error: run 7 does not exist. To see all runs: caselinks fleet status\n")


async def test_what_is_empty_is_reported(variables: dict[str, str], sandbox: Sandbox) -> None:
    """If there are no links to submit, no runs or no failed links, the command says so."""
    hint = "There are no runs. To submit the links in a file: caselinks fleet submit FILE\n"
    assert await fleet(variables, "status") == Finished(0, "", hint)
    done = await fleet(variables, "submit", "-", stdin=FILE.splitlines(keepends=True)[0])
    assert (
        done.err == f"0 links submitted as run 1, for workers on {sandbox.url}\nThe file contains no links.\n"
    )
    await fleet(variables, "submit", "-", stdin=FILE)
    assert await fleet(variables, "status", "--failed") == Finished(
        0, "", "No link is failed or ambiguous.\n"
    )
    assert await fleet(variables, "status", "--failed", "--quiet") == Finished(0, "", "")


async def test_status_as_json(variables: dict[str, str]) -> None:
    """JSON contains every known detail of a run."""
    await fleet(variables, "submit", "--site", "datadoghq.eu", "-", stdin=FILE)
    record = json.loads((await fleet(variables, "status", "--output", "jsonl")).out)
    assert record["site"] == "https://api.datadoghq.eu"
    assert (record["links"], record["pending"], record["rate"], record["seconds_left"]) == (4, 4, 0, None)


async def test_a_worker_ends_after_what_is_in_flight(variables: dict[str, str], sandbox: Sandbox) -> None:
    """SIGTERM ends a worker after its links in flight, with status 143 and a summary."""
    await fleet(variables, "submit", "--quiet", "-", stdin=FILE)
    sandbox.fail_next(Fault.DELAY, operation="create", count=4, seconds=0.5)
    worker = await start(variables, "fleet", "worker")
    await until(lambda: sandbox.links)
    worker.send_signal(signal.SIGTERM)
    _, err = await worker.communicate()
    assert worker.returncode == 143
    assert err.decode().splitlines()[1:] == [
        "4 links created or already linked, 0 failed. To continue, start a worker on any machine.",
        "Interrupted.",
    ]
    assert (await fleet(variables, "status")).out.split("\t")[2] == "4 of 4 done"


async def test_a_worker_goes_on_without_a_reader(variables: dict[str, str], sandbox: Sandbox) -> None:
    """A worker whose output is closed still creates every link and ends with its usual status."""
    sandbox.fail_next(Fault.TRUNCATED, operation="create")  # this logs a lookup
    await fleet(variables, "submit", "--quiet", "-", stdin=FILE)
    reader, writer = os.pipe()
    os.close(reader)
    empty = os.open(os.devnull, os.O_RDONLY)
    worker = await start_on(
        (empty, writer, writer), variables, "fleet", "worker", "--until-done", "--verbose"
    )
    os.close(empty)
    os.close(writer)
    assert await worker.wait() == 0
    assert (await fleet(variables, "status")).out.split("\t")[2] == "4 of 4 done"


async def test_a_run_that_cannot_print_its_number(variables: dict[str, str], sandbox: Sandbox) -> None:
    """A submission whose number cannot be printed shows it on standard error."""
    (stdin, ours), (shown, err) = os.pipe(), os.pipe()
    full = os.open("/dev/full", os.O_WRONLY)
    submission = await start_on((stdin, full, err), variables, "fleet", "submit", "-")
    for each in (stdin, full, err):
        os.close(each)
    with open(ours, "wb") as file, open(shown, "rb") as messages:  # noqa: ASYNC230 - they are short
        file.write(FILE)
        file.close()
        assert await submission.wait() == 1
        assert messages.read().startswith(
            f"4 links submitted as run 1, for workers on {sandbox.url}\nError: cannot write".encode()
        )


async def test_progress_is_shown_live(variables: dict[str, str]) -> None:
    """On a terminal, status --follow shows a progress bar until every link has an outcome."""
    await fleet(variables, "submit", "--quiet", "-", stdin=FILE)
    following = asyncio.ensure_future(on_terminal(variables, "fleet", "status", "--follow"))
    await until_looked_at(variables["CASELINKS_DATABASE"])
    assert (await fleet(variables, "worker", "--until-done")).status == 0
    status, shown = await following
    assert status == 0
    assert "0/4" in shown
    assert "4 of 4 done" in shown


async def test_why_the_links_have_to_wait_is_shown(variables: dict[str, str], sandbox: Sandbox) -> None:
    """Refused keys are reported by the worker and by status, and no link is created."""
    await fleet(variables, "submit", "--quiet", "-", stdin=FILE)
    refused = variables | {"DD_API_KEY": "another-key-0123456789", "DD_APP_KEY": "another-key-9876543210"}
    worker = await start(refused, "fleet", "worker", "--verbose", "--quiet")
    follow = await start(variables, "fleet", "status", "--follow")
    error = (await worker.stderr.readline()).decode()
    assert error.startswith("Cannot create links: ")
    assert "401" in error
    shown = (await follow.stderr.readline()).decode()
    assert shown.startswith("run 1 is held up and will be retried: ")
    for process, by in ((worker, signal.SIGTERM), (follow, signal.SIGINT)):
        process.send_signal(by)
        await process.communicate()
    assert (worker.returncode, follow.returncode) == (143, 130)
    assert "run 1 is held up" in (await fleet(variables, "status")).err
    assert not sandbox.links


@pytest.mark.parametrize("command", [["init"], ["status"], ["worker"], ["retry-failed"], ["submit", "-"]])
async def test_a_database_that_is_not_there_is_reported(sandbox: Sandbox, command: list[str]) -> None:
    """An unreachable database is reported in one line, with status 2."""
    url = f"postgresql://fleet:{PASSWORD}@127.0.0.1:{unused_port()}/fleet"
    done = await fleet(pointing_at(sandbox), *command, "--database", url)
    assert done.status == 2
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith("Error: cannot use the database: ")


def test_without_its_extra_it_says_what_to_install() -> None:
    """Without its extra, fleet names the extra in one line with status 2."""
    program = "import sys; sys.modules['psycopg'] = None; from datadog_caselinks.cli import main; main()"
    command = [sys.executable, "-c", program, "fleet", "status"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    hint = "In the folder of the project, run: pip install '.[distributed]'"
    assert done.stderr == f"Error: datadog_caselinks.fleet needs the extra distributed. {hint}\n"
    assert done.returncode == 2


async def test_the_database_is_named_as_libpq_does(variables: dict[str, str], database: str) -> None:
    """The database can be specified by ``PGHOST`` and the other variables of libpq."""
    host, port = database.partition("@")[2].partition("/")[0].split(":")
    name = database.rpartition("/")[2]
    named = environment(PGHOST=host, PGPORT=port, PGUSER="fleet", PGDATABASE=name, PGPASSWORD=PASSWORD)
    assert await fleet(named, "status", "--quiet") == Finished(0, "", "")


async def test_keys_are_nowhere_in_the_database(
    variables: dict[str, str], sandbox: Sandbox, database: str, tmp_path: Path
) -> None:
    """The keys are stored nowhere in the database, neither in jobs nor in errors."""
    keys = ApiKeys(api_key="a-secret-api-key-0123456789", app_key="a-secret-app-key-0123456789")
    await fleet(variables, "submit", "--quiet", "-", stdin=FILE)
    refused = variables | {"DD_API_KEY": keys.api_key, "DD_APP_KEY": keys.app_key}
    worker = await start(refused, "fleet", "worker", "--quiet")
    await worker.stderr.readline()
    worker.send_signal(signal.SIGTERM)
    await worker.communicate()
    with psycopg.connect(database) as connection:
        rows = [
            row
            for table in ("caselinks_links", "caselinks_runs", "procrastinate_jobs")
            for row in connection.execute(f"SELECT row_to_json(t)::text FROM {table} t".encode())
        ]
    assert "401" in str(rows)
    assert "secret" not in str(rows)


class TestADatabaseThatHangs:
    """A database that accepts connections but does not respond, as over a broken network."""

    @pytest.fixture
    async def hanging(self, database: str) -> AsyncIterator[Forwarder]:
        async with Forwarder(int(urlsplit(database).port or 0)).running() as forwarder:
            yield forwarder

    @pytest.fixture
    def through(self, variables: dict[str, str], hanging: Forwarder) -> dict[str, str]:
        """Return an environment that reaches the database through the forwarder."""
        url = urlsplit(variables["CASELINKS_DATABASE"])
        address = url.netloc.replace(f":{url.port}", f":{hanging.port}")
        return variables | {"CASELINKS_DATABASE": url._replace(netloc=address).geturl()}

    @pytest.mark.parametrize("is_busy", [True, False])
    async def test_a_worker_ends_within_ten_seconds(
        self,
        variables: dict[str, str],
        through: dict[str, str],
        hanging: Forwarder,
        sandbox: Sandbox,
        is_busy: bool,
    ) -> None:
        """SIGTERM ends a worker within ten seconds, with the status of the signal and a summary.

        The worker ends its own process after a given time, which the test shortens.
        """
        assert cli_fleet._END + run._SPEAKING < 10
        sandbox.fail_next(Fault.DELAY, operation="create", count=1, seconds=10 * MAX_SECONDS)
        if is_busy:
            await fleet(through, "submit", "--quiet", "-", stdin=FILE)
        worker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", REPORTS_ITS_END, "fleet", "worker"), env=through, stderr=subprocess.PIPE
        )
        assert worker.stderr
        await worker.stderr.readline()
        if is_busy:
            await until(lambda: has_progress(variables, "3 of 4 done"))
        hanging.hang()
        worker.send_signal(signal.SIGTERM)
        try:
            _, err = await asyncio.wait_for(worker.communicate(), MAX_SECONDS)
        finally:
            if worker.returncode is None:
                worker.kill()
        assert worker.returncode == 143
        assert err.decode().splitlines()[-3:] == [
            "The process ends itself.",
            f"{3 if is_busy else 0} links created or already linked, 0 failed. "
            "To continue, start a worker on any machine.",
            "Interrupted.",
        ]

    @pytest.mark.parametrize("command", [["worker"], ["status", "--follow"], ["submit", "-"], ["init"]])
    async def test_a_second_signal_ends_any_command_at_once(
        self, through: dict[str, str], hanging: Forwarder, command: list[str]
    ) -> None:
        """A second signal ends any command immediately, even while it connects to the database.

        If the first signal has already ended the work, the second one has its default effect, without a
        message.
        """
        hanging.hang()
        before = hanging.connections
        process = await start(through, "fleet", *command)
        await until(lambda: hanging.connections != before)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        _, err = await process.communicate()
        assert process.returncode in (130, 143, -signal.SIGTERM)
        assert process.returncode < 0 or err.decode().splitlines()[-1] == "Interrupted."
        assert "Traceback" not in err.decode()
