"""The tests on the page about testing."""

import asyncio
from uuid import uuid4

import pytest

import duplicates
from datadog_caselinks import CaseLinksClient, RateLimitError, case
from datadog_caselinks.sandbox import Fault, Sandbox

ORIGINAL, COPY, OTHER = (str(uuid4()) for _ in range(3))


async def test_links_each_copy(caselinks_client: CaseLinksClient, caselinks_sandbox: Sandbox) -> None:
    assert await duplicates.mark_duplicates(caselinks_client, ORIGINAL, [COPY, OTHER]) == []
    assert [str(link) for link in caselinks_sandbox.links] == [
        str(case(COPY).duplicates(case(ORIGINAL))),
        str(case(OTHER).duplicates(case(ORIGINAL))),
    ]


@pytest.mark.usefixtures("caselinks_environment")
def test_reads_the_environment(caselinks_sandbox: Sandbox) -> None:
    assert asyncio.run(duplicates.main(ORIGINAL, [COPY])) == []
    assert len(caselinks_sandbox.links) == 1


async def test_a_lost_response_creates_no_second_link(
    caselinks_client: CaseLinksClient, caselinks_sandbox: Sandbox
) -> None:
    caselinks_sandbox.fail_next(Fault.LOST_RESPONSE, operation="create")
    assert await duplicates.mark_duplicates(caselinks_client, ORIGINAL, [COPY]) == []
    assert len(caselinks_sandbox.links) == 1
    assert [request.method for request in caselinks_sandbox.requests] == ["GET", "POST", "GET"]


async def test_a_failure_does_not_stop_the_others(
    caselinks_client: CaseLinksClient, caselinks_sandbox: Sandbox
) -> None:
    caselinks_sandbox.fail_next(Fault.HTTP_503, count=6, operation="list")
    assert await duplicates.mark_duplicates(caselinks_client, ORIGINAL, [COPY, OTHER]) == [COPY]
    assert [link.parent_entity_id for link in caselinks_sandbox.links] == [OTHER]


async def test_the_rate_limit_ends_the_run(
    caselinks_client: CaseLinksClient, caselinks_sandbox: Sandbox
) -> None:
    caselinks_sandbox.rate_limit = "3/1h"  # each copy takes two requests: a lookup and a create
    with pytest.raises(RateLimitError) as limited:
        await duplicates.mark_duplicates(caselinks_client, ORIGINAL, [COPY, OTHER])
    assert limited.value.retry_after
    assert len(caselinks_sandbox.links) == 1


async def test_keys_without_the_scope(caselinks_sandbox: Sandbox) -> None:
    keys = caselinks_sandbox.credentials_without_scope
    async with CaseLinksClient(caselinks_sandbox.site, keys) as client:
        assert await duplicates.mark_duplicates(client, ORIGINAL, [COPY]) == [COPY]


@pytest.mark.caselinks_sandbox(seed="demo")
async def test_a_case_by_its_key(caselinks_client: CaseLinksClient) -> None:
    assert (await caselinks_client.get_case("SHOP-1")).title == "Checkout hangs at the payment step"
