"""The tests on the page."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

import duplicates
from datadog_caselinks import CaseLinksClient, RateLimitedError, RetryPolicy
from datadog_caselinks.sandbox import Fault, Sandbox

ORIGINAL, COPY, OTHER = (str(uuid4()) for _ in range(3))


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
async def links(sandbox: Sandbox) -> AsyncIterator[CaseLinksClient]:
    at_once = RetryPolicy(max_attempts=3, base=0, settle=0, max_wait=0)
    async with CaseLinksClient(sandbox.site, sandbox.credentials, retry=at_once) as links:
        yield links


async def test_links_the_copies(links: CaseLinksClient, sandbox: Sandbox) -> None:
    assert await duplicates.mark_duplicates(links, ORIGINAL, [COPY, OTHER]) == []
    assert [(link.parent_entity_id, link.relationship) for link in sandbox.links] == [
        (COPY, "DUPLICATES"),
        (OTHER, "DUPLICATES"),
    ]


async def test_a_lost_answer_makes_no_second_link(links: CaseLinksClient, sandbox: Sandbox) -> None:
    sandbox.fail_next(Fault.LOST_ANSWER, operation="create")
    assert await duplicates.mark_duplicates(links, ORIGINAL, [COPY]) == []
    assert len(sandbox.links) == 1
    assert [request.method for request in sandbox.requests] == ["GET", "POST", "GET"]


async def test_one_that_fails_stops_no_other(links: CaseLinksClient, sandbox: Sandbox) -> None:
    sandbox.fail_next(Fault.HTTP_503, count=3, operation="list")
    assert await duplicates.mark_duplicates(links, ORIGINAL, [COPY, OTHER]) == [COPY]
    assert [link.parent_entity_id for link in sandbox.links] == [OTHER]


async def test_the_rate_limit_ends_the_run(links: CaseLinksClient, sandbox: Sandbox) -> None:
    sandbox.rate_limit = "3/1h"  # one copy takes two requests, a look and a create
    with pytest.raises(RateLimitedError) as limited:
        await duplicates.mark_duplicates(links, ORIGINAL, [COPY, OTHER])
    assert limited.value.retry_after
    assert len(sandbox.links) == 1


async def test_keys_without_the_scope(sandbox: Sandbox) -> None:
    async with CaseLinksClient(sandbox.site, sandbox.credentials_without_scope) as links:
        assert await duplicates.mark_duplicates(links, ORIGINAL, [COPY]) == [COPY]


async def test_reads_the_environment(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DD_SITE", sandbox.url)
    monkeypatch.setenv("DD_API_KEY", sandbox.credentials.api_key)
    monkeypatch.setenv("DD_APP_KEY", sandbox.credentials.app_key)
    assert await duplicates.main(ORIGINAL, [COPY]) == []
    assert len(sandbox.links) == 1
