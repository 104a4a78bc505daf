"""The fixtures with pytest-asyncio, with one event loop per test and with a shared one."""

from __future__ import annotations

import asyncio

import pytest

from datadog_caselinks import CaseLinksClient, RateLimitError, case
from datadog_caselinks.sandbox import Fault, Sandbox

NEW = case("bf0cbac6-4c16-4cfb-b6bf-ca5e0ec37a4f").blocks(case("4417921d-0866-4a38-822c-6f2a0f65f77d"))

pytestmark = pytest.mark.asyncio


async def test_links(caselinks_client: CaseLinksClient, caselinks_sandbox: Sandbox) -> None:
    """A created link and its request are in the sandbox."""
    link = await caselinks_client.create_link(NEW)
    assert [stored.id for stored in caselinks_sandbox.links] == [link.id]
    assert [str(stored) for stored in caselinks_sandbox.links] == [str(NEW)]
    assert [request.status for request in caselinks_sandbox.requests] == [201]


async def test_begins_empty(caselinks_client: CaseLinksClient, caselinks_sandbox: Sandbox) -> None:
    """Each test starts with an empty sandbox."""
    assert await caselinks_client.list_links(NEW.parent) == []
    assert caselinks_sandbox.links == []


async def test_many_at_once(caselinks_client: CaseLinksClient, caselinks_sandbox: Sandbox) -> None:
    """Many creates can run concurrently with ``asyncio.gather``."""
    await asyncio.gather(*(caselinks_client.create_link(NEW) for _ in range(20)))
    assert len(caselinks_sandbox.links) == 20


async def test_a_fault(caselinks_client: CaseLinksClient, caselinks_sandbox: Sandbox) -> None:
    """A lost response causes neither a second link nor a delay of the test."""
    caselinks_sandbox.fail_next(Fault.LOST_RESPONSE)
    await caselinks_client.create_link(NEW)
    assert len(caselinks_sandbox.links) == 1


async def test_the_rate_limit(caselinks_client: CaseLinksClient, caselinks_sandbox: Sandbox) -> None:
    """A create that would have to wait for the rate limit raises an error."""
    caselinks_sandbox.rate_limit = "1/1h"
    await caselinks_client.create_link(NEW)
    with pytest.raises(RateLimitError):
        await caselinks_client.create_link(NEW)


async def test_an_outage(caselinks_client: CaseLinksClient, caselinks_sandbox: Sandbox) -> None:
    """The client retries as often as in production."""
    caselinks_sandbox.fail_next(Fault.RESET, count=5, operation="list")
    assert await caselinks_client.list_links(NEW.parent) == []
    assert len(caselinks_sandbox.requests) == 6


async def test_cancelled(caselinks_client: CaseLinksClient, caselinks_sandbox: Sandbox) -> None:
    """A cancelled call leaves nothing open."""
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
        """In a shared event loop, a test leaves no task for the next one."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await caselinks_client.create_link(NEW)
        assert len(caselinks_sandbox.links) == 1
        assert asyncio.all_tasks() - {asyncio.current_task()} == others

    async def test_closed_by_the_test(self, caselinks_client: CaseLinksClient) -> None:
        """A test may close the client."""
        async with caselinks_client as links:
            await links.create_link(NEW)
