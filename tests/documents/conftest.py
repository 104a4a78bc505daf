"""Fixtures for the examples: a sandbox with two cases, and a database of PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from datadog_caselinks.sandbox import Sandbox
from tests.fleet.conftest import database, postgres

__all__ = ["database", "postgres", "sandbox"]


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox() as sandbox:
        sandbox.add_case("SHOP-1", "Checkout hangs")
        sandbox.add_case("SHOP-2", "orders-db has no free connections")
        yield sandbox
