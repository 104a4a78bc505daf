"""``caselinks undo``, run as a program against a sandbox."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

from datadog_caselinks import CaseLinksClient
from datadog_caselinks.bulk.journal import Journal
from datadog_caselinks.bulk.journal_file import Store
from datadog_caselinks.cli import undo
from datadog_caselinks.sandbox import Sandbox
from tests.cli.program import caselinks, environment, on_terminal, pointing_at, start, start_on
from tests.cli.waits import waiting_for_nothing
from tests.support.api import LINKS_PATH, Api
from tests.support.ids import case, some_id
from tests.support.server import Exchange, Server
from tests.support.steps import answers, created, drops, is_silent

LINKS = "parent,relationship,child\nSHOP-1,blocks,SHOP-2\nSHOP-1,blocks,SHOP-3\n"


@pytest.fixture
def sandbox(sandbox: Sandbox) -> Sandbox:
    """Add cases to the shared sandbox."""
    for number in range(1, 4):
        sandbox.add_case(f"SHOP-{number}", f"Case {number}")
    return sandbox


@pytest.fixture
async def journal(sandbox: Sandbox, tmp_path: Path) -> str:
    """Return the journal of a run that found one link and created another."""
    await caselinks(pointing_at(sandbox), "create", "SHOP-1", "blocks", "SHOP-2")
    file, journal = tmp_path / "links.csv", str(tmp_path / "run.journal")
    file.write_text(LINKS)
    await caselinks(pointing_at(sandbox), "bulk", "--journal", journal, str(file))
    assert len(sandbox.links) == 2
    return journal


async def test_it_shows_and_deletes_what_the_run_created(sandbox: Sandbox, journal: str) -> None:
    """undo deletes only the link that the run created, and a second undo has nothing to do."""
    (kept, made) = sandbox.links
    done = await caselinks(pointing_at(sandbox), "undo", "--yes", journal)
    assert (done.status, done.out) == (0, f"- SHOP-1 blocks SHOP-3\t{made.id}\n")
    assert done.err == "1 deleted.\n"
    assert sandbox.links == [kept]
    done = await caselinks(pointing_at(sandbox), "undo", "--yes", journal)
    assert (done.status, done.out) == (0, "")
    assert done.err == "Nothing to undo: the run created none, or all were deleted.\n"


async def test_bulk_says_how_to_undo_its_run(sandbox: Sandbox, tmp_path: Path) -> None:
    """bulk shows the undo command if it has a journal, and otherwise says how to be able to undo a run.

    A run with --output jsonl needs no hint, because its output is a record, and neither does one with
    --sandbox.
    """
    variables = {name: value for name, value in pointing_at(sandbox).items() if name != "DD_SITE"}
    hint = "To be able to undo a run, add --journal FILE.\n"
    lines = [
        f"parent,relationship,child\nSHOP-1,{each},SHOP-2\n".encode()
        for each in ("blocks", "causes", "duplicates")
    ]
    site, journal = ("--site", sandbox.url), str(tmp_path / "run.journal")
    done = await caselinks(variables, "bulk", *site, "-", stdin=lines[0])
    assert done.err.endswith(hint)
    for options in (("--quiet",), ("--output", "jsonl")):
        done = await caselinks(variables, "bulk", *site, *options, "-", stdin=lines[1])
        assert (done.status, "undo" in done.err) == (0, False)
    done = await caselinks(variables, "bulk", *site, "-", stdin=lines[0])
    assert "undo" not in done.err  # nothing was created
    done = await caselinks(
        variables, "bulk", "--sandbox", "-", stdin=b"parent,relationship,child\nSHOP-1,relates-to,SHOP-34\n"
    )
    assert "undo" not in done.err
    done = await caselinks(variables, "bulk", *site, "--journal", journal, "-", stdin=lines[2])
    command = done.err.splitlines()[-1].removeprefix("To undo this run: ").split()
    assert command == ["caselinks", "undo", *site, journal]
    done = await caselinks(variables, *command[1:], "--yes")
    assert (done.status, done.err) == (0, "1 deleted.\n")


async def test_a_dry_run_deletes_nothing(sandbox: Sandbox, journal: str) -> None:
    """undo --dry-run shows the links, and needs neither a terminal nor --yes."""
    done = await caselinks(pointing_at(sandbox), "undo", "--dry-run", journal, "--output", "jsonl")
    record = json.loads(done.out)
    assert (record["action"], record["link"]["child"]["key"]) == ("delete", "SHOP-3")
    assert re.fullmatch(r"1 link to delete on .+\. Nothing was deleted\.\n", done.err)
    assert (done.status, len(sandbox.links)) == (0, 2)
    done = await caselinks(pointing_at(sandbox), "undo", "--dry-run", "--yes", journal)
    assert (done.status, len(sandbox.links)) == (2, 2)


async def test_without_a_terminal_it_needs_yes(sandbox: Sandbox, journal: str) -> None:
    """Without a terminal, undo needs --yes, and nothing is sent."""
    before = len(sandbox.requests)
    done = await caselinks(pointing_at(sandbox), "undo", journal)
    assert (done.status, len(sandbox.requests)) == (2, before)
    assert done.err == "Error: undo cannot ask for confirmation without a terminal; add --yes\n"


async def test_the_output_of_bulk_can_be_undone(sandbox: Sandbox, tmp_path: Path) -> None:
    """undo accepts the JSON Lines of bulk, and a second undo finds the links gone, which is not an error."""
    done = await caselinks(pointing_at(sandbox), "bulk", "--output", "jsonl", "-", stdin=LINKS.encode())
    output = tmp_path / "run.jsonl"
    output.write_text(done.out)
    for outcome, summary in (("deleted", "2 deleted.\n"), ("already_gone", "2 already gone.\n")):
        done = await caselinks(pointing_at(sandbox), "undo", "--yes", "--output", "json", str(output))
        assert [each["outcome"] for each in json.loads(done.out)] == [outcome] * 2
        assert (done.status, done.err, sandbox.links) == (0, summary, [])


async def test_a_file_that_is_not_a_run_is_refused(sandbox: Sandbox, tmp_path: Path) -> None:
    """A file of links is refused without a request, because the run may not have created these links."""
    file = tmp_path / "links.csv"
    file.write_text(LINKS)
    for path in (file, tmp_path / "missing"):
        done = await caselinks(pointing_at(sandbox), "undo", "--yes", str(path))
        assert (done.status, done.err.count("\n"), sandbox.requests) == (2, 1, [])


async def test_a_run_in_use_is_refused(sandbox: Sandbox, journal: str) -> None:
    """A journal in use is refused with status 2, and nothing is deleted."""
    async with Journal(journal, site=sandbox.url):
        done = await caselinks(pointing_at(sandbox), "undo", "--yes", journal)
    assert (done.status, len(sandbox.links)) == (2, 2)
    assert "is in use by another run" in done.err


async def test_what_may_have_been_created_is_reported(sandbox: Sandbox, journal: str, tmp_path: Path) -> None:
    """A link that may have been created is reported with status 1, unless a lookup finds none."""
    unknown, missing = (case(some_id(1)).blocks(case(some_id(number))) for number in (2, 3))
    async with Journal(journal, site=sandbox.url) as opened:
        for new in (unknown, missing):
            async with opened.entry(new):
                pass
    async with CaseLinksClient(sandbox.site, sandbox.credentials) as client:
        found = await client.create_link(unknown)
    for summary in ("1 deleted.", "No other link to undo: the run created none, or all were deleted."):
        done = await caselinks(waiting_for_nothing(pointing_at(sandbox)), "undo", "--yes", journal)
        assert done.status == 1
        first, advice, last = done.err.splitlines()
        assert first == (
            f"Not deleted: {unknown.parent.id} blocks {unknown.child.id} exists with the id {found.id}, and "
            "another process may have created it"
        )
        assert "run caselinks delete with its id" in advice
        assert last == summary
    output = tmp_path / "output.jsonl"
    names = {"parent": "SHOP-1", "relationship": "BLOCKS", "child": "SHOP-3"}
    output.write_text(json.dumps({"line": 7, "outcome": "ambiguous", **names}) + "\n")
    done = await caselinks(pointing_at(sandbox), "undo", "--yes", str(output))
    assert done.err.startswith("Not deleted: line 7 (SHOP-1 blocks SHOP-3) may have been created")
    cut_off = tmp_path / "run.jsonl"
    cut_off.write_text('{"outcome": "failed"}\n{"outco')
    done = await caselinks(pointing_at(sandbox), "undo", "--yes", str(cut_off))
    assert done.status == 1
    assert "the last line is incomplete" in done.err


@pytest.mark.parametrize("record", ["journal", "jsonl", "json"])
async def test_a_link_that_a_lookup_found_is_kept(tmp_path: Path, record: str) -> None:
    """A link found by a lookup may belong to another process: undo names it, keeps it, and ends with 1."""
    api = Api(prefix=some_id(0)[:-1])
    output = tmp_path / "run"
    run = str(output)
    text = "parent,relationship,child\n"
    text += "".join(f"{some_id(1)},blocks,{some_id(number)}\n" for number in (2, 3))
    options = ["--journal", run] if record == "journal" else ["--output", record]

    async def serve(exchange: Exchange) -> None:
        if exchange.seen.target.startswith(LINKS_PATH):
            await api(exchange)
        else:
            await exchange.answer(404, b"{}")

    async with Server(api.applies(drops), serve) as server:
        variables = waiting_for_nothing(
            environment(DD_SITE=server.url, DD_API_KEY="an-api-key", DD_APP_KEY="an-app-key")
        )
        bulk = ["bulk", "--no-lookup", "--concurrency", "1", *options, "-"]
        done = await caselinks(variables, *bulk, stdin=text.encode())
        assert done.status == 0
        theirs, _ = api.links
        if record == "journal":
            assert f"{theirs['id']}\tfound by a lookup\n" in done.out
            shown = await caselinks(variables, "journal", "show", run, "--output", "jsonl")
            assert [json.loads(line)["found_by_lookup"] for line in shown.out.splitlines()] == [True, False]
        else:
            output.write_text(done.out)
        done = await caselinks(variables, "undo", "--yes", "--output", "jsonl", run)
    assert done.status == 1
    named, advice, summary = done.err.splitlines()
    assert named.startswith("Not deleted: ")
    assert f"with the id {theirs['id']}, and another process may have created it" in named
    assert "run caselinks delete with its id" in advice
    assert summary == "1 deleted."
    assert api.links == [theirs]


async def test_links_in_flight_that_do_not_exist_are_undone(sandbox: Sandbox, journal: str) -> None:
    """Undo after an interrupted run ends with status 0 if none of the links in flight were created."""
    async with Journal(journal, site=sandbox.url) as opened:
        for number in range(20):
            async with opened.entry(case(some_id(1)).blocks(case(some_id(100 + number)))):
                pass
    done = await caselinks(waiting_for_nothing(pointing_at(sandbox)), "undo", "--yes", journal)
    assert (done.status, done.err) == (0, "1 deleted.\n")


async def test_many_links_that_may_have_been_created(sandbox: Sandbox, tmp_path: Path) -> None:
    """undo names ten links that may have been created, and counts the others."""
    output = tmp_path / "output.jsonl"
    output.write_text('{"outcome": "ambiguous"}\n' * 13)
    done = await caselinks(pointing_at(sandbox), "undo", "--yes", str(output))
    assert done.err.count("may have been created") == 10
    assert "Not deleted: 3 more\n" in done.err


async def test_a_run_of_another_site_is_refused(sandbox: Sandbox, tmp_path: Path) -> None:
    """undo refuses the output of a run on another site, and sends nothing."""
    done = await caselinks(pointing_at(sandbox), "bulk", "--output", "jsonl", "-", stdin=LINKS.encode())
    output = tmp_path / "run.jsonl"
    output.write_text(done.out)
    async with Sandbox() as other:
        done = await caselinks(pointing_at(other), "undo", "--yes", str(output))
        assert (done.status, other.requests) == (2, [])
        assert f"were created on '{sandbox.url}', and this undo is for {other.url}" in done.err
    assert len(sandbox.links) == 2


async def test_a_failure_is_shown_with_its_link(sandbox: Sandbox, journal: str) -> None:
    """A failed delete is reported with its link and status 1, and undo can be repeated."""
    may_only_read = {"DD_APP_KEY": sandbox.credentials_without_scope.app_key}
    done = await caselinks(
        pointing_at(sandbox) | may_only_read, "undo", "--yes", journal, "--output", "jsonl"
    )
    assert done.status == 1
    assert json.loads(done.out)["outcome"] == "not_deleted"
    first, summary, advice, command = done.err.splitlines()
    assert first.startswith("SHOP-1 blocks SHOP-3: not deleted: cannot delete link ")
    assert summary == "1 not deleted."
    assert advice == "To continue, fix the problem, then run this command (it deletes the rest):"
    assert command == f"  caselinks undo --yes {journal} --output jsonl"
    done = await caselinks(pointing_at(sandbox), "undo", "--yes", journal)
    assert (done.status, len(sandbox.links)) == (0, 1)


async def test_refused_credentials_end_it_after_the_first_link(tmp_path: Path) -> None:
    """Refused credentials end the undo early, and the last message has the reason."""
    output = tmp_path / "run.jsonl"
    parent, child = ({"type": "CASE", "id": some_id(number)} for number in (1, 2))
    links = [
        {"id": some_id(number), "parent": parent, "relationship": "BLOCKS", "child": child}
        for number in range(300)
    ]
    output.write_text("\n".join(json.dumps({"outcome": "created", "link": link}) for link in links))
    async with Server(answers(404, b"{}"), answers(404, b"{}"), *[answers(401)] * 300) as server:
        variables = environment(DD_SITE=server.url, DD_API_KEY="an-api-key", DD_APP_KEY="an-app-key")
        done = await caselinks(variables, "undo", "--yes", str(output), "--quiet")
        assert len(server.seen) < 302
    assert done.status == 1
    first, stopped, *_ = done.err.splitlines()
    assert "401" in first
    assert re.fullmatch(
        r"Stopped: cannot delete link .* 401 .*[^.]\. 299 links not deleted for the same reason\.", stopped
    )


async def test_keys_of_many_cases_are_not_looked_up(
    sandbox: Sandbox, journal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keys of many cases are not looked up, because each lookup takes a request."""
    monkeypatch.setattr(undo, "_MAX_CASES", 1)
    before = len(sandbox.requests)
    done = await caselinks(pointing_at(sandbox), "undo", "--dry-run", journal)
    assert sandbox.links[1].parent_entity_id in done.out
    assert len(sandbox.requests) == before


@pytest.mark.parametrize(
    ("answer", "status", "expected", "left"),
    [
        (b"y\n", 0, "1 deleted.", 1),
        (b"n\n", 1, "Nothing was deleted.", 2),
        (b"", 130, "Nothing was deleted.\r\nInterrupted.", 2),
    ],
)
@pytest.mark.parametrize("options", [(), ("--output", "jsonl")])
async def test_on_a_terminal_it_shows_the_links_and_asks(
    sandbox: Sandbox,
    journal: str,
    answer: bytes,
    status: int,
    expected: str,
    left: int,
    options: tuple[str, ...],
) -> None:
    """On a terminal, undo shows the links, and only yes deletes them."""
    done, shown = await on_terminal(pointing_at(sandbox), "undo", journal, *options, answer=answer)
    assert shown.index("- SHOP-1 blocks SHOP-3") < shown.index("1 link to delete on ")
    assert "Delete? [y/N]" in shown
    assert expected in shown
    assert (done, len(sandbox.links)) == (status, left)


async def test_interrupted_it_says_how_far_it_came(tmp_path: Path) -> None:
    """Ctrl-C during undo reports the progress and the command that deletes the rest."""
    journal = str(tmp_path / "run.journal")
    async with Server(created, answers(404, b"{}"), answers(404, b"{}"), is_silent) as server:
        variables = environment(DD_SITE=server.url, DD_API_KEY="an-api-key", DD_APP_KEY="an-app-key")
        text = f"parent,relationship,child\n{some_id(1)},blocks,{some_id(2)}\n"
        await caselinks(variables, "bulk", "--no-lookup", "--journal", journal, "-", stdin=text.encode())
        process = await start(variables, "undo", "--yes", journal)
        await server.until_seen(4)
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    assert process.returncode == 130
    assert "So far: nothing. Deletes in flight may have been applied too.\nTo continue, run" in err.decode()


async def test_an_error_at_the_end_has_the_status_of_a_failure(
    sandbox: Sandbox, journal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the journal cannot be written after links were deleted, the status is 1: something was sent."""
    close = Store.close
    monkeypatch.setattr(
        Store, "close", lambda store: close(store) or "the journal cannot be written: disk full"
    )
    done = await caselinks(pointing_at(sandbox), "undo", "--yes", journal)
    assert done.status == 1
    summary, advice, _, error = done.err.splitlines()
    assert summary == "1 deleted."
    assert advice.startswith("To continue")
    assert error == "Error: the journal cannot be written: disk full"
    assert len(sandbox.links) == 1


@pytest.mark.parametrize("options", [("--dry-run",), ("--yes",), ()])
async def test_nothing_to_undo_is_one_empty_list(
    sandbox: Sandbox, journal: str, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --output json, an undo without links prints one empty list."""
    await caselinks(pointing_at(sandbox), "undo", "--yes", journal)
    monkeypatch.setattr(undo, "require_terminal", lambda _: None)
    done = await caselinks(pointing_at(sandbox), "undo", *options, "--output", "json", journal)
    assert (done.status, json.loads(done.out)) == (0, [])


async def test_results_that_cannot_be_written_are_an_error(sandbox: Sandbox, journal: str) -> None:
    """If standard output cannot be written, the error says how many links were deleted."""
    full = os.open("/dev/full", os.O_WRONLY)
    reading, writing = os.pipe()
    process = await start_on(
        (full, full, writing), pointing_at(sandbox), "undo", "--yes", "--output", "jsonl", journal
    )
    os.close(writing)
    os.close(full)
    status = await process.wait()
    shown = os.read(reading, 65536).decode()
    os.close(reading)
    assert status == 1
    assert "So far: 1 deleted." in shown


async def test_the_progress_is_shown_on_a_terminal(sandbox: Sandbox, journal: str) -> None:
    """On a terminal, undo deletes the links while it shows its progress."""
    status, shown = await on_terminal(pointing_at(sandbox), "undo", "--yes", journal)
    assert status == 0
    assert "1 deleted." in shown
