"""The rules of the client's operations over real connections: requests, retries, refusals and results."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import traceback
from collections import Counter
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import aiohttp
import pytest

from datadog_caselinks import (
    ApiKeys,
    AuthenticationError,
    BadRequestError,
    BearerToken,
    Case,
    CaseKey,
    CaseLink,
    CaseLinksClient,
    CaseLinksError,
    ConfigurationError,
    Failed,
    InvalidLinkError,
    MalformedResponseError,
    NotFoundError,
    ParameterError,
    PermissionDeniedError,
    RateLimitError,
    Reference,
    Relationship,
    ResponseError,
    RetryPolicy,
    ServerError,
    Site,
    incident,
)
from datadog_caselinks.sandbox import Fault, Sandbox
from datadog_caselinks.values.errors import ResponseTooLargeError
from tests.support.api import LINKS_PATH, Api
from tests.support.clock import Clock, in_no_time
from tests.support.ids import case, some_id
from tests.support.plain_server import PlainServer
from tests.support.server import Exchange, Server, Step, head
from tests.support.steps import (
    MALFORMED,
    UNCLEAR,
    Held,
    answers,
    created,
    deleted,
    drops,
    is_silent,
    link_json,
    listed,
    repeats,
    resets,
    sends,
)
from tests.support.tcp import sockets_to
from tests.support.variants import LAG, VARIANTS
from tests.support.waiting import settle

NEW = case(some_id(1)).causes(incident(some_id(2)))
NEVER = RetryPolicy(max_attempts=1, max_rate_limited=0)
whichever_way_the_api_is = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)


def error_body(text: str) -> bytes:
    return json.dumps({"errors": [text]}).encode()


class TestCreate:
    async def test_a_compressed_response_over_a_session_that_leaves_it_so(self, keys: ApiKeys) -> None:
        """A compressed response is read although the caller's session does not decompress."""

        async def created_compressed(exchange: Exchange) -> None:
            body = json.dumps({"data": link_json(exchange.seen.json["data"]["attributes"])}).encode()
            await exchange.answer(201, gzip.compress(body), Content_Encoding="gzip")

        async with (
            Server(created_compressed) as server,
            aiohttp.ClientSession(auto_decompress=False) as session,
            CaseLinksClient(server.url, keys, sessions=session) as links,
        ):
            assert (await links.create_link(NEW)).parent == NEW.parent

    async def test_the_link_that_was_created(self, keys: ApiKeys) -> None:
        """``create_link`` returns the link of the response, with the id that the server assigned."""
        async with Server(created) as server, CaseLinksClient(server.url, keys) as links:
            link = await links.create_link(NEW)
        assert link == CaseLink(f"link-{some_id(2)}", NEW.parent, Relationship.CAUSES, NEW.child)
        [seen] = server.seen
        assert (seen.method, seen.target) == ("POST", LINKS_PATH)
        assert seen.json["data"]["attributes"]["child_entity_type"] == "INCIDENT"

    @pytest.mark.parametrize(
        "step",
        [answers(429), answers(429, Retry_After="0"), answers(429, X_RateLimit_Reset="0")],
        ids=["bare", "Retry-After", "reset"],
    )
    async def test_rate_limited_then_created(
        self, step: Step, keys: ApiKeys, at_once: RetryPolicy, clock: Clock
    ) -> None:
        """A 429 is waited out any number of times, beyond the number of attempts."""
        steps = [step] * (at_once.max_attempts + 2)
        async with (
            Server(*steps, created) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            assert (await in_no_time(clock, links.create_link(NEW))).child == NEW.child
        assert len(server.seen) == len(steps) + 1

    async def test_the_wait_that_the_server_asks_for(self, keys: ApiKeys, clock: Clock) -> None:
        """Every call, also one that starts during the wait, waits exactly as long as ``Retry-After`` says."""
        async with (
            Server(answers(429, Retry_After="60"), created) as server,
            CaseLinksClient(server.url, keys, retry=RetryPolicy(base=0)) as links,
        ):
            calls = [asyncio.create_task(links.create_link(NEW)) for _ in range(2)]
            await server.until_seen(1)
            await settle()
            calls += [asyncio.create_task(call) for call in (links.create_link(NEW), links.create_link(NEW))]
            listing = asyncio.create_task(links.list_links(NEW.parent))
            clock.advance(59)
            await settle()
            assert server.methods == ["POST"]
            listing.cancel()
            clock.advance(1)
            await asyncio.gather(*calls)
        assert server.methods == ["POST"] * 5

    async def test_the_first_request_goes_alone(self, keys: ApiKeys) -> None:
        """The first request is sent alone, because only its response shows what is left of the rate limit."""
        hold = Held()
        async with Server(hold) as server, CaseLinksClient(server.url, keys) as links:
            calls = [asyncio.create_task(links.create_link(NEW)) for _ in range(10)]
            await server.until_seen(1)
            await settle()
            assert len(server.seen) == 1
            hold.release()
            await server.until_seen(10)
            hold.release(9)
            await asyncio.gather(*calls)

    async def test_a_first_request_without_a_response(self, keys: ApiKeys, clock: Clock) -> None:
        """A first request without a response delays the other calls for one second."""
        async with (
            Server(is_silent, created) as server,
            CaseLinksClient(server.url, keys) as links,
        ):
            silent, other = (asyncio.create_task(links.create_link(NEW)) for _ in range(2))
            await server.until_seen(1)
            clock.advance(0.9)
            await settle()
            assert len(server.seen) == 1
            clock.advance(0.1)
            await other
            assert not silent.done()
            silent.cancel()

    @pytest.mark.parametrize(
        ("status", "kind", "advice"),
        [
            (400, BadRequestError, "would be refused again"),
            (401, AuthenticationError, "Check DD_API_KEY and DD_APP_KEY, or DD_BEARER_TOKEN"),
            (403, PermissionDeniedError, "cases_write"),
            (404, NotFoundError, "One of its ends does not exist on this site"),
        ],
    )
    async def test_refusals_are_not_repeated(
        self, status: int, kind: type[CaseLinksError], advice: str, keys: ApiKeys
    ) -> None:
        """A refused create is sent once, and the error quotes the server's reason."""
        step = answers(status, error_body("so there"))
        async with Server(step) as server, CaseLinksClient(server.url, keys) as links:
            with pytest.raises(kind, match="so there") as caught:
                await links.create_link(NEW)
        assert len(server.seen) == 1
        assert advice in str(caught.value)
        assert str(NEW) in str(caught.value)

    async def test_what_may_have_been_created_is_looked_for(
        self, keys: ApiKeys, at_once: RetryPolicy
    ) -> None:
        """A create that may have been applied is looked up before it is sent again."""
        api = Api()
        async with (
            Server(api.applies(drops), api) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            link = await links.create_link(NEW)
        assert (server.methods, [held["id"] for held in api.links]) == (["POST", "GET"], [link.id])

    async def test_other_calls_continue_during_a_lookup(self, keys: ApiKeys, clock: Clock) -> None:
        """By default, a lost response is looked up after five seconds, in which other calls continue."""
        api = Api()
        async with (
            Server(api.applies(drops), created, api) as server,
            CaseLinksClient(server.url, keys, retry=RetryPolicy(base=0)) as links,
        ):
            unclear = asyncio.create_task(links.create_link(NEW))
            await server.until_seen(1)
            await settle()
            await links.create_link(NEW)
            clock.advance(4)
            await settle()
            assert server.methods == ["POST", "POST"]
            clock.advance(1)
            assert (await unclear).id == "link-0"
        assert server.methods == ["POST", "POST", "GET"]

    async def test_a_wait_too_long_is_an_error(self, keys: ApiKeys) -> None:
        """A 429 with a wait above ``max_wait`` is raised at once, with the seconds to wait."""
        step = answers(429, Retry_After="121")
        async with Server(step) as server, CaseLinksClient(server.url, keys) as links:
            with pytest.raises(RateLimitError) as caught:
                await links.create_link(NEW)
        assert caught.value.retry_after == 121
        assert len(server.seen) == 1


class TestList:
    async def test_the_links_of_an_entity(self, keys: ApiKeys) -> None:
        """``list_links`` returns all links of the response in the same order."""
        attributes = {
            "parent_entity_id": some_id(1),
            "parent_entity_type": "CASE",
            "relationship": "SOMETHING_NEW",
            "child_entity_id": some_id(2),
            "child_entity_type": "PAGE",
        }
        body = json.dumps({"data": [link_json(attributes), link_json(attributes | {"child_entity_id": "x"})]})
        async with (
            Server(answers(200, body.encode())) as server,
            CaseLinksClient(server.url, keys) as links,
        ):
            found = await links.list_links(NEW.parent)
        assert [link.id for link in found] == [f"link-{some_id(2)}", "link-x"]
        assert found[0].relationship == "SOMETHING_NEW"

    @pytest.mark.parametrize("relationship", [None, Relationship.ESCALATES_TO])
    async def test_the_query(self, relationship: Relationship | None, keys: ApiKeys) -> None:
        """The query of a list has the entity's type and id, and the relationship only if one is given."""
        async with Server(listed) as server, CaseLinksClient(server.url, keys) as links:
            assert await links.list_links(NEW.child, relationship=relationship) == []
        [seen] = server.seen
        assert (seen.method, urlsplit(seen.target).path, seen.body) == ("GET", LINKS_PATH, b"")
        expected = {"entity_type": ["INCIDENT"], "entity_id": [some_id(2)]}
        if relationship:
            expected["relationship"] = ["ESCALATES_TO"]
        assert parse_qs(urlsplit(seen.target).query, strict_parsing=True) == expected

    async def test_it_is_repeated(self, keys: ApiKeys) -> None:
        """A list is retried after server errors and lost connections, since reading is idempotent."""
        steps = [answers(503), answers(500), answers(408), drops, resets, sends(b"nonsense\r\n\r\n"), listed]
        policy = RetryPolicy(max_attempts=len(steps), base=0)
        async with Server(*steps) as server, CaseLinksClient(server.url, keys, retry=policy) as links:
            assert await links.list_links(NEW.parent) == []
        assert len(server.seen) == len(steps)

    async def test_not_for_ever(self, keys: ApiKeys, at_once: RetryPolicy) -> None:
        """A list raises the error of its last attempt."""
        async with (
            Server(answers(503)) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            with pytest.raises(ServerError, match="503"):
                await links.list_links(NEW.parent)
        assert len(server.seen) == at_once.max_attempts

    @pytest.mark.parametrize("name", [*UNCLEAR, *MALFORMED])
    async def test_each_failure_by_itself(self, name: str, keys: ApiKeys) -> None:
        """One more GET recovers from each failure of a list."""
        twice = RetryPolicy(max_attempts=2, base=0)
        async with (
            Server((UNCLEAR | MALFORMED)[name], listed) as server,
            CaseLinksClient(server.url, keys, retry=twice) as links,
        ):
            assert await links.list_links(NEW.parent) == []
        assert server.methods == ["GET", "GET"]

    async def test_no_response_in_time(self, keys: ApiKeys, at_once: RetryPolicy, clock: Clock) -> None:
        """A list that timed out is requested again."""
        async with (
            Server(is_silent, listed) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            assert await in_no_time(clock, links.list_links(NEW.parent)) == []
        assert server.methods == ["GET", "GET"]

    async def test_over_the_rate_limit(self, keys: ApiKeys, at_once: RetryPolicy, clock: Clock) -> None:
        """A list that was rate limited is requested again any number of times."""
        steps = [answers(429, Retry_After="7")] * 5
        async with (
            Server(*steps, listed) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            assert await in_no_time(clock, links.list_links(NEW.parent)) == []
        assert server.methods == ["GET"] * 6

    @pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 409, 422])
    async def test_refusals_are_not_repeated(self, status: int, keys: ApiKeys, at_once: RetryPolicy) -> None:
        """A refused list is requested once, and no other request is sent."""
        async with (
            Server(answers(status), listed) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            with pytest.raises(ResponseError) as caught:
                await links.list_links(NEW.parent)
        assert (server.methods, caught.value.status) == (["GET"], status)

    @pytest.mark.parametrize(
        ("fault", "requests"),
        [
            (Fault.LOST_RESPONSE, 2),
            (Fault.RESET, 2),
            (Fault.TRUNCATED, 2),
            (Fault.MALFORMED, 2),
            (Fault.HTTP_408, 2),
            (Fault.HTTP_429, 2),
            (Fault.HTTP_503_RETRY_AFTER, 2),
            (Fault.HTTP_504_APPLIED, 2),
        ],
    )
    @whichever_way_the_api_is
    async def test_each_fault_of_the_sandbox(
        self, fault: Fault, requests: int, variant: Any, at_once: RetryPolicy, clock: Clock
    ) -> None:
        """A list that meets a fault of the sandbox is complete after this number of requests."""
        async with (
            Sandbox(clock=clock.time, **variant) as sandbox,
            CaseLinksClient(sandbox.site, sandbox.credentials, retry=at_once) as links,
        ):
            link = await links.create_link(NEW)
            clock.advance(LAG)
            sandbox.fail_next(fault, operation="list")
            assert await in_no_time(clock, links.list_links(NEW.child)) == [link]
        assert [request.method for request in sandbox.requests] == ["POST", *["GET"] * requests]

    @pytest.mark.parametrize("body", [b"", b"{}", b'{"data": {}}', b"<html>"])
    async def test_a_malformed_list_is_an_error(
        self, body: bytes, keys: ApiKeys, at_once: RetryPolicy
    ) -> None:
        """A malformed list is requested again, and is never read as "no links"."""
        async with (
            Server(answers(200, body)) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            with pytest.raises(MalformedResponseError):
                await links.list_links(NEW.parent)
        assert len(server.seen) == at_once.max_attempts

    async def test_too_large_a_list_is_an_error(self, keys: ApiKeys, at_once: RetryPolicy) -> None:
        """A list that is too large is not requested again, because it would be as large the next time."""
        async with (
            Server(repeats(head(200), bytes(2**20))) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            with pytest.raises(ResponseTooLargeError):
                await links.list_links(NEW.parent)
        assert server.methods == ["GET"]


class TestDelete:
    async def test_by_link_and_by_id(self, keys: ApiKeys) -> None:
        """A link is deleted by its id, which is percent-encoded."""
        link = CaseLink("a/b?c=d&e#f%20 ../é", NEW.parent, Relationship.CAUSES, NEW.child)
        async with Server(deleted) as server, CaseLinksClient(server.url, keys) as links:
            await links.delete_link(link)
            await links.delete_link("804cd682-55f6-4541-ab00-b608b282ea7d")
        assert [(seen.method, seen.target, seen.body) for seen in server.seen] == [
            ("DELETE", f"{LINKS_PATH}/a%2Fb%3Fc%3Dd%26e%23f%2520%20..%2F%C3%A9", b""),
            ("DELETE", f"{LINKS_PATH}/804cd682-55f6-4541-ab00-b608b282ea7d", b""),
        ]

    @pytest.mark.parametrize("link_id", ["", ".", "..", "a\nb", None, 7])
    async def test_what_is_no_id_is_not_sent(self, link_id: Any, keys: ApiKeys) -> None:
        """A delete with an invalid id is not sent, because its path could name another resource."""
        async with Server(deleted) as server, CaseLinksClient(server.url, keys) as links:
            with pytest.raises(InvalidLinkError):
                await links.delete_link(link_id)
        assert server.connections == 0

    async def test_a_link_that_is_not_there(self, keys: ApiKeys) -> None:
        """A delete raises ``NotFoundError`` if its first attempt gets a 404."""
        async with Server(answers(404)) as server, CaseLinksClient(server.url, keys) as links:
            with pytest.raises(NotFoundError):
                await links.delete_link("x")
        assert len(server.seen) == 1

    @pytest.mark.parametrize(
        "steps",
        [
            *(pytest.param([step], id=name) for name, step in UNCLEAR.items()),
            pytest.param([drops, drops], id="dropped twice"),
        ],
    )
    async def test_gone_after_an_unclear_attempt(
        self, steps: list[Step], keys: ApiKeys, at_once: RetryPolicy
    ) -> None:
        """A 404 after an ambiguous attempt means that this attempt has deleted the link."""
        async with (
            Server(*steps, answers(404)) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            await links.delete_link("x")
        assert server.methods == ["DELETE"] * (len(steps) + 1)

    @pytest.mark.parametrize("name", UNCLEAR)
    async def test_there_after_an_unclear_attempt(
        self, name: str, keys: ApiKeys, at_once: RetryPolicy
    ) -> None:
        """A delete is sent again after an ambiguous attempt, without a lookup."""
        async with (
            Server(UNCLEAR[name], deleted) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            await links.delete_link("x")
        assert server.methods == ["DELETE", "DELETE"]

    @pytest.mark.parametrize("name", sorted(MALFORMED.keys() - {"201 about another link"}))
    async def test_the_body_of_a_success_does_not_matter(
        self, name: str, keys: ApiKeys, at_once: RetryPolicy
    ) -> None:
        """The status of a delete proves that the link is gone, unless the body is about another link."""
        async with (
            Server(MALFORMED[name], answers(404)) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            await links.delete_link("x")
        assert server.methods == ["DELETE"]

    @pytest.mark.parametrize("status", [302, 400, 401, 403, 409, 422])
    async def test_refusals_are_not_repeated(self, status: int, keys: ApiKeys, at_once: RetryPolicy) -> None:
        """A refused delete is sent once."""
        async with (
            Server(answers(status), deleted) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            with pytest.raises(ResponseError) as caught:
                await links.delete_link("x")
        assert (server.methods, caught.value.status) == (["DELETE"], status)

    @pytest.mark.parametrize(
        ("fault", "requests"),
        [
            (Fault.LOST_RESPONSE, 2),
            (Fault.RESET, 2),
            (Fault.HTTP_408, 2),
            (Fault.HTTP_429_NO_HINT, 2),
            (Fault.HTTP_503, 2),
            (Fault.HTTP_503_RETRY_AFTER, 2),
            (Fault.HTTP_504_APPLIED, 2),
        ],
    )
    @whichever_way_the_api_is
    async def test_each_fault_of_the_sandbox(
        self, fault: Fault, requests: int, variant: Any, at_once: RetryPolicy, clock: Clock
    ) -> None:
        """A delete that meets a fault deletes its link, and no other, with this number of requests."""
        async with (
            Sandbox(**variant) as sandbox,
            CaseLinksClient(sandbox.site, sandbox.credentials, retry=at_once) as links,
        ):
            link, other = await links.create_link(NEW), await links.create_link(NEW.child.causes(NEW.parent))
            sandbox.fail_next(fault, operation="delete")
            await in_no_time(clock, links.delete_link(link))
            assert [held.id for held in sandbox.links] == [other.id]
        assert [request.method for request in sandbox.requests][2:] == ["DELETE"] * requests

    @pytest.mark.parametrize(
        "steps", [[answers(429)], [drops, answers(429)]], ids=["at first", "after an unclear attempt"]
    )
    async def test_gone_after_a_429(
        self, steps: list[Step], keys: ApiKeys, at_once: RetryPolicy, clock: Clock
    ) -> None:
        """A 429 deletes nothing, so a 404 after it is an error unless an attempt before it was ambiguous."""
        async with (
            Server(*steps, answers(404)) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            with pytest.raises(NotFoundError) if len(steps) == 1 else contextlib.nullcontext():
                await in_no_time(clock, links.delete_link("x"))
        assert server.methods == ["DELETE"] * (len(steps) + 1)

    async def test_gone_after_a_time_out(self, keys: ApiKeys, at_once: RetryPolicy, clock: Clock) -> None:
        """A delete that timed out is ambiguous, so a 404 after it is a success."""

        async def too_late(exchange: Exchange) -> None:
            clock.advance(31)
            await is_silent(exchange)

        async with (
            Server(too_late, answers(404)) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            await links.delete_link("x")
        assert len(server.seen) == 2

    async def test_one_unclear_call_excuses_no_other(self, keys: ApiKeys, at_once: RetryPolicy) -> None:
        """An ambiguous attempt of one delete does not turn the 404 of another delete into a success."""
        async with (
            Server(answers(500), answers(404)) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            await links.delete_link("x")
            with pytest.raises(NotFoundError):
                await links.delete_link("x")


CASE = {"key": "SHOP-1", "title": "Checkout hangs", "status": "OPEN", "priority": "P1"}
got = answers(200, json.dumps({"data": {"type": "case", "id": some_id(1), "attributes": CASE}}).encode())


class Unwritable:
    """An object that cannot be written as a text."""

    def __str__(self) -> str:
        raise RuntimeError


class TestGetCase:
    @pytest.mark.parametrize(
        ("name", "sent"),
        [
            *((each, each) for each in ("SHOP-1", "shop-1", some_id(1), some_id(1).upper())),
            *((each, some_id(1)) for each in (UUID(int=1), case(some_id(1)))),
            (CaseKey("SHOP-1"), "SHOP-1"),
        ],
    )
    async def test_by_key_and_by_uuid(self, name: str | UUID | Reference, sent: str) -> None:
        """A case that is requested by its key or UUID has its UUID, its key and its attributes."""
        async with Sandbox() as sandbox, CaseLinksClient(sandbox.site, sandbox.credentials) as links:
            sandbox.add_case("SHOP-1", "Checkout hangs", status="CLOSED", priority="P1", id=some_id(1))
            found = await links.get_case(name)
        assert found == Case(some_id(1), "SHOP-1", "Checkout hangs", "CLOSED", "P1", "Closed", "SG_CLOSED")
        [seen] = sandbox.requests
        assert (seen.method, seen.path, seen.body) == ("GET", f"/api/v2/cases/{sent}", "")

    async def test_what_was_found_can_be_linked(self) -> None:
        """The entity of a case that was found can be an end of a link."""
        async with Sandbox() as sandbox, CaseLinksClient(sandbox.site, sandbox.credentials) as links:
            sandbox.add_case("SHOP-1")
            found = await links.get_case("SHOP-1")
            link = await links.create_link(found.entity.causes(NEW.child))
            assert [(held.id, held.parent_entity_id) for held in sandbox.links] == [(link.id, found.id)]

    @pytest.mark.parametrize(
        "name",
        ["", "x", "link", "..", "SHOP-1/..", "SHOP-1?x", "SHOP-1\n", f" {some_id(1)}", None, 7, b"A-1"],
    )
    async def test_what_is_neither_is_not_sent(self, name: Any, keys: ApiKeys) -> None:
        """A name that is neither a key nor a UUID is not sent: its path could name another resource."""
        async with Server(got) as server, CaseLinksClient(server.url, keys) as links:
            with pytest.raises(InvalidLinkError, match="is neither the key of a case nor a UUID"):
                await links.get_case(name)
        assert server.connections == 0

    @pytest.mark.parametrize("name", [10**5000, [10**5000], Unwritable()], ids=["int", "list", "object"])
    async def test_what_has_no_text(self, name: Any, keys: ApiKeys) -> None:
        """A number or an object that Python cannot convert to text is refused, and nothing is sent."""
        async with Server(got) as server, CaseLinksClient(server.url, keys) as links:
            for get in (links.get_case, links.get_incident):
                with pytest.raises(InvalidLinkError, match="has no text: a number may have too many digits"):
                    await get(name)
        assert server.connections == 0

    @pytest.mark.parametrize("name", ["SHOP-2", some_id(2)])
    async def test_a_case_that_is_not_there(self, name: str) -> None:
        """The error for an unknown case has the requested name once, and the most likely reasons."""
        async with Sandbox() as sandbox, CaseLinksClient(sandbox.site, sandbox.credentials) as links:
            with pytest.raises(NotFoundError) as caught:
                await links.get_case(name)
        hint = ". A case that moved to another project has another key" if name == "SHOP-2" else ""
        assert str(caught.value) == (
            f"cannot get case {name}: 404 case not found. "
            f"It does not exist on this site, or these credentials cannot access it{hint}"
        )
        assert caught.value.raw_errors == ({"code": "resource_not_found", "title": "case not found"},)
        assert len(sandbox.requests) == 1

    async def test_a_case_that_moved(self) -> None:
        """A case that moved to another project is found by its UUID and new key, and its links stay."""
        async with Sandbox() as sandbox, CaseLinksClient(sandbox.site, sandbox.credentials) as links:
            old = sandbox.add_case("SHOP-1", "Checkout hangs")
            link = await links.create_link(case(old.id).blocks(case(some_id(2))))
            sandbox.add_case("OPS-7", old.title, id=old.id)
            with pytest.raises(NotFoundError, match=r"moved to another project has another key$"):
                await links.get_case("SHOP-1")
            by_id, by_key = await links.get_case(old.id), await links.get_case("OPS-7")
            assert (by_id, by_id.key) == (by_key, "OPS-7")
            assert await links.list_links(by_key.entity) == [link]

    async def test_links_of_cases_that_are_not_there(self) -> None:
        """If the API refuses links and lists of unknown cases, each call says so and creates nothing."""
        async with (
            Sandbox(unknown_cases="not-found") as sandbox,
            CaseLinksClient(sandbox.site, sandbox.credentials) as links,
        ):
            known = sandbox.add_case("SHOP-1")
            new = case(known.id).blocks(case(some_id(2)))
            for call in (
                links.create_link(new),
                links.ensure_link(new),
                links.ensure_link(case(some_id(2)).blocks(case(known.id))),
                links.list_links(new.child),
                links.read_graph(new.child),
            ):
                with pytest.raises(
                    NotFoundError, match=r"404 case not found\. (It|One of its ends) does not exist"
                ):
                    await call
            (outcome,) = [outcome async for outcome in links.create_links([new], ensure=True)]
            assert isinstance(outcome, Failed)
            assert isinstance(outcome.error, NotFoundError)
            assert sandbox.links == []

    @pytest.mark.parametrize("status", [302, 400, 401, 403, 409, 422])
    async def test_refusals_are_not_repeated(self, status: int, keys: ApiKeys, at_once: RetryPolicy) -> None:
        """A refused lookup of a case is sent once, and the error of a 403 names the missing scope."""
        async with (
            Server(answers(status), got) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            with pytest.raises(ResponseError) as caught:
                await links.get_case("SHOP-1")
        assert (server.methods, caught.value.status) == (["GET"], status)
        assert ("the scope cases_read" in str(caught.value)) is (status == 403)

    @pytest.mark.parametrize("name", [*UNCLEAR, *MALFORMED])
    async def test_each_failure_by_itself(self, name: str, keys: ApiKeys) -> None:
        """One more GET recovers from each failure of a lookup of a case."""
        twice = RetryPolicy(max_attempts=2, base=0)
        async with (
            Server((UNCLEAR | MALFORMED)[name], got) as server,
            CaseLinksClient(server.url, keys, retry=twice) as links,
        ):
            assert await links.get_case("SHOP-1") == Case(some_id(1), **CASE)
        assert server.methods == ["GET", "GET"]

    @pytest.mark.parametrize(
        "fault",
        [
            Fault.LOST_RESPONSE,
            Fault.RESET,
            Fault.TRUNCATED,
            Fault.MALFORMED,
            Fault.HTTP_408,
            Fault.HTTP_429,
            Fault.HTTP_503_RETRY_AFTER,
            Fault.HTTP_504,
        ],
    )
    @whichever_way_the_api_is
    async def test_each_fault_of_the_sandbox(
        self, fault: Fault, variant: Any, at_once: RetryPolicy, clock: Clock
    ) -> None:
        """A lookup of a case succeeds on the second request after a fault of its own operation."""
        async with (
            Sandbox(**variant) as sandbox,
            CaseLinksClient(sandbox.site, sandbox.credentials, retry=at_once) as links,
        ):
            case_id = sandbox.add_case("SHOP-1").id
            sandbox.fail_next(fault, operation="get")
            assert await links.list_links(NEW.parent) == []
            assert (await in_no_time(clock, links.get_case("SHOP-1"))).id == case_id
        assert len(sandbox.requests) == 3

    async def test_not_for_ever(self, keys: ApiKeys, at_once: RetryPolicy) -> None:
        """A lookup of a case raises the error of its last attempt."""
        async with Server(answers(503)) as server, CaseLinksClient(server.url, keys, retry=at_once) as links:
            with pytest.raises(ServerError, match="cannot get case SHOP-1: 503"):
                await links.get_case("SHOP-1")
        assert len(server.seen) == at_once.max_attempts

    async def test_the_read_only_key_may(self) -> None:
        """A key without ``cases_write`` can read a case."""
        async with Sandbox() as sandbox:
            case_id = sandbox.add_case("SHOP-1").id
            async with CaseLinksClient(sandbox.site, sandbox.credentials_without_scope) as links:
                assert (await links.get_case("SHOP-1")).id == case_id


class TestCredentials:
    async def test_a_token_is_fetched_for_each_attempt(self, at_once: RetryPolicy) -> None:
        """A token is fetched for each attempt, so that an expired token is replaced."""
        fetched: list[str] = []

        async def fetch() -> str:
            fetched.append(f"token-{len(fetched)}")
            return fetched[-1]

        async with (
            Server(answers(500), listed, created) as server,
            CaseLinksClient(server.url, BearerToken(fetch), retry=at_once) as links,
        ):
            await links.create_link(NEW)
        assert [(seen.method, seen.headers["Authorization"]) for seen in server.seen] == [
            ("POST", "Bearer token-0"),
            ("GET", "Bearer token-1"),
            ("POST", "Bearer token-2"),
        ]

    async def test_a_fetch_that_fails(self, at_once: RetryPolicy) -> None:
        """The error of a failed token fetch is the cause of the raised error, and nothing is sent."""
        calls: list[None] = []

        async def fetch() -> str:
            calls.append(None)
            raise LookupError("no token")

        async with (
            Server(created) as server,
            CaseLinksClient(server.url, BearerToken(fetch), retry=at_once) as links,
        ):
            with pytest.raises(ConfigurationError, match="raised LookupError") as caught:
                await links.create_link(NEW)
        assert isinstance(caught.value.__cause__, LookupError)
        assert (server.connections, len(calls)) == (0, 1)


class TestConcurrency:
    async def test_no_more_at_once_than_asked_for(self, keys: ApiKeys) -> None:
        """The number of requests in flight equals the number of slots as long as calls are waiting."""
        hold = Held()
        async with (
            Server(created, hold) as server,
            CaseLinksClient(server.url, keys, max_concurrency=7) as links,
        ):
            await links.create_link(NEW)
            tasks = [asyncio.create_task(links.create_link(NEW)) for _ in range(40)]
            await server.until_seen(8)
            await settle()
            assert server.busy == 7
            hold.release(40)
            await asyncio.gather(*tasks)
        assert (server.most_busy, server.connections) == (7, 7)

    async def test_waiting_for_a_slot_takes_no_time(self, keys: ApiKeys, clock: Clock) -> None:
        """The timeout starts when a call gets its slot, so calls that wait longer in the queue succeed."""
        hold = Held()
        async with (
            Server(hold) as server,
            CaseLinksClient(server.url, keys, max_concurrency=1, timeout=30, retry=NEVER) as links,
        ):
            tasks = [asyncio.create_task(links.create_link(NEW)) for _ in range(4)]
            for count in range(1, 5):
                await server.until_seen(count)
                clock.advance(20)
                await settle()
                hold.release()
            await asyncio.gather(*tasks)
        assert len(server.seen) == 4

    async def test_cancelling_frees_the_slot_at_once(self, keys: ApiKeys) -> None:
        """A cancelled call closes its connection, and the next call in the queue continues."""
        hold = Held()
        async with Server(hold) as server:
            before = asyncio.all_tasks()
            async with CaseLinksClient(server.url, keys, max_concurrency=1) as links:
                first, second, third = (asyncio.create_task(links.create_link(NEW)) for _ in range(3))
                await server.until_seen(1)
                second.cancel()  # in the queue
                first.cancel()  # in flight
                await settle()
                assert first.cancelled()
                assert second.cancelled()
                await server.until_seen(2)
                hold.release(2)
                assert (await third).child == NEW.child
                assert sockets_to(server.port) == 1
            assert len(server.seen) == 2
            await server.until(lambda: server.open_connections == 0)
            assert asyncio.all_tasks() == before

    @pytest.mark.parametrize("status", [429, 503])
    async def test_cancelling_in_the_wait_between_attempts(
        self, status: int, keys: ApiKeys, clock: Clock
    ) -> None:
        """A call that is cancelled between two attempts ends at once, sends nothing and blocks no call."""
        async with (
            Server(answers(status, Retry_After="60"), created) as server,
            CaseLinksClient(server.url, keys, max_concurrency=1) as links,
        ):
            task = asyncio.create_task(links.create_link(NEW))
            await server.until_seen(1)
            await settle()
            task.cancel()
            await settle()
            assert task.cancelled()
            await in_no_time(clock, links.create_link(NEW))
        assert server.methods == ["POST", "POST"]

    @pytest.mark.slow
    async def test_ten_thousand_at_once(self, keys: ApiKeys) -> None:
        """Ten thousand calls in one ``gather`` create each link once and lose none."""
        wanted = [case(some_id(1)).relates_to(case(some_id(number))) for number in range(2, 10_002)]
        # The timeout is not what is tested: a machine may stand still for longer than the default.
        async with PlainServer() as server, CaseLinksClient(server.url, keys, timeout=3600) as client:
            created = await asyncio.gather(*(client.create_link(new) for new in wanted))
        assert [(link.parent, link.child) for link in created] == [(new.parent, new.child) for new in wanted]
        assert len({link.id for link in created}) == len(wanted)
        assert server.created == Counter(new.child.id for new in wanted)


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Remove all Datadog variables from the environment."""
    for name in os.environ:
        if name.startswith(("DD_", "DATADOG_")):
            monkeypatch.delenv(name)
    return monkeypatch


class TestFromEnv:
    async def test_site_and_credentials(self, environ: pytest.MonkeyPatch, at_once: RetryPolicy) -> None:
        """``from_env`` reads the site and the credentials from the environment, and passes the options on."""
        async with Server(answers(500), listed) as server:
            environ.setenv("DD_SITE", server.url)
            environ.setenv("DD_BEARER_TOKEN", "the-token")
            async with CaseLinksClient.from_env(retry=at_once, max_concurrency=3) as links:
                assert await links.list_links(NEW.parent) == []
        assert server.seen[0].headers["Authorization"] == "Bearer the-token"

    @pytest.mark.parametrize("site", [None, ""])
    def test_the_site_by_default(self, site: str | None, environ: pytest.MonkeyPatch) -> None:
        """The site is US1 if ``DD_SITE`` is not set, as in Datadog's own clients."""
        environ.setenv("DD_BEARER_TOKEN", "the-token")
        if site is not None:
            environ.setenv("DD_SITE", site)
        assert CaseLinksClient.from_env().site is Site.US1
        environ.setenv("DATADOG_SITE", "us5.datadoghq.com")  # the other spelling
        assert CaseLinksClient.from_env().site is Site.US5
        environ.setenv("DD_SITE", "ap1.datadoghq.com")
        assert CaseLinksClient.from_env().site is Site.AP1
        for given in (Site.EU1, "datadoghq.eu"):  # overrides the environment
            assert CaseLinksClient.from_env(given).site is Site.EU1

    @pytest.mark.parametrize(
        ("variables", "reported"),
        [
            ({}, "DD_API_KEY and DD_APP_KEY are not set"),
            ({"DD_API_KEY": "the-api-key"}, "DD_APP_KEY is not set"),
            ({"DD_BEARER_TOKEN": "the-token\n"}, "DD_BEARER_TOKEN contains white space"),
            ({"DD_API_KEY": "the-api-key\n", "DD_APP_KEY": "the-app-key"}, "DD_API_KEY contains white space"),
            (
                {"DD_API_KEY": "the-api-key", "DD_APP_KEY": "the-app-key", "DD_BEARER_TOKEN": "the-token"},
                "unset",
            ),
        ],
    )
    def test_what_is_missing_is_named_and_no_secret_shown(
        self, variables: dict[str, str], reported: str, environ: pytest.MonkeyPatch
    ) -> None:
        """The message names the variable, and neither the message nor a local variable contains its value."""
        for name in variables:
            environ.setenv(name, variables[name])
        with pytest.raises(ConfigurationError, match=reported) as caught:
            CaseLinksClient.from_env()
        report = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        frames = [str(caught.value), *(str(frame.locals) for frame in report.stack[1:])]
        assert not [frame for frame in frames for value in variables.values() if value.strip() in frame]

    def test_a_site_that_is_none_names_the_variable(self, environ: pytest.MonkeyPatch) -> None:
        """The message for an invalid site begins with ``DD_SITE``, so that the reader knows what to fix."""
        environ.setenv("DD_SITE", "datadog.eu")
        with pytest.raises(ConfigurationError, match=r"^DD_SITE: 'datadog\.eu' is not a Datadog site"):
            CaseLinksClient.from_env()


def limited(status: int, body: bytes = b"", *, remaining: int) -> Step:
    """Return a step that reports a window of 60 s and what is left of it."""
    return answers(
        status,
        body,
        X_RateLimit_Limit="10",
        X_RateLimit_Period="60",
        X_RateLimit_Reset="30",
        X_RateLimit_Remaining=str(remaining),
        X_RateLimit_Name="case_links",
    )


class TestRateLimit:
    @pytest.mark.parametrize("status", [400, 403, 404])
    async def test_an_error_without_headers_opens_nothing(self, status: int, keys: ApiKeys) -> None:
        """An error without rate limit headers may be a proxy's, so the next request is still sent alone."""
        hold = Held()
        async with Server(answers(status), hold) as server, CaseLinksClient(server.url, keys) as links:
            with pytest.raises(CaseLinksError):
                await links.list_links(NEW.parent)
            calls = [asyncio.create_task(links.create_link(NEW)) for _ in range(5)]
            await server.until_seen(2)
            await settle()
            assert len(server.seen) == 2
            hold.release(5)
            await asyncio.gather(*calls)

    async def test_wrong_keys_hold_nobody_up(self, keys: ApiKeys) -> None:
        """A 401 does not hold back the calls that wait: each gets its own 401 as soon as possible."""
        hold = Held(answers(401))
        async with Server(answers(401), hold) as server, CaseLinksClient(server.url, keys) as links:
            with pytest.raises(AuthenticationError):
                await links.create_link(NEW)
            calls = [asyncio.create_task(links.create_link(NEW)) for _ in range(5)]
            await server.until_seen(6)
            hold.release(5)
            reported = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(error) for error in reported} == {AuthenticationError}

    async def test_the_window_as_reported(self, keys: ApiKeys, clock: Clock) -> None:
        """``rate_limit`` is ``None`` before the first response, then has what is left of the window."""
        async with (
            Server(limited(403, remaining=7), limited(403, remaining=6)) as server,
            CaseLinksClient(server.url, keys) as links,
        ):
            reported = [links.rate_limit]
            for _ in range(2):
                with pytest.raises(PermissionDeniedError):
                    await links.create_link(NEW)
                reported.append(links.rate_limit)
            assert reported[0] is None
            assert [window and window.remaining for window in reported] == [None, 7, 6]
            assert reported[1]
            assert (reported[1].limit, reported[1].period, reported[1].name) == (10, 60, "case_links")
            clock.advance(20)
            later = links.rate_limit
            assert later
            assert later.reset
            assert 0 < later.reset <= 10
            clock.advance(10)
            assert links.rate_limit is None

    async def test_none_is_reported(self, keys: ApiKeys) -> None:
        """``rate_limit`` is ``None`` if the responses report no limit."""
        async with Server(created) as server, CaseLinksClient(server.url, keys) as links:
            await links.create_link(NEW)
            assert links.rate_limit is None

    async def test_a_window_that_is_used_up(self, keys: ApiKeys, clock: Clock) -> None:
        """A call waits for the end of a window that is used up, and sends nothing before."""
        async with (
            Server(limited(403, remaining=0), created) as server,
            CaseLinksClient(server.url, keys) as links,
        ):
            with pytest.raises(PermissionDeniedError):
                await links.create_link(NEW)
            task = asyncio.create_task(links.create_link(NEW))
            await settle()
            clock.advance(29)
            await settle()
            assert len(server.seen) == 1
            clock.advance(1)
            await task
        assert len(server.seen) == 2

    async def test_a_window_that_is_used_up_for_too_long(self, keys: ApiKeys) -> None:
        """A call that would wait longer than ``max_wait`` for a window fails at once, with the seconds."""
        async with (
            Server(limited(403, remaining=0)) as server,
            CaseLinksClient(server.url, keys, retry=RetryPolicy(max_wait=29, max_rate_limited=0)) as links,
        ):
            with pytest.raises(PermissionDeniedError):
                await links.create_link(NEW)
            with pytest.raises(RateLimitError, match="max_wait") as caught:
                await links.create_link(NEW)
        assert caught.value.retry_after
        assert 29 < caught.value.retry_after <= 30
        assert len(server.seen) == 1

    async def test_a_server_error_updates_the_window(self, keys: ApiKeys, clock: Clock) -> None:
        """A server error with rate limit headers updates ``rate_limit``; without, it counts as a request."""
        once = RetryPolicy(max_attempts=1)
        async with (
            Server(limited(500, remaining=4), answers(502)) as server,
            CaseLinksClient(server.url, keys, retry=once) as links,
        ):
            for remaining in (4, 3):  # the 502 may have been counted too
                with pytest.raises(ServerError):
                    await links.list_links(NEW.parent)
                assert links.rate_limit
                assert links.rate_limit.remaining == remaining


class TestClient:
    def test_its_repr_has_no_secret(self, keys: ApiKeys) -> None:
        """The ``repr`` of a client shows only the site."""
        links = CaseLinksClient("EU1", keys, proxy="http://user:password@proxy.example:3128")
        assert repr(links) == f"CaseLinksClient({Site.EU1!r})"

    @pytest.mark.parametrize("count", [0, -1])
    def test_no_slot_is_refused(self, count: int, keys: ApiKeys) -> None:
        """A client without slots is refused, since every call would wait forever."""
        with pytest.raises(ParameterError, match="max_concurrency must be at least 1"):
            CaseLinksClient("EU1", keys, max_concurrency=count)

    def test_a_site_is_taken_as_it_is_or_parsed(self, keys: ApiKeys) -> None:
        """The site of a client is a ``Site`` or a text for ``Site.parse``."""
        assert CaseLinksClient(Site.AP1, keys).site is Site.AP1
        assert CaseLinksClient("https://app.datadoghq.eu/cases", keys).site is Site.EU1
