"""Every code block of the README and the documentation runs unchanged."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from datadog_caselinks.sandbox import Sandbox
from tests.documents.blocks import CELLS, PARSED, ROOT, blocks, run, without_datadog

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUNNABLE = {"python", "sh"}
# Output, terminal sessions, diffs, configurations that tests/mcp reads, Sphinx directives, and parts of
# tested programs.
SHOWN = {"diff", "json", "text", "{toctree}", "{eval-rst}", "{include}", "{literalinclude}", "{image}"}
TESTED = {"../examples", "../../examples", "migrating", "testing"}


def name_of(page: Path) -> str:
    """Return the name of a page, with its folder if it is in a folder of ``docs``."""
    docs = ROOT / "docs"
    return page.relative_to(docs).as_posix() if docs in page.parents else page.name


def included() -> list[object]:
    """Return the path of each program that a page includes in part."""
    return [
        pytest.param(page.parent, name, id=f"{name_of(page)}:{text.count(chr(10), 0, match.start()) + 1}")
        for page in PAGES
        for text in [page.read_text()]
        for match in re.finditer(r"^```{literalinclude} (\S+)$", text, re.MULTILINE)
        for name in [match[1]]
    ]


def readme_commands() -> list[str]:
    return [text for language, _, text in blocks(ROOT / "README.md") if language == "sh"]


def runnable(wanted: str) -> list[tuple[Path, int, str]]:
    """Return the page, line number and text of each block in this language that is run as it stands.

    Notebook cells and the README's commands have other tests.
    """
    return [
        (page, line, text)
        for page in PAGES
        for language, line, text in blocks(page)
        if language == wanted
        and name_of(page) != CELLS
        and not (page.name == "README.md" and language == "sh")
    ]


def shell_blocks() -> list[object]:
    return [
        pytest.param(name_of(page), text, id=f"{name_of(page)}:{line}") for page, line, text in runnable("sh")
    ]


def python_pages() -> list[Path]:
    return list(dict.fromkeys(page for page, _, _ in runnable("python")))


@pytest.mark.parametrize(("page", "text"), shell_blocks())
def test_a_shell_block_runs_unchanged(
    page: str, text: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Each shell block, saved to a file and run in a sandbox with the demo, ends with status 0."""
    (tmp_path / "block.sh").write_text(text)
    run_in_sandbox(["bash", "-eu", "-o", "pipefail", "block.sh"], page, tmp_path, request)


@pytest.mark.parametrize("page", python_pages(), ids=name_of)
def test_the_python_blocks_of_a_page_run_unchanged(
    page: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Each Python block, saved to a file and run in a sandbox with the demo, ends without an error.

    The blocks of a page run in one process, one after the other, since most of the time goes to imports.
    """
    files = []
    for _, line, text in (each for each in runnable("python") if each[0] == page):
        files.append(f"line_{line}.py")
        (tmp_path / files[-1]).write_text(text)
    runs = (
        f"import runpy\nfor file in {files}:\n    runpy.run_path(file, run_name='__main__')\nprint('all ran')"
    )
    printed = run_in_sandbox([sys.executable, "-W", "error", "-c", runs], name_of(page), tmp_path, request)
    assert printed.endswith("all ran\n")


def run_in_sandbox(command: list[str], page: str, folder: Path, request: pytest.FixtureRequest) -> str:
    """Run ``command`` in ``folder``, with the examples and a sandbox. Require status 0; return the output."""
    shutil.copytree(ROOT / "examples", folder / "examples")
    variables = without_datadog()
    if page == "fleet.md":
        variables["CASELINKS_DATABASE"] = request.getfixturevalue("database")
    with Sandbox(seed="demo").in_thread() as sandbox:
        done = run(command, folder, variables | sandbox.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_block_escapes_the_check(page: Path) -> None:
    """Every block has a language that is run, parsed or only shown."""
    parsed = PARSED if page.parent.name == "recipes" else set()
    assert {language for language, _, _ in blocks(page)} <= RUNNABLE | SHOWN | parsed


@pytest.mark.parametrize(("folder", "name"), included())
def test_what_is_included_is_tested(folder: Path, name: str) -> None:
    """An included part belongs to a program that is tested as a whole."""
    assert (folder / name).is_file()
    assert str(Path(name).parent) in TESTED


def test_the_tests_of_the_page_on_testing_pass(tmp_path: Path) -> None:
    """The tests of the page on testing pass as a project of their own."""
    shutil.copytree(ROOT / "docs" / "testing", tmp_path, dirs_exist_ok=True)
    done = run([sys.executable, "-m", "pytest", "--quiet"], tmp_path, without_datadog())
    assert re.match(r"\.+ +\[100%\]\n", done.stdout), done.stdout + done.stderr


def test_the_first_command_makes_the_links_of_the_example(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The first command of the README creates the links of the example from a bare copy of the project."""
    copy = tmp_path_factory.mktemp("project") / "copy"
    left_out = shutil.ignore_patterns(".*", "__pycache__", "_build", "dist", "mutants")
    shutil.copytree(ROOT, copy, ignore=left_out)
    variables = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "PIP_CERT")}
    done = run(["bash", "-eu", "-c", readme_commands()[0]], copy, variables)
    links = (ROOT / "examples" / "postmortem.csv").read_text().splitlines()[1:]
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^✓ ", done.stdout, re.MULTILINE)) == len(links)
    assert f"{len(links)} links created" in done.stderr


def test_ci_runs_the_second_command(tmp_path: Path) -> None:
    """CI runs the second command of the README and nothing else."""
    first, second = readme_commands()
    readme = (ROOT / "README.md").read_text()
    readme = readme.replace(first, "echo first\n").replace(second, "echo second\n")
    (tmp_path / "README.md").write_text(readme)
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    done = run(["bash", str(tmp_path / ".ci" / "run")], tmp_path, without_datadog())
    assert done.stdout == "second\n"


def test_both_commands_are_one_line_each() -> None:
    """Both commands of the README are one line each, to be copied easily."""
    assert [command.count("\n") for command in readme_commands()] == [1, 1]
