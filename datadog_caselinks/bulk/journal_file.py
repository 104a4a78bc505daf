"""Read and write the SQLite file of a journal: one row for each link, one writer, any number of readers.

All functions block.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from attrs import field, frozen

from datadog_caselinks.bulk.journal_lock import locked, locked_if_free, with_log_protected
from datadog_caselinks.values.errors import JournalError
from datadog_caselinks.values.models import (
    CaseKey,
    CaseLink,
    Entity,
    LinkReference,
    LinkStatus,
    NewCaseLink,
    Reference,
    Relationship,
    WantedLink,
    identity,
)
from datadog_caselinks.values.parameters import require_path

_APPLICATION_ID: Final = int.from_bytes(b"CLNK")
_VERSION: Final = 4
_SCHEMA: Final = (
    "CREATE TABLE journal (site TEXT NOT NULL, log TEXT NOT NULL)",
    """CREATE TABLE links (
        parent TEXT, relationship TEXT, child TEXT,
        status TEXT NOT NULL, link_id TEXT, error TEXT, at REAL NOT NULL, found_by_lookup INTEGER NOT NULL,
        PRIMARY KEY (parent, relationship, child)
    ) WITHOUT ROWID""",
    # The keys of cases, as the source of the run named them.
    "CREATE TABLE keys (entity TEXT PRIMARY KEY, key TEXT NOT NULL) WITHOUT ROWID",
    f"PRAGMA user_version = {_VERSION}",
)
_KNOW: Final = "INSERT OR REPLACE INTO keys VALUES (?, ?)"
_MERGED: Final = "merged"
"""The value of ``log`` while the file contains every record."""

_NEEDED: Final = "needed"
"""The value of ``log`` in the file itself during a run, whose newest records are in the write-ahead log."""

_LOST: Final = "lost"
"""The value of ``log`` after the write-ahead log of a run was missing."""

_MERGE: Final = f"UPDATE journal SET log = '{_MERGED}' WHERE log = '{_NEEDED}'"
_FIND: Final = "SELECT status, link_id FROM links WHERE (parent, relationship, child) = (?, ?, ?)"
_WRITE: Final = "INSERT OR REPLACE INTO links VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_REMOVE: Final = "DELETE FROM links WHERE (parent, relationship, child) = (?, ?, ?)"
_PAGE: Final = """SELECT parent, relationship, child, status, link_id, error, at, found_by_lookup,
    (SELECT key FROM keys WHERE entity = parent), (SELECT key FROM keys WHERE entity = child)
    FROM links WHERE (parent, relationship, child) > (?, ?, ?)
    ORDER BY parent, relationship, child LIMIT 1000"""

_MAX_TRIES: Final = 100
"""How often a reader tries to open the file while another one removes the write-ahead log of a dead run."""

_IN_USE: Final = "is in use by another run: wait until it ends, or name another file"
_FOREIGN: Final = "is not a journal, and was left unchanged: name a journal, or a new file for a new run"
_ADVICE: Final = {
    sqlite3.SQLITE_BUSY: _IN_USE,
    sqlite3.SQLITE_CANTOPEN: "cannot be opened: name a file in an existing, writable directory",
    sqlite3.SQLITE_CORRUPT: "is damaged: restore it, or name a new file, which starts without its links",
    sqlite3.SQLITE_FULL: "cannot be written because the disk is full: free some space and run again",
    sqlite3.SQLITE_NOTADB: _FOREIGN,
    sqlite3.SQLITE_PROTOCOL: "cannot be locked: name a file on a local disk",
    sqlite3.SQLITE_READONLY: "is read-only: change its permissions, or name another file",
}
_CODES: Final = {
    errno.ENOENT: sqlite3.SQLITE_CANTOPEN,
    errno.ENOTDIR: sqlite3.SQLITE_CANTOPEN,
    errno.EACCES: sqlite3.SQLITE_CANTOPEN,
    errno.EROFS: sqlite3.SQLITE_CANTOPEN,
    errno.ENOLCK: sqlite3.SQLITE_PROTOCOL,
    errno.EOPNOTSUPP: sqlite3.SQLITE_PROTOCOL,
    errno.ENOSPC: sqlite3.SQLITE_FULL,
}
"""The codes of SQLite that correspond to those of the system."""


@frozen
class JournalRecord:
    """The entry of a link in a journal.

    ``new``
        The link to create. The ends of ``RELATES_TO``, which has no direction, are sorted by type and id.
    ``status``
        The last known status. ``AMBIGUOUS`` means that the link was sent without a known outcome, or that an
        undo of the run began to delete it.
    ``link_id``
        The id of the link, if it was created or found. An ambiguous link has one after an undo only.
    ``error``
        The error message, if the link failed. An ambiguous link has one if a lookup did not find it.
    ``at``
        The time of the last change, in UTC.
    ``found_by_lookup``
        Whether a lookup found the link after a lost response, or after a run that may have sent it just
        before it ended. So the run may have created the link, or another process.
    ``keys``
        The keys of those cases that the source of the run named by key.
    """

    new: NewCaseLink
    status: LinkStatus
    link_id: str | None
    error: str | None
    at: datetime
    found_by_lookup: bool = False
    keys: Mapping[Entity, str] = field(factory=dict, eq=False)

    @property
    def wanted(self) -> WantedLink:
        """The link as the source of the run named it: with keys, if it used any."""
        parent, child = (self._named(end) for end in (self.new.parent, self.new.child))
        return LinkReference(parent, Relationship(self.new.relationship), child) if self.keys else self.new

    def _named(self, entity: Entity) -> Reference:
        return CaseKey(self.keys[entity]) if entity in self.keys else entity


Key = tuple[str, str, str]
"""The parent, relationship and child of a link as text. Equal links have equal keys."""

Previous = tuple[LinkStatus | None, str | None]
"""The status and id of a link before a write; ``(None, None)`` if the journal did not contain it."""

LINKED: Final = (LinkStatus.CREATED, LinkStatus.ALREADY_LINKED)


class Write(NamedTuple):
    """A new status of a link, or ``None`` to remove the link, and the keys of its ends by their entities."""

    key: Key
    status: LinkStatus | None
    link_id: str | None = None
    error: str | None = None
    found_by_lookup: bool = False
    keys: Sequence[tuple[str, str]] = ()


def key_of(link: NewCaseLink | CaseLink) -> Key:
    """Return the key under which ``link`` is stored."""
    parent, relationship, child = identity(link)
    return str(parent), str(relationship), str(child)


class Store:
    """The file of a journal, opened by its only writer. After an error, nothing more is written."""

    def __init__(self, path: str | os.PathLike[str], site: str) -> None:
        self.file: Path = _real(path)
        self._site = site
        self._opened = contextlib.ExitStack()
        self._failure: str | None = None
        self.is_incomplete: bool = False

    def open(self) -> bool:
        """Lock and open the file, and create it if it is new. Return ``False`` if another run is using it."""
        file = self.file
        with _explained(file), contextlib.ExitStack() as opened:
            if file.exists():
                _refuse_foreign(file)
            try:
                opened.enter_context(locked(file))
            except BlockingIOError:
                return False
            has_log = _has_log(file)
            self._db = opened.enter_context(contextlib.closing(sqlite3.connect(file, isolation_level=None)))
            self._db.execute("PRAGMA synchronous = FULL")
            if _version(self._db, file):
                _refuse_damaged(self._db)
            else:
                self._set_up()
            self._refuse_other_site()
            self._begin_log(has_log)
            opened.enter_context(with_log_protected(file))
            opened.callback(self._end_log)
            self._opened = opened.pop_all()
        return True

    def in_use(self) -> JournalError:
        """Return the error of a file that another run is using."""
        return JournalError(f"the journal {self.file} {_IN_USE}")

    def write(self, batch: list[Write]) -> list[Previous]:
        """Write ``batch`` in order, and return the previous status and id of each link."""
        if self._failure:
            raise JournalError(self._failure)
        try:
            with _explained(self.file):
                self._db.execute("BEGIN IMMEDIATE")
                previous = [self._write(write) for write in batch]
                self._db.execute("COMMIT")
        except Exception as error:
            self._failure = str(error)
            raise
        return previous

    def records(self, is_wanted: Callable[[JournalRecord], bool]) -> list[JournalRecord]:
        """Return the records for which ``is_wanted`` returns true."""
        with _explained(self.file):
            return list(filter(is_wanted, _records(self._db)))

    def close(self) -> str | None:
        """Close the file, and return why it could not be written, if so."""
        self._opened.close()
        return self._failure

    def _write(self, write: Write) -> Previous:
        status, link_id = previous = _previous(self._db.execute(_FIND, write.key).fetchone())
        begins_create = write.status is LinkStatus.AMBIGUOUS and write.link_id is None
        if write.status is None:
            self._db.execute(_REMOVE, write.key)
        elif not (begins_create and (status in LINKED or link_id)):
            outcome = write.status, write.link_id, write.error, time.time(), write.found_by_lookup
            self._db.execute(_WRITE, (*write.key, *outcome))
        self._db.executemany(_KNOW, write.keys)
        return previous

    def _set_up(self) -> None:
        # First, and outside of the write-ahead log: a file of one page is written atomically.
        self._db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("BEGIN")
        for statement in _SCHEMA:
            self._db.execute(statement)
        self._db.execute("INSERT INTO journal VALUES (?, ?)", (self._site, _MERGED))
        self._db.execute("COMMIT")

    def _begin_log(self, has_log: bool) -> None:
        """Note in the file itself that it needs its write-ahead log, and notice that it lost one."""
        with _checking_rows():
            (log,) = self._db.execute("SELECT log FROM journal").fetchone()
        self.is_incomplete = log == _LOST or (log == _NEEDED and not has_log)
        self._db.execute("UPDATE journal SET log = ?", (_LOST if self.is_incomplete else _NEEDED,))
        self._db.execute("PRAGMA wal_checkpoint")

    def _end_log(self) -> None:
        """Note that the file needs no write-ahead log: SQLite merges it when the file is closed."""
        with contextlib.suppress(sqlite3.Error):  # after a write that failed, or on a full disk
            self._db.execute(_MERGE)

    def _refuse_other_site(self) -> None:
        with _checking_rows():
            (site,) = self._db.execute("SELECT site FROM journal").fetchone()
        if site != self._site:
            raise JournalError(
                f"the journal {self.file} belongs to {site}, and this run is for {self._site}: "
                "use the site of the journal, or name a new file for a new run"
            )


def read_journal(path: str | os.PathLike[str]) -> Iterator[JournalRecord]:
    """Yield the record of each link in the journal at ``path``, even while a run is writing to it.

    Raises:
        JournalError: The file does not exist, is not a journal, or cannot be read.
        ParameterError: ``path`` is not a path.
    """
    require_path("path", path)
    file = _real(path)
    with _explained(file):
        if not file.exists():
            raise JournalError(f"the journal {file} does not exist")
        _refuse_foreign(file)
        try:
            with contextlib.closing(_open_to_read(file)) as db:
                if _version(db, file):
                    _refuse_damaged(db)
                    yield from _records(db)
        finally:
            _remove_log(file)


def _open_to_read(file: Path) -> sqlite3.Connection:
    """Open the file so that nothing can happen to the write-ahead log of a run.

    SQLite would remove or rebuild the log if the locks of the run have ended.
    """
    tries = 0
    while True:
        with locked_if_free(file) as is_free, contextlib.ExitStack() as opened:
            options = "mode=ro" if is_free else "mode=ro&readonly_shm=1"
            db = opened.enter_context(
                contextlib.closing(sqlite3.connect(f"{file.as_uri()}?{options}", uri=True))
            )
            try:
                db.execute("PRAGMA user_version").fetchone()  # opens the log
            except sqlite3.OperationalError as error:
                tries += 1
                code = error.sqlite_errorcode & 0xFF
                if (
                    is_free
                    or tries == _MAX_TRIES
                    or code not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
                ):
                    raise
            else:
                opened.pop_all()
                return db
        time.sleep(0.01)


def _remove_log(file: Path) -> None:
    """Merge the write-ahead log into the file and remove it, unless a run is using it."""
    with contextlib.suppress(sqlite3.Error), locked_if_free(file) as is_free:
        if is_free and os.path.exists(f"{file}-wal"):
            has_log = _has_log(file)
            uri = f"{file.as_uri()}?mode=rw"
            with contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as db:
                db.execute(_MERGE if has_log else "PRAGMA user_version")


def _has_log(file: Path) -> bool:
    log = Path(f"{file}-wal")
    return log.exists() and log.stat().st_size > 0


def _refuse_damaged(db: sqlite3.Connection) -> None:
    """Raise the error of a damaged database, such as an incomplete copy, in which SQLite still finds rows."""
    ((result,),) = _fetched(db, "PRAGMA quick_check(1)")
    if result != "ok":
        raise _DamagedError(result)


def _fetched(db: sqlite3.Connection, query: str, parameters: Sequence[str] = ()) -> list[Any]:
    """Return the rows of a query.

    A reader that must not change the log fails if it reads the log's header while a run writes it.
    """
    tries = 0
    while True:
        try:
            return db.execute(query, parameters).fetchall()
        except sqlite3.OperationalError as error:
            tries += 1
            if tries == _MAX_TRIES or error.sqlite_errorcode != sqlite3.SQLITE_READONLY_RECOVERY:
                raise
        time.sleep(0.01)


def _records(db: sqlite3.Connection) -> Iterator[JournalRecord]:
    # In pages: a run cannot reuse the write-ahead log during a SELECT, and the log would keep growing.
    last = ("", "", "")
    while page := _fetched(db, _PAGE, last):
        yield from map(_record, page)
        last = page[-1][:3]


class _DamagedError(sqlite3.DatabaseError):
    """Damage that SQLite does not report, such as a row with values that no journal contains."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


@contextlib.contextmanager
def _checking_rows() -> Iterator[None]:
    try:
        yield
    except (OverflowError, TypeError, ValueError) as error:
        raise _DamagedError from error


@_checking_rows()
def _record(row: tuple[Any, ...]) -> JournalRecord:
    parent, relationship, child, status, link_id, error, at, found, *keys = row
    new = NewCaseLink(_entity(parent), relationship, _entity(child))
    when = datetime.fromtimestamp(at, UTC)
    known = {end: key for end, key in zip((new.parent, new.child), map(_text, keys), strict=True) if key}
    is_found = bool((0, 1).index(found))  # raises ValueError for anything else
    return JournalRecord(new, _status(status), _text(link_id), _text(error), when, is_found, known)


@_checking_rows()
def _previous(row: tuple[Any, ...] | None) -> Previous:
    return (_status(row[0]), _text(row[1])) if row else (None, None)


def _status(value: object) -> LinkStatus:
    status = LinkStatus(str(value))
    if status is LinkStatus.MALFORMED:
        raise ValueError("a journal contains links only")
    return status


def _entity(value: object) -> Entity:
    type, id = (_text(value) or "").split(" ")
    return Entity(id, type)


def _text(value: object) -> str | None:
    if not isinstance(value, str | None):
        raise TypeError("not text")
    return value


def files_of_journal(path: str | os.PathLike[str]) -> list[Path]:
    """Return the file of the journal at ``path``, and those that SQLite and the lock use next to it."""
    file = _real(path)
    return [Path(f"{file}{suffix}") for suffix in ("", "-journal", "-lock", "-shm", "-wal")]


def _real(path: str | os.PathLike[str]) -> Path:
    """Resolve symbolic links, so that two names of one file are one journal."""
    return Path(os.path.realpath(path))


@contextlib.contextmanager
def _explained(file: Path) -> Iterator[None]:
    """Convert errors of SQLite and the system to a :class:`JournalError` that says what to do."""
    try:
        yield
    except (sqlite3.Error, OSError, UnicodeEncodeError) as error:
        if isinstance(error, OSError):
            code = _CODES.get(error.errno or 0, 0)
        else:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary code of an extended one
        advice = _ADVICE.get(code, f"cannot be used: {error}")
        raise JournalError(f"the journal {file} {advice}") from error
    except UnicodeDecodeError as error:  # SQLite's own message quotes the content of the file
        raise JournalError(f"the journal {file} {_ADVICE[sqlite3.SQLITE_CORRUPT]}") from error


def _refuse_foreign(file: Path) -> None:
    """Raise :class:`JournalError` unless the file is a journal or empty, without changing anything."""
    if file.is_dir():
        raise JournalError(f"the journal {file} is a directory: name a file in it")
    if file.stat().st_nlink > 1:
        raise JournalError(
            f"the journal {file} has other names (hard links), and its newest records may be stored next to "
            "one of them: remove the other names, or name another file"
        )
    if not file.is_file() or (file.stat().st_size and not _is_marked(file)):
        raise JournalError(f"the journal {file} {_FOREIGN}")


def _is_marked(file: Path) -> bool:
    try:
        with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?immutable=1", uri=True)) as db:
            return bool(db.execute("PRAGMA application_id").fetchone() == (_APPLICATION_ID,))
    except sqlite3.DatabaseError as error:
        # Reading without a lock may see a journal while its run is writing, which looks like damage.
        if error.sqlite_errorcode != sqlite3.SQLITE_CORRUPT:
            raise
        return True


def _version(db: sqlite3.Connection, file: Path) -> int:
    """Return the version of the file format, or 0 for a new file."""
    version: int
    ((version,),) = _fetched(db, "PRAGMA user_version")
    if version > _VERSION:
        raise JournalError(f"the journal {file} was written by a newer version of this program: update it")
    if version not in (0, _VERSION):
        raise JournalError(
            f"the journal {file} was written by an older version of this program, and cannot be read: "
            "name a new file, and use ensure to find the links that exist already"
        )
    return version
