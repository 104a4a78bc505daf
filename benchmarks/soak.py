"""Ten minutes of continuous use: ``nox -s soak``, or ``nox -s soak -- --minutes 1`` to try it out.

The run has two sites, each in a process of its own, with faults and limits that change, and a restart during
the work with each change. The exit status is 1 if a link was lost or created twice, or if memory, descriptors
or tasks grew.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import AsyncExitStack, aclosing
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

from attrs import define, field

from benchmarks import soak_report
from benchmarks.contenders import Pair
from benchmarks.measure import fault_rules
from benchmarks.processes import Server
from benchmarks.report import table
from benchmarks.soak_report import Sample, Soaked
from benchmarks.worker import pairs
from datadog_caselinks import (
    AmbiguousResultError,
    CaseLinksClient,
    CaseLinksError,
    Failed,
    NewCaseLink,
    Outcome,
    SessionManager,
    WantedLink,
    case,
)
from datadog_caselinks.sandbox import Sandbox
from datadog_caselinks.sandbox.api import CREDENTIALS

_TIMEOUT: Final = 2.0
_SETTLE: Final = 1.0
_CONCURRENCY: Final = 50
_LIMITS: Final = (None, "400/1s", "200/2s", "1000/5s")
_FAULTY: Final = (0.0, 0.02, 0.1, 0.2)
_CALM: Final[dict[str, Any]] = {"rate_limit": None, "faults": []}


@define
class Site:
    """A sandbox in another process, and its wanted links: the first ``taken`` of its pairs.

    The ``denied`` links were reported as not created; the state of the ``unclear`` links is unknown.
    """

    folder: Path
    number: int
    links_between_changes: int
    draw: random.Random
    server: Server | None = None
    port: int = 0
    taken: int = 0
    done: int = 0
    denied: list[Pair] = field(factory=list)
    denied_wrongly: int = 0
    unclear: list[Pair] = field(factory=list)
    left_unclear: int = 0
    restarts: list[float] = field(factory=list)
    change: asyncio.Event = field(factory=asyncio.Event)
    is_over: bool = False

    @property
    def database(self) -> Path:
        """Return the path of the database, which outlives restarts."""
        return self.folder / f"site-{self.number}.db"

    @property
    def url(self) -> str:
        """Return the URL of the site, which stays the same over restarts."""
        return f"http://127.0.0.1:{self.port}"

    def source(self) -> Iterator[Pair]:
        """Return the wanted pairs of this site, which are the same each time."""
        return pairs(self.number)

    async def start(self, **weather: Any) -> None:
        """Start the process, after a restart on the same port with the stored links."""
        options = {"db": str(self.database), "port": self.port, **weather}
        self.server = await asyncio.to_thread(partial(Server, "sandbox_server", **options))
        self.port = int(self.server.url.rpartition(":")[2])

    async def stop(self) -> None:
        """End the process."""
        if self.server:
            await asyncio.to_thread(self.server.end)
            self.server = None

    async def change_with_the_work(self) -> None:
        """Restart with other faults and another limit after every ``links_between_changes`` links."""
        while await self.change.wait() and not self.is_over:
            self.change.clear()
            await self.stop()
            self.restarts.append(time.monotonic())
            await self.start(**self.weather())

    def end_of_work(self) -> None:
        """End the changes after the one in progress; cancelling it would leave a process behind."""
        self.is_over = True
        self.change.set()

    def weather(self) -> dict[str, Any]:
        """Return a random rate limit and random faults."""
        share = self.draw.choice(_FAULTY)
        return {
            "rate_limit": self.draw.choice(_LIMITS),
            "faults": fault_rules(share) if share else [],
            "fault_seed": self.draw.randrange(10**6),
        }

    def count(self, pair: Pair, error: CaseLinksError | None) -> None:
        """Count the outcome of a link."""
        self.done += 1
        if isinstance(error, AmbiguousResultError):
            self.leave([pair])
        elif error is not None:
            self.denied.append(pair)
        if self.done % self.links_between_changes == 0:
            self.change.set()

    def leave(self, some: Iterable[Pair]) -> None:
        """Record links whose existence is unknown."""
        before = len(self.unclear)
        self.unclear.extend(some)
        self.left_unclear += len(self.unclear) - before


def _link(pair: Pair) -> WantedLink:
    parent, child = pair
    return case(parent).blocks(case(child))


def _pair(outcome: Outcome) -> Pair:
    new = outcome.new
    assert isinstance(new, NewCaseLink)
    return new.parent.id, new.child.id


async def _in_a_run(site: Site, links: CaseLinksClient, some: list[Pair], **options: Any) -> None:
    async for outcome in links.create_links(map(_link, some), **options):
        site.count(_pair(outcome), outcome.error if isinstance(outcome, Failed) else None)


async def _gathered(site: Site, links: CaseLinksClient, some: list[Pair]) -> None:
    async def create(pair: Pair) -> None:
        try:
            await links.create_link(_link(pair))
        except CaseLinksError as error:
            site.count(pair, error)
        else:
            site.count(pair, None)

    await asyncio.gather(*map(create, some))


async def _broken_off(site: Site, links: CaseLinksClient, some: list[Pair]) -> None:
    """Leave a run in the middle, so that the outcomes of the remaining links are unknown."""
    rest = dict.fromkeys(some)
    async with aclosing(links.create_links(map(_link, some))) as outcomes:
        async for outcome in outcomes:
            site.count(_pair(outcome), outcome.error if isinstance(outcome, Failed) else None)
            del rest[_pair(outcome)]
            if len(rest) <= len(some) // 2:
                break
    site.leave(rest)


async def _once_more(site: Site, links: CaseLinksClient) -> None:
    """Look up the unclear links again, after a slow server has applied its requests.

    A link that fails again stays unclear: it was not created now, but may have been created before.
    """
    some, site.unclear = site.unclear, []
    if some:
        await asyncio.sleep(_SETTLE)
    async for outcome in links.create_links(map(_link, some), ensure=True):
        if isinstance(outcome, Failed):
            site.leave([_pair(outcome)])


_Way = Callable[[Site, CaseLinksClient, list[Pair]], Coroutine[Any, Any, None]]


class Soak:
    """One run with its files in ``folder``; faults and limits are drawn from ``seed``.

    Each client creates ``chunk`` links, in one of four ways in rotation.
    """

    def __init__(self, folder: Path, seed: int, *, chunk: int, links_between_changes: int) -> None:
        self._folder = folder
        self._chunk = chunk
        self._begun = time.monotonic()
        self._samples: list[Sample] = []
        self._sites = [
            Site(folder, number, links_between_changes, random.Random(f"{seed} {number}"))
            for number in (1, 2)
        ]

    async def run(self, *, minutes: float, links: float) -> Soaked:
        """Create links for the given time or number, then the remaining ones without faults."""

        def is_over() -> bool:
            return self._seconds() >= 60 * minutes or self._done() >= links

        async with AsyncExitStack() as stack:
            for site in self._sites:
                stack.push_async_callback(site.stop)
                await site.start(**site.weather())
            before = self._sample()
            async with SessionManager() as sessions, asyncio.TaskGroup() as group:
                sampling = group.create_task(self._keep_sampling())
                for site in self._sites:
                    group.create_task(site.change_with_the_work())
                await asyncio.gather(*(self._work(site, sessions, is_over) for site in self._sites))
                sampling.cancel()
                for site in self._sites:
                    site.end_of_work()
            await asyncio.sleep(0.1)  # closed connections release their sockets
            after = self._sample()
            for site in self._sites:
                await site.stop()
                await site.start(**_CALM)
                await self._finish(site)
        return await self._counted(before, after)

    async def _work(self, site: Site, sessions: SessionManager, is_over: Callable[[], bool]) -> None:
        source = site.source()
        journal = self._folder / f"site-{site.number}.journal"
        ways: Iterator[_Way] = cycle(
            (partial(_in_a_run, journal=journal), _gathered, partial(_in_a_run, ensure=True), _broken_off)
        )
        while not is_over():
            some = list(islice(source, self._chunk))
            site.taken += len(some)
            async with _client(site, sessions) as links:
                await next(ways)(site, links, some)
                await _once_more(site, links)

    async def _finish(self, site: Site) -> None:
        async with _client(site) as links:
            for pair in site.denied:
                _, is_new = await links.ensure_link(_link(pair))
                site.denied_wrongly += not is_new
            await _once_more(site, links)
            if site.unclear:
                raise RuntimeError(f"{len(site.unclear)} links cannot be made although nothing is in the way")

    async def _keep_sampling(self) -> None:
        while True:
            self._samples.append(self._sample())
            await asyncio.sleep(1)

    def _sample(self) -> Sample:
        return Sample(
            self._seconds(),
            self._done(),
            _resident(),
            len(os.listdir("/proc/self/fd")),
            len(asyncio.all_tasks()),
        )

    def _seconds(self) -> float:
        return time.monotonic() - self._begun

    def _done(self) -> int:
        return sum(site.done for site in self._sites)

    async def _counted(self, before: Sample, after: Sample) -> Soaked:
        wanted = lost = twice = 0
        for site in self._sites:
            async with Sandbox(db=site.database) as sandbox:
                stored = Counter((link.parent_entity_id, link.child_entity_id) for link in sandbox.links)
            wanted += site.taken
            lost += sum(pair not in stored for pair in islice(site.source(), site.taken))
            twice += stored.total() - len(stored)
        return Soaked(
            samples=self._samples,
            before=before,
            after=after,
            wanted=wanted,
            lost=lost,
            twice=twice,
            denied=sum(len(site.denied) for site in self._sites),
            denied_wrongly=sum(site.denied_wrongly for site in self._sites),
            unclear=sum(site.left_unclear for site in self._sites),
            restarts=[at - self._begun for site in self._sites for at in site.restarts],
        )


def _client(site: Site, sessions: SessionManager | None = None) -> CaseLinksClient:
    return CaseLinksClient(
        site.url, CREDENTIALS, sessions=sessions, timeout=_TIMEOUT, max_concurrency=_CONCURRENCY
    )


def _resident() -> float:
    """Return the resident memory of this process in megabytes."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> int:
    """Run, print the counts, and write them with the picture; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--links", type=float, default=math.inf, help="end after so many, if that is earlier")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of faults and limits")
    parser.add_argument("--output", type=Path, help="folder for the table and the picture")
    arguments = parser.parse_args()
    is_small = math.isfinite(arguments.links)
    sizes = (
        {"chunk": 20, "links_between_changes": 50}
        if is_small
        else {"chunk": 500, "links_between_changes": 3_000}
    )
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(Path(folder), arguments.seed, **sizes)
        soaked = asyncio.run(soak.run(minutes=arguments.minutes, links=arguments.links))
    rows = soak_report.rows(soaked)
    reported = f"{table(rows)}\n{soak_report.surroundings()} Seed {arguments.seed}.\n"
    print(reported)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "soak-table.md").write_text(reported, "utf-8")
        (arguments.output / "soak.svg").write_text(soak_report.picture(soaked), "utf-8")
    return int(any(row.met is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
