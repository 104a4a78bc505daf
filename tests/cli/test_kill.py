"""Bulk runs with a journal that are killed at random moments: no link is lost or created twice."""

from __future__ import annotations

import asyncio
import os
import random
import shlex
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections import Counter
from pathlib import Path

from datadog_caselinks import case, read_journal
from datadog_caselinks.sandbox import Fault, Sandbox
from tests.cli.bulk import HEADER, bulk
from tests.cli.program import Program, caselinks, environment, pointing_at, start
from tests.cli.waits import waiting_for_nothing
from tests.support.ids import some_id
from tests.support.server import Server
from tests.support.steps import created, is_silent, link_id
from tests.support.waiting import until

LINKS = 400
TWICE = 20  # lines that appear twice in the file


def wanted(number: int) -> tuple[str, str]:
    return some_id(number % 10 + 1), some_id(number + 100)


def write_file(path: Path, links: int = LINKS, twice: int = TWICE) -> None:
    numbers = [*range(links), *range(twice)]
    lines = [f"{parent},CASE,BLOCKS,{child},CASE" for parent, child in map(wanted, numbers)]
    path.write_text(HEADER + "\n".join(lines) + "\n")


async def kill_at(process: Program, sandbox: Sandbox, requests: int) -> bool:
    """Kill ``process`` after ``requests`` requests; return whether it was still running."""
    await until(lambda: len(sandbox.requests) >= requests or process.returncode is not None)
    if process.returncode is None:
        process.send_signal(signal.SIGKILL)
    await process.communicate()
    return process.returncode == -signal.SIGKILL


async def test_twenty_kills(tmp_path: Path) -> None:
    """After ``kill -9`` at any moment, the same command creates the missing links, and no link twice.

    Four files are each killed five times.
    """
    await asyncio.gather(*(five_kills(tmp_path / str(number)) for number in range(4)))


async def five_kills(folder: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it if the test fails
    draw = random.Random(seed)
    folder.mkdir()  # noqa: ASYNC240 - it does not block
    file, journal = folder / "links.csv", folder / "run.journal"
    write_file(file, 100, 5)
    kills = 0
    async with Sandbox(faults=["lost-response:2%", "503:2%", "504-applied:2%"], fault_seed=seed) as sandbox:
        variables = waiting_for_nothing(pointing_at(sandbox))
        arguments = ("bulk", "--quiet", "--concurrency", "20", "--journal", str(journal), str(file))
        for _ in range(5):
            process = await start(variables, *arguments)
            kills += await kill_at(process, sandbox, len(sandbox.requests) + draw.randrange(20))
        done = await caselinks(variables, *arguments)
        assert (done.status, done.out) == (0, ""), done.err
        made = Counter((link.parent_entity_id, link.child_entity_id) for link in sandbox.links)
        ids = {link.id for link in sandbox.links}
    assert made == Counter(map(wanted, range(100))), "lost or twice"
    assert kills == 5
    records = list(read_journal(journal))
    assert {(record.new.parent.id, record.new.child.id) for record in records} == set(made)
    assert {record.link_id for record in records} == ids


async def test_a_journal_in_use_is_refused(tmp_path: Path) -> None:
    """A second run with a journal in use is refused with status 2 and sends nothing."""
    file, journal = tmp_path / "links.csv", tmp_path / "run.journal"
    write_file(file)
    async with Sandbox(faults=["delay=30"]) as sandbox:
        arguments = ("bulk", "--no-lookup", "--concurrency", "1", "--journal", str(journal), str(file))
        first = await start(pointing_at(sandbox), *arguments)
        await until(lambda: bool(sandbox.links))
        second = await caselinks(pointing_at(sandbox), *arguments)
        seen = len(sandbox.requests)
        first.kill()
        await first.communicate()
    assert (second.status, second.out) == (2, "")
    assert "is in use by another run" in second.err
    assert len(second.err.splitlines()) == 1
    assert seen == 1


async def test_what_the_journal_holds(tmp_path: Path) -> None:
    """``journal show`` lists each link with its status; links in flight at the kill are ambiguous."""
    file, journal = tmp_path / "links.csv", tmp_path / "run.journal"
    write_file(file)
    async with Server(created, created, is_silent) as server:
        variables = environment(DD_SITE=server.url, DD_API_KEY="an-api-key", DD_APP_KEY="an-app-key")
        arguments = ("bulk", "--quiet", "--no-lookup", "--concurrency", "1", "--journal", str(journal))
        process = await start(variables, *arguments, str(file))
        await server.until_seen(3)
        process.kill()
        await process.communicate()
        first, second, _ = (link_id(seen.json["data"]["attributes"]) for seen in server.seen)
    shown = await start(environment(), "journal", "show", str(journal))
    out, err = await shown.communicate()
    lines = [line.split("\t") for line in out.decode().splitlines()]
    assert shown.returncode == 0
    assert [(line[0], line[3]) for line in lines] == [
        ("created", first),
        ("created", second),
        ("ambiguous", ""),
    ]
    assert err.decode() == "1 ambiguous, 2 created, 0 already_linked, 0 failed.\n"
    shown = await start(environment(), "journal", "show", "--status", "ambiguous", str(journal))
    only, _ = await shown.communicate()
    assert shown.returncode == 0
    assert only.decode().splitlines() == ["\t".join(lines[2])]
    shown = await start(environment(), "journal", "show", "--status", "failed", str(journal))
    assert await shown.communicate() == (b"", err)  # no link failed, and the counts include all links


async def test_no_journal_is_reported_in_a_line(tmp_path: Path) -> None:
    """A missing file or another file is refused in one line with status 2, and is not changed."""
    (tmp_path / "other").write_text(str(case(some_id(1))))
    for name, expected in (
        ("missing", "does not exist"),
        ("other", "is not a journal, and was left unchanged"),
    ):
        shown = await start(environment(), "journal", "show", str(tmp_path / name))
        out, err = await shown.communicate()
        assert (shown.returncode, out) == (2, b"")
        assert expected in err.decode()
        assert len(err.decode().splitlines()) == 1
    assert os.listdir(tmp_path) == ["other"]


async def test_an_outage_ends_the_run_and_the_journal_goes_on(tmp_path: Path) -> None:
    """During an outage no later line is sent, and the run ends with the command that continues it."""
    file, journal = tmp_path / "links.csv", tmp_path / "run.journal"
    write_file(file, 3000)
    async with Sandbox() as sandbox:
        sandbox.fail_next(Fault.HTTP_503, count=10_000)
        arguments = (
            "--quiet",
            "--attempts",
            "6",
            "--concurrency",
            "600",
            "--journal",
            str(journal),
            str(file),
        )
        first = await bulk(waiting_for_nothing(pointing_at(sandbox)), *arguments)
        asked_for = {request.body for request in sandbox.requests if request.method == "POST"}
    assert first.status == 1
    assert len(asked_for) < 3000
    assert "No further retries: most recent requests have failed" in first.err
    *_, then, command = first.err.splitlines()
    assert then.endswith("then run this command (the journal records what is done):")
    assert command == f"  {shlex.join(['caselinks', 'bulk', *arguments])}"


async def test_a_limit_that_is_used_up_for_long_ends_the_run(tmp_path: Path) -> None:
    """A wait above --max-wait ends the run: the reason is reported once, and no later line is sent."""
    file, journal = tmp_path / "links.csv", tmp_path / "run.journal"
    write_file(file)
    async with Sandbox() as sandbox:
        sandbox.fail_next(Fault.HTTP_429_RETRY_AFTER, seconds=1000)
        arguments = ("--quiet", "--max-wait", "900", "--journal", str(journal), str(file))
        done = await bulk(pointing_at(sandbox), *arguments)
    assert done.status == 1
    assert len(sandbox.requests) == 1
    assert "The server asks to wait 1000 s" in done.err
    assert "Stopped: line" in done.err
    assert len(done.err.splitlines()) == 5


async def test_nohup_is_respected(tmp_path: Path) -> None:
    """A run under nohup survives SIGHUP and creates every link."""
    file = tmp_path / "links.csv"
    write_file(file)
    async with Sandbox() as sandbox:
        process = await asyncio.create_subprocess_exec(
            *("nohup", sys.executable, "-m", "datadog_caselinks", "bulk", "--quiet", str(file)),
            env=pointing_at(sandbox),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
        )
        await until(lambda: bool(sandbox.requests))
        process.send_signal(signal.SIGHUP)
        _, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        assert len(sandbox.links) == LINKS


async def test_a_journal_that_cannot_be_written_further_ends_the_run(tmp_path: Path) -> None:
    """If the journal cannot be written further, the run sends nothing more and ends with status 1."""
    file, journal = tmp_path / "links.csv", tmp_path / "run.journal"
    write_file(file)
    command = 'ulimit -f 512; exec "$0" -m datadog_caselinks bulk --concurrency 1 --journal "$1" "$2"'
    async with Sandbox() as sandbox:
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", command, sys.executable, str(journal), str(file)),
            env=pointing_at(sandbox),
            stdout=PIPE,
            stderr=PIPE,
        )
        out, err = await process.communicate()
        made = len(sandbox.links)
    shown = err.decode()
    assert process.returncode == 1, shown
    assert f"the journal {journal} cannot be" in shown
    count = out.decode().count("✓")
    assert 0 < count <= made < LINKS
    assert f"{count} links created" in shown
    assert "Traceback" not in shown
