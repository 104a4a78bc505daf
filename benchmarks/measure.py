"""The measurements and their results: medians, counts and differences. Targets are in ``report``."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable
from itertools import islice
from statistics import median
from typing import Final
from urllib.request import urlopen

from attrs import frozen

from benchmarks.contenders import official_is_installed
from benchmarks.processes import measured, serving, started
from benchmarks.worker import pairs
from datadog_caselinks.sandbox import Fault

_LIMIT: Final = 200
_PERIOD: Final = 2
_STARTUP: Final = 2.0
"""Seconds in which a process has imported what it needs."""

_FAULTY: Final = 0.1
_TIMEOUT: Final = 2.0
# A delay and a drip are each used twice: within the timeout of the client and beyond it. A late apply comes
# within it, because no client can notice a link that is created after its lookup.
_SECONDS: Final[dict[Fault, tuple[float | None, ...]]] = {
    Fault.DELAY: (0.3, 2 * _TIMEOUT),
    Fault.DRIP: (0.3, 2 * _TIMEOUT),
    Fault.LATE_APPLY: (0.3,),
    Fault.HTTP_429: (1.0,),
    Fault.HTTP_429_RETRY_AFTER: (1.0,),
    Fault.HTTP_503_RETRY_AFTER: (1.0,),
}


@frozen
class Scale:
    """The size of the measurements."""

    rounds: int
    links: int
    warmup: int
    limited_links: int
    faulty_links: int
    official_faulty_links: int
    gathered_links: int
    few_links: int
    many_links: int
    stalled_links: int
    listed_links: int


FULL: Final = Scale(11, 3_000, 500, 2_000, 10_000, 2_000, 10_000, 10_000, 1_000_000, 5_000, 10_000)
QUICK: Final = Scale(2, 300, 100, 400, 200, 100, 500, 500, 2_000, 200, 400)


@frozen
class Cost:
    """The cost of one contender: CPU microseconds per link, and links per second; medians over rounds."""

    cpu: float
    rate: float


@frozen
class Limited:
    """The results of gathered links under a rate limit; ``floor`` and ``taken`` are seconds.

    The floor is the time from the first request to the start of the last window that the limit requires.
    """

    links: int
    failed: int
    rejected: int
    floor: float
    taken: float


@frozen
class Faulty:
    """The results of gathered links with failing attempts: errors raised, links lost, links created twice."""

    links: int
    failed: int
    lost: int
    twice: int
    struck: int
    taken: float


@frozen
class Memory:
    """Memory in megabytes: growth by a gather, and the difference between many and few links."""

    gathered: float
    streamed: float
    many_rate: float


Tell = Callable[[str], None]


def costs(scale: Scale, tell: Tell) -> dict[str, Cost]:
    """Measure the CPU cost of each contender, in interleaved rounds with one process each."""
    contenders = ["bare", "by_hand", "sdk", "sdk_plain"] + ["official"] * official_is_installed()
    runs: dict[str, list[dict[str, float]]] = {contender: [] for contender in contenders}
    with serving("fast_server") as server:
        for number in range(scale.rounds):
            tell(f"CPU, round {number + 1} of {scale.rounds}")
            for contender, results in runs.items():
                results.append(
                    measured(
                        "cost",
                        contender=contender,
                        url=server.url,
                        links=scale.links,
                        warmup=scale.warmup,
                    )
                )
    return {contender: _cost(results, scale.links) for contender, results in runs.items()}


def _cost(results: list[dict[str, float]], links: int) -> Cost:
    cpu, clock = (median(result[key] for result in results) for key in ("cpu", "clock"))
    return Cost(cpu / links * 1e6, links / clock)


def limited(scale: Scale, tell: Tell, contender: str, processes: int, draw: random.Random) -> Limited:
    """Gather links under a rate limit, from several processes at once.

    The processes start at a random moment of a window's first three quarters, so that the limit can be used
    up in the first window too.
    """
    tell(f"{scale.limited_links:,} links at {_LIMIT} per {_PERIOD} s: {contender}, {processes} at once")
    share = scale.limited_links // processes
    with serving("sandbox_server", rate_limit=f"{_LIMIT}/{_PERIOD}s") as server:
        window = (time.time() + _STARTUP) // _PERIOD + 1
        start = (window + draw.uniform(0.0, 0.75)) * _PERIOD
        running = [
            started("flood", contender=contender, url=server.url, links=share, skip=n * share, start=start)
            for n in range(processes)
        ]
        results = [program.result() for program in running]
    counted = server.counted
    return Limited(
        links=share * processes,
        failed=sum(result["failed"] for result in results),
        rejected=counted["rejected"],
        floor=floor(counted["first"], share * processes),
        taken=max(result["end"] for result in results) - counted["first"],
    )


def floor(first: float, links: int) -> float:
    """Return the seconds from the ``first`` request to the start of the last window that ``links`` need."""
    windows = -(-links // _LIMIT)
    return max(0.0, (first // _PERIOD + windows - 1) * _PERIOD - first)


def faulty(tell: Tell, contender: str, links: int, seed: int) -> Faulty:
    """Gather links while one attempt in ten meets a fault of any kind."""
    tell(f"{links:,} links, {_FAULTY:.0%} of attempts faulty: {contender}")
    options = {"timeout": _TIMEOUT} if contender == "sdk" else {}
    with serving("sandbox_server", faults=fault_rules(), seed=seed) as server:
        begun = time.monotonic()
        result = measured("flood", contender=contender, url=server.url, links=links, seed=seed, **options)
        taken = time.monotonic() - begun
        with urlopen(f"{server.url}/_sandbox/state") as answer:
            struck = sum(json.load(answer)["faults"].values())
    stored = Counter(tuple(link) for link in server.counted["links"])
    return Faulty(
        links=links,
        failed=result["failed"],
        lost=sum(pair not in stored for pair in islice(pairs(seed), links)),
        twice=sum(count - 1 for count in stored.values()),
        struck=struck,
        taken=taken,
    )


def fault_rules(share: float = _FAULTY) -> list[str]:
    """Return rules that inject each kind of fault equally often, into a ``share`` of all requests.

    The sandbox draws the rules in order, so a later rule applies to the remaining requests only.
    """
    kinds = [(fault, seconds) for fault in Fault for seconds in _SECONDS.get(fault, (None,))]
    each = share / len(kinds)
    return [
        f"{fault}{'' if seconds is None else f'={seconds:g}'}:{100 * each / (1 - place * each):.6f}%"
        for place, (fault, seconds) in enumerate(kinds)
    ]


def stalls(scale: Scale, tell: Tell) -> dict[str, float]:
    """Return the milliseconds of the longest callback for each kind of work, which blocks the event loop."""
    tell("the longest callback")
    with serving("sandbox_server") as server:
        longest = measured("stall", url=server.url, links=scale.stalled_links, listed=scale.listed_links)
    return {what: 1000 * seconds for what, seconds in longest.items()}


def memory(scale: Scale, tell: Tell) -> Memory:
    """Measure the memory of a gather, and whether ``create_links`` needs more memory for more links."""
    with serving("fast_server") as server:
        tell(f"memory of {scale.gathered_links:,} gathered calls")
        gathered = measured("gather_memory", url=server.url, links=scale.gathered_links, warmup=scale.warmup)
        tell(f"memory of create_links over {scale.few_links:,} and {scale.many_links:,}")
        few = measured("stream_memory", url=server.url, links=scale.few_links)
        many = measured("stream_memory", url=server.url, links=scale.many_links)
    return Memory(gathered, many["peak"] - few["peak"], scale.many_links / many["seconds"])
