"""A user's project, tested with the fixtures of the installed wheel."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.plugin.programs import ROOT, run

PROJECT = Path(__file__).parent / "project"
ASYNC_PLUGINS = ("anyio", "asyncio")
OTHER_PLUGINS = ("hypothesispytest", "schemathesis", "xdist", "xdist.looponfail")
"""Plugins of this environment that the project does not use. To import them takes longer than its tests."""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with only the installed wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    built = run("-m", "hatchling", "build", "-t", "wheel", "-d", folder, folder=ROOT)
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("*.whl")
    target = folder / "site-packages"
    shutil.unpack_archive(wheel, target, "zip")  # the same as installing it
    return target


class Project:
    """A copy of the project, whose tests use the wheel and the plugins of this environment."""

    def __init__(self, folder: Path, installed: Path) -> None:
        self._folder = shutil.copytree(PROJECT, folder)
        self._installed = installed

    def pytest(self, *arguments: str, plugin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run pytest in the project with one async ``plugin`` or with none."""
        others = [f"-pno:{name}" for name in (*ASYNC_PLUGINS, *OTHER_PLUGINS) if name != plugin]
        # In development mode, unclosed resources cause warnings, and warnings are errors.
        return run(
            *("-X", "dev", "-m", "pytest", "--quiet", "--color=no", *others, *arguments),
            folder=self._folder,
            PYTHONPATH=str(self._installed),
        )


@pytest.fixture(scope="module")
def project(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("user") / "project", installed)


@pytest.mark.parametrize(
    ("plugin", "module", "options"),
    [
        ("asyncio", "test_with_pytest_asyncio.py", ["-oasyncio_default_fixture_loop_scope=function"]),
        ("anyio", "test_with_anyio.py", []),
        (None, "test_without_async_plugin.py", []),
    ],
)
def test_works_with_any_async_plugin_and_with_none(
    plugin: str | None, module: str, options: list[str], project: Project
) -> None:
    """The fixtures work with each async plugin and with none, and leave nothing open."""
    done = project.pytest(module, *options, plugin=plugin)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    summary = re.fullmatch(r"\.+ +\[100%\]\n(\d+) passed in .*\n", done.stdout)
    assert summary, done.stdout
    assert int(summary[1]) >= (PROJECT / module).read_text().count("def test_")


def test_costs_nothing_until_it_is_used(project: Project) -> None:
    """A run that uses no fixture imports neither the client nor its dependencies."""
    done = project.pytest("unused.py")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_pytest_lists_it(project: Project) -> None:
    """pytest lists the fixtures with ``--fixtures`` and the marker with ``--markers``."""
    reported = project.pytest("--fixtures", "unused.py").stdout + project.pytest("--markers").stdout
    assert re.findall(r"^(caselinks_\w+) -- |^(@pytest\.mark\.caselinks_\w+)", reported, re.MULTILINE) == [
        ("caselinks_sandbox", ""),
        ("caselinks_client", ""),
        ("caselinks_environment", ""),
        ("", "@pytest.mark.caselinks_sandbox"),
    ]


@pytest.fixture(scope="module")
def reported(project: Project) -> dict[str, str]:
    """Return the report of each test that has one, by test name."""
    done = project.pytest("failing.py", "-rP")
    parts = re.split(r"^_+ (?:ERROR at setup of )?(test_\w+) _+$", done.stdout, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


class TestWhatAFailureTells:
    def test_the_requests_and_the_links(self, reported: dict[str, str]) -> None:
        """The report of a failed test lists the requests and the links of its sandbox."""
        entity = "bf0cbac6-4c16-4cfb-b6bf-ca5e0ec37a4f"
        reason, _, section = reported["test_two_links"].partition(" caselinks_sandbox -")
        assert "where 1 = len([<link " in reason
        assert re.sub(r"<link \w{8}:", "<link:", section).splitlines()[1:] == [
            "requests: 2",
            "  <POST /api/v2/cases/link -> cut, lost-response>",
            f"  <GET /api/v2/cases/link?entity_type=CASE&entity_id={entity} -> 200>",
            "links: 1",
            f"  <link: CASE {entity} BLOCKS CASE 4417921d-0866-4a38-822c-6f2a0f65f77d>",
        ]

    def test_the_latest_of_many(self, reported: dict[str, str]) -> None:
        """The report lists only the latest 20 requests, which come before the failure."""
        section = reported["test_many_requests"]
        assert "requests: 21\n  the latest 20:\n" in section
        assert section.count("  <GET ") == 20

    def test_why_nothing_is_known(self, reported: dict[str, str]) -> None:
        """If the sandbox cannot be read, the report says so, and the other tests continue."""
        assert "not available: the sandbox is not running; " in reported["test_with_a_sandbox_that_is_gone"]

    def test_nothing_without_a_sandbox(self, reported: dict[str, str]) -> None:
        """The report of a test without a sandbox has no section about one."""
        assert "caselinks_sandbox" not in reported["test_without_sandbox"]

    def test_nothing_of_a_test_that_passes(self, reported: dict[str, str]) -> None:
        """A test that passes has no section about its sandbox, even with ``-rP``."""
        assert "test_two_links" in reported
        assert "test_that_passes" not in reported

    def test_a_marker_that_cannot_be_read(self, reported: dict[str, str]) -> None:
        """A marker with a positional argument is an error of the test."""
        assert "TypeError: Sandbox.__init__() takes 1 positional" in reported["test_with_a_wrong_marker"]
