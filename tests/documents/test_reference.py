"""The reference covers everything that the package exports."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from datadog_caselinks import public

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference.md").read_text()


NAMED = set(re.findall(r"^\.\. auto(?:class|data|function):: (?:\w+\.)*(\w+)$", PAGE, re.MULTILINE))


def test_each_public_name_is_there() -> None:
    """Each public name is on the reference page."""
    assert {name for name in vars(public) if name[0].isalpha()} <= NAMED


@pytest.mark.parametrize("name", re.findall(r"^\.\. autodata:: (.+)$", PAGE, re.MULTILINE))
def test_each_alias_is_named_with_its_module(name: str) -> None:
    """An alias has its docstring in its module only; by another name the page would show that of its type."""
    module, _, alias = name.rpartition(".")
    source = ast.parse(ROOT.joinpath(*module.split(".")).with_suffix(".py").read_text())
    assert alias in {
        target.id
        for statement, docstring in pairwise(source.body)
        if isinstance(docstring, ast.Expr)
        for target in getattr(statement, "targets", [getattr(statement, "target", None)])
        if isinstance(target, ast.Name)
    }


def attribute_docstrings(module: ast.Module) -> Iterator[str]:
    """Yield the docstrings of attributes that are on the reference page."""
    classes = [each for each in module.body if isinstance(each, ast.ClassDef) and each.name in NAMED]
    for body in [module.body, *(each.body for each in classes)]:
        for attribute, docstring in pairwise(body):
            match attribute, docstring:
                case ast.Assign(targets=[ast.Name(name)]), ast.Expr(ast.Constant(str(text))):
                    if body is not module.body or name in NAMED:
                        yield text


def test_no_attribute_has_a_sentence_for_its_type() -> None:
    """No attribute's docstring begins with words and a colon, which the reference would show as its type."""
    modules = sorted((ROOT / "datadog_caselinks").rglob("*.py"))
    found = [text for module in modules for text in attribute_docstrings(ast.parse(module.read_text()))]
    assert len(found) > 20
    assert [text for text in found if re.match(r"[^`\n]+?:(\s|$)", text)] == []
