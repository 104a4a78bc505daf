"""The links and the cases, in SQLite. Knows SQL; no HTTP, and no rule about what makes a link valid."""

from __future__ import annotations

import sqlite3
import uuid
from pathlib import Path
from typing import Final, Literal

from attrs import asdict, fields_dict, frozen

from datadog_caselinks.errors import ConfigurationError

CaseStatus = Literal["OPEN", "IN_PROGRESS", "CLOSED"]
CasePriority = Literal["P1", "P2", "P3", "P4", "P5", "NOT_DEFINED"]

# "dcls" in ASCII. Marks the file as ours, so that another program's database is not written to.
_APPLICATION_ID: Final = 0x64636C73

_SCHEMA: Final = f"""
PRAGMA application_id = {_APPLICATION_ID};
CREATE TABLE IF NOT EXISTS links (
    position INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    parent_entity_type TEXT NOT NULL,
    parent_entity_id TEXT NOT NULL,
    relationship TEXT NOT NULL,
    child_entity_type TEXT NOT NULL,
    child_entity_id TEXT NOT NULL,
    created_at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS links_by_parent ON links (parent_entity_id);
CREATE INDEX IF NOT EXISTS links_by_child ON links (child_entity_id);
CREATE TABLE IF NOT EXISTS cases (
    id TEXT PRIMARY KEY,
    key TEXT NOT NULL UNIQUE COLLATE NOCASE,
    title TEXT NOT NULL,
    status TEXT NOT NULL,
    priority TEXT NOT NULL
);
"""

_LINK: Final = (
    "id, parent_entity_type, parent_entity_id, relationship, child_entity_type, child_entity_id, created_at"
)


@frozen
class Draft:
    """A valid link that is not stored yet; the ids are in lower case."""

    parent_entity_type: str
    parent_entity_id: str
    relationship: str
    child_entity_type: str
    child_entity_id: str


_EQUAL: Final = " AND ".join(f"{name} = :{name}" for name in fields_dict(Draft))


@frozen
class StoredLink:
    """A link as the sandbox keeps it; ``created_at`` is in seconds since the epoch."""

    id: str
    parent_entity_type: str
    parent_entity_id: str
    relationship: str
    child_entity_type: str
    child_entity_id: str
    created_at: float

    def __str__(self) -> str:
        parent = f"{self.parent_entity_type} {self.parent_entity_id}"
        return f"{parent} {self.relationship} {self.child_entity_type} {self.child_entity_id}"

    def __repr__(self) -> str:
        # One line that says what is linked, since failing tests show many of them.
        return f"<link {self.id[:8]}: {self}>"


@frozen
class StoredCase:
    """A case as the sandbox keeps it.

    ``status`` is ``OPEN``, ``IN_PROGRESS`` or ``CLOSED``; ``priority`` ``P1`` to ``P5`` or ``NOT_DEFINED``.
    """

    id: str
    key: str
    title: str
    status: str
    priority: str


class Store:
    """The stored cases, and the stored links, oldest first.

    Two equal drafts make two links: whether that is allowed, others decide.

    Raises :class:`ConfigurationError` if ``path`` cannot be opened, or is no SQLite database, or is
    the database of another program. ``:memory:`` keeps the links until :meth:`close`.
    """

    def __init__(self, path: str | Path) -> None:
        try:
            # isolation_level=None is autocommit: a link that was answered is in the file.
            self._db = sqlite3.connect(path, isolation_level=None)
        except sqlite3.Error as error:
            raise ConfigurationError(f"the database {str(path)!r} cannot be opened: {error}") from error
        try:
            self._prepare(path)
        except sqlite3.Error as error:
            self._db.close()
            raise ConfigurationError(f"the database {str(path)!r} cannot be used: {error}") from error
        except ConfigurationError:
            self._db.close()
            raise

    def _prepare(self, path: str | Path) -> None:
        (owner,) = self._db.execute("PRAGMA application_id").fetchone()
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if tables and owner != _APPLICATION_ID:
            raise ConfigurationError(f"the database {str(path)!r} belongs to another program")
        # With a write-ahead log and synchronous=NORMAL a commit waits for no disk. Links outlive a
        # killed process; a power cut may take the latest of them, never the database.
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(_SCHEMA)

    def add(self, draft: Draft, created_at: float) -> StoredLink:
        """Store a new link under a new id."""
        link = StoredLink(
            str(uuid.uuid4()),
            draft.parent_entity_type,
            draft.parent_entity_id,
            draft.relationship,
            draft.child_entity_type,
            draft.child_entity_id,
            created_at,
        )
        self._db.execute(
            f"INSERT INTO links ({_LINK}) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                link.id,
                link.parent_entity_type,
                link.parent_entity_id,
                link.relationship,
                link.child_entity_type,
                link.child_entity_id,
                link.created_at,
            ),
        )
        return link

    def has(self, draft: Draft) -> bool:
        """Whether there is a link as ``draft``, the same way round."""
        found = self._db.execute(f"SELECT 1 FROM links WHERE {_EQUAL} LIMIT 1", asdict(draft)).fetchone()
        return found is not None

    def remove(self, link_id: str) -> bool:
        """Delete a link, and say whether it was there."""
        return self._db.execute("DELETE FROM links WHERE id = ?", (link_id,)).rowcount == 1

    def around(
        self, entity_type: str, entity_id: str, relationship: str | None, *, until: float | None = None
    ) -> list[StoredLink]:
        """The links that the entity is parent or child of, of one relationship or of all.

        With ``until``, those that were stored by then.
        """
        return self._links(
            "WHERE ((parent_entity_id = :id AND parent_entity_type = :type)"
            " OR (child_entity_id = :id AND child_entity_type = :type))"
            " AND (:relationship IS NULL OR relationship = :relationship)"
            " AND (:until IS NULL OR created_at <= :until) ORDER BY position",
            {"id": entity_id, "type": entity_type, "relationship": relationship, "until": until},
        )

    def all(self) -> list[StoredLink]:
        """Every link."""
        return self._links("ORDER BY position", {})

    def latest(self, count: int) -> list[StoredLink]:
        """The newest links, newest first."""
        return self._links("ORDER BY position DESC LIMIT :count", {"count": count})

    def add_case(self, case: StoredCase) -> None:
        """Store a case, or what changed of it. Raises :class:`ConfigurationError` for the key of another."""
        try:
            self._db.execute(
                "INSERT INTO cases VALUES (:id, :key, :title, :status, :priority) ON CONFLICT (id) DO UPDATE"
                " SET key = :key, title = :title, status = :status, priority = :priority",
                asdict(case),
            )
        except sqlite3.IntegrityError:
            raise ConfigurationError(f"another case has the key {case.key}") from None

    def case(self, id_or_key: str) -> StoredCase | None:
        """The case with this id or key, in upper or lower case."""
        row = self._db.execute(
            "SELECT id, key, title, status, priority FROM cases WHERE id = lower(:name) OR key = :name",
            {"name": id_or_key},
        ).fetchone()
        return StoredCase(*row) if row else None

    def has_cases(self) -> bool:
        """Whether there is any case."""
        return self._db.execute("SELECT 1 FROM cases LIMIT 1").fetchone() is not None

    def __len__(self) -> int:
        (count,) = self._db.execute("SELECT count(*) FROM links").fetchone()
        return int(count)

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def _links(self, clause: str, parameters: dict[str, str | float | None]) -> list[StoredLink]:
        rows = self._db.execute(f"SELECT {_LINK} FROM links {clause}", parameters)
        return [StoredLink(*row) for row in rows]
