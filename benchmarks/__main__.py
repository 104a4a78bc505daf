"""The benchmark as a command: ``nox -s bench``, or ``nox -s bench -- --quick`` to try it out."""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks import measure, report
from benchmarks.contenders import official_is_installed
from benchmarks.measure import Cost, Scale
from benchmarks.picture import picture
from benchmarks.processes import ROOT
from benchmarks.report import Row

_BEGUN: Final = time.monotonic()


class _Run:
    """The parts of one run; ``costs`` is kept for the picture."""

    def __init__(self, scale: Scale, seed: int) -> None:
        self._scale = scale
        self._seed = seed
        self.costs: dict[str, Cost] = {}

    def cpu(self) -> list[Row]:
        self.costs = measure.costs(self._scale, _tell)
        return report.cost_rows(self.costs)

    def limit(self) -> list[Row]:
        run = partial(measure.limited, self._scale, _tell, draw=random.Random(self._seed))
        rows = report.limited_rows("alone", run("sdk", 1), rejected=0.0, slack=1.03, grace=1)
        rows += report.limited_rows("from four processes", run("sdk", 4), rejected=0.1, slack=1.10)
        if official_is_installed():
            rows += report.limited_rows("datadog-api-client", run("official_retrying", 1))
            in_slots = run("official_retrying_in_slots", 1)
            rows += report.limited_rows("datadog-api-client, 100 calls at once", in_slots)
        return rows

    def faults(self) -> list[Row]:
        run = partial(measure.faulty, _tell, seed=self._seed)
        rows = [report.faulty_row("this SDK", run("sdk", self._scale.faulty_links), has_mark=True)]
        if official_is_installed():
            theirs = run("official_retrying", self._scale.official_faulty_links)
            rows.append(report.faulty_row("datadog-api-client", theirs, has_mark=False))
        return rows

    def stalls(self) -> list[Row]:
        return report.stall_rows(measure.stalls(self._scale, _tell))

    def memory(self) -> list[Row]:
        scale = self._scale
        memory = measure.memory(scale, _tell)
        return report.memory_rows(memory, scale.gathered_links, scale.few_links, scale.many_links)

    def parts(self) -> dict[str, Callable[[], list[Row]]]:
        """Return the parts that can be measured separately."""
        return {
            "cpu": self.cpu,
            "limit": self.limit,
            "faults": self.faults,
            "stalls": self.stalls,
            "memory": self.memory,
        }


def _tell(what: str) -> None:
    print(f"[{time.monotonic() - _BEGUN:4.0f} s] {what}", file=sys.stderr)


def _arguments(parts: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small numbers, in less than a minute")
    parser.add_argument("--only", nargs="+", choices=parts, help="measure these parts")
    parser.add_argument("--seed", type=int, help="of the faults and of when the limited runs begin")
    parser.add_argument("--output", type=Path, help="folder for the table and the picture")
    return parser.parse_args()


def main() -> None:
    """Measure, print the table, and write the table and the picture; a whole run writes to ``docs``."""
    arguments = _arguments(list(_Run(measure.QUICK, 0).parts()))
    seed = random.randrange(10**6) if arguments.seed is None else arguments.seed
    scale = measure.QUICK if arguments.quick else measure.FULL
    run = _Run(scale, seed)
    _tell(f"seed {seed}")
    chosen = [part for name, part in run.parts().items() if name in (arguments.only or run.parts())]
    table = report.table(row for part in chosen for row in part())
    foot = f"{report.surroundings(scale.rounds, scale.links)} Seed {seed}."
    print(f"\n{table}\n{foot}")
    is_whole = not (arguments.quick or arguments.only)
    output = arguments.output or (ROOT / "docs" if is_whole else None)
    if output:
        _write(output, f"{table}\n{foot}\n", run.costs)


def _write(folder: Path, table: str, costs: dict[str, Cost]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    files = {"benchmark-table.md": table}
    if costs:
        files["benchmark.svg"] = picture(costs)
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8")
        _tell(f"written: {folder / name}")


if __name__ == "__main__":
    main()
