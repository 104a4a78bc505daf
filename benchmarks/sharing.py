"""Simulate processes that share one rate limit: ``python -m benchmarks.sharing`` prints and draws it.

Each process is a real :class:`Window`, in virtual time. Its requests take 2 to 20 ms each way. The server
allows 200 requests in 2 s and reports the five headers, as Datadog does.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.picture import WIDTH, svg
from datadog_caselinks.http.window import SentRequest, Window
from datadog_caselinks.values.rate_limit import RateLimit

LIMIT: Final = 200
PERIOD: Final = 2.0
SLOTS: Final = 100
_PICTURE: Final = Path(__file__).parent.parent / "docs" / "sharing.svg"


_ONE_WAY: Final = (0.002, 0.02)
"""The shortest and the longest time that a request or a response takes, in seconds."""


class Simulation:
    """Processes and a server in virtual time, with the same random delays for each ``seed``.

    At time 0, between half of a window and a whole window is left.
    """

    def __init__(self, seed: int, *, one_way: tuple[float, float] = _ONE_WAY) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.requests = self.rejected = 0
        self._one_way = one_way
        self._ahead = self.random.uniform(0, PERIOD / 2)
        self._window, self._used = -1, 0
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = itertools.count()

    def at(self, when: float, event: Callable[..., None], *arguments: object) -> None:
        """Schedule ``event`` for the time ``when``."""
        heapq.heappush(self._events, (when, next(self._count), event, arguments))

    def later(self, event: Callable[..., None], *arguments: object) -> None:
        """Schedule ``event`` after the time that a request or a response takes."""
        self.at(self.now + self.random.uniform(*self._one_way), event, *arguments)

    def run(self, *, until: float = math.inf, is_over: Callable[[], bool] = lambda: False) -> None:
        """Run until the time ``until``, until ``is_over()``, or until nothing is left to do."""
        while self._events and self._events[0][0] <= until and not is_over():
            self.now, _, event, arguments = heapq.heappop(self._events)
            event(*arguments)

    def serve(self) -> tuple[RateLimit, bool]:
        """Count a request that arrives now, and return the headers and whether it is rejected."""
        window, elapsed = divmod(self.now + self._ahead, PERIOD)
        if window != self._window:
            self._window, self._used = int(window), 0
        is_rejected = self._used == LIMIT
        self._used += not is_rejected
        self.requests += 1
        self.rejected += is_rejected
        return RateLimit(
            LIMIT, LIMIT - self._used, PERIOD, float(math.ceil(PERIOD - elapsed)), "links"
        ), is_rejected

    def floor(self, requests: int) -> float:
        """Return the start of the last window that ``requests`` requests need."""
        return (math.ceil(requests / LIMIT) - 1) * PERIOD - self._ahead


class Process:
    """A process with ``todo`` requests from ``start`` on, with at most ``SLOTS`` in flight."""

    def __init__(self, simulation: Simulation, todo: int, start: float = 0.0) -> None:
        self.ended_at = 0.0
        self._simulation = simulation
        self._todo = self._left = todo
        self._window = Window(simulation.random.uniform)
        self._check_at = -1.0
        simulation.at(start, self._send)

    @property
    def is_done(self) -> bool:
        """Return whether every request was accepted."""
        return self._left == 0

    def _send(self) -> None:
        now, free = self._simulation.now, SLOTS - self._left + self._todo
        while (
            self._todo and free and self._window.may_send(now, math.inf if self._todo > free else self._todo)
        ):
            self._todo -= 1
            free -= 1
            self._simulation.later(self._arrive, self._window.count(now))
        if self._todo and free and self._check_at != (check_at := self._window.next_check(now)):
            self._check_at = check_at
            self._simulation.at(check_at, self._send)

    def _arrive(self, request: SentRequest) -> None:
        self._simulation.later(self._receive, request, *self._simulation.serve())

    def _receive(self, request: SentRequest, limit: RateLimit, is_rejected: bool) -> None:
        now = self._simulation.now
        self._window.on_response(now, request, limit, is_rate_limited=is_rejected, retry_after=None)
        self._todo += is_rejected
        self._left -= not is_rejected
        self.ended_at = now
        self._send()


def together(
    processes: int, requests: int = 2000, *, seed: int = 1, one_way: tuple[float, float] = _ONE_WAY
) -> tuple[float, float]:
    """Return the share of rejected requests, and the time taken as a multiple of the floor."""
    simulation = Simulation(seed, one_way=one_way)
    each = requests // processes
    running = [Process(simulation, each, simulation.random.uniform(0, 0.15)) for _ in range(processes)]
    simulation.run()
    assert all(process.is_done for process in running)
    taken = max(process.ended_at for process in running)
    return simulation.rejected / simulation.requests, taken / simulation.floor(requests)


def beside_a_bulk_run(calls: int = 100, *, seed: int = 1) -> list[float]:
    """Return the sorted waiting times, in windows, of ``calls`` new processes with one request each."""
    simulation = Simulation(seed)
    Process(simulation, 10**9)
    waits = []
    for _ in range(calls):
        simulation.run(until=simulation.now + simulation.random.uniform(PERIOD, 3 * PERIOD))
        began = simulation.now
        process = Process(simulation, 1, began)
        simulation.run(is_over=lambda process=process: process.is_done)  # type: ignore[misc]
        waits.append((process.ended_at - began) / PERIOD)
    return sorted(waits)


def main() -> None:
    """Print the results, and draw them."""
    waits = beside_a_bulk_run()
    rows = [
        (f"one call beside a bulk run, {name}", f"{windows:.1f} windows", windows / 3)
        for name, windows in (("median", waits[49]), ("95 % of calls", waits[94]), ("longest", waits[99]))
    ]
    for processes in (1, 2, 8, 1000):
        rejected, slowdown = together(processes)
        name = f"{processes:,} processes" if processes > 1 else "alone"
        rows.append((f"{name}: rejected", f"{rejected:.1%}, {slowdown:.2f} of the floor", rejected))
    for name, result, _ in rows:
        print(f"{name}: {result}")
    _PICTURE.write_text(picture(rows), "utf-8")


def picture(rows: list[tuple[str, str, float]]) -> str:
    """Draw each row as a bar with its name and its result."""
    parts = [
        '<text class="title" x="20" y="32">Processes that share a limit of 200 in 2 s</text>',
        '<text class="quiet" x="20" y="54">simulated; the grey bar is three windows, or all requests</text>',
    ]
    for place, (name, result, part) in enumerate(rows):
        y, across = 90 + 48 * place, WIDTH - 40
        place_of = f'x="20" y="{y + 8}" height="12" rx="3"'
        parts += [
            f'<text x="20" y="{y}">{name}<tspan class="quiet" dx="8">{result}</tspan></text>',
            f'<rect class="other" {place_of} width="{across}" opacity="0.3"/>',
            f'<rect class="ours" {place_of} width="{max(2.0, part * across):.1f}"/>',
        ]
    described = "; ".join(f"{name}: {result}" for name, result, _ in rows)
    return svg("Processes that share a rate limit", described, 90 + 48 * len(rows), parts)


if __name__ == "__main__":
    main()
