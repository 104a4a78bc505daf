"""The comparison of surviving mutants with the expected ones."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.mutants import __main__ as command
from tests.mutants.__main__ import KNOWN, Mutant, read_known

ZERO: Final = "datadog_caselinks.http.wire.x__read__mutmut_1"
ONE: Final = "datadog_caselinks.http.wire.xǁAnswerǁ__repr____mutmut_2"
TWO: Final = "datadog_caselinks.http.gate.x__too_long__mutmut_3"

DIFF: Final = """\
# {name}: survived
--- datadog_caselinks/wire.py
+++ datadog_caselinks/wire.py
@@ -1,3 +1,3 @@
 def _read(answer):
-    if answer.status < 300:
+    if answer.status <= 300:
         return -1
"""
SURVIVOR: Final = Mutant("wire", "if answer.status < 300:", "if answer.status <= 300:")
REASON: Final = f"""
[[survivors]]
module = "{SURVIVOR.module}"
why = "No server says so."
changes = [["{SURVIVOR.before}", "{SURVIVOR.after}"]]
"""


class Run:
    """A run of mutmut with expected survivors."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.page = folder / "mutants.md"
        self.known = folder / "survivors.toml"
        self.statuses: dict[str, str] = {}
        monkeypatch.setattr(command, "ROOT", folder)
        monkeypatch.setattr(command, "PAGE", self.page)
        monkeypatch.setattr(command, "KNOWN", self.known)
        monkeypatch.setattr(command, "_mutmut", self._mutmut)

    def _mutmut(self, name: str, *arguments: str) -> str:
        if name == "results":
            return "".join(f"    {mutant}: {status}\n" for mutant, status in self.statuses.items())
        return DIFF.format(name=arguments[0])

    def ends(self, *, reasons: str = "survivors = []", **statuses: str) -> int:
        self.known.write_text(reasons)
        self.statuses = {
            {"zero": ZERO, "one": ONE, "two": TWO}[name]: status for name, status in statuses.items()
        }
        return command.main()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(tmp_path, monkeypatch)


def test_all_killed_is_a_success(run: Run) -> None:
    """A run in which all mutants were killed or timed out succeeds, and the page counts them by module."""
    assert run.ends(zero="killed", one="timeout", two="killed") == 0
    assert run.page.read_text().endswith(
        "| module | mutants | killed | survivors |\n| --- | --- | --- | --- |\n"
        "| `gate.py` | 1 | 1 (100.0%) | 0 |\n"
        "| `wire.py` | 2 | 2 (100.0%) | 0 |\n"
        "| all | 3 | 3 (100.0%) | 0 |\n"
    )


def test_a_survivor_with_a_reason_is_a_success(run: Run) -> None:
    """An expected survivor is a success and is shown with its reason."""
    assert run.ends(reasons=REASON, zero="survived", one="killed") == 0
    assert run.page.read_text().endswith(
        "| `wire.py` | 2 | 1 (50.0%) | 1 |\n"
        "| all | 2 | 1 (50.0%) | 1 |\n"
        "\n## `wire.py`\n\nNo server says so.\n\n"
        "```diff\n- if answer.status < 300:\n+ if answer.status <= 300:\n```\n"
    )


@pytest.mark.parametrize("status", ["survived", "no tests", "suspicious", "not checked"])
def test_a_survivor_without_one_is_an_error(
    run: Run, capsys: pytest.CaptureFixture[str], status: str
) -> None:
    """A survivor without a reason, or a mutant of unknown status, is an error and is on the page."""
    assert run.ends(zero=status, two="killed") == 1
    assert f"say why in survivors.toml: {SURVIVOR}" in capsys.readouterr().out
    assert "**Not known yet.**" in run.page.read_text()


def test_a_reason_without_a_survivor_is_an_error(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """A reason without a survivor is an error, so that the list stays correct."""
    assert run.ends(reasons=REASON, zero="killed") == 1
    assert f"delete it from survivors.toml: {SURVIVOR}" in capsys.readouterr().out


def test_the_page_shows_who_is_known() -> None:
    """The page shows every expected survivor with its reason."""
    page = command.PAGE.read_text("utf-8")
    for mutant, reason in read_known(KNOWN.read_text("utf-8")).items():
        assert f"- {mutant.before}\n+ {mutant.after}\n" in page
        assert reason in page
