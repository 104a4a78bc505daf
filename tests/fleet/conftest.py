"""A PostgreSQL for all tests of a fleet, and a database in it for each."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest
from procrastinate import App

from datadog_caselinks.fleet import connected, create_tables
from datadog_caselinks.sandbox import Sandbox
from tests.cli.program import starting
from tests.fleet.postgres import NoPostgresError, Postgres, running

_numbers = itertools.count(1)


@pytest.fixture(scope="package", autouse=True)
def starter() -> Iterator[None]:
    """Programs can be started."""
    with starting():
        yield


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(running())
        except NoPostgresError as error:
            pytest.skip(str(error))
        yield server


@pytest.fixture
def database(postgres: Postgres) -> str:
    """The URL of an empty database."""
    name = f"fleet{next(_numbers)}"
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return postgres.url(name)


@pytest.fixture
async def app(database: str) -> AsyncIterator[App]:
    """An app on a database that has the tables."""
    async with connected(database) as app:
        await create_tables(app)
        yield app


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox() as sandbox:
        yield sandbox
