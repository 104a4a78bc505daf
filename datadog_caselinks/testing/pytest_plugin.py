"""The pytest plugin: fixtures for the sandbox. Imports only pytest until a test uses one of them."""

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
    """Register the marker, as ``--strict-markers`` requires."""
    config.addinivalue_line(
        "markers", f"{_SANDBOX}(**options): the options of the Sandbox that the fixture {_SANDBOX} starts."
    )


@pytest.fixture
def caselinks_sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """Start a local Datadog for this test: a real HTTP server in a thread, for sync and async tests.

    The marker ``caselinks_sandbox(seed="demo")`` sets the options of the Sandbox; the marker closest to the
    test wins. The report of a failed test lists the sandbox's latest requests and links.
    """
    from datadog_caselinks.sandbox import Sandbox

    marker = request.node.get_closest_marker(_SANDBOX)
    sandbox = Sandbox(*marker.args, **marker.kwargs) if marker else Sandbox()
    with sandbox.in_thread():
        request.node.stash[_running] = sandbox
        yield sandbox


@pytest.fixture
def caselinks_client(caselinks_sandbox: Sandbox) -> Iterator[CaseLinksClient]:
    """Return a CaseLinksClient for ``caselinks_sandbox`` that never waits and does not have to be closed.

    The client retries the same errors as the default RetryPolicy, without a pause, and raises if the server
    asks it to wait. The client belongs to the event loop that first uses it.
    """
    from datadog_caselinks.testing.client import client_for

    with client_for(caselinks_sandbox) as client:
        yield client


@pytest.fixture
def caselinks_environment(caselinks_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point ``CaseLinksClient.from_env`` and the command ``caselinks`` at ``caselinks_sandbox``."""
    from datadog_caselinks.values.credentials import TOKEN_VARIABLES

    for name in TOKEN_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in caselinks_sandbox.environment.items():
        monkeypatch.setenv(name, value)


@pytest.hookimpl(hookwrapper=True)  # works with every version of pytest
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pluggy.Result[pytest.TestReport], None]:
    """Add the requests and links of its sandbox to the report of a failed test."""
    outcome = yield
    report = outcome.get_result()
    sandbox = item.stash.get(_running, None)
    if sandbox is not None and report.when == "call" and report.failed:
        from datadog_caselinks.testing.failure_report import describe

        try:
            description = describe(sandbox)
        except Exception as error:  # an error in this hook would end the whole run
            description = f"not available: {error}"
        report.sections.append((_SANDBOX, description))
