"""The store of links and cases in SQLite: restarts, and files that are refused."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from datadog_caselinks.sandbox import Sandbox
from datadog_caselinks.values.errors import ParameterError

if TYPE_CHECKING:
    from tests.sandbox.caller import Caller

CallerOf = Callable[[Sandbox], "Caller"]


async def test_keeps_links_in_a_file(tmp_path: Path, caller_of: CallerOf) -> None:
    """Links survive a restart, in their order, and can be deleted after it."""
    path = tmp_path / "links.db"
    async with Sandbox(db=path) as sandbox:
        for _ in range(3):
            await caller_of(sandbox).create()
        before = sandbox.links

    async with Sandbox(db=str(path)) as sandbox:
        assert sandbox.links == before
        await caller_of(sandbox).delete(before[0].id)
        await caller_of(sandbox).create()
        assert sandbox.links[:2] == before[1:]

    assert os.listdir(tmp_path) == ["links.db"]


async def test_keeps_cases_in_a_file(tmp_path: Path, caller_of: CallerOf) -> None:
    """Cases survive a restart, and their keys stay in use."""
    path = tmp_path / "links.db"
    async with Sandbox(db=path) as sandbox:
        added = sandbox.add_case("SHOP-1", "Checkout hangs", priority="P1")
        before = (await caller_of(sandbox).get("SHOP-1")).json

    async with Sandbox(db=path) as sandbox:
        assert (await caller_of(sandbox).get(added.id)).json == before
        with pytest.raises(ParameterError, match="another case has the key SHOP-1"):
            sandbox.add_case("SHOP-1")


async def test_reads_cases_of_an_earlier_version(tmp_path: Path, caller_of: CallerOf) -> None:
    """A file without status names and groups, from an earlier version, is read and extended."""
    path = tmp_path / "links.db"
    async with Sandbox(db=path) as sandbox:
        sandbox.add_case("SHOP-1")
    with closing(sqlite3.connect(path, isolation_level=None)) as earlier:
        for column in ("status_name", "status_group"):
            earlier.execute(f"ALTER TABLE cases DROP COLUMN {column}")

    async with Sandbox(db=path) as sandbox:
        sandbox.add_case("SHOP-2", status="CLOSED")
        old, new = [
            (await caller_of(sandbox).get(key)).json["data"]["attributes"] for key in ("SHOP-1", "SHOP-2")
        ]
        assert (old["status"], "status_group" in old) == ("OPEN", False)
        assert (new["status_name"], new["status_group"]) == ("Closed", "SG_CLOSED")


async def test_adds_cases_to_a_file_of_links(tmp_path: Path, caller_of: CallerOf) -> None:
    """A file without cases, from an earlier version, keeps its links and is extended by cases."""
    path = tmp_path / "links.db"
    async with Sandbox(db=path) as sandbox:
        await caller_of(sandbox).create()
        before = sandbox.links
    with closing(sqlite3.connect(path)) as earlier:
        earlier.execute("DROP TABLE cases")

    async with Sandbox(db=path) as sandbox:
        sandbox.add_case("SHOP-1")
        assert (await caller_of(sandbox).get("SHOP-1")).status == 200
        assert sandbox.links == before


async def test_commits_each_link_before_its_response(tmp_path: Path, caller_of: CallerOf) -> None:
    """A link is committed before the response, so that another connection can read it."""
    async with Sandbox(db=tmp_path / "links.db") as sandbox:
        await caller_of(sandbox).create()
        with closing(sqlite3.connect(tmp_path / "links.db")) as reader:
            assert reader.execute("SELECT id FROM links").fetchall() == [(sandbox.links[0].id,)]


async def test_forgets_links_in_memory(caller_of: CallerOf) -> None:
    """A sandbox without a file is empty after a restart."""
    sandbox = Sandbox()
    async with sandbox:
        await caller_of(sandbox).create()
    async with sandbox:
        assert sandbox.links == []


async def test_refuses_a_file_that_is_no_database(tmp_path: Path) -> None:
    """A file that is not a database is refused, and is not changed."""
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to have a header of a hundred bytes\n" * 3)

    with pytest.raises(ParameterError, match=r"notes\.txt' cannot be used: file is not a database$"):
        await Sandbox(db=path).start()

    assert path.read_text().startswith("not a database")


async def test_refuses_a_path_that_cannot_be_opened(tmp_path: Path) -> None:
    """A path in a missing folder, or of a folder, is refused."""
    for path in (tmp_path / "missing" / "links.db", tmp_path):
        with pytest.raises(ParameterError, match=r"cannot be opened: unable to open database file$"):
            await Sandbox(db=path).start()


async def test_refuses_the_database_of_another_program(tmp_path: Path) -> None:
    """A database of another program is refused, and is not changed."""
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE links (url TEXT)")

    with pytest.raises(ParameterError, match=r"other\.db' belongs to another program$"):
        await Sandbox(db=path).start()

    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT name FROM sqlite_schema").fetchall() == [("links",)]
