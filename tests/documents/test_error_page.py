"""The page of errors has each error, with its cause and its cure."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from datadog_caselinks import CaseLinksError, public

PAGE = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()
SECTIONS = dict(re.findall(r"^### (\w+)\n\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL))


def test_each_error_is_there() -> None:
    """All that the package exports, and no other; the root is what the page itself is about."""
    errors = {
        name
        for name, value in vars(public).items()
        if isinstance(value, type) and issubclass(value, CaseLinksError)
    }
    assert set(SECTIONS) == errors - {"CaseLinksError"}


@pytest.mark.parametrize("name", SECTIONS)
def test_with_cause_and_cure(name: str) -> None:
    """Whoever meets it reads why, and what to do."""
    assert re.fullmatch(r"- Cause: \S.*?\n- Cure: \S.*?\n+", SECTIONS[name], re.DOTALL)
