"""Plans: the wanted links exist after applying, and applying a plan again changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datadog_caselinks import (
    AlreadyLinked,
    ApiKeys,
    AuthenticationError,
    CaseLink,
    CaseLinksClient,
    CaseLinksError,
    ContradictionKind,
    Created,
    Deleted,
    Entity,
    Failed,
    IncompleteListError,
    InvalidLinkError,
    LinkPlan,
    NewCaseLink,
    NotDeleted,
    NotFoundError,
    PermissionDeniedError,
    PlanOutcome,
    Relationship,
    ResponseTooLargeError,
    RetryPolicy,
    WantedLink,
    parse_link,
)
from datadog_caselinks.graph.plan import compare
from datadog_caselinks.sandbox import Sandbox
from datadog_caselinks.values.models import identity
from tests.support.api import Api
from tests.support.clock import Clock, in_no_time
from tests.support.ids import case, incident, some_id
from tests.support.leftovers import leaving_nothing
from tests.support.server import Exchange, Server
from tests.support.steps import Held, answers

A, B, C, D = (case(some_id(number)) for number in range(1, 5))
OUTAGE = incident(some_id(9))


@pytest.fixture
def sandbox(sandbox: Sandbox) -> Sandbox:
    """Add cases to the shared sandbox."""
    for number, entity in enumerate((A, B, C, D), 1):
        sandbox.add_case(f"SHOP-{number}", f"Title {number}", id=entity.id)
    return sandbox


def there(link_id: str, new: NewCaseLink) -> CaseLink:
    return CaseLink(link_id, new.parent, new.relationship, new.child)


def asked(sandbox: Sandbox) -> Counter[str]:
    """Return how many requests of each method the sandbox received."""
    return Counter(request.method for request in sandbox.requests)


def ids(sandbox: Sandbox) -> list[str]:
    return [link.id for link in sandbox.links]


async def applied(client: CaseLinksClient, plan: LinkPlan) -> list[PlanOutcome]:
    return [outcome async for outcome in client.apply_plan(plan)]


class TestPlanLinks:
    async def test_what_is_not_there_is_to_be_created(
        self, sandbox: Sandbox, client: CaseLinksClient
    ) -> None:
        """Missing links are planned in order, nothing is written, and each key is looked up once."""
        wanted = [parse_link("SHOP-1", "blocks", "shop-2"), parse_link("SHOP-1", "causes", OUTAGE)]
        plan = await client.plan_links(wanted)
        assert plan == LinkPlan(create=(A.blocks(B), A.causes(OUTAGE)))
        assert asked(sandbox) == {"GET": 3}  # two cases, and the links of the one that both links share

    async def test_progress(self, sandbox: Sandbox, client: CaseLinksClient) -> None:
        """Progress is reported after each response, with the total so far: first keys, then lists."""
        reported: list[tuple[int, int]] = []
        wanted = [parse_link("SHOP-1", "blocks", "SHOP-2"), parse_link("SHOP-3", "blocks", "SHOP-4")]
        await client.plan_links(wanted, progress=lambda done, total: reported.append((done, total)))
        assert reported == [(1, 4), (2, 4), (3, 4), (4, 4), (5, 6), (6, 6)]
        assert asked(sandbox) == {"GET": 6}

    async def test_what_is_there_is_kept(self, client: CaseLinksClient) -> None:
        """An existing link is kept, and a ``RELATES_TO`` link in either direction."""
        made = [await client.create_link(new) for new in (A.blocks(B), C.relates_to(A))]
        plan = await client.plan_links([A.relates_to(C), A.blocks(B), B.blocks(C)])
        assert plan == LinkPlan(create=(B.blocks(C),), keep=(made[1], made[0]))

    async def test_equal_links_are_one(self, client: CaseLinksClient) -> None:
        """Equal links count once, by key or by id, and the first one is used."""
        wanted = [A.relates_to(B), parse_link("SHOP-1", "relates_to", "SHOP-2"), B.relates_to(A)]
        assert await client.plan_links(wanted) == LinkPlan(create=(A.relates_to(B),))

    async def test_sources_of_either_kind(self, client: CaseLinksClient) -> None:
        """Sync and async sources both work, and an empty source gives an empty plan."""

        async def slowly() -> AsyncIterator[WantedLink]:
            yield A.blocks(B)

        assert await client.plan_links(slowly()) == LinkPlan(create=(A.blocks(B),))
        assert await client.plan_links([], prune=True) == LinkPlan()

    async def test_without_prune_nothing_is_deleted(self, client: CaseLinksClient) -> None:
        """Without ``prune``, other links and duplicate links stay unchanged."""
        first = min([await client.create_link(A.blocks(B)) for _ in range(2)], key=lambda link: link.id)
        await client.create_link(A.causes(B))
        assert await client.plan_links([A.blocks(B)]) == LinkPlan(keep=(first,))

    async def test_prune_deletes_among_the_entities_that_are_named(self, client: CaseLinksClient) -> None:
        """Prune deletes links only between entities that the wanted links name."""
        kept, unwanted, other = [
            await client.create_link(new) for new in (A.blocks(B), C.causes(B), A.blocks(D))
        ]
        plan = await client.plan_links([A.blocks(B), A.causes(C)], prune=True)
        assert plan == LinkPlan((A.causes(C),), (kept,), (unwanted,))
        assert other not in plan.delete

    async def test_prune_leaves_one_of_equal_links(self, client: CaseLinksClient) -> None:
        """Prune deletes all but one of equal links."""
        made = [await client.create_link(new) for new in (A.relates_to(B), B.relates_to(A), A.relates_to(B))]
        plan = await client.plan_links([A.relates_to(B)], prune=True)
        assert (len(plan.keep), len(plan.delete), {*plan.keep, *plan.delete}) == (1, 2, set(made))

    async def test_prune_leaves_what_no_file_could_name(self, keys: ApiKeys) -> None:
        """Prune keeps links with a relationship that this version does not know."""
        api = Api()
        ends = {"parent_entity_type": "CASE", "parent_entity_id": A.id}
        ends |= {"child_entity_type": "CASE", "child_entity_id": B.id}
        api.make({**ends, "relationship": "SUPERSEDES"})
        api.make({**ends, "relationship": "CAUSES"})
        async with Server(api) as server, CaseLinksClient(server.url, keys) as links:
            plan = await links.plan_links([A.blocks(B)], prune=True)
        assert [link.relationship for link in plan.delete] == [Relationship.CAUSES]

    async def test_one_list_has_all_links_of_a_hub(self, sandbox: Sandbox, client: CaseLinksClient) -> None:
        """Each link is looked up by the list of its hub, and prune lists every entity."""
        spokes = [case(some_id(number)) for number in range(100, 120)]
        wanted = [A.blocks(spoke) for spoke in spokes[:10]] + [spoke.blocks(A) for spoke in spokes[10:]]
        await client.plan_links(wanted)
        assert asked(sandbox) == {"GET": 1}
        await client.plan_links(wanted, prune=True)
        assert asked(sandbox) == {"GET": 1 + 21}

    async def test_links_that_cannot_be_planned_are_left_out(
        self, sandbox: Sandbox, client: CaseLinksClient
    ) -> None:
        """With ``on_failure``, failing links are reported, the others are planned, and nothing is pruned."""
        failures: list[tuple[WantedLink, CaseLinksError]] = []
        await client.create_link(A.causes(B))
        itself = parse_link("SHOP-1", "blocks", A)
        wanted = [parse_link("SHOP-1", "blocks", "SHOP-71"), itself, A.blocks(B)]
        plan = await client.plan_links(
            wanted, prune=True, on_failure=lambda new, error: failures.append((new, error))
        )
        assert (plan.create, plan.delete) == ((A.blocks(B),), ())
        assert [(new, type(error)) for new, error in failures] == [
            (wanted[0], NotFoundError),
            (itself, InvalidLinkError),
        ]

    @pytest.mark.parametrize("wrong", ["NONE-1", some_id(99)])
    async def test_what_on_failure_raises_ends_the_call(self, wrong: str) -> None:
        """A failure that ``on_failure`` does not take is raised: only the log would show a missing link."""

        def refuse(_: WantedLink, error: CaseLinksError) -> None:
            raise LookupError(str(error))

        async with (
            Sandbox(unknown_cases="not-found") as sandbox,
            CaseLinksClient(sandbox.site, sandbox.credentials) as client,
        ):
            sandbox.add_case("SHOP-1")
            with pytest.raises(LookupError, match="404"):
                await client.plan_links(
                    [parse_link(wrong, "blocks", "SHOP-1")], prune=True, on_failure=refuse
                )

    async def test_an_incident_that_may_not_be_listed(self, keys: ApiKeys) -> None:
        """Where the credentials may not list an incident, its links are found at the cases, without prune."""
        api, outage = Api(), incident(some_id(900))
        api.make(
            {
                "parent_entity_type": "INCIDENT",
                "parent_entity_id": outage.id,
                "relationship": "CAUSES",
                "child_entity_type": "CASE",
                "child_entity_id": A.id,
            }
        )

        async def step(exchange: Exchange) -> None:
            is_of_incident = exchange.seen.method == "GET" and outage.id in exchange.seen.target
            await (answers(403) if is_of_incident else api)(exchange)

        async with Server(step) as server, CaseLinksClient(server.url, keys) as client:
            plan = await client.plan_links([outage.causes(A), outage.causes(B)], prune=True)
        assert (plan.create, [link.child for link in plan.keep], plan.delete) == (
            (outage.causes(B),),
            [A],
            (),
        )

    async def test_a_list_that_is_too_long(self, keys: ApiKeys, monkeypatch: pytest.MonkeyPatch) -> None:
        """If the list of one end is too long, the link is found at the other; if both are, it is an error."""
        async with Server(Api()) as server, CaseLinksClient(server.url, keys) as client:
            list_whole, long = client._operations.list_whole, {A, D}

            async def list_some(entity: Entity) -> list[CaseLink]:
                if entity in long:
                    raise ResponseTooLargeError("too long", body="")
                return await list_whole(entity)

            monkeypatch.setattr(client._operations, "list_whole", list_some)
            existing = await client.create_link(A.blocks(B))
            plan = await client.plan_links([A.blocks(B), A.blocks(C)])
            assert (plan.keep, plan.create) == ((existing,), (A.blocks(C),))
            with pytest.raises(ResponseTooLargeError):
                await client.plan_links([A.blocks(B), A.blocks(D)])

    async def test_a_list_with_a_member_that_cannot_be_read(self, keys: ApiKeys) -> None:
        """A link that may be an unreadable member is found at its other end, and is not created again."""
        api = Api()
        flawed = A.id, D.id

        async def show(exchange: Exchange) -> None:
            is_flawed = any(f"entity_id={each}" in exchange.seen.target for each in flawed)
            await (answers(200, b'{"data": [null]}') if is_flawed else api)(exchange)

        async with Server(show) as server, CaseLinksClient(server.url, keys) as client:
            existing = await client.create_link(A.blocks(B))
            plan = await client.plan_links([A.blocks(B), A.blocks(C)], prune=True)
            assert (plan.keep, plan.create, plan.delete) == ((existing,), (A.blocks(C),), ())
            with pytest.raises(IncompleteListError):
                await client.plan_links([A.blocks(D)])

    async def test_credentials_that_may_list_no_case(self, keys: ApiKeys) -> None:
        """A 403 for a case concerns all cases, so it is raised."""
        async with Server(answers(403)) as server, CaseLinksClient(server.url, keys) as client:
            with pytest.raises(PermissionDeniedError):
                await client.plan_links([A.blocks(B)])

    async def test_keys_without_a_case_are_named_all_at_once(
        self, sandbox: Sandbox, client: CaseLinksClient
    ) -> None:
        """The error about unknown keys names all of them, and no list is requested."""
        wanted = [parse_link(f"SHOP-{number}", "blocks", "SHOP-1") for number in (71, 2, 72, 73)]
        with pytest.raises(NotFoundError, match="SHOP-71") as caught:
            await client.plan_links(wanted)
        assert str(caught.value).endswith("; also not found: SHOP-72, SHOP-73")
        with pytest.raises(NotFoundError) as caught:
            await client.plan_links(wanted[:2])
        assert "SHOP-71" in str(caught.value)
        assert "also not found" not in str(caught.value)
        assert not any("entity_id" in request.path for request in sandbox.requests)

    async def test_what_is_no_link_is_refused(self, sandbox: Sandbox, client: CaseLinksClient) -> None:
        """A value that is not a link is refused before anything is sent."""
        with pytest.raises(InvalidLinkError, match="not 'SHOP-1'"):
            await client.plan_links([A.blocks(B), "SHOP-1"])  # type: ignore[list-item]
        assert asked(sandbox) == {}

    async def test_two_names_of_one_case(self, client: CaseLinksClient) -> None:
        """A link between the key and the id of one case is refused after the lookup."""
        with pytest.raises(InvalidLinkError, match="cannot be linked to itself"):
            await client.plan_links([parse_link("SHOP-1", "blocks", A)])

    async def test_the_first_error_ends_it(self, keys: ApiKeys, at_once: RetryPolicy, clock: Clock) -> None:
        """The first error while planning cancels the requests in flight and leaves no task behind."""
        async with (
            leaving_nothing(),
            Server(Held(), answers(401)) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            with pytest.raises(AuthenticationError):
                await in_no_time(clock, links.plan_links([A.blocks(B), C.blocks(D)]))
            assert len(server.seen) == 2


class TestWarnings:
    async def test_a_cycle_with_what_is_there(self, client: CaseLinksClient) -> None:
        """A cycle through existing links is reported with the keys that were looked up."""
        kept, closing = [await client.create_link(new) for new in (A.blocks(B), C.blocks(A))]
        wanted = [parse_link("SHOP-1", "blocks", "SHOP-2"), parse_link("SHOP-2", "blocks", "SHOP-3")]
        [warning] = (await client.plan_links([*wanted, parse_link("SHOP-1", "causes", "SHOP-3")])).warnings
        assert warning.kind is ContradictionKind.CYCLE
        assert set(warning.links) == {kept, B.blocks(C), closing}
        assert str(warning) == "a cycle: SHOP-2 blocks SHOP-3 blocks SHOP-1 blocks SHOP-2"

    async def test_not_of_what_will_be_gone(self, client: CaseLinksClient) -> None:
        """Links that the plan deletes are not part of a cycle."""
        await client.create_link(A.blocks(B))
        assert len((await client.plan_links([B.blocks(A)])).warnings) == 1
        assert (await client.plan_links([B.blocks(A)], prune=True)).warnings == ()

    async def test_only_of_what_the_file_touches(self, client: CaseLinksClient) -> None:
        """Contradictions among existing links alone are not reported."""
        for new in (A.blocks(B), B.blocks(A), C.parent_of(A), D.parent_of(A)):
            await client.create_link(new)
        assert (await client.plan_links([A.causes(B)])).warnings == ()
        [warning] = (await client.plan_links([A.causes(B), B.blocks(C), C.blocks(A)])).warnings
        assert {B.blocks(C), C.blocks(A)} <= set(warning.links)
        [warning] = (await client.plan_links([B.parent_of(A)])).warnings
        assert warning.message.startswith(f"{A.id} has 3 parents: ")

    async def test_nothing_is_sent_for_them(self, sandbox: Sandbox, client: CaseLinksClient) -> None:
        """Warnings need no requests beyond the lists."""
        plan = await client.plan_links([A.blocks(B), B.blocks(A), A.duplicates(B), B.duplicates(A)])
        assert len(plan.warnings) == 2
        assert asked(sandbox) == {"GET": 1}


class TestText:
    async def test_it_is_the_difference(self, client: CaseLinksClient) -> None:
        """The text of a plan has one line per created or deleted link, with keys if they are known."""
        await client.create_link(A.causes(B))
        wanted = [parse_link("SHOP-1", "blocks", "SHOP-2"), parse_link("SHOP-1", "causes", OUTAGE)]
        plan = await client.plan_links(wanted, prune=True)
        assert str(plan).splitlines() == [
            "+ SHOP-1 blocks SHOP-2",
            f"+ SHOP-1 causes incident:{OUTAGE.id}",
            "- SHOP-1 causes SHOP-2",
        ]
        assert plan.name_of(C) == C.id
        assert plan.cases[A].title == "Title 1"

    def test_without_a_difference_it_is_empty(self) -> None:
        """The text of a plan without changes is empty."""
        assert str(LinkPlan(keep=(there("x", A.blocks(B)),))) == ""


class TestApplyPlan:
    async def test_what_became_of_each_link(self, sandbox: Sandbox, client: CaseLinksClient) -> None:
        """Each create and each delete has an outcome with its index."""
        old = [await client.create_link(new) for new in (A.causes(B), B.causes(C))]
        plan = await client.plan_links([A.blocks(B), B.blocks(C)], prune=True)
        outcomes = await applied(client, plan)
        assert Counter(map(type, outcomes)) == {Created: 2, Deleted: 2}
        assert {outcome.index for outcome in outcomes[:2]} == {0, 1}
        assert all(isinstance(each, Created) and each.new == plan.create[each.index] for each in outcomes[:2])
        assert {(each.link, each.index) for each in outcomes if isinstance(each, Deleted)} == {
            (old[0], 0),
            (old[1], 1),
        }
        assert (await client.plan_links([A.blocks(B), B.blocks(C)], prune=True)).keep == tuple(
            outcome.link
            for outcome in sorted(outcomes[:2], key=lambda each: each.index)
            if isinstance(outcome, Created)
        )
        assert len(sandbox.links) == 2

    async def test_twice_changes_nothing(self, sandbox: Sandbox, client: CaseLinksClient) -> None:
        """Applying the same plan or a new one again leaves the sandbox unchanged."""
        wanted = [A.blocks(B), B.blocks(C), C.relates_to(A)]
        for new in (A.causes(B), B.blocks(C), B.blocks(C)):
            await client.create_link(new)
        plan = await client.plan_links(wanted, prune=True)
        await applied(client, plan)
        after = ids(sandbox)
        assert len(after) == 3
        again = await applied(client, plan)
        assert Counter(map(type, again)) == {AlreadyLinked: 2, Deleted: 2}
        assert ids(sandbox) == after
        second = await client.plan_links(wanted, prune=True)
        assert (second.create, second.delete, len(second.keep)) == ((), (), 3)
        assert await applied(client, second) == []
        assert ids(sandbox) == after

    async def test_another_writer_in_between(self, sandbox: Sandbox, client: CaseLinksClient) -> None:
        """A link that another process created is kept, and one that it deleted counts as deleted."""
        old = await client.create_link(A.causes(B))
        plan = await client.plan_links([A.blocks(B)], prune=True)
        theirs = await client.create_link(A.blocks(B))
        await client.delete_link(old)
        assert await applied(client, plan) == [AlreadyLinked(A.blocks(B), theirs, 0), Deleted(old, 0)]
        assert ids(sandbox) == [theirs.id]

    async def test_creates_come_before_deletes(self, sandbox: Sandbox, client: CaseLinksClient) -> None:
        """All creates finish before the first delete is sent."""
        wanted = [A.blocks(case(some_id(number))) for number in range(20, 40)]
        for new in wanted[:10]:
            await client.create_link(new.parent.causes(new.child))
        plan = await client.plan_links(wanted, prune=True)
        before = len(sandbox.requests)
        await applied(client, plan)
        methods = [request.method for request in list(sandbox.requests)[before:]]
        assert "POST" not in methods[methods.index("DELETE") :]
        assert (methods.count("POST"), methods.count("DELETE")) == (20, 10)

    async def test_where_a_create_fails_nothing_is_deleted(self, keys: ApiKeys, at_once: RetryPolicy) -> None:
        """If a create fails, nothing is deleted, because a replacement may be missing."""
        api = Api()

        async def meet(exchange: Exchange) -> None:
            is_refused = exchange.seen.method == "POST" and C.id.encode() in exchange.seen.body
            await (answers(400) if is_refused else api)(exchange)

        old = there("x", A.causes(B))
        async with Server(meet) as server, CaseLinksClient(server.url, keys, retry=at_once) as links:
            outcomes = await applied(links, LinkPlan((A.blocks(B), A.blocks(C)), (), (old,)))
        assert Counter(map(type, outcomes)) == {Created: 1, Failed: 1, NotDeleted: 1}
        assert isinstance(last := outcomes[-1], NotDeleted)
        assert (last.link, last.index) == (old, 0)
        assert str(last.error) == (
            f"{old} was not deleted, because some links could not be created. Plan and apply again."
        )
        assert "DELETE" not in server.methods

    async def test_a_delete_that_fails(self, sandbox: Sandbox, client: CaseLinksClient) -> None:
        """A failed delete is an outcome with its error, and the other deletes continue."""
        for new in (A.causes(B), B.causes(A)):
            await client.create_link(new)
        plan = await client.plan_links([A.blocks(B)], prune=True)
        reader = CaseLinksClient(sandbox.site, sandbox.credentials_without_scope)
        async with reader:
            outcomes = await applied(reader, LinkPlan(delete=plan.delete))
        assert [type(outcome) for outcome in outcomes] == [NotDeleted] * 2
        for outcome in outcomes:
            assert isinstance(outcome, NotDeleted)
            assert outcome.link == plan.delete[outcome.index]
            assert type(outcome.error) is PermissionDeniedError

    @pytest.mark.parametrize("method", ["POST", "DELETE"])
    async def test_breaking_off_leaves_nothing_behind(self, method: str, keys: ApiKeys) -> None:
        """Closing the generator cancels the creates and deletes in flight."""
        api, held = Api(), Held()

        async def meet(exchange: Exchange) -> None:
            await (held if exchange.seen.method == method and len(seen()) > 1 else api)(exchange)

        def seen() -> list[str]:
            return [each for each in server.methods if each == method]

        new = [A.blocks(case(some_id(number))) for number in range(20, 25)]
        plan = LinkPlan(tuple(new), (), tuple(there(f"x{n}", each) for n, each in enumerate(new)))
        if method == "DELETE":
            plan = LinkPlan(delete=plan.delete)
        async with leaving_nothing(), Server(meet) as server, CaseLinksClient(server.url, keys) as links:
            async with contextlib.aclosing(links.apply_plan(plan)) as outcomes:
                await anext(outcomes)
            assert set(server.methods) == ({"DELETE"} if method == "DELETE" else {"GET", "POST"})

    async def test_bounded_concurrency(self, keys: ApiKeys, clock: Clock) -> None:
        """At most ``max_concurrency`` requests are in flight."""
        held = Held(Api())
        new = [A.blocks(case(some_id(number))) for number in range(20, 40)]
        plan = LinkPlan(delete=tuple(there(f"x{number}", each) for number, each in enumerate(new)))
        async with Server(held) as server, CaseLinksClient(server.url, keys, max_concurrency=3) as links:
            task = asyncio.create_task(applied(links, plan))
            await in_no_time(clock, server.until_seen(3))
            held.release(20)
            assert len(await task) == 20
        assert server.most_busy == 3


ENDS = [A, B, C, OUTAGE]
drawn = st.builds(
    lambda ends, relationship: NewCaseLink(ends[0], relationship, ends[1]),
    st.lists(st.sampled_from(ENDS), min_size=2, max_size=2, unique=True),
    st.sampled_from([Relationship.RELATES_TO, Relationship.BLOCKS]),
)
many = st.lists(drawn, max_size=12)


def after(plan: LinkPlan, before: Iterable[CaseLink]) -> list[CaseLink]:
    made = [there(f"new {number}", new) for number, new in enumerate(plan.create)]
    return [*made, *(link for link in before if link not in plan.delete)]


class TestCompare:
    @given(many, many, st.booleans())
    def test_then_the_links_are_as_they_are_wanted(
        self, wanted: list[NewCaseLink], standing: list[NewCaseLink], prune: bool
    ) -> None:
        """After applying, the wanted links exist, with prune once and alone; a second plan is empty."""
        before = [there(f"{number}", new) for number, new in enumerate(standing)]
        plan = compare(wanted, before, prune=prune, details={})
        now = after(plan, before)
        named = {end for new in wanted for end in (new.parent, new.child)}
        among = Counter(identity(link) for link in now if {link.parent, link.child} <= named)
        assert set(map(identity, wanted)) <= set(among)
        if prune:
            assert among == Counter(set(map(identity, wanted)))
        else:
            assert set(before) <= set(now)
        second = compare(wanted, now, prune=prune, details={})
        assert (second.create, second.delete) == ((), ())

    @given(many, many, st.randoms(use_true_random=False))
    def test_whatever_the_order_of_the_lists_the_same_link_is_kept(
        self, wanted: list[NewCaseLink], standing: list[NewCaseLink], draw: Random
    ) -> None:
        """Plans keep the same one of equal links, regardless of the order of the lists."""
        before = [there(f"{number}", new) for number, new in enumerate(standing * 2)]
        shuffled = draw.sample(before, len(before))
        one, other = (compare(wanted, each, prune=True, details={}) for each in (before, shuffled))
        assert (one.create, one.keep, set(one.delete)) == (other.create, other.keep, set(other.delete))
