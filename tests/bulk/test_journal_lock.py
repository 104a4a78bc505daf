"""The locks of a journal last as long as the run, even if its process opens and closes the files."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from datadog_caselinks import LinkStatus, NewCaseLink
from datadog_caselinks.bulk import journal_lock
from datadog_caselinks.bulk.journal import Journal
from datadog_caselinks.bulk.journal_file import read_journal
from datadog_caselinks.values.errors import JournalError
from tests.bulk.polls import few_polls
from tests.support.ids import case, some_id

SITE = "https://api.datadoghq.eu"
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs locks of ranges of bytes")
FILES = ["", "-lock", "-wal", "-shm"]

RUN = """
import asyncio, os, shutil, sys, time
from uuid import UUID
from datadog_caselinks import CaseLink, case
from datadog_caselinks.bulk import journal_lock
from datadog_caselinks.bulk.journal import Journal
from datadog_caselinks.bulk.journal_file import read_journal

path, site = sys.argv[1:]

async def link(journal, number):
    new = case(UUID(int=1)).blocks(case(UUID(int=number + 2)))
    async with journal.entry(new) as entry:
        entry.linked(CaseLink(str(number), new.parent, new.relationship, new.child), created=True)
    async with journal.entry(new):
        pass  # the outcome is on the disk

async def main():
    async with Journal(path, site=site) as journal:
        number = 0
        while True:
            await link(journal, number)
            number += 1
            print("linked", flush=True)
            exec(sys.stdin.readline())

exec(sys.stdin.readline())
asyncio.run(main())
"""


class Run:
    """A run in another process, which creates one link after each line of Python that it receives."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def do(self, line: str) -> list[str]:
        """Execute ``line`` in the process, wait for the next link, and return what was printed."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        printed = []
        while (text := self._process.stdout.readline().rstrip()) != "linked":
            assert text, "the process has ended"
            printed.append(text)
        return printed

    def end(self) -> None:
        """End the run normally."""
        self._process.communicate("sys.exit()\n")

    def kill(self) -> None:
        """Kill the process, as ``kill -9`` does."""
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def run(path: Path, first: str = "pass") -> Iterator[Run]:
    """Start a run that has recorded link 0."""
    command = [sys.executable, "-c", RUN, str(path), SITE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        deadline = threading.Timer(60, process.kill)
        deadline.start()
        try:
            started = Run(process)
            started.do(first)
            yield started
        finally:
            deadline.cancel()
            process.kill()


def link(number: int) -> NewCaseLink:
    return case(some_id(1)).blocks(case(some_id(number + 2)))


def known(path: Path) -> dict[NewCaseLink, LinkStatus]:
    return {record.new: record.status for record in read_journal(path)}


def created(count: int) -> dict[NewCaseLink, LinkStatus]:
    return {link(number): LinkStatus.CREATED for number in range(count)}


async def refusal(path: Path) -> str:
    """Return the reason why a run cannot use the journal."""
    with few_polls(), pytest.raises(JournalError) as caught:
        await Journal(path, site=SITE).__aenter__()
    return str(caught.value)


async def enter(path: Path) -> None:
    async with Journal(path, site=SITE) as journal, journal.entry(link(0)):
        pass


def read_with_sqlite(path: Path) -> None:
    """Read the file with plain SQLite, which removes the log if nothing else uses it."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("SELECT * FROM links").fetchall()


def files(path: Path) -> dict[str, int]:
    """Return the inode of each file in the journal's directory."""
    return {entry.name: entry.inode() for entry in os.scandir(path.parent)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "links.journal"


def read_in_process(path: Path, suffix: str) -> str:
    return f"open({str(path) + suffix!r}, 'rb').close()"


class TestAfterTheProcessReadTheFiles:
    """Each ``open(…).close()`` releases SQLite's own locks on that file."""

    async def test_another_run_is_refused(self, path: Path) -> None:
        """Reading any of the journal's files in the run's process does not let a second run start."""
        with run(path) as first:
            for suffix in FILES:
                first.do(read_in_process(path, suffix))
                assert "is in use by another run" in await refusal(path)
            first.kill()
            await enter(path)
        assert known(path) == created(5)

    @pytest.mark.parametrize("read", [known, pytest.param(read_with_sqlite, marks=ON_LINUX)])
    async def test_a_reader_leaves_the_log_of_the_run(
        self, path: Path, read: Callable[[Path], object]
    ) -> None:
        """A reader in another process removes no log of the run, so no record is lost."""
        with run(path) as first:
            for suffix in FILES:
                first.do(read_in_process(path, suffix))
                before = files(path)
                read(path)
                assert files(path) == before
            first.do("pass")
            assert known(path) == created(6)
            first.kill()
        assert known(path) == created(6)

    async def test_a_reader_leaves_the_log_where_only_whole_files_can_be_locked(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On systems that lock only whole files, ``read_journal`` does not remove the log of a run either."""
        monkeypatch.setattr(journal_lock, "_HAS_RANGE_LOCKS", False)
        with run(path, "journal_lock._HAS_RANGE_LOCKS = False") as first:
            for suffix in FILES:
                first.do(read_in_process(path, suffix))
            before = files(path)
            assert known(path) == created(5)
            assert files(path) == before
            first.do("pass")
            first.kill()
        assert known(path) == created(6)

    async def test_the_process_reads_the_journal_itself(self, path: Path) -> None:
        """``read_journal`` in the process of the run releases no lock and removes no file."""
        with run(path) as first:
            before = files(path)
            first.do("assert len(list(read_journal(path))) == 1")
            assert files(path) == before
            assert "is in use by another run" in await refusal(path)
            first.kill()
        assert known(path) == created(2)

    async def test_a_copy_of_all_files_is_a_journal(self, path: Path, tmp_path: Path) -> None:
        """A copy of the journal's files is a separate journal that another run can use."""
        with run(path) as first:
            first.do(f"shutil.copytree({str(path.parent)!r}, {str(tmp_path / 'copy')!r})")
            copy = tmp_path / "copy" / path.name
            assert known(copy) == created(1)
            await enter(copy)
            assert "is in use by another run" in await refusal(path)

    async def test_the_run_ends_with_one_file(self, path: Path) -> None:
        """A run merges its log at the end, even if its process has read the files."""
        with run(path) as first:
            for suffix in FILES:
                first.do(read_in_process(path, suffix))
            first.end()
        assert sorted(files(path)) == ["links.journal", "links.journal-lock"]
        shutil.copy(path, path.parent / "copy")
        assert known(path.parent / "copy") == created(5)


class TestNames:
    async def test_a_hard_link_is_refused(self, path: Path) -> None:
        """A hard link is refused, because SQLite stores the newest records next to only one of the names."""
        other = path.parent / "other"
        await enter(path)
        os.link(path, other)
        for name in (path, other):
            with pytest.raises(JournalError, match="has other names \\(hard links\\)"):
                list(read_journal(name))
            assert "remove the other names" in await refusal(name)
        other.unlink()
        await enter(path)

    @ON_LINUX
    async def test_a_run_without_its_lock_file_keeps_others_out(self, path: Path) -> None:
        """The journal itself is locked too, because a bind mount has a separate lock file."""
        with run(path) as first:
            os.unlink(f"{path}-lock")
            assert "is in use by another run" in await refusal(path)
            before = files(path)
            assert known(path) == created(1)
            assert files(path) == before
            first.kill()
        await enter(path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
async def test_a_forked_child_does_not_keep_the_locks(path: Path) -> None:
    """After ``kill -9``, the next run can start although a forked child is still alive."""
    with run(path) as first:
        [child] = first.do("child = os.fork() or time.sleep(60); print(child, flush=True)")
        try:
            first.kill()
            await enter(path)
        finally:
            os.kill(int(child), signal.SIGKILL)
    assert known(path) == created(2)


async def test_a_child_closes_what_is_locked(path: Path) -> None:
    """A forked child releases the locks that it inherited."""
    with journal_lock.locked(path):
        journal_lock._unlock_in_child()
        with journal_lock.locked_if_free(path) as is_free:
            assert is_free


class TestSystems:
    """The locks depend on the operating system and the file system."""

    @pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
    async def test_a_file_system_without_locks(
        self, path: Path, code: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On a file system without locks, the run is refused and the message says what to do."""

        def refuse(*_: object) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr("fcntl.flock", refuse)
        assert await refusal(path) == f"the journal {path} cannot be locked: name a file on a local disk"

    @ON_LINUX
    async def test_a_kernel_without_locks_of_ranges(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without locks of byte ranges, the lock file alone keeps other runs out."""

        def refuse(*_: object) -> None:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

        monkeypatch.setattr("fcntl.fcntl", refuse)
        async with Journal(path, site=SITE):
            assert "is in use by another run" in await refusal(path)
        await enter(path)

    async def test_windows(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without ``fcntl``, a SQLite transaction is the lock; on Windows it belongs to the open file."""
        monkeypatch.setitem(sys.modules, "fcntl", None)
        place = importlib.util.spec_from_file_location("journal_lock_of_windows", journal_lock.__file__)
        assert place
        assert place.loader
        module = importlib.util.module_from_spec(place)
        place.loader.exec_module(module)
        assert module.fcntl is None
        monkeypatch.setattr(journal_lock, "fcntl", None)
        monkeypatch.setattr(journal_lock, "_HAS_RANGE_LOCKS", False)
        async with Journal(path, site=SITE) as journal, journal.entry(link(0)):
            before = files(path)
            assert known(path) == {link(0): LinkStatus.AMBIGUOUS}
            assert files(path) == before
            assert "is in use by another run" in await refusal(path)
        await enter(path)
        assert sorted(files(path)) == ["links.journal", "links.journal-lock"]

    async def test_windows_without_permission(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A lock file that cannot be written is reported as read-only, and not as a run in use."""
        monkeypatch.setattr(journal_lock, "fcntl", None)
        connect = sqlite3.connect

        def read_only(name: str, **rest: Any) -> sqlite3.Connection:
            Path(name).touch()
            opened: sqlite3.Connection = connect(f"{Path(name).as_uri()}?mode=ro", uri=True, **rest)
            return opened

        monkeypatch.setattr(sqlite3, "connect", read_only)
        assert "is read-only" in await refusal(path)


class TestReaders:
    """Several readers at the same time; one of them may remove the log of a killed run."""

    async def left_by_a_killed_run(self, path: Path) -> None:
        with run(path) as first:
            first.kill()

    async def test_the_log_of_a_killed_run_is_merged(self, path: Path) -> None:
        """Reading the journal of a killed run merges its log into the file."""
        await self.left_by_a_killed_run(path)
        assert f"{path.name}-wal" in files(path)
        assert known(path) == created(1)
        assert sorted(files(path)) == ["links.journal", "links.journal-lock"]

    async def test_a_reader_that_stops_early_merges_too(self, path: Path) -> None:
        """A reader that stops early merges the log as well."""
        await self.left_by_a_killed_run(path)
        records = read_journal(path)
        assert next(records).new == link(0)
        records.close()  # type: ignore[attr-defined]
        assert sorted(files(path)) == ["links.journal", "links.journal-lock"]

    async def test_a_reader_keeps_no_run_out(self, path: Path) -> None:
        """A run can start during a slow reader, which then leaves the run's log in place."""
        await self.left_by_a_killed_run(path)
        records = read_journal(path)
        assert next(records).new == link(0)
        async with Journal(path, site=SITE) as journal, journal.entry(link(1)):
            before = files(path)
            assert [record.new for record in records] == [link(1)]
            assert files(path) == before

    async def test_a_reader_waits_for_another_one(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A reader waits while another reader removes the log."""
        await enter(path)
        with contextlib.ExitStack() as other:
            other.enter_context(journal_lock.locked(path))
            monkeypatch.setattr("time.sleep", lambda _: other.close())
            assert known(path) == {link(0): LinkStatus.AMBIGUOUS}

    async def test_a_reader_does_not_wait_forever(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A reader fails if the lock is not released in time."""
        await enter(path)
        waits: list[float] = []
        monkeypatch.setattr("time.sleep", waits.append)
        with journal_lock.locked(path), pytest.raises(JournalError, match="cannot be opened"):
            list(read_journal(path))
        assert len(waits) == 99
