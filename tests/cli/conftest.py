"""What the tests of the command share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli.program import starting


@pytest.fixture(scope="package", autouse=True)
def starter() -> Iterator[None]:
    """Programs can be started."""
    with starting():
        yield
