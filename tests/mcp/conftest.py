"""Fixtures for tests of the server for agents."""

from __future__ import annotations

from typing import Any

import pytest

from datadog_caselinks import CaseLinksClient


@pytest.fixture
def sandbox_options() -> dict[str, Any]:
    """Start each sandbox with the demo."""
    return {"seed": "demo"}


@pytest.fixture
def server(client: CaseLinksClient) -> Any:
    """A server that allows everything."""
    from datadog_caselinks.mcp import AgentServer
    from datadog_caselinks.mcp.server import Access

    return AgentServer(client, access=Access.DELETE)
