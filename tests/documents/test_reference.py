"""The reference covers everything that the package exports."""

from __future__ import annotations

import re
from pathlib import Path

from datadog_caselinks import public

PAGE = (Path(__file__).parents[2] / "docs" / "reference.md").read_text()


def test_each_public_name_is_there() -> None:
    """Each public name is on the reference page."""
    named = re.findall(r"^\.\. auto(?:class|data|function):: (?:\w+\.)*(\w+)$", PAGE, re.MULTILINE)
    assert {name for name in vars(public) if name[0].isalpha()} <= set(named)
