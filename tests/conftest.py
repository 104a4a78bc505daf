"""Fixtures for the tests that speak HTTP: keys, a certificate authority, a clock. No test shows a key."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from _pytest.mark.expression import Expression
from hypothesis import HealthCheck, Phase, settings

from datadog_caselinks import ApiKeys, RetryPolicy
from tests.keys import Watch, watching
from tests.servers import Authority, Clock

ROOT: Final = Path(__file__).parent

MARKERS: Final = {
    "api": "tools",
    "cli": "program",
    "contract": "tools",
    "documents": "documents",
    "fleet/test_kills.py": "kills",
    "fleet": "database",
    "fuzz": "hostile",
    "graph/rendering/test_page.py": "browser",
    "hostile": "hostile",
    "live": "tools",
    "mutants": "tools",
    "plugin": "program",
    "test_benchmarks.py": "tools",
    "test_cancellation.py": "slow",
    "test_long_work.py": "slow",
    "test_proof.py": "slow",
    "test_soak.py": "tools",
}
"""The marker of all tests in a folder or file, the first that fits. pyproject.toml describes the markers."""

# With a deadline a test would depend on the speed of the machine. One session in noxfile.py runs "patient".
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
settings.load_profile("few")


def folder_marker(path: Path) -> str | None:
    """Return the marker of all tests in a file or folder, if it has one."""
    if ROOT not in path.parents:
        return None
    name = path.relative_to(ROOT).as_posix()
    return next((mark for place, mark in MARKERS.items() if f"{name}/".startswith(f"{place}/")), None)


def pytest_configure(config: pytest.Config) -> None:
    """Run all tests of the paths on the command line, and not only the fast ones among them."""
    is_worker = hasattr(config, "workerinput")  # gets the paths as arguments even if nobody named them
    is_default = config.option.markexpr in config.getini("addopts")
    if is_default and not is_worker and config.args_source is pytest.Config.ArgsSource.ARGS:
        config.option.markexpr = ""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import tests that are not selected: what they import may not be installed."""
    marker, selected = folder_marker(collection_path), config.option.markexpr
    if marker is None or not selected:
        return None

    def has(name: str, /, **_: str | int | bool | None) -> bool:
        return name == marker

    return None if Expression.compile(selected).evaluate(has) else True


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests as MARKERS says; before pytest deselects by marker."""
    for item in items:
        if marker := folder_marker(item.path):
            item.add_marker(marker)


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
