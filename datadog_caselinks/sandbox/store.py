"""Storage of links, cases and incidents in SQLite. Links are validated before they are stored."""

from __future__ import annotations

import sqlite3
import uuid
from pathlib import Path
from typing import Final, Literal

from attrs import asdict, fields_dict, frozen

from datadog_caselinks.values.errors import ParameterError

CaseStatus = Literal[
    "OPEN",
    "IN_PROGRESS",
    "CLOSED",
    "NOT_STARTED",
    "ACKNOWLEDGED",
    "TRIGGERED",
    "PENDING_APPROVAL",
    "COMPLETED",
    "CANCELLED",
    "DECLINED",
    "SUNKNOWN",
    "RESOLVED",
    "APPROVED",
    "IMPLEMENTING",
]
CaseStatusGroup = Literal["SG_OPEN", "SG_IN_PROGRESS", "SG_CLOSED"]
CasePriority = Literal["P1", "P2", "P3", "P4", "P5", "NOT_DEFINED"]
IncidentState = Literal["active", "stable", "resolved", "completed"]

# "dcls" in ASCII. Identifies our files, so that the sandbox never writes to another program's database.
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
    priority TEXT NOT NULL,
    status_name TEXT NOT NULL DEFAULT '',
    status_group TEXT NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS incidents (
    id TEXT PRIMARY KEY,
    number INTEGER NOT NULL UNIQUE,
    title TEXT NOT NULL,
    state TEXT NOT NULL
);
"""

_LINK: Final = (
    "id, parent_entity_type, parent_entity_id, relationship, child_entity_type, child_entity_id, created_at"
)


@frozen
class Draft:
    """A valid link that is not stored yet; its ids are in lower case."""

    parent_entity_type: str
    parent_entity_id: str
    relationship: str
    child_entity_type: str
    child_entity_id: str


_EQUAL: Final = " AND ".join(f"{name} = :{name}" for name in fields_dict(Draft))


@frozen
class StoredLink:
    """A stored link; ``created_at`` is in seconds since the epoch."""

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
        # One short line, since the report of a failed test lists many of them.
        return f"<link {self.id[:8]}: {self}>"


@frozen
class StoredCase:
    """A stored case.

    ``status`` is one of the 14 that the API knows; ``priority`` ``P1`` to ``P5`` or ``NOT_DEFINED``.
    ``status_name`` and ``status_group`` are left out of responses if they are empty, as in some recorded
    responses.
    """

    id: str
    key: str
    title: str
    status: str
    priority: str
    status_name: str = ""
    status_group: str = ""


_CASE: Final = ", ".join(fields_dict(StoredCase))


@frozen
class StoredIncident:
    """A stored incident. ``state`` is ``active``, ``stable``, ``resolved`` or ``completed``."""

    id: str
    number: int
    title: str
    state: str

    @property
    def slug(self) -> str:
        """The number as people see it."""
        return f"IR-{self.number}"


class Store:
    """The database of cases, incidents and links.

    Storing a draft twice creates two links; the caller checks for duplicates. ``:memory:`` keeps the links
    until :meth:`close`.

    Raises:
        ParameterError: ``path`` cannot be opened, is not an SQLite database, or is the database of
            another program.
    """

    def __init__(self, path: str | Path) -> None:
        try:
            # isolation_level=None is autocommit: a link is in the file before the response is sent.
            self._db = sqlite3.connect(path, isolation_level=None)
        except sqlite3.Error as error:
            raise ParameterError(f"the database {str(path)!r} cannot be opened: {error}") from error
        try:
            self._prepare(path)
        except sqlite3.Error as error:
            self._db.close()
            raise ParameterError(f"the database {str(path)!r} cannot be used: {error}") from error
        except ParameterError:
            self._db.close()
            raise

    def _prepare(self, path: str | Path) -> None:
        (owner,) = self._db.execute("PRAGMA application_id").fetchone()
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if tables and owner != _APPLICATION_ID:
            raise ParameterError(f"the database {str(path)!r} belongs to another program")
        # With a write-ahead log and synchronous=NORMAL, a commit does not wait for the disk. Links survive a
        # killed process. A power failure may lose the latest links but does not corrupt the database.
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(_SCHEMA)
        columns = {name for _, name, *_ in self._db.execute("PRAGMA table_info(cases)")}
        for name in ("status_name", "status_group"):
            if name not in columns:  # the file of an earlier version
                self._db.execute(f"ALTER TABLE cases ADD COLUMN {name} TEXT NOT NULL DEFAULT ''")

    def add(self, draft: Draft, created_at: float) -> StoredLink:
        """Store a link under a new id and return it."""
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
        """Return whether a link with the same attributes exists; the direction matters."""
        found = self._db.execute(f"SELECT 1 FROM links WHERE {_EQUAL} LIMIT 1", asdict(draft)).fetchone()
        return found is not None

    def remove(self, link_id: str) -> bool:
        """Delete a link and return whether it existed."""
        return self._db.execute("DELETE FROM links WHERE id = ?", (link_id,)).rowcount == 1

    def around(
        self, entity_type: str, entity_id: str, relationship: str | None, *, until: float | None = None
    ) -> list[StoredLink]:
        """Return the links whose parent or child is the entity, of one relationship or of all.

        ``until`` excludes links that were created later.
        """
        return self._links(
            "WHERE ((parent_entity_id = :id AND parent_entity_type = :type)"
            " OR (child_entity_id = :id AND child_entity_type = :type))"
            " AND (:relationship IS NULL OR relationship = :relationship)"
            " AND (:until IS NULL OR created_at <= :until) ORDER BY position",
            {"id": entity_id, "type": entity_type, "relationship": relationship, "until": until},
        )

    def all(self) -> list[StoredLink]:
        """Return every link, oldest first."""
        return self._links("ORDER BY position", {})

    def latest(self, count: int) -> list[StoredLink]:
        """Return the newest links, newest first."""
        return self._links("ORDER BY position DESC LIMIT :count", {"count": count})

    def add_case(self, case: StoredCase) -> None:
        """Store or update a case. Raises :class:`ParameterError` if another case has its key."""
        try:
            self._db.execute(
                f"INSERT INTO cases ({_CASE}) VALUES ({', '.join(f':{name}' for name in asdict(case))})"
                f" ON CONFLICT (id) DO UPDATE SET {', '.join(f'{name} = :{name}' for name in asdict(case))}",
                asdict(case),
            )
        except sqlite3.IntegrityError:
            raise ParameterError(f"another case has the key {case.key}") from None

    def case(self, id_or_key: str) -> StoredCase | None:
        """Return the case with this id or key, in upper or lower case."""
        row = self._db.execute(
            f"SELECT {_CASE} FROM cases WHERE id = lower(:name) OR key = :name",
            {"name": id_or_key},
        ).fetchone()
        return StoredCase(*row) if row else None

    def cases(self) -> list[StoredCase]:
        """Return every case, newest first."""
        rows = self._db.execute(f"SELECT {_CASE} FROM cases ORDER BY rowid DESC")
        return [StoredCase(*row) for row in rows]

    def add_incident(self, incident: StoredIncident) -> None:
        """Store or update an incident. Raises :class:`ParameterError` if another one has its number."""
        try:
            self._db.execute(
                "INSERT INTO incidents VALUES (:id, :number, :title, :state) ON CONFLICT (id) DO UPDATE"
                " SET number = :number, title = :title, state = :state",
                asdict(incident),
            )
        except sqlite3.IntegrityError:
            raise ParameterError(f"another incident has the number {incident.number}") from None

    def incident(self, incident_id: str) -> StoredIncident | None:
        """Return the incident with this id, in upper or lower case."""
        rows = self._db.execute(
            "SELECT id, number, title, state FROM incidents WHERE id = lower(?)", (incident_id,)
        )
        row = rows.fetchone()
        return StoredIncident(*row) if row else None

    def incidents(self) -> list[StoredIncident]:
        """Return every incident, newest first."""
        rows = self._db.execute("SELECT id, number, title, state FROM incidents ORDER BY rowid DESC")
        return [StoredIncident(*row) for row in rows]

    def has_cases(self) -> bool:
        """Return whether the database contains any case."""
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
