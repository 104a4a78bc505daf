"""The reference has all that the package exports."""

from __future__ import annotations

import re
from pathlib import Path

import datadog_caselinks

PAGE = (Path(__file__).parents[2] / "docs" / "reference.md").read_text()


def test_each_public_name_is_there() -> None:
    """A new name needs a line on the page."""
    named = re.findall(r"^\.\. auto(?:class|data|function):: (?:\w+\.)*(\w+)$", PAGE, re.MULTILINE)
    assert set(datadog_caselinks.__all__) <= set(named)
