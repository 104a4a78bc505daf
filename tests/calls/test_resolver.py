"""The rules of looking up cases: one request for each case, shared by all callers, and a bounded cache."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from datadog_caselinks import (
    ApiKeys,
    Case,
    CaseKey,
    CaseLinksClient,
    CaseLinksError,
    Entity,
    Incident,
    InvalidLinkError,
    LinkReference,
    MalformedResponseError,
    NotFoundError,
    Relationship,
    Resolver,
    RetryPolicy,
    ServerError,
    Site,
    case,
    incident,
    page,
    parse_link,
)
from datadog_caselinks.calls import resolver
from datadog_caselinks.sandbox import Fault, Sandbox
from tests.support.clock import Clock, in_no_time
from tests.support.ids import some_id
from tests.support.leftovers import leaving_nothing
from tests.support.server import Server, Step
from tests.support.steps import answers, drops, is_silent
from tests.support.waiting import settle

NEVER = RetryPolicy(max_attempts=1, max_rate_limited=0)


@pytest.fixture
def sandbox(sandbox: Sandbox) -> Sandbox:
    """Add cases to the shared sandbox."""
    for number in range(1, 10):
        sandbox.add_case(f"SHOP-{number}", id=some_id(number))
    return sandbox


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[CaseLinksClient]:
    async with CaseLinksClient(sandbox.site, sandbox.credentials, retry=NEVER) as client:
        yield client


def asked(sandbox: Sandbox) -> list[str]:
    """Return the keys and ids of the requested cases."""
    assert {request.method for request in sandbox.requests} <= {"GET"}
    return [request.path.rpartition("/")[2] for request in sandbox.requests]


async def no_incident(name: str) -> Incident:
    raise AssertionError("no incident was expected to be looked up")


def reported(case_id: str, key: str) -> Step:
    """Return a step that responds with a case."""
    return answers(200, json.dumps({"data": {"id": case_id, "attributes": {"key": key}}}).encode())


class TestEntity:
    async def test_every_form_that_people_write(self, sandbox: Sandbox, client: CaseLinksClient) -> None:
        """A key and the URL of a case are looked up, and an entity needs no lookup."""
        entities = client.resolver()
        for name in ("SHOP-1", " shop-1", CaseKey("SHOP-1"), f"{sandbox.url}/cases/SHOP-1"):
            assert await entities.entity(name) == case(some_id(1))
        assert asked(sandbox) == ["SHOP-1"]
        for text in (some_id(7), f"{sandbox.url}/cases/{some_id(7)}", f"case:{some_id(7)}"):
            assert await entities.entity(text) == case(some_id(7))
        assert await entities.entity(case(some_id(7))) == case(some_id(7))
        assert await entities.entity(f"incident:{some_id(7)}") == incident(some_id(7))
        assert asked(sandbox) == ["SHOP-1"]

    async def test_a_url_of_another_site(self, sandbox: Sandbox, keys: ApiKeys) -> None:
        """A URL of another site is refused without a lookup."""
        text = "https://app.datadoghq.eu/cases/SHOP-1"
        async with CaseLinksClient(Site.US5, keys) as far:
            with pytest.raises(InvalidLinkError) as caught:
                await far.resolver().entity(text)
        assert str(caught.value) == (
            f"{text!r} is on EU1 (datadoghq.eu), but this client uses US5 (us5.datadoghq.com): "
            "set DD_SITE to the site of the case"
        )

    async def test_what_names_no_entity(self, sandbox: Sandbox, client: CaseLinksClient) -> None:
        """A text that does not name an entity is refused without a lookup."""
        with pytest.raises(InvalidLinkError, match="'x' does not name an entity"):
            await client.resolver().entity("x")
        assert asked(sandbox) == []


class TestLink:
    async def test_both_ends_are_looked_up(self, sandbox: Sandbox, client: CaseLinksClient) -> None:
        """Both ends of a link are looked up, and the direction stays the same."""
        wanted = LinkReference(CaseKey("SHOP-1"), Relationship.BLOCKS, CaseKey("SHOP-2"))
        assert await client.resolver().link(wanted) == case(some_id(1)).blocks(case(some_id(2)))
        wanted = LinkReference(incident(some_id(1)), Relationship.CAUSES, CaseKey("SHOP-2"))
        assert await client.resolver().link(wanted) == incident(some_id(1)).causes(case(some_id(2)))
        assert asked(sandbox) == ["SHOP-1", "SHOP-2", "SHOP-2"]

    async def test_what_is_ready_is_left_as_it_is(self, sandbox: Sandbox, client: CaseLinksClient) -> None:
        """A link between UUIDs needs no lookup."""
        new = case(some_id(1)).blocks(case(some_id(2)))
        assert await client.resolver().link(new) is new
        assert asked(sandbox) == []

    async def test_a_key_and_the_uuid_of_one_case(self, client: CaseLinksClient) -> None:
        """A link of a case to itself, by key and by UUID, is refused after the lookup."""
        with pytest.raises(InvalidLinkError, match="cannot be linked to itself"):
            await client.resolver().link(parse_link("SHOP-1", "BLOCKS", some_id(1)))


class TestCase:
    async def test_it_has_the_title(self, sandbox: Sandbox, client: CaseLinksClient) -> None:
        """A case that was looked up has all attributes that :meth:`get_case` returns."""
        sandbox.add_case("PAY-1", "Refunds wait", status="CLOSED", priority="P2", id=some_id(50))
        expected = Case(some_id(50), "PAY-1", "Refunds wait", "CLOSED", "P2", "Closed", "SG_CLOSED")
        assert await client.resolver().case(CaseKey("pay-1")) == expected
        assert await client.resolver().case(case(some_id(50))) == expected

    async def test_one_that_was_found_is_known_by_id_and_key(
        self, sandbox: Sandbox, client: CaseLinksClient
    ) -> None:
        """A case that was found by its key or its UUID is known by both after one request."""
        for names in ((CaseKey("SHOP-1"), case(some_id(1))), (case(some_id(2)), CaseKey("SHOP-2"))):
            entities = client.resolver()
            first, second = [await entities.case(name) for name in names]
            assert first is second
        assert asked(sandbox) == ["SHOP-1", some_id(2)]

    async def test_a_case_that_has_another_key_now(self, keys: ApiKeys) -> None:
        """A case in a renamed project is known by both keys after a second response."""
        async with (
            Server(reported(some_id(1), "NEW-1"), reported(some_id(1), "NEW-1"), drops) as server,
            CaseLinksClient(server.url, keys) as links,
        ):
            entities = links.resolver()
            names = (CaseKey("OLD-1"), CaseKey("NEW-1"), CaseKey("OLD-1"), case(some_id(1)))
            assert {(await entities.case(name)).key for name in names} == {"NEW-1"}
        assert [seen.connection for seen in server.seen] == [0, 1]

    async def test_a_case_without_a_key(self, keys: ApiKeys) -> None:
        """A case without a key in the response is not stored under an empty key."""
        async with (
            Server(reported(some_id(1), ""), drops) as server,
            CaseLinksClient(server.url, keys) as links,
        ):
            entities = links.resolver()
            assert (await entities.case(case(some_id(1)))).key == ""
            with pytest.raises(InvalidLinkError, match="'' is neither"):
                await entities.case(CaseKey(""))
        assert len(server.seen) == 1


class TestAskingOnce:
    async def test_two_hundred_at_once(self, keys: ApiKeys, clock: Clock) -> None:
        """Two hundred lookups of three keys take three requests, also under a rate limit."""
        async with (
            leaving_nothing(),
            Sandbox(rate_limit="1/10s", clock=clock.time) as sandbox,
            CaseLinksClient(sandbox.site, sandbox.credentials) as links,
        ):
            for number in (1, 2, 3):
                sandbox.add_case(f"SHOP-{number}", id=some_id(number))
            entities = links.resolver()
            wanted = [number % 3 + 1 for number in range(200)]
            calls = asyncio.gather(*(entities.entity(f"SHOP-{number}") for number in wanted))
            found = await in_no_time(clock, calls)
            assert found == [case(some_id(number)) for number in wanted]
            assert sorted(asked(sandbox)) == ["SHOP-1", "SHOP-2", "SHOP-3"]
            assert [request.status for request in sandbox.requests] == [200] * 3

    async def test_cases_do_not_wait_for_each_other(self, keys: ApiKeys) -> None:
        """A slow lookup does not delay the lookups of other cases."""
        steps = reported(some_id(9), "SHOP-9"), is_silent, reported(some_id(2), "SHOP-2")
        async with Server(*steps) as server, CaseLinksClient(server.url, keys) as links:
            entities = links.resolver()
            await entities.entity("SHOP-9")
            slow = asyncio.create_task(entities.entity("SHOP-1"))
            await server.until_seen(2)
            assert await entities.entity("SHOP-2") == case(some_id(2))
            assert not slow.done()
            slow.cancel()

    async def test_the_first_who_asked_is_cancelled(self, keys: ApiKeys) -> None:
        """If the caller whose request is in flight is cancelled, another one sends it again for all."""
        steps = reported(some_id(9), "SHOP-9"), is_silent, reported(some_id(1), "SHOP-1")
        async with Server(*steps) as server, CaseLinksClient(server.url, keys) as links:
            entities = links.resolver()
            await entities.entity("SHOP-9")
            first, *others = (asyncio.create_task(entities.entity("SHOP-1")) for _ in range(5))
            await server.until_seen(2)
            first.cancel()
            assert await asyncio.gather(*others) == [case(some_id(1))] * 4
            assert first.cancelled()
        assert len(server.seen) == 3

    async def test_one_who_waits_is_cancelled(self, sandbox: Sandbox, client: CaseLinksClient) -> None:
        """A cancelled caller does not affect the others that wait for the same lookup."""
        entities = client.resolver()
        calls = [asyncio.create_task(entities.entity("SHOP-1")) for _ in range(3)]
        await settle(1)
        calls[1].cancel()
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(one) for one in found] == [Entity, asyncio.CancelledError, Entity]
        assert asked(sandbox) == ["SHOP-1"]

    async def test_of_an_unknown_one(self, sandbox: Sandbox, client: CaseLinksClient) -> None:
        """An unknown case is requested once, and each caller of the resolver gets the error."""
        entities = client.resolver()
        found = await asyncio.gather(*(entities.entity("GONE-1") for _ in range(50)), return_exceptions=True)
        assert {type(error) for error in found} == {NotFoundError}
        sandbox.add_case("GONE-1")
        with pytest.raises(NotFoundError, match="cannot get case GONE-1: 404 case not found"):
            await entities.entity("gone-1")
        assert asked(sandbox) == ["GONE-1"]
        assert (await client.resolver().case(CaseKey("GONE-1"))).key == "GONE-1"

    async def test_the_traceback_of_an_unknown_one_does_not_grow(self, client: CaseLinksClient) -> None:
        """The traceback of a remembered error does not grow with each caller."""
        entities = client.resolver()
        depths = []
        for _ in range(3):
            with pytest.raises(NotFoundError) as caught:
                await entities.case(CaseKey("GONE-1"))
            depths.append(len(caught.traceback))
        assert depths[0] == depths[1] == depths[2]

    @pytest.mark.parametrize("step", [answers(403), answers(500), answers(200, b"{}"), answers(429)])
    async def test_other_failures_are_not_remembered(self, step: Step, keys: ApiKeys, clock: Clock) -> None:
        """A failed lookup fails all calls that wait for it, and the next call looks the case up again."""
        async with (
            Server(step, reported(some_id(1), "SHOP-1")) as server,
            CaseLinksClient(server.url, keys, retry=NEVER) as links,
        ):
            entities = links.resolver()
            calls = asyncio.gather(*(entities.entity("SHOP-1") for _ in range(5)), return_exceptions=True)
            failures = await in_no_time(clock, calls)
            assert len(server.seen) == 1
            assert await entities.entity("SHOP-1") == case(some_id(1))
        assert len({type(failure) for failure in failures}) == 1
        assert len(set(map(id, failures))) == 5  # a copy each, since a shared traceback would grow
        assert isinstance(failures[0], CaseLinksError)

    async def test_it_is_retried_as_every_request_is(self, sandbox: Sandbox, at_once: RetryPolicy) -> None:
        """A lookup is retried like any other request, and its callers do not notice a failed attempt."""
        sandbox.fail_next(Fault.HTTP_503, operation="get", count=at_once.max_attempts - 1)
        async with CaseLinksClient(sandbox.site, sandbox.credentials, retry=at_once) as links:
            entities = links.resolver()
            found = await asyncio.gather(*(entities.entity("SHOP-1") for _ in range(5)))
        assert found == [case(some_id(1))] * 5
        assert len(asked(sandbox)) == at_once.max_attempts

    async def test_not_for_ever(self, sandbox: Sandbox, at_once: RetryPolicy) -> None:
        """A lookup raises the error of its last attempt."""
        sandbox.fail_next(Fault.HTTP_503, operation="get", count=at_once.max_attempts)
        async with CaseLinksClient(sandbox.site, sandbox.credentials, retry=at_once) as links:
            with pytest.raises(ServerError, match="cannot get case SHOP-1: 503"):
                await links.resolver().entity("SHOP-1")


async def test_the_details_of_several_entities(sandbox: Sandbox, client: CaseLinksClient) -> None:
    """``all_details`` requests each entity once, and leaves out those that cannot have details."""
    known, missing = case(UUID(some_id(1))), case(UUID(some_id(99)))
    details = await client.resolver().all_details([known, page(some_id(2)), missing, known])
    assert {entity: found.key for entity, found in details.items()} == {known: "SHOP-1"}
    assert sorted(asked(sandbox)) == [known.id, missing.id]


class TestMemory:
    async def test_it_is_bounded(
        self, sandbox: Sandbox, client: CaseLinksClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The cache is bounded, and the case that was found first is dropped first."""
        monkeypatch.setattr(resolver, "_MAX_RESULTS", 4)
        entities = client.resolver()
        for name in ("SHOP-1", "SHOP-2", "SHOP-3", "SHOP-2", "SHOP-3"):
            await entities.entity(name)
        assert asked(sandbox) == ["SHOP-1", "SHOP-2", "SHOP-3"]
        await entities.case(case(some_id(3)))
        await entities.case(case(some_id(1)))
        await entities.entity("SHOP-2")
        assert asked(sandbox)[3:] == [some_id(1), "SHOP-2"]

    async def test_unknown_ones_count_too(
        self, sandbox: Sandbox, client: CaseLinksClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Unknown keys count towards the bound of the cache."""
        monkeypatch.setattr(resolver, "_MAX_RESULTS", 3)
        entities = client.resolver()
        for number in (1, 2, 3, 4, 4, 2, 1):
            with pytest.raises(NotFoundError):
                await entities.entity(f"GONE-{number}")
        assert asked(sandbox) == ["GONE-1", "GONE-2", "GONE-3", "GONE-4", "GONE-1"]

    async def test_of_an_unknown_one_only_the_message_is_kept(self, client: CaseLinksClient) -> None:
        """The cache keeps the message of a key that does not exist, and not the response, which is long."""
        entities = client.resolver()
        with pytest.raises(NotFoundError) as caught:
            await entities.entity("GONE-1")
        first, message = weakref.ref(caught.value), str(caught.value)
        assert caught.value.headers
        del caught
        gc.collect()
        assert first() is None
        with pytest.raises(NotFoundError) as again:
            await entities.entity("GONE-1")
        assert (str(again.value), again.value.status) == (message, 404)
        assert not again.value.headers

    async def test_resolvers_share_nothing(self, sandbox: Sandbox, client: CaseLinksClient) -> None:
        """Resolvers share nothing: each belongs to one run."""
        for _ in range(2):
            await client.resolver().entity("SHOP-1")
        assert asked(sandbox) == ["SHOP-1"] * 2


async def test_an_unknown_one_keeps_nobody_who_asked() -> None:
    """A remembered error keeps no frame of its callers alive."""

    async def get(name: str) -> Case:
        raise NotFoundError("none", status=404)

    class Asker:
        pass

    cases = Resolver(get, no_incident, Site.US1)
    kept = []

    async def ask(asker: Asker) -> None:
        kept.append(weakref.ref(asker))
        with pytest.raises(NotFoundError):
            await cases.case(CaseKey("GONE-1"))

    await ask(Asker())
    gc.collect()
    assert kept[0]() is None


async def test_a_server_that_writes_ids_in_upper_case() -> None:
    """A case is cached by its UUID in lower case."""
    asked = []

    async def get(name: str) -> Case:
        asked.append(name)
        return Case(some_id(0xA).upper(), "SHOP-1", "", "", "")

    cases = Resolver(get, no_incident, Site.US1)
    await cases.case(CaseKey("SHOP-1"))
    await cases.case(case(some_id(0xA)))
    assert asked == ["SHOP-1"]


async def test_an_id_that_is_not_a_uuid_is_the_fault_of_the_server() -> None:
    """The id of a response that is not a UUID is an error, which does not show the id."""

    async def get_case(key: str) -> Case:
        return Case("the-api-key", key, "", "", "")

    with pytest.raises(MalformedResponseError, match=r"^cannot get case SHOP-1: its id is not a UUID$"):
        await Resolver(get_case, no_incident, Site.EU1).entity("SHOP-1")
