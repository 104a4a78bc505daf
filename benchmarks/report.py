"""The results and their targets as one Markdown table. Measures nothing."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib.metadata import version

from attrs import frozen

from benchmarks.contenders import official_is_installed
from benchmarks.measure import Cost, Faulty, Limited, Memory
from benchmarks.stalls import BESIDE

NAMES = {
    "bare": "bare aiohttp, fixed bytes",
    "by_hand": "aiohttp written by hand",
    "sdk": "this SDK, with `speed`",
    "sdk_plain": "this SDK, without",
    "official": "datadog-api-client, async",
}


@frozen
class Row:
    """One row: the measurement, its result, and the target with whether it is met, if there is one."""

    measured: str
    result: str
    mark: str = ""
    met: bool | None = None

    def cells(self) -> tuple[str, str, str, str]:
        """Return the cells of the row as text."""
        return self.measured, self.result, self.mark, {None: "", True: "yes", False: "**no**"}[self.met]


def cost_rows(costs: dict[str, Cost]) -> list[Row]:
    """Return the cost of each contender, and the ratios that have targets."""
    rows = [
        Row(f"CPU per link: {NAMES[name]}", f"{cost.cpu:.0f} µs, {cost.rate:,.0f} links/s")
        for name, cost in costs.items()
    ]
    for contender, other, mark in (
        ("sdk", "by_hand", 1.15),
        ("sdk_plain", "by_hand", 1.30),
        ("sdk", "official", 0.50),
    ):
        if other in costs:
            ratio = costs[contender].cpu / costs[other].cpu
            rows.append(_at_most(f"CPU: {NAMES[contender]} / {NAMES[other]}", ratio, mark))
    return rows


def limited_rows(
    who: str, run: Limited, *, rejected: float | None = None, slack: float = 0, grace: float = 0
) -> list[Row]:
    """Return the rows of a run under a rate limit.

    The targets are the share of links that may be ``rejected``, and a time: ``slack`` times the floor, plus
    ``grace`` seconds.
    """
    what = f"{run.links:,} at 200 per 2 s, {who}"
    outcome = f"{run.failed:,} failed, {run.rejected:,} rejected"
    over = f"{run.taken - run.floor:.1f} s over the floor of {run.floor:.1f} s"
    if run.failed:  # a run with failures ends early
        over = f"{run.taken:.1f} s, where all would need {run.floor:.1f} s"
    if rejected is None:
        return [Row(what, f"{outcome}, {over}")]
    is_kept = run.failed == 0 and run.rejected <= rejected * run.links
    allowed = (slack - 1) * run.floor + grace
    return [
        Row(what, outcome, f"0 failed, {rejected:.0%} rejected", is_kept),
        Row(f"{what}: time", over, f"≤ {allowed:.1f} s over", run.taken - run.floor <= allowed),
    ]


def faulty_row(who: str, run: Faulty, *, has_mark: bool) -> Row:
    """Return the row of a run with faults."""
    what = f"{run.links:,} links, 10 % of attempts faulty, {who}"
    outcome = f"{run.failed:,} failed, {run.lost:,} lost, {run.twice:,} twice; {run.struck:,} faults struck"
    if not has_mark:
        return Row(what, outcome)
    return Row(what, outcome, "0, 0, 0", run.failed == run.lost == run.twice == 0)


def stall_rows(longest: dict[str, float]) -> list[Row]:
    """Return the longest callbacks of the client, for which other work in the event loop has to wait."""
    own = [
        Row(f"longest callback: {what}", f"{taken:.1f} ms", "≤ 5 ms", taken <= 5)
        for what, taken in longest.items()
        if what not in BESIDE
    ]
    return [*own, *(Row(what, f"{longest[what]:.1f} ms") for what in BESIDE)]


def memory_rows(memory: Memory, gathered: int, few: int, many: int) -> list[Row]:
    """Return the rows about memory."""
    return [
        Row(f"memory of {gathered:,} gathered calls", f"{memory.gathered:.1f} MB"),
        Row(
            f"`create_links` over {many:,} against {few:,}",
            f"{memory.streamed:+.1f} MB, at {memory.many_rate:,.0f} links/s",
            "≤ 8 MB more",
            memory.streamed <= 8,
        ),
    ]


def _at_most(measured: str, ratio: float, mark: float) -> Row:
    return Row(measured, f"{ratio:.2f}", f"≤ {mark:.2f}", round(ratio, 2) <= mark)


def table(rows: Iterable[Row]) -> str:
    """Return the rows as Markdown with aligned columns."""
    lines = [("measured", "result", "mark", "met"), *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    rule = tuple("-" * width for width in widths)
    return "".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |\n"
        for line in (lines[0], rule, *lines[1:])
    )


def surroundings(rounds: int, links: int) -> str:
    """Describe the software and the machine of the measurement."""
    packages = ["aiohttp", "attrs", "cattrs", "orjson", *["datadog-api-client"] * official_is_installed()]
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    return (
        f"Python {platform.python_version()}, {versions}; {platform.system()}, {os.cpu_count()} cores. "
        f"CPU: medians of {rounds} interleaved rounds of {links:,} links, 100 at once."
    )
