"""The lookups of a run: few list requests, no duplicates, bounded memory."""

from __future__ import annotations

import asyncio
import copy
import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import TYPE_CHECKING

import pytest

from datadog_caselinks import (
    ApiKeys,
    CaseLink,
    CaseLinksClient,
    Created,
    Entity,
    Failed,
    LinkStatus,
    NewCaseLink,
    NotFoundError,
    PermissionDeniedError,
    ResponseTooLargeError,
    RetryPolicy,
    ServerError,
    SessionError,
    WantedLink,
)
from datadog_caselinks.bulk import known_links
from datadog_caselinks.bulk.known_links import KnownLinks, choose_ends
from datadog_caselinks.calls.recent_links import RecentLinks
from datadog_caselinks.sandbox import Fault, Sandbox
from datadog_caselinks.values.models import Identity, identity
from tests.support.api import Api
from tests.support.clock import Clock, hurrying
from tests.support.ids import case, incident, some_id
from tests.support.server import Exchange, Server
from tests.support.steps import answers
from tests.support.waiting import settle

if TYPE_CHECKING:
    from tests.support.ids import KnownEntity

COUNT = 300
HUB = incident(some_id(9_999))


def cases(count: int) -> list[KnownEntity]:
    return [case(some_id(number)) for number in range(1, count + 1)]


def fan_in() -> list[NewCaseLink]:
    return [each.relates_to(HUB) for each in cases(COUNT)]


def fan_out() -> list[NewCaseLink]:
    return [HUB.causes(each) for each in cases(COUNT)]


def chain() -> list[NewCaseLink]:
    chained = cases(COUNT + 1)
    return [parent.blocks(child) for parent, child in itertools.pairwise(chained)]


def pairs() -> list[NewCaseLink]:
    """Return random links between ``COUNT // 5`` cases."""
    draw, ends = random.Random(1), cases(COUNT // 5)
    chosen: dict[Identity, NewCaseLink] = {}
    while len(chosen) < COUNT:
        parent, child = draw.sample(ends, 2)
        new = parent.blocks(child)
        chosen[identity(new)] = new
    return list(chosen.values())


def operations(sandbox: Sandbox) -> Counter[str]:
    return Counter({"POST": "create", "GET": "list"}[request.method] for request in sandbox.requests)


async def statuses(
    client: CaseLinksClient, links: Iterable[WantedLink], **options: object
) -> Counter[LinkStatus]:
    run = client.create_links(links, ensure=True, **options)  # type: ignore[arg-type]
    return Counter([outcome.status async for outcome in run])


class TestFewLists:
    @pytest.mark.parametrize(
        ("links", "most"), [(fan_in(), 1), (fan_out(), 1), (chain(), COUNT // 2 + 1), (pairs(), COUNT // 5)]
    )
    @pytest.mark.slow
    async def test_one_list_serves_many_links(
        self, sandbox: Sandbox, client: CaseLinksClient, links: list[NewCaseLink], most: int
    ) -> None:
        """Each link is looked up by the end that more of the links read ahead share."""
        assert await statuses(client, links) == {LinkStatus.CREATED: COUNT}
        counts = operations(sandbox)
        assert counts["create"] == COUNT
        assert counts["list"] <= most

    @pytest.mark.parametrize(
        ("links", "most"), [(fan_in(), 1), (chain(), COUNT // 2 + 1), (pairs(), COUNT // 5)]
    )
    @pytest.mark.slow
    async def test_a_plan_is_applied_by_its_own_lists(
        self, sandbox: Sandbox, client: CaseLinksClient, links: list[NewCaseLink], most: int
    ) -> None:
        """Applying a plan that trusts its lists requests none of them again."""
        plan = await client.plan_links(links)
        async for outcome in client.apply_plan(plan, trust_lists=True):
            assert isinstance(outcome, Created)
        counts = operations(sandbox)
        assert counts["create"] == COUNT
        assert counts["list"] <= most

    async def test_a_slow_source_delays_no_link(self, client: CaseLinksClient) -> None:
        """A link is sent as soon as it is read, although fewer than the look-ahead were read."""
        go = asyncio.Event()

        async def slowly() -> AsyncIterator[NewCaseLink]:
            yield HUB.causes(case(some_id(1)))
            await go.wait()
            yield HUB.causes(case(some_id(2)))

        run = client.create_links(slowly(), ensure=True)
        assert isinstance(await anext(run), Created)
        go.set()
        assert isinstance(await anext(run), Created)
        assert [outcome async for outcome in run] == []

    async def test_an_error_of_the_source_is_raised(self, client: CaseLinksClient) -> None:
        """An error of the source is raised after the links before it are created."""

        def broken() -> Iterable[NewCaseLink]:
            yield HUB.causes(case(some_id(1)))
            raise RuntimeError("the source is broken")

        run = client.create_links(broken(), ensure=True)
        assert isinstance(await anext(run), Created)
        with pytest.raises(RuntimeError, match="the source is broken"):
            await anext(run)

    async def test_a_source_that_awaits_a_cancelled_task(self, client: CaseLinksClient) -> None:
        """A ``CancelledError`` that the source raises by itself ends the run, instead of hanging it."""
        other = asyncio.create_task(asyncio.Event().wait())
        other.cancel()

        async def source() -> AsyncIterator[NewCaseLink]:
            yield HUB.causes(case(some_id(1)))
            await other

        run = client.create_links(source(), ensure=True)
        assert (await anext(run)).status is LinkStatus.CREATED
        with pytest.raises(asyncio.CancelledError):
            await anext(run)

    async def test_the_entities_that_are_remembered_are_bounded(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With an endless source, entities that were chosen long ago are forgotten."""
        monkeypatch.setattr(known_links, "_MAX_ENTITIES", 2)
        a, b, c, d, e = cases(5)
        links = [a.blocks(b), c.blocks(d), e.blocks(d), a.blocks(e)]
        chosen = [end async for _, end in choose_ends(links)]
        assert chosen == ["parent", "child", "child", "parent"]


class TestNoDuplicates:
    async def test_a_run_can_be_repeated(self, sandbox: Sandbox, client: CaseLinksClient) -> None:
        """A repeated run creates nothing, and a repeated line creates nothing."""
        links = [*fan_in(), *fan_in()[:5]]
        assert await statuses(client, links) == {LinkStatus.CREATED: COUNT, LinkStatus.ALREADY_LINKED: 5}
        assert await statuses(client, links) == {LinkStatus.ALREADY_LINKED: COUNT + 5}
        assert len(sandbox.links) == COUNT

    async def test_a_link_without_direction_is_found_from_either_end(
        self, sandbox: Sandbox, client: CaseLinksClient
    ) -> None:
        """A ``RELATES_TO`` link is found from either end."""
        a, b = cases(2)
        await client.create_link(a.relates_to(b))
        assert await statuses(client, [b.relates_to(a)]) == {LinkStatus.ALREADY_LINKED: 1}

    @pytest.mark.parametrize("seconds", [0, 30])
    async def test_a_link_that_may_exist_is_looked_up_anew(
        self, seconds: int, keys: ApiKeys, clock: Clock
    ) -> None:
        """A repeated link whose create was ambiguous is listed again, although its list is not old."""
        api, new = Api(), HUB.causes(case(some_id(1)))

        async def source() -> AsyncIterator[NewCaseLink]:
            yield new
            await settle(50)
            clock.advance(seconds)
            yield new

        policy = RetryPolicy(budget=0)
        async with (
            Server(api, api.applies(answers(504)), api) as server,
            CaseLinksClient(server.url, keys, retry=policy) as client,
            hurrying(clock),
        ):
            run = client.create_links(source(), ensure=True, concurrency=1)
            assert [each.status async for each in run] == [LinkStatus.AMBIGUOUS, LinkStatus.ALREADY_LINKED]
        assert (server.methods, len(api.links)) == (["GET", "POST", "GET"], 1)

    @pytest.mark.clock(stopped_at=1000.0)
    async def test_a_link_that_was_created_just_before_its_list_is_too_old(self, clock: Clock) -> None:
        """A repeated link is not created again if its list expires in between, and the next one lags."""
        new, other = HUB.causes(case(some_id(1))), HUB.causes(case(some_id(2)))

        async def source() -> AsyncIterator[NewCaseLink]:
            for each, seconds in ((other, 0), (new, 299), (new, 2)):
                clock.advance(seconds)
                yield each
                await settle(100)

        async with (
            Sandbox(list_lag=4.0, clock=clock.time) as sandbox,
            CaseLinksClient(sandbox.site, sandbox.credentials) as client,
        ):
            expected = {LinkStatus.CREATED: 2, LinkStatus.ALREADY_LINKED: 1}
            run = client.create_links(source(), ensure=True, concurrency=1)
            assert Counter([each.status async for each in run]) == expected
            assert len(sandbox.links) == 2

    async def test_a_link_that_another_call_created_during_the_run(
        self, sandbox: Sandbox, client: CaseLinksClient, clock: Clock
    ) -> None:
        """A link that the client created after the run requested its list is not created again."""
        new, other = HUB.causes(case(some_id(1))), HUB.causes(case(some_id(2)))

        async def source() -> AsyncIterator[NewCaseLink]:
            yield other
            await settle(100)
            await client.create_link(new)
            clock.advance(60)
            yield new

        run = client.create_links(source(), ensure=True)
        assert [each.status async for each in run] == [LinkStatus.CREATED, LinkStatus.ALREADY_LINKED]
        assert operations(sandbox) == {"list": 1, "create": 2}

    async def test_a_link_that_was_created_just_before_the_run(self, clock: Clock) -> None:
        """A link that the list of a run does not show yet is not created again, however late its turn is."""
        new, other = HUB.causes(case(some_id(1))), HUB.causes(case(some_id(2)))

        async def source() -> AsyncIterator[NewCaseLink]:
            yield other
            await settle(100)
            clock.advance(200)
            yield new

        async with (
            Sandbox(list_lag=4.0, clock=clock.time) as sandbox,
            CaseLinksClient(sandbox.site, sandbox.credentials) as client,
        ):
            await client.create_link(new)
            run = client.create_links(source(), ensure=True)
            assert [each.status async for each in run] == [LinkStatus.CREATED, LinkStatus.ALREADY_LINKED]
            assert operations(sandbox) == {"list": 1, "create": 2}

    async def test_a_link_that_was_deleted_during_the_run(
        self, sandbox: Sandbox, client: CaseLinksClient
    ) -> None:
        """A link that the client deleted is created again, although the list of the run shows it."""
        new = HUB.causes(case(some_id(1)))
        first = await client.create_link(new)

        async def source() -> AsyncIterator[NewCaseLink]:
            yield new
            await settle(100)
            await client.delete_link(first)
            yield new
            await settle(100)
            yield new

        run = client.create_links(source(), ensure=True)
        assert [each.status async for each in run] == [
            LinkStatus.ALREADY_LINKED,
            LinkStatus.CREATED,
            LinkStatus.ALREADY_LINKED,
        ]
        assert len(sandbox.links) == 1
        assert [each.method for each in sandbox.requests].count("GET") == 2

    async def test_a_plan_after_a_delete_that_lists_do_not_show(self, keys: ApiKeys) -> None:
        """A plan creates a link that the client deleted, although a list still shows it."""
        api, stale, new = Api(), Api(), HUB.causes(case(some_id(1)))

        async def lag(exchange: Exchange) -> None:
            await (stale if exchange.seen.method == "GET" else api)(exchange)

        async with Server(lag) as server, CaseLinksClient(server.url, keys) as client:
            first = await client.create_link(new)
            stale.links = list(api.links)
            await client.delete_link(first)
            plan = await client.plan_links([new])
            assert (plan.create, plan.keep) == ((new,), ())
            outcomes = [outcome async for outcome in client.apply_plan(plan)]
        assert [type(each) for each in outcomes] == [Created]
        assert len(api.links) == 1

    async def test_a_plan_that_is_applied_twice_at_once(
        self, sandbox: Sandbox, client: CaseLinksClient, clock: Clock
    ) -> None:
        """Applying a plan ends as usual if another call that applies it is cancelled."""
        plan = await client.plan_links([HUB.causes(case(some_id(1)))])
        clock.advance(400)  # so that the lists of the plan are too old

        async def apply() -> list[object]:
            return [outcome async for outcome in client.apply_plan(plan, trust_lists=True)]

        sandbox.fail_next(Fault.DELAY, operation="list", seconds=0.2)
        first, second = asyncio.create_task(apply()), asyncio.create_task(apply())
        while len(sandbox.requests) < 2:
            await settle()
        first.cancel()
        (outcome,) = await second
        assert isinstance(outcome, Created)

    async def test_applying_a_plan_twice_changes_nothing(
        self, sandbox: Sandbox, client: CaseLinksClient
    ) -> None:
        """Applying a plan again creates nothing, and neither does applying a copy of it."""
        plan = await client.plan_links(fan_in())
        for each in (plan, plan, copy.deepcopy(plan)):
            outcomes = [outcome async for outcome in client.apply_plan(each, trust_lists=True)]
            assert len(outcomes) == COUNT
        assert len(sandbox.links) == COUNT

    async def test_another_client_lists_by_itself(self, sandbox: Sandbox, client: CaseLinksClient) -> None:
        """The lists of a plan are trusted only by the client that planned."""
        plan = await client.plan_links([HUB.causes(case(some_id(1)))])
        before = operations(sandbox)["list"]
        async with CaseLinksClient(sandbox.site, sandbox.credentials) as other:
            assert [o.status async for o in other.apply_plan(plan, trust_lists=True)] == [LinkStatus.CREATED]  # type: ignore[union-attr]
        assert operations(sandbox)["list"] == before + 1


class TestRefusedLists:
    async def test_the_other_end_is_listed(self) -> None:
        """If the parent cannot be listed, the links are looked up by the child."""
        lists = Lists({HUB: PermissionDeniedError("403", status=403)})
        a, b = cases(2)
        async with KnownLinks(lists, RecentLinks(5)) as known:
            assert await known.find(HUB.causes(a), "parent") is None
            assert await known.find(HUB.causes(b), "parent") is None
        assert lists.requested == [HUB, a, b]

    async def test_a_list_that_is_too_long(self) -> None:
        """If the list of a hub is longer than the client reads, the links are looked up at the other end."""
        lists = Lists({HUB: ResponseTooLargeError("too long", body="")})
        (a,) = cases(1)
        async with KnownLinks(lists, RecentLinks(5)) as known:
            assert await known.find(HUB.causes(a), "parent") is None
        assert lists.requested == [HUB, a]

    async def test_a_list_with_members_that_cannot_be_read(self, keys: ApiKeys) -> None:
        """If a member of the list of a hub cannot be read, the links are looked up at the other end."""
        api = Api()
        links = [HUB.causes(each) for each in cases(3)]

        async def respond(exchange: Exchange) -> None:
            is_hub = "entity_type=INCIDENT" in exchange.seen.target
            await (answers(200, b'{"data": [{"id": null}]}') if is_hub else api)(exchange)

        async with (
            Server(respond) as server,
            CaseLinksClient(server.url, keys) as client,
            CaseLinksClient(server.url, keys) as other,
        ):
            await other.create_link(links[1])
            found = await statuses(client, links)
        assert found == {LinkStatus.CREATED: 2, LinkStatus.ALREADY_LINKED: 1}
        assert server.methods.count("GET") == 4

    async def test_the_error_is_raised_if_neither_can_be_listed(self) -> None:
        """If neither end can be listed, the lookup raises the error."""
        a, b = cases(2)
        lists = Lists({each: NotFoundError("404", status=404) for each in (a, b)})
        async with KnownLinks(lists, RecentLinks(5)) as known:
            for _ in range(2):
                with pytest.raises(NotFoundError):
                    await known.find(a.blocks(b), "parent")

    async def test_refusals_are_remembered_within_bounds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The number of remembered refusals is limited, and a forgotten entity is listed again."""
        monkeypatch.setattr(known_links, "_MAX_ENTITIES", 1)
        a, b, *others = cases(5)
        lists = Lists({each: NotFoundError("404", status=404) for each in (a, b)})
        async with KnownLinks(lists, RecentLinks(5)) as known:
            for each, other in zip((a, b, a), others, strict=True):
                assert await known.find(each.blocks(other), "parent") is None
        assert lists.requested.count(a) == 2

    async def test_a_failed_list_fails_its_links(self) -> None:
        """A failed list fails the lookup, and the next lookup requests the list again."""
        lists = Lists({HUB: ServerError("500", status=500)})
        new = HUB.causes(case(some_id(1)))
        async with KnownLinks(lists, RecentLinks(5)) as known:
            with pytest.raises(ServerError):
                await known.find(new, "parent")
            lists.errors.clear()
            assert await known.find(new, "parent") is None


class TestAge:
    async def test_a_list_is_used_for_five_minutes(self, clock: Clock) -> None:
        """A list is used for five minutes and then requested again, as another process may add links."""
        lists, (a, b) = Lists(), cases(2)
        async with KnownLinks(lists, RecentLinks(5)) as known:
            await known.find(HUB.causes(a), "parent")
            clock.advance(299)
            await known.find(HUB.causes(b), "parent")
            assert len(lists.requested) == 1
            clock.advance(2)
            await known.find(HUB.causes(b), "parent")
            assert len(lists.requested) == 2

    async def test_a_fresh_list_of_the_other_end_is_used(self) -> None:
        """A known list of the other end is used instead of a new request."""
        lists, (a, b) = Lists(), cases(2)
        async with KnownLinks(lists, RecentLinks(5)) as known:
            await known.find(a.blocks(b), "child")
            await known.find(a.blocks(b), "parent")
        assert lists.requested == [b]


class TestMemory:
    async def test_lists_that_were_not_used_for_longest_are_dropped(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The number of links kept in memory is limited."""
        monkeypatch.setattr(known_links, "_MAX_LINKS", 10)
        lists = Lists(links=4)
        async with KnownLinks(lists, RecentLinks(5)) as known:
            for each in cases(20):
                await known.find(each.blocks(HUB), "parent")
            assert known._size <= 10

    async def test_links_that_were_created_count(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The links that a run creates count towards the limit, as those that it listed."""
        monkeypatch.setattr(known_links, "_MAX_LINKS", 10)
        lists, (a, b, *others) = Lists(links=0), cases(20)
        async with KnownLinks(lists, RecentLinks(5)) as known:
            for parent in (a, b):
                for child in others[:9]:
                    await known.find(parent.blocks(child), "parent")
                    known.add(parent.blocks(child).existing(f"{parent.id}-{child.id}"))
                    assert known._size <= 10
            assert await known.find(b.blocks(others[0]), "parent")
        assert lists.requested == [a, b]

    async def test_one_list_may_be_longer_than_the_bound(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A list that is longer than the limit is still requested only once."""
        monkeypatch.setattr(known_links, "_MAX_LINKS", 10)
        lists = Lists(links=40)
        async with KnownLinks(lists, RecentLinks(5)) as known:
            for each in cases(5):
                await known.find(HUB.causes(each), "parent")
        assert lists.requested == [HUB]

    async def test_a_list_that_was_forgotten_in_flight_takes_no_room(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A list that is forgotten in flight answers the calls that wait for it, and drops no other list."""
        monkeypatch.setattr(known_links, "_MAX_LINKS", 10)
        a, b, c = cases(3)
        lists = Lists(links=8)
        async with KnownLinks(lists, RecentLinks(5)) as known:
            waiting = asyncio.create_task(known.find(a.blocks(case(some_id(10_000))), "parent"))
            await asyncio.sleep(0)
            known.forget(a)
            found = await waiting
            assert found
            assert found.id == f"{a.id}-0"
            for each in (b, b):
                await known.find(each.blocks(c), "parent")
        assert lists.requested == [a, b]

    async def test_a_list_that_fails_at_once(self, sandbox: Sandbox) -> None:
        """If a list fails before anything is sent, its links fail with its error, and the run goes on."""
        client = CaseLinksClient(sandbox.site, sandbox.credentials)
        await client.close()
        outcomes = [each async for each in client.create_links(fan_in(), ensure=True)]
        assert Counter(type(each.error) for each in outcomes if isinstance(each, Failed)) == {
            SessionError: COUNT
        }

    async def test_the_entities_that_are_remembered_are_bounded(
        self, sandbox: Sandbox, client: CaseLinksClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A run with more entities than are remembered still creates each link once."""
        monkeypatch.setattr(known_links, "_MAX_ENTITIES", 2)
        assert await statuses(client, chain()) == {LinkStatus.CREATED: COUNT}
        assert len(sandbox.links) == COUNT

    async def test_a_list_that_fails_after_it_was_forgotten(self) -> None:
        """The failure of a forgotten list does not affect the newer list of the same entity."""
        lists = Lists(hangs=True)
        async with KnownLinks(lists, RecentLinks(5)) as known:
            first = asyncio.create_task(known.find(HUB.causes(case(some_id(1))), "parent"))
            await settle()
            task = known._lists[HUB].task
            assert task
            known.forget(HUB)
            second = asyncio.create_task(known.find(HUB.causes(case(some_id(2))), "parent"))
            await settle()
            task.cancel()
            await asyncio.wait([first])
            assert HUB in known._lists
            assert not second.done()
        await asyncio.wait([second])

    async def test_lists_in_flight_end_with_the_run(self) -> None:
        """Lists in flight are cancelled when the run ends."""
        lists = Lists(hangs=True)
        async with KnownLinks(lists, RecentLinks(5)) as known:
            found = asyncio.create_task(known.find(HUB.causes(case(some_id(1))), "parent"))
            await settle()
        with pytest.raises(asyncio.CancelledError):
            await found


class TestProceed:
    async def test_no_further_link_is_sent(self, sandbox: Sandbox, client: CaseLinksClient) -> None:
        """Links that were only read ahead are not sent after ``proceed`` returns false."""
        for ensure in (True, False):
            before = len(sandbox.links)
            run = client.create_links(
                chain() if ensure else fan_in(), ensure=ensure, proceed=lambda index: index < 7
            )
            assert len([outcome async for outcome in run]) == 7
            assert len(sandbox.links) == before + 7


class Lists:
    """Lists with ``links`` links each; those of the entities in ``errors`` fail."""

    def __init__(
        self, errors: dict[Entity, Exception] | None = None, *, links: int = 0, hangs: bool = False
    ) -> None:
        self.errors = errors or {}
        self.requested: list[Entity] = []
        self._links = links
        self._hangs = hangs

    async def __call__(self, entity: Entity) -> Mapping[Identity, str]:
        self.requested.append(entity)
        if self._hangs:
            await asyncio.Event().wait()
        if error := self.errors.get(entity):
            raise error
        others = [case(some_id(10_000 + number)) for number in range(self._links)]
        links = [CaseLink(f"{entity.id}-{n}", entity, "BLOCKS", other) for n, other in enumerate(others)]
        return {identity(link): link.id for link in links}
