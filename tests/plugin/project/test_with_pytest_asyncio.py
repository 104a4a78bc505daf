"""With pytest-asyncio, in a loop for each test and in one for all."""

from __future__ import annotations

import asyncio

import pytest

from datadog_caselinks import CaseLinksClient, RateLimitError, case
from datadog_caselinks.sandbox import Fault, Sandbox

NEW = case("bf0cbac6-4c16-4cfb-b6bf-ca5e0ec37a4f").blocks(case("4417921d-0866-4a38-822c-6f2a0f65f77d"))

pytestmark = pytest.mark.asyncio


async def test_links(caselinks_client: CaseLinksClient, caselinks_sandbox: Sandbox) -> None:
    """What was created is there, and what was asked is told."""
    link = await caselinks_client.create_link(NEW)
    assert [stored.id for stored in caselinks_sandbox.links] == [link.id]
    assert [str(stored) for stored in caselinks_sandbox.links] == [str(NEW)]
    assert [request.status for request in caselinks_sandbox.requests] == [201]


async def test_begins_empty(caselinks_client: CaseLinksClient, caselinks_sandbox: Sandbox) -> None:
    """Each test has a sandbox of its own."""
    assert await caselinks_client.list_links(NEW.parent) == []
    assert caselinks_sandbox.links == []


async def test_many_at_once(caselinks_client: CaseLinksClient, caselinks_sandbox: Sandbox) -> None:
    """By gather."""
    await asyncio.gather(*(caselinks_client.create_link(NEW) for _ in range(20)))
    assert len(caselinks_sandbox.links) == 20


async def test_a_fault(caselinks_client: CaseLinksClient, caselinks_sandbox: Sandbox) -> None:
    """A lost answer makes no second link, and no test wait."""
    caselinks_sandbox.fail_next(Fault.LOST_RESPONSE)
    await caselinks_client.create_link(NEW)
    assert len(caselinks_sandbox.links) == 1


async def test_the_rate_limit(caselinks_client: CaseLinksClient, caselinks_sandbox: Sandbox) -> None:
    """What would have to wait raises."""
    caselinks_sandbox.rate_limit = "1/1h"
    await caselinks_client.create_link(NEW)
    with pytest.raises(RateLimitError):
        await caselinks_client.create_link(NEW)


async def test_an_outage(caselinks_client: CaseLinksClient, caselinks_sandbox: Sandbox) -> None:
    """As many attempts as in production, one after the other."""
    caselinks_sandbox.fail_next(Fault.RESET, count=5, operation="list")
    assert await caselinks_client.list_links(NEW.parent) == []
    assert len(caselinks_sandbox.requests) == 6


async def test_cancelled(caselinks_client: CaseLinksClient, caselinks_sandbox: Sandbox) -> None:
    """A call that is broken off leaves nothing open."""
    caselinks_sandbox.fail_next(Fault.DELAY, seconds=1e6)
    call = asyncio.create_task(caselinks_client.create_link(NEW))
    while not caselinks_sandbox.requests:  # noqa: ASYNC110 - of another thread
        await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


@pytest.mark.asyncio(loop_scope="session")
class TestInOneLoop:
    @pytest.mark.parametrize("time", range(3))
    async def test_each_has_a_client_of_its_own(
        self, time: int, caselinks_client: CaseLinksClient, caselinks_sandbox: Sandbox
    ) -> None:
        """Nothing of one test is left in the loop for the next."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await caselinks_client.create_link(NEW)
        assert len(caselinks_sandbox.links) == 1
        assert asyncio.all_tasks() - {asyncio.current_task()} == others

    async def test_closed_by_the_test(self, caselinks_client: CaseLinksClient) -> None:
        """It may be closed, as any client."""
        async with caselinks_client as links:
            await links.create_link(NEW)
