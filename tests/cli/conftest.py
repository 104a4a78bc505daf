"""Fixtures for tests of the command."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli.program import starting


@pytest.fixture(scope="package", autouse=True)
def starter() -> Iterator[None]:
    """Let the tests start processes."""
    with starting():
        yield
