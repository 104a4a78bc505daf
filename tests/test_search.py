"""The rules of searching for cases: an async iterator over pages."""

from __future__ import annotations

import json
import logging
from itertools import islice
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from datadog_caselinks import (
    ApiKeys,
    BadRequestError,
    Case,
    CaseLinksClient,
    MalformedResponseError,
    ParameterError,
    RetryPolicy,
    case,
)
from datadog_caselinks.observation.events import CallEvent, CallFinished
from datadog_caselinks.sandbox import Fault, Sandbox
from tests.support.ids import some_id
from tests.support.server import Server, Step
from tests.support.steps import answers, listed


def found(*numbers: int, **meta: Any) -> Step:
    """Return a step that responds with a page of the cases with these numbers."""
    resources = [
        {"id": some_id(number), "type": "case", "attributes": {"key": f"SHOP-{number}", "title": "A title"}}
        for number in numbers
    ]
    return answers(200, json.dumps({"data": resources, "meta": {"page": meta}}).encode())


async def numbers_of(client: CaseLinksClient, query: str) -> list[str]:
    return [incident.key async for incident in client.search_incidents(query)]


async def keys_of(client: CaseLinksClient, query: str = "a") -> list[str]:
    return [case.key async for case in client.search_cases(query)]


@pytest.fixture
async def many(sandbox: Sandbox) -> Sandbox:
    """Add 250 cases to the shared sandbox."""
    for number in range(1, 251):
        sandbox.add_case(
            f"SHOP-{number}", f"Payment timeout {number}", status="CLOSED" if number % 2 else "OPEN"
        )
    return sandbox


class TestPages:
    async def test_every_match_is_yielded_newest_first(self, many: Sandbox, client: CaseLinksClient) -> None:
        """A search yields each case that matches once, over all pages, and requests each page once."""
        assert await keys_of(client, "payment timeout") == [f"SHOP-{number}" for number in range(250, 0, -1)]
        assert len(many.requests) == 3

    async def test_a_page_is_requested_when_it_is_needed(
        self, many: Sandbox, client: CaseLinksClient
    ) -> None:
        """A page is requested only when it is needed, so that leaving the loop saves requests."""
        async for each in client.search_cases("payment"):
            assert isinstance(each, Case)
            break
        assert len(many.requests) == 1

    async def test_a_filter_selects(self, many: Sandbox, client: CaseLinksClient) -> None:
        """A query may be a filter, with or without a text."""
        assert len(await keys_of(client, "status:closed")) == 125
        assert await keys_of(client, '"timeout 12" -status:closed') == [
            *(f"SHOP-{number}" for number in (128, 126, 124, 122, 120, 12))
        ]

    async def test_an_empty_query_finds_all(self, many: Sandbox, client: CaseLinksClient) -> None:
        """An empty query finds all cases, and sends no filter."""
        assert len(await keys_of(client, "")) == 250
        assert all("filter" not in request.path for request in many.requests)

    async def test_nothing_matches(self, many: Sandbox, client: CaseLinksClient) -> None:
        """A search without matches yields nothing, and takes one request."""
        assert await keys_of(client, "refund") == []
        assert len(many.requests) == 1

    async def test_what_was_created_in_the_meantime_shifts_no_case_into_view_twice(
        self, many: Sandbox, client: CaseLinksClient
    ) -> None:
        """A case that new cases have shifted to a later page is yielded once."""
        seen: list[str] = []
        async for each in client.search_cases("payment"):
            if len(seen) == 50:
                for number in range(251, 261):
                    many.add_case(f"SHOP-{number}", "Payment timeout")
            seen.append(each.key)
        assert seen == [f"SHOP-{number}" for number in range(250, 0, -1)]

    async def test_a_server_that_reports_no_number_of_pages(self, keys: ApiKeys) -> None:
        """A search without a reported number of pages ends at the first page without cases."""
        async with (
            Server(found(1, 2), found(3), found()) as server,
            CaseLinksClient(server.url, keys) as client,
        ):
            assert await keys_of(client) == ["SHOP-1", "SHOP-2", "SHOP-3"]
            sent = [parse_qs(urlsplit(seen.target).query) for seen in server.seen]
        assert [each["page[number]"] for each in sent] == [["1"], ["2"], ["3"]]

    async def test_the_server_sorts(self, keys: ApiKeys) -> None:
        """Both searches ask the server for the newest first."""
        no_incidents = answers(200, b'{"data": {"attributes": {"incidents": [], "total": 0}}}')
        async with (
            Server(found(), no_incidents) as server,
            CaseLinksClient(server.url, keys) as client,
        ):
            await keys_of(client)
            await numbers_of(client, "a")
            cases, incidents = [parse_qs(urlsplit(seen.target).query) for seen in server.seen]
        assert server.methods == ["GET", "GET"]
        assert (cases["sort[field]"], cases["sort[asc]"]) == (["created_at"], ["false"])
        assert incidents["sort"] == ["-created"]

    @pytest.mark.parametrize("total", [None, 0, -1, 1000])
    async def test_a_server_that_ignores_the_number_of_the_page(
        self, keys: ApiKeys, caplog: pytest.LogCaptureFixture, total: int | None
    ) -> None:
        """A search of a server that repeats one page ends after ten repetitions, with a warning."""
        async with Server(found(1, 2, total=total)) as server, CaseLinksClient(server.url, keys) as client:
            with caplog.at_level(logging.WARNING):
                assert await keys_of(client) == ["SHOP-1", "SHOP-2"]
            assert len(server.seen) == 11
        assert caplog.messages == ["the search for 'a' ends: 10 pages in a row have no new case"]

    @pytest.mark.parametrize("total", [None, 13])
    async def test_pages_without_a_new_case_do_not_end_a_search(
        self, keys: ApiKeys, caplog: pytest.LogCaptureFixture, total: int | None
    ) -> None:
        """A search continues past pages without new cases, until the server has no more pages."""
        steps = [found(1, 2, total=total), *[found(1, 2, total=total)] * 9, found(3, total=total)]
        steps += [found(3, total=total), found(4, total=total), found(total=total)]
        async with Server(*steps) as server, CaseLinksClient(server.url, keys) as client:
            assert await keys_of(client) == [f"SHOP-{number}" for number in range(1, 5)]
            assert len(server.seen) == (total or 14)
        assert not caplog.messages

    async def test_pages_without_any_case_do_not_end_a_search(self, keys: ApiKeys) -> None:
        """A page without cases does not end a search if there are more pages or the members are malformed."""
        flawed = answers(200, b'{"data": [{"type": "case"}]}')
        for steps in (
            (found(1, total=3), found(total=3), found(2, total=3)),
            (found(1), flawed, found(2), found()),
        ):
            async with Server(*steps) as server, CaseLinksClient(server.url, keys) as client:
                assert await keys_of(client) == ["SHOP-1", "SHOP-2"]
                assert len(server.seen) == len(steps)

    async def test_pages_that_become_fewer(self, keys: ApiKeys) -> None:
        """A search ends at the last page, even if cases that no longer match reduce the number of pages."""
        async with (
            Server(found(1, total=5), found(2, total=1)) as server,
            CaseLinksClient(server.url, keys) as client,
        ):
            assert await keys_of(client) == ["SHOP-1", "SHOP-2"]
            assert len(server.seen) == 2

    @pytest.mark.parametrize("total", ["2", None, 2.0, True, {}])
    async def test_an_odd_number_of_pages_is_none(self, keys: ApiKeys, total: object) -> None:
        """The number of pages is used only if it is an integer."""
        async with (
            Server(found(1, total=total), found(total=total)) as server,
            CaseLinksClient(server.url, keys) as client,
        ):
            assert await keys_of(client) == ["SHOP-1"]
            assert len(server.seen) == 2


class TestResponses:
    async def test_the_recorded_response(self, keys: ApiKeys) -> None:
        """A page is read in the form that Datadog sends."""
        attributes = {
            "key": "ET-3",
            "title": "Error: HTTP error",
            "status": "CLOSED",
            "priority": "NOT_DEFINED",
            "attributes": {"service": ["synthetics-browser"]},
            "public_id": "89979",
        }
        body = {
            "data": [{"id": some_id(3), "type": "case", "attributes": attributes}],
            "meta": {"total_cases": 1, "page": {"current": 1, "size": 1, "total": 1}},
        }
        step = answers(200, json.dumps(body).encode(), Content_Type="application/vnd.api+json")
        async with Server(step) as server, CaseLinksClient(server.url, keys) as client:
            (case,) = [each async for each in client.search_cases("status:closed")]
            assert len(server.seen) == 1
        assert (case.key, case.title, case.status) == ("ET-3", "Error: HTTP error", "CLOSED")

    async def test_what_is_not_a_case_is_left_out(
        self, keys: ApiKeys, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A member without an id is left out and logged."""
        body = b'{"data": [{"type": "case"}, {"id": "%s"}], "meta": {"page": {"total": 1}}}'
        step = answers(200, body % some_id(1).encode())
        async with Server(step) as server, CaseLinksClient(server.url, keys) as client:
            with caplog.at_level(logging.WARNING):
                assert [each.id async for each in client.search_cases("a")] == [some_id(1)]
        assert "a page of the search for 'a' has 1 member that cannot be read as cases" in caplog.text

    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            (b"{}", "missing"),
            (b'{"data": {"id": "x"}}', "not a list"),
            (b'{"data": [{"id": "x", "type": "link"}]}', "it is about a link"),
            (b'{"data": [{"id": "x", "type": "incidents"}]}', "it is about an incident"),
            (
                b'{"data": [], "meta": {"page": {"current": 2}}}',
                "response: it is another page of the search$",
            ),
        ],
    )
    async def test_a_response_to_another_request_is_refused(
        self, keys: ApiKeys, body: bytes, reason: str
    ) -> None:
        """A response that is not the requested page is refused."""
        async with (
            Server(answers(200, body)) as server,
            CaseLinksClient(server.url, keys, retry=RetryPolicy(max_attempts=1)) as client,
        ):
            with pytest.raises(
                MalformedResponseError, match=rf"^cannot search cases for 'a': 200 .*{reason}"
            ):
                await keys_of(client)

    async def test_a_page_of_cases_is_not_a_list_of_links(self, keys: ApiKeys) -> None:
        """A page of cases is refused as a list of links, and not read as an empty list."""
        async with (
            Server(found(1)) as server,
            CaseLinksClient(server.url, keys, retry=RetryPolicy(max_attempts=1)) as client,
        ):
            with pytest.raises(MalformedResponseError, match="it is about a case"):
                await client.list_links(case(some_id(1)))

    async def test_a_failed_page_is_retried(self, sandbox: Sandbox, client: CaseLinksClient) -> None:
        """A page that failed is requested again, since a search is idempotent."""
        sandbox.add_case("SHOP-1", "a")
        sandbox.fail_next(Fault.HTTP_503, operation="search_cases", count=2)
        assert await keys_of(client) == ["SHOP-1"]

    async def test_a_query_that_the_server_refuses(self, client: CaseLinksClient) -> None:
        """The error for a refused query has the query and the reason."""
        with pytest.raises(BadRequestError, match=r"^cannot search cases for 'status:\(': 400 .*invalid"):
            await keys_of(client, "status:(")

    @pytest.mark.parametrize("query", [None, 1, ["a"], b"a", "\ud800"])
    async def test_what_is_not_a_text_is_refused(
        self, sandbox: Sandbox, client: CaseLinksClient, query: Any
    ) -> None:
        """A query that is not a text is refused before anything is sent."""
        with pytest.raises(ParameterError, match=r"^query must be "):
            await keys_of(client, query)
        assert not sandbox.requests

    @pytest.mark.parametrize("query", ["a&b=c", "page[size]=1", "ä ß", "50 % + 1", "#1", "\n", "x" * 500])
    async def test_any_text_arrives_unchanged(self, keys: ApiKeys, query: str) -> None:
        """Every character of a query reaches the server."""
        async with Server(found()) as server, CaseLinksClient(server.url, keys) as client:
            assert await keys_of(client, query) == []
            (seen,) = server.seen
        sent = parse_qs(urlsplit(seen.target).query, keep_blank_values=True)
        assert (sent["filter"], sent["page[size]"]) == ([query], ["100"])


async def test_each_page_is_a_call(many: Sandbox) -> None:
    """Observers see one call for each page, with the query and the cases."""
    events: list[CallEvent] = []
    async with CaseLinksClient(many.site, many.credentials, on_event=events.append) as client:
        keys = await keys_of(client, "payment")
    calls = [event.call for event in events if isinstance(event, CallFinished)]
    assert [(call.operation, call.subject, call.outcome, call.attempts) for call in calls] == [
        ("search_cases", "payment", "done", 1)
    ] * 3
    numbers = iter(keys)
    for call in calls:
        assert [each.key for each in call.result] == list(islice(numbers, len(call.result)))


async def test_a_list_of_no_links_is_no_page_of_cases(keys: ApiKeys) -> None:
    """An empty list is accepted as a page without cases."""
    async with Server(listed) as server, CaseLinksClient(server.url, keys) as client:
        assert await keys_of(client) == []


class TestIncidents:
    async def test_every_match_is_yielded_newest_first(
        self, sandbox: Sandbox, client: CaseLinksClient
    ) -> None:
        """A search yields each incident that matches once, over all pages, and requests each page once."""
        for number in range(1, 251):
            sandbox.add_incident(number, f"Outage {number}", state="stable" if number % 2 else "active")
        assert await numbers_of(client, "outage") == [f"IR-{number}" for number in range(250, 0, -1)]
        assert len(sandbox.requests) == 3
        assert len(await numbers_of(client, "state:active")) == 125
        assert await numbers_of(client, "nothing") == []

    async def test_repeated_pages_are_the_end(self, keys: ApiKeys, caplog: pytest.LogCaptureFixture) -> None:
        """A server that ignores the number of the page does not make the search endless."""
        incidents = [
            {"data": {"id": some_id(number), "type": "incidents", "attributes": {"public_id": number}}}
            for number in range(1, 101)
        ]
        page = {"data": {"type": "incidents_search_results", "attributes": {"incidents": incidents}}}
        async with (
            Server(answers(200, json.dumps(page).encode())) as server,
            CaseLinksClient(server.url, keys) as client,
        ):
            assert len(await numbers_of(client, "")) == 100
        assert len(server.seen) == 11
        assert "the search for '' ends: 10 pages in a row have no new incident" in caplog.text

    async def test_a_server_that_counts_says_which_page_is_the_last(self, keys: ApiKeys) -> None:
        """A short page is followed by another one if the server has counted more incidents."""
        pages = [
            {
                "data": {
                    "type": "incidents_search_results",
                    "attributes": {
                        "total": 2,
                        "incidents": [
                            {"data": {"id": some_id(number), "type": "incidents", "attributes": {}}}
                        ],
                    },
                }
            }
            for number in (1, 2)
        ]
        steps = [answers(200, json.dumps(page).encode()) for page in pages]
        async with Server(*steps) as server, CaseLinksClient(server.url, keys) as client:
            assert len(await numbers_of(client, "")) == 2
        assert [parse_qs(urlsplit(each.target).query)["page[offset]"] for each in server.seen] == [
            ["0"],
            ["1"],
        ]

    async def test_a_refusal_says_what_was_searched_for(
        self, sandbox: Sandbox, client: CaseLinksClient
    ) -> None:
        """An error names the query."""
        with pytest.raises(BadRequestError, match=r"^cannot find incident that matches '\(': 400"):
            await numbers_of(client, "(")
        with pytest.raises(ParameterError, match="query must be"):
            await numbers_of(client, None)  # type: ignore[arg-type]
