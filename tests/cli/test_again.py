"""The message after an incomplete run: the command that continues the run or undoes it."""

from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path

import pytest

from datadog_caselinks import AuthenticationError, RateLimitError
from datadog_caselinks.cli.again import longer_wait, to_continue, to_show_ids, to_undo


def command(text: str) -> str:
    """Return the command that ``text`` shows on a line of its own."""
    _, line = text.split("\n")
    assert line.startswith("  ")
    return line[2:]


def test_the_command_can_be_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command is quoted for a shell and stays on one line without control characters."""
    monkeypatch.setattr(sys, "argv", ["caselinks", "bulk", "my links.csv", "--journal", "it's\x1b[1m\n"])
    assert command(to_continue()) == "caselinks bulk 'my links.csv' --journal 'it'\"'\"'s [1m '"
    monkeypatch.setattr(shutil, "which", lambda name: name)  # needs a missing module on Windows
    monkeypatch.setattr(sys, "platform", "win32")
    assert command(to_continue()).startswith('caselinks bulk "my links.csv" --journal ')


@pytest.mark.parametrize("rejects", [["--rejects", "bad.csv"], ["--rejects=bad.csv"]])
def test_words_are_replaced(monkeypatch: pytest.MonkeyPatch, rejects: list[str]) -> None:
    """The shown command replaces or omits words, and omits an option together with its value."""
    monkeypatch.setattr(sys, "argv", ["caselinks", "bulk", "--no-lookup", *rejects, "links.csv"])
    file = "links.csv", "bad.csv"
    text = to_continue("why", first="fix it", file=file, flag="--no-lookup", option="--rejects")
    assert text == "To continue, fix it, then run this command (why):\n  caselinks bulk bad.csv"


def test_other_words_stay_if_they_are_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with the name of the subcommand, or of an entity called create, does not change the others."""
    monkeypatch.setattr(sys, "argv", ["caselinks", "bulk", "--sandbox", "bulk"])
    assert command(to_continue(file=("bulk", "bad"))) == "caselinks bulk --sandbox bad"
    monkeypatch.setattr(sys, "argv", ["caselinks", "create", "create", "blocks", "SHOP-2"])
    assert command(to_continue(command="ensure")) == "caselinks ensure create blocks SHOP-2"


def test_the_command_that_shows_ids_has_the_same_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that lists the ids of links asks the same site for the same entity."""
    monkeypatch.setattr(sys, "argv", ["caselinks", "show", "SHOP-2", "--site", "EU1"])
    assert to_show_ids() == "caselinks list --ids SHOP-2 --site EU1"


def test_the_program_is_named_as_the_shell_finds_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A program that is not on the PATH is shown with its folder, and a module is shown as caselinks."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    beside = str(tmp_path / "caselinks")
    for path, name in ((beside, beside), ("/a/__main__.py", "caselinks")):
        monkeypatch.setattr(sys, "argv", [path, "bulk", "links.csv"])
        assert command(to_continue()) == f"{name} bulk links.csv"
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/caselinks")
    monkeypatch.setattr(sys, "argv", ["/usr/bin/caselinks", "bulk", "links.csv"])
    assert command(to_continue()) == "caselinks bulk links.csv"


def test_the_command_to_undo_a_run_can_be_copied(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The undo command names the program as the shell finds it, and the site of the run."""
    beside = str(tmp_path / "caselinks")
    monkeypatch.setattr(sys, "argv", [beside, "bulk", "links.csv"])
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert to_undo("my run.journal", None) == f"{beside} undo 'my run.journal'"
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/caselinks")
    assert to_undo("run.journal", "EU1") == "caselinks undo --site EU1 run.journal"


def test_only_a_wait_that_is_too_long_is_named() -> None:
    """The advice rounds seconds up, so that --max-wait allows the wait."""
    limited = RateLimitError("429", status=429, retry_after=120.2)
    assert longer_wait(limited, 120.0) == "wait 121 s or add --max-wait 121"
    assert longer_wait(limited, 121.0) == longer_wait(None, 0.0) == ""
    assert longer_wait(RateLimitError("429", status=429), 0.0) == ""
    assert longer_wait(AuthenticationError("401", status=401, retry_after=math.inf), 0.0) == ""
