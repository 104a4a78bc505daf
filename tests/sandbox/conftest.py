"""Fixtures for tests of the sandbox: a manual clock for the shared sandbox, and plain HTTP requests to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from datadog_caselinks.sandbox import Sandbox
from tests.sandbox.caller import Caller
from tests.support.clock import ManualClock


@pytest.fixture
def manual_clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def sandbox_options(sandbox_options: dict[str, Any], manual_clock: ManualClock) -> dict[str, Any]:
    return {"clock": manual_clock, **sandbox_options}


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def caller_of(http: aiohttp.ClientSession) -> Callable[[Sandbox], Caller]:
    return lambda sandbox: Caller(sandbox, http)


@pytest.fixture
def caller(sandbox: Sandbox, caller_of: Callable[[Sandbox], Caller]) -> Caller:
    return caller_of(sandbox)
