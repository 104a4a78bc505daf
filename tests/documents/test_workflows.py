"""The workflows and the documents call what is there, and a workflow may do no more than it must."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
TEXTS = [*WORKFLOWS, *ROOT.glob("*.md"), *sorted((ROOT / "docs").glob("*.md"))]


def sessions() -> set[str]:
    """The names of the sessions in noxfile.py, which need not be able to run here."""
    return {
        node.name
        for node in ast.parse((ROOT / "noxfile.py").read_text()).body
        if isinstance(node, ast.FunctionDef)
        and any(ast.unparse(decorator).startswith("nox.session") for decorator in node.decorator_list)
    }


def workflow(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yaml").read_text())
    return found


def steps(name: str, *jobs: str) -> list[str]:
    """Return the commands of these jobs of a workflow, or of all."""
    found = workflow(name)["jobs"]
    return [step["run"] for job in jobs or found for step in found[job]["steps"] if "run" in step]


@pytest.mark.parametrize("file", TEXTS, ids=lambda file: file.name)
def test_each_session_that_is_named_is_there(file: Path) -> None:
    """A session that is renamed takes along what calls it."""
    named = re.findall(r"\bnox -s ((?:[a-z_]+(?:-3\.\d+)?\b ?)+)", file.read_text())
    assert {word.partition("-")[0] for words in named for word in words.split()} <= sessions()


def test_ci_runs_what_the_readme_says() -> None:
    """And nothing beside it on Linux, so that who runs that command has run what CI runs there."""
    assert steps("ci", "checks") == [".ci/run"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_ci_runs_the_fast_tests_on_other_systems() -> None:
    """CI runs the fast tests on macOS and Windows as CONTRIBUTING.md says, and then the command itself."""
    systems = workflow("ci")["jobs"]["systems"]
    assert systems["strategy"]["matrix"]["os"] == ["macos-latest", "windows-latest"]
    assert systems["runs-on"] == "${{ matrix.os }}"
    install, tests, *commands = steps("ci", "systems")
    assert "-e" in install
    assert tests.removeprefix("python -m ") in (ROOT / "CONTRIBUTING.md").read_text()
    assert all(command.startswith("caselinks ") for command in commands)


def test_a_release_is_checked_before_it_is_published() -> None:
    """By all that CI runs, and by the sessions that take too long for it."""
    assert ".ci/run" in steps("release")
    assert ".venv-checks/bin/nox -s lowest audit release" in steps("release")
    assert workflow("release")["jobs"]["publish"]["needs"] == "build"


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_a_job_may_no_more_than_it_must(file: Path) -> None:
    """Only what publishes can say who it is, runs nothing of the project, and knows no password."""
    text = file.read_text()
    assert "secrets." not in text
    assert yaml.safe_load(text)["permissions"] == {}
    for name, job in yaml.safe_load(text)["jobs"].items():
        actions = [step["uses"] for step in job["steps"] if "uses" in step]
        if name == "publish":
            assert job["permissions"] == {"id-token": "write", "attestations": "write"}
            assert not any(action.startswith("actions/checkout") for action in actions)
        else:
            assert job["permissions"] == {"contents": "read"}
