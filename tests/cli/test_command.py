"""The command as a whole."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


def test_version_is_that_of_the_package() -> None:
    """--version tells the installed version."""
    done = run("-m", "datadog_caselinks", "--version")
    assert done.stdout == f"caselinks, version {version('datadog_caselinks')}\n"


@pytest.mark.parametrize("command", [[], ["bulk"], ["sandbox"]])
def test_help_has_an_example(command: list[str]) -> None:
    """--help tells what a command does, by an example too."""
    done = run("-m", "datadog_caselinks", *command, "--help")
    assert done.returncode == 0
    assert ("Example" in done.stdout) == bool(command)


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_its_extra_the_command_says_what_to_install(missing: str) -> None:
    """Where a library of the command is missing there is a line that names the extra, and no traceback."""
    program = f"import sys; sys.modules['{missing}'] = None; from datadog_caselinks.cli import main; main()"
    done = run("-c", program)
    assert done.stderr == "caselinks: the command needs its extra: pip install 'datadog_caselinks[cli]'\n"
    assert done.returncode == 1


def test_an_interrupt_while_it_starts_is_no_traceback() -> None:
    """Ctrl-C is answered by a status, from the first moment that it can be."""
    program = (
        "import sys\n"
        "from datadog_caselinks.cli import main\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'datadog_caselinks.cli.command':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "main()\n"
    )
    done = run("-c", program)
    assert (done.returncode, done.stderr) == (130, "")


def test_another_missing_module_is_not_taken_for_the_extra() -> None:
    """A broken installation shows itself as what it is."""
    program = "import sys; sys.modules['sqlite3'] = None; from datadog_caselinks.cli import main; main()"
    assert "sqlite3" in run("-c", program).stderr.splitlines()[-1]
