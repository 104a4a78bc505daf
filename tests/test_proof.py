"""All faults at random: by the sandbox's own count, no link is lost and none is created twice."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve, frozen

from datadog_caselinks import (
    AlreadyLinked,
    ApiKeys,
    CaseLink,
    CaseLinksClient,
    ConflictError,
    Created,
    Deleted,
    NewCaseLink,
    Relationship,
    RetryPolicy,
)
from datadog_caselinks.sandbox import Fault, FaultRule, Sandbox
from datadog_caselinks.sandbox.store import StoredLink
from datadog_caselinks.values.models import Identity, identity
from tests.support.clock import Clock, hurrying
from tests.support.ids import case, incident
from tests.support.variants import VARIANTS

LINKS = 100
FAULTY = 0.15  # of all attempts
TIMEOUT = 3
# Longer than the timeout, so that a create can be applied after its client gave up.
LATE = {Fault.DELAY: 2 * TIMEOUT, Fault.DRIP: 2 * TIMEOUT, Fault.LATE_APPLY: 1.5 * TIMEOUT}
SHORT = dict.fromkeys((Fault.HTTP_429, Fault.HTTP_429_RETRY_AFTER, Fault.HTTP_503_RETRY_AFTER), 0.5)
POLICY = RetryPolicy(base=0.5, settle=7, max_attempts=8)
LIMIT = {"rate_limit": "100/10s"}
RUNS: dict[str, dict[str, Any]] = {
    **{name: VARIANTS[name] for name in ("conflict", "lag", "conflict and lag", "bad request and lag")},
    "separate": VARIANTS["separate"] | LIMIT,
    "unlimited": {},
    "limited": LIMIT,
}
whichever_way_the_api_is = pytest.mark.parametrize(
    "run",
    ["unlimited", "limited", "separate", "lag", "conflict and lag", "bad request and lag"],
    indirect=True,
)


@frozen
class Run:
    """A sandbox with all faults, its client, and the links to create."""

    sandbox: Sandbox
    links: CaseLinksClient
    seed: int
    wanted: list[NewCaseLink]

    def made(self) -> Counter[Identity]:
        return Counter(map(stored, self.sandbox.links))


def stored(link: StoredLink) -> Identity:
    parent, child = (
        (link.parent_entity_type, link.parent_entity_id),
        (link.child_entity_type, link.child_entity_id),
    )
    ends = (({"CASE": case, "INCIDENT": incident}[kind])(id) for kind, id in (parent, child))
    first, second = ends
    return identity(NewCaseLink(first, link.relationship, second))


def drawn(draw: random.Random) -> Iterator[NewCaseLink]:
    """Yield links of all relationships, half of them with the same parent."""
    hub = case(str(draw_uuid(draw)))
    for _ in range(LINKS):
        ends = [draw.choice([hub, case(draw_uuid(draw))]), draw.choice([case, incident])(draw_uuid(draw))]
        yield NewCaseLink(ends[0], draw.choice(list(Relationship)), ends[1])


def draw_uuid(draw: random.Random) -> str:
    digits = f"{draw.getrandbits(128):032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


@pytest.fixture(params=["unlimited", "limited"])
async def run(request: pytest.FixtureRequest, clock: Clock) -> AsyncIterator[Run]:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it if the test fails
    rules = [
        FaultRule(fault, seconds=(LATE | SHORT).get(fault), probability=FAULTY / len(Fault))
        for fault in Fault
    ]
    wanted = list(drawn(random.Random(seed)))
    options = RUNS[request.param]
    policy = evolve(POLICY, settle=POLICY.settle + options.get("list_lag", 0.0))
    async with Sandbox(faults=rules, fault_seed=seed, clock=clock.time, **options) as sandbox:
        keys = sandbox.credentials
        async with (
            CaseLinksClient(sandbox.site, keys, timeout=TIMEOUT, retry=policy) as links,
            hurrying(clock),
        ):
            yield Run(sandbox, links, seed, wanted)


@whichever_way_the_api_is
async def test_gathered(run: Run) -> None:
    """Each ``create_link`` in a ``gather`` returns its link, which exists once."""
    made = await asyncio.gather(*map(run.links.create_link, run.wanted))
    assert list(map(identity, made)) == list(map(identity, run.wanted))
    assert run.made() == Counter(map(identity, run.wanted))
    assert {link.id for link in made} == {link.id for link in run.sandbox.links}


@whichever_way_the_api_is
async def test_ensured(run: Run) -> None:
    """One of several equal ``ensure_link`` calls reports that it created the link."""
    reported = await asyncio.gather(*(run.links.ensure_link(new) for new in run.wanted for _ in range(3)))
    assert run.made() == Counter(map(identity, run.wanted))
    assert Counter(identity(link) for link, is_new in reported if is_new) == run.made()
    ids = {identity(link): link.id for link, _ in reported}
    assert all(ids[identity(link)] == link.id for link, _ in reported)


@whichever_way_the_api_is
async def test_in_bulk_with_a_journal(run: Run, tmp_path: Path) -> None:
    """A link that is twice in the source is created once, and a second run sends no request."""
    source, journal = run.wanted * 2, tmp_path / "run.journal"
    first = [outcome async for outcome in run.links.create_links(source, journal=journal)]
    assert Counter(map(type, first)) == {Created: LINKS, AlreadyLinked: LINKS}
    assert run.made() == Counter(map(identity, run.wanted))
    refused = ApiKeys(api_key="another-api-key", app_key="another-app-key")
    async with CaseLinksClient(run.sandbox.site, refused) as links:  # each of its requests would get a 401
        second = [outcome async for outcome in links.create_links(source, journal=journal)]
    assert Counter(map(type, second)) == {AlreadyLinked: 2 * LINKS}


async def test_deleted(run: Run) -> None:
    """Each ``delete_link`` succeeds, and no link remains."""
    made = await asyncio.gather(*map(run.links.create_link, run.wanted))
    await asyncio.gather(*map(run.links.delete_link, made))
    assert run.sandbox.links == []


@pytest.mark.parametrize("run", ["unlimited", "limited", "conflict"], indirect=True)
async def test_planned(run: Run) -> None:
    """A plan leaves exactly the wanted links among its entities, each once, while others write too."""
    draw, wanted = random.Random(run.seed), run.wanted[:30]
    parents = [new.parent for new in wanted]
    strangers = [first.blocks(second) for first, second in pairwise(parents) if first != second]
    there, by_others = wanted[:10], wanted[20:25]
    # An ambiguous create may return the equal link that its lookup found, so not all links exist twice.
    written = map(run.links.create_link, [*there, *there, *strangers])
    reported = await asyncio.gather(*written, return_exceptions=True)
    assert {type(each) for each in reported} <= {CaseLink, ConflictError}
    plan = await run.links.plan_links(wanted, prune=True)
    assert {link.id for link in (*plan.keep, *plan.delete)} == {link.id for link in run.sandbox.links}
    assert len(plan.keep) == len(there)
    await asyncio.gather(
        *map(run.links.create_link, by_others), *map(run.links.delete_link, draw.sample(plan.delete, 5))
    )
    for creates in (Counter({Created: 15, AlreadyLinked: 5}), Counter({AlreadyLinked: 20})):
        outcomes = [outcome async for outcome in run.links.apply_plan(plan)]
        assert Counter(map(type, outcomes)) == creates + Counter({Deleted: len(plan.delete)})
        assert run.made() == Counter(map(identity, wanted))
    second = await run.links.plan_links(wanted, prune=True)
    assert (second.create, second.delete) == ((), ())
    assert {link.id for link in second.keep} == {link.id for link in run.sandbox.links}


async def test_cancelled_calls_take_nothing_along(run: Run) -> None:
    """Cancelled calls create their links at most once, and all other calls exactly once."""
    draw = random.Random(run.seed)
    tasks = [asyncio.create_task(run.links.create_link(new)) for new in run.wanted]
    victims = draw.sample(range(LINKS), LINKS // 4)
    for count, victim in enumerate(victims):
        while len(run.sandbox.requests) < count:  # noqa: ASYNC110 - it waits for other tasks
            await asyncio.sleep(0)
        tasks[victim].cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    made = run.made()
    for new, outcome in zip(run.wanted, done, strict=True):
        if isinstance(outcome, CaseLink):
            assert made[identity(new)] == 1
        else:
            assert isinstance(outcome, asyncio.CancelledError), outcome
            assert made[identity(new)] <= 1
