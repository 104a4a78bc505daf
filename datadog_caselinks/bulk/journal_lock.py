"""Locks of a journal that last until its run ends.

SQLite locks files with POSIX record locks. They belong to the process, and end as soon as it closes any
descriptor of the file, for example after a backup or an upload of the journal. The locks here belong to the
open file. On Windows, all locks belong to the open file, including those of SQLite.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import struct
import sys
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Final
from weakref import WeakSet

_locked_files: Final = WeakSet[FileIO]()


def _unlock_in_child() -> None:
    """Close the locked files in a forked child, which would keep the locks of a run that was killed."""
    for file in list(_locked_files):
        file.close()


try:
    import fcntl

    os.register_at_fork(after_in_child=_unlock_in_child)
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_HAS_RANGE_LOCKS: Final = fcntl is not None and sys.platform == "linux"
"""Whether the system can lock a range of bytes for an open file."""

# See os_unix.c and wal.c of SQLite.
_PENDING_BYTE: Final = 2**30
_RUN: Final = (_PENDING_BYTE + 2**10, 1)  # a byte that SQLite never locks
_SHARED: Final = (_PENDING_BYTE + 2, 510)  # of the database: locked by all that have it open
_CONNECTED: Final = (128, 1)  # of the index of the write-ahead log: the same


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Keep other runs out, with a lock on an empty file next to ``file``.

    On Linux, ``file`` itself is locked too, so that it is one journal under any name.

    Raises:
        BlockingIOError: Another run uses the file.
    """
    with contextlib.ExitStack() as opened:
        if fcntl is None:
            opened.enter_context(_locked_by_sqlite(f"{file}-lock"))
        else:
            fcntl.flock(opened.enter_context(_open(f"{file}-lock")), fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _HAS_RANGE_LOCKS:
                _lock_range(opened.enter_context(_open(file)), fcntl.F_WRLCK, _RUN)
        yield


@contextlib.contextmanager
def locked_if_free(file: Path) -> Iterator[bool]:
    """Keep other runs out, and yield whether that is possible."""
    with contextlib.ExitStack() as lock:
        try:
            lock.enter_context(locked(file))
            is_free = True
        except OSError:  # a run has the lock, or the directory is read-only
            is_free = False
        yield is_free


@contextlib.contextmanager
def with_log_protected(file: Path) -> Iterator[None]:
    """Keep other processes from removing or rebuilding the write-ahead log of an open database.

    SQLite's own locks do so too, until they end. Only on Linux: SQLite cannot tell these locks from those of
    another process that reads the database.
    """
    with contextlib.ExitStack() as opened:
        if _HAS_RANGE_LOCKS:
            _lock_range(opened.enter_context(_open(file)), fcntl.F_RDLCK, _SHARED)
            _lock_range(opened.enter_context(_open(f"{file}-shm")), fcntl.F_RDLCK, _CONNECTED)
        yield


def _open(path: str | Path) -> FileIO:
    file = FileIO(path, "a+")
    _locked_files.add(file)
    return file


def _lock_range(file: FileIO, kind: int, place: tuple[int, int]) -> None:
    start, length = place
    lock = struct.pack("hhqqi", kind, os.SEEK_SET, start, length, 0)
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, lock)
    except BlockingIOError:
        raise
    except OSError:  # an emulated kernel, such as gVisor, or a network file system
        return


@contextlib.contextmanager
def _locked_by_sqlite(path: str) -> Iterator[None]:
    """Lock the file with a transaction that stays open, and leaves the file empty."""
    connection = sqlite3.connect(path, timeout=0, isolation_level=None)
    with contextlib.closing(connection) as lock:
        lock.execute("PRAGMA journal_mode = MEMORY")  # creates no further file
        try:
            lock.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            raise BlockingIOError from error
        yield
