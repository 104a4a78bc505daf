"""``caselinks bulk`` with spreadsheets: the options for reading them, and the file of rejected lines."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import pytest

from datadog_caselinks.sandbox import Sandbox
from tests.cli.bulk import bulk
from tests.cli.program import caselinks, environment, pointing_at, start, start_on
from tests.cli.waits import waiting_for_nothing
from tests.support.server import Server
from tests.support.steps import answers, created, drops

A = "4417921d-0866-4a38-822c-6f2a0f65f77d"
B = "bf0cbac6-4c16-4cfb-b6bf-ca5e0ec37a4f"
HEADER = "From|Kind|To|note\n"
COLUMNS = ("parent=From", "Relationship=kind", "child=To")
OPTIONS = ("--delimiter", "|", *(word for column in COLUMNS for word in ("--column", column)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "links.csv"
    path.write_text(f'{HEADER}{A}|blocked by|{B}|ok\n{A}|bloks|{B}|"1\n2"\n{A}|blocks|x|\n')
    return path


async def test_delimiter_and_columns(sandbox: Sandbox, tmp_path: Path) -> None:
    """bulk and plan read a file with the given delimiter and column names."""
    path = tmp_path / "links.csv"
    path.write_text(f"{HEADER}{A}|blocked by|{B}|\n")
    planned = await caselinks(pointing_at(sandbox), "plan", *OPTIONS, str(path))
    assert (planned.status, planned.out) == (0, f"+ {B} blocks {A}\n")
    done = await bulk(pointing_at(sandbox), *OPTIONS, str(path))
    assert (done.status, [link.parent_entity_id for link in sandbox.links]) == (0, [B])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--column", "parent"), "--column must be COLUMN=NAME, such as parent=From, not 'parent'"),
        (("--column", "parent= "), "--column must be COLUMN=NAME"),
        (("--column", "parent=a", "--column", "Parent=b"), "--column parent appears twice"),
        (("--column", "prnt=a"), "unknown column 'prnt' of a link"),
        (("--delimiter", "||"), "delimiter must be one character"),
        (("--rejects", "bad.jsonl"), "--rejects must have the suffix of the same format as FILE"),
        (("--rejects", "/nowhere/bad.csv"), "/nowhere/bad.csv"),
    ],
)
async def test_options_that_cannot_be(file: Path, options: tuple[str, ...], says: str) -> None:
    """An invalid option is reported in one line, nothing is sent, and the status is 2."""
    done = await bulk(environment(), "--sandbox", *options, str(file))
    assert says in done.err
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)


async def test_the_input_is_not_overwritten(file: Path) -> None:
    """The file of rejected lines must not be the input file."""
    before = file.read_bytes()  # noqa: ASYNC240 - it does not block
    done = await bulk(environment(), "--sandbox", "--rejects", str(file), str(file))
    assert "must not overwrite" in done.err
    assert (done.status, file.read_bytes()) == (2, before)  # noqa: ASYNC240 - as above


@pytest.mark.parametrize(
    ("journal", "rejects"),
    [
        ("same", "same"),
        ("same", "./same"),
        ("{}/same", "same"),
        ("link", "same"),
        ("same", "link"),
        ("same~", "same"),
        ("same", "same-wal"),
        ("link", "same-shm"),
        ("same", "same-lock"),
        ("same", "same-journal"),
    ],
)
async def test_the_journal_is_not_overwritten(
    sandbox: Sandbox, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal: str, rejects: str
) -> None:
    """The file of rejected lines must not be one of the journal, under any name, before any file exists."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("same")
    options = (*OPTIONS, "--journal", journal.format(tmp_path), "--rejects", rejects)
    done = await bulk(pointing_at(sandbox), *options, str(file))
    assert "rejected lines must not overwrite" in done.err
    assert (done.status, list(sandbox.links)) == (2, [])
    assert sorted(os.listdir()) == ["link", "links.csv"]


async def test_a_journal_survives_a_file_of_rejects_beside_it(
    sandbox: Sandbox, file: Path, tmp_path: Path
) -> None:
    """A run keeps its journal and its rejected lines, so that it can be undone and continued."""
    journal, rejects = str(tmp_path / "run"), str(tmp_path / "run.csv")
    done = await bulk(pointing_at(sandbox), *OPTIONS, "--journal", journal, "--rejects", rejects, str(file))
    assert done.status == 1
    undone = await caselinks(pointing_at(sandbox), "undo", "--yes", journal)
    assert (undone.status, list(sandbox.links)) == (0, [])


@pytest.mark.parametrize("option", ["--journal", "--rejects"])
@pytest.mark.parametrize(("out", "err"), [("same", "other"), ("other", "same")])
async def test_a_file_of_the_shell_is_not_used(
    sandbox: Sandbox, file: Path, tmp_path: Path, option: str, out: str, err: str
) -> None:
    """The command refuses its redirected output as the journal, and as the file of rejected lines."""
    used = tmp_path / "same"
    empty = os.open(os.devnull, os.O_RDONLY)
    to_out, to_err = (os.open(tmp_path / name, os.O_CREAT | os.O_WRONLY) for name in (out, err))
    options = (*OPTIONS, "--output", "jsonl", option, str(used), str(file))
    process = await start_on((empty, to_out, to_err), pointing_at(sandbox), "bulk", *options)
    for descriptor in (empty, to_out, to_err):
        os.close(descriptor)
    assert await process.wait() == 2
    shown = (tmp_path / err).read_text()
    reason = "standard output or standard error is written to"
    assert shown == f"Error: {reason} {used}: name another file for {option}\n"
    assert list(sandbox.links) == []


async def test_an_earlier_file_of_rejects_is_kept(sandbox: Sandbox, file: Path, tmp_path: Path) -> None:
    """Each run that rejects a line keeps the earlier file and says so, also with --quiet; others leave it."""
    bad = tmp_path / "bad.csv"
    options = (*OPTIONS, "--quiet", "--rejects", str(bad))
    first = await bulk(pointing_at(sandbox), *options, str(file))
    assert "was moved to" not in first.err
    for backup in (tmp_path / "bad.csv~", tmp_path / "bad.csv~2"):
        fixed = f"{bad.read_text()}fixed by hand"
        bad.write_text(fixed)
        again = await bulk(pointing_at(sandbox), *options, str(file))
        assert again.err.startswith(f"The earlier {bad} was moved to {backup}.\n")
        assert again.err.count("was moved to") == 1
        assert backup.read_text() == fixed
    good = tmp_path / "good.csv"
    good.write_text(f"{HEADER}{A}|blocked by|{B}|ok\n")
    before = bad.read_text()
    done = await bulk(pointing_at(sandbox), *options, str(good))
    assert (done.status, bad.read_text()) == (0, before)


async def test_a_run_that_stops_keeps_the_earlier_rejects(sandbox: Sandbox, tmp_path: Path) -> None:
    """A run that fails before its first rejected line leaves the file of an earlier run unchanged."""
    bad = tmp_path / "bad.csv"
    bad.write_text("by hand")
    done = await bulk(pointing_at(sandbox), "--rejects", str(bad), "-", stdin=b"a,b\n")
    assert (done.status, bad.read_text(), os.listdir(tmp_path)) == (2, "by hand", ["bad.csv"])


async def test_incident_numbers_and_comments(sandbox: Sandbox, tmp_path: Path) -> None:
    """A row from #101 is a link, and a note says how many rows were skipped as comments."""
    path = tmp_path / "links.csv"
    path.write_text(
        f'parent,parent_type,relationship,child\n#101,INCIDENT,causes,{A}\n"#102",INCIDENT,causes,{A}\n'
        f"# 103,INCIDENT,causes,{A}\n\n#{A},,blocks,{B}\n"
    )
    done = await bulk(pointing_at(sandbox), "--output", "jsonl", str(path))
    shown = [json.loads(line) for line in done.out.splitlines()]
    assert [(each["line"], each["parent"]) for each in shown] == [(2, "incident:101"), (3, "incident:102")]
    assert "Skipped as comments: 2 lines, the first is line 4." in done.err


@pytest.mark.parametrize("strict", [(), ("--strict",)])
async def test_rejected_lines_are_fixed_and_run_again(
    sandbox: Sandbox, file: Path, tmp_path: Path, strict: tuple[str, ...]
) -> None:
    """Rejected lines keep the format of the input, so the same command creates the fixed ones."""
    bad, again = tmp_path / "bad.csv", tmp_path / "again.csv"
    done = await bulk(pointing_at(sandbox), *OPTIONS, *strict, "--rejects", str(bad), str(file))
    assert done.status == (2 if strict else 1)
    head, first, second, third = bad.read_text().splitlines()
    assert head == f"{HEADER.strip()}|rejected_because"
    assert first == f'{A}|bloks|{B}|"1'
    assert second.startswith("2\"|\"line 3: unknown relationship 'bloks'; did you mean blocks? Use one of ")
    assert "|\"line 5: 'x' does not name an entity; write " in third
    if not strict:
        summary = f"To continue, fix the 2 lines in {bad}, then run this command:\n  caselinks bulk "
        assert done.err.endswith(f"{summary}{shlex.join(OPTIONS)} {bad}\n")
    bad.write_text(bad.read_text().replace("|bloks|", "|blocks|").replace("|x|", f"|{B}|"))
    done = await bulk(pointing_at(sandbox), *OPTIONS, "--rejects", str(again), str(bad))
    assert done.status == 0
    assert not again.exists()


async def test_links_that_the_server_refuses_are_rejected(tmp_path: Path) -> None:
    """A failed link is rejected with its line and error, and the suggested command uses the lookup again."""
    bad = tmp_path / "bad.jsonl"
    link = f'{{"parent":"{A}", "relationship": "blocks", "child":"{B}"}}'
    async with Server(created, answers(404), drops, answers(403)) as server:
        variables = environment(DD_SITE=server.url, DD_API_KEY="secret-a", DD_APP_KEY="secret-b")
        options = ("--no-lookup", "--concurrency", "1", "--attempts", "1", "--rejects", str(bad), "-")
        done = await bulk(waiting_for_nothing(variables), *options, stdin=f"{link}\n".encode() * 3)
    failed, ambiguous = bad.read_text().splitlines()
    assert failed.startswith(f'{{"rejected_because": "line 2: cannot create CASE {A} BLOCKS CASE {B}: 404')
    assert failed.endswith(f", {link[1:]}")
    assert ambiguous.startswith('{"rejected_because": "line 3: ')
    assert "The link may have been created" in ambiguous
    assert done.err.endswith(f":\n  caselinks bulk --concurrency 1 --attempts 1 {bad}\n")
    assert done.status == 1


async def test_rejected_lines_that_cannot_be_written(file: Path) -> None:
    """A full disk for the rejected lines ends the run with a message and status 1."""
    done = await bulk(environment(), "--sandbox", *OPTIONS, "--rejects", "/dev/full", str(file))
    assert "cannot write the rejected lines: [Errno 28] No space left on device" in done.err
    assert "Stopped: no later line was sent." in done.err
    assert done.status == 1


async def test_a_kill_loses_no_rejected_line(sandbox: Sandbox, tmp_path: Path) -> None:
    """Each rejected line is in the file when it is reported, so a kill loses none."""
    bad = tmp_path / "bad.csv"
    process = await start(pointing_at(sandbox), "bulk", "--rejects", str(bad), "-")
    process.stdin.write(f"parent,relationship,child\n{A},bloks,{B}\n".encode())
    await process.stdin.drain()
    assert (await process.stderr.readline()).startswith(b"line 2: unknown relationship")
    process.kill()
    await process.communicate()
    assert f'\n{A},bloks,{B},"line 2: unknown relationship' in bad.read_text()


async def test_relationships_in_words(sandbox: Sandbox) -> None:
    """create and list --relationship accept the same words as a file of links."""
    first, second = "SHOP-31", "SHOP-32"
    done = await caselinks(environment(), "create", "--sandbox", first, "is blocked by", second)
    assert done.out.split("\t")[1:4] == [second, "blocks", first]
    done = await caselinks(environment(), "create", "--sandbox", first, "blocked", second)
    assert "did you mean blocked by or blocks?" in done.err
    done = await caselinks(environment(), "list", "--sandbox", "SHOP-23", "--relationship", "Parent of")
    assert done.status == 0
