"""Run one measurement in a new process, given by its function's name and its parameters as JSON.

The program prints the result as JSON. It knows the contenders, but not the meaning of the numbers.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import random
import re
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from benchmarks.contenders import CONTENDERS, Create, Pair, sdk_client, sdk_link_maker

_RSS_PER_MEGABYTE: Final = 2**20 if sys.platform == "darwin" else 2**10
_PROGRESS: Final = 100_000


def pairs(seed: int) -> Iterator[Pair]:
    """Yield endless pairs of random ids, which are the same for the same seed."""
    draw = random.Random(seed).getrandbits
    while True:
        yield str(UUID(int=draw(128), version=4)), str(UUID(int=draw(128), version=4))


async def cost(*, contender: str, url: str, links: int, warmup: int) -> dict[str, float]:
    """Return the CPU and clock seconds for ``links`` gathered links, after a warm-up."""
    source = pairs(0)
    async with CONTENDERS[contender](url) as create:
        await _gather(create, islice(source, warmup))
        wanted = list(islice(source, links))
        gc.collect()
        cpu, clock = _cpu(), time.perf_counter()
        await _gather(create, wanted)
        return {"cpu": _cpu() - cpu, "clock": time.perf_counter() - clock}


async def flood(
    *, contender: str, url: str, links: int, skip: int = 0, seed: int = 0, start: float = 0, **options: Any
) -> dict[str, Any]:
    """Gather ``links`` pairs of ``seed`` after the first ``skip``, at the time ``start``.

    Returns the number of errors by kind, and the time when the last call ended. Times are in seconds since
    the epoch.
    """
    wanted = list(islice(pairs(seed), skip, skip + links))
    async with CONTENDERS[contender](url, **options) as create:
        await asyncio.sleep(max(0.0, start - time.time()))
        results = await asyncio.gather(*(create(pair) for pair in wanted), return_exceptions=True)
        end = time.time()
    failed = Counter(type(result).__name__ for result in results if isinstance(result, BaseException))
    return {"failed": failed.total(), "errors": failed, "end": end}


async def gather_memory(*, url: str, links: int, warmup: int) -> float:
    """Return by how many megabytes the peak of resident memory grows in a gather of ``links`` calls."""
    source = pairs(0)
    async with CONTENDERS["sdk"](url) as create:
        await _gather(create, islice(source, warmup))
        before = _peak()
        await _gather(create, islice(source, links))
        return _peak() - before


async def stream_memory(*, url: str, links: int) -> dict[str, float]:
    """Return the peak of resident memory in megabytes after ``create_links``, and the seconds taken."""
    start = time.perf_counter()
    async with sdk_client(url) as client:
        done = 0
        async for outcome in client.create_links(map(sdk_link_maker(), islice(pairs(0), links))):
            if not hasattr(outcome, "link"):
                raise RuntimeError(outcome)
            done += 1
            if done % _PROGRESS == 0:
                print(f"  … {done:,} links", file=sys.stderr)
    if done != links:
        raise RuntimeError(f"{done} outcomes of {links} links")
    return {"peak": _peak(), "seconds": time.perf_counter() - start}


async def stall(*, url: str, links: int, listed: int) -> dict[str, float]:
    """Return the longest callback in seconds for each kind of work."""
    from benchmarks.stalls import stalls  # this imports the SDK, and another contender must come first

    return await stalls(url=url, links=links, listed=listed, source=pairs(0))


async def _gather(create: Create, wanted: Iterable[Pair]) -> None:
    await asyncio.gather(*(create(pair) for pair in wanted))


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _peak() -> float:
    """Return the peak of resident memory in megabytes.

    On Linux, ``ru_maxrss`` is at least what the parent used when it started this process, so the kernel's own
    figure for this program is used there.
    """
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text("ascii", "replace"))
        if found:
            return int(found[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _RSS_PER_MEGABYTE


MEASUREMENTS: Final = {
    function.__name__: function for function in (cost, flood, gather_memory, stream_memory, stall)
}

if __name__ == "__main__":
    name, parameters = sys.argv[1:]
    print(json.dumps(asyncio.run(MEASUREMENTS[name](**json.loads(parameters)))))
