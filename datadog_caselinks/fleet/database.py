"""The database of a fleet: how it is reached, its tables, what its errors mean. Knows no HTTP."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import psycopg
from procrastinate import App, PsycopgConnector
from procrastinate.exceptions import ConnectorException
from procrastinate.schema import SchemaManager
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import tuple_row
from psycopg_pool import AsyncConnectionPool

from datadog_caselinks.errors import ConfigurationError, FleetError
from datadog_caselinks.messages import one_line

TIMEOUT: Final = 10.0
"""Seconds for connecting, and for a statement that takes milliseconds."""

_RESERVED: Final = set("@:/?#")
"""What must be percent-encoded in the password of a URL: libpq would take what follows for a host."""

_INIT_LOCK: Final = 0x63616C6B
"""Of two who create the tables at once, one waits."""

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS caselinks_runs (
    run bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source text NOT NULL,
    site text NOT NULL,
    submitted_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS caselinks_links (
    run bigint NOT NULL REFERENCES caselinks_runs ON DELETE CASCADE,
    chunk integer NOT NULL,
    number bigint NOT NULL,
    parent text NOT NULL,
    relationship text NOT NULL,
    child text NOT NULL,
    state text NOT NULL DEFAULT 'pending'
        CHECK (state IN ('pending', 'created', 'already_linked', 'failed', 'ambiguous')),
    link_id text,
    error text,
    at timestamptz,
    PRIMARY KEY (run, chunk, number)
);
"""


@contextlib.asynccontextmanager
async def connected(database: str = "") -> AsyncIterator[App]:
    """A procrastinate app on ``database``, open, with no tasks yet.

    ``database`` is a URL or a connection string of PostgreSQL; what it leaves out libpq takes from ``PG*``
    variables and its password file. Raises :class:`ConfigurationError` if it is neither, without quoting it,
    and :class:`FleetError` if nobody answers there.
    """
    _require_well_formed(database)
    with explained():
        # A pool would try for long, and then not say why.
        async with await psycopg.AsyncConnection.connect(database, connect_timeout=int(TIMEOUT)):
            pass
    connector = PsycopgConnector(
        conninfo=database,
        min_size=1,
        max_size=4,
        timeout=TIMEOUT / 2,
        reconnect_timeout=TIMEOUT,  # by default it would take minutes to notice that the database is back
    )
    app = App(connector=connector)
    with explained():
        await app.open_async()
    try:
        yield app
    finally:
        await app.close_async()


def _require_well_formed(database: str) -> None:
    _, is_url, rest = database.partition("://")
    _, _, password = rest.rpartition("@")[0].partition(":")
    try:
        if is_url and _RESERVED & set(password):
            raise ConfigurationError(
                "the URL of the database cannot be read: in a password write @ : / ? # as %40 %3A %2F %3F %23"
            )
        conninfo_to_dict(database)
    except psycopg.Error:  # whose text may quote the password
        raise ConfigurationError(
            "the database is no connection string: write postgresql://USER:PASSWORD@HOST/NAME"
        ) from None


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Raise what the database says as a :class:`FleetError`."""
    try:
        yield
    except (psycopg.Error, ConnectorException) as error:
        cause = error.__cause__ if isinstance(error, ConnectorException) else error
        if isinstance(cause, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedFunction):
            raise FleetError("the database has not the tables of a fleet: caselinks fleet init") from error
        raise FleetError(f"the database cannot be used: {one_line(str(cause))}") from error


def pool_of(app: App) -> AsyncConnectionPool[Any]:
    """The connections of ``app``, which must be open."""
    if not isinstance(app.connector, PsycopgConnector):
        raise ConfigurationError("a fleet needs an app with procrastinate's PsycopgConnector")
    return app.connector.pool


async def create_tables(app: App) -> None:
    """Create the tables of procrastinate, and those of a fleet, where they are not there yet.

    Raises :class:`FleetError` if that is not allowed, or the database is away.
    """
    with explained():
        async with pool_of(app).connection() as connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", [_INIT_LOCK])
            cursor = connection.cursor(row_factory=tuple_row)
            await cursor.execute("SELECT to_regclass('procrastinate_jobs') IS NULL")
            if (await cursor.fetchone())[0]:
                await cursor.execute(SchemaManager.get_schema())
            await cursor.execute(_TABLES)
