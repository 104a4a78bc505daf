"""The searches for cases and incidents, as recorded from the API, and the query language."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datadog_caselinks.sandbox import Sandbox, StoredIncident
from datadog_caselinks.sandbox.query import Document, InvalidQueryError, parse_query
from datadog_caselinks.values.errors import ParameterError
from tests.support.ids import some_id

if TYPE_CHECKING:
    from tests.sandbox.caller import Caller, Reply

A = some_id(0xA)
CLOSED = Document({"status": "closed", "priority": "p2"}, "checkout hangs at the payment step")

words = st.sampled_from(
    ["AND", "OR", "NOT", "-", "(", ")", '"', "status:", "closed", "*", "a", " ", ":", "[", "?"]
)


def keys(reply: Reply) -> list[str]:
    """Return the keys of a page of cases."""
    assert reply.status == 200, reply.body
    return [each["attributes"]["key"] for each in reply.json["data"]]


@pytest.fixture
def cases(sandbox: Sandbox) -> Sandbox:
    """Add three cases to the sandbox."""
    sandbox.add_case("SHOP-1", "Checkout hangs", status="CLOSED", priority="P2", id=A)
    sandbox.add_case("SHOP-2", "Refunds wait", status="OPEN", priority="P1")
    sandbox.add_case("SHOP-3", "Checkout is slow", status="IN_PROGRESS", priority="P3")
    return sandbox


class TestQueries:
    @pytest.mark.parametrize(
        "query",
        [
            *("", " ", "payment", "PAYMENT", "pay", "checkout payment", "checkout AND payment"),
            *('"hangs at the"', '"Hangs At"', "status:closed", "status:CLOSED", 'status:"closed"'),
            *("priority:(P1 OR P2)", "priority:(P2)", "status:clo*", "status:*", "-refund", "NOT refund"),
            *("refund OR checkout", "(refund OR checkout) payment", "-(refund OR search)", "-status:open"),
            *("refund checkout OR status:closed", "status:closed OR refund checkout", "status: closed"),
            *("--payment", "((payment))", "-key:SHOP-1"),
        ],
    )
    def test_matches(self, query: str) -> None:
        """A query can be a text, a filter, or a combination of both."""
        assert parse_query(query)(CLOSED)

    @pytest.mark.parametrize(
        "query",
        [
            *("refund", "checkout refund", '"payment hangs"', "status:open", "status:close", "-payment"),
            *("key:SHOP-1", "project.key:SHOP", "status:c?osed", "status:[c]losed", "-(payment OR refund)"),
            *("refund OR search", "(refund OR checkout) search", "priority:(P1 OR P3)"),
        ],
    )
    def test_does_not_match(self, query: str) -> None:
        """An unknown field matches nothing, and a value matches as a whole."""
        assert not parse_query(query)(CLOSED)

    @pytest.mark.parametrize(
        "query",
        [
            *("(", ")", "payment)", "(payment", '"', '"payment', "status:", "status:(", "status:(closed"),
            *("status:()", "status:)", "OR", "AND", "payment OR", "payment AND", "NOT", "()", "status:-a"),
            *("(" * 99, "-" * 99 + "a", "NOT " * 99 + "a", "status:(a b)"),
        ],
    )
    def test_is_refused(self, query: str) -> None:
        """An invalid query is refused, however deeply it is nested."""
        with pytest.raises(InvalidQueryError):
            parse_query(query)

    @given(st.lists(words, max_size=12).map(" ".join) | st.lists(words, max_size=12).map("".join))
    def test_any_text_is_a_query_or_refused(self, query: str) -> None:
        """Any text is parsed or raises ``InvalidQueryError``."""
        try:
            parsed = parse_query(query)
        except InvalidQueryError:
            return
        assert parsed(CLOSED) in (True, False)


class TestCases:
    async def test_a_page_has_the_recorded_form(self, caller: Caller, cases: Sandbox) -> None:
        """A page has its cases, its number, its size, and the number of pages and of cases."""
        parameters = {"filter": "checkout", "page[size]": "1", "page[number]": "2"}
        reply = await caller.send("GET", "/api/v2/cases", params=parameters)

        assert (reply.status, reply.headers["Content-Type"]) == (200, "application/vnd.api+json")
        (resource,) = reply.json["data"]
        assert (resource["id"], resource["type"], resource["attributes"]["key"]) == (A, "case", "SHOP-1")
        assert reply.json["meta"] == {"total_cases": 2, "page": {"current": 2, "size": 1, "total": 2}}

    async def test_a_page_behind_the_last_is_empty(self, caller: Caller, cases: Sandbox) -> None:
        """A page after the last one is empty, and not an error."""
        reply = await caller.send("GET", "/api/v2/cases", params={"page[number]": "9"})
        assert reply.json == {
            "data": [],
            "meta": {"total_cases": 3, "page": {"current": 9, "size": 0, "total": 1}},
        }

    @pytest.mark.parametrize(
        ("sort", "expected"),
        [
            ({}, ["SHOP-3", "SHOP-2", "SHOP-1"]),
            ({"sort[asc]": "true"}, ["SHOP-1", "SHOP-2", "SHOP-3"]),
            ({"sort[field]": "priority"}, ["SHOP-3", "SHOP-1", "SHOP-2"]),
            ({"sort[field]": "priority", "sort[asc]": "true"}, ["SHOP-2", "SHOP-1", "SHOP-3"]),
        ],
    )
    async def test_the_order(
        self, caller: Caller, cases: Sandbox, sort: dict[str, str], expected: list[str]
    ) -> None:
        """Cases are sorted by creation, newest first, or as ``sort`` requests."""
        assert keys(await caller.send("GET", "/api/v2/cases", params=sort)) == expected

    @pytest.mark.parametrize(
        ("query", "details"),
        [
            ("page[size]=0", ["query parameter page[size] must be a number from 1 to 100"]),
            ("page[size]=101", ["query parameter page[size] must be a number from 1 to 100"]),
            ("page[number]=x", ["query parameter page[number] must be a number from 1 to 1000000000"]),
            ("sort[asc]=yes", ['query parameter sort[asc] must be one of true, false, not "yes"']),
            (
                "sort[field]=a",
                ['query parameter sort[field] must be one of created_at, priority, status, not "a"'],
            ),
            ("filter=(", ["query parameter filter is invalid: a text is missing"]),
            ("filter=a&filter=b", ["query parameter filter is given 2 times"]),
        ],
    )
    async def test_a_wrong_parameter_is_refused(self, caller: Caller, query: str, details: list[str]) -> None:
        """A search with wrong parameters gets a 400 that names each of them."""
        reply = await caller.send("GET", f"/api/v2/cases?{query}")
        assert (reply.status, reply.details) == (400, details)


class TestIncidents:
    async def test_a_search_has_the_recorded_form(self, caller: Caller, sandbox: Sandbox) -> None:
        """A search result is one resource that contains the incidents, each a document of its own."""
        stored = sandbox.add_incident(123, "Checkout fails", state="resolved", id=A.upper())
        assert stored == StoredIncident(A, 123, "Checkout fails", "resolved")
        reply = await caller.send("GET", "/api/v2/incidents/search", params={"query": "slug:IR-123"})

        assert (reply.status, reply.headers["Content-Type"]) == (200, "application/json")
        assert reply.json["data"]["type"] == "incidents_search_results"
        attributes = reply.json["data"]["attributes"]
        (found,) = attributes["incidents"]
        assert attributes["total"] == 1
        assert reply.json["meta"] == {"pagination": {"offset": 0, "next_offset": 1, "size": 1}}
        assert found["data"]["id"] == A
        assert found["data"]["attributes"] == {
            "public_id": 123,
            "title": "Checkout fails",
            "state": "resolved",
            "fields": {
                "slug": {"type": "textbox", "value": "IR-123"},
                "state": {"type": "dropdown", "value": "resolved"},
            },
        }
        got = await caller.send("GET", f"/api/v2/incidents/{A.upper()}")
        assert (got.status, got.json) == (200, found)

    async def test_a_malformed_incident_id(self, caller: Caller) -> None:
        """A lookup of an incident by an id that is not a UUID gets a 400, as for a case."""
        reply = await caller.send("GET", "/api/v2/incidents/123")
        assert reply.status == 400
        assert "incident_id" in str(reply.json)

    async def test_an_unknown_incident(self, caller: Caller) -> None:
        """A lookup of an unknown incident gets a 404, as for a case."""
        reply = await caller.send("GET", f"/api/v2/incidents/{A}")
        assert (reply.status, reply.json) == (
            404,
            {"errors": [{"code": "resource_not_found", "title": "incident not found"}]},
        )

    @pytest.mark.parametrize(("sort", "expected"), [("-created", [3, 2]), ("created", [1, 2])])
    async def test_paging(self, caller: Caller, sandbox: Sandbox, sort: str, expected: list[int]) -> None:
        """Pages are counted in incidents, from 0; by default the newest is first."""
        for number in (1, 2, 3):
            sandbox.add_incident(number)
        parameters = {"query": "state:active", "page[size]": "2", "page[offset]": "0", "sort": sort}
        reply = await caller.send("GET", "/api/v2/incidents/search", params=parameters)
        attributes = reply.json["data"]["attributes"]
        assert attributes["total"] == 3
        assert [each["data"]["attributes"]["public_id"] for each in attributes["incidents"]] == expected

    async def test_a_search_needs_a_query(self, caller: Caller) -> None:
        """A search without a query gets a 400 that names the missing parameter."""
        reply = await caller.send("GET", "/api/v2/incidents/search")
        assert (reply.status, reply.details) == (400, ["query parameter query is missing"])

    @pytest.mark.parametrize("path", ["/api/v2/incidents/search?query=a", f"/api/v2/incidents/{A}"])
    async def test_the_permission(self, caller: Caller, sandbox: Sandbox, path: str) -> None:
        """Keys without the permission for incidents get a 403 for them, and can read cases."""
        headers = (await sandbox.credentials_without_incidents.authenticate()).headers
        reply = await caller.send("GET", path, headers=headers)
        assert (reply.status, reply.json) == (
            403,
            {"errors": ["the application key lacks the scope incident_read"]},
        )
        assert (await caller.send("GET", "/api/v2/cases", headers=headers)).status == 200
        assert (await caller.create(headers=headers)).status == 201

    async def test_an_incident_is_replaced_by_its_id(self, caller: Caller, sandbox: Sandbox) -> None:
        """An incident that is added again with its id is replaced, and a number belongs to one incident."""
        sandbox.add_incident(1, id=A)
        sandbox.add_incident(2, "Resolved now", state="resolved", id=A)
        got = await caller.send("GET", f"/api/v2/incidents/{A}")
        assert got.json["data"]["attributes"]["public_id"] == 2
        with pytest.raises(ParameterError, match=r"^another incident has the number 2$"):
            sandbox.add_incident(2)

    @pytest.mark.parametrize("number", [0, -1, "1", 1.5, None])
    def test_a_number_is_a_whole_number(self, sandbox: Sandbox, number: Any) -> None:
        """The number of an incident must be an integer above zero."""
        with pytest.raises(ParameterError, match=r"^number must be "):
            sandbox.add_incident(number)


async def test_the_demo_has_incidents(caller_of: Any) -> None:
    """The incidents of the demo have numbers, and each is linked."""
    async with Sandbox(seed="demo") as sandbox:
        reply = await caller_of(sandbox).send(
            "GET", "/api/v2/incidents/search", params={"query": "state:(resolved OR stable)"}
        )
        found = [each["data"] for each in reply.json["data"]["attributes"]["incidents"]]
        ends = {end for link in sandbox.links for end in (link.parent_entity_id, link.child_entity_id)}
    assert sorted(each["attributes"]["public_id"] for each in found) == [101, 102, 103]
    assert {each["id"] for each in found} <= ends
