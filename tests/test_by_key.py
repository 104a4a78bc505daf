"""The rules of cases that are named by keys: each call looks up only the keys that it needs."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import weakref
from collections.abc import Awaitable, Callable

import pytest

from datadog_caselinks import (
    ApiKeys,
    CallStarted,
    CaseKey,
    CaseLink,
    CaseLinksClient,
    CaseLinksError,
    Created,
    Failed,
    InvalidLinkError,
    MalformedResponseError,
    NotFoundError,
    PermissionDeniedError,
    Relationship,
    RetryPolicy,
    WantedLink,
    case,
    incident,
    parse_link,
)
from datadog_caselinks.calls import resolver
from datadog_caselinks.sandbox import Sandbox
from tests.support.clock import Clock, in_no_time
from tests.support.ids import some_id
from tests.support.leftovers import leaving_nothing
from tests.support.server import Server, Step
from tests.support.steps import answers, is_silent, link_json

NEVER = RetryPolicy(max_attempts=1, max_rate_limited=0)
UUID_6, UUID_5 = some_id(6), some_id(5)
LINK = case("SHOP-6").causes(case("SHOP-5"))


@pytest.fixture
def sandbox(sandbox: Sandbox) -> Sandbox:
    """Add cases to the shared sandbox."""
    for number in range(1, 10):
        sandbox.add_case(f"SHOP-{number}", id=some_id(number))
    return sandbox


def requests(sandbox: Sandbox) -> list[str]:
    """Return the method of each request, and the case that a ``GET`` names."""
    sent = ((each.method, each.path.rpartition("/")[2]) for each in sandbox.requests)
    return [f"{method} {name}".removesuffix(" link") for method, name in sent]


def found(number: int) -> Step:
    """Return a step that responds with a case."""
    data = {"id": some_id(number), "attributes": {"key": f"SHOP-{number}"}}
    return answers(200, json.dumps({"data": data}).encode())


def json_of(parent: int, child: int) -> dict[str, object]:
    """Return the JSON of a link: the case with the first number causes the other one."""
    return link_json(
        {
            "parent_entity_type": "CASE",
            "parent_entity_id": some_id(parent),
            "relationship": "CAUSES",
            "child_entity_type": "CASE",
            "child_entity_id": some_id(child),
        }
    )


NO_LINKS = answers(200, b'{"data": []}')


class TestEachCall:
    async def test_create_link(self, sandbox: Sandbox, client: CaseLinksClient) -> None:
        """``create_link`` looks up both keys, and then creates the link between the cases."""
        link = await client.create_link(LINK)
        assert (link.parent, link.relationship, link.child) == (
            case(UUID_6),
            Relationship.CAUSES,
            case(UUID_5),
        )
        assert requests(sandbox) == ["GET SHOP-6", "GET SHOP-5", "POST"]

    @pytest.mark.parametrize(
        "wanted",
        [
            case("SHOP-6").causes(case(UUID_5)),
            case(UUID_6).causes(case("SHOP-5")),
            case("shop-6").causes(CaseKey("Shop-5")),
            parse_link("SHOP-5", "caused by", "SHOP-6"),
            case(UUID_6).causes(case(UUID_5)),
        ],
        ids=str,
    )
    async def test_each_way_to_write_a_link(
        self, wanted: WantedLink, sandbox: Sandbox, client: CaseLinksClient
    ) -> None:
        """Keys and UUIDs can be combined, and a link of ``parse_link`` is accepted unchanged."""
        link = await client.create_link(wanted)
        assert (link.parent, link.child) == (case(UUID_6), case(UUID_5))

    async def test_a_link_between_entities_needs_no_lookup(
        self, sandbox: Sandbox, client: CaseLinksClient
    ) -> None:
        """A link between entities needs no lookup: only the create is sent."""
        await client.create_link(case(UUID_6).causes(case(UUID_5)))
        assert requests(sandbox) == ["POST"]

    async def test_another_entity_than_a_case(self, sandbox: Sandbox, client: CaseLinksClient) -> None:
        """An incident at the other end needs no lookup."""
        link = await client.create_link(incident(some_id(99)).causes(case("SHOP-5")))
        assert (link.parent, link.child) == (incident(some_id(99)), case(UUID_5))
        assert requests(sandbox) == ["GET SHOP-5", "POST"]

    async def test_ensure_link(self, sandbox: Sandbox, client: CaseLinksClient) -> None:
        """Equal calls by key and by UUID create one link."""
        wanted = [LINK, case(UUID_6).causes(case(UUID_5)), case("SHOP-6").causes(case(UUID_5))]
        results = await asyncio.gather(*map(client.ensure_link, wanted))
        assert sorted(result.created for result in results) == [False, False, True]
        assert len(sandbox.links) == 1

    async def test_list_links(self, sandbox: Sandbox, client: CaseLinksClient) -> None:
        """``list_links`` takes a key, or a text that names an entity."""
        link = await client.create_link(LINK)
        for entity in (case("SHOP-5"), CaseKey("SHOP-6"), case(UUID_5)):
            assert await client.list_links(entity) == [link]
        for text in ("shop-6", f"{sandbox.url}/cases/SHOP-5", UUID_5):
            assert await client.list_links(text) == [link]
        assert await client.list_links(case("SHOP-6"), relationship=Relationship.BLOCKS) == []

    async def test_read_graph(self, client: CaseLinksClient) -> None:
        """The graph around a key has the case as its root, with its title."""
        link = await client.create_link(LINK)
        graph = await client.read_graph(case("SHOP-6"))
        assert (graph.root, graph.links) == (case(UUID_6), (link,))
        assert graph.cases[graph.root].key == "SHOP-6"

    async def test_create_links(self, sandbox: Sandbox, client: CaseLinksClient) -> None:
        """A run looks each key up once. A link whose key does not exist fails on its own."""
        wanted = [case("SHOP-6").blocks(case(f"SHOP-{number}")) for number in (1, 2, 99, 3, 99)]
        outcomes = {each.index: each async for each in client.create_links(wanted)}
        assert [type(outcomes[index]) for index in range(5)] == [Created, Created, Failed, Created, Failed]
        gets = [each for each in requests(sandbox) if each != "POST"]
        assert sorted(gets) == [f"GET SHOP-{number}" for number in (1, 2, 3, 6, 99)]
        assert len(sandbox.links) == requests(sandbox).count("POST") == 3

    async def test_a_lookup_is_a_call_of_its_own(self, sandbox: Sandbox) -> None:
        """Observers see each lookup as a ``get``, and the create with the entities of the link."""
        seen: list[tuple[str, object]] = []

        def watch(event: object) -> None:
            if isinstance(event, CallStarted):
                seen.append((event.call.operation, event.call.subject))

        async with CaseLinksClient(sandbox.site, sandbox.credentials, on_event=watch) as client:
            await client.create_link(LINK)
        assert seen == [
            ("get", "SHOP-6"),
            ("get", "SHOP-5"),
            ("create", case(UUID_6).causes(case(UUID_5))),
        ]


class TestFind:
    @pytest.mark.parametrize(
        "wanted", [LINK, case(UUID_6).causes(case(UUID_5)), case("SHOP-6").causes(case(UUID_5))]
    )
    async def test_by_the_ends(self, wanted: WantedLink, client: CaseLinksClient) -> None:
        """``find_links`` returns every link with these ends and this relationship, and no other."""
        assert await client.find_links(wanted) == []
        links = [await client.create_link(LINK) for _ in range(2)]
        await client.create_link(case("SHOP-6").blocks(case("SHOP-5")))
        await client.create_link(case("SHOP-5").causes(case("SHOP-6")))
        assert await client.find_links(wanted) == links

    async def test_equal_to_a_link_that_exists(self, client: CaseLinksClient) -> None:
        """``find_links`` returns a link that exists and its duplicates, and nothing once they are deleted."""
        links = [await client.create_link(LINK) for _ in range(2)]
        assert await client.find_links(links[0]) == links
        await client.delete_link(LINK)
        assert await client.find_links(links[0]) == []

    @pytest.mark.parametrize("wanted", ["SHOP-6", case("SHOP-6"), [LINK]])
    async def test_what_is_not_a_link(self, wanted: object, client: CaseLinksClient) -> None:
        """The message for anything but a link says how to write one, and does not speak of a create."""
        with pytest.raises(InvalidLinkError, match=r"^the link must be a NewCaseLink such as case\(a\)\.b"):
            await client.find_links(wanted)  # type: ignore[arg-type]

    async def test_a_link_without_a_direction(self, client: CaseLinksClient) -> None:
        """``find_links`` finds ``RELATES_TO`` from either end."""
        link = await client.create_link(case("SHOP-6").relates_to(case("SHOP-5")))
        assert await client.find_links(case("SHOP-5").relates_to(case("SHOP-6"))) == [link]


class TestDelete:
    @pytest.mark.parametrize(
        "by", [LINK, case(UUID_6).causes(case(UUID_5)), case("SHOP-6").causes(case(UUID_5))]
    )
    async def test_by_the_ends(self, by: WantedLink, sandbox: Sandbox, client: CaseLinksClient) -> None:
        """Every link with these ends and this relationship is deleted, and no other."""
        await client.create_link(LINK)
        await client.create_link(LINK)
        kept = [
            await client.create_link(case("SHOP-6").blocks(case("SHOP-5"))),
            await client.create_link(case("SHOP-5").causes(case("SHOP-6"))),
        ]
        await client.delete_link(by)
        assert [link.id for link in sandbox.links] == [link.id for link in kept]

    async def test_a_link_without_a_direction(self, sandbox: Sandbox, client: CaseLinksClient) -> None:
        """``RELATES_TO`` is deleted from either end."""
        await client.create_link(case("SHOP-6").relates_to(case("SHOP-5")))
        await client.delete_link(case("SHOP-5").relates_to(case("SHOP-6")))
        assert sandbox.links == []

    @pytest.mark.parametrize("by", [LINK, case(UUID_6).causes(case(UUID_5))])
    async def test_a_link_that_does_not_exist(
        self, by: WantedLink, sandbox: Sandbox, client: CaseLinksClient
    ) -> None:
        """``delete_link`` without a matching link raises ``NotFoundError``, and sends no delete."""
        with pytest.raises(NotFoundError) as caught:
            await client.delete_link(by)
        assert str(caught.value) == f"cannot delete {by}: it does not exist"
        assert caught.value.status == 404
        assert "DELETE" not in {each.method for each in sandbox.requests}

    @pytest.mark.parametrize(("status", "error"), [(404, None), (403, PermissionDeniedError)])
    async def test_a_link_that_is_deleted_in_the_meantime(
        self, status: int, error: type[Exception] | None, keys: ApiKeys
    ) -> None:
        """A listed link that another process deletes first counts as deleted. Any other error is raised."""
        links = [{**json_of(6, 5), "id": link_id} for link_id in ("one", "two")]
        steps = answers(200, json.dumps({"data": links}).encode()), answers(status), answers(204)
        async with Server(*steps) as server, CaseLinksClient(server.url, keys, retry=NEVER) as client:
            with pytest.raises(error) if error else contextlib.nullcontext():
                await client.delete_link(case(UUID_6).causes(case(UUID_5)))
        assert len(server.seen) == (2 if error else 3)


CALLS: dict[str, Callable[[CaseLinksClient], Awaitable[object]]] = {
    "create_link": lambda client: client.create_link(case("SHOP-6").causes(case("SHOP-99"))),
    "ensure_link": lambda client: client.ensure_link(case("SHOP-6").causes(case("SHOP-99"))),
    "list_links": lambda client: client.list_links(case("SHOP-99")),
    "find_links": lambda client: client.find_links(case("SHOP-6").causes(case("SHOP-99"))),
    "delete_link": lambda client: client.delete_link(case("SHOP-99").causes(case("SHOP-6"))),
    "read_graph": lambda client: client.read_graph(case("SHOP-99")),
}


class TestAKeyThatDoesNotExist:
    @pytest.mark.parametrize("name", CALLS)
    async def test_it_fails_the_call_before_the_rest_is_sent(
        self, name: str, sandbox: Sandbox, client: CaseLinksClient
    ) -> None:
        """An unknown key fails the call with an error that names it, before anything but lookups is sent."""
        with pytest.raises(NotFoundError, match="cannot get case SHOP-99: 404 case not found"):
            await CALLS[name](client)
        assert set(requests(sandbox)) <= {"GET SHOP-6", "GET SHOP-99"}

    @pytest.mark.parametrize("name", CALLS)
    async def test_it_is_not_remembered(self, name: str, sandbox: Sandbox, client: CaseLinksClient) -> None:
        """An unknown key is not remembered: once the case exists, the same call finds it."""
        with pytest.raises(NotFoundError):
            await CALLS[name](client)
        sandbox.add_case("SHOP-99", id=some_id(99))
        await client.create_link(case(some_id(99)).causes(case(UUID_6)))
        await CALLS[name](client)

    async def test_it_fails_only_its_own_link(self, sandbox: Sandbox, client: CaseLinksClient) -> None:
        """An unknown key in a ``gather`` is looked up once, and all other links are created."""
        wanted = [case("SHOP-6").blocks(case(f"SHOP-{number}")) for number in (1, 99, 2, 99, 3, 99)]
        results = await asyncio.gather(*map(client.create_link, wanted), return_exceptions=True)
        assert [type(result) for result in results] == [CaseLink, NotFoundError] * 3
        assert requests(sandbox).count("GET SHOP-99") == 1
        assert requests(sandbox).count("POST") == len(sandbox.links) == 3


class TestCache:
    async def test_each_key_once_for_many_calls(self, clock: Clock) -> None:
        """Two hundred simultaneous calls look up each of three keys once, and keep to the rate limit."""
        async with (
            leaving_nothing(),
            Sandbox(rate_limit="20/10s", clock=clock.time) as sandbox,
            CaseLinksClient(sandbox.site, sandbox.credentials) as client,
        ):
            for number in (1, 2, 3):
                sandbox.add_case(f"SHOP-{number}", id=some_id(number))
            keys = [case(f"SHOP-{number}") for number in (1, 2, 3)]
            wanted = [keys[number % 3].blocks(keys[(number + 1) % 3]) for number in range(200)]
            await in_no_time(clock, asyncio.gather(*map(client.create_link, wanted)))
            gets = [each for each in requests(sandbox) if each != "POST"]
            assert sorted(gets) == ["GET SHOP-1", "GET SHOP-2", "GET SHOP-3"]
            assert len(sandbox.links) == 200
            assert 429 not in {each.status for each in sandbox.requests}

    async def test_calls_one_after_the_other(self, sandbox: Sandbox, client: CaseLinksClient) -> None:
        """Every operation uses the lookups of earlier calls."""
        await client.create_link(LINK)
        await client.ensure_link(LINK)
        await client.list_links(case("shop-5"))
        await client.delete_link(LINK)
        gets = [each for each in requests(sandbox) if each.startswith("GET SHOP")]
        assert gets == ["GET SHOP-6", "GET SHOP-5"]

    async def test_a_case_is_looked_up_again_after_five_minutes(
        self, sandbox: Sandbox, client: CaseLinksClient, clock: Clock
    ) -> None:
        """A case is looked up again after five minutes, since its key may name another case by then."""
        for seconds, lookups in ((0, 1), (299, 1), (2, 2), (299, 2)):
            clock.advance(seconds)
            await client.list_links(case("SHOP-6"))
            assert requests(sandbox).count("GET SHOP-6") == lookups

    async def test_the_cache_is_bounded(
        self, sandbox: Sandbox, client: CaseLinksClient, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The cache is bounded, and drops the case whose lookup is the oldest, by key and by UUID."""
        monkeypatch.setattr(resolver, "_MAX_RESULTS", 4)
        for key in ("SHOP-1", "SHOP-2"):
            await client.list_links(case(key))
        clock.advance(301)
        for key in ("SHOP-1", "SHOP-3", "SHOP-1", "SHOP-2"):
            await client.list_links(case(key))
        gets = [each.removeprefix("GET SHOP-") for each in requests(sandbox) if each.startswith("GET SHOP")]
        assert gets == ["1", "2", "1", "3", "2"]

    async def test_an_unknown_key_displaces_no_case(
        self, sandbox: Sandbox, client: CaseLinksClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A key that does not exist is not cached at all, since it is looked up again in any case."""
        monkeypatch.setattr(resolver, "_MAX_RESULTS", 2)
        for key in ("SHOP-1", "GONE-1", "GONE-2", "GONE-1"):
            with contextlib.suppress(NotFoundError):
                await client.list_links(case(key))
        await client.list_links(case("SHOP-1"))
        gets = [each for each in requests(sandbox) if "link?" not in each]
        assert gets == ["GET SHOP-1", "GET GONE-1", "GET GONE-2", "GET GONE-1"]

    async def test_the_first_of_several_calls_is_cancelled(self, keys: ApiKeys) -> None:
        """If the first call for a key is cancelled, the next one looks it up for all others."""
        steps = found(9), NO_LINKS, is_silent, found(6), *[NO_LINKS] * 4
        async with Server(*steps) as server, CaseLinksClient(server.url, keys) as client:
            await client.list_links(case("SHOP-9"))
            first, *others = (asyncio.create_task(client.list_links(case("SHOP-6"))) for _ in range(5))
            await server.until_seen(3)
            first.cancel()
            assert await asyncio.gather(*others) == [[]] * 4
            assert first.cancelled()
            targets = [seen.target.rpartition("/")[2] for seen in server.seen]
            assert targets.count("SHOP-6") == 2

    @pytest.mark.parametrize("step", [answers(403), answers(500), answers(200, b"{}"), answers(429)])
    async def test_a_lookup_that_failed_is_not_remembered(self, step: Step, keys: ApiKeys) -> None:
        """A failed lookup is not remembered, so the next call looks the case up again."""
        async with (
            Server(step, found(6), NO_LINKS) as server,
            CaseLinksClient(server.url, keys, retry=NEVER) as client,
        ):
            with pytest.raises(CaseLinksError, match="cannot get case SHOP-6"):
                await client.list_links(case("SHOP-6"))
            assert await client.list_links(case("SHOP-6")) == []

    async def test_a_case_without_a_uuid_is_not_remembered(self, keys: ApiKeys) -> None:
        """A response whose id is not a UUID fails only its own call."""
        odd = answers(200, b'{"data": {"id": "1", "attributes": {"key": "SHOP-6"}}}')
        async with (
            Server(odd, found(6), NO_LINKS) as server,
            CaseLinksClient(server.url, keys, retry=NEVER) as client,
        ):
            with pytest.raises(MalformedResponseError, match="its id is not a UUID"):
                await client.list_links(case("SHOP-6"))
            assert await client.list_links(case("SHOP-6")) == []

    async def test_clients_share_nothing(self, sandbox: Sandbox) -> None:
        """Clients do not share their lookups."""
        for _ in range(2):
            async with CaseLinksClient(sandbox.site, sandbox.credentials) as client:
                await client.list_links(case("SHOP-6"))
        assert requests(sandbox).count("GET SHOP-6") == 2


async def test_a_client_is_freed_at_once(sandbox: Sandbox) -> None:
    """Lookups leave no reference cycle, so that a client is freed without a garbage collection."""
    gc.disable()
    try:
        async with CaseLinksClient(sandbox.site, sandbox.credentials) as client:
            await client.create_link(LINK)
        freed = weakref.ref(client)
        del client
        assert freed() is None
    finally:
        gc.enable()


async def test_a_key_and_the_uuid_of_the_same_case(sandbox: Sandbox, client: CaseLinksClient) -> None:
    """A link of a case to itself is detected by the lookup, and not sent."""
    with pytest.raises(InvalidLinkError, match="cannot be linked to itself"):
        await client.create_link(case("SHOP-6").blocks(case(UUID_6)))
    assert requests(sandbox) == ["GET SHOP-6"]


@pytest.mark.parametrize("wanted", ["SHOP-6", None, ("SHOP-6", "causes", "SHOP-5"), case("SHOP-6")])
async def test_what_is_not_a_link(wanted: object, sandbox: Sandbox, client: CaseLinksClient) -> None:
    """The message for an object that is not a link says what a link is, and nothing is sent."""
    for call in (client.create_link, client.ensure_link):
        with pytest.raises(InvalidLinkError, match=r"the link must be .* such as case\(a\)\.blocks"):
            await call(wanted)  # type: ignore[arg-type]
    assert requests(sandbox) == []
