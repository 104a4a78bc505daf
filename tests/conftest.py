"""Fixtures for the tests that speak HTTP: keys, a certificate authority, a clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import settings

from datadog_caselinks import ApiKeys, RetryPolicy
from tests.servers import Authority, Clock

# With a deadline a test would depend on the speed of the machine. noxfile.py says where the few are enough.
settings.register_profile("patient", deadline=None)
settings.register_profile("few", max_examples=20, deadline=None)
settings.load_profile("patient")


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def keys() -> ApiKeys:
    return ApiKeys(api_key="the-api-key", app_key="the-app-key")


@pytest.fixture
def at_once() -> RetryPolicy:
    """Three attempts without a wait between them, or before a look for what may have been made."""
    return RetryPolicy(max_attempts=3, base=0, settle=0)


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Clock]:
    loop = asyncio.get_running_loop()
    clock = Clock(loop)
    monkeypatch.setattr(loop, "time", clock.time)
    yield clock
    monkeypatch.undo()
