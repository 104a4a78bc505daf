"""Bulk linking: one outcome for each link, bounded reading ahead, and no leftover tasks."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import itertools
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from datadog_caselinks import (
    AlreadyLinked,
    AmbiguousResultError,
    ApiKeys,
    AuthenticationError,
    BadRequestError,
    CaseLink,
    CaseLinksClient,
    CaseLinksError,
    ConnectError,
    Created,
    Failed,
    LinkReference,
    LinkStatus,
    NewCaseLink,
    NotFoundError,
    Outcome,
    ParameterError,
    PermissionDeniedError,
    RateLimitError,
    RetryPolicy,
    ServerError,
    WantedLink,
    incident,
    parse_link,
)
from datadog_caselinks.bulk.create_links import would_fail_all
from datadog_caselinks.bulk.journal import Journal
from datadog_caselinks.bulk.journal_file import read_journal
from datadog_caselinks.calls import recent_links
from datadog_caselinks.calls.concurrency import Progress, for_each, map_concurrently
from datadog_caselinks.sandbox import Fault, Sandbox
from datadog_caselinks.values.errors import InvalidLinkError, JournalError
from tests.support.api import Api
from tests.support.clock import Clock
from tests.support.ids import case, some_id
from tests.support.server import Exchange, Server, Step
from tests.support.steps import Held, answers, created, drops, is_silent, listed
from tests.support.waiting import settle, until

PARENT = case(some_id(1))
OUTAGE = incident(some_id(1))


def link(number: int) -> NewCaseLink:
    return PARENT.blocks(case(some_id(number + 2)))


MADE = CaseLink("the-id", link(1).parent, link(1).relationship, link(1).child)


@pytest.mark.parametrize(
    ("error", "at_first", "later"),
    [
        (AuthenticationError("x", status=401), True, True),
        (PermissionDeniedError("x", status=403), True, False),
        (ConnectError("x"), True, True),
        (RateLimitError("x", status=429), True, True),
        (NotFoundError("x", status=404), False, False),
        (ServerError("x", status=503), False, False),
    ],
)
def test_which_error_all_further_links_would_meet(error: CaseLinksError, at_first: bool, later: bool) -> None:
    """Invalid keys, network errors and rate limits fail every link; a 403 does before the first create."""
    assert would_fail_all(error, has_created=False) is at_first
    assert would_fail_all(error, has_created=True) is later
    in_outage = copy.copy(error)
    in_outage.during_outage = True
    assert would_fail_all(in_outage, has_created=True) is not isinstance(error, PermissionDeniedError)


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (Created(link(1), MADE, 0), LinkStatus.CREATED),
        (AlreadyLinked(link(1), MADE, 0), LinkStatus.ALREADY_LINKED),
        (Failed(link(1), NotFoundError("x", status=404), 0), LinkStatus.FAILED),
        (
            Failed(link(1), AmbiguousResultError("x", new=link(1), reason=ConnectError("x")), 0),
            LinkStatus.AMBIGUOUS,
        ),
    ],
)
def test_status(outcome: Outcome, status: LinkStatus) -> None:
    """Each outcome has the status under which journals and events report it."""
    assert outcome.status is status


class Source:
    """An endless source that counts the links taken."""

    def __init__(self) -> None:
        self.taken = 0

    def __iter__(self) -> Iterator[NewCaseLink]:
        return self

    def __next__(self) -> NewCaseLink:
        self.taken += 1
        return link(self.taken - 1)


async def slowly(count: int) -> AsyncIterator[NewCaseLink]:
    for number in range(count):
        await asyncio.sleep(0)
        yield link(number)


@contextlib.asynccontextmanager
async def leaving_no_task() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    gc.collect()
    await settle()
    assert asyncio.all_tasks() == before


class TestOutcomes:
    @pytest.mark.parametrize("count", [0, 1, 7, 50])
    @pytest.mark.parametrize("concurrency", [None, 1, 3])
    @pytest.mark.parametrize("is_async", [False, True])
    async def test_one_for_each_link(
        self, is_async: bool, concurrency: int | None, count: int, keys: ApiKeys
    ) -> None:
        """Each link of a sync or async source has one outcome, with its index and the created link."""
        source = slowly(count) if is_async else (link(number) for number in range(count))
        async with Server(created) as server, CaseLinksClient(server.url, keys) as links:
            outcomes = [outcome async for outcome in links.create_links(source, concurrency=concurrency)]
        assert sorted(outcome.index for outcome in outcomes) == list(range(count))
        for outcome in outcomes:
            assert isinstance(outcome, Created)
            assert outcome.new == link(outcome.index)
            assert (outcome.link.parent, outcome.link.child) == (outcome.new.parent, outcome.new.child)
        assert len(server.seen) == count

    async def test_failures_stop_nothing(self, keys: ApiKeys, at_once: RetryPolicy) -> None:
        """A link that fails is an outcome with its error, and the other links continue."""

        async def every_third_fails(exchange: Exchange) -> None:
            if exchange.seen.method == "GET":
                await answers(403)(exchange)  # so the lookup after a lost response fails
                return
            number = int(exchange.seen.json["data"]["attributes"]["child_entity_id"][-2:], 16) - 2
            await (created, answers(400), drops)[number % 3](exchange)

        async with (
            Server(every_third_fails) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as links,
        ):
            source = [link(number) for number in range(30)]
            outcomes = [outcome async for outcome in links.create_links(source, concurrency=4)]
        outcomes.sort(key=lambda outcome: outcome.index)
        assert [outcome.new for outcome in outcomes] == source
        for number, outcome in enumerate(outcomes):
            match number % 3:
                case 0:
                    assert isinstance(outcome, Created)
                case 1:
                    assert isinstance(outcome, Failed)
                    assert type(outcome.error) is BadRequestError
                case _:
                    assert isinstance(outcome, Failed)
                    assert type(outcome.error) is AmbiguousResultError
        assert server.methods.count("POST") == 30

    async def test_in_the_order_of_completion(self, keys: ApiKeys) -> None:
        """A slow link does not delay the outcomes of the links after it."""
        hold = Held()
        async with (
            Server(created, hold, created) as server,
            CaseLinksClient(server.url, keys) as links,
            contextlib.aclosing(links.create_links(slowly(5), concurrency=2)) as outcomes,
        ):
            await links.create_link(link(99))
            got = [(await anext(outcomes)).index for _ in range(4)]
            hold.release()
            got += [outcome.index async for outcome in outcomes]
        assert sorted(got[:4]) == [1, 2, 3, 4]
        assert got[4] == 0

    async def test_a_closed_client_fails_each(self, keys: ApiKeys) -> None:
        """With a closed client, every link fails and nothing is sent."""
        async with Server(created) as server:
            links = CaseLinksClient(server.url, keys)
            await links.close()
            outcomes = [outcome async for outcome in links.create_links(slowly(3))]
        assert server.connections == 0
        assert [type(outcome) for outcome in outcomes] == [Failed] * 3


class TestReadingAhead:
    async def test_no_further_than_what_is_being_created(self, keys: ApiKeys) -> None:
        """While no response arrives, only the links in flight are taken from the source."""
        source, hold = Source(), Held()
        async with (
            Server(created, hold) as server,
            CaseLinksClient(server.url, keys) as links,
            contextlib.aclosing(links.create_links(source, concurrency=5)) as outcomes,
        ):
            await links.create_link(link(99))
            first = asyncio.ensure_future(anext(outcomes))
            await server.until_seen(6)
            await settle()
            assert source.taken == 5
            hold.release()
            await first

    async def test_a_slow_consumer_bounds_it(self, keys: ApiKeys) -> None:
        """Links whose outcomes wait for the consumer count too: at most twice the concurrency in all."""
        source = Source()
        async with (
            Server(created) as server,
            CaseLinksClient(server.url, keys) as links,
            contextlib.aclosing(links.create_links(source, concurrency=5)) as outcomes,
        ):
            for consumed in range(1, 10):
                await anext(outcomes)
                await server.until_seen(consumed + 10)
                await settle()
                assert source.taken == len(server.seen) == consumed + 10

    async def test_by_default_as_wide_as_the_client(self, keys: ApiKeys) -> None:
        """Without ``concurrency``, the client's ``max_concurrency`` applies."""
        hold = Held()
        async with (
            Server(created, hold) as server,
            CaseLinksClient(server.url, keys, max_concurrency=3) as links,
            contextlib.aclosing(links.create_links(Source())) as outcomes,
        ):
            await links.create_link(link(99))
            first = asyncio.ensure_future(anext(outcomes))
            await server.until_seen(4)
            await settle()
            assert len(server.seen) == 4
            hold.release()
            await first

    @pytest.mark.parametrize("concurrency", [0, -1])
    async def test_no_concurrency_is_refused(self, concurrency: int, keys: ApiKeys) -> None:
        """A concurrency below 1 is refused before anything is sent."""
        async with Server(created) as server, CaseLinksClient(server.url, keys) as links, asyncio.timeout(5):
            with pytest.raises(ParameterError, match="concurrency must be at least 1"):
                await anext(links.create_links(slowly(1), concurrency=concurrency))
        assert server.connections == 0


class TestBreakingOff:
    @pytest.mark.slow
    @pytest.mark.parametrize("is_closed", [True, False], ids=["aclose", "break alone"])
    async def test_the_consumer_leaves(self, is_closed: bool, keys: ApiKeys) -> None:
        """Leaving the loop cancels the links in flight, leaves no task, and the client remains usable."""
        hold = Held()
        async with (
            leaving_no_task(),
            Server(created, hold, hold, hold, created) as server,
            CaseLinksClient(server.url, keys, max_concurrency=3) as links,
        ):
            outcomes = links.create_links(Source())
            async for outcome in outcomes:
                assert outcome.index == 0
                break
            await server.until_seen(4)
            if is_closed:
                await outcomes.aclose()
            del outcomes
            gc.collect()
            assert (await links.create_link(link(99))).child == link(99).child
            assert len(server.seen) == 5

    async def test_the_consumer_is_cancelled(self, keys: ApiKeys) -> None:
        """Cancelling the consumer cancels the links in flight and leaves no task."""
        async with (
            leaving_no_task(),
            Server(created, Held()) as server,
            CaseLinksClient(server.url, keys, max_concurrency=3) as links,
        ):
            await links.create_link(link(99))

            async def consume() -> list[Outcome]:
                return [outcome async for outcome in links.create_links(Source())]

            task = asyncio.create_task(consume())
            await server.until_seen(4)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            del task

    async def test_it_was_never_begun(self, keys: ApiKeys) -> None:
        """Nothing is read or sent before the first outcome is requested."""
        source = Source()
        async with Server(created) as server, CaseLinksClient(server.url, keys) as links:
            await links.create_links(source).aclose()
        assert (source.taken, server.connections) == (0, 0)

    @pytest.mark.parametrize("is_async", [False, True])
    async def test_a_generator_that_somebody_holds(self, is_async: bool, keys: ApiKeys) -> None:
        """The source is closed at the end, even if the caller still holds a reference to it."""
        ended: list[bool] = []

        def endless() -> Iterator[NewCaseLink]:
            try:
                yield from Source()
            finally:
                ended.append(True)

        async def endless_too() -> AsyncIterator[NewCaseLink]:
            try:
                for new in Source():
                    yield new
            finally:
                await asyncio.sleep(0)
                ended.append(True)

        source = endless_too() if is_async else endless()
        async with Server(created) as server, CaseLinksClient(server.url, keys) as links:
            async with contextlib.aclosing(links.create_links(source, concurrency=2)) as outcomes:
                await anext(outcomes)
            assert ended == [True]
            del source

    async def test_an_async_source_is_left_at_once(self, keys: ApiKeys) -> None:
        """An async source that waits for its next link when the consumer leaves is cancelled."""
        ended = asyncio.Event()

        async def endless() -> AsyncIterator[NewCaseLink]:
            try:
                yield link(0)
                await asyncio.Event().wait()
            finally:
                ended.set()

        async with leaving_no_task(), Server(created) as server, CaseLinksClient(server.url, keys) as links:
            async with contextlib.aclosing(links.create_links(endless(), concurrency=2)) as outcomes:
                await anext(outcomes)
            assert ended.is_set()

    async def test_what_is_in_flight_has_ended_when_the_consumer_has_left(self) -> None:
        """Calls in flight have finished their cleanup when the consumer has left."""
        ended: list[int] = []

        async def do(index: int, _: object) -> None:
            if index == 0:
                return
            try:
                await asyncio.Event().wait()
            finally:
                await settle()
                ended.append(index)

        async with leaving_no_task():
            async with contextlib.aclosing(for_each(do, Source(), concurrency=3)) as results:
                await anext(results)
                await settle()
            assert ended == [1, 2, 3]


class TestSourceThatRaises:
    @pytest.mark.parametrize("is_async", [False, True])
    @pytest.mark.parametrize("concurrency", [1, 2, 10])
    async def test_after_the_links_before_it(self, concurrency: int, is_async: bool, keys: ApiKeys) -> None:
        """An error of the source is raised after the outcomes of all links before it."""

        def bad() -> Iterator[NewCaseLink]:
            yield from (link(0), link(1), link(2))
            raise LookupError("no more")

        async def bad_too() -> AsyncIterator[NewCaseLink]:
            for new in bad():
                yield new

        got: list[int] = []

        async def consume(links: CaseLinksClient) -> None:
            source = bad_too() if is_async else bad()
            async for outcome in links.create_links(source, concurrency=concurrency):
                got.append(outcome.index)

        async with leaving_no_task(), Server(created) as server, CaseLinksClient(server.url, keys) as links:
            with pytest.raises(LookupError, match="no more"):
                await consume(links)
        assert sorted(got) == [0, 1, 2]
        assert len(server.seen) == 3

    async def test_what_is_no_source_is_a_type_error(self, keys: ApiKeys) -> None:
        """An object that is not iterable raises TypeError, and nothing is sent."""
        async with Server(created) as server, CaseLinksClient(server.url, keys) as links:
            with pytest.raises(TypeError, match=r"^source must be an iterable of links, not None$"):
                await anext(links.create_links(None))  # type: ignore[arg-type]
        assert server.connections == 0

    @pytest.mark.parametrize("path", ["links.csv", Path("links.csv")])
    async def test_a_path_is_no_source(self, path: Any, keys: ApiKeys) -> None:
        """The error for the path of a file in place of its links names the function that reads them."""
        async with Server(created) as server, CaseLinksClient(server.url, keys) as links:
            with pytest.raises(ParameterError, match=r"; read_link_file reads the links of a file$"):
                await anext(links.create_links(path))
        assert server.connections == 0


class TestMapConcurrently:
    async def test_in_the_order_of_the_items(self) -> None:
        """Results are in the order of the items, not of completion."""

        async def ask(item: int) -> str:
            for _ in range(item):
                await asyncio.sleep(0)
            return f"answer {item}"

        found = await map_concurrently(ask, [3, 1, 2], concurrency=3, progress=Progress(None))
        assert list(found.items()) == [(3, "answer 3"), (1, "answer 1"), (2, "answer 2")]

    async def test_so_many_at_a_time(self) -> None:
        """At most ``concurrency`` calls run at the same time, and a call starts as soon as another ends."""
        asked: list[int] = []
        may_answer = asyncio.Semaphore(0)

        async def ask(item: int) -> None:
            asked.append(item)
            await may_answer.acquire()

        all_of_them = asyncio.create_task(
            map_concurrently(ask, range(4), concurrency=2, progress=Progress(None))
        )
        for expected in ([0, 1], [0, 1, 2], [0, 1, 2, 3]):
            await settle()
            assert asked == expected
            may_answer.release()
        may_answer.release()
        await all_of_them

    async def test_progress_goes_on_from_round_to_round(self) -> None:
        """Progress reports each completion once, and a later round adds to both numbers."""
        reported: list[tuple[int, int]] = []
        progress = Progress(lambda answered, asked: reported.append((answered, asked)))

        async def ask(item: str) -> None:
            pass

        for items in ("ab", "", "cde"):
            await map_concurrently(ask, items, concurrency=2, progress=progress)
        assert reported == [(1, 2), (2, 2), (3, 5), (4, 5), (5, 5)]

    async def test_the_first_error_ends_it(self) -> None:
        """The first error of concurrent calls is raised unchanged, and the other calls are cancelled."""
        reported: list[int] = []

        async def ask(item: int) -> None:
            if item == 1:
                raise LookupError("no answer")
            await asyncio.Event().wait()

        progress = Progress(lambda answered, _: reported.append(answered))
        async with leaving_no_task():
            with pytest.raises(LookupError, match="no answer"):
                await map_concurrently(ask, range(9), concurrency=2, progress=progress)
        assert reported == []


async def outcomes_of(links: CaseLinksClient, source: object, **options: object) -> list[Outcome]:
    outcomes = [outcome async for outcome in links.create_links(source, **options)]  # type: ignore[arg-type]
    return sorted(outcomes, key=lambda outcome: outcome.index)


class TestEnsure:
    async def test_what_exists_is_not_created_again(self, sandbox: Sandbox) -> None:
        """A link that exists, or appears twice in the source, is reported as already linked, with its id."""
        async with CaseLinksClient(sandbox.site, sandbox.credentials) as links:
            there = await links.create_link(link(1))
            first, second, third = await outcomes_of(links, [link(1), link(2), link(2)], ensure=True)
        assert first == AlreadyLinked(link(1), there, 0)
        assert {type(second), type(third)} == {Created, AlreadyLinked}
        assert isinstance(second, Created | AlreadyLinked)
        assert isinstance(third, Created | AlreadyLinked)
        assert second.link == third.link
        assert len(sandbox.links) == 2


@pytest.fixture
def cases(sandbox: Sandbox) -> list[str]:
    """Add four cases with the UUIDs ``some_id(1)`` to ``some_id(4)``, and return their keys."""
    return [sandbox.add_case(f"SHOP-{number}", id=some_id(number)).key for number in range(1, 5)]


def between(parent: str, child: str) -> WantedLink:
    return parse_link(parent, "BLOCKS", child)


def looked_up(sandbox: Sandbox) -> list[str]:
    """Return the cases that were looked up."""
    return [request.path.rpartition("/")[2] for request in sandbox.requests if request.method == "GET"]


class TestKeys:
    @pytest.mark.parametrize("concurrency", [1, 3, 50])
    @pytest.mark.slow
    async def test_each_is_looked_up_once(self, sandbox: Sandbox, cases: list[str], concurrency: int) -> None:
        """Each case key is looked up once, regardless of how many links use it concurrently."""
        wanted = [between(*pair) for pair in itertools.permutations(cases, 2)] * 5
        async with CaseLinksClient(sandbox.site, sandbox.credentials) as links:
            outcomes = await outcomes_of(links, wanted, concurrency=concurrency)
        assert {type(outcome) for outcome in outcomes} == {Created}
        assert [outcome.new for outcome in outcomes] == wanted
        assert sorted(looked_up(sandbox)) == cases
        made = Counter((held.parent_entity_id, held.child_entity_id) for held in sandbox.links)
        assert made == dict.fromkeys(itertools.permutations([some_id(n) for n in range(1, 5)], 2), 5)

    async def test_among_links_that_need_none(self, sandbox: Sandbox, cases: list[str]) -> None:
        """The outcome has both the link as it was written and the link that was created."""
        wanted: list[WantedLink] = [link(7), between("shop-1", some_id(2)), case(some_id(9)).causes(OUTAGE)]
        async with CaseLinksClient(sandbox.site, sandbox.credentials) as links:
            outcomes = await outcomes_of(links, wanted)
        assert [outcome.new for outcome in outcomes] == wanted
        assert isinstance(outcomes[1], Created)
        assert isinstance(outcomes[1].new, LinkReference)
        assert str(outcomes[1].link) == f"CASE {some_id(1)} BLOCKS CASE {some_id(2)}"
        assert looked_up(sandbox) == ["SHOP-1"]

    async def test_an_unknown_one_fails_its_links_alone(self, sandbox: Sandbox, cases: list[str]) -> None:
        """An unknown case fails only its own links, which are not sent, and is looked up once."""
        wanted = [between("SHOP-1", "GONE-1"), between("SHOP-1", "SHOP-2"), between("gone-1", "SHOP-2")]
        async with CaseLinksClient(sandbox.site, sandbox.credentials) as links:
            first, second, third = await outcomes_of(links, wanted)
        for index, failed in ((0, first), (2, third)):
            assert isinstance(failed, Failed)
            assert (failed.new, failed.index) == (wanted[index], index)
            assert isinstance(failed.error, NotFoundError)
            assert "cannot get case GONE-1: 404 case not found" in str(failed.error)
        assert isinstance(second, Created)
        assert (len(sandbox.links), looked_up(sandbox).count("GONE-1")) == (1, 1)

    async def test_two_names_of_one_case(self, sandbox: Sandbox, cases: list[str]) -> None:
        """A link between the key and the UUID of one case fails after the lookup and is not sent."""
        async with CaseLinksClient(sandbox.site, sandbox.credentials) as links:
            [failed] = await outcomes_of(links, [between("SHOP-1", some_id(1))])
        assert isinstance(failed, Failed)
        assert isinstance(failed.error, InvalidLinkError)
        assert sandbox.links == []

    async def test_a_lookup_that_fails(
        self, sandbox: Sandbox, cases: list[str], at_once: RetryPolicy
    ) -> None:
        """A lookup that fails after all retries fails its link, and the next link looks the case up again."""
        sandbox.fail_next(Fault.HTTP_503, operation="get", count=at_once.max_attempts)
        async with CaseLinksClient(sandbox.site, sandbox.credentials, retry=at_once) as links:
            wanted = [between("SHOP-1", some_id(2)), between("SHOP-1", some_id(3))]
            failed, made = await outcomes_of(links, wanted, concurrency=1)
        assert isinstance(failed, Failed)
        assert isinstance(failed.error, ServerError)
        assert isinstance(made, Created)

    async def test_a_slow_one_holds_up_its_own_links(self, keys: ApiKeys) -> None:
        """A slow lookup delays only its own link."""

        async def all_but_the_case(exchange: Exchange) -> None:
            await (created if exchange.seen.method == "POST" else is_silent)(exchange)

        async with (
            leaving_no_task(),
            Server(all_but_the_case) as server,
            CaseLinksClient(server.url, keys) as links,
        ):
            await links.create_link(link(99))
            source = [between("SHOP-1", "SHOP-2"), *(link(number) for number in range(20))]
            async with contextlib.aclosing(links.create_links(source, concurrency=2)) as outcomes:
                assert [(await anext(outcomes)).index for _ in range(20)] == list(range(1, 21))

    async def test_what_exists_is_not_created_again(self, sandbox: Sandbox, cases: list[str]) -> None:
        """With ``ensure``, the key and the UUID of a case are the same end."""
        wanted = [between("SHOP-1", "SHOP-2"), between(some_id(1), "shop-2"), between("SHOP-1", "SHOP-2")]
        async with CaseLinksClient(sandbox.site, sandbox.credentials) as links:
            there = await links.create_link(case(some_id(1)).blocks(case(some_id(2))))
            outcomes = await outcomes_of(links, wanted, ensure=True)
        assert outcomes == [AlreadyLinked(new, there, index) for index, new in enumerate(wanted)]
        assert len(sandbox.links) == 1

    async def test_a_journal_knows_links_by_their_uuids(
        self, sandbox: Sandbox, cases: list[str], tmp_path: Path
    ) -> None:
        """The journal recognizes a link by key or by UUID, within a run and in the next one."""
        journal = tmp_path / "journal"
        ready = case(some_id(1)).blocks(case(some_id(2)))
        async with CaseLinksClient(sandbox.site, sandbox.credentials) as links:
            first = await outcomes_of(links, [between("SHOP-1", "SHOP-2"), ready], journal=journal)
            second = await outcomes_of(links, [ready, between("shop-1", some_id(2))], journal=journal)
        assert Counter(type(outcome) for outcome in first) == {Created: 1, AlreadyLinked: 1}
        assert [type(outcome) for outcome in second] == [AlreadyLinked] * 2
        assert [(record.new, record.status) for record in read_journal(journal)] == [
            (ready, LinkStatus.CREATED)
        ]
        assert len(sandbox.links) == 1

    async def test_a_journal_keeps_nothing_of_an_unknown_one(
        self, sandbox: Sandbox, cases: list[str], tmp_path: Path
    ) -> None:
        """A link with an unknown case is not recorded, and the next run looks the case up again."""
        journal = tmp_path / "journal"
        async with CaseLinksClient(sandbox.site, sandbox.credentials) as links:
            [failed] = await outcomes_of(links, [between("SHOP-1", "SHOP-5")], journal=journal)
            assert isinstance(failed, Failed)
            assert list(read_journal(journal)) == []
            sandbox.add_case("SHOP-5")
            [made] = await outcomes_of(links, [between("SHOP-1", "SHOP-5")], journal=journal)
        assert isinstance(made, Created)

    async def test_a_journal_resumes(
        self, sandbox: Sandbox, cases: list[str], tmp_path: Path, at_once: RetryPolicy
    ) -> None:
        """An ambiguous link that is named by keys is looked up by the next run, and not created again."""
        journal, wanted = tmp_path / "journal", [between("SHOP-1", "SHOP-2")]
        async with CaseLinksClient(sandbox.site, sandbox.credentials, retry=at_once) as links:
            sandbox.fail_next(Fault.LOST_RESPONSE, operation="create")
            sandbox.fail_next(Fault.HTTP_500, operation="list", count=at_once.max_attempts)
            [failed] = await outcomes_of(links, wanted, journal=journal)
            assert isinstance(failed, Failed)
            assert isinstance(failed.error, AmbiguousResultError)
            [found] = await outcomes_of(links, wanted, journal=journal)
        assert isinstance(found, AlreadyLinked)
        assert [stored.id for stored in sandbox.links] == [found.link.id]


class TestAmbiguousEntry:
    """A run that continues, and an equal call of the same client."""

    @pytest.fixture
    async def journal(self, tmp_path: Path, client: CaseLinksClient) -> Path:
        """Return a journal that was left when a link was in flight."""
        path = tmp_path / "journal"
        async with Journal(path, site=client.site.api_url) as journal, journal.entry(link(0)):
            pass
        return path

    async def test_an_equal_call_waits_for_the_run(
        self, journal: Path, sandbox: Sandbox, client: CaseLinksClient
    ) -> None:
        """``ensure_link`` waits for a run that looks the link up and creates it."""
        sandbox.fail_next(Fault.DELAY, operation="create", seconds=1000)
        run = asyncio.create_task(outcomes_of(client, [link(0)], journal=journal))
        while len(sandbox.requests) < 2:
            await settle()
        call = asyncio.create_task(client.ensure_link(link(0)))
        await settle(100)
        assert len(sandbox.requests) == 2
        for task in (run, call):
            task.cancel()
        await asyncio.wait([run, call])

    async def test_the_link_of_a_call_just_before(self, journal: Path, sandbox: Sandbox) -> None:
        """A run returns the link that an equal call has just created, without a lookup."""
        async with CaseLinksClient(sandbox.site, sandbox.credentials) as client:
            there, _ = await client.ensure_link(link(0))
            sent = len(sandbox.requests)
            [found] = await outcomes_of(client, [link(0)], journal=journal)
        assert found == AlreadyLinked(link(0), there, 0, found_by_lookup=True)
        assert len(sandbox.requests) == sent

    async def test_a_link_of_a_call_long_before(
        self, sandbox: Sandbox, client: CaseLinksClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A run knows what other calls created since it listed the parent, however many links that are."""
        monkeypatch.setattr(recent_links, "_MAX_RECENT", 10)

        async def source() -> AsyncIterator[NewCaseLink]:
            yield link(0)
            while not sandbox.links:
                await settle()
            for number in range(1, 21):
                await client.create_link(link(number))
            yield link(1)

        outcomes = await outcomes_of(client, source(), ensure=True)
        assert [type(outcome) for outcome in outcomes] == [Created, AlreadyLinked]
        assert len(sandbox.links) == 21


class TestJournal:
    async def test_what_is_done_is_not_sent_again(self, sandbox: Sandbox, tmp_path: Path) -> None:
        """A second run sends nothing for finished links, and returns the ids of the first run."""
        async with CaseLinksClient(sandbox.site, sandbox.credentials) as links:
            first = await outcomes_of(links, slowly(5), journal=tmp_path / "journal")
            asked = len(sandbox.requests)
            second = await outcomes_of(links, slowly(6), journal=tmp_path / "journal")
        assert [type(outcome) for outcome in second] == [*[AlreadyLinked] * 5, Created]
        assert [outcome.link for outcome in first if isinstance(outcome, Created)] == [
            outcome.link for outcome in second if isinstance(outcome, AlreadyLinked)
        ]
        assert len(sandbox.requests) == asked + 1

    async def test_a_failed_link_is_created_by_the_next_run(self, sandbox: Sandbox, tmp_path: Path) -> None:
        """A refused link is recorded with its error, and the next run sends it again."""
        journal = tmp_path / "journal"
        without_scope = sandbox.credentials_without_scope
        async with CaseLinksClient(sandbox.site, without_scope) as links:
            [failed] = await outcomes_of(links, [link(1)], journal=journal)
        assert isinstance(failed, Failed)
        [record] = read_journal(journal)
        assert (record.new, record.status, record.error) == (link(1), LinkStatus.FAILED, str(failed.error))
        async with CaseLinksClient(sandbox.site, sandbox.credentials) as links:
            [made] = await outcomes_of(links, [link(1)], journal=journal)
        assert isinstance(made, Created)
        assert len(sandbox.links) == 1

    async def test_an_ambiguous_link_is_looked_up_by_the_next_run(
        self, sandbox: Sandbox, tmp_path: Path, at_once: RetryPolicy
    ) -> None:
        """An ambiguous link is looked up by the next run, and not created again."""
        journal = tmp_path / "journal"
        async with CaseLinksClient(sandbox.site, sandbox.credentials, retry=at_once) as links:
            sandbox.fail_next(Fault.LOST_RESPONSE, operation="create")
            sandbox.fail_next(Fault.HTTP_500, operation="list", count=at_once.max_attempts)
            [failed] = await outcomes_of(links, [link(1)], journal=journal)
            assert isinstance(failed, Failed)
            assert isinstance(failed.error, AmbiguousResultError)
            assert [record.status for record in read_journal(journal)] == [LinkStatus.AMBIGUOUS]
            [found] = await outcomes_of(links, [link(1)], journal=journal)
        assert isinstance(found, AlreadyLinked)
        assert [stored.id for stored in sandbox.links] == [found.link.id]

    @pytest.mark.clock(stopped_at=1000.0)
    async def test_the_next_run_waits_once_for_all_ambiguous_links(
        self, sandbox: Sandbox, tmp_path: Path, clock: Clock
    ) -> None:
        """An earlier run sends nothing more, so links that wait their turn need no further wait."""
        wanted = [link(number) for number in range(3)]
        async with Journal(tmp_path / "journal", site=sandbox.site.api_url) as journal:
            for new in wanted:
                async with journal.entry(new):
                    pass
        async with CaseLinksClient(sandbox.site, sandbox.credentials) as client:
            run = client.create_links(wanted, journal=tmp_path / "journal", concurrency=1)
            async with contextlib.aclosing(run):
                begun = asyncio.create_task(anext(run))
                while not begun.done():
                    await settle()
                    clock.advance(1)
                for _ in range(2):
                    another = asyncio.create_task(anext(run))
                    await until(another.done)
        assert len(sandbox.links) == 3

    @pytest.mark.parametrize("is_applied", [True, False])
    @pytest.mark.parametrize(
        ("last", "kind"),
        [((answers(500), listed), ServerError), ((answers(403),), PermissionDeniedError)],
        ids=["500", "403"],
    )
    async def test_a_link_that_the_server_may_create_late_is_looked_up_by_the_next_run(
        self,
        last: tuple[Step, ...],
        kind: type[CaseLinksError],
        is_applied: bool,
        keys: ApiKeys,
        tmp_path: Path,
        at_once: RetryPolicy,
    ) -> None:
        """A link fails if no lookup showed it after an ambiguous attempt; the next run looks it up."""
        journal, api, policy = tmp_path / "journal", Api(), evolve(at_once, max_attempts=2)
        async with Server(answers(500), listed, *last, api) as server:
            async with CaseLinksClient(server.url, keys, retry=policy) as links:
                [failed] = await outcomes_of(links, [link(1)], journal=journal)
            assert isinstance(failed, Failed)
            assert (type(failed.error), failed.status) == (kind, LinkStatus.FAILED)
            [record] = read_journal(journal)
            assert (record.status, record.error) == (LinkStatus.AMBIGUOUS, str(failed.error))
            if is_applied:
                api.make(server.seen[0].json["data"]["attributes"])
            async with CaseLinksClient(server.url, keys, retry=policy) as links:
                [outcome] = await outcomes_of(links, [link(1)], journal=journal)
        assert (isinstance(outcome, AlreadyLinked), len(api.links)) == (is_applied, 1)

    async def test_a_link_that_is_refused_by_the_next_run_has_failed(
        self, keys: ApiKeys, tmp_path: Path, at_once: RetryPolicy
    ) -> None:
        """A link that a later run does not find, and that is refused then, is recorded as failed."""
        journal = tmp_path / "journal"
        async with Server(answers(500), listed, answers(403), listed, answers(403)) as server:
            for status in (LinkStatus.AMBIGUOUS, LinkStatus.FAILED):
                async with CaseLinksClient(server.url, keys, retry=at_once) as links:
                    await outcomes_of(links, [link(1)], journal=journal)
                assert [record.status for record in read_journal(journal)] == [status]

    @pytest.mark.parametrize("ensure", [False, True])
    async def test_what_is_no_link_is_refused_and_not_kept(
        self, sandbox: Sandbox, tmp_path: Path, ensure: bool
    ) -> None:
        """A value that is not a link fails on its own and is not recorded."""
        async with CaseLinksClient(sandbox.site, sandbox.credentials) as links:
            wanted = ["no link", link(1)]
            outcomes = await outcomes_of(links, wanted, journal=tmp_path / "journal", ensure=ensure)
        assert isinstance(outcomes[0], Failed)
        assert type(outcomes[0].error) is InvalidLinkError
        assert isinstance(outcomes[1], Created)
        assert [record.new for record in read_journal(tmp_path / "journal")] == [link(1)]

    async def test_one_that_cannot_be_used_is_an_error(self, sandbox: Sandbox, tmp_path: Path) -> None:
        """A journal that cannot be used is an error before anything is read or sent."""
        source = Source()
        async with CaseLinksClient(sandbox.site, sandbox.credentials) as links:
            with pytest.raises(JournalError, match="name a file in an existing"):
                await anext(links.create_links(source, journal=tmp_path / "missing" / "journal"))
        assert (source.taken, len(sandbox.requests)) == (0, 0)

    async def test_one_that_cannot_be_written_further_ends_it(
        self, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """If the journal cannot be written, nothing more is sent, and the error follows the last outcome."""
        connect = sqlite3.connect

        def connected(*args: Any, **rest: Any) -> sqlite3.Connection:
            connection: sqlite3.Connection = connect(*args, **rest)
            connection.execute("PRAGMA max_page_count = 5")  # SQLite reports this as a full disk
            return connection

        monkeypatch.setattr(sqlite3, "connect", connected)
        got: list[Outcome] = []

        async def consume() -> None:
            async for outcome in links.create_links(Source(), concurrency=3, journal=tmp_path / "journal"):
                got.append(outcome)

        async with (
            leaving_no_task(),
            CaseLinksClient(sandbox.site, sandbox.credentials) as links,
        ):
            with pytest.raises(JournalError, match="the disk is full"):
                await consume()
        assert got
        assert {type(outcome) for outcome in got} == {Created}
        assert len(sandbox.links) == len(got)
