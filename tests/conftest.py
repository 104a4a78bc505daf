"""Fixtures for the tests that speak HTTP: keys, a certificate authority, a clock. No test shows a key."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

from datadog_caselinks import ApiKeys, RetryPolicy
from tests.keys import Watch, watching
from tests.servers import Authority, Clock

# With a deadline a test would depend on the speed of the machine. noxfile.py says where the few are enough.
settings.register_profile("patient", deadline=None)
settings.register_profile("few", max_examples=20, deadline=None)
# Each mutant is to meet the same examples, and the first that fails is enough. mutmut runs the tests once for
# itself and then in a fork for each mutant, so one function is called for several instances of its class.
settings.register_profile(
    "mutants",
    settings.get_profile("few"),
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.differing_executors],
)
settings.load_profile("patient")


_searched = Counter[str]()
"""How many texts were searched for keys by now, here and by other workers."""


@pytest.fixture(scope="session", autouse=True)
def watch() -> Iterator[Watch]:
    with watching() as watch:
        yield watch
    _searched.update(watch.texts)


@pytest.fixture(autouse=True)
def no_key_shows(watch: Watch, request: pytest.FixtureRequest) -> Iterator[None]:
    """Nothing that comes out of the package in the test before this has a key in it."""
    yield
    if folder := getattr(request.node, "funcargs", {}).get("tmp_path"):
        watch.see_files(folder)
    assert not watch.keys_shown()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Let the one who started this worker know."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["searched"] = dict(_searched)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add what a worker has searched."""
    _searched.update(node.workeroutput.get("searched", {}))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Tell how many texts were searched for keys."""
    if _searched:
        counts = ", ".join(f"{count:,} {way}" for way, count in sorted(_searched.items()))
        terminalreporter.write_line(f"searched for keys: {counts}")


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
    if not isinstance(loop, asyncio.BaseEventLoop):
        pytest.skip("only asyncio's own loops can be told what time it is")
    clock = Clock(loop)
    monkeypatch.setattr(loop, "time", clock.time)
    yield clock
    monkeypatch.undo()
