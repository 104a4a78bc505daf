"""The fixtures with anyio on asyncio, which aiohttp requires."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from datadog_caselinks import CaseLinksClient, RateLimitError, case
from datadog_caselinks.sandbox import Fault, Sandbox

NEW = case("bf0cbac6-4c16-4cfb-b6bf-ca5e0ec37a4f").blocks(case("4417921d-0866-4a38-822c-6f2a0f65f77d"))

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


async def test_links(caselinks_client: CaseLinksClient, caselinks_sandbox: Sandbox) -> None:
    """A created link is in the sandbox."""
    link = await caselinks_client.create_link(NEW)
    assert [stored.id for stored in caselinks_sandbox.links] == [link.id]


async def test_begins_empty(caselinks_client: CaseLinksClient, caselinks_sandbox: Sandbox) -> None:
    """Each test starts with an empty sandbox."""
    assert await caselinks_client.list_links(NEW.parent) == []
    assert caselinks_sandbox.links == []


async def test_many_at_once(caselinks_client: CaseLinksClient, caselinks_sandbox: Sandbox) -> None:
    """Many creates can run concurrently in a task group."""
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(caselinks_client.create_link, NEW)
    assert len(caselinks_sandbox.links) == 20


async def test_a_fault_and_the_rate_limit(
    caselinks_client: CaseLinksClient, caselinks_sandbox: Sandbox
) -> None:
    """Faults and the rate limit can be set while the sandbox runs."""
    caselinks_sandbox.fail_next(Fault.LOST_RESPONSE)
    await caselinks_client.create_link(NEW)
    caselinks_sandbox.rate_limit = "1/1h"
    await caselinks_client.create_link(NEW)
    with pytest.raises(RateLimitError):
        await caselinks_client.create_link(NEW)
    assert len(caselinks_sandbox.links) == 2


async def test_cancelled(caselinks_client: CaseLinksClient, caselinks_sandbox: Sandbox) -> None:
    """A cancelled call leaves nothing open."""
    caselinks_sandbox.fail_next(Fault.DELAY, seconds=1e6)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(caselinks_client.create_link, NEW)
        while not caselinks_sandbox.requests:
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
