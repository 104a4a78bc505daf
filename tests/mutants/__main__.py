"""``python -m tests.mutants``, after ``mutmut run``, compares the surviving mutants with the expected ones.

``survivors.toml`` has the expected ones with reasons. The result is written to ``docs/mutants.md``.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Final

from attrs import frozen

ROOT: Final = Path(__file__).parents[2]
KNOWN: Final = Path(__file__).with_name("survivors.toml")
PAGE: Final = ROOT / "docs" / "mutants.md"

# A mutant that never ends is detected as well as one that fails a test.
_KILLED: Final = frozenset({"killed", "timeout"})

_ABOUT: Final = """\
# Mutation testing

A mutant is the code with one small change: `<` becomes `<=`, an argument is left out, or a text is in
capitals. `nox -s mutants` creates all mutants of the modules below with
[mutmut](https://mutmut.readthedocs.io), and runs the tests that reach each mutant. A mutant is *killed* if a
test fails, or if it never ends. A *survivor* means that a rule has no test, or that the change makes no
difference to users. This page lists each survivor with the reason. A survivor without a reason fails the
session.

Mutmut changes only the bodies of functions. It does not change code at the level of modules and classes,
properties, and other functions with decorators.
"""


@frozen(order=True)
class Mutant:
    """One small change of a module: a statement before and after."""

    module: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.module}.py\n- {self.before}\n+ {self.after}"


def read_statuses(results: str) -> dict[str, str]:
    """Parse the output of ``mutmut results``: the status of each mutant by name."""
    pairs = (line.strip().rpartition(": ") for line in results.splitlines())
    return {name: status for name, _, status in pairs}


def read_diff(name: str, diff: str) -> Mutant:
    """Parse the output of ``mutmut show`` for a mutant, without comments."""
    lines = [line.partition("  #")[0] for line in diff.splitlines() if not line.startswith(("---", "+++"))]
    before, after = (
        " ".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in ("-", "+")
    )
    return Mutant(module_of(name), before, after)


def module_of(name: str) -> str:
    """Return the module of a mutant with a name such as ``datadog_caselinks.http.wire.x__read__mutmut_1``."""
    return name.split(".")[-2]


def read_known(text: str) -> dict[Mutant, str]:
    """Parse the expected survivors with their reasons."""
    return {
        Mutant(entry["module"], before, after): entry["why"]
        for entry in tomllib.loads(text)["survivors"]
        for before, after in entry["changes"]
    }


def page(statuses: Mapping[str, str], reasons: Mapping[Mutant, str]) -> str:
    """Return the documentation page: the counts of each module, then each survivor with its reason."""
    return "\n".join([_ABOUT, *_table(statuses), *_survivors(reasons)]) + "\n"


def _table(statuses: Mapping[str, str]) -> Iterator[str]:
    yield from ("| module | mutants | killed | survivors |", "| --- | --- | --- | --- |")
    made = Counter(module_of(name) for name in statuses)
    killed = Counter(module_of(name) for name, status in statuses.items() if status in _KILLED)
    for module, count in sorted(made.items()):
        yield f"| `{module}.py` | {count} | {_share(killed[module], count)} | {count - killed[module]} |"
    total = made.total()
    yield f"| all | {total} | {_share(killed.total(), total)} | {total - killed.total()} |"


def _share(part: int, whole: int) -> str:
    return f"{part} ({part / whole:.1%})"


def _survivors(reasons: Mapping[Mutant, str]) -> Iterator[str]:
    in_order = sorted((mutant.module, why, mutant) for mutant, why in reasons.items())
    for module, of_module in groupby(in_order, key=lambda entry: entry[0]):
        yield f"\n## `{module}.py`"
        for why, entries in groupby(of_module, key=lambda entry: entry[1]):
            changes = "\n\n".join(f"- {mutant.before}\n+ {mutant.after}" for _, _, mutant in entries)
            yield f"\n{why}\n\n```diff\n{changes}\n```"


def main() -> int:
    """Compare, write the page, and return 1 unless exactly the expected mutants survived."""
    statuses = read_statuses(_mutmut("results", "--all", "true"))
    survived = {
        read_diff(name, _mutmut("show", name)) for name, status in statuses.items() if status not in _KILLED
    }
    known = read_known(KNOWN.read_text("utf-8"))
    PAGE.write_text(
        page(statuses, {mutant: known.get(mutant, "**Not known yet.**") for mutant in survived}), "utf-8"
    )
    for mutant in sorted(survived - known.keys()):
        print(f"survived, so write a test, delete the code, or say why in {KNOWN.name}: {mutant}")
    for mutant in sorted(known.keys() - survived):
        print(f"dead or gone by now, so delete it from {KNOWN.name}: {mutant}")
    print(f"{len(survived)} of {len(statuses)} mutants survived; written to {PAGE.relative_to(ROOT)}")
    return 0 if survived == known.keys() else 1


def _mutmut(*arguments: str) -> str:
    return subprocess.run(["mutmut", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
