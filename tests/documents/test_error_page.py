"""The page about errors lists each error with its cause and solution."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from datadog_caselinks import CaseLinksError, public

PAGE = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()
SECTIONS = dict(re.findall(r"^### (\w+)\n\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL))


def test_each_error_is_there() -> None:
    """The page has a section for each public error except the base class, and no others."""
    errors = {
        name
        for name, value in vars(public).items()
        if isinstance(value, type) and issubclass(value, CaseLinksError)
    }
    assert set(SECTIONS) == errors - {"CaseLinksError"}


@pytest.mark.parametrize("name", SECTIONS)
def test_each_section_has_a_cause_and_a_solution(name: str) -> None:
    """Each section of the page says why the error is raised, and what to do."""
    assert re.fullmatch(r"- Cause: \S.*?\n- Solution: \S.*?\n+", SECTIONS[name], re.DOTALL)
