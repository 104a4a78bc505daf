"""The rules of finding incidents by number: a search, whose results must match exactly."""

from __future__ import annotations

import json
import logging
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import pytest

from datadog_caselinks import (
    ApiKeys,
    BadRequestError,
    CaseKey,
    CaseLinksClient,
    Incident,
    IncidentNumber,
    InvalidLinkError,
    MalformedResponseError,
    NotFoundError,
    PermissionDeniedError,
    RetryPolicy,
    ServerError,
    page,
    parse_link,
)
from datadog_caselinks.observation.events import CallEvent, CallFinished
from datadog_caselinks.sandbox import Fault, Sandbox
from datadog_caselinks.values import models
from tests.support.ids import case, incident, some_id
from tests.support.server import Exchange, Server, Step
from tests.support.steps import answers

A: str = some_id(0xA)
NEVER = RetryPolicy(max_attempts=1, max_rate_limited=0)
QUERIES_OF_A_NUMBER = ["slug:IR-123", "public_id:123", "123"]
QUERIES_OF_A_KEY = ["slug:IR-123", '"IR-123"']


def resource(id: str = A, number: object = 123, slug: object = "IR-123", **more: Any) -> dict[str, Any]:
    """Return an incident in the form of the API."""
    attributes = {"public_id": number, "title": "Checkout fails", "state": "active"}
    fields = {"slug": {"type": "textbox", "value": slug}}
    return {"id": id, "type": "incidents", "attributes": {**attributes, "fields": fields, **more}}


def found(*resources: dict[str, Any], total: object = ...) -> Step:
    """Return a step that responds to a search with these incidents and, by default, their number."""
    attributes = {"total": len(resources), "incidents": [{"data": each} for each in resources]}
    if total is not ...:
        attributes["total"] = total
    body = {"data": {"type": "incidents_search_results", "attributes": attributes}}
    return answers(200, json.dumps(body).encode(), Content_Type="application/json")


def queries(server: Server) -> list[str]:
    """Return the queries that the server received."""
    return [parse_qs(urlsplit(seen.target).query)["query"][0] for seen in server.seen]


class TestGetIncident:
    async def test_by_its_number_its_key_or_its_uuid(self, sandbox: Sandbox, client: CaseLinksClient) -> None:
        """An incident is found by each of its names, as text or as a number."""
        sandbox.add_incident(123, "Checkout fails", state="stable", id=A)
        texts = ("123", "IR-123", "ir-123", "incident:IR-123", A, A.upper())
        for name in (*texts, 123, UUID(A), IncidentNumber("123"), incident(A)):
            assert await client.get_incident(name) == Incident(A, "123", "IR-123", "Checkout fails", "stable")

    async def test_the_recorded_response(self, keys: ApiKeys) -> None:
        """An incident is read in the form that Datadog sends, with any other members."""
        more: dict[str, Any] = {
            "severity": "UNKNOWN",
            "resolved": None,
            "customer_impacted": False,
            "case_id": None,
        }
        async with (
            Server(answers(200, json.dumps({"data": resource(**more)}).encode())) as server,
            CaseLinksClient(server.url, keys) as client,
        ):
            got = await client.get_incident(A)
        assert got == Incident(A, "123", "IR-123", "Checkout fails", "active")
        assert (str(got), got.entity) == ("IR-123 Checkout fails", incident(A))

    @pytest.mark.parametrize(
        ("attributes", "expected"),
        [
            (None, ("", "", "", "")),
            ([], ("", "", "", "")),
            ({"public_id": "7", "fields": None}, ("7", "", "", "")),
            ({"public_id": True, "fields": {"slug": "IR-7"}}, ("", "", "", "")),
            ({"title": 7, "fields": {"state": {"value": "resolved"}}}, ("", "", "", "resolved")),
        ],
    )
    async def test_what_is_missing_is_empty(
        self, keys: ApiKeys, attributes: object, expected: tuple[str, ...]
    ) -> None:
        """An attribute of an incident that is missing or of another type is empty."""
        body = json.dumps({"data": {"id": A, "attributes": attributes}}).encode()
        async with Server(answers(200, body)) as server, CaseLinksClient(server.url, keys) as client:
            assert await client.get_incident(A) == Incident(A, *expected)

    async def test_an_incident_without_a_key_is_shown_by_its_number_or_id(self) -> None:
        """The ``str`` of an incident is its key, or else its number or its id."""
        assert str(Incident(A, "7", "", "", "")) == "7"
        assert str(Incident(A, "", "", "", "")) == A

    @pytest.mark.parametrize("name", ["", "IR", "IR 1", "#1", "../cases", -1, None, 1.5])
    async def test_what_is_neither_number_nor_uuid_is_refused(
        self, sandbox: Sandbox, client: CaseLinksClient, name: Any
    ) -> None:
        """A text that cannot name an incident is refused before anything is sent."""
        with pytest.raises(InvalidLinkError, match="is neither the number of an incident nor a UUID"):
            await client.get_incident(name)
        assert not sandbox.requests

    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            ({"data": resource(some_id(1))}, "response: it is about another incident$"),
            ({"data": {"id": A, "type": "case"}}, "it is about a case"),
            ({"data": [resource()]}, "not an object"),
            ({}, "missing"),
        ],
    )
    async def test_a_response_about_something_else_is_refused(
        self, keys: ApiKeys, body: Any, reason: str
    ) -> None:
        """A response about something else than the request is refused."""
        async with (
            Server(answers(200, json.dumps(body).encode())) as server,
            CaseLinksClient(server.url, keys, retry=NEVER) as client,
        ):
            with pytest.raises(MalformedResponseError, match=rf"^cannot get incident {A}: 200 .*{reason}"):
                await client.get_incident(A)

    async def test_a_response_about_an_incident_is_not_a_case(self, keys: ApiKeys) -> None:
        """A response about an incident is never accepted as a case without a key."""
        async with (
            Server(answers(200, json.dumps({"data": resource()}).encode())) as server,
            CaseLinksClient(server.url, keys, retry=NEVER) as client,
        ):
            with pytest.raises(MalformedResponseError, match="it is about an incident"):
                await client.get_case("SHOP-1")

    @pytest.mark.parametrize("name", ["123", "IR-123", A])
    async def test_without_the_permission(self, sandbox: Sandbox, name: str) -> None:
        """The error for missing permissions names the permission."""
        sandbox.add_incident(123, id=A)
        async with CaseLinksClient(sandbox.site, sandbox.credentials_without_incidents) as client:
            with pytest.raises(PermissionDeniedError) as caught:
                await client.get_incident(name)
        assert str(caught.value).endswith(
            "The application key or token may lack the scope incident_read, "
            "or access to the project or incident"
        )
        assert f"incident {name}: 403 " in str(caught.value)

    async def test_a_failed_attempt_is_retried(self, sandbox: Sandbox, client: CaseLinksClient) -> None:
        """A failed search or lookup of an incident is retried."""
        sandbox.add_incident(123, id=A)
        sandbox.fail_next(Fault.HTTP_503, operation="search_incidents")
        sandbox.fail_next(Fault.HTTP_503, operation="get_incident")
        assert (await client.get_incident("123")).id == A
        assert (await client.get_incident(A)).id == A

    async def test_observers_see_what_was_requested(self, sandbox: Sandbox) -> None:
        """Observers see the operation of each request, with the name of the incident as its subject."""
        sandbox.add_incident(123, id=A)
        events: list[CallEvent] = []
        async with CaseLinksClient(sandbox.site, sandbox.credentials, on_event=events.append) as client:
            got = [await client.get_incident(name) for name in (123, A)]
        calls = [event.call for event in events if isinstance(event, CallFinished)]
        assert [(call.operation, call.subject, call.attempts, call.result) for call in calls] == [
            ("search_incidents", "123", 1, got[0]),
            ("get_incident", A, 1, got[1]),
        ]


class TestExactMatch:
    @pytest.mark.parametrize("way", ["slug", "public-id", "text", "all"])
    async def test_any_query_that_finds_a_number(self, way: Any) -> None:
        """An incident is found by any query that the server may support, among similar numbers."""
        async with (
            Sandbox(incident_search=way) as sandbox,
            CaseLinksClient(sandbox.site, sandbox.credentials, retry=NEVER) as client,
        ):
            ids = {number: sandbox.add_incident(number).id for number in (12, 123, 1234, 23, 1123)}
            assert (await client.get_incident(123)).id == ids[123]
            assert (await client.get_incident("12")).id == ids[12]
            with pytest.raises(NotFoundError):
                await client.get_incident(1)

    @pytest.mark.parametrize(
        "other",
        [
            resource(number=1234, slug="IR-1234"),
            resource(number=12, slug="IR-12"),
            resource(number=None, slug=None),
            resource(number=12.3, slug=123),
            resource(number=9, slug="IR-0123"),
            resource(number=9, slug="XIR-123"),
            resource(number=9, slug="IR-123-1"),
            resource(number=9, slug="IR-9", title="IR-123 was worse"),
        ],
    )
    @pytest.mark.parametrize("name", ["123", "IR-123"])
    async def test_a_result_with_another_number_is_not_believed(
        self, keys: ApiKeys, name: str, other: dict[str, Any]
    ) -> None:
        """An incident of a search counts only if it has exactly the requested number."""
        async with Server(found(other)) as server, CaseLinksClient(server.url, keys) as client:
            with pytest.raises(NotFoundError) as caught:
                await client.get_incident(name)
            expected = QUERIES_OF_A_NUMBER if name == "123" else QUERIES_OF_A_KEY
            assert queries(server) == expected
        assert str(caught.value) == (
            f"cannot find incident {name}: no incident on this site has this number, or these credentials "
            "cannot access it"
        )
        assert caught.value.status == 404

    async def test_a_key_is_compared_with_the_key_and_a_number_with_the_number(self, keys: ApiKeys) -> None:
        """A key is compared with keys and a number with numbers, since a key may have any prefix."""
        server = Server(found(resource(slug="OPS-123"), resource(some_id(1), 9, "IR-123")))
        async with server, CaseLinksClient(server.url, keys) as client:
            assert (await client.get_incident("123")).id == A
            assert (await client.get_incident("ops-123")).id == A
            assert (await client.get_incident("IR-123")).id == some_id(1)

    async def test_two_incidents_with_one_number(self, keys: ApiKeys) -> None:
        """An ambiguous number is an error, and neither incident is returned."""
        async with (
            Server(found(resource(), resource(some_id(1)))) as server,
            CaseLinksClient(server.url, keys, retry=NEVER) as client,
        ):
            with pytest.raises(
                MalformedResponseError, match=r"^cannot find incident 123: 2 incidents have this number$"
            ):
                await client.get_incident("123")

    async def test_an_incident_that_is_found_twice_is_one(self, keys: ApiKeys) -> None:
        """An incident that a search repeats counts once."""
        server = Server(found(resource(), resource()))
        async with server, CaseLinksClient(server.url, keys) as client:
            assert (await client.get_incident("123")).id == A

    async def test_a_later_page(self, keys: ApiKeys) -> None:
        """A server that ignores the query is searched for a few pages."""
        others = [resource(some_id(number), number, f"IR-{number}") for number in range(1000, 1100)]
        server = Server(found(*others), found(resource()))
        async with server, CaseLinksClient(server.url, keys) as client:
            assert (await client.get_incident("IR-123")).id == A
            targets = [parse_qs(urlsplit(seen.target).query) for seen in server.seen]
        assert [target["page[offset]"] for target in targets] == [["0"], ["100"]]
        server = Server(found(*others))
        async with server, CaseLinksClient(server.url, keys) as client:
            with pytest.raises(NotFoundError):
                await client.get_incident("IR-123")
            assert len(server.seen) == 10

    async def test_two_incidents_with_one_number_on_different_pages(self, keys: ApiKeys) -> None:
        """A second incident with the number is noticed on any page, and a repeated incident counts once."""
        twice = found(resource(some_id(1)), total=3), found(resource(some_id(1)), total=3)
        server = Server(*twice, found(resource(some_id(2)), total=3))
        async with server, CaseLinksClient(server.url, keys, retry=NEVER) as client:
            with pytest.raises(MalformedResponseError, match=r"123: 2 incidents have this number$"):
                await client.get_incident("123")
            offsets = [parse_qs(urlsplit(seen.target).query)["page[offset]"] for seen in server.seen]
            assert offsets == [["0"], ["1"], ["2"]]
        server = Server(*twice, found(resource(some_id(1)), total=3))
        async with server, CaseLinksClient(server.url, keys, retry=NEVER) as client:
            assert (await client.get_incident("123")).id == some_id(1)
            assert len(server.seen) == 3

    @pytest.mark.parametrize("total", [3, None, "3", True])
    async def test_a_short_page_is_not_the_last_one(self, keys: ApiKeys, total: object) -> None:
        """A short page does not end a search: only the total or an empty page does."""
        other = resource(some_id(1), 9, "IR-9")
        server = Server(found(other, total=total), found(other, total=total), found(resource(), total=total))
        if total != 3:
            server = Server(
                found(other, total=total), found(other, total=total), found(resource(), total=total), found()
            )
        async with server, CaseLinksClient(server.url, keys) as client:
            assert (await client.get_incident("123")).id == A
            assert len(server.seen) == (3 if total == 3 else 4)

    @pytest.mark.parametrize("page", [[], [resource(some_id(1), 9, "IR-9")]])
    async def test_a_search_without_an_end_is_bounded(
        self, keys: ApiKeys, caplog: pytest.LogCaptureFixture, page: list[dict[str, Any]]
    ) -> None:
        """A query ends after five pages, and the log says that there may be more."""
        server = Server(found(*page, total=10**6))
        async with server, CaseLinksClient(server.url, keys) as client:
            with caplog.at_level(logging.WARNING), pytest.raises(NotFoundError):
                await client.get_incident("IR-123")
            assert len(server.seen) == 10
        message = "the search for incident IR-123 ends after 5 pages, although there may be more"
        assert caplog.messages == [message] * 2

    async def test_a_search_without_an_end_that_has_found_the_incident(
        self, keys: ApiKeys, caplog: pytest.LogCaptureFixture
    ) -> None:
        """An incident on the first five pages is returned, even if the search has no end."""
        server = Server(found(resource(), total=10**6))
        async with server, CaseLinksClient(server.url, keys) as client:
            with caplog.at_level(logging.WARNING):
                assert (await client.get_incident("123")).id == A
            assert len(server.seen) == 5
        assert not caplog.messages

    @pytest.mark.parametrize(
        "flawed", [{}, {"data": {}}, {"data": {"id": ""}}, {"data": {"id": 7}}, {"data": None}, None, "x"]
    )
    async def test_what_is_not_an_incident_is_left_out(
        self, keys: ApiKeys, caplog: pytest.LogCaptureFixture, flawed: object
    ) -> None:
        """A flawed member is left out, and the log has the number of flawed members and the reason."""
        body = {"data": {"attributes": {"total": 2, "incidents": [flawed, {"data": resource()}]}}}
        server = Server(answers(200, json.dumps(body).encode()))
        async with server, CaseLinksClient(server.url, keys, retry=NEVER) as client:
            with caplog.at_level(logging.WARNING):
                assert (await client.get_incident("123")).id == A
            assert len(server.seen) == 1
        (message,) = caplog.messages
        assert message.startswith(
            "a page of the search for incident 123 has 1 member that cannot be read as incidents"
        )

    @pytest.mark.parametrize(
        ("members", "reason"),
        [
            ([{"data": {"id": A, "type": "case"}}, {"data": resource()}], "it is about a case"),
            ([{"data": {"type": "link"}}], "it is about a link"),
            ([{}] * 1001, "more than 1000 members that are not incidents: "),
        ],
    )
    async def test_a_list_of_something_else_is_refused(
        self, keys: ApiKeys, members: list[Any], reason: str
    ) -> None:
        """Members of another type, or too many flawed ones, are an error and not an empty result."""
        body = json.dumps({"data": {"attributes": {"incidents": members}}}).encode()
        server = Server(answers(200, body))
        async with server, CaseLinksClient(server.url, keys, retry=NEVER) as client:
            with pytest.raises(MalformedResponseError, match=reason):
                await client.get_incident("123")

    async def test_a_query_that_the_server_refuses(self, keys: ApiKeys) -> None:
        """A query that the server does not support is followed by the next one."""
        async with (
            Server(answers(400), found(resource())) as server,
            CaseLinksClient(server.url, keys) as client,
        ):
            assert (await client.get_incident("123")).id == A
            assert queries(server) == QUERIES_OF_A_NUMBER[:2]

    async def test_a_server_that_refuses_all_queries(self, keys: ApiKeys) -> None:
        """The refusal of the server is raised only if it refuses every query."""
        async with Server(answers(400)) as server, CaseLinksClient(server.url, keys) as client:
            with pytest.raises(BadRequestError, match=r"^cannot find incident 123: 400 "):
                await client.get_incident("123")
            assert queries(server) == QUERIES_OF_A_NUMBER
        async with Server(answers(400), found()) as server, CaseLinksClient(server.url, keys) as client:
            with pytest.raises(NotFoundError):
                await client.get_incident("123")

    @pytest.mark.parametrize(
        "body", [{}, {"data": []}, {"data": {"attributes": {}}}, {"data": {"attributes": {"incidents": {}}}}]
    )
    async def test_a_response_that_is_not_a_search_result(self, keys: ApiKeys, body: Any) -> None:
        """A response without results is an error and not an empty result."""
        async with (
            Server(answers(200, json.dumps(body).encode())) as server,
            CaseLinksClient(server.url, keys, retry=NEVER) as client,
        ):
            with pytest.raises(MalformedResponseError, match=r"^cannot find incident 123: 200 "):
                await client.get_incident("123")


class TestResolver:
    async def test_each_incident_is_looked_up_once(self, sandbox: Sandbox, client: CaseLinksClient) -> None:
        """All names of an incident share what one request found."""
        sandbox.add_incident(123, id=A)
        resolver = client.resolver()
        for name in ("incident:123", "incident:IR-123", f"{sandbox.url}/incidents/123", f"incident:{A}"):
            assert await resolver.entity(name) == incident(A)
        assert (await resolver.incident(incident(A))).key == "IR-123"
        assert (await resolver.incident(IncidentNumber("123"))).key == "IR-123"
        assert len(sandbox.requests) == 1

    async def test_a_number_that_python_cannot_write(self, client: CaseLinksClient) -> None:
        """A number with thousands of digits is refused as one that no incident can have."""
        expected = "^<int, whose repr fails> has no text: a number may have too many digits$"
        with pytest.raises(InvalidLinkError, match=expected):
            models.incident(10**5000)
        with pytest.raises(InvalidLinkError, match=expected):
            await client.get_incident(10**5000)

    async def test_an_unknown_incident_is_searched_once(
        self, sandbox: Sandbox, client: CaseLinksClient
    ) -> None:
        """An unknown incident is remembered too, and searched for only once."""
        resolver = client.resolver()
        for _ in range(2):
            with pytest.raises(NotFoundError, match=r"^cannot find incident 9: "):
                await resolver.entity("incident:9")
        assert len(sandbox.requests) == len(QUERIES_OF_A_NUMBER)

    async def test_a_link_with_an_incident(self, sandbox: Sandbox, client: CaseLinksClient) -> None:
        """A link can be created between a case and an incident by key and number."""
        sandbox.add_incident(123, id=A)
        sandbox.add_case("SHOP-1", id=some_id(1))
        wanted = parse_link("incident:123", "causes", "SHOP-1", site=client.site)
        assert str(wanted) == "incident:123 CAUSES SHOP-1"
        assert await client.resolver().link(wanted) == incident(A).causes(case(some_id(1)))
        outcomes = [outcome async for outcome in client.create_links([wanted])]
        assert [(outcome.index, sandbox.links[0].parent_entity_id) for outcome in outcomes] == [(0, A)]

    async def test_an_incident_and_a_case_with_one_key(
        self, sandbox: Sandbox, client: CaseLinksClient
    ) -> None:
        """A key with the prefix ``incident:`` names an incident, and without it a case."""
        sandbox.add_incident(1, id=A)
        sandbox.add_case("IR-1", id=some_id(1))
        resolver = client.resolver()
        assert await resolver.entity("IR-1") == case(some_id(1))
        assert await resolver.entity("incident:IR-1") == incident(A)

    async def test_an_incident_that_is_taken_for_a_case(
        self, sandbox: Sandbox, client: CaseLinksClient
    ) -> None:
        """The message for an unknown case says how an incident of this name is written."""
        sandbox.add_incident(1)
        with pytest.raises(NotFoundError, match=r"If IR-1 is an incident, write incident:IR-1$"):
            await client.resolver().entity("IR-1")

    async def test_an_id_that_is_not_a_uuid(self, keys: ApiKeys) -> None:
        """The id of an incident that is not a UUID is an error, which does not show the id."""
        async with (
            Server(found(resource("the-key"))) as server,
            CaseLinksClient(server.url, keys) as client,
        ):
            with pytest.raises(
                MalformedResponseError, match=r"^cannot find incident 123: its id is not a UUID$"
            ):
                await client.resolver().entity("incident:123")

    async def test_what_is_not_a_reference_is_refused(self, client: CaseLinksClient) -> None:
        """A lookup of an incident takes a number or an entity."""
        with pytest.raises(InvalidLinkError, match="is not a reference to an incident"):
            await client.resolver().incident(CaseKey("IR-1"))
        with pytest.raises(InvalidLinkError, match="is not a reference to an incident"):
            await client.resolver().incident(case(some_id(1)))
        with pytest.raises(InvalidLinkError, match=r"^CaseKey\(.*\) is not a reference to an incident"):
            await client.get_incident(CaseKey("IR-1"))
        for get_case in (client.get_case, client.resolver().case):
            with pytest.raises(InvalidLinkError, match=r"^Entity\(.*\) is not a reference to a case"):
                await get_case(incident(some_id(1)))


class TestDetails:
    async def test_of_each_type(self, sandbox: Sandbox, client: CaseLinksClient) -> None:
        """Cases and incidents have details; pages and unknown entities have none."""
        sandbox.add_incident(123, "Checkout fails", id=A)
        sandbox.add_case("SHOP-1", id=some_id(1))
        resolver = client.resolver()
        known = [
            await resolver.details(entity)
            for entity in (incident(A), case(some_id(1)), page(A), incident(some_id(9)), case(some_id(9)))
        ]
        assert [each.key if each else None for each in known] == ["IR-123", "SHOP-1", None, None, None]

    @pytest.mark.parametrize("status", [400, 403, 500])
    async def test_an_incident_that_cannot_be_read_does_not_hide_the_rest(
        self, keys: ApiKeys, caplog: pytest.LogCaptureFixture, status: int
    ) -> None:
        """An incident that cannot be read has no details, and the log says so once for all."""
        async with (
            Server(answers(status)) as server,
            CaseLinksClient(server.url, keys, retry=NEVER) as client,
        ):
            resolver = client.resolver()
            with caplog.at_level(logging.WARNING, "datadog_caselinks"):
                assert [await resolver.details(incident(some_id(number))) for number in (1, 2)] == [None] * 2
        (record,) = [each for each in caplog.records if each.name == "datadog_caselinks.calls.resolver"]
        assert record.getMessage().startswith(
            f"an incident is shown without its number and title: cannot get incident {some_id(1)}: {status} "
        )

    async def test_a_case_that_fails_raises(self, keys: ApiKeys) -> None:
        """An error of a case is raised, unless the credentials cannot access the case."""
        async with (
            Server(answers(403), answers(500)) as server,
            CaseLinksClient(server.url, keys, retry=NEVER) as client,
        ):
            resolver = client.resolver()
            assert await resolver.details(case(A)) is None
            with pytest.raises(ServerError):
                await resolver.details(case(A))

    async def test_any_other_error_of_an_incident_raises(self, keys: ApiKeys) -> None:
        """Any other error of an incident, such as wrong credentials, is raised."""
        async with (
            Server(answers(401)) as server,
            CaseLinksClient(server.url, keys, retry=NEVER) as client,
        ):
            with pytest.raises(Exception, match="401"):
                await client.resolver().details(incident(A))


async def test_a_malicious_number_stays_in_the_query(keys: ApiKeys) -> None:
    """A number changes nothing in the request but the query."""

    async def step(exchange: Exchange) -> None:
        assert urlsplit(exchange.seen.target).path == "/api/v2/incidents/search"
        await found(resource())(exchange)

    async with Server(step) as server, CaseLinksClient(server.url, keys) as client:
        assert (await client.get_incident("IR-123")).id == A
