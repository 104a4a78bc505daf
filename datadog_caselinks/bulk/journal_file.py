"""The file of a journal: a row for each link, one writer at a time, readers always. Blocks its caller."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, NamedTuple

from attrs import frozen

from datadog_caselinks.errors import JournalError
from datadog_caselinks.models import CaseLink, Entity, NewCaseLink, identity

_APPLICATION_ID: Final = int.from_bytes(b"CLNK")
_VERSION: Final = 1
_SCHEMA: Final = (
    "CREATE TABLE journal (site TEXT NOT NULL)",
    """CREATE TABLE links (
        parent TEXT, relationship TEXT, child TEXT,
        state TEXT NOT NULL, link_id TEXT, error TEXT, at REAL NOT NULL,
        PRIMARY KEY (parent, relationship, child)
    ) WITHOUT ROWID""",
    f"PRAGMA user_version = {_VERSION}",
)
_FIND: Final = "SELECT state, link_id FROM links WHERE (parent, relationship, child) = (?, ?, ?)"
_WRITE: Final = "INSERT OR REPLACE INTO links VALUES (?, ?, ?, ?, ?, ?, ?)"
_PAGE: Final = """SELECT parent, relationship, child, state, link_id, error, at FROM links
    WHERE (parent, relationship, child) > (?, ?, ?)
    ORDER BY parent, relationship, child LIMIT 1000"""

_FOREIGN: Final = "is another kind of file, and was left as it is: name a new file"
_ADVICE: Final = {
    sqlite3.SQLITE_BUSY: "is in use by another run: let it end, or name another file",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened: name a file in a directory that exists and can be written",
    sqlite3.SQLITE_CORRUPT: "is damaged: restore it, or name a new file, which will not know its links",
    sqlite3.SQLITE_FULL: "cannot be written, as the disk is full: make room and run again",
    sqlite3.SQLITE_NOTADB: _FOREIGN,
    sqlite3.SQLITE_READONLY: "may not be written: change its permissions, or name another file",
}


class LinkState(StrEnum):
    """What is known of a link.

    SENT: it went out, and may have been made. LINKED: it is there, by an id that is kept. FAILED: it was
    surely not made, because of an error that is kept.
    """

    SENT = "sent"
    LINKED = "linked"
    FAILED = "failed"


@frozen
class JournalRecord:
    """What a journal says of the link ``new``, last written at the time ``at``, in UTC.

    ``link_id`` is there if it is LINKED, ``error`` if it FAILED. The ends of ``RELATES_TO``, which has no
    direction, stand in the order of their types and ids.
    """

    new: NewCaseLink
    state: LinkState
    link_id: str | None
    error: str | None
    at: datetime


Key = tuple[str, str, str]
"""What makes two links the same, as text."""

Before = tuple[LinkState | None, str | None]
"""What was said of a link until now: its state and its id; neither if it was not known."""


class Write(NamedTuple):
    """A link's new state."""

    key: Key
    state: LinkState
    link_id: str | None = None
    error: str | None = None


def key_of(link: NewCaseLink | CaseLink) -> Key:
    """What ``link`` is kept by."""
    parent, relationship, child = identity(link)
    return str(parent), str(relationship), str(child)


class Store:
    """The file as its one writer sees it. After an error nothing more is written."""

    def __init__(self, path: str | os.PathLike[str], site: str) -> None:
        self._path = path
        self._site = site
        self._opened = contextlib.ExitStack()
        self._failure: str | None = None

    def open(self) -> None:
        """Lock the file, and make it if it is new."""
        self._file = file = _real(self._path)
        with _explained(file), contextlib.ExitStack() as opened:
            if file.exists():
                _refuse_foreign(file)
            opened.enter_context(_locked(file))
            self._db = opened.enter_context(contextlib.closing(sqlite3.connect(file, isolation_level=None)))
            self._db.execute("PRAGMA synchronous = FULL")
            if not _version(self._db, file):
                self._set_up()
            self._refuse_other_site()
            self._opened = opened.pop_all()

    def write(self, batch: list[Write]) -> list[Before]:
        """Write ``batch`` in its order, and tell what was said of each link before."""
        if self._failure:
            raise JournalError(self._failure)
        try:
            with _explained(self._file):
                self._db.execute("BEGIN IMMEDIATE")
                before = [self._write(write) for write in batch]
                self._db.execute("COMMIT")
        except Exception as error:
            self._failure = str(error)
            raise
        return before

    def close(self) -> str | None:
        """Close the file, and tell what kept it from being written."""
        self._opened.close()
        return self._failure

    def _write(self, write: Write) -> Before:
        before = _before(self._db.execute(_FIND, write.key).fetchone())
        if (before[0], write.state) != (LinkState.LINKED, LinkState.SENT):
            self._db.execute(_WRITE, (*write.key, write.state, write.link_id, write.error, time.time()))
        return before

    def _set_up(self) -> None:
        # First and alone, into the file itself: it is one page, which is there whole or not at all.
        self._db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("BEGIN")
        for statement in _SCHEMA:
            self._db.execute(statement)
        self._db.execute("INSERT INTO journal VALUES (?)", (self._site,))
        self._db.execute("COMMIT")

    def _refuse_other_site(self) -> None:
        with _as_written():
            (site,) = self._db.execute("SELECT site FROM journal").fetchone()
        if site != self._site:
            raise JournalError(
                f"the journal {self._file} is of {site}, and this run is for {self._site}: name another file"
            )


def read_journal(path: str | os.PathLike[str]) -> Iterator[JournalRecord]:
    """What the journal at ``path`` says of each link, also while a run is writing it.

    Raises :class:`JournalError`, when the first record is asked for, if there is no journal.
    """
    file = _real(path)
    with _explained(file):
        if not file.exists():
            raise JournalError(f"the journal {file} does not exist")
        _refuse_foreign(file)
        # Not "mode=ro": SQLite would leave behind the two files that it makes beside this one.
        with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=rw", uri=True)) as db:
            if _version(db, file):
                yield from _records(db)


def _records(db: sqlite3.Connection) -> Iterator[JournalRecord]:
    # In pages: while a SELECT goes on, a run cannot reuse the write-ahead log, which grows and grows.
    last = ("", "", "")
    while page := db.execute(_PAGE, last).fetchall():
        yield from map(_record, page)
        last = page[-1][:3]


class _DamagedRowError(sqlite3.DatabaseError):
    """A row that was never written so. SQLite does not check what it reads."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


@contextlib.contextmanager
def _as_written() -> Iterator[None]:
    try:
        yield
    except (OverflowError, TypeError, ValueError) as error:
        raise _DamagedRowError from error


@_as_written()
def _record(row: tuple[Any, ...]) -> JournalRecord:
    parent, relationship, child, state, link_id, error, at = row
    new = NewCaseLink(_entity(parent), relationship, _entity(child))
    when = datetime.fromtimestamp(at, UTC)
    return JournalRecord(new, LinkState(state), _text(link_id), _text(error), when)


@_as_written()
def _before(row: tuple[Any, ...] | None) -> Before:
    return (LinkState(row[0]), _text(row[1])) if row else (None, None)


def _entity(value: object) -> Entity:
    type, id = (_text(value) or "").split(" ")
    return Entity(id, type)


def _text(value: object) -> str | None:
    if not isinstance(value, str | None):
        raise TypeError("no text")
    return value


def _real(path: str | os.PathLike[str]) -> Path:
    """The file itself, so that two symbolic links to it are one journal."""
    return Path(os.path.realpath(path))


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Refuse other runs meanwhile, by a transaction without an end in a file that stays empty.

    A lock of the journal itself would end with each commit, or keep readers out.
    """
    connection = sqlite3.connect(f"{file}-lock", timeout=0, isolation_level=None)
    with contextlib.closing(connection) as lock:
        lock.execute("PRAGMA journal_mode = MEMORY")  # without a third file
        lock.execute("BEGIN IMMEDIATE")
        yield


@contextlib.contextmanager
def _explained(file: Path) -> Iterator[None]:
    """Turn what SQLite and the system raise into a :class:`JournalError` that says what to do."""
    try:
        yield
    except (sqlite3.Error, OSError, UnicodeEncodeError) as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary of an extended code
        advice = _ADVICE.get(code, f"cannot be used: {error}")
        raise JournalError(f"the journal {file} {advice}") from error
    except UnicodeDecodeError as error:  # SQLite's own message quotes what it found in the file
        raise JournalError(f"the journal {file} {_ADVICE[sqlite3.SQLITE_CORRUPT]}") from error


def _refuse_foreign(file: Path) -> None:
    """Raise for what is neither a journal nor empty, and leave nothing in it or beside it."""
    if file.is_dir():
        raise JournalError(f"the journal {file} is a directory: name a file in it")
    if not file.is_file() or (file.stat().st_size and not _is_marked(file)):
        raise JournalError(f"the journal {file} {_FOREIGN}")


def _is_marked(file: Path) -> bool:
    try:
        with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?immutable=1", uri=True)) as db:
            return bool(db.execute("PRAGMA application_id").fetchone() == (_APPLICATION_ID,))
    except sqlite3.DatabaseError as error:
        # This looks without a lock: so may a journal be seen while its run writes.
        if error.sqlite_errorcode != sqlite3.SQLITE_CORRUPT:
            raise
        return True


def _version(db: sqlite3.Connection, file: Path) -> int:
    """The version of the journal's form; 0 if it has none yet."""
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    if version > _VERSION:
        raise JournalError(f"the journal {file} was written by a newer version of this program: update it")
    return version
