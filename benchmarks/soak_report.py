"""The results of a soak and their targets, as a table and as a picture. Measures nothing."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Final

from attrs import frozen

from benchmarks.picture import WIDTH, svg
from benchmarks.report import Row


@frozen
class Sample:
    """The state at one moment: ``memory`` in megabytes, and ``done`` links with a known outcome."""

    seconds: float
    done: int
    memory: float
    descriptors: int
    tasks: int


@frozen
class Soaked:
    """A run: a sample per second, one ``before`` and one ``after`` it, and the counts of links.

    ``denied`` links were reported as failed, and ``denied_wrongly`` of these existed. ``unclear`` links were
    ambiguous or interrupted. ``restarts`` has the seconds at which a site restarted.
    """

    samples: list[Sample]
    before: Sample
    after: Sample
    wanted: int
    lost: int
    twice: int
    denied: int
    denied_wrongly: int
    unclear: int
    restarts: list[float]

    def growth(self, of: Callable[[Sample], float], extreme: Callable[[list[float]], float] = min) -> float:
        """Return by how much the minimum of the last quarter exceeds the minimum of the second quarter.

        The first quarter is the warm-up. The minimum leaves out work in flight, so that only leaks remain.
        For bounded resources, such as pooled connections, pass ``max`` as ``extreme``.
        """
        quarter = len(self.samples) // 4
        if quarter < 15:  # a run of less than a minute has too few samples
            return 0.0
        values = [of(sample) for sample in self.samples]
        return extreme(values[-quarter:]) - extreme(values[quarter : 2 * quarter])


def rows(soaked: Soaked) -> list[Row]:
    """Return the counts with their targets."""
    memory, tasks = soaked.growth(lambda sample: sample.memory), soaked.growth(lambda sample: sample.tasks)
    descriptors = soaked.growth(lambda sample: sample.descriptors, max)
    opened = soaked.after.descriptors - soaked.before.descriptors
    left = soaked.after.tasks - soaked.before.tasks
    whole = max(sample.memory for sample in soaked.samples)
    return [
        Row("links wanted", f"{soaked.wanted:,} in {soaked.after.seconds:,.0f} s"),
        Row("restarts of a site, each with other faults and another limit", f"{len(soaked.restarts)}"),
        Row("ambiguous or interrupted, and looked up again", f"{soaked.unclear:,}"),
        Row("lost", f"{soaked.lost:,}", "0", soaked.lost == 0),
        Row("created twice", f"{soaked.twice:,}", "0", soaked.twice == 0),
        Row(
            f"exist, of the {soaked.denied:,} that were reported as failed",
            f"{soaked.denied_wrongly:,}",
            "0",
            soaked.denied_wrongly == 0,
        ),
        Row(
            "memory: the last quarter above the second",
            f"{memory:+.1f} of {whole:.0f} MB",
            "≤ 8 MB",
            memory <= 8,
        ),
        Row(
            "descriptors at most: the last quarter above the second",
            f"{descriptors:+.0f}",
            "≤ 20",
            descriptors <= 20,
        ),
        Row("tasks: the last quarter above the second", f"{tasks:+.0f}", "≤ 20", tasks <= 20),
        Row("descriptors left at the end", f"{opened}", "0", opened <= 0),
        Row("tasks left at the end", f"{left}", "0", left <= 0),
    ]


def surroundings() -> str:
    """Describe the software and the machine of the run."""
    packages = ", ".join(f"{package} {version(package)}" for package in ("aiohttp", "attrs", "cattrs"))
    return f"Python {platform.python_version()}, {packages}; {platform.system()}, {os.cpu_count()} cores."


_MARGIN: Final = 20
_PLOT: Final = 110
_COLUMNS: Final = 110


def picture(soaked: Soaked) -> str:
    """Draw links per second and the memory of the process over the time of the run."""
    ends = soaked.samples[-1].seconds or 1.0
    columns = _columns(soaked.samples, ends)
    rates = [done for done, _ in columns]
    memory = [megabytes for _, megabytes in columns]
    first, second = 84, 84 + 62 + _PLOT
    headings = (
        f"links in a second, up to {max(rates):,.0f}",
        f"memory of the client, up to {max(memory):.0f} MB",
    )
    parts = [
        _text(_MARGIN, 32, f"{soaked.wanted:,} links in {ends / 60:.0f} minutes", kind="title"),
        _text(_MARGIN, 54, "a line: a site starts again, with other faults and limits", kind="quiet"),
        *_plot(first, headings[0], rates, "ours", soaked.restarts, ends),
        *_plot(second, headings[1], memory, "other", soaked.restarts, ends),
    ]
    return svg("Links and memory over a long run", "; ".join(headings), second + 14 + _PLOT + 36, parts)


def _columns(samples: list[Sample], ends: float) -> list[tuple[float, float]]:
    """Return links per second and the maximum memory of each column; an empty one repeats the last."""
    columns = list[tuple[float, float]]()
    last = samples[0]
    for number in range(_COLUMNS):
        begins, until = (ends * place / _COLUMNS for place in (number, number + 1))
        within = [sample for sample in samples if begins < sample.seconds <= until]
        if not within:
            columns.append(columns[-1] if columns else (0.0, last.memory))
            continue
        passed = max(within[-1].seconds - last.seconds, 1e-9)
        columns.append(((within[-1].done - last.done) / passed, max(sample.memory for sample in within)))
        last = within[-1]
    return columns


def _plot(
    top: int, heading: str, values: list[float], kind: str, restarts: list[float], ends: float
) -> Iterator[str]:
    bottom = top + 14 + _PLOT
    across = WIDTH - 2 * _MARGIN
    width = across / len(values)
    yield _text(_MARGIN, top, heading)
    for at in restarts:
        yield f'<path class="window" d="M{_MARGIN + at / ends * across:.1f} {top + 12}V{bottom}"/>'
    for number, value in enumerate(values):
        height = value / (max(values) or 1.0) * _PLOT
        x, size = _MARGIN + number * width, f'width="{width - 0.6:.1f}" height="{height:.1f}"'
        yield f'<rect class="{kind}" x="{x:.1f}" y="{bottom - height:.1f}" {size}/>'
    yield f'<path class="line" d="M{_MARGIN} {bottom}H{WIDTH - _MARGIN}"/>'
    for minute in range(int(ends // 60) + 1):
        x, anchor = _MARGIN + 60 * minute / ends * across, "middle" if minute else "start"
        yield _text(x, bottom + 18, f"{minute}", anchor=anchor)


def _text(x: float, y: float, words: str, *, kind: str = "", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:g}" text-anchor="{anchor}">{words}</text>'
