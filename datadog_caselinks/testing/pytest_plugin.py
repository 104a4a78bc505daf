"""The pytest plugin: fixtures on the sandbox. Imports nothing but pytest until one of them is used."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    import pluggy

    from datadog_caselinks.client import CaseLinksClient
    from datadog_caselinks.sandbox import Sandbox

_SANDBOX: Final = "caselinks_sandbox"
_running: Final = pytest.StashKey["Sandbox"]()


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known, which ``--strict-markers`` asks for."""
    config.addinivalue_line(
        "markers", f"{_SANDBOX}(**options): the options of the Sandbox that the fixture {_SANDBOX} runs."
    )


@pytest.fixture
def caselinks_sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A local Datadog for this test: a real HTTP server in a thread, for sync and async tests alike.

    The marker ``caselinks_sandbox(seed="demo")`` gives the options of the Sandbox; of several the closest
    to the test counts. A test that fails shows what the sandbox was asked, and which links it holds.
    """
    from datadog_caselinks.sandbox import Sandbox

    marker = request.node.get_closest_marker(_SANDBOX)
    sandbox = Sandbox(*marker.args, **marker.kwargs) if marker else Sandbox()
    with sandbox.in_thread():
        request.node.stash[_running] = sandbox
        yield sandbox


@pytest.fixture
def caselinks_client(caselinks_sandbox: Sandbox) -> Iterator[CaseLinksClient]:
    """A CaseLinksClient for ``caselinks_sandbox``, which never waits and need not be closed.

    It repeats what the default RetryPolicy repeats, without a pause, and raises where a server asks it to
    wait. It belongs to the event loop that first uses it.
    """
    from datadog_caselinks.testing.client import client_for

    with client_for(caselinks_sandbox) as client:
        yield client


@pytest.fixture
def caselinks_environment(caselinks_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``CaseLinksClient.from_env`` and the command ``caselinks`` find ``caselinks_sandbox``."""
    monkeypatch.delenv("DD_BEARER_TOKEN", raising=False)
    for name, value in caselinks_sandbox.environment.items():
        monkeypatch.setenv(name, value)


@pytest.hookimpl(hookwrapper=True)  # the form that every pytest knows
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pluggy.Result[pytest.TestReport], None]:
    """Add to the report of a failed test what its sandbox saw."""
    outcome = yield
    report = outcome.get_result()
    sandbox = item.stash.get(_running, None)
    if sandbox is not None and report.when == "call" and report.failed:
        from datadog_caselinks.testing.client import story

        try:
            seen = story(sandbox)
        except Exception as error:  # here it would end the whole run
            seen = f"not known: {error}"
        report.sections.append((_SANDBOX, seen))
