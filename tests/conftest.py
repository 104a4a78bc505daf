"""Shared fixtures, the profiles of hypothesis, and a search for leaked keys after every test."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import signal
import threading
from collections import Counter
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from _pytest.mark.expression import Expression
from hypothesis import HealthCheck, Phase, settings

from datadog_caselinks import ApiKeys, CaseLinksClient, RetryPolicy
from datadog_caselinks.sandbox import Sandbox
from tests.support.authority import Authority
from tests.support.clock import Clock
from tests.support.keys import Watch, watching
from tests.support.postgres import NoPostgresError, Postgres, running

ROOT: Final = Path(__file__).parent

MARKERS: Final = {
    "api": "tools",
    "bulk/test_journal_lock.py": "slow",
    "cli": "program",
    "contract": "tools",
    "documents": "documents",
    "fleet/test_kills.py": "kills",
    "fleet": "database",
    "fuzz": "hostile",
    "graph/rendering/test_page.py": "browser",
    "graph/rendering/test_svg.py": "slow",
    "http/test_sharing.py": "tools",
    "hostile": "hostile",
    "live": "tools",
    "mcp": "agents",
    "mutants": "tools",
    "plugin/test_selection.py": "tools",
    "plugin": "program",
    "test_benchmarks.py": "tools",
    "test_cancellation.py": "slow",
    "test_long_work.py": "slow",
    "test_proof.py": "slow",
    "test_soak.py": "tools",
}
"""The marker of all tests in a folder or file, the first that fits. pyproject.toml describes the markers."""

NOT_MEASURED: Final = {"documents", "hostile", "kills", "tools"}
"""The markers of tests that start many programs, which cover no line that other tests do not cover."""

MAX_SECONDS_OF_A_TEST: Final = 900
"""Longer than any test takes, on any machine."""

# With a deadline a test would depend on the speed of the machine. `nox -s fuzz` runs "patient".
settings.register_profile("patient", deadline=None)
settings.register_profile("few", max_examples=20, deadline=None)
# Every mutant gets the same examples, and the first failure is enough. mutmut runs the tests once itself and
# then in a fork for each mutant, so hypothesis sees the same function with several instances of its class.
settings.register_profile(
    "mutants",
    settings.get_profile("few"),
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.differing_executors],
)
settings.load_profile("few")


@functools.cache
def folder_marker(path: Path) -> str | None:
    """Return the marker of all tests in a file or folder, if it has one."""
    if ROOT not in path.parents:
        return None
    name = path.relative_to(ROOT).as_posix()
    return next((mark for place, mark in MARKERS.items() if f"{name}/".startswith(f"{place}/")), None)


def pytest_configure(config: pytest.Config) -> None:
    """Run all tests of the paths on the command line, not only the fast ones."""
    # A shell starts a background job with SIGINT ignored, and so would start all programs of the tests.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(
        config, "workerinput"
    ):  # a worker of pytest-xdist: it gets the paths even if nobody named them
        config.option.markexpr = config.workerinput["markexpr"]
        return
    is_default = config.option.markexpr in config.getini("addopts")
    if is_default and config.args_source is pytest.Config.ArgsSource.ARGS:
        config.option.markexpr = ""


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Let the workers select the same tests as this process."""
    node.workerinput["markexpr"] = node.config.option.markexpr


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import tests that are not selected, since the packages that they import may be missing."""
    marker, selected = folder_marker(collection_path), config.option.markexpr
    if marker is None or not selected:
        return None

    def has(name: str, /, **_: str | int | bool | None) -> bool:
        return name == marker

    return None if Expression.compile(selected).evaluate(has) else True


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests with MARKERS before pytest selects by marker."""
    for item in items:
        if marker := folder_marker(item.path):
            item.add_marker(marker)


def pytest_collection_finish() -> None:
    """Keep garbage collections fast: they skip modules and tests, which exist until the end."""
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    """Fail a test that does not end. Only real time counts, since a test may stop the clock of its loop."""

    def fail(*_: object) -> None:
        pytest.fail(f"the test did not end within {MAX_SECONDS_OF_A_TEST} s")

    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        return (yield)
    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(MAX_SECONDS_OF_A_TEST)
    try:
        return (yield)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


_searched = Counter[str]()
"""How many texts have been searched for keys, by this process and by other workers."""


@pytest.fixture(autouse=True)
def programs_without_measurement(request: pytest.FixtureRequest) -> Iterator[None]:
    """Do not measure the coverage of programs that tests with a marker of NOT_MEASURED start."""
    if folder_marker(request.path) not in NOT_MEASURED:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def watch() -> Iterator[Watch]:
    with watching() as watch:
        yield watch
    _searched.update(watch.texts)


@pytest.fixture(autouse=True)
def no_key_shows(watch: Watch, request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail if any output of the package during the test contains a key."""
    yield
    if folder := getattr(request.node, "funcargs", {}).get("tmp_path"):
        watch.see_files(folder)
    assert not watch.keys_shown()
    assert watch.sees_log_records(), "the test left another log level"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Report the counts of this worker to the process that started it."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["searched"] = dict(_searched)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add the counts of a worker."""
    _searched.update(node.workeroutput.get("searched", {}))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print how many texts were searched for keys."""
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
    """A policy of three attempts without waits, also before lookups."""
    return RetryPolicy(max_attempts=3, base=0, settle=0)


def options_of(request: pytest.FixtureRequest, name: str) -> dict[str, Any]:
    """Return the keyword arguments of the closest marker ``name``."""
    marker = request.node.get_closest_marker(name)
    return dict(marker.kwargs) if marker else {}


@pytest.fixture
async def clock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Clock]:
    """The time of the event loop, which the test can advance."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop, asyncio.BaseEventLoop):
        pytest.skip("only the event loops of asyncio allow a test to replace their clock")
    clock = Clock(loop, **options_of(request, "clock"))
    monkeypatch.setattr(loop, "time", clock.time)
    yield clock
    monkeypatch.undo()


@pytest.fixture
def sandbox_options(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The options of ``sandbox``, from the marker ``sandbox``. Override it to parametrize the sandbox."""
    return options_of(request, "sandbox")


@pytest.fixture
async def sandbox(sandbox_options: dict[str, Any]) -> AsyncIterator[Sandbox]:
    """A sandbox in this event loop; override it to add cases."""
    async with Sandbox(**sandbox_options) as sandbox:
        yield sandbox


@pytest.fixture
async def client(sandbox: Sandbox, at_once: RetryPolicy) -> AsyncIterator[CaseLinksClient]:
    """A client of ``sandbox`` that retries without waits."""
    async with CaseLinksClient(sandbox.site, sandbox.credentials, retry=at_once) as client:
        yield client


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server; the test is skipped where there is none."""
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(running())
        except NoPostgresError as error:
            pytest.skip(str(error))
        yield server


@pytest.fixture
def database(postgres: Postgres) -> str:
    """The URL of an empty database."""
    return postgres.new_database()
