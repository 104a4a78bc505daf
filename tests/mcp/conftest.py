"""Fixtures for tests of the server for agents."""

from __future__ import annotations

from typing import Any

import pytest

from datadog_caselinks import ApiKeys, CaseLinksClient


@pytest.fixture
def sandbox_options() -> dict[str, Any]:
    """Start each sandbox with the demo."""
    return {"seed": "demo"}


@pytest.fixture(scope="session")
def shared_server() -> Any:
    """A server that allows everything, whose schemas take longer to build than most tests take."""
    from datadog_caselinks.mcp import AgentServer
    from datadog_caselinks.mcp.server import Access

    unused = CaseLinksClient("http://127.0.0.1:9", ApiKeys(api_key="unused", app_key="unused"))
    return AgentServer(unused, access=Access.DELETE)


@pytest.fixture
def server(shared_server: Any, client: CaseLinksClient) -> Any:
    """A server for ``client`` that allows everything, in its first state."""
    from datadog_caselinks.mcp import DEFAULT_WRITE_RATE
    from datadog_caselinks.mcp.writes import Writes

    shared_server._graphs.clear()
    shared_server._tools._client = client
    shared_server._tools._writes = Writes(DEFAULT_WRITE_RATE)
    return shared_server
