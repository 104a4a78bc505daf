"""The rules of lookups of links: one list for many callers, begun after their calls, and no leftovers."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Collection, Mapping
from typing import TYPE_CHECKING, cast

import pytest

from datadog_caselinks import ApiKeys, CaseLink, CaseLinksClient, CaseLinksError, Entity, NewCaseLink
from datadog_caselinks.calls.lookup import Lookup
from datadog_caselinks.calls.operations import Operations
from datadog_caselinks.values.models import Identity, identity
from tests.support.api import Api
from tests.support.ids import case, some_id
from tests.support.leftovers import leaving_nothing
from tests.support.server import Server
from tests.support.steps import Held
from tests.support.tcp import sockets_to
from tests.support.waiting import settle

if TYPE_CHECKING:
    from tests.support.ids import KnownEntity

PARENT, OTHER = case(some_id(1)), case(some_id(2))


def link(number: int, parent: KnownEntity = PARENT) -> NewCaseLink:
    return parent.blocks(case(some_id(number + 10)))


def made(new: NewCaseLink, link_id: str = "x") -> CaseLink:
    return CaseLink(link_id, new.parent, new.relationship, new.child)


class Lists:
    """Lists that wait for the test's response, and the number of lists in flight for each entity."""

    def __init__(self) -> None:
        self.begun: list[Entity] = []
        self.cancelled: list[Entity] = []
        self.under_way: dict[Entity, asyncio.Future[list[CaseLink]]] = {}

    async def find_links(
        self, parent: Entity, identities: Collection[Identity]
    ) -> Mapping[Identity, CaseLink]:
        assert parent not in self.under_way, "only one of a parent at a time"
        self.begun.append(parent)
        self.under_way[parent] = asyncio.get_running_loop().create_future()
        try:
            links = await self.under_way[parent]
            return {identity(link): link for link in reversed(links) if identity(link) in identities}
        except asyncio.CancelledError:
            self.cancelled.append(parent)
            raise
        finally:
            del self.under_way[parent]

    async def answer(self, parent: Entity, *links: CaseLink) -> None:
        """Respond with ``links`` to the list of ``parent`` that is in flight."""
        self.under_way[parent].set_result(list(links))
        await settle()

    async def fail(self, parent: Entity, error: Exception) -> None:
        """Fail the list of ``parent`` that is in flight."""
        self.under_way[parent].set_exception(error)
        await settle()


Finding = asyncio.Task[CaseLink | None]


@pytest.fixture
async def lists() -> AsyncIterator[Lists]:
    """Yield the lists, and check at the end that no task, list or warning remains."""
    lists = Lists()
    async with leaving_nothing():
        yield lists
        await settle()
    assert lists.under_way == {}


@pytest.fixture
def lookup(lists: Lists) -> Lookup:
    return Lookup(cast("Operations", lists))


async def finding(lookup: Lookup, *wanted: NewCaseLink) -> list[Finding]:
    """Return calls that look up each of ``wanted``, in this order."""
    calls = [asyncio.create_task(lookup.find(new)) for new in wanted]
    await settle()
    return calls


class TestSharing:
    async def test_one_list_for_all_who_asked_before_it_was_begun(self, lists: Lists, lookup: Lookup) -> None:
        """One list serves all callers that arrived before it began: each gets its own link or none."""
        calls = [asyncio.create_task(lookup.find(link(number))) for number in range(5)]
        await settle()
        await lists.answer(PARENT, *(made(link(number), str(number)) for number in (3, 0, 4)))
        found = await asyncio.gather(*calls)
        assert [one and one.id for one in found] == ["0", None, None, "3", "4"]
        assert lists.begun == [PARENT]

    async def test_who_asks_after_it_was_begun_gets_the_next(self, lists: Lists, lookup: Lookup) -> None:
        """A caller that arrives after a list began waits for the next one, which can have its link."""
        first = await finding(lookup, link(0))
        late = await finding(lookup, link(0), link(1))
        assert lists.begun == [PARENT]
        await lists.answer(PARENT)
        assert [call.done() for call in (*first, *late)] == [True, False, False]
        await lists.answer(PARENT, made(link(0), "0"), made(link(1), "1"))
        found = await asyncio.gather(*first, *late)
        assert [one and one.id for one in found] == [None, "0", "1"]
        assert lists.begun == [PARENT] * 2

    async def test_who_asks_in_between_gets_the_next_too(self, lists: Lists, lookup: Lookup) -> None:
        """All callers that arrive while a list is in flight share the next one."""
        calls: list[Finding] = []
        for _ in range(3):
            calls += await finding(lookup, link(0), link(0))
        await lists.answer(PARENT, made(link(0), "first"))
        calls += await finding(lookup, link(0))
        await lists.answer(PARENT, made(link(0), "second"))
        await lists.answer(PARENT, made(link(0), "third"))
        found = await asyncio.gather(*calls)
        assert [one and one.id for one in found] == ["first"] * 2 + ["second"] * 4 + ["third"]

    async def test_a_list_that_was_begun_and_ended_is_not_used_again(
        self, lists: Lists, lookup: Lookup
    ) -> None:
        """The result of a list is not used again: each later caller gets a list of its own."""
        for number in range(3):
            [call] = await finding(lookup, link(0))
            await lists.answer(PARENT, made(link(0), str(number)))
            found = await call
            assert found
            assert found.id == str(number)
        assert lists.begun == [PARENT] * 3

    async def test_nothing_of_a_list_is_kept(self, lists: Lists, lookup: Lookup) -> None:
        """The links of a list are not kept after the lookup, whether or not a call looked for them."""
        [call] = await finding(lookup, link(0))
        wanted, other = made(link(0)), made(link(1))
        kept = [weakref.ref(wanted), weakref.ref(other)]
        await lists.answer(PARENT, wanted, other)
        assert await call is wanted
        del call, wanted, other
        gc.collect()
        assert [ref() for ref in kept] == [None, None]

    async def test_parents_do_not_wait_for_each_other(self, lists: Lists, lookup: Lookup) -> None:
        """The lists of two parents are in flight at the same time, and end in any order."""
        [one, other] = await finding(lookup, link(0), link(0, OTHER))
        assert lists.begun == [PARENT, OTHER]
        await lists.answer(OTHER, made(link(0, OTHER)))
        assert (one.done(), await other) == (False, made(link(0, OTHER)))
        await lists.answer(PARENT)
        assert await one is None

    async def test_the_first_match_wins(self, lists: Lists, lookup: Lookup) -> None:
        """The first of two equal links in the list is the result."""
        [call] = await finding(lookup, link(0))
        await lists.answer(PARENT, made(link(1), "0"), made(link(0), "1"), made(link(0), "2"))
        found = await call
        assert found
        assert found.id == "1"

    async def test_the_first_match_either_way_round(self, lists: Lists, lookup: Lookup) -> None:
        """The first of two equal ``RELATES_TO`` links, in either direction, is the result."""
        [call] = await finding(lookup, PARENT.relates_to(OTHER))
        await lists.answer(PARENT, made(OTHER.relates_to(PARENT), "1"), made(PARENT.relates_to(OTHER), "2"))
        found = await call
        assert found
        assert (found.id, found.parent) == ("1", OTHER)


class TestErrors:
    async def test_it_reaches_all_who_shared_the_list(self, lists: Lists, lookup: Lookup) -> None:
        """An error reaches all callers that share the list, and no caller of the next one."""
        calls = await finding(lookup, link(0), link(1))
        [late] = await finding(lookup, link(0))
        await lists.fail(PARENT, CaseLinksError("no list"))
        for call in calls:
            with pytest.raises(CaseLinksError, match="no list"):
                await call
        await lists.answer(PARENT, made(link(0)))
        assert await late == made(link(0))

    async def test_the_next_asks_anew(self, lists: Lists, lookup: Lookup) -> None:
        """An error is not remembered: the next caller begins another list."""
        [failing] = await finding(lookup, link(0))
        await lists.fail(PARENT, CaseLinksError("no list"))
        with pytest.raises(CaseLinksError):
            await failing
        [call] = await finding(lookup, link(0))
        await lists.answer(PARENT, made(link(0)))
        assert await call == made(link(0))

    async def test_an_error_that_nobody_waits_for(self, lists: Lists, lookup: Lookup) -> None:
        """An error without callers, because all were cancelled, causes no warning of the event loop."""
        calls = await finding(lookup, link(0), link(1))
        lists.under_way[PARENT].set_exception(CaseLinksError("no list"))
        await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)


class TestCancelling:
    async def test_one_of_several(self, lists: Lists, lookup: Lookup) -> None:
        """A list continues for the other callers if one of them is cancelled."""
        first, second, third = await finding(lookup, link(0), link(0), link(0))
        for call in (first, third):
            call.cancel()
            await settle()
            assert call.cancelled()
        assert lists.cancelled == []
        await lists.answer(PARENT, made(link(0)))
        assert await second == made(link(0))

    async def test_the_last(self, lists: Lists, lookup: Lookup) -> None:
        """A list whose last caller is cancelled is cancelled too, and the next caller begins another one."""
        for call in await finding(lookup, link(0), link(1)):
            call.cancel()
        await settle()
        assert (lists.cancelled, lists.under_way) == ([PARENT], {})
        [call] = await finding(lookup, link(0))
        await lists.answer(PARENT, made(link(0)))
        assert await call == made(link(0))

    async def test_the_last_of_a_list_that_waits(self, lists: Lists, lookup: Lookup) -> None:
        """A waiting list whose last caller is cancelled does not begin, and the list in flight continues."""
        [first] = await finding(lookup, link(0))
        [waiting] = await finding(lookup, link(0))
        waiting.cancel()
        await settle()
        await lists.answer(PARENT, made(link(0)))
        assert await first == made(link(0))
        assert (lists.begun, lists.cancelled) == ([PARENT], [])

    async def test_who_asks_after_one_that_waited_was_cancelled(self, lists: Lists, lookup: Lookup) -> None:
        """A caller that arrives after a waiting caller was cancelled gets the next list."""
        [first] = await finding(lookup, link(0))
        [waiting] = await finding(lookup, link(0))
        waiting.cancel()
        [late] = await finding(lookup, link(1))
        assert lists.begun == [PARENT]
        await lists.answer(PARENT, made(link(0)))
        await lists.answer(PARENT, made(link(1)))
        assert (await first, await late) == (made(link(0)), made(link(1)))

    async def test_the_one_in_flight_while_others_wait(self, lists: Lists, lookup: Lookup) -> None:
        """If the list in flight is cancelled, the waiting list begins at once."""
        [first] = await finding(lookup, link(0))
        [waiting] = await finding(lookup, link(1))
        first.cancel()
        await settle()
        assert (lists.begun, lists.cancelled) == ([PARENT] * 2, [PARENT])
        await lists.answer(PARENT, made(link(1)))
        assert await waiting == made(link(1))

    @pytest.mark.parametrize("turns", range(6))
    async def test_before_it_has_begun(self, turns: int, lists: Lists, lookup: Lookup) -> None:
        """A caller that is cancelled before its list begins does not disturb an equal caller."""
        first = asyncio.create_task(lookup.find(link(0)))
        await settle(turns)
        first.cancel()
        [second] = await finding(lookup, link(0))
        await lists.answer(PARENT, made(link(0)))
        assert await second == made(link(0))
        assert first.cancelled()

    async def test_as_the_response_comes(self, lists: Lists, lookup: Lookup) -> None:
        """A caller that is cancelled as the response arrives does not take it from the others."""
        first, second = await finding(lookup, link(0), link(0))
        lists.under_way[PARENT].set_result([made(link(0))])
        first.cancel()
        assert await second == made(link(0))
        assert first.cancelled()


async def test_lists_over_http(keys: ApiKeys) -> None:
    """Lookups with a client send one request, and cancelling all callers closes its connection."""
    api = Api()
    hold = Held(api)
    async with Server(api, hold) as server, CaseLinksClient(server.url, keys) as links:
        await links.create_link(link(0))
        lookup = Lookup(links._operations)
        calls = await finding(lookup, *(link(number) for number in range(50)))
        await server.until_seen(2)
        hold.release()
        found = await asyncio.gather(*calls)
        assert [one and one.child for one in found] == [link(0).child] + [None] * 49
        [call] = await finding(lookup, link(0))
        await server.until_seen(3)
        call.cancel()
        await settle()
        assert sockets_to(server.port) == 0
    assert server.methods == ["POST", "GET", "GET"]
