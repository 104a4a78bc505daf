"""What ``import datadog_caselinks`` offers, to people and to type checkers."""

from __future__ import annotations

import importlib.util
import inspect
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import datadog_caselinks
from datadog_caselinks import CaseLinksError, errors

NAMES = datadog_caselinks.__all__


def test_all_is_sorted_and_without_repetition() -> None:
    """A reader finds a name, and a change is one line."""
    assert sorted(set(NAMES)) == NAMES


def test_all_is_complete() -> None:
    """What is imported in ``__init__`` is public, or it is not imported there."""
    imported = {
        name
        for name, value in vars(datadog_caselinks).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert imported == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_each_is_there_and_documented(name: str) -> None:
    """``help`` has something of its own to say about each; unions are documented where they are defined."""
    value = getattr(datadog_caselinks, name)
    members = get_args(value) or (value,)
    for member in members:
        assert member.__module__.startswith("datadog_caselinks.")
        assert (member.__dict__["__doc__"] if inspect.isclass(member) else member.__doc__).strip()


@pytest.mark.parametrize(
    "name", [name for name in NAMES if inspect.isclass(getattr(datadog_caselinks, name))]
)
def test_each_method_is_documented(name: str) -> None:
    """A public method without a docstring is one that nobody finds."""
    kind = getattr(datadog_caselinks, name)
    for method, value in vars(kind).items():
        if not method.startswith("_") and (inspect.isroutine(value) or isinstance(value, property)):
            assert inspect.getdoc(value), f"{name}.{method} has no docstring"


def test_every_error_is_exported() -> None:
    """Whatever may be raised can be caught by its public name."""
    defined = {name for name, value in vars(errors).items() if _is_error(value)}
    assert defined == {name for name in NAMES if _is_error(getattr(datadog_caselinks, name))}


def _is_error(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, CaseLinksError)


# With --strict an ignored error that is none is an error: were the package untyped, each "ignore" would be.
PROGRAM = """
import asyncio
import uuid

from datadog_caselinks import (
    AmbiguousResultError, ApiKeys, BearerToken, CaseLink, CaseLinksClient, Created, Entity, EntityType,
    Failed, NewCaseLink, RateLimitedError, Relationship, RetryPolicy, Site, case, incident,
)


async def token() -> str:
    return "x"


async def main() -> None:
    new: NewCaseLink = case("a").blocks(incident(uuid.uuid4()))
    async with CaseLinksClient.from_env(timeout=3.0, retry=RetryPolicy(max_attempts=2)) as links:
        link: CaseLink = await links.create_link(new)
        around: list[CaseLink] = await links.list_links(case("a"), relationship=Relationship.BLOCKS)
        many: list[CaseLink] = await asyncio.gather(*(links.create_link(each) for each in [new, new]))
        await links.delete_link(link)
        await links.delete_link(link.id)
        async for outcome in links.create_links([new]):
            match outcome:
                case Created(new=made, link=link, index=index):
                    made, index
                case Failed(error=AmbiguousResultError(new=asked)):
                    asked.parent
                case Failed(error=RateLimitedError(retry_after=seconds)):
                    seconds and seconds + 1
    kind: EntityType | str = link.parent.type
    print(link.id.upper(), kind, around, many)


client = CaseLinksClient(Site.US1, BearerToken(token))
client = CaseLinksClient("datadoghq.eu", ApiKeys(api_key="a", app_key="b"), max_concurrency=3)
asyncio.run(main())

case(1)  # type: ignore
case("a").blocks("b")  # type: ignore
case("a").type.lower().nothing  # type: ignore
ApiKeys("a", "b")  # type: ignore
Site.parse(None)  # type: ignore
CaseLinksClient("datadoghq.eu", "key")  # type: ignore
CaseLinksClient.from_env(patience=3)  # type: ignore
RetryPolicy(max_attempts="many")  # type: ignore
Entity("a", "CASE").id = "b"  # type: ignore
"""


def test_a_users_program_passes_the_strict_type_checker(tmp_path: Path) -> None:
    """The package is typed for its users (``py.typed``): right calls pass, wrong ones do not."""
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-incremental"),
            *("--cache-dir", str(tmp_path / "cache"), str(program)),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("Success: no issues found in 1 source file\n", "")
