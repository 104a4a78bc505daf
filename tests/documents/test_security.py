"""The tests that SECURITY.md refers to exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (ROOT / "SECURITY.md").read_text())))


def test_claims_name_tests() -> None:
    """The pattern of this module finds the tests that SECURITY.md refers to."""
    assert len(NAMED) > 15


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_each_is_there(file: str, name: str) -> None:
    """Each test that SECURITY.md refers to exists."""
    tree = ast.parse((ROOT / file).read_text())
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef | ast.AsyncFunctionDef)}
    defined |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert not name or name in defined
