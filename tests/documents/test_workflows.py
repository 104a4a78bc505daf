"""The workflows and documents refer to existing sessions, and workflows have minimal permissions."""

from __future__ import annotations

import ast
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from datadog_caselinks import __version__

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
TEXTS = [*WORKFLOWS, *ROOT.glob("*.md"), *sorted((ROOT / "docs").glob("*.md"))]


def sessions() -> set[str]:
    """Return the names of the sessions in noxfile.py, without running it."""
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
    """Return the commands of the given jobs of a workflow, or of all jobs."""
    found = workflow(name)["jobs"]
    return [step["run"] for job in jobs or found for step in found[job]["steps"] if "run" in step]


@pytest.mark.parametrize("file", TEXTS, ids=lambda file: file.name)
def test_each_session_that_is_named_is_there(file: Path) -> None:
    """Each nox session that a workflow or document refers to exists."""
    named = re.findall(r"\bnox -s ((?:[a-z_]+(?:-3\.\d+)?\b ?)+)", file.read_text())
    assert {word.partition("-")[0] for words in named for word in words.split()} <= sessions()


def test_ci_runs_what_the_readme_says() -> None:
    """On Linux, CI runs exactly what the README says."""
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
    assert commands
    assert all(command.startswith("caselinks ") for command in commands)


def test_a_release_is_checked_before_it_is_published() -> None:
    """A release runs the checks of CI and the slow sessions before it is published."""
    assert ".ci/run" in steps("release")
    assert ".venv-checks/bin/nox -s tests_whole lowest audit release" in steps("release")
    assert workflow("release")["jobs"]["publish"]["needs"] == "build"


@pytest.mark.parametrize(("tag", "status"), [(f"v{__version__}", 0), ("v0.0.1", 1)])
def test_a_release_has_the_version_of_its_tag(tag: str, status: int) -> None:
    """A release ends at once if its tag is not the version of the package."""
    [check] = [step for step in steps("release", "build") if "GITHUB_REF_NAME" in step]
    variables = {**os.environ, "GITHUB_REF_NAME": tag}
    assert subprocess.run(["bash", "-ec", check], cwd=ROOT, env=variables, check=False).returncode == status


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_a_job_may_no_more_than_it_must(file: Path) -> None:
    """Only the job that publishes has an identity, it runs no project code, and no job uses a secret."""
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
