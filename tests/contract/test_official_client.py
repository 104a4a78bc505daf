"""Datadog's own Python client works with the sandbox."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from datadog_api_client import ApiClient, AsyncApiClient, Configuration
from datadog_api_client.exceptions import ApiException
from datadog_api_client.v2.api.case_management_api import CaseManagementApi
from datadog_api_client.v2.model.case_link_attributes import CaseLinkAttributes
from datadog_api_client.v2.model.case_link_create import CaseLinkCreate
from datadog_api_client.v2.model.case_link_create_request import CaseLinkCreateRequest
from datadog_api_client.v2.model.case_link_resource_type import CaseLinkResourceType

from datadog_caselinks import ApiKeys
from datadog_caselinks.sandbox import Fault, Sandbox, StoredCase
from tests.support.ids import some_id

A, B, C = (some_id(number) for number in range(1, 4))

Call = Callable[..., Awaitable[Any]]


@asynccontextmanager
async def waiting(configuration: Configuration) -> AsyncIterator[Call]:
    """Yield the sync client, in a thread, since the event loop belongs to the sandbox."""
    with ApiClient(configuration) as client:
        api = CaseManagementApi(client)
        yield lambda name, *args, **named: asyncio.to_thread(getattr(api, name), *args, **named)


@asynccontextmanager
async def awaited(configuration: Configuration) -> AsyncIterator[Call]:
    """Yield the async client."""
    async with AsyncApiClient(configuration) as client:
        api = CaseManagementApi(client)
        yield lambda name, *args, **named: getattr(api, name)(*args, **named)


@pytest.fixture(params=["strings", "objects"])
def sandbox_options(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"error_format": request.param, "duplicates": "conflict", "rate_limit": "1000/1h"}


@pytest.fixture(params=[waiting, awaited])
def opened(request: pytest.FixtureRequest, sandbox: Sandbox) -> Any:
    def opened(keys: ApiKeys) -> Any:
        configuration = Configuration(host=sandbox.url)
        configuration.api_key = {"apiKeyAuth": keys.api_key, "appKeyAuth": keys.app_key}
        return request.param(configuration)

    return opened


@pytest.fixture
async def call(opened: Any, sandbox: Sandbox) -> AsyncIterator[Call]:
    async with opened(sandbox.credentials) as call:
        yield call


@pytest.fixture
def shop(sandbox: Sandbox) -> StoredCase:
    return sandbox.add_case("SHOP-1", "Checkout hangs", status="IN_PROGRESS", priority="P2")


def link(parent: str, relationship: str, child: str) -> CaseLinkCreateRequest:
    attributes = CaseLinkAttributes(
        parent_entity_type="CASE",
        parent_entity_id=parent,
        relationship=relationship,
        child_entity_type="CASE",
        child_entity_id=child,
    )
    return CaseLinkCreateRequest(data=CaseLinkCreate(attributes=attributes, type=CaseLinkResourceType.LINK))


async def refused(answer: Awaitable[Any]) -> ApiException:
    with pytest.raises(ApiException) as caught:
        await answer
    return caught.value


def reported(error: ApiException) -> list[str]:
    """Return the reasons in the body of an error, in either form."""
    return [
        each if isinstance(each, str) else each.get("detail", each["title"]) for each in error.body["errors"]
    ]


async def test_create(call: Call, sandbox: Sandbox) -> None:
    """A create returns the stored link as the client's model."""
    made = (await call("create_case_link", body=link(A, "BLOCKS", B))).data
    (stored,) = sandbox.links
    assert (made.id, made.type, made.attributes.relationship) == (
        stored.id,
        CaseLinkResourceType.LINK,
        "BLOCKS",
    )
    assert (made.attributes.parent_entity_id, made.attributes.child_entity_id) == (A, B)


async def test_list_with_a_filter(call: Call) -> None:
    """A list returns the links on either side, all or those of one relationship."""
    blocks, causes = [
        (await call("create_case_link", body=link(*each))).data
        for each in ((A, "BLOCKS", B), (C, "CAUSES", A))
    ]
    assert (await call("list_case_links", "CASE", A)).data == [blocks, causes]
    assert (await call("list_case_links", "CASE", A, relationship="CAUSES")).data == [causes]
    assert (await call("list_case_links", "PAGE", A)).data == []


async def test_search(call: Call, shop: StoredCase) -> None:
    """A search returns a page of cases as the client's model."""
    page = await call("search_cases", page_size=10, page_number=1, filter="hangs status:in_progress")
    assert [each.attributes.key for each in page.data] == ["SHOP-1"]
    assert (page.meta.page.current, page.meta.page.size, page.meta.page.total) == (1, 1, 1)
    assert (await call("search_cases", filter="status:closed")).data == []


async def test_delete(call: Call, sandbox: Sandbox) -> None:
    """A delete removes the link and returns nothing."""
    made = (await call("create_case_link", body=link(A, "BLOCKS", B))).data
    assert await call("delete_case_link", made.id) is None
    assert sandbox.links == []


@pytest.mark.parametrize("by", ["key", "id"])
async def test_get_case(call: Call, shop: StoredCase, by: str) -> None:
    """A lookup by key or UUID returns a case as the client's model."""
    found = (await call("get_case", getattr(shop, by))).data
    assert (found.id, found.attributes.key, found.attributes.title) == (shop.id, "SHOP-1", "Checkout hangs")
    assert str(found.attributes.priority) == "P2"


async def test_400(call: Call) -> None:
    """An unknown relationship is a 400 for the client."""
    error = await refused(call("create_case_link", body=link(A, "LIKES", B)))
    (said,) = reported(error)
    assert (error.status, said[:43]) == (400, "data.attributes.relationship must be one of")


async def test_401(opened: Any) -> None:
    """Wrong keys are a 401 for the client."""
    async with opened(ApiKeys(api_key="another", app_key="another")) as call:
        error = await refused(call("list_case_links", "CASE", A))
    assert (error.status, reported(error)) == (401, ["Unauthorized"])


async def test_403(opened: Any, sandbox: Sandbox) -> None:
    """Keys that can only read are a 403 for a create."""
    async with opened(sandbox.credentials_without_scope) as call:
        assert (await call("list_case_links", "CASE", A)).data == []
        error = await refused(call("create_case_link", body=link(A, "BLOCKS", B)))
    assert (error.status, reported(error)) == (403, ["the application key lacks the scope cases_write"])


@pytest.mark.parametrize(
    ("name", "says"), [("delete_case_link", "link not found"), ("get_case", "case not found")]
)
async def test_404(call: Call, name: str, says: str) -> None:
    """An unknown link or case is a 404 for the client."""
    error = await refused(call(name, A))
    assert (error.status, reported(error)) == (404, [says])


async def test_409(call: Call, sandbox: Sandbox) -> None:
    """An equal link is a 409 for the client if the sandbox refuses duplicates."""
    await call("create_case_link", body=link(A, "BLOCKS", B))
    error = await refused(call("create_case_link", body=link(A, "BLOCKS", B)))
    assert (error.status, reported(error)) == (409, ["an equal link exists"])
    assert len(sandbox.links) == 1


async def test_429(call: Call, sandbox: Sandbox) -> None:
    """A 429 has the rate limit headers that the client's own retry reads."""
    sandbox.fail_next(Fault.HTTP_429, seconds=7)
    error = await refused(call("list_case_links", "CASE", A))
    headers = {name.lower(): value for name, value in error.headers.items()}
    assert (error.status, headers["x-ratelimit-remaining"], headers["x-ratelimit-reset"]) == (429, "0", "7")
