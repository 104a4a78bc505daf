"""The OpenAPI document: it contains each response that the sandbox can send."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from datadog_caselinks.sandbox import Fault, Sandbox

if TYPE_CHECKING:
    from tests.sandbox.caller import Caller, Reply

STATUSES = [fault for fault in Fault if fault[0].isdigit()]
DEFAULTS = {"Content-Length", "Content-Type", "Date", "Server"}


@pytest.fixture
async def document(caller: Caller) -> Any:
    return (await caller.send("GET", "/openapi.json", headers={})).json


def is_documented(reply: Reply, operation: Any) -> bool:
    """Return whether the document has the status, the type and each header of a response."""
    response = operation["responses"][str(reply.status)]
    kind = reply.headers.get("Content-Type", "").partition(";")[0]
    return (kind in response["content"] if reply.body else "content" not in response) and (
        set(reply.headers) - DEFAULTS <= set(response["headers"])
    )


async def test_it_needs_no_credentials_and_is_no_request_to_the_api(caller: Caller, sandbox: Sandbox) -> None:
    """The document needs no credentials, since tools fetch it first, and is not a recorded request."""
    reply = await caller.send("GET", "/openapi.json", headers={})

    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/json")
    assert reply.json["openapi"] == "3.1.0"
    assert list(sandbox.requests) == []


@pytest.mark.parametrize("rate_limit", [None, "100/10s"])
@pytest.mark.parametrize("fault", STATUSES)
async def test_it_has_the_response_of_each_fault(
    caller: Caller, sandbox: Sandbox, document: Any, fault: Fault, rate_limit: str | None
) -> None:
    """The document has the status, the type and the headers of each fault, for every operation."""
    sandbox.rate_limit = rate_limit
    of_links, of_one, of_a_case = (
        document["paths"][f"/api/v2/cases/{rest}"] for rest in ("link", "link/{link_id}", "{case_id}")
    )
    sandbox.fail_next(fault, count=4)
    assert is_documented(await caller.create(), of_links["post"])
    assert is_documented(await caller.list(), of_links["get"])
    assert is_documented(await caller.delete("unknown"), of_one["delete"])
    assert is_documented(await caller.get("SHOP-1"), of_a_case["get"])
    assert [request.fault for request in sandbox.requests] == [fault] * 4
