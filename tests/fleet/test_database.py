"""The connection to the database of a fleet, and its errors."""

from __future__ import annotations

import asyncio
import importlib
import sys
import traceback
from typing import Any

import psycopg
import pytest
from procrastinate import App
from procrastinate.testing import InMemoryConnector

from datadog_caselinks import CaseLinksError, ConfigurationError, FleetError, ParameterError, Site
from datadog_caselinks.fleet import (
    add_link_tasks,
    connected,
    create_tables,
    failed_links,
    list_runs,
    retry_failed,
    submit,
)
from datadog_caselinks.fleet.lease import Lease
from tests.fleet.work import SITE, links
from tests.support.postgres import PASSWORD, Postgres
from tests.support.tcp import unused_port


@pytest.mark.parametrize(
    "database",
    [
        "postgresql://me:top@secret@host/name",
        "postgresql://me:top/secret@host/name",
        "postgresql://me:top:secret@host/name",
        "postgresql://me:topsecret@host/name?no_such_option=1",
        "password=topsecret secret host=host",
        "topsecret",
        "'postgresql://me:topsecret@host/name'",
        b"postgresql://me:topsecret@host/name",
        ("topsecret",),
    ],
)
async def test_a_malformed_database_is_refused_and_not_quoted(database: Any) -> None:
    """An invalid connection string is refused and never shown, because it may contain a password."""
    with pytest.raises(ParameterError) as caught:
        async with connected(database):
            pass
    assert "secret" not in "".join(traceback.format_exception(caught.value))


async def test_an_unreachable_server_is_reported() -> None:
    """An unreachable server is reported with the reason of libpq, and without the password."""
    with pytest.raises(FleetError, match=r"cannot use the database: .*refused") as caught:
        async with connected(f"postgresql://fleet:{PASSWORD}@127.0.0.1:{unused_port()}/postgres"):
            pass
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))


async def test_a_wrong_password_is_reported(database: str) -> None:
    """A wrong password is reported as wrong, and is not shown."""
    other = PASSWORD[::-1]
    with pytest.raises(FleetError, match="password authentication failed") as caught:
        async with connected(database.replace(PASSWORD, other)):
            pass
    assert other not in "".join(traceback.format_exception(caught.value))


async def test_missing_tables_are_reported_with_what_to_do(database: str) -> None:
    """Missing tables are reported with the command that creates them."""
    async with connected(database) as app:
        with pytest.raises(FleetError, match="run caselinks fleet init with the same database"):
            await list_runs(app)


async def test_the_tables_are_created_once(database: str) -> None:
    """Creating the tables again, even concurrently, changes nothing."""
    async with connected(database) as app:
        await asyncio.gather(create_tables(app), create_tables(app))
        await create_tables(app)
        assert await list_runs(app) == []


async def test_tables_of_procrastinate_are_left_as_they_are(database: str) -> None:
    """An existing schema of procrastinate, with its jobs, is kept."""
    async with connected(database) as app:
        await app.schema_manager.apply_schema_async()
        await app.configure_task("theirs", allow_unknown=True).defer_async()
        await create_tables(app)
        assert [job.task_name for job in await app.job_manager.list_jobs_async()] == ["theirs"]


async def test_an_app_without_postgres_is_refused() -> None:
    """An app without a PsycopgConnector is refused, because links are stored in tables."""
    with pytest.raises(ParameterError, match="PsycopgConnector"):
        await list_runs(App(connector=InMemoryConnector()))


async def test_missing_rights_are_reported(database: str) -> None:
    """An error of PostgreSQL, such as missing rights, is reported with its own text."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            f"ALTER DATABASE {connection.info.dbname} SET default_transaction_read_only = on".encode()
        )
    async with connected(database) as app:
        with pytest.raises(FleetError, match="read-only transaction"):
            await create_tables(app)


class TestWithoutTheExtra:
    def test_the_error_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without procrastinate, the error says what to install."""
        self._forget(monkeypatch)
        monkeypatch.setitem(sys.modules, "procrastinate", None)
        with pytest.raises(ConfigurationError, match=r"pip install '\.\[distributed\]'"):
            importlib.import_module("datadog_caselinks.fleet")

    def test_another_missing_module_is_not_reported_as_a_missing_extra(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another missing module is not reported as a missing extra."""
        self._forget(monkeypatch)
        monkeypatch.setitem(sys.modules, "datadog_caselinks.fleet.runs", None)
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("datadog_caselinks.fleet")

    def _forget(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in list(sys.modules):
            if name.startswith("datadog_caselinks.fleet"):
                monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("site", {"site": "EU1"}),
        ("source", {"site": Site.EU1, "source": 5}),
        ("chunk", {"site": Site.EU1, "chunk": 0}),
        ("chunk", {"site": Site.EU1, "chunk": "200"}),
        ("wanted", {"site": Site.EU1, "wanted": "links.csv"}),
    ],
)
async def test_an_argument_that_cannot_work_is_refused_by_name(name: str, arguments: dict[str, Any]) -> None:
    """An invalid argument is refused by name before the database is used."""
    given = {"wanted": [], **arguments}
    with pytest.raises(ParameterError, match=f"^{name} must be "):
        await submit(App(connector=InMemoryConnector()), **given)
    for call in (list_runs, retry_failed):
        with pytest.raises(ParameterError, match=r"^run must be a whole number, not '3'$"):
            await call(App(connector=InMemoryConnector()), "3")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match=r"^client must be a CaseLinksClient"):
        add_link_tasks(App(connector=InMemoryConnector()), None)  # type: ignore[arg-type]


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
async def test_a_database_that_cannot_store_every_text_is_refused(postgres: Postgres, encoding: str) -> None:
    """A database with an encoding other than UTF8 is refused, because errors may have any character."""
    async with connected(postgres.new_database(encoding=encoding)) as app:
        with pytest.raises(FleetError, match=f"the database has the encoding {encoding}.* UTF8"):
            await create_tables(app)


async def test_any_character_can_be_stored_with_any_encoding_of_the_environment(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any character can be stored, regardless of ``PGCLIENTENCODING``."""
    monkeypatch.setenv("PGCLIENTENCODING", "latin1")
    async with connected(database) as app:
        await create_tables(app)
        await submit(app, links(1), site=SITE, source="日本 \udcff\0")
        async with Lease.acquire(app, 1, 0) as lease:
            lease.failed(1, CaseLinksError("日本"), is_ambiguous=False)
            await lease.write()
        assert [link.error async for link in failed_links(app)] == ["日本"]
        assert [run.source for run in await list_runs(app)] == ["日本 ?"]
