"""``caselinks journal show`` of the journal of a bulk run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from datadog_caselinks import CaseLink, parse_link
from datadog_caselinks.bulk.journal import Journal
from datadog_caselinks.sandbox import Fault, Sandbox
from tests.cli.program import caselinks, environment, on_terminal, pointing_at
from tests.cli.waits import waiting_for_nothing
from tests.support.ids import case, some_id

CREATED, FAILED = (case(some_id(number)).blocks(case(some_id(number + 1))) for number in (1, 3))


@pytest.fixture
async def journal(tmp_path: Path) -> str:
    """Return the journal of a run that created one link and failed to create another."""
    path = str(tmp_path / "run.journal")
    async with Journal(path, site="https://api.datadoghq.com") as journal:
        async with journal.entry(CREATED, parse_link("SHOP-1", "blocks", "SHOP-2")) as entry:
            entry.linked(CaseLink("the-id", CREATED.parent, "BLOCKS", CREATED.child), created=True)
        async with journal.entry(FAILED, parse_link("SHOP-1", "blocks", FAILED.child)) as entry:
            entry.failed(ValueError("404 case not found"))
    return path


async def test_it_shows_keys(journal: str) -> None:
    """Cases appear by the keys that the file of the run used, and no request is sent for them."""
    done = await caselinks(environment(), "journal", "show", journal)
    rows = [line.split("\t") for line in done.out.splitlines()]
    assert {(status, link) for status, _, link, _ in rows} == {
        ("created", "SHOP-1 blocks SHOP-2"),
        ("failed", f"SHOP-1 blocks {some_id(4)}"),
    }
    assert done.err == "0 ambiguous, 1 created, 0 already_linked, 1 failed.\n"


async def test_it_is_json_if_asked(journal: str) -> None:
    """JSON has the fields of an outcome of bulk, and --quiet hides the counts."""
    for output in ("json", "jsonl"):
        done = await caselinks(environment(), "journal", "show", "--output", output, "--quiet", journal)
        assert (done.status, done.err) == (0, "")
        records = json.loads(done.out if output == "json" else f"[{','.join(done.out.splitlines())}]")
        by_outcome = {record["outcome"]: record for record in records}
        created, failed = by_outcome["created"], by_outcome["failed"]
        assert [created[name] for name in ("parent", "relationship", "child")] == [
            "SHOP-1",
            "BLOCKS",
            "SHOP-2",
        ]
        assert created["link"]["id"] == "the-id"
        assert created["link"]["child"] == {"type": "CASE", "id": some_id(2)}
        assert "id" not in failed["link"]
        assert "404" in failed["error"]


async def test_columns_are_aligned_on_a_terminal(journal: str) -> None:
    """On a terminal, the columns are aligned with blanks instead of tabs."""
    status, shown = await on_terminal(environment(), "journal", "show", journal)
    assert status == 0
    assert "created         20" in shown
    assert "\t" not in shown


async def test_undo_names_what_is_uncertain_by_its_keys(sandbox: Sandbox, tmp_path: Path) -> None:
    """undo names a link that may have been created by the keys in the file of the run."""
    for number in (1, 2):
        sandbox.add_case(f"SHOP-{number}")
    file, journal = tmp_path / "links.csv", str(tmp_path / "run.journal")
    file.write_text("parent,relationship,child\nSHOP-1,blocks,SHOP-2\n")
    sandbox.fail_next(Fault.HTTP_503, operation="create")
    sandbox.fail_next(Fault.HTTP_503, operation="list", count=10)
    options = ("--no-lookup", "--attempts", "1", "--journal", journal)
    await caselinks(pointing_at(sandbox), "bulk", *options, str(file))
    done = await caselinks(waiting_for_nothing(pointing_at(sandbox)), "undo", "--dry-run", journal)
    assert "Not deleted: SHOP-1 blocks SHOP-2 may have been created, and cannot be looked up" in done.err
