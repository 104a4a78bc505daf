"""The database of a fleet: connections, tables and errors."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final, LiteralString

import psycopg
from procrastinate import App, PsycopgConnector
from procrastinate.exceptions import ConnectorException
from procrastinate.schema import SchemaManager
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import tuple_row
from psycopg_pool import AsyncConnectionPool

from datadog_caselinks.values.errors import FleetError, ParameterError
from datadog_caselinks.values.messages import is_in_quotes, one_line, storable

TIMEOUT: Final = 10.0
"""Seconds to connect, and for a statement, which usually takes milliseconds."""

ENCODING: Final = "utf8"
"""The encoding of our connections. It overrides ``PGCLIENTENCODING``: texts may have any character."""

_COMMIT_WITHIN: Final = 10.0
"""Seconds within which a commit should end whose connection was lost, and the database be back."""

_PAUSE: Final = 0.1
"""Seconds between two checks of such a commit."""

_RESERVED: Final = set("@:/?#")
"""Characters to percent-encode in the password of a URL; libpq would read the rest as the host."""

_INIT_LOCK: Final = 0x63616C6B
"""The key of the lock that makes concurrent creations of the tables wait for each other."""

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
CREATE TABLE IF NOT EXISTS caselinks_leases (
    run bigint NOT NULL REFERENCES caselinks_runs ON DELETE CASCADE,
    chunk integer NOT NULL,
    PRIMARY KEY (run, chunk)
);
"""


@contextlib.asynccontextmanager
async def connected(database: str | None = "") -> AsyncIterator[App]:
    """Open a procrastinate app on ``database``, without tasks.

    ``database`` is a PostgreSQL URL or connection string; libpq takes the rest from the ``PG*`` variables
    and the password file. ``None``, as from a variable that is not set, is the same as ``""``. Raises
    :class:`ParameterError`, without quoting ``database``, if it is malformed, and :class:`FleetError` if the
    connection fails.
    """
    database = database or ""
    _require_well_formed(database)
    with translate_errors():
        # A pool would retry for a long time and then not report the reason.
        async with await psycopg.AsyncConnection.connect(database, connect_timeout=int(TIMEOUT)):
            pass
    connector = PsycopgConnector(
        conninfo=database,
        kwargs={"client_encoding": ENCODING},
        min_size=1,
        max_size=4,
        timeout=TIMEOUT / 2,
        reconnect_timeout=TIMEOUT,  # the default notices a restarted database only after minutes
    )
    app = App(connector=connector)
    with translate_errors():
        await app.open_async()
    try:
        yield app
    finally:
        await app.close_async()


def _require_well_formed(database: str) -> None:
    if not isinstance(database, str):
        raise ParameterError(
            f"database must be a connection string, not of the type {type(database).__name__}"
        )
    if is_in_quotes(database):
        raise ParameterError("the database URL is in quotation marks: remove them")
    _, is_url, rest = database.partition("://")
    _, _, password = rest.rpartition("@")[0].partition(":")
    try:
        if is_url and _RESERVED & set(password):
            raise ParameterError(
                "the database URL is malformed: in a password write @ : / ? # as %40 %3A %2F %3F %23"
            )
        conninfo_to_dict(database)
    except psycopg.Error:  # its text may contain the password
        raise ParameterError(
            "the database is not a connection string: use postgresql://USER:PASSWORD@HOST/NAME"
        ) from None


@contextlib.contextmanager
def translate_errors() -> Iterator[list[Exception]]:
    """Raise errors of the database as :class:`FleetError`, except those that the block puts into the list."""
    of_others: list[Exception] = []
    try:
        yield of_others
    except (psycopg.Error, ConnectorException) as error:
        if error in of_others:
            raise
        cause = error.__cause__ if isinstance(error, ConnectorException) else error
        if isinstance(cause, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedFunction):
            raise FleetError(
                "the database has no fleet tables yet: run caselinks fleet init with the same database"
            ) from error
        raise FleetError(f"cannot use the database: {one_line(str(cause))}") from error


def stored(text: str) -> str:
    """Return ``text``, such as an error or id from a server, in a form that PostgreSQL can store."""
    return storable(text).replace("\0", "")


def pool_of(app: App) -> AsyncConnectionPool[Any]:
    """Return the connection pool of ``app``, which must be open."""
    if not isinstance(app.connector, PsycopgConnector):
        raise ParameterError("a fleet needs an app with procrastinate's PsycopgConnector")
    return app.connector.pool


@contextlib.asynccontextmanager
async def transaction(app: App) -> AsyncIterator[AsyncConnection[Any]]:
    """Open a connection in a transaction, which is committed at the end.

    If the connection is lost during the commit, this finds out whether the transaction was committed.

    Raises:
        FleetError: It may have been committed, and the database did not come back in time.
    """
    number: str | None = None
    try:
        async with pool_of(app).connection() as connection, connection.transaction():
            yield connection
            number = await _value(connection, "SELECT pg_current_xact_id()::text")
    except psycopg.Error as error:
        if not number:
            raise
        try:
            is_committed = await _is_committed(app, number)
        except TimeoutError:
            raise FleetError(
                f"the connection to the database was lost ({one_line(str(error))}), and the links may have "
                "been submitted. Before you submit them again, see whether their run exists: "
                "caselinks fleet status"
            ) from error
        if not is_committed:
            raise


async def _is_committed(app: App, number: str) -> bool:
    """Return whether the transaction with this number was committed, once it has ended.

    Raises:
        TimeoutError: This cannot be found out within ``_COMMIT_WITHIN`` seconds.
    """
    async with asyncio.timeout(_COMMIT_WITHIN):
        while True:
            with contextlib.suppress(psycopg.Error):  # the database may be restarting
                async with pool_of(app).connection() as connection:
                    status = await _value(connection, "SELECT pg_xact_status(%s::xid8)", number)
                    if status in ("committed", "aborted"):
                        return status == "committed"
            await asyncio.sleep(_PAUSE)


async def _value(connection: AsyncConnection[Any], query: LiteralString, *parameters: str) -> str | None:
    cursor = await connection.cursor(row_factory=tuple_row).execute(query, parameters)
    return next((value for (value,) in await cursor.fetchall()), None)


async def create_tables(app: App) -> None:
    """Create the tables of procrastinate and of the fleet, unless they exist.

    Raises:
        FleetError: The database is unreachable, refuses, or cannot store every character.
    """
    with translate_errors():
        async with pool_of(app).connection() as connection, connection.transaction():
            encoding = connection.info.parameter_status("server_encoding")
            if encoding != "UTF8":
                raise FleetError(
                    f"the database has the encoding {encoding}, which cannot store every text: "
                    "use a database with the encoding UTF8"
                )
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", [_INIT_LOCK])
            cursor = connection.cursor(row_factory=tuple_row)
            await cursor.execute("SELECT to_regclass('procrastinate_jobs') IS NULL")
            if (await cursor.fetchone())[0]:
                await cursor.execute(SchemaManager.get_schema())
            await cursor.execute(_TABLES)
