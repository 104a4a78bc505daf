"""The benchmark: its arithmetic, and a quick run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.measure import Cost, Faulty, Limited, fault_rules, floor
from benchmarks.picture import picture
from benchmarks.report import Row, faulty_row, limited_rows, table
from datadog_caselinks.sandbox import Fault, FaultRule

ROOT = Path(__file__).parent.parent


class TestFloor:
    @pytest.mark.parametrize(
        ("first", "links", "seconds"),
        [(1000.5, 2_000, 17.5), (1001.5, 2_000, 16.5), (1000.0, 2_001, 20.0), (1000.5, 200, 0.0)],
    )
    def test_reaches_to_the_start_of_the_last_window(self, first: float, links: int, seconds: float) -> None:
        """The minimum time ends at the start of the last window: ten windows of 2 s have 2,000 links."""
        assert floor(first, links) == seconds


class TestFaultRules:
    def test_strike_a_tenth_of_the_attempts_each_kind_alike(self) -> None:
        """Each fault rule affects the same share of all attempts, a tenth together."""
        left, shares = 1.0, []
        for rule in map(FaultRule.parse, fault_rules()):
            shares.append(left * rule.probability)
            left -= shares[-1]
        assert 1 - left == pytest.approx(0.1, rel=1e-4)
        assert shares == pytest.approx([shares[0]] * len(shares), rel=1e-4)

    def test_are_of_every_kind(self) -> None:
        """The faulty run contains every fault of the sandbox."""
        assert {FaultRule.parse(rule).fault for rule in fault_rules()} == set(Fault)


class TestMarks:
    def test_a_rate_limited_run_may_take_a_second_and_a_share_of_the_floor(self) -> None:
        """A limited run may take 1.03 of the minimum and one second: 11.3 s for 10 s."""
        for taken, met in ((11.29, True), (11.31, False)):
            run = Limited(links=2_000, failed=0, rejected=0, floor=10.0, taken=taken)
            kept, timely = limited_rows("alone", run, rejected=0.0, slack=1.03, grace=1)
            assert (kept.met, timely.met) == (True, met)

    @pytest.mark.parametrize("counts", [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
    def test_one_link_that_failed_or_was_lost_or_created_twice_is_too_many(
        self, counts: tuple[int, int, int]
    ) -> None:
        """A faulty run fails by one link that failed, was lost or was created twice."""
        failed, lost, twice = counts
        run = Faulty(links=10, failed=failed, lost=lost, twice=twice, struck=1, taken=1.0)
        assert faulty_row("us", run, has_mark=True).met is False

    def test_are_in_a_table_of_markdown(self) -> None:
        """The table is in Markdown, with one line for each row."""
        lines = table([Row("a", "1", "≤ 2", True), Row("b", "3")]).splitlines()
        assert [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]] == [
            ["a", "1", "≤ 2", "yes"],
            ["b", "3", "", ""],
        ]


def test_the_picture_is_the_same_for_the_same_numbers() -> None:
    """The picture is well-formed, the same for the same numbers, and has a bar for each contender."""
    costs = {"bare": Cost(100.0, 1.0), "sdk": Cost(125.0, 1.0)}
    assert picture(costs) == picture(costs)
    root = ElementTree.fromstring(picture(costs))
    bars = [rect for rect in root.iter("{http://www.w3.org/2000/svg}rect") if rect.get("class") != "panel"]
    assert [bar.get("class") for bar in bars] == ["other", "ours"]


def test_it_runs(tmp_path: Path) -> None:
    """A quick run writes its table, and a picture if CPU was measured."""
    pytest.importorskip("orjson")
    command = [sys.executable, "-m", "benchmarks", "--quick", "--output", str(tmp_path)]
    subprocess.run([*command, "--only", "cpu", "memory"], cwd=ROOT, check=True, timeout=120)
    assert "CPU per link: this SDK" in (tmp_path / "benchmark-table.md").read_text("utf-8")
    assert (tmp_path / "benchmark.svg").exists()
