"""The check right before the body of a create is sent."""

from __future__ import annotations

import asyncio
import traceback

import pytest

from datadog_caselinks import ApiKeys, CaseLinksClient, ConnectError, FleetError, NewCaseLink, RetryPolicy
from datadog_caselinks.sandbox import Sandbox
from tests.support.ids import case, some_id
from tests.support.server import Server
from tests.support.steps import Held
from tests.support.tcp import HOST, unused_port


def link(number: int = 2) -> NewCaseLink:
    return case(some_id(1)).blocks(case(some_id(number)))


async def refuse() -> None:
    raise FleetError("the lease is lost")


class Counting:
    """A check that allows everything and counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self) -> None:
        self.calls += 1


@pytest.mark.parametrize("ensure", [False, True])
async def test_a_create_that_the_check_refuses_is_not_sent(
    sandbox: Sandbox, client: CaseLinksClient, ensure: bool
) -> None:
    """A create that the check refuses is not sent or retried, and raises the error of the check."""
    fenced = client._fenced(refuse)
    with pytest.raises(FleetError, match="the lease is lost") as caught:
        await (fenced.ensure_link(link()) if ensure else fenced.create_link(link()))
    assert not caught.value.may_have_been_applied
    assert sandbox.links == []
    assert [request.method for request in sandbox.requests] == ["GET"] * ensure
    await client.create_link(link())
    assert len(sandbox.links) == 1, "the client itself has no check"


async def test_the_error_of_the_check_has_no_frame_with_the_keys(client: CaseLinksClient) -> None:
    """The error of the check has no frames of aiohttp, which contain the headers, in its traceback."""
    with pytest.raises(FleetError) as caught:
        await client._fenced(refuse).create_link(link())
    error: BaseException | None = caught.value
    while error:
        assert not any("aiohttp" in frame.filename for frame in traceback.extract_tb(error.__traceback__))
        error = error.__cause__ or error.__context__


async def test_a_create_that_the_check_allows_is_sent(sandbox: Sandbox, client: CaseLinksClient) -> None:
    """The check is called once for each attempt of a create, and not for other requests."""
    check = Counting()
    fenced = client._fenced(check)
    await fenced.list_links(link().parent)
    assert check.calls == 0
    created = await fenced.create_link(link())
    assert check.calls == 1
    assert [stored.id for stored in sandbox.links] == [created.id]


async def test_the_check_runs_after_the_wait_for_a_slot_and_for_the_connection(keys: ApiKeys) -> None:
    """The check follows the waits for a slot and for the connection."""
    held = Held()
    checks = 0
    async with Server(held) as server, CaseLinksClient(server.url, keys, max_concurrency=1) as client:

        async def check() -> None:
            nonlocal checks
            checks += 1
            await server.until(lambda: server.connections == 1)

        fenced = client._fenced(check)
        creating = [asyncio.ensure_future(fenced.create_link(link(number))) for number in (2, 3)]
        await server.until_seen(1)
        assert checks == 1
        held.release(2)
        await asyncio.gather(*creating)
    assert checks == 2


async def test_other_failures_are_raised_unchanged(keys: ApiKeys, at_once: RetryPolicy) -> None:
    """A create that fails before the check has the error of the failure."""
    check = Counting()
    async with CaseLinksClient(f"http://{HOST}:{unused_port()}", keys, retry=at_once) as client:
        with pytest.raises(ConnectError):
            await client._fenced(check).create_link(link())
    assert check.calls == 0
