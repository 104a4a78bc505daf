"""The rules of creating one link exactly once: each failure by itself, and the requests that follow it.

Each test compares the requests that the server received and the links that the server stores.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import socket
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from attrs import evolve

from datadog_caselinks import (
    AmbiguousResultError,
    ApiKeys,
    AuthenticationError,
    BadRequestError,
    CaseLink,
    CaseLinksClient,
    CaseLinksError,
    ConflictError,
    ConnectError,
    Created,
    IncompleteListError,
    InvalidLinkError,
    MalformedResponseError,
    NewCaseLink,
    NotFoundError,
    PermissionDeniedError,
    ProxyAuthenticationError,
    RateLimitError,
    ResponseError,
    RetryPolicy,
    ServerError,
    TLSError,
    TransportError,
    incident,
)
from datadog_caselinks.calls.creation import Creator
from datadog_caselinks.sandbox import Fault, Sandbox
from datadog_caselinks.sandbox.variant import Duplicates
from datadog_caselinks.values.errors import ResponseTooLargeError
from datadog_caselinks.values.models import identity
from tests.support.api import Api
from tests.support.authority import Authority, counting_handshakes
from tests.support.clock import Clock, hurrying, in_no_time
from tests.support.ids import case, some_id
from tests.support.leftovers import leaving_nothing
from tests.support.needs import needs_middlewares, needs_socket_factory
from tests.support.proxy import Proxy
from tests.support.server import Exchange, Server, Step, head
from tests.support.steps import MALFORMED, UNCLEAR, Held, answers, drops, is_silent, listed, repeats
from tests.support.tcp import HOST, unused_port
from tests.support.variants import LAG, VARIANTS
from tests.support.waiting import settle, until

NEW = case(some_id(1)).blocks(case(some_id(2)))
RELATED = case(some_id(1)).relates_to(case(some_id(2)))
RELATED_BACK = case(some_id(2)).relates_to(case(some_id(1)))

TOO_LARGE = repeats(head(201), bytes(2**20))


def attributes(new: NewCaseLink) -> dict[str, str]:
    return {
        "parent_entity_type": new.parent.type,
        "parent_entity_id": new.parent.id,
        "relationship": new.relationship,
        "child_entity_type": new.child.type,
        "child_entity_id": new.child.id,
    }


def holding(*held: NewCaseLink) -> Api:
    """Return an API that stores these links."""
    api = Api()
    for new in held:
        api.make(attributes(new))
    return api


@pytest.fixture
async def api() -> Api:
    return Api()


class TestNeverSent:
    async def test_no_connection(
        self, api: Api, keys: ApiKeys, at_once: RetryPolicy, authority: Authority
    ) -> None:
        """A create whose host was not resolved or refused the connection is sent once a connection opens."""

        class Resolver(AbstractResolver):
            asked = 0

            async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
                self.asked += 1
                if self.asked == 1:
                    raise OSError("no such name")
                to = unused_port() if self.asked == 2 else server.port
                return [ResolveResult(hostname=host, host=HOST, port=to, family=family, proto=0, flags=0)]

            async def close(self) -> None:
                pass

        resolver = Resolver()
        tls = authority.server("caselinks.test")
        async with (
            Server(api, tls=tls, host="caselinks.test") as server,
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False)
            ) as session,
            CaseLinksClient(
                server.url, keys, sessions=session, retry=at_once, ssl=authority.client()
            ) as links,
        ):
            await links.create_link(NEW)
        assert resolver.asked == 3
        assert (server.methods, len(api.links)) == (["POST"], 1)

    async def test_no_connection_for_good(self, keys: ApiKeys, at_once: RetryPolicy) -> None:
        """A create that never gets a connection is not looked up, and raises the last error."""
        async with CaseLinksClient(f"http://{HOST}:{unused_port()}", keys, retry=at_once) as links:
            with pytest.raises(ConnectError, match="nothing was sent"):
                await links.create_link(NEW)

    async def test_a_certificate_that_is_not_trusted(
        self, api: Api, keys: ApiKeys, at_once: RetryPolicy, authority: Authority
    ) -> None:
        """A create stops after one handshake with a server whose certificate is not trusted."""
        tls = authority.server("localhost")
        with counting_handshakes(tls) as handshakes:
            async with (
                Server(api, tls=tls, host="localhost") as server,
                CaseLinksClient(server.url, keys, retry=at_once) as links,
            ):
                with pytest.raises(TLSError):
                    await links.create_link(NEW)
        assert (len(handshakes), server.methods) == (1, [])

    async def test_a_proxy_that_wants_a_login(
        self, api: Api, keys: ApiKeys, at_once: RetryPolicy, authority: Authority
    ) -> None:
        """A create stops after one request to a proxy that requires a login."""
        async with (
            Server(api, tls=authority.server("localhost"), host="localhost") as server,
            Proxy("user:password").running() as proxy,
            CaseLinksClient(
                server.url,
                keys,
                retry=at_once,
                proxy=f"http://{HOST}:{proxy.port}",
                ssl=authority.client(),
            ) as links,
        ):
            with pytest.raises(ProxyAuthenticationError):
                await links.create_link(NEW)
        assert (len(proxy.requests), server.methods) == (1, [])

    @needs_middlewares
    async def test_time_that_ran_out_before_anything_was_sent(
        self, api: Api, keys: ApiKeys, at_once: RetryPolicy, clock: Clock
    ) -> None:
        """A create that timed out before anything was sent is sent again without a lookup."""
        attempts: list[None] = []

        async def dawdle_once(
            request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            attempts.append(None)
            if len(attempts) == 1:
                clock.advance(31)
                await asyncio.Event().wait()
            return await handler(request)

        async with (
            Server(api) as server,
            aiohttp.ClientSession(middlewares=(dawdle_once,)) as session,
            CaseLinksClient(server.url, keys, sessions=session, retry=at_once) as links,
        ):
            await links.create_link(NEW)
        assert len(attempts) == 2
        assert (server.methods, len(api.links)) == (["POST"], 1)

    @needs_socket_factory
    async def test_a_connection_that_ends_as_it_is_taken(
        self, keys: ApiKeys, clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A create is sent on a new connection, without a lookup, if the old one closed before the write.

        At one of these moments the client itself finds the connection closing. The server is not at fault
        then, so the client does not wait either.
        """
        caplog.set_level(logging.INFO, "datadog_caselinks.retry")
        seen: list[list[str]] = []
        for turns in range(1, 5):
            api, opened = Api(), list[socket.socket]()

            def open_socket(address: aiohttp.AddrInfoType, opened: list[socket.socket] = opened) -> Any:
                opened.append(socket.socket(*address[:3]))
                return opened[-1]

            async def end_it(*_: object, opened: list[socket.socket] = opened, turns: int = turns) -> None:
                opened[0].shutdown(socket.SHUT_RDWR)
                await settle(turns)

            trace = aiohttp.TraceConfig()
            trace.on_connection_reuseconn.append(end_it)
            connector = aiohttp.TCPConnector(socket_factory=open_socket)
            async with (
                Server(api) as server,
                aiohttp.ClientSession(trace_configs=[trace], connector=connector) as session,
                CaseLinksClient(server.url, keys, sessions=session, retry=RetryPolicy(base=8)) as links,
            ):
                await links.create_link(RELATED)
                await in_no_time(clock, links.create_link(NEW))
            seen.append(server.methods)
            assert len(api.links) == 2
        # Since Python 3.12 the write begins at once, so something may have been sent at one moment.
        assert set(map(tuple, seen)) <= {("POST", "POST"), ("POST", "GET", "POST")}
        assert ["POST", "POST"] in seen
        stale = [text for text in caplog.messages if "the server had closed the connection" in text]
        assert stale
        assert all(text.endswith("nothing was sent; next in 0.00 s") for text in stale)


class TestRefused:
    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            *((status, ResponseError) for status in (301, 302, 303, 307, 308, 418)),
            (400, BadRequestError),
            (401, AuthenticationError),
            (403, PermissionDeniedError),
            (404, NotFoundError),
            (422, BadRequestError),
        ],
    )
    async def test_what_is_refused_is_neither_repeated_nor_looked_for(
        self, status: int, kind: type[ResponseError], keys: ApiKeys, at_once: RetryPolicy
    ) -> None:
        """A refused create is sent once and not looked up, even if an equal link exists."""
        async with (
            Server(answers(status, Location="/"), holding(NEW)) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            with pytest.raises(ResponseError) as caught:
                await links.create_link(NEW)
        assert (type(caught.value), caught.value.status) == (kind, status)
        assert server.methods == ["POST"]

    @pytest.mark.parametrize("count", [1, 5])
    async def test_over_the_rate_limit(
        self, count: int, api: Api, keys: ApiKeys, at_once: RetryPolicy, clock: Clock
    ) -> None:
        """A 429 means that no link was created: the create is sent again without a lookup, at any count."""
        async with (
            Server(*[answers(429, Retry_After="7")] * count, api) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            await in_no_time(clock, links.create_link(NEW))
        assert (server.methods, len(api.links)) == (["POST"] * (count + 1), 1)

    async def test_over_the_rate_limit_for_good(self, keys: ApiKeys, clock: Clock) -> None:
        """After ``max_rate_limited`` responses with 429 the create raises the error, without a lookup."""
        policy = RetryPolicy(max_rate_limited=2, settle=0)
        async with (
            Server(answers(429, Retry_After="7")) as server,
            CaseLinksClient(server.url, keys, retry=policy) as links,
        ):
            with pytest.raises(RateLimitError):
                await in_no_time(clock, links.create_link(NEW))
        assert server.methods == ["POST"] * 3

    async def test_what_is_no_new_link(self, api: Api, keys: ApiKeys) -> None:
        """A create of an object that is not a new link raises ``InvalidLinkError`` and sends nothing."""
        link = CaseLink("x", NEW.parent, "BLOCKS", NEW.child)
        async with Server(api) as server, CaseLinksClient(server.url, keys) as links:
            for call in (links.create_link, links.ensure_link):
                with pytest.raises(InvalidLinkError):
                    await call(link)  # type: ignore[arg-type]
        assert server.connections == 0


class TestUnclear:
    @pytest.mark.parametrize("name", [*UNCLEAR, *MALFORMED])
    async def test_it_is_found_where_it_was_created(
        self, name: str, api: Api, keys: ApiKeys, at_once: RetryPolicy
    ) -> None:
        """The link that a lookup finds is the result of the create, and no other create is sent."""
        step = api.applies((UNCLEAR | MALFORMED)[name])
        async with (
            Server(step, api) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            assert await links.create_link(NEW) == CaseLink("link-0", NEW.parent, "BLOCKS", NEW.child)
        assert (server.methods, len(api.links)) == (["POST", "GET"], 1)

    @pytest.mark.parametrize("name", [*UNCLEAR, *MALFORMED])
    async def test_it_is_sent_again_where_it_was_not_created(
        self, name: str, api: Api, keys: ApiKeys, at_once: RetryPolicy
    ) -> None:
        """A create whose link was not created is sent again only after the lookup."""
        async with (
            Server((UNCLEAR | MALFORMED)[name], api) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            assert (await links.create_link(NEW)).id == "link-0"
        assert (server.methods, len(api.links)) == (["POST", "GET", "POST"], 1)

    @pytest.mark.parametrize("is_made", [True, False])
    async def test_no_response_in_time(
        self, is_made: bool, api: Api, keys: ApiKeys, at_once: RetryPolicy, clock: Clock
    ) -> None:
        """A create that timed out is looked up, and sent again only if the link does not exist."""
        step = api.applies(is_silent) if is_made else is_silent
        async with (
            Server(step, api) as server,
            CaseLinksClient(server.url, keys, retry=at_once, timeout=7) as links,
        ):
            task = asyncio.create_task(links.create_link(NEW))
            await server.until_seen(1)
            clock.advance(6)
            await settle()
            assert not task.done()
            clock.advance(2)  # aiohttp rounds times above 5 s up to a whole second
            await task
        assert (server.methods, len(api.links)) == (["POST", "GET"] + ["POST"] * (not is_made), 1)

    async def test_too_large_a_response(self, api: Api, keys: ApiKeys, at_once: RetryPolicy) -> None:
        """A create whose response is too large is looked up, and fails if the lookup finds no link."""
        async with (
            Server(api.applies(TOO_LARGE), api, TOO_LARGE, api) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            assert (await links.create_link(NEW)).id == "link-0"
            with pytest.raises(ResponseTooLargeError):
                await links.create_link(RELATED)
        assert (server.methods, len(api.links)) == (["POST", "GET"] * 2, 1)

    @pytest.mark.parametrize("is_made", [True, False])
    @pytest.mark.parametrize("status", [500, 502, 503, 504])
    async def test_the_wait_that_the_server_asks_for(
        self, status: int, is_made: bool, api: Api, keys: ApiKeys, at_once: RetryPolicy, clock: Clock
    ) -> None:
        """The lookup after a server error waits exactly as long as ``Retry-After`` requests."""
        step = answers(status, Retry_After="30")
        async with (
            Server(api.applies(step) if is_made else step, api) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            task = asyncio.create_task(links.create_link(NEW))
            await server.until_seen(1)
            await settle()
            clock.advance(29)
            await settle()
            assert server.methods == ["POST"]
            clock.advance(1)
            await task
        assert (server.methods, len(api.links)) == (["POST", "GET"] + ["POST"] * (not is_made), 1)

    @pytest.mark.parametrize(
        ("name", "waits"),
        [
            *(("500", 1), ("503", 1), ("408", 1), ("502", 5), ("504", 5)),
            *((name, 5) for name in ("dropped", "reset", *MALFORMED)),
        ],
    )
    async def test_the_wait_before_the_lookup(
        self, name: str, waits: int, api: Api, keys: ApiKeys, clock: Clock
    ) -> None:
        """The lookup waits five times as long if the server may still be processing the request."""
        policy = RetryPolicy(base=0, settle=10)
        async with (
            Server((UNCLEAR | MALFORMED)[name], api) as server,
            CaseLinksClient(server.url, keys, retry=policy) as links,
        ):
            task = asyncio.create_task(links.create_link(NEW))
            await server.until_seen(1)
            await settle()
            clock.advance(10 * waits - 1)
            await settle()
            assert server.methods == ["POST"]
            api.make(attributes(NEW))  # now the server behind the gateway creates the link
            clock.advance(1)
            await task
        assert (server.methods, len(api.links)) == (["POST", "GET"], 1)

    @pytest.mark.parametrize("name", ["502", "504", *MALFORMED])
    async def test_its_connection_is_not_used_again(
        self, name: str, api: Api, keys: ApiKeys, at_once: RetryPolicy
    ) -> None:
        """A connection on which a late response may still arrive is not used for the next request."""
        async with (
            Server(api, (UNCLEAR | MALFORMED)[name], api) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            await links.create_link(RELATED)
            await links.create_link(NEW)
        assert [seen.connection for seen in server.seen] == [0, 0, 1, 1]

    async def test_a_connection_that_is_one_response_behind(
        self, api: Api, keys: ApiKeys, at_once: RetryPolicy
    ) -> None:
        """Each create returns its own link, even if a proxy repeats the previous response."""
        late: dict[int, bytes] = {}
        wanted = [case(some_id(1)).blocks(case(some_id(number))) for number in range(10, 20)]

        async def lag(exchange: Exchange) -> None:
            if exchange.seen.method != "POST":
                return await api(exchange)
            api.make(exchange.seen.json["data"]["attributes"])
            own = json.dumps({"data": api.links[-1]}).encode()
            before = late.get(exchange.seen.connection, own)
            if len(api.links) >= 3:
                late[exchange.seen.connection] = own
            return await exchange.answer(201, before)

        async with Server(lag) as server, CaseLinksClient(server.url, keys, retry=at_once) as links:
            made = [await links.create_link(new) for new in wanted]
        assert [identity(link) for link in made] == [identity(new) for new in wanted]
        assert len({link.id for link in made}) == len(api.links) == len(wanted)

    @pytest.mark.parametrize("call", ["create", "ensure"])
    async def test_a_result_says_what_it_rests_on(
        self, call: str, keys: ApiKeys, at_once: RetryPolicy
    ) -> None:
        """Only the response to the create proves that the call created the link; a lookup does not.

        After an ambiguous attempt the lookup, the refusal of a retry or the last lookup may find the link.
        """
        refuses = answers(409, b"{}")
        ways: dict[str, Callable[[Api], tuple[bool, RetryPolicy, list[Step]]]] = {
            "the response": lambda api: (False, at_once, [api]),
            "a retry that succeeds": lambda api: (False, at_once, [drops, listed, api]),
            "the lookup": lambda api: (True, at_once, [api.applies(drops), api]),
            "a refused retry": lambda api: (True, at_once, [api.applies(drops), listed, refuses, api]),
            "the last lookup": lambda api: (True, evolve(at_once, max_attempts=1), [api.applies(drops), api]),
        }
        for name, way in ways.items():
            found_by_lookup, policy, steps = way(Api())
            if call == "ensure":
                steps.insert(0, listed)
            async with (
                Server(*steps) as server,
                CaseLinksClient(server.url, keys, retry=policy) as client,
            ):
                if call == "ensure":
                    result = await client.ensure_link(NEW)
                    assert result.created, name
                    assert result.found_by_lookup is found_by_lookup, name
                else:
                    (outcome,) = [each async for each in client.create_links([NEW])]
                    assert isinstance(outcome, Created), name
                    assert outcome.found_by_lookup is found_by_lookup, name

    async def test_every_failure_in_one_call(self, api: Api, keys: ApiKeys) -> None:
        """Each ambiguous attempt is followed by a lookup of its own, until the link is created."""
        steps = [step for failure in UNCLEAR.values() for step in (failure, api)]
        policy = RetryPolicy(max_attempts=len(steps), base=0, settle=0)
        async with (
            Server(*steps) as server,
            CaseLinksClient(server.url, keys, retry=policy) as links,
        ):
            await links.create_link(NEW)
        assert (server.methods, len(api.links)) == (["POST", "GET"] * len(UNCLEAR) + ["POST"], 1)


@pytest.fixture(params=VARIANTS)
def sandbox_options(request: pytest.FixtureRequest, clock: Clock) -> dict[str, Any]:
    return {"clock": clock.time, **VARIANTS[request.param]}


@pytest.fixture
def after_the_lag(at_once: RetryPolicy) -> RetryPolicy:
    """The policy ``at_once``, with lookups late enough for every list to contain the link."""
    return evolve(at_once, settle=2 * LAG)


def methods(sandbox: Sandbox) -> list[str]:
    return [request.method for request in sandbox.requests]


class TestSandbox:
    """The rules of creates apply to each documented variant of the API."""

    @pytest.mark.parametrize(
        ("fault", "sequence"),
        [
            (Fault.LOST_RESPONSE, "POST GET"),
            (Fault.TRUNCATED, "POST GET"),
            (Fault.MALFORMED, "POST GET"),
            (Fault.HTTP_504_APPLIED, "POST GET"),
            (Fault.RESET, "POST GET POST"),
            (Fault.HTTP_408, "POST GET POST"),
            (Fault.HTTP_500, "POST GET POST"),
            (Fault.HTTP_502, "POST GET POST"),
            (Fault.HTTP_503, "POST GET POST"),
            (Fault.HTTP_503_RETRY_AFTER, "POST GET POST"),
            (Fault.HTTP_504, "POST GET POST"),
            (Fault.HTTP_429, "POST POST"),
            (Fault.HTTP_429_RETRY_AFTER, "POST POST"),
            (Fault.HTTP_429_NO_HINT, "POST POST"),
        ],
    )
    async def test_each_fault(
        self, fault: Fault, sequence: str, sandbox: Sandbox, after_the_lag: RetryPolicy, clock: Clock
    ) -> None:
        """A create that meets a fault sends these requests, and creates the returned link exactly once."""
        sandbox.fail_next(fault, operation="create")
        async with CaseLinksClient(sandbox.site, sandbox.credentials, retry=after_the_lag) as links:
            link = await in_no_time(clock, links.create_link(NEW))
        assert [held.id for held in sandbox.links] == [link.id]
        assert methods(sandbox) == sequence.split()

    @pytest.mark.parametrize("fault", [Fault.DELAY, Fault.DRIP])
    async def test_a_response_that_takes_too_long(
        self, fault: Fault, sandbox: Sandbox, after_the_lag: RetryPolicy, clock: Clock
    ) -> None:
        """A create that was applied but timed out finds its link by the lookup."""
        sandbox.fail_next(fault, seconds=1000, operation="create")
        async with CaseLinksClient(sandbox.site, sandbox.credentials, retry=after_the_lag) as links:
            link = await in_no_time(clock, links.create_link(NEW))
        assert [held.id for held in sandbox.links] == [link.id]
        assert methods(sandbox) == ["POST", "GET"]

    async def test_a_server_that_is_slow_to_apply(self, sandbox: Sandbox, clock: Clock) -> None:
        """A link that the server creates within ``settle`` after the timeout is not created twice."""
        sandbox.fail_next(Fault.LATE_APPLY, seconds=40, operation="create")
        policy = RetryPolicy(base=0, settle=20)
        async with CaseLinksClient(sandbox.site, sandbox.credentials, retry=policy, timeout=30) as links:
            link = await in_no_time(clock, links.create_link(NEW))
        assert [held.id for held in sandbox.links] == [link.id]
        assert methods(sandbox) == ["POST", "GET"]


class TestLook:
    async def test_it_waits_until_things_have_settled(self, api: Api, keys: ApiKeys, clock: Clock) -> None:
        """The lookup after a lost response waits exactly five times ``settle``."""
        policy = RetryPolicy(base=0, settle=5)
        async with (
            Server(api.applies(drops), api) as server,
            CaseLinksClient(server.url, keys, retry=policy) as links,
        ):
            task = asyncio.create_task(links.create_link(NEW))
            await server.until_seen(1)
            await settle()
            clock.advance(24)
            await settle()
            assert server.methods == ["POST"]
            clock.advance(1)
            await task
        assert server.methods == ["POST", "GET"]

    async def test_the_wait_of_the_retry_counts(self, api: Api, keys: ApiKeys, clock: Clock) -> None:
        """A wait that the server requested is not followed by the wait of ``settle``."""
        policy = RetryPolicy(base=0, settle=30)
        async with (
            Server(api.applies(answers(503, Retry_After="30")), api) as server,
            CaseLinksClient(server.url, keys, retry=policy) as links,
        ):
            task = asyncio.create_task(links.create_link(NEW))
            await server.until_seen(1)
            await settle()
            clock.advance(30)
            await task
        assert server.methods == ["POST", "GET"]

    async def test_what_it_asks_for(self, api: Api, keys: ApiKeys, at_once: RetryPolicy) -> None:
        """A lookup requests one list, of all links of the parent."""
        new = incident(some_id(7)).causes(case(some_id(1)))
        async with (
            Server(drops, api) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            await links.create_link(new)
        [look] = [seen for seen in server.seen if seen.method == "GET"]
        assert look.target.endswith(f"?entity_type=INCIDENT&entity_id={some_id(7)}")

    @pytest.mark.parametrize("held", [RELATED, RELATED_BACK])
    async def test_relates_to_is_found_either_way_round(
        self, held: NewCaseLink, keys: ApiKeys, at_once: RetryPolicy
    ) -> None:
        """A lookup finds a ``RELATES_TO`` link in either direction, since both mean the same."""
        async with (
            Server(drops, holding(held)) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            assert identity(await links.create_link(RELATED)) == identity(held)
        assert server.methods == ["POST", "GET"]

    @pytest.mark.parametrize(
        "other",
        [
            pytest.param(case(some_id(2)).blocks(case(some_id(1))), id="the other way round"),
            pytest.param(case(some_id(1)).blocks(case(some_id(3))), id="another child"),
            pytest.param(case(some_id(1)).causes(case(some_id(2))), id="another relationship"),
            pytest.param(RELATED, id="RELATES_TO"),
            pytest.param(case(some_id(1)).blocks(incident(some_id(2))), id="a child of another type"),
        ],
    )
    async def test_another_link_is_not_taken_for_it(
        self, other: NewCaseLink, keys: ApiKeys, at_once: RetryPolicy
    ) -> None:
        """A create is sent again unless the list has a link with the same ends, types and relationship.

        A list of another parent belongs to another request: see ``test_the_list_of_another_entity``.
        """
        api = Api()
        lists_another = answers(200, json.dumps({"data": holding(other).links}).encode())
        async with (
            Server(drops, lists_another, api) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            await links.create_link(NEW)
        assert (server.methods, len(api.links)) == (["POST", "GET", "POST"], 1)

    @pytest.mark.parametrize(
        "odd", [b"null", b'{"id": null}', b'{"id": 7, "attributes": {}}', b'{"id": "x"}']
    )
    async def test_what_is_not_a_link_is_skipped(
        self, odd: bytes, api: Api, keys: ApiKeys, at_once: RetryPolicy
    ) -> None:
        """A flawed member of the list hides no link, and the list is requested once."""
        there = json.dumps(holding(NEW).links[0]).encode()
        async with (
            Server(drops, answers(200, b'{"data": [%b, %b]}' % (odd, there))) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            assert (await links.create_link(NEW)).id == "link-0"
        assert server.methods == ["POST", "GET"]

    @pytest.mark.parametrize("odd", [b"null", b'{"id": null}'])
    async def test_what_is_not_a_link_may_be_the_link(
        self, odd: bytes, keys: ApiKeys, at_once: RetryPolicy
    ) -> None:
        """A create stays ambiguous, and no other is sent, if both lists may show the link unreadably."""
        flawed = answers(200, b'{"data": [%b]}' % odd)
        async with (
            Server(drops, flawed) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            with pytest.raises(AmbiguousResultError, match="1 member of the list cannot be read"):
                await links.create_link(NEW)
            with pytest.raises(AmbiguousResultError):
                await links.ensure_link(NEW)
        assert server.methods == ["POST", "GET", "GET", "GET", "GET"]

    async def test_an_unreadable_member_among_others(
        self, api: Api, keys: ApiKeys, at_once: RetryPolicy
    ) -> None:
        """``ensure_link`` creates nothing if a list may show the link unreadably."""
        async with (
            Server(answers(200, b'{"data": [null]}')) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            with pytest.raises(IncompleteListError):
                await links.ensure_link(NEW)
        assert server.methods == ["GET", "GET"]

    @pytest.mark.parametrize(
        "fails",
        [answers(200, b'{"data": [null]}'), answers(400), answers(403), answers(404)],
        ids=["incomplete", "400", "403", "404"],
    )
    @pytest.mark.parametrize("held", [[], [NEW]], ids=["missing", "there"])
    async def test_a_parent_that_cannot_be_listed(
        self, fails: Step, held: list[NewCaseLink], keys: ApiKeys, at_once: RetryPolicy
    ) -> None:
        """If the parent cannot be listed, the links of the child show whether the link exists."""
        api = holding(*held)
        async with (
            Server(drops, fails, api) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            assert (await links.create_link(NEW)).id == "link-0"
        assert server.methods == ["POST", "GET", "GET", *["POST"] * (not held)]
        assert server.seen[2].target.endswith(NEW.child.id)

    async def test_the_list_of_another_entity(self, api: Api, keys: ApiKeys, at_once: RetryPolicy) -> None:
        """A list that belongs to another request is requested again, on another connection."""
        other = json.dumps({"data": holding(case(some_id(8)).blocks(case(some_id(9)))).links}).encode()
        async with (
            Server(api.applies(answers(500)), answers(200, other), api) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            assert (await links.create_link(NEW)).id == "link-0"
        assert server.methods == ["POST", "GET", "GET"]
        assert [seen.connection for seen in server.seen] == [0, 0, 1]

    async def test_a_list_that_fails_is_repeated(self, api: Api, keys: ApiKeys, at_once: RetryPolicy) -> None:
        """A lookup is retried like any other list, with attempts of its own."""
        async with (
            Server(api.applies(drops), answers(503), answers(200, b"{"), api) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            assert (await links.create_link(NEW)).id == "link-0"
        assert server.methods == ["POST", "GET", "GET", "GET"]

    @pytest.mark.parametrize(("status", "lists"), [(503, 3), (403, 2), (200, 3)])
    async def test_a_list_that_fails_for_good(
        self, status: int, lists: int, keys: ApiKeys, at_once: RetryPolicy
    ) -> None:
        """A create whose lookup fails is ambiguous; the error gives the reason and the next step."""
        async with (
            Server(answers(500), answers(status)) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            with pytest.raises(AmbiguousResultError) as caught:
                await links.create_link(NEW)
        error = caught.value
        assert server.methods == ["POST", *["GET"] * lists]
        assert error.new is NEW
        assert isinstance(error.reason, ServerError)
        assert error.reason.status == 500
        assert error.__cause__ is error.reason
        assert str(error).startswith(
            f"{error.reason}. The link may have been created, and the lookup failed: "
        )
        assert f"cannot list the links of {NEW.parent}: {status}" in str(error)
        assert str(error).endswith(f". List the links of {NEW.parent} before you create it again")

    async def test_it_goes_through_the_gate(
        self, api: Api, keys: ApiKeys, at_once: RetryPolicy, clock: Clock
    ) -> None:
        """A lookup waits for the rate limit like any other request."""
        used_up = answers(500, X_RateLimit_Limit="1", X_RateLimit_Remaining="0", X_RateLimit_Reset="60")
        async with (
            Server(api.applies(used_up), api) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            task = asyncio.create_task(links.create_link(NEW))
            await server.until_seen(1)
            await settle()
            clock.advance(59)
            await settle()
            assert server.methods == ["POST"]
            clock.advance(1)
            await task
        assert server.methods == ["POST", "GET"]

    async def test_it_takes_a_slot(self, api: Api, keys: ApiKeys, at_once: RetryPolicy) -> None:
        """Lookups count towards ``max_concurrency`` like all other requests."""
        hold = Held(api)
        async with (
            Server(api.applies(answers(500)), hold) as server,
            CaseLinksClient(server.url, keys, retry=at_once, max_concurrency=1) as links,
        ):
            calls = [asyncio.create_task(links.create_link(new)) for new in (NEW, RELATED)]
            await server.until_seen(2)
            await settle()
            assert len(server.seen) == 2
            hold.release(2)
            await asyncio.gather(*calls)
        assert (server.most_busy, len(api.links)) == (1, 2)

    @pytest.mark.slow
    async def test_a_thousand_of_one_parent_share_a_list(self, api: Api, keys: ApiKeys, clock: Clock) -> None:
        """A thousand calls for one parent share one or two lists, and each call finds its own link."""
        wanted = [case(some_id(1)).blocks(case(some_id(number))) for number in range(2, 1002)]
        made_untold = api.applies(answers(500))

        async def lose_every_answer(exchange: Exchange) -> None:
            await (made_untold if exchange.seen.method == "POST" else api)(exchange)

        policy = RetryPolicy(base=0, settle=60, budget=2000)
        async with (
            Server(lose_every_answer) as server,
            CaseLinksClient(server.url, keys, retry=policy, timeout=600) as links,
        ):
            calls = [asyncio.create_task(links.create_link(new)) for new in wanted]
            await server.until_seen(len(wanted))
            await settle(200)
            clock.advance(60)
            made = await asyncio.gather(*calls)
        assert [identity(link) for link in made] == [identity(new) for new in wanted]
        assert len({link.id for link in made}) == len(api.links) == len(wanted)
        assert server.methods.count("POST") == len(wanted)
        assert server.methods.count("GET") <= 2


class TestLastAttempt:
    @pytest.mark.parametrize("attempts", [1, 2, 3])
    async def test_a_final_lookup_finds_it(self, attempts: int, api: Api, keys: ApiKeys) -> None:
        """After the last attempt one more lookup can still find the link that this attempt created."""
        steps = [answers(500), listed] * (attempts - 1)
        policy = RetryPolicy(max_attempts=attempts, base=0, settle=0)
        async with (
            Server(*steps, api.applies(answers(500)), api) as server,
            CaseLinksClient(server.url, keys, retry=policy) as links,
        ):
            assert (await links.create_link(NEW)).id == "link-0"
        assert server.methods == ["POST", "GET"] * attempts

    @pytest.mark.parametrize("attempts", [1, 2, 3])
    @pytest.mark.parametrize(
        ("step", "kind"),
        [(answers(500), ServerError), (drops, TransportError), (answers(201), MalformedResponseError)],
    )
    async def test_a_final_lookup_that_finds_nothing(
        self, step: Step, kind: type[CaseLinksError], attempts: int, keys: ApiKeys
    ) -> None:
        """If the last lookup finds no link, the create raises the plain error of its last attempt."""
        policy = RetryPolicy(max_attempts=attempts, base=0, settle=0)
        async with (
            Server(*[step, listed] * attempts) as server,
            CaseLinksClient(server.url, keys, retry=policy) as links,
        ):
            with pytest.raises(kind) as caught:
                await links.create_link(NEW)
        assert type(caught.value) is kind
        assert server.methods == ["POST", "GET"] * attempts

    async def test_a_final_lookup_that_fails(self, keys: ApiKeys) -> None:
        """A create is ambiguous if the last attempt may have been applied and the last lookup fails."""
        once = RetryPolicy(max_attempts=1, settle=0)
        async with (
            Server(answers(500), answers(503)) as server,
            CaseLinksClient(server.url, keys, retry=once) as links,
        ):
            with pytest.raises(AmbiguousResultError, match="the lookup failed") as caught:
                await links.create_link(NEW)
        assert isinstance(caught.value.reason, ServerError)
        assert server.methods == ["POST", "GET"]

    async def test_a_final_lookup_waits_as_long_as_the_server_requested(
        self, keys: ApiKeys, clock: Clock
    ) -> None:
        """The last lookup waits as long as the server requested."""
        once = RetryPolicy(max_attempts=1, settle=1)
        async with (
            Server(answers(503, Retry_After="60"), listed) as server,
            CaseLinksClient(server.url, keys, retry=once) as links,
        ):
            task = asyncio.create_task(links.create_link(NEW))
            await server.until_seen(1)
            await settle()
            clock.advance(59)
            await settle()
            assert server.methods == ["POST"]
            clock.advance(1)
            with pytest.raises(ServerError):
                await task
        assert server.methods == ["POST", "GET"]

    async def test_no_final_lookup_if_the_server_requested_a_long_wait(self, keys: ApiKeys) -> None:
        """A create whose server requests a wait above ``max_wait`` is ambiguous, and nothing more is sent."""
        async with (
            Server(answers(503, Retry_After="121"), listed) as server,
            CaseLinksClient(server.url, keys) as links,
        ):
            with pytest.raises(AmbiguousResultError, match="503"):
                await links.create_link(NEW)
        assert server.methods == ["POST"]

    async def test_lookups_pay_back_no_retries(self, keys: ApiKeys) -> None:
        """Successful lookups do not pay for retries: creates that keep failing use up the retry budget."""

        async def creates_nothing(exchange: Exchange) -> None:
            await (listed if exchange.seen.method == "GET" else answers(500))(exchange)

        policy = RetryPolicy(base=0, settle=0, budget=10)
        async with (
            Server(creates_nothing) as server,
            CaseLinksClient(server.url, keys, retry=policy) as links,
        ):
            calls = (links.create_link(NEW.parent.blocks(case(some_id(number)))) for number in range(10, 110))
            failed = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(error, ServerError | AmbiguousResultError) for error in failed)
        assert server.methods.count("POST") <= 100 + 10
        assert server.methods.count("GET") <= 2 * 10

    async def test_a_refusal_after_a_lookup(self, keys: ApiKeys, at_once: RetryPolicy) -> None:
        """A refusal is final if a lookup has shown that the attempt before it created nothing."""
        async with (
            Server(answers(500), listed, answers(401)) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            with pytest.raises(AuthenticationError):
                await links.create_link(NEW)
        assert server.methods == ["POST", "GET", "POST"]

    async def test_a_spent_budget_allows_no_lookup(self, keys: ApiKeys) -> None:
        """A create is not looked up if the retry budget is used up: the error is ambiguous and says why."""
        policy = RetryPolicy(base=0, settle=0, budget=0)
        async with (
            Server(answers(500)) as server,
            CaseLinksClient(server.url, keys, retry=policy) as links,
        ):
            with pytest.raises(AmbiguousResultError) as caught:
                await links.create_link(NEW)
        error = caught.value
        assert server.methods == ["POST"]
        assert (error.new, error.during_outage) == (NEW, True)
        assert error.__cause__ is error.reason
        assert isinstance(error.reason, ServerError)
        assert str(error) == (
            f"{error.reason}. The link may have been created. List the links of {NEW.parent} "
            "before you create it again"
        )
        assert "No further retries: most recent requests have failed" in str(error)

    async def test_a_spent_budget_where_nothing_was_sent(self, keys: ApiKeys) -> None:
        """A create that was never sent is not ambiguous, even if the retry budget is used up."""
        policy = RetryPolicy(base=0, settle=0, budget=0)
        async with CaseLinksClient(f"http://{HOST}:{unused_port()}", keys, retry=policy) as links:
            with pytest.raises(ConnectError, match="No further retries") as caught:
                await links.create_link(NEW)
        assert caught.value.during_outage


class TestConflict:
    async def test_with_the_link_that_is_there(self, keys: ApiKeys, at_once: RetryPolicy) -> None:
        """The ``ConflictError`` of ``create_link`` contains the existing link."""
        async with (
            Server(answers(409), holding(RELATED, NEW)) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            with pytest.raises(ConflictError) as caught:
                await links.create_link(NEW)
        assert caught.value.existing == CaseLink("link-1", NEW.parent, "BLOCKS", NEW.child)
        assert server.methods == ["POST", "GET"]

    @pytest.mark.parametrize(
        ("look", "lists"),
        [(listed, 1), (answers(403), 2), (answers(500), 1)],
        ids=["none there", "forbidden", "failing"],
    )
    async def test_with_nothing_else(self, look: Step, lists: int, keys: ApiKeys) -> None:
        """A conflict whose lookup fails or finds no link is raised unchanged, without an existing link."""
        once = RetryPolicy(max_attempts=1, settle=0)
        async with (
            Server(answers(409), look) as server,
            CaseLinksClient(server.url, keys, retry=once) as links,
        ):
            with pytest.raises(ConflictError) as caught:
                await links.create_link(NEW)
        assert (caught.value.existing, caught.value.status) == (None, 409)
        assert caught.value.__cause__ is None
        assert server.methods == ["POST", *["GET"] * lists]

    @pytest.mark.parametrize("status", [400, 409, 422])
    async def test_after_an_unclear_attempt(
        self, status: int, api: Api, keys: ApiKeys, at_once: RetryPolicy
    ) -> None:
        """A refusal after an ambiguous attempt is looked up, and finds the link of that attempt."""
        async with (
            Server(api.applies(answers(500)), listed, answers(status), api) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            assert (await links.create_link(NEW)).id == "link-0"
        assert (server.methods, len(api.links)) == (["POST", "GET", "POST", "GET"], 1)

    @pytest.mark.parametrize("status", [400, 409])
    async def test_after_an_unclear_attempt_where_the_second_lookup_fails(
        self, status: int, keys: ApiKeys, at_once: RetryPolicy
    ) -> None:
        """A refusal after an ambiguous attempt is ambiguous if its lookup fails."""
        async with (
            Server(answers(500), listed, answers(status), answers(403)) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            with pytest.raises(AmbiguousResultError, match=r"the lookup failed: .* 403") as caught:
                await links.create_link(NEW)
        assert isinstance(caught.value.reason, ResponseError)
        assert caught.value.reason.status == status
        assert server.methods == ["POST", "GET", "POST", "GET", "GET"]

    @pytest.mark.parametrize("status", [400, 409, 422])
    async def test_after_an_unclear_attempt_with_nothing_else(
        self, status: int, keys: ApiKeys, at_once: RetryPolicy
    ) -> None:
        """A refusal after an ambiguous attempt stays ambiguous if no list shows the link yet."""
        async with (
            Server(answers(500), listed, answers(status), listed) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            with pytest.raises(
                AmbiguousResultError, match="may have been created by an earlier attempt"
            ) as caught:
                await links.create_link(NEW)
        assert isinstance(caught.value.reason, ResponseError)
        assert caught.value.reason.status == status
        assert caught.value.__cause__ is caught.value.reason
        assert server.methods == ["POST", "GET", "POST", "GET"]

    @pytest.mark.parametrize("duplicates", ["conflict", "bad-request"])
    async def test_after_an_unclear_attempt_where_lists_lag_longer(
        self, duplicates: Duplicates, clock: Clock
    ) -> None:
        """A refused create waits ``settle`` seconds more for the list that lagged behind the first lookup."""
        async with (
            Sandbox(duplicates=duplicates, list_lag=11, clock=clock.time) as sandbox,
            CaseLinksClient(sandbox.site, sandbox.credentials, retry=RetryPolicy(settle=2)) as links,
        ):
            sandbox.fail_next(Fault.LOST_RESPONSE)
            link = await in_no_time(clock, links.create_link(NEW))
            assert [held.id for held in sandbox.links] == [link.id]
        assert methods(sandbox) == ["POST", "GET", "POST", "GET"]


class TestEnsure:
    @pytest.mark.parametrize(
        ("new", "held"),
        [(NEW, NEW), (RELATED, RELATED), (RELATED, RELATED_BACK), (RELATED_BACK, RELATED)],
    )
    async def test_a_link_that_is_there(self, new: NewCaseLink, held: NewCaseLink, keys: ApiKeys) -> None:
        """``ensure_link`` returns an existing link without a create, ``RELATES_TO`` in either direction."""
        async with Server(holding(held)) as server, CaseLinksClient(server.url, keys) as links:
            assert await links.ensure_link(new) == (
                CaseLink("link-0", held.parent, held.relationship, held.child),
                False,
            )
        assert server.methods == ["GET"]

    async def test_a_link_that_is_not_there(self, keys: ApiKeys) -> None:
        """``ensure_link`` creates a link if only its reverse exists, because that is another link."""
        api = holding(case(some_id(2)).blocks(case(some_id(1))))
        async with Server(api) as server, CaseLinksClient(server.url, keys) as links:
            assert await links.ensure_link(NEW) == (
                CaseLink("link-1", NEW.parent, "BLOCKS", NEW.child),
                True,
            )
        assert server.methods == ["GET", "POST"]

    @pytest.mark.parametrize("status", [400, 409, 422])
    async def test_another_writer_was_faster(self, status: int, keys: ApiKeys, at_once: RetryPolicy) -> None:
        """``ensure_link`` looks up a refused create, and returns the link of a faster writer."""
        async with (
            Server(listed, answers(status), holding(NEW)) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            link, created = await links.ensure_link(NEW)
        assert (link.id, created) == ("link-0", False)
        assert server.methods == ["GET", "POST", "GET"]

    @pytest.mark.parametrize(("status", "kind"), [(400, BadRequestError), (409, ConflictError)])
    async def test_a_refusal_for_another_reason(
        self, status: int, kind: type[CaseLinksError], keys: ApiKeys, at_once: RetryPolicy
    ) -> None:
        """``ensure_link`` raises a refusal if the lookup finds no such link."""
        async with (
            Server(listed, answers(status), listed) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            with pytest.raises(kind):
                await links.ensure_link(NEW)
        assert server.methods == ["GET", "POST", "GET"]

    @pytest.mark.parametrize("is_made", [True, False])
    async def test_an_unclear_attempt(
        self, is_made: bool, api: Api, keys: ApiKeys, at_once: RetryPolicy
    ) -> None:
        """A link that ``ensure_link`` finds after its own ambiguous attempt counts as created."""
        async with (
            Server(api, api.applies(drops) if is_made else drops, api) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            link, created = await links.ensure_link(NEW)
        assert (link.id, created, len(api.links)) == ("link-0", True, 1)
        assert server.methods == ["GET", "POST", "GET"] + ["POST"] * (not is_made)

    async def test_a_conflict_after_an_unclear_attempt(
        self, api: Api, keys: ApiKeys, at_once: RetryPolicy
    ) -> None:
        """A conflict after an ambiguous attempt counts as created, most likely by that attempt."""
        async with (
            Server(listed, api.applies(drops), listed, answers(409), api) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            link, created = await links.ensure_link(NEW)
        assert (link.id, created) == ("link-0", True)
        assert server.methods == ["GET", "POST", "GET", "POST", "GET"]

    @pytest.mark.parametrize("duplicates", ["conflict", "bad-request"])
    async def test_another_writer_was_faster_and_lists_lag(
        self, duplicates: Duplicates, clock: Clock
    ) -> None:
        """``ensure_link`` waits ``settle`` seconds after a refusal, until a lagging list has the link."""
        policy = RetryPolicy(settle=2)
        async with (
            Sandbox(duplicates=duplicates, list_lag=1.5, clock=clock.time) as sandbox,
            CaseLinksClient(sandbox.site, sandbox.credentials) as others,
            CaseLinksClient(sandbox.site, sandbox.credentials, retry=policy) as links,
        ):
            there = await others.create_link(NEW)
            assert await in_no_time(clock, links.ensure_link(NEW)) == (there, False)
        assert methods(sandbox) == ["POST", "GET", "POST", "GET"]

    async def test_a_list_that_fails(self, keys: ApiKeys, at_once: RetryPolicy) -> None:
        """``ensure_link`` raises the error of a failed lookup, since no create was sent."""
        async with (
            Server(answers(503)) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            with pytest.raises(ServerError):
                await links.ensure_link(NEW)
        assert server.methods == ["GET"] * 3

    @pytest.mark.parametrize("wanted", [[NEW] * 20, [RELATED, RELATED_BACK] * 10], ids=["blocks", "relates"])
    async def test_equal_calls_at_once(self, wanted: list[NewCaseLink], api: Api, keys: ApiKeys) -> None:
        """One of several equal ``ensure_link`` calls creates the link, and the others return it."""
        async with Server(api) as server, CaseLinksClient(server.url, keys) as links:
            results = await asyncio.gather(*(links.ensure_link(new) for new in wanted))
        assert {link.id for link, _ in results} == {"link-0"}
        assert sorted(created for _, created in results) == [False] * 19 + [True]
        assert (server.methods.count("POST"), len(api.links)) == (1, 1)

    @pytest.mark.clock(stopped_at=1000.0)
    async def test_equal_calls_at_once_where_lists_lag(self, clock: Clock) -> None:
        """Waiting ``ensure_link`` calls get the link from the call that created it, before a list has it."""
        async with (
            Sandbox(list_lag=1000, clock=clock.time) as sandbox,
            CaseLinksClient(sandbox.site, sandbox.credentials) as links,
        ):
            results = await asyncio.gather(*(links.ensure_link(NEW) for _ in range(20)))
            (held,) = sandbox.links
        assert {link.id for link, _ in results} == {held.id}
        assert sorted(created for _, created in results) == [False] * 19 + [True]
        assert methods(sandbox) == ["GET", "POST"]

    @pytest.mark.parametrize("first", ["create", "ensure"])
    @pytest.mark.parametrize(("held", "again"), [(NEW, NEW), (RELATED, RELATED_BACK)])
    async def test_a_later_call_where_lists_lag(
        self, held: NewCaseLink, again: NewCaseLink, first: str, clock: Clock
    ) -> None:
        """``ensure_link`` returns a link that the client has just created, before a list has it."""
        async with (
            Sandbox(list_lag=4.5, clock=clock.time) as sandbox,
            CaseLinksClient(sandbox.site, sandbox.credentials) as links,
        ):
            call = links.create_link(held) if first == "create" else links.ensure_link(held)
            await call
            for seconds in (0, 4, 2):
                clock.advance(seconds)
                link, created = await links.ensure_link(again)
                assert not created
                assert [each.id for each in sandbox.links] == [link.id]

    @pytest.mark.usefixtures("clock")
    @pytest.mark.clock(stopped_at=1000.0)
    async def test_a_link_that_was_found_is_looked_up_by_later_calls(self, keys: ApiKeys) -> None:
        """``ensure_link`` creates a link again that it found before, if another process deleted it since.

        The clock of an event loop may be so coarse that both calls begin at the same time.
        """
        api = holding(NEW)
        async with Server(api) as server, CaseLinksClient(server.url, keys) as links:
            assert not (await links.ensure_link(NEW)).created
            api.links.clear()
            assert (await links.ensure_link(NEW)).created

    @pytest.mark.parametrize("by", ["link", "id", "ID", "ends"])
    async def test_a_link_that_was_deleted_since(self, by: str) -> None:
        """``ensure_link`` creates a link again that the same client created and deleted."""
        async with Sandbox() as sandbox, CaseLinksClient(sandbox.site, sandbox.credentials) as links:
            link, _ = await links.ensure_link(NEW)
            wanted: dict[str, CaseLink | NewCaseLink | str]
            wanted = {"link": link, "id": link.id, "ID": link.id.upper(), "ends": NEW}
            await links.delete_link(wanted[by])
            again, created = await links.ensure_link(NEW)
            assert (created, [each.id for each in sandbox.links]) == (True, [again.id])

    @pytest.mark.parametrize("others", [0, 1])
    async def test_a_deleted_link_that_a_list_still_shows(self, others: int, api: Api, keys: ApiKeys) -> None:
        """``ensure_link`` ignores a link that the same client deleted; another equal one counts."""
        stale = Api()

        async def lag(exchange: Exchange) -> None:
            await (stale if exchange.seen.method == "GET" else api)(exchange)

        async with Server(lag) as server, CaseLinksClient(server.url, keys) as links:
            first = await links.create_link(NEW)
            for _ in range(others):
                api.make(attributes(NEW))
            stale.links = list(api.links)
            await links.delete_link(first)
            link, created = await links.ensure_link(NEW)
        assert (link.id, created) == (api.links[-1]["id"], not others)
        assert len(api.links) == 1

    async def test_a_link_whose_delete_failed(self, api: Api, keys: ApiKeys) -> None:
        """``ensure_link`` returns a link that the server refused to delete, even before a list has it."""
        async with (
            Server(api, answers(403), listed, api) as server,
            CaseLinksClient(server.url, keys) as links,
        ):
            first = await links.create_link(NEW)
            with pytest.raises(PermissionDeniedError):
                await links.delete_link(first)
            assert await links.ensure_link(NEW) == (first, False)

    async def test_a_link_that_another_process_deleted(self, api: Api, keys: ApiKeys, clock: Clock) -> None:
        """``ensure_link`` creates a link again whose delete showed that it does not exist any more."""
        async with Server(api) as server, CaseLinksClient(server.url, keys) as links:
            first = await links.create_link(NEW)
            await links.create_link(RELATED)
            api.links.clear()
            with pytest.raises(NotFoundError):
                await links.delete_link(first)
            assert (await in_no_time(clock, links.ensure_link(NEW))).created

    @pytest.mark.parametrize("fault", ["503", "504-applied", "delay=1000"])
    async def test_a_link_whose_delete_may_have_been_applied(self, fault: str, clock: Clock) -> None:
        """``ensure_link`` looks the link up once a list can show whether it was deleted."""
        policy = RetryPolicy(max_attempts=1)
        async with (
            Sandbox(list_lag=4, clock=clock.time, faults=[f"{fault}@delete"]) as sandbox,
            CaseLinksClient(sandbox.site, sandbox.credentials, retry=policy) as links,
        ):
            delete = asyncio.create_task(links.delete_link(await links.create_link(NEW)))
            await until(lambda: delete.done() or (len(sandbox.requests) == 2 and not sandbox.links))
            delete.cancel()
            await asyncio.wait([delete])
            was_deleted = not sandbox.links
            link, created = await in_no_time(clock, links.ensure_link(NEW))
            assert (created, [each.id for each in sandbox.links]) == (was_deleted, [link.id])

    async def test_a_deleted_link_after_an_unclear_attempt(
        self, api: Api, keys: ApiKeys, at_once: RetryPolicy
    ) -> None:
        """A deleted link that a list still shows is not the result of an unclear attempt."""
        stale = Api()

        async def lag(exchange: Exchange) -> None:
            await (stale if exchange.seen.method == "GET" else api)(exchange)

        async with (
            Server(lag, lag, answers(500), lag) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            first = await links.create_link(NEW)
            stale.links = list(api.links)
            await links.delete_link(first)
            link = await links.create_link(NEW)
        assert [each["id"] for each in api.links] == [link.id]

    @pytest.mark.parametrize("call", ["create", "ensure"])
    @pytest.mark.parametrize(("status", "seconds"), [(504, 5), (500, 1)])
    async def test_after_a_call_with_an_unknown_result(
        self, status: int, seconds: int, call: str, api: Api, keys: ApiKeys, clock: Clock
    ) -> None:
        """``ensure_link`` after an ``AmbiguousResultError`` looks the link up once a list can show it."""

        async def apply_late(exchange: Exchange) -> None:
            await answers(status)(exchange)
            loop = asyncio.get_running_loop()
            loop.call_later(seconds - 0.1, api.make, exchange.seen.json["data"]["attributes"])

        policy = RetryPolicy(budget=0)
        steps: list[Step] = [api, apply_late, api] if call == "ensure" else [apply_late, api]
        async with (
            Server(*steps) as server,
            CaseLinksClient(server.url, keys, retry=policy) as links,
        ):
            with pytest.raises(AmbiguousResultError):
                await (links.ensure_link(NEW) if call == "ensure" else links.create_link(NEW))
            link, created = await in_no_time(clock, links.ensure_link(NEW))
            assert (link.id, created) == ("link-0", False)
            again = await links.ensure_link(NEW)
            assert (again.link, again.found_by_lookup) == (link, False)  # nothing is open any more
        assert (len(api.links), server.methods.count("POST")) == (1, 1)

    async def test_after_a_call_that_was_asked_to_wait_too_long(self, clock: Clock) -> None:
        """After a 503 that asked for a long wait, ``ensure_link`` waits until a list can show the link."""
        async with (
            Sandbox(clock=clock.time) as sandbox,
            CaseLinksClient(sandbox.site, sandbox.credentials) as links,
        ):
            sandbox.fail_next(Fault.HTTP_503_RETRY_AFTER, operation="create", seconds=1000)
            with pytest.raises(AmbiguousResultError):
                await links.ensure_link(NEW)
            before = clock.time()
            assert (await in_no_time(clock, links.ensure_link(NEW))).created
            assert clock.time() - before < 10

    async def test_after_a_call_whose_lookup_failed(self, keys: ApiKeys, clock: Clock) -> None:
        """``ensure_link`` cannot decide as long as the lookup fails: the result stays ambiguous."""
        policy = RetryPolicy(budget=0)
        async with (
            Server(answers(500), answers(403)) as server,
            CaseLinksClient(server.url, keys, retry=policy) as links,
        ):
            with pytest.raises(AmbiguousResultError):
                await in_no_time(clock, links.create_link(NEW))
            with pytest.raises(AmbiguousResultError, match=f"an earlier call may have sent {NEW}"):
                await in_no_time(clock, links.ensure_link(NEW))
        assert server.methods.count("POST") == 1

    async def test_after_a_cancelled_call(self, api: Api, keys: ApiKeys, clock: Clock) -> None:
        """``ensure_link`` waits before it looks up a link that a cancelled call may have sent."""
        hold = Held(api)
        async with Server(hold, api) as server, CaseLinksClient(server.url, keys) as links:
            call = asyncio.create_task(links.create_link(NEW))
            await server.until_seen(1)
            call.cancel()
            await asyncio.wait([call])
            again = asyncio.create_task(links.ensure_link(NEW))
            await settle(50)
            clock.advance(4.9)
            await settle(50)
            assert server.methods == ["POST"]
            hold.release()
            await settle(50)
            clock.advance(0.2)
            assert not (await again).created
        assert (server.methods, len(api.links)) == (["POST", "GET"], 1)

    async def test_it_forgets(self, api: Api, keys: ApiKeys, monkeypatch: pytest.MonkeyPatch) -> None:
        """A client remembers a bounded number of links that it created or deleted."""
        monkeypatch.setattr("datadog_caselinks.calls.recent_links._MAX_RECENT", 10)
        wanted = [case(some_id(1)).blocks(case(some_id(number))) for number in range(2, 22)]
        async with Server(api) as server, CaseLinksClient(server.url, keys) as links:
            created = [await links.ensure_link(new) for new in wanted]
            for link, _ in created:
                await links.delete_link(link)
            recent = links._recent
            assert (len(recent._links), len(recent._deleted)) == (10, 10)
            assert [recent.has_deleted(each.link.id) for each in created].count(True) == 10

    @pytest.mark.parametrize("call", ["create", "ensure"])
    async def test_it_keeps_no_link_for_long(self, call: str, api: Api, keys: ApiKeys, clock: Clock) -> None:
        """A client keeps the links that a list in use may not show yet, and no older ones."""
        others = [case(some_id(1)).blocks(case(some_id(number))) for number in (3, 4, 5)]
        async with Server(api) as server, CaseLinksClient(server.url, keys) as links:
            run = links.create_link if call == "create" else links.ensure_link
            first = weakref.ref(await links.create_link(NEW))
            await run(others[0])
            clock.advance(400)
            await links.create_link(others[1])
            await run(others[2])
            gc.collect()
            assert first() is None
            before = len(server.seen)
            assert not (await links.ensure_link(others[1])).created
            assert len(server.seen) == before

    async def test_other_calls_do_not_wait(self, api: Api, keys: ApiKeys) -> None:
        """Only equal ``ensure_link`` calls wait for each other; others of one parent share a list."""
        hold = Held(api)
        wanted = [case(some_id(1)).blocks(case(some_id(number))) for number in range(2, 12)]
        async with Server(api, hold) as server, CaseLinksClient(server.url, keys) as links:
            await links.list_links(NEW.child)
            calls = [asyncio.create_task(links.ensure_link(new)) for new in wanted]
            await server.until_seen(2)
            hold.release(1)
            await server.until_seen(12)
            hold.release(10)
            await asyncio.gather(*calls)
        assert server.methods == ["GET"] * 2 + ["POST"] * 10

    @pytest.mark.slow
    async def test_no_lock_stays_behind(self, api: Api, keys: ApiKeys) -> None:
        """A client that has ensured a million links does not keep a million locks."""

        def locks() -> int:
            gc.collect()
            return sum(type(found) is asyncio.Lock for found in gc.get_objects())

        async with Server(api), Server(api) as server, CaseLinksClient(server.url, keys) as links:
            before = locks()
            for number in range(2, 22):
                await links.ensure_link(case(some_id(1)).blocks(case(some_id(number))))
            assert locks() == before


@pytest.mark.parametrize("status", [504, None])
async def test_an_error_says_whether_an_attempt_was_ambiguous(
    status: int | None, keys: ApiKeys, at_once: RetryPolicy
) -> None:
    """An error after an ambiguous attempt says so: the journal notes that the link may exist."""
    steps = [answers(status), answers(200, b'{"data": []}')] if status else []
    async with (
        Server(*steps, answers(403)) as server,
        CaseLinksClient(server.url, keys, retry=at_once) as links,
    ):
        with pytest.raises(PermissionDeniedError) as caught:
            await links.create_link(NEW)
    assert caught.value.was_ambiguous is bool(status)


class TestResume:
    """A link that an earlier run may have sent is looked up first, and then handled as by ``ensure_link``."""

    @contextlib.asynccontextmanager
    async def creator(self, server: Server, keys: ApiKeys, policy: RetryPolicy) -> AsyncIterator[Creator]:
        async with CaseLinksClient(server.url, keys, retry=policy) as links:
            yield links._creator

    @pytest.mark.parametrize(("held", "sequence", "is_new"), [([NEW], "GET", False), ([], "GET POST", True)])
    async def test_a_lookup_and_then_a_post(
        self, held: list[NewCaseLink], sequence: str, is_new: bool, keys: ApiKeys, at_once: RetryPolicy
    ) -> None:
        """A link that exists does not count as created by the resumed call, and a missing link is created."""
        api = holding(*held)
        async with Server(api) as server, self.creator(server, keys, at_once) as creator:
            link, created = await creator.resume(NEW, ended_at=0)
        assert (link.id, created, len(api.links)) == ("link-0", is_new, 1)
        assert server.methods == sequence.split()

    async def test_it_waits_until_things_have_settled(self, keys: ApiKeys, clock: Clock) -> None:
        """The lookup waits five times ``settle``, because the earlier run may have ended just now."""
        policy = RetryPolicy(settle=5)
        async with Server(holding(NEW)) as server, self.creator(server, keys, policy) as creator:
            task = asyncio.create_task(creator.resume(NEW, ended_at=asyncio.get_running_loop().time()))
            await settle()
            clock.advance(24)
            await settle()
            assert server.connections == 0
            clock.advance(1)
            await task

    async def test_an_earlier_call_of_this_run(self, api: Api, keys: ApiKeys, clock: Clock) -> None:
        """The lookup also waits for an earlier call of this run that may have sent the link just now."""
        async with (
            Server(api.applies(is_silent), api) as server,
            self.creator(server, keys, RetryPolicy()) as creator,
        ):
            call = asyncio.create_task(creator.create(NEW))
            await server.until_seen(1)
            call.cancel()
            await asyncio.wait([call])
            again = asyncio.create_task(creator.resume(NEW, ended_at=0))
            await settle(50)
            clock.advance(4)
            await settle(50)
            assert server.methods == ["POST"]
            clock.advance(1)
            await again
        assert (server.methods, len(api.links)) == (["POST", "GET"], 1)

    @pytest.mark.parametrize(("held", "before"), [([NEW], []), ([], [["GET"]])])
    async def test_a_callback_before_a_create(
        self, held: list[NewCaseLink], before: list[list[str]], keys: ApiKeys, at_once: RetryPolicy
    ) -> None:
        """``before_create`` is called between the lookup and the create, and not for a link that exists."""
        calls: list[list[str]] = []
        async with Server(holding(*held)) as server, self.creator(server, keys, at_once) as creator:

            async def before_create() -> None:
                calls.append(list(server.methods))

            await creator.resume(NEW, 0, before_create)
        assert calls == before

    async def test_other_links_do_not_wait(
        self, api: Api, keys: ApiKeys, at_once: RetryPolicy, clock: Clock
    ) -> None:
        """Resumed calls for different links do not wait for each other."""
        hold = Held(api)
        other = case(some_id(3)).blocks(case(some_id(4)))
        async with (
            Server(hold) as server,
            self.creator(server, keys, at_once) as creator,
            hurrying(clock),  # the second request of a client waits for the first response, or a second
        ):
            calls = [asyncio.create_task(creator.resume(new, ended_at=0)) for new in (NEW, other)]
            await server.until_seen(2)
            hold.release(2)
            await server.until_seen(4)
            hold.release(2)
            await asyncio.gather(*calls)
        assert server.methods == ["GET"] * 2 + ["POST"] * 2

    async def test_what_it_creates_is_remembered(self, keys: ApiKeys, clock: Clock) -> None:
        """A link that a resumed call created is not looked up again, since a list may not show it yet."""
        async with Server(holding()) as server, self.creator(server, keys, RetryPolicy()) as creator:
            link, _ = await in_no_time(clock, creator.resume(NEW, ended_at=0))
            assert (await creator.ensure(NEW)).link == link
            assert tuple(await creator.resume(NEW, ended_at=0)) == (link, False)
        assert server.methods == ["GET", "POST"]

    async def test_a_lookup_that_fails(self, keys: ApiKeys, at_once: RetryPolicy) -> None:
        """A failed lookup leaves the result ambiguous, and the error names the earlier run as the reason."""
        async with Server(answers(403)) as server, self.creator(server, keys, at_once) as creator:
            with pytest.raises(AmbiguousResultError, match="an earlier run may have sent") as caught:
                await creator.resume(NEW, ended_at=0)
        assert caught.value.new is NEW
        assert server.methods == ["GET", "GET"]


Call = Callable[[CaseLinksClient], Awaitable[object]]


class TestCancelling:
    @pytest.mark.parametrize(
        ("call", "steps"),
        [
            pytest.param(lambda links: links.ensure_link(NEW), "", id="ensure"),
            pytest.param(lambda links: links.ensure_link(NEW), "applied", id="ensure, reconciling"),
            pytest.param(lambda links: links.create_link(NEW), "applied", id="create, reconciling"),
        ],
    )
    async def test_at_any_moment(self, call: Call, steps: str, keys: ApiKeys, at_once: RetryPolicy) -> None:
        """A cancelled call leaves no task, slot or lock, and an equal call behind it gets the only link."""
        turns, is_done = 0, False
        async with leaving_nothing():
            while not is_done:
                api = Api()
                lost = api.applies(answers(500))

                async def lose_the_first(exchange: Exchange, api: Api = api, lost: Step = lost) -> None:
                    is_lost = exchange.seen.method == "POST" and steps and not api.links
                    await (lost if is_lost else api)(exchange)

                async with (
                    Server(lose_the_first) as server,
                    CaseLinksClient(server.url, keys, retry=at_once, max_concurrency=1) as links,
                ):
                    task = asyncio.ensure_future(call(links))
                    await settle(turns)
                    is_done = task.done()
                    task.cancel()
                    await asyncio.wait([task])
                    await settle(50)  # a request that is on its way arrives
                    link, _ = await links.ensure_link(NEW)
                assert [held["id"] for held in api.links] == [link.id] == ["link-0"], turns
                assert server.busy == 0
                turns += 1
                del task
        assert turns > 10

    async def test_one_of_equal_calls(self, api: Api, keys: ApiKeys) -> None:
        """A cancelled ``ensure_link`` call, waiting or not, does not block the equal calls behind it."""
        hold = Held(api)
        async with (
            leaving_nothing(),
            Server(api, hold) as server,
            CaseLinksClient(server.url, keys) as links,
        ):
            await links.list_links(NEW.child)
            first, second, third = (asyncio.create_task(links.ensure_link(NEW)) for _ in range(3))
            await server.until_seen(2)
            second.cancel()
            first.cancel()
            await settle()
            assert (first.cancelled(), second.cancelled()) == (True, True)
            hold.release(3)
            assert (await third)[1]
            del first, second, third
        assert len(api.links) == 1
