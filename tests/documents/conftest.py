"""Fixtures for the examples: two cases in the sandbox."""

from __future__ import annotations

import pytest

from datadog_caselinks.sandbox import Sandbox


@pytest.fixture
def sandbox(sandbox: Sandbox) -> Sandbox:
    """Add cases to the shared sandbox."""
    sandbox.add_case("SHOP-1", "Checkout hangs")
    sandbox.add_case("SHOP-2", "orders-db connection pool exhausted")
    return sandbox
