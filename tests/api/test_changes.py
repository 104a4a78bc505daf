"""The check for breaking changes, tested on generated projects."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

griffe = pytest.importorskip("griffe", reason="griffe is not installed: nox -s api has it")

from tests.api.changes import breaking_changes, is_announced, last_release  # noqa: E402 - needs griffe

RELEASED = {
    "datadog_caselinks/__init__.py": (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from datadog_caselinks.public import *\n"
    ),
    "datadog_caselinks/public.py": "from datadog_caselinks.client import Client as Client\n",
    "datadog_caselinks/client.py": (
        "class Client:\n"
        "    def create(self, new: str, *, ensure: bool = False) -> None: ...\n"
        "    def _once(self, new: str) -> None: ...\n"
    ),
    "datadog_caselinks/gate.py": "class Gate:\n    def turn(self, operation: str) -> None: ...\n",
    "datadog_caselinks/sandbox/__init__.py": (
        "from datadog_caselinks.sandbox.server import Sandbox\n__all__ = ['Sandbox']\n"
    ),
    "datadog_caselinks/sandbox/server.py": "class Sandbox:\n    def add_case(self, key: str) -> None: ...\n",
    "datadog_caselinks/version.py": '__version__ = "1.2.0"\n',
}


def git(project: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(project), *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Create a project without a release, whose package has something of everything that can change."""
    for name, text in RELEASED.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message=first")
    return tmp_path


def change(project: Path, name: str, old: str, new: str) -> None:
    file = project / name
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


class TestLastRelease:
    def test_there_is_none(self, project: Path) -> None:
        """Without a release tag there is no last release, even if there are other tags."""
        git(project, "tag", "verified")
        assert last_release(project) is None

    def test_there_is_no_git(self, tmp_path: Path) -> None:
        """Outside of a repository, as in an unpacked sdist, there is no last release."""
        assert last_release(tmp_path) is None

    def test_the_latest_counts(self, project: Path) -> None:
        """The last release is the latest tag in the history."""
        git(project, "tag", "v1.0.0")
        git(project, "commit", "--quiet", "--allow-empty", "--message=second")
        git(project, "tag", "v1.1.0rc1")
        assert last_release(project) == "v1.1.0rc1"


class TestBreakingChanges:
    @pytest.fixture(autouse=True)
    def _release(self, project: Path) -> None:
        git(project, "tag", "v1.1.0")

    @pytest.mark.parametrize(
        ("name", "old", "new", "reported"),
        [
            ("client.py", ", *, ensure: bool = False", "", "create(ensure)"),
            ("client.py", "*, ensure: bool = False", "*, at: int, ensure: bool = False", "create(at)"),
            ("client.py", "def create", "def make", "Client.create"),
            ("public.py", "import Client as Client", "import other", "`Client`"),
            ("sandbox/server.py", "add_case", "put_case", "Sandbox.add_case"),
            ("sandbox/__init__.py", "import Sandbox", "import other", "`Sandbox`"),
        ],
    )
    def test_what_was_removed_is_reported(
        self, project: Path, name: str, old: str, new: str, reported: str
    ) -> None:
        """A removed parameter, method or name is reported in one line."""
        change(project, f"datadog_caselinks/{name}", old, new)
        (line,) = breaking_changes(project, since="v1.1.0")
        assert reported in line

    @pytest.mark.parametrize(
        ("name", "old", "new"),
        [
            ("client.py", "_once", "_twice"),
            ("client.py", "ensure: bool = False", "ensure: bool = False, at: int = 0"),
            ("gate.py", "turn", "go"),
            ("public.py", "import Client", "import Other as Other, Client"),
        ],
    )
    def test_what_users_do_not_see_may_change(self, project: Path, name: str, old: str, new: str) -> None:
        """Changes of private names, internal modules and additions are not breaking."""
        change(project, f"datadog_caselinks/{name}", old, new)
        assert breaking_changes(project, since="v1.1.0") == []

    def test_a_class_may_move(self, project: Path) -> None:
        """A public name may be defined in another module."""
        (project / "datadog_caselinks/client.py").rename(project / "datadog_caselinks/moved.py")
        change(project, "datadog_caselinks/public.py", "datadog_caselinks.client", "datadog_caselinks.moved")
        assert breaking_changes(project, since="v1.1.0") == []


@pytest.mark.parametrize(("since", "is_major"), [("v1.1.0", False), ("v0.9.3", True), ("v1.0.0rc1", False)])
def test_what_breaks_is_announced_by_the_first_number(project: Path, since: str, is_major: bool) -> None:
    """Only a new major version announces breaking changes."""
    assert is_announced(project, since=since) is is_major
