"""Fixtures for tests of a fleet: processes of the command, and a database with the tables."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from procrastinate import App

from datadog_caselinks.fleet import connected, create_tables
from tests.cli.program import starting


@pytest.fixture(scope="package", autouse=True)
def starter() -> Iterator[None]:
    """Let the tests start processes."""
    with starting():
        yield


@pytest.fixture
async def app(database: str) -> AsyncIterator[App]:
    """Yield an app that is connected to a database with the tables."""
    async with connected(database) as app:
        await create_tables(app)
        yield app
