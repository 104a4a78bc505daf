"""The soak test: its rules, and a short run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from attrs import evolve

from benchmarks.soak_report import Sample, Soaked, picture, rows

ROOT = Path(__file__).parent.parent
CALM = Soaked(
    samples=[Sample(float(second), 10 * second, 50.0, 20, 10) for second in range(120)],
    before=Sample(0.0, 0, 40.0, 10, 1),
    after=Sample(120.0, 1_200, 50.0, 10, 1),
    wanted=1_200,
    lost=0,
    twice=0,
    denied=2,
    denied_wrongly=0,
    unclear=3,
    restarts=[30.0, 90.0],
)


class TestRules:
    def test_all_are_kept(self) -> None:
        """A run with no lost, duplicate or leftover link, no false report and no growth keeps all rules."""
        assert {row.met for row in rows(CALM)} == {None, True}

    @pytest.mark.parametrize(
        ("broken", "words"),
        [
            (evolve(CALM, lost=1), "lost"),
            (evolve(CALM, twice=1), "created twice"),
            (evolve(CALM, denied_wrongly=1), "reported as failed"),
            (evolve(CALM, after=evolve(CALM.after, descriptors=11)), "descriptors left"),
            (evolve(CALM, after=evolve(CALM.after, tasks=2)), "tasks left"),
        ],
        ids=["lost", "twice", "denied wrongly", "descriptors", "tasks"],
    )
    def test_one_is_too_many(self, broken: Soaked, words: str) -> None:
        """Each rule fails by a single violation, and names it."""
        assert [words in row.measured for row in rows(broken) if row.met is False] == [True]

    @pytest.mark.parametrize(
        ("grown", "words"),
        [({"memory": 59.0}, "memory"), ({"descriptors": 41}, "descriptors"), ({"tasks": 31}, "tasks")],
        ids=["memory", "descriptors", "tasks"],
    )
    def test_what_grows_is_reported(self, grown: dict[str, Any], words: str) -> None:
        """Growth is the difference between the last and the second quarter, since the first is a warm-up."""
        samples = [*CALM.samples[:60], *(evolve(sample, **grown) for sample in CALM.samples[60:])]
        assert [words in row.measured for row in rows(evolve(CALM, samples=samples)) if row.met is False] == [
            True
        ]

    def test_a_warm_up_is_no_growth(self) -> None:
        """Memory that is allocated in the first quarter and kept is not growth."""
        samples = [*(evolve(sample, memory=10.0) for sample in CALM.samples[:30]), *CALM.samples[30:]]
        assert {row.met for row in rows(evolve(CALM, samples=samples))} == {None, True}


def test_the_picture_shows_the_rate_and_the_restarts() -> None:
    """Each second with ten links is a bar of the same height, and each restart is a line in both plots."""
    root = ElementTree.fromstring(picture(CALM))
    parts = list(root.iter())
    rates = {part.get("height") for part in parts if part.get("class") == "ours"}
    assert len(rates - {"0.0"}) == 1
    assert sum(part.get("class") == "window" for part in parts) == 2 * len(CALM.restarts)


def test_it_runs(tmp_path: Path) -> None:
    """A short run with faults and restarts keeps the rules and writes its results."""
    pytest.importorskip("orjson")
    command = [sys.executable, "-m", "benchmarks.soak", "--links", "120", "--seed", "1"]
    subprocess.run([*command, "--output", str(tmp_path)], cwd=ROOT, check=True, timeout=300)
    assert "links wanted" in (tmp_path / "soak-table.md").read_text("utf-8")
    assert (tmp_path / "soak.svg").exists()
