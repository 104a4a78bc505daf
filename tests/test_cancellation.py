"""The rules of cancellation: at any wait, no resource stays in use and no link is created twice."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest
from attrs import Factory, define, field, frozen
from hypothesis import given
from hypothesis import strategies as st

from datadog_caselinks import (
    ApiKeys,
    AuthenticationError,
    CaseLinksClient,
    CaseLinksError,
    Failed,
    LinkStatus,
    NewCaseLink,
    PlanOutcome,
    RetryPolicy,
)
from datadog_caselinks.bulk.journal_file import key_of, read_journal
from datadog_caselinks.sandbox import Fault, Sandbox
from tests.support.ids import case, some_id
from tests.support.leftovers import leaving_nothing
from tests.support.waiting import settle
from tests.support.waits import Waits

_logger = logging.getLogger(__name__)

_numbers = itertools.count(1)


def chain() -> list[NewCaseLink]:
    """Return three links between four new cases, in a chain."""
    cases = [case(some_id(next(_numbers))) for _ in range(4)]
    return [parent.blocks(child) for parent, child in itertools.pairwise(cases)]


@frozen
class Run:
    """One call on new entities, with the wanted links and the path of its journal."""

    sandbox: Sandbox
    links: CaseLinksClient
    wanted: Sequence[NewCaseLink]
    journal: Path
    reading: list[str] = Factory(list)

    async def source(self) -> AsyncIterator[NewCaseLink]:
        """Yield the wanted links; ``reading`` is not empty while the source is open."""
        self.reading.append("the source")
        try:
            for new in self.wanted:
                await asyncio.sleep(0)
                yield new
        finally:
            self.reading.pop()
            await asyncio.sleep(0)


Call = Callable[[Run], Coroutine[Any, Any, None]]


async def creates(run: Run) -> None:
    await run.links.create_link(run.wanted[0])


async def creates_and_looks(run: Run) -> None:
    run.sandbox.fail_next(Fault.LOST_RESPONSE, operation="create")
    await run.links.create_link(run.wanted[0])


async def creates_again(run: Run) -> None:
    run.sandbox.fail_next(Fault.HTTP_503, operation="create")
    await run.links.create_link(run.wanted[0])


async def ensures(run: Run) -> None:
    await run.links.ensure_link(run.wanted[0])


async def ensures_equal_ones(run: Run) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(run.links.ensure_link(run.wanted[0]))


async def lists(run: Run) -> None:
    await run.links.list_links(run.wanted[0].parent)


async def deletes(run: Run) -> None:
    link, _ = await run.links.ensure_link(run.wanted[0])
    await run.links.delete_link(link)


async def require_none_failed(outcomes: AsyncIterator[PlanOutcome]) -> None:
    for failed in [outcome async for outcome in outcomes if isinstance(outcome, Failed)]:
        raise failed.error


async def creates_many(run: Run) -> None:
    await require_none_failed(run.links.create_links(run.source(), concurrency=2, ensure=True))


async def creates_many_with_a_journal(run: Run) -> None:
    await require_none_failed(run.links.create_links(run.wanted, concurrency=2, journal=run.journal))


async def reads_a_graph(run: Run) -> None:
    await run.links.ensure_link(run.wanted[0])
    await run.links.read_graph(run.wanted[0].parent)


async def plans_and_applies(run: Run) -> None:
    await run.links.create_link(run.wanted[0].child.blocks(run.wanted[0].parent))  # to be deleted by the plan
    plan = await run.links.plan_links(run.wanted, prune=True)
    await require_none_failed(run.links.apply_plan(plan))


CALLS: dict[str, Call] = {
    function.__name__: function
    for function in (
        creates,
        creates_and_looks,
        creates_again,
        ensures,
        ensures_equal_ones,
        lists,
        deletes,
        creates_many,
        creates_many_with_a_journal,
        reads_a_graph,
        plans_and_applies,
    )
}


def new_client(sandbox: Sandbox, credentials: ApiKeys | None = None) -> CaseLinksClient:
    """Return a client that never waits between attempts and has few slots."""
    policy = RetryPolicy(max_attempts=3, base=0, settle=0)
    return CaseLinksClient(sandbox.site, credentials or sandbox.credentials, retry=policy, max_concurrency=2)


@contextlib.asynccontextmanager
async def running(
    sandbox: Sandbox, folder: Path, waits: Waits, *, is_closed: bool = False
) -> AsyncIterator[Run]:
    """Run a call on a new client, and check that nothing is left and each link can be created once.

    ``is_closed`` says that the client is closed at the end, so that another client creates the links.
    """
    tasks, descriptors = asyncio.all_tasks(), open_descriptors()
    links, wanted = new_client(sandbox), chain()
    run = Run(sandbox, links, wanted, folder / f"{wanted[0].parent.id}.journal")
    yield run
    await settle(50)  # a request that is on its way arrives
    assert held(links) == NOTHING
    assert (waits.tasks_left, run.reading) == ([], [])
    async with new_client(sandbox) if is_closed else links as after:
        journal = run.journal if run.journal.exists() else None
        if journal:
            require_true(run)
        # The journal is unlocked again, and each missing link can be created.
        await require_none_failed(after.create_links(wanted, ensure=True, journal=journal))
        assert [stored(sandbox)[key_of(new)] for new in wanted] == [1] * len(wanted)
    await settle()
    assert asyncio.all_tasks() == tasks
    assert open_descriptors() == descriptors


NOTHING = {"slots": 0, "waiting": 0, "under way": 0, "looks": 0, "connections": 0}


def held(links: CaseLinksClient) -> dict[str, int]:
    """Return what the calls of ``links`` occupy, which is not visible from outside until it runs out."""
    bucket, lookup, requester = links._gate._first, links._creator._lookup, links._requester
    slots = requester._slots.get(bucket)
    taken = links._concurrency - slots._value if slots else 0  # before the first call there are none
    connectors = [session.connector for session in links._sessions._opened.values()]
    return {
        "slots": taken + links._concurrency - requester._in_flight._value,
        "waiting": len(bucket._waiting),
        "under way": bucket._window._in_flight,
        "looks": len(lookup._in_flight) + len(lookup._next),
        "connections": sum(len(connector._acquired) for connector in connectors if connector),
    }


def open_descriptors() -> int:
    """Return the number of open files and sockets, or 0 if the system does not report it."""
    with contextlib.suppress(FileNotFoundError):
        return len(os.listdir("/proc/self/fd"))
    return 0


def stored(sandbox: Sandbox) -> Counter[Any]:
    """Return how often each link exists, by its key in a journal."""
    return Counter(
        (
            f"{link.parent_entity_type} {link.parent_entity_id}",
            link.relationship,
            f"{link.child_entity_type} {link.child_entity_id}",
        )
        for link in sandbox.links
    )


def require_true(run: Run) -> None:
    """Fail if the journal reports a link that does not exist, or omits one that does."""
    there = stored(run.sandbox)
    said = {key_of(record.new): record.status for record in read_journal(run.journal)}
    for new in run.wanted:
        key = key_of(new)
        assert (
            there[key] == 1
            if said.get(key) in (LinkStatus.CREATED, LinkStatus.ALREADY_LINKED)
            else key in said or not there[key]
        )


def unanswering() -> Sandbox:
    """Return a sandbox that applies requests and does not respond."""
    return Sandbox(faults=["delay=60"])


# The limit is never reached, but with it both sides count each request.
pytestmark = pytest.mark.sandbox(rate_limit="1000000/1h")


@define
class Closer:
    """An action that closes a client in tasks of its own."""

    links: CaseLinksClient = field(init=False)
    tasks: list[asyncio.Task[None]] = Factory(list)

    def __call__(self, _: asyncio.Task[Any]) -> None:
        self.tasks.append(asyncio.create_task(self.links.close()))


def ours(error: BaseException) -> bool:
    """Return whether an error is a documented one, or a group of such errors."""
    if isinstance(error, ExceptionGroup):
        return all(map(ours, error.exceptions))
    return isinstance(error, CaseLinksError)


at_either_end = pytest.mark.parametrize("as_they_end", [False, True], ids=["as it begins", "as it ends"])
whichever_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


class TestCancelling:
    @at_either_end
    @whichever_call
    async def test_at_every_wait(
        self, call: Call, as_they_end: bool, sandbox: Sandbox, tmp_path: Path
    ) -> None:
        """A call that is cancelled at any wait of any of its tasks ends as cancelled and occupies nothing."""
        async with leaving_nothing():
            for number in itertools.count():
                waits = Waits([number], as_they_end=as_they_end)
                async with running(sandbox, tmp_path, waits) as run:
                    task = await waits.of(call(run))
                    assert task.cancelled() == waits.has_acted, number
                    del task
                if waits.count <= number:
                    break
        _logger.info("%d waits", number)
        assert number > 2

    @given(
        call=st.sampled_from(list(CALLS.values())),
        first=st.integers(0, 30),
        later=st.lists(st.integers(1, 5), min_size=1, max_size=3),
        as_they_end=st.booleans(),
    )
    async def test_over_and_over(self, call: Call, first: int, later: list[int], as_they_end: bool) -> None:
        """A call that is cancelled again while it cleans up occupies nothing."""
        waits = Waits(list(itertools.accumulate([first, *later])), as_they_end=as_they_end)
        with tempfile.TemporaryDirectory() as folder:
            async with (
                leaving_nothing(),
                Sandbox(rate_limit="1000000/1h") as sandbox,
                running(sandbox, Path(folder), waits) as run,
            ):
                task = await waits.of(call(run))
                assert task.cancelled() == waits.has_acted
                del task

    @whichever_call
    async def test_a_timeout_around_it(self, call: Call, tmp_path: Path) -> None:
        """A timeout of the caller around a call raises ``TimeoutError``."""
        async with leaving_nothing(), unanswering() as sandbox, new_client(sandbox) as links:
            run = Run(sandbox, links, chain(), tmp_path / "a.journal")
            deadline = asyncio.timeout(None)

            async def limited() -> None:
                async with deadline:
                    await call(run)

            task = await Waits([1], lambda _: deadline.reschedule(0)).of(limited())
            assert type(task.exception()) is TimeoutError
            await settle()
            assert held(links) == NOTHING
            del task

    @whichever_call
    async def test_within_a_group(self, call: Call, keys: ApiKeys, tmp_path: Path) -> None:
        """A task group raises the error of the failed call in its own type, and cancels the other call."""
        async with (
            leaving_nothing(),
            unanswering() as sandbox,
            new_client(sandbox) as links,
            new_client(sandbox, keys) as refused,
        ):
            run, begun = Run(sandbox, links, chain(), tmp_path / "a.journal"), asyncio.Event()

            async def fail() -> None:
                await begun.wait()
                await refused.create_link(run.wanted[0])

            async def grouped() -> None:
                async with asyncio.TaskGroup() as group:
                    group.create_task(call(run), name="the other")
                    group.create_task(fail())

            task = await Waits([1], lambda _: begun.set()).of(grouped())
            error = task.exception()
            assert isinstance(error, ExceptionGroup)
            assert [type(each) for each in error.exceptions] == [AuthenticationError]
            await settle()
            assert held(links) == NOTHING
            del task, error


class TestClosing:
    @at_either_end
    @whichever_call
    async def test_at_every_wait(
        self, call: Call, as_they_end: bool, sandbox: Sandbox, tmp_path: Path
    ) -> None:
        """A call whose client is closed at any wait ends with a result or a documented error."""
        async with leaving_nothing():
            for number in itertools.count():
                closer = Closer()
                waits = Waits([number], closer, as_they_end=as_they_end)
                async with running(sandbox, tmp_path, waits, is_closed=True) as run:
                    closer.links = run.links
                    task = await waits.of(call(run))
                    closer(task)
                    await asyncio.wait(closer.tasks)
                    if error := task.exception():
                        assert ours(error), number
                    del task, error
                if waits.count <= number:
                    break
