"""Journals: every link that was sent is recorded, no record is lost, and no task waits forever."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datadog_caselinks import (
    CaseLink,
    LinkStatus,
    NewCaseLink,
    Relationship,
    WantedLink,
    parse_link,
)
from datadog_caselinks.bulk import journal_file
from datadog_caselinks.bulk.journal import Entry, Journal
from datadog_caselinks.bulk.journal_file import JournalRecord, read_journal
from datadog_caselinks.bulk.journal_lock import locked
from datadog_caselinks.values.errors import JournalError
from tests.bulk.polls import few_polls
from tests.support.ids import case, incident, some_id
from tests.support.strategies import new_links
from tests.support.waiting import settle, until

SITE = "https://api.datadoghq.eu"
PARENT = case(some_id(1))
EITHER_WAY = PARENT.relates_to(incident(some_id(2)))


def link(number: int) -> NewCaseLink:
    return PARENT.blocks(case(some_id(number + 2)))


NEW = link(0)
LINKED = (LinkStatus.CREATED, LinkStatus.ALREADY_LINKED)
STATUSES = (*LINKED, LinkStatus.FAILED, LinkStatus.AMBIGUOUS)


def made(new: NewCaseLink, id: str = "the-id") -> CaseLink:
    return CaseLink(id, new.parent, new.relationship, new.child)


def turned(new: NewCaseLink) -> NewCaseLink:
    return NewCaseLink(new.child, new.relationship, new.parent)


def statuses(path: Path) -> dict[NewCaseLink, LinkStatus]:
    return {record.new: record.status for record in read_journal(path)}


async def enter(path: Path, new: NewCaseLink = NEW) -> Entry:
    """Return the entry of ``new`` in a separate run."""
    async with Journal(path, site=SITE) as journal:
        return await begun(journal, new)


async def link_all(path: Path, count: int) -> None:
    async with Journal(path, site=SITE) as journal:
        await asyncio.gather(*(link_one(journal, link(number)) for number in range(count)))


async def link_one(journal: Journal, new: NewCaseLink) -> None:
    async with asyncio.timeout(60), journal.entry(new) as entry:
        entry.linked(made(new), created=True)


async def begun(journal: Journal, new: NewCaseLink) -> Entry:
    """Begin an entry, and leave it without an outcome."""
    async with asyncio.timeout(60), journal.entry(new) as entry:
        return entry


async def refusal(path: Path, site: str = SITE) -> str:
    """Return why a run cannot use the journal."""
    with few_polls(), pytest.raises(JournalError) as caught:
        await Journal(path, site=site).__aenter__()
    return str(caught.value)


def damage(path: Path, old: bytes, new: bytes) -> None:
    """Replace ``old``, which must be in the file, by ``new``."""
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))


def unreadable(path: Path) -> str:
    """Return why the journal cannot be read."""
    with pytest.raises(JournalError) as caught:
        list(read_journal(path))
    return str(caught.value)


def files(path: Path) -> list[str]:
    """Return the names of all files in the journal's directory."""
    return sorted(os.listdir(path.parent))


def content(path: Path) -> bytes | None:
    """Return the content of the file, if it is a regular file."""
    return path.read_bytes() if path.is_file() else None


def cut_off(path: Path, missing: int = 4096) -> None:
    """Remove the last bytes of the file; the default is a page."""
    os.truncate(path, path.stat().st_size - missing)


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("caselinks-journal")]


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Return a path without a journal in an empty directory; the test must end the journal's thread."""
    yield tmp_path / "links.journal"
    assert threads() == []


@contextlib.contextmanager
def held(path: Path, begin: str = "BEGIN IMMEDIATE") -> Iterator[sqlite3.Connection]:
    """Hold a write lock on the file, so that a run must wait."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute(begin)
        yield other
        other.execute("ROLLBACK")


class Watched(sqlite3.Connection):
    """A connection that records the thread of each commit and its ``synchronous`` mode (2 is FULL)."""

    commits: list[tuple[threading.Thread, int]]

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if sql == "COMMIT":
            (synchronous,) = super().execute("PRAGMA synchronous").fetchone()
            self.commits.append((threading.current_thread(), synchronous))
        return super().execute(sql, *parameters)


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[threading.Thread, int]]:
    monkeypatch.setattr(Watched, "commits", [], raising=False)
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **rest: connect(*args, **rest, factory=Watched))
    return Watched.commits


@pytest.fixture
def connecting_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that applies a pragma to later connections, so that SQLite fails."""

    def begin_with(pragma: str) -> None:
        connect = sqlite3.connect

        def connected(*args: Any, **rest: Any) -> sqlite3.Connection:
            connection: sqlite3.Connection = connect(*args, **rest)
            connection.execute(pragma)
            return connection

        monkeypatch.setattr(sqlite3, "connect", connected)

    return begin_with


DISK_FULL = "PRAGMA max_page_count = 4"  # a full disk gives the same error; a new journal has three pages
READ_ONLY = "PRAGMA query_only = 1"


class TestEntry:
    async def test_a_link_that_is_not_known(self, path: Path) -> None:
        """A link without a record has neither a status nor an id."""
        entry = await enter(path)
        assert (entry.previous, entry.link) == (None, None)

    async def test_sent_before_it_can_be_sent(self, path: Path) -> None:
        """The record of an entry is visible to other processes as soon as the entry has begun."""
        async with Journal(path, site=SITE) as journal, journal.entry(NEW):
            assert statuses(path) == {NEW: LinkStatus.AMBIGUOUS}

    @pytest.mark.parametrize("error", [None, LookupError, asyncio.CancelledError])
    async def test_left_without_an_outcome(self, path: Path, error: type[BaseException] | None) -> None:
        """A link without a recorded outcome stays ambiguous, because it may have been created."""
        async with Journal(path, site=SITE) as journal:
            with contextlib.suppress(LookupError, asyncio.CancelledError):
                async with journal.entry(NEW):
                    if error:
                        raise error
        entry = await enter(path)
        assert (entry.previous, entry.link) == (LinkStatus.AMBIGUOUS, None)

    async def test_linked(self, path: Path) -> None:
        """The next run gets a created link with its id."""
        await link_all(path, 1)
        entry = await enter(path)
        assert (entry.previous, entry.link) == (LinkStatus.CREATED, made(NEW))

    @pytest.mark.parametrize("id", ["\0", "a\0b", "\x1b[0m\r\n", "\U0001f517 Größe", "x" * 1_000_000])
    async def test_any_id_of_a_link_is_kept(self, path: Path, id: str) -> None:
        """A link is returned with any id that a server may choose."""
        async with Journal(path, site=SITE) as journal, journal.entry(NEW) as entry:
            entry.linked(made(NEW, id), created=True)
        assert (await enter(path)).link == made(NEW, id)
        (record,) = read_journal(path)
        assert record.link_id == id

    async def test_a_linked_link_is_left_as_it_is(self, path: Path) -> None:
        """An entry of a created link does not change its record."""
        await link_all(path, 1)
        before = list(read_journal(path))
        await enter(path)
        assert list(read_journal(path)) == before

    async def test_failed(self, path: Path) -> None:
        """A failed link can be sent again, and is ambiguous until its new outcome."""
        async with Journal(path, site=SITE) as journal:
            async with journal.entry(NEW) as entry:
                entry.failed(ValueError("no such case"))
            async with journal.entry(NEW) as entry:
                assert (entry.previous, entry.link) == (LinkStatus.FAILED, None)
                assert statuses(path) == {NEW: LinkStatus.AMBIGUOUS}

    @pytest.mark.parametrize(
        ("text", "kept"),
        [("", ""), ("x\0y\n\x1b", "x\0y\n\x1b"), ("\ud800", "?"), ("ä" * 999 + "bcd", "ä" * 999 + "b")],
    )
    async def test_the_text_of_an_error(self, path: Path, text: str, kept: str) -> None:
        """The first 1,000 characters of an error are stored, and characters outside of UTF-8 are replaced."""
        async with Journal(path, site=SITE) as journal, journal.entry(NEW) as entry:
            entry.failed(ValueError(text))
        (record,) = read_journal(path)
        assert record.error == kept

    async def test_an_outcome_waits_for_nobody(self, path: Path) -> None:
        """An outcome is written while the journal is open, without waiting for another entry."""
        async with Journal(path, site=SITE) as journal:
            await link_one(journal, NEW)
            await until(lambda: statuses(path) == {NEW: LinkStatus.CREATED})

    async def test_the_last_outcome_counts(self, path: Path) -> None:
        """Outcomes are written in order, and the last one counts."""
        async with Journal(path, site=SITE) as journal, journal.entry(NEW) as entry:
            entry.failed(ValueError())
            entry.linked(made(NEW, "1"), created=True)
            entry.linked(made(NEW, "2"), created=True)
        assert (await enter(path)).link == made(NEW, "2")

    @pytest.mark.slow
    @settings(max_examples=25)  # each example writes its own files
    @given(
        st.lists(new_links(), min_size=1, max_size=3),
        st.lists(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(STATUSES)), max_size=6), max_size=4),
    )
    async def test_as_a_dictionary_would(
        self, links: list[NewCaseLink], runs: list[list[tuple[int, LinkStatus]]]
    ) -> None:
        """Each link keeps its own last status, over any number of runs.

        A link and its reverse are different links, except for RELATES_TO.
        """
        links = [*links, *map(turned, links)]
        known: dict[object, LinkStatus] = {}
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "links.journal"
            await enter_and_leave(path, [])
            for run in runs:
                steps = [(links[number % len(links)], outcome) for number, outcome in run]
                for (new, outcome), entry in zip(steps, await enter_and_leave(path, steps), strict=True):
                    before = known.get(identity(new))
                    link = made(new) if before in LINKED else None
                    assert (entry.previous, entry.link) == (before, link)
                    if before not in LINKED or outcome is not LinkStatus.AMBIGUOUS:
                        known[identity(new)] = outcome
            assert {identity(record.new): record.status for record in read_journal(path)} == known


async def enter_and_leave(path: Path, steps: list[tuple[NewCaseLink, LinkStatus]]) -> list[Entry]:
    """Run once, recording the given outcome of each link; ambiguous records none."""
    entries = []
    async with Journal(path, site=SITE) as journal:
        for new, outcome in steps:
            async with journal.entry(new) as entry:
                entries.append(entry)
                if outcome in LINKED:
                    entry.linked(made(new), created=outcome is LinkStatus.CREATED)
                elif outcome is LinkStatus.FAILED:
                    entry.failed(ValueError())
    return entries


def identity(new: NewCaseLink) -> object:
    """Return a key that equal links share."""
    ends = (new.parent, new.child)
    return (new.relationship, frozenset(ends) if new.relationship is Relationship.RELATES_TO else ends)


class TestSameLink:
    @pytest.mark.parametrize(
        ("first", "second"), [(NEW, NEW), (EITHER_WAY, EITHER_WAY), (EITHER_WAY, turned(EITHER_WAY))]
    )
    async def test_the_same_link_waits(self, path: Path, first: NewCaseLink, second: NewCaseLink) -> None:
        """A second entry for a link waits for the first, and keeps its own order of ends."""
        async with Journal(path, site=SITE) as journal:
            async with journal.entry(first) as entry:
                waiting = asyncio.create_task(begun(journal, second))
                await settle()
                assert not waiting.done()
                entry.linked(made(first), created=True)
            later = await waiting
        assert (later.previous, later.link) == (LinkStatus.CREATED, made(second))

    async def test_another_link_does_not(self, path: Path) -> None:
        """Links that differ in direction or relationship do not wait for each other."""
        links = (NEW, turned(NEW), PARENT.relates_to(NEW.child), PARENT.causes(NEW.child))
        async with (
            asyncio.timeout(60),
            Journal(path, site=SITE) as journal,
            contextlib.AsyncExitStack() as entries,
        ):
            for new in links:
                entry = await entries.enter_async_context(journal.entry(new))
                assert entry.previous is None

    async def test_one_of_many_equal_links_is_created(self, path: Path) -> None:
        """A link that appears several times, in either direction, is created once."""
        sent: list[NewCaseLink] = []

        async def make(journal: Journal, new: NewCaseLink) -> None:
            async with journal.entry(new) as entry:
                if entry.previous is not LinkStatus.CREATED:
                    await asyncio.sleep(0)
                    sent.append(new)
                    entry.linked(made(new), created=True)

        async with Journal(path, site=SITE) as journal:
            source = [NEW, EITHER_WAY, link(7), turned(EITHER_WAY), NEW] * 10
            await asyncio.gather(*(make(journal, new) for new in source))
        assert sent == [NEW, EITHER_WAY, link(7)]

    async def test_one_that_stops_waiting(self, path: Path) -> None:
        """A waiting entry that is cancelled does not keep the next one waiting."""
        async with Journal(path, site=SITE) as journal:
            async with journal.entry(NEW) as entry:
                tasks = [asyncio.create_task(begun(journal, NEW)) for _ in range(3)]
                await settle()
                tasks[0].cancel()
                tasks[1].cancel()
                await settle()
                entry.linked(made(NEW), created=True)
            assert (await tasks[2]).previous is LinkStatus.CREATED
            assert tasks[0].cancelled()
            assert tasks[1].cancelled()

    async def test_one_that_is_cancelled_while_it_is_written(self, path: Path) -> None:
        """An entry that is cancelled during its commit may be ambiguous, and frees the link."""
        async with Journal(path, site=SITE) as journal:
            with held(path):
                task = asyncio.create_task(begun(journal, NEW))
                await settle()
                task.cancel()
                await settle()
                assert task.cancelled()
            async with asyncio.timeout(60), journal.entry(NEW) as entry:
                assert entry.previous is LinkStatus.AMBIGUOUS

    async def test_nothing_stays_in_memory(self, path: Path) -> None:
        """Memory is held for links in progress only."""
        async with Journal(path, site=SITE) as journal:
            for number in range(20):
                await link_one(journal, link(number))
                tasks = [asyncio.create_task(begun(journal, link(number))) for _ in range(2)]
                await asyncio.sleep(0)
                tasks[number % 2].cancel()
                await asyncio.wait(tasks)
            async with journal.entry(NEW):
                assert len(journal._in_progress) == 1
                assert journal._pending == []


async def begun_all(journal: Journal, count: int) -> list[object]:
    """Return the results of ``count`` concurrent entries."""
    return await asyncio.gather(
        *(begun(journal, link(number)) for number in range(count)), return_exceptions=True
    )


class TestCommits:
    async def test_many_share_one(self, path: Path, commits: list[tuple[threading.Thread, int]]) -> None:
        """Concurrent entries and outcomes share one commit."""

        async def work(journal: Journal, links: Iterator[NewCaseLink]) -> None:
            for new in links:
                await link_one(journal, new)

        async with Journal(path, site=SITE) as journal:
            commits.clear()
            links = map(link, range(1000))
            await asyncio.gather(*(work(journal, links) for _ in range(100)))
        assert len(commits) == 1000 / 100 + 1  # one more for the last outcomes
        assert len(list(read_journal(path))) == 1000

    async def test_writes_during_a_commit_share_the_next(
        self, path: Path, commits: list[tuple[threading.Thread, int]]
    ) -> None:
        """Writes that arrive during a commit share the next commit."""
        async with Journal(path, site=SITE) as journal:
            with held(path):
                commits.clear()
                tasks = []
                for number in range(10):
                    tasks.append(asyncio.create_task(begun(journal, link(number))))
                    await settle()
            await asyncio.gather(*tasks)
        assert len(commits) == 2

    async def test_one_that_is_alone_is_not_held_up(self, path: Path) -> None:
        """A single write is committed immediately, without a batch size or a delay."""
        async with Journal(path, site=SITE) as journal, asyncio.timeout(60):
            for number in range(3):
                await link_one(journal, link(number))

    async def test_by_one_thread_that_is_not_the_loops(
        self, path: Path, commits: list[tuple[threading.Thread, int]]
    ) -> None:
        """A separate thread commits all writes, and syncs each commit to the disk."""
        await link_all(path, 3)
        assert len({thread for thread, _ in commits}) == 1
        assert threading.current_thread() not in {thread for thread, _ in commits}
        assert {synchronous for _, synchronous in commits} == {2}


PROGRAM = """
import asyncio, itertools, sys
from uuid import UUID
from datadog_caselinks import CaseLink, case
from datadog_caselinks.bulk.journal import Journal

def link(number):
    return case(str(UUID(int=1))).blocks(case(str(UUID(int=number + 2))))

async def work(journal, numbers):
    for number in numbers:
        new = link(number)
        async with journal.entry(new) as entry:
            print(number, flush=True)  # this is the sending
            entry.linked(CaseLink(str(number), new.parent, new.relationship, new.child), created=True)

async def main():
    async with Journal(sys.argv[1], site=sys.argv[2]) as journal:
        numbers = itertools.count()
        await asyncio.gather(*(work(journal, numbers) for _ in range(10)))

asyncio.run(main())
"""


@contextlib.contextmanager
def other_run(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a process that creates links endlessly, ten at a time, and prints the number of each."""
    command = [sys.executable, "-c", PROGRAM, str(path), SITE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        deadline = threading.Timer(60, process.kill)
        deadline.start()
        try:
            yield process
        finally:
            deadline.cancel()
            process.kill()


def sent_until_killed(path: Path, count: int) -> set[int]:
    """Return the numbers of the links sent by a run that is killed after about ``count`` links."""
    with other_run(path) as process:
        assert process.stdout
        sent = {int(next(process.stdout)) for _ in range(count)}
        process.send_signal(signal.SIGKILL)
        # the last line may be incomplete; its link was not sent
        return sent | {int(line) for line in process.stdout if line.endswith("\n")}


@pytest.mark.slow
class TestKilled:
    @pytest.mark.parametrize("count", [1, 10, 500])
    async def test_nothing_was_sent_that_is_not_known(self, path: Path, count: int) -> None:
        """Every sent link is recorded, and only links in progress are ambiguous."""
        sent = sent_until_killed(path, count)
        known = {record.new: record for record in read_journal(path)}
        assert {link(number) for number in sent} <= known.keys()
        assert {record.status for record in known.values()} <= {LinkStatus.AMBIGUOUS, LinkStatus.CREATED}
        # ten without a written outcome, and ten more in the commit in progress
        assert sum(record.status is LinkStatus.AMBIGUOUS for record in known.values()) <= 20
        async with Journal(path, site=SITE) as journal:
            for number in sent:
                async with journal.entry(link(number)) as entry:
                    assert entry.previous is known[link(number)].status
                    if entry.previous is LinkStatus.CREATED:
                        assert entry.link == made(link(number), str(number))

    async def test_a_run_after_another(self, path: Path) -> None:
        """Runs that are killed repeatedly keep the records of earlier runs."""
        linked: set[NewCaseLink] = set()
        for count in (20, 40, 60):
            sent_until_killed(path, count)
            now = {new for new, status in statuses(path).items() if status is LinkStatus.CREATED}
            assert linked <= now
            linked = now
        assert linked

    async def test_a_journal_that_was_only_begun(self, path: Path) -> None:
        """A file with only the application id is a new journal."""
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA application_id = 0x434C4E4B")
        assert list(read_journal(path)) == []
        assert (await enter(path)).previous is None


class TestOneRun:
    @pytest.mark.slow
    async def test_another_process_is_refused(self, path: Path) -> None:
        """A second process is refused while the first one runs, and accepted after it was killed."""
        with other_run(path) as process:
            assert process.stdout
            next(process.stdout)
            assert await refusal(path) == (
                f"the journal {path} is in use by another run: wait until it ends, or name another file"
            )
            assert statuses(path)
            process.kill()
            process.wait()
            await enter(path)

    async def test_another_in_this_process_is_refused(self, path: Path) -> None:
        """A second run in the same process is refused under any name of the file, and the first continues."""
        other_name = path.parent / "link"
        other_name.symlink_to(path)
        async with Journal(path, site=SITE) as journal:
            for name in (path, other_name, path.parent / ".." / path.parent.name / path.name):
                assert "is in use by another run" in await refusal(name)
            await link_one(journal, NEW)
        assert (await enter(other_name)).link == made(NEW)

    async def test_refused_even_if_the_file_looks_damaged(self, path: Path) -> None:
        """The lock is checked first, because a file may look damaged while another run writes it."""
        await link_all(path, 200)
        cut_off(path)
        with locked(path):
            assert "is in use by another run" in await refusal(path)

    async def test_what_stays(self, path: Path) -> None:
        """A run leaves the journal and the empty lock file.

        During a run, the two files of SQLite's write-ahead log exist as well.
        """
        async with Journal(path, site=SITE) as journal:
            await link_one(journal, NEW)
            assert files(path) == [f"links.journal{end}" for end in ("", "-lock", "-shm", "-wal")]
        list(read_journal(path))
        assert files(path) == ["links.journal", "links.journal-lock"]
        assert content(Path(f"{path}-lock")) == b""

    @pytest.mark.parametrize("is_read", [True, False])
    async def test_a_copy_with_the_log_is_complete(self, path: Path, is_read: bool) -> None:
        """A copy that was made during a run together with the write-ahead log has every record.

        This also applies after the log was merged, to read the journal.
        """
        copy = path.with_name("copy.journal")
        async with Journal(path, site=SITE) as journal:
            await link_one(journal, NEW)
            for end in ("", "-wal"):
                shutil.copy(f"{path}{end}", f"{copy}{end}")
        if is_read:
            assert len(list(read_journal(copy))) == 1
            assert not copy.with_name("copy.journal-wal").exists()
        for each in (copy, path):
            async with Journal(each, site=SITE) as again, again.entry(NEW) as entry:
                assert (again.is_incomplete, entry.previous is None) == (False, False)

    async def test_a_journal_can_be_opened_again(self, path: Path) -> None:
        """A journal object can be entered again after it was closed."""
        journal = Journal(path, site=SITE)
        for before in (None, LinkStatus.AMBIGUOUS):
            async with journal, journal.entry(NEW) as entry:
                assert entry.previous is before

    @pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="Windows does not list open files")
    async def test_no_file_stays_open(self, path: Path) -> None:
        """No file stays open after a run, or after a refused run."""
        await enter(path)
        before = len(os.listdir("/dev/fd"))
        await enter(path)
        list(read_journal(path))
        await refusal(path, "https://api.datadoghq.com")
        assert len(os.listdir("/dev/fd")) == before


def _empty(path: Path) -> None:
    path.touch()


def _text(path: Path) -> None:
    path.write_text("parent_id,relationship,child_id\n")


def _other_database(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE links (parent)")


PIPES = [os.mkfifo] if hasattr(os, "mkfifo") else []


def _other_application(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA application_id = 7")


class TestRefused:
    async def test_another_site(self, path: Path) -> None:
        """A journal of another site is refused, and the message names both sites."""
        await enter(path)
        assert await refusal(path, "https://api.datadoghq.com") == (
            f"the journal {path} belongs to {SITE}, and this run is for https://api.datadoghq.com: "
            "use the site of the journal, or name a new file for a new run"
        )
        assert (await enter(path)).previous is LinkStatus.AMBIGUOUS

    async def test_a_directory(self, path: Path) -> None:
        """A directory is refused, and the message says that it is one."""
        os.mkdir(path)
        for message in (await refusal(path), unreadable(path)):
            assert message == f"the journal {path} is a directory: name a file in it"

    @pytest.mark.parametrize("write", [_text, _other_database, _other_application, *PIPES])
    async def test_a_file_of_another_kind(self, path: Path, write: Callable[[Path], None]) -> None:
        """Another file is refused and left unchanged, without waiting."""
        write(path)
        before = content(path)
        for message in (await refusal(path), unreadable(path)):
            assert message == (
                f"the journal {path} is not a journal, and was left unchanged: "
                "name a journal, or a new file for a new run"
            )
        assert content(path) == before
        assert files(path) == ["links.journal"]

    async def test_a_newer_version(self, path: Path) -> None:
        """A journal with a newer file format is refused."""
        await link_all(path, 1)
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA user_version = 5")
        for message in (await refusal(path), unreadable(path)):
            assert message == (
                f"the journal {path} was written by a newer version of this program: update it"
            )

    @pytest.mark.parametrize("version", [1, 2, -1])
    async def test_an_older_version(self, path: Path, version: int) -> None:
        """A journal with an older file format is refused, and not converted."""
        await link_all(path, 1)
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute(f"PRAGMA user_version = {version}")
        for message in (await refusal(path), unreadable(path)):
            assert message == (
                f"the journal {path} was written by an older version of this program, and cannot be read: "
                "name a new file, and use ensure to find the links that exist already"
            )

    async def test_a_damaged_file(self, path: Path) -> None:
        """A damaged file is refused, and the message says that a new file would not have its links."""
        await link_all(path, 200)
        cut_off(path)
        for message in (await refusal(path), unreadable(path)):
            assert message == (
                f"the journal {path} is damaged: "
                "restore it, or name a new file, which starts without its links"
            )

    @pytest.mark.parametrize("missing", [1000, 2000, 4000, 4096, 4500, 8192, 12_000])
    async def test_an_incomplete_copy(self, path: Path, missing: int) -> None:
        """A copy without its end is refused, also where SQLite would still find some of the links."""
        await link_all(path, 200)
        cut_off(path, missing)
        for message in (await refusal(path), unreadable(path)):
            assert "is damaged" in message

    @pytest.mark.parametrize(
        "change",
        [
            "parent = 'CASE'",
            "parent = ''",
            "parent = x'00'",
            "child = 'CASE a'",
            "relationship = 'LIKES'",
            "status = 'lost'",
            "status = 'malformed'",
            "link_id = x'00'",
            "error = x'00'",
            "at = 1e300",
            "at = 9e999",
            "at = 'soon'",
            "found_by_lookup = 2",
            "found_by_lookup = 'yes'",
        ],
    )
    async def test_a_damaged_row(self, path: Path, change: str) -> None:
        """A row with an invalid value is reported as damage."""
        await link_all(path, 1)
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute(f"UPDATE links SET {change}")
            db.commit()
        assert "is damaged" in unreadable(path)

    async def test_a_damaged_schema(self, path: Path) -> None:
        """A damaged schema is reported as damage, even if SQLite's message is not valid text."""
        await link_all(path, 1)
        damage(path, b"tablelinkslinks\x03CREATE", b"table\xffinkslinks\x03ABSENT")
        assert "is damaged" in unreadable(path)

    @pytest.mark.parametrize("change", ["status = 'lost'", "link_id = x'00'"])
    async def test_a_damaged_row_that_is_met_again(self, path: Path, change: str) -> None:
        """A run that meets a damaged row raises an error."""
        await link_all(path, 1)
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute(f"UPDATE links SET {change}")
            db.commit()
        with pytest.raises(JournalError, match="is damaged"):
            await link_all(path, 1)

    async def test_a_journal_of_no_site(self, path: Path) -> None:
        """A journal without a site is damaged."""
        await link_all(path, 1)
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("DELETE FROM journal")
            db.commit()
        assert "is damaged" in await refusal(path)

    @pytest.mark.parametrize("place", ["missing/journal", "links.journal/journal"])
    async def test_a_place_where_no_file_can_be(self, path: Path, place: str) -> None:
        """A path without an existing directory is refused, and nothing is created."""
        _empty(path)
        wrong = path.parent / place
        assert await refusal(wrong) == (
            f"the journal {wrong} cannot be opened: name a file in an existing, writable directory"
        )
        assert files(path) == ["links.journal"]

    async def test_a_name_that_is_none(self, path: Path) -> None:
        """A name that the system does not accept is refused with a JournalError.

        The error has the text of the system only before Python 3.14, where ``Path.exists`` raises it.
        """
        wrong = path.parent / ("x" * 1000)
        assert (await refusal(wrong)).startswith(f"the journal {wrong} cannot be ")

    async def test_a_file_that_may_not_be_written(
        self, path: Path, connecting_with: Callable[[str], None]
    ) -> None:
        """A read-only file is refused."""
        connecting_with(READ_ONLY)
        assert await refusal(path) == (
            f"the journal {path} is read-only: change its permissions, or name another file"
        )

    async def test_a_directory_that_may_not_be_written(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An extended error code of SQLite gets the advice of its primary code."""

        def refuse(*_: object, **__: object) -> sqlite3.Connection:
            error = sqlite3.OperationalError("attempt to write a readonly database")
            error.sqlite_errorcode = sqlite3.SQLITE_READONLY_DIRECTORY
            raise error

        monkeypatch.setattr(sqlite3, "connect", refuse)
        assert "is read-only" in await refusal(path)

    async def test_an_empty_file_is_a_new_journal(self, path: Path) -> None:
        """An empty file is a new journal, like a missing one."""
        _empty(path)
        assert list(read_journal(path)) == []
        assert (await enter(path)).previous is None
        assert statuses(path) == {NEW: LinkStatus.AMBIGUOUS}


class TestCannotBeWritten:
    async def test_a_waiting_entry_raises(self, path: Path, connecting_with: Callable[[str], None]) -> None:
        """If a commit fails, its entries, later entries and the exit raise; earlier records stay."""

        async def run() -> None:
            async with Journal(path, site=SITE) as journal:
                await link_one(journal, NEW)
                await settle()  # so that the outcome has a commit of its own, with eager tasks too
                errors.extend(await begun_all(journal, 200))
                errors.extend(await begun_all(journal, 1))

        connecting_with(DISK_FULL)
        errors: list[object] = []
        with pytest.raises(JournalError) as caught:
            await run()
        assert str(caught.value) == (
            f"the journal {path} cannot be written because the disk is full: free some space and run again"
        )
        assert [(type(error), str(error)) for error in errors] == [(JournalError, str(caught.value))] * 201
        assert len(set(map(id, errors))) == 201  # separate objects: each gets its own traceback
        assert statuses(path) == {NEW: LinkStatus.CREATED}

    async def test_an_entry_that_waited_raises_too(
        self, path: Path, connecting_with: Callable[[str], None]
    ) -> None:
        """Entries that wait during a failed commit raise too, unless they were cancelled."""
        connecting_with(DISK_FULL)
        journal = await Journal(path, site=SITE).__aenter__()
        with held(path):
            tasks = [asyncio.create_task(begun(journal, link(number))) for number in range(200)]
            await settle()
            tasks += [asyncio.create_task(begun(journal, link(number))) for number in range(200, 300)]
            await settle()
            for task in tasks[::7]:
                task.cancel()
        await asyncio.wait(tasks)
        with pytest.raises(JournalError):
            await journal.__aexit__(None, None, None)
        for number, task in enumerate(tasks):
            assert task.cancelled() if number % 7 == 0 else type(task.exception()) is JournalError

    async def test_an_outcome_that_cannot_be_written(self, path: Path) -> None:
        """An id that UTF-8 cannot encode raises an error, and the link stays ambiguous."""

        async def run() -> None:
            async with Journal(path, site=SITE) as journal:
                async with journal.entry(NEW) as entry:
                    entry.linked(made(NEW, "\ud800"), created=True)
                errors.extend(await begun_all(journal, 1))

        errors: list[object] = []
        with pytest.raises(JournalError, match="surrogates not allowed") as caught:
            await run()
        assert [str(error) for error in errors] == [str(caught.value)]
        assert statuses(path) == {NEW: LinkStatus.AMBIGUOUS}

    async def test_the_error_of_the_body_comes_first(
        self, path: Path, connecting_with: Callable[[str], None]
    ) -> None:
        """An error of the body is raised instead of the journal's error."""

        async def run() -> None:
            async with Journal(path, site=SITE) as journal:
                await begun_all(journal, 200)
                raise LookupError

        connecting_with(DISK_FULL)
        with pytest.raises(LookupError):
            await run()


class TestClosing:
    async def test_used_when_it_is_not_open(self, path: Path) -> None:
        """A journal that is not open refuses entries and outcomes."""
        journal = Journal(path, site=SITE)
        with pytest.raises(JournalError, match="is not open"):
            await begun(journal, NEW)
        async with journal, journal.entry(NEW) as entry:
            pass
        with pytest.raises(JournalError, match="is not open"):
            await begun(journal, NEW)
        with pytest.raises(JournalError, match="is not open"):
            entry.linked(made(NEW), created=True)
        assert statuses(path) == {NEW: LinkStatus.AMBIGUOUS}

    @pytest.mark.parametrize("error", [LookupError, asyncio.CancelledError])
    async def test_the_body_raises(self, path: Path, error: type[BaseException]) -> None:
        """If the body raises, the outcomes are still written."""

        async def run() -> None:
            async with Journal(path, site=SITE) as journal:
                await link_one(journal, NEW)
                raise error

        with pytest.raises(error):
            await run()
        assert statuses(path) == {NEW: LinkStatus.CREATED}

    async def test_cancelled_while_it_closes(self, path: Path) -> None:
        """Outcomes are written even if closing is cancelled repeatedly, without blocking the event loop."""

        async def run() -> None:
            async with Journal(path, site=SITE) as journal, journal.entry(NEW) as entry:
                opened.set()
                await go.wait()
                entry.linked(made(NEW), created=True)

        opened, go = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(run())
        await opened.wait()
        with held(path):
            go.set()
            await settle()
            for _ in range(2):
                task.cancel()
                await settle()
                assert not task.done()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert threads() == []
        assert statuses(path) == {NEW: LinkStatus.CREATED}

    async def test_cancelled_while_it_opens(self, path: Path) -> None:
        """Cancelling the start of a run releases the file."""
        _empty(path)
        with held(path, "BEGIN EXCLUSIVE"):
            task = asyncio.create_task(begun_run(path))
            await settle()
            task.cancel()
            await settle()
            assert not task.done()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert threads() == []
        assert (await enter(path)).previous is None

    async def test_entries_that_are_in_progress(self, path: Path) -> None:
        """Outcomes recorded after the journal was closed are refused."""

        async def late(journal: Journal) -> None:
            async with journal.entry(NEW) as entry:
                await closed.wait()
                entry.linked(made(NEW), created=True)

        closed = asyncio.Event()
        async with Journal(path, site=SITE) as journal:
            task = asyncio.create_task(late(journal))
            await asyncio.sleep(0)
        closed.set()
        with pytest.raises(JournalError, match="is not open"):
            await task
        assert statuses(path) == {NEW: LinkStatus.AMBIGUOUS}


async def begun_run(path: Path) -> None:
    async with Journal(path, site=SITE):
        pass


class Torn(sqlite3.Connection):
    """A connection that meets the header of the log while a run writes it, ``failures`` times."""

    failures = 0

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        if Torn.failures:
            Torn.failures -= 1
            error = sqlite3.OperationalError("attempt to write a readonly database")
            error.sqlite_errorcode = sqlite3.SQLITE_READONLY_RECOVERY
            raise error
        return super().execute(*arguments)


class TestReading:
    async def test_while_a_run_writes_the_header_of_the_log(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A reader that meets a header that is being written tries again, but not for ever."""
        async with (
            Journal(path, site="site") as journal,
            journal.entry(case(some_id(1)).blocks(case(some_id(2)))),
        ):
            pass
        monkeypatch.setattr(journal_file, "_open_to_read", lambda file: sqlite3.connect(file, factory=Torn))
        monkeypatch.setattr(journal_file, "_MAX_TRIES", 3)
        monkeypatch.setattr(Torn, "failures", 2)
        assert len(list(read_journal(path))) == 1
        monkeypatch.setattr(Torn, "failures", 3)
        with pytest.raises(JournalError):
            list(read_journal(path))

    async def test_each_state(self, path: Path) -> None:
        """Each record has its status, its id or error, and its time."""
        begin = datetime.now(UTC)
        async with Journal(path, site=SITE) as journal:
            async with journal.entry(link(0)) as entry:
                entry.linked(made(link(0)), created=True)
            async with journal.entry(link(1)) as entry:
                entry.failed(ValueError("no such case"))
            await begun(journal, link(2))
        end = datetime.now(UTC) + timedelta(seconds=1)  # a time stored as a float may be rounded up
        records = list(read_journal(path))
        assert records == [
            JournalRecord(link(0), LinkStatus.CREATED, "the-id", None, records[0].at),
            JournalRecord(link(1), LinkStatus.FAILED, None, "no such case", records[1].at),
            JournalRecord(link(2), LinkStatus.AMBIGUOUS, None, None, records[2].at),
        ]
        for record in records:
            assert record.at.tzinfo is UTC
            assert begin <= record.at <= end

    async def test_keys(self, path: Path) -> None:
        """A record names each case by its key, if any line of the source used the key."""
        new, page = link(0), incident(some_id(9)).causes(link(0).parent)
        wanted: list[WantedLink] = [parse_link("SHOP-1", "blocks", new.child), page, link(1)]
        for _ in range(2):
            async with Journal(path, site=SITE) as journal:
                for each, named in zip((new, page, link(1)), wanted, strict=True):
                    async with journal.entry(each, named):
                        pass
        assert {str(record.wanted) for record in read_journal(path)} == {
            f"SHOP-1 BLOCKS {new.child.id}",
            f"incident:{some_id(9)} CAUSES SHOP-1",
            f"SHOP-1 BLOCKS {link(1).child.id}",
        }
        assert {record.new for record in read_journal(path)} == {new, page, link(1)}

    async def test_damaged_keys(self, path: Path) -> None:
        """A key that is not text is reported as damage."""
        wanted = parse_link("A-1", "blocks", link(0).child)
        async with Journal(path, site=SITE) as journal, journal.entry(link(0), wanted):
            pass
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("UPDATE keys SET key = x'00'")
            db.commit()
        assert "is damaged" in unreadable(path)

    @pytest.mark.slow
    async def test_many(self, path: Path) -> None:
        """Each record is read once, over several pages."""
        await link_all(path, 2500)
        assert [record.new for record in read_journal(path)] == [link(number) for number in range(2500)]

    async def test_relates_to_has_no_direction(self, path: Path) -> None:
        """Both directions of RELATES_TO share one record."""
        await enter(path, EITHER_WAY)
        await enter(path, turned(EITHER_WAY))
        assert list(statuses(path)) == [EITHER_WAY]

    async def test_a_reader_that_takes_its_time(self, path: Path) -> None:
        """A slow reader does not prevent checkpoints of the write-ahead log."""
        async with Journal(path, site=SITE) as journal:
            await link_one(journal, link(0))
            await link_one(journal, link(1))
            records = read_journal(path)
            assert next(records).new == link(0)
            with contextlib.closing(sqlite3.connect(path)) as db:
                (is_busy, *_) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            assert not is_busy
            assert [record.new for record in records] == [link(1)]

    async def test_a_reader_in_the_midst_of_reading(self, path: Path) -> None:
        """A reader within a transaction does not block the writer."""
        async with Journal(path, site=SITE) as journal:
            with held(path, "BEGIN") as reader:
                reader.execute("SELECT * FROM links").fetchall()
                await link_one(journal, NEW)

    def test_a_missing_file(self, path: Path) -> None:
        """Reading a missing file raises an error, and creates nothing."""
        assert unreadable(path) == f"the journal {path} does not exist"
        assert files(path) == []

    async def test_odd_names(self, path: Path) -> None:
        """Characters that are special in a URI are allowed in a path."""
        odd = path.parent / "a b?mode=memory#x%41ü:memory:"
        await link_all(odd, 1)
        assert statuses(odd) == {NEW: LinkStatus.CREATED}
