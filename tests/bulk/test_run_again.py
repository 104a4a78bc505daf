"""Leaving the loop of ``create_links`` early in any way, and running again with the same journal."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import shutil
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from datadog_caselinks import CaseLinksClient, LinkStatus, Outcome, RetryPolicy, case
from datadog_caselinks.bulk import journal
from datadog_caselinks.bulk.journal_file import Store
from datadog_caselinks.bulk.journal_lock import locked, locked_if_free
from datadog_caselinks.sandbox import Sandbox
from datadog_caselinks.values.errors import JournalError
from tests.support.ids import some_id
from tests.support.waiting import settle, until

COUNT = 30
CONCURRENCY = 10  # so that each way leaves the loop before the last link begins
WANTED = [case(some_id(1)).blocks(case(some_id(number + 2))) for number in range(COUNT)]

Start = Callable[[], AsyncIterator[Outcome]]


@pytest.fixture
async def client(sandbox: Sandbox, at_once: RetryPolicy) -> AsyncIterator[CaseLinksClient]:
    keys = sandbox.credentials
    async with CaseLinksClient(sandbox.site, keys, retry=at_once, max_concurrency=CONCURRENCY) as client:
        yield client


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.journal"


@pytest.fixture
def start(client: CaseLinksClient, path: Path) -> Start:
    """Return a function that starts a run."""
    return lambda: client.create_links(WANTED, journal=path)


async def first(start: Start) -> Outcome:
    """Start a run, and return its first outcome."""
    return await anext(start())


@pytest.mark.parametrize("log", [None, b""])
async def test_a_journal_without_its_log_creates_no_link_again(
    client: CaseLinksClient,
    sandbox: Sandbox,
    path: Path,
    caplog: pytest.LogCaptureFixture,
    log: bytes | None,
) -> None:
    """With a copy of a journal without its newest records, each run looks up links before it creates them."""
    copy = path.with_name("copy.journal")
    async with contextlib.aclosing(client.create_links(WANTED[:20], journal=path)) as run:
        async for _ in run:
            if not copy.exists():
                shutil.copy(path, copy)
    if log is not None:
        copy.with_name("copy.journal-wal").write_bytes(log)
    async with contextlib.aclosing(client.create_links(WANTED, journal=copy)) as run:
        await anext(run)
    assert [outcome.status async for outcome in client.create_links(WANTED, journal=copy)]
    assert len(sandbox.links) == COUNT
    assert caplog.text.count("copy.journal lacks its newest records: its file copy.journal-wal was") == 2


async def by_break(start: Start) -> None:
    """Leave the loop by ``break``."""
    async for _ in start():
        break


async def by_error(start: Start) -> None:
    """Leave the loop by an error of its body."""
    with contextlib.suppress(LookupError):
        async for _ in start():
            raise LookupError


async def by_anext(start: Start) -> None:
    """Take one outcome without a loop."""
    await anext(start())


async def by_break_of_a_wrapper(start: Start) -> None:
    """Leave a loop over nested generators by ``break``."""

    async def wrapped(times: int) -> AsyncIterator[Outcome]:
        async for outcome in wrapped(times - 1) if times else start():
            yield outcome

    async for _ in wrapped(5):
        break


async def by_a_cycle(start: Start) -> None:
    """Leave a loop whose iterator is in a reference cycle, as it can be with a traceback."""
    cycle: list[object] = [start()]
    cycle.append(cycle)
    async for _ in cycle[0]:  # type: ignore[attr-defined]
        break


async def by_cancelling(start: Start) -> None:
    """Cancel the task of the run without waiting for it."""

    async def consume() -> None:
        async for _ in start():
            consumed.set()

    consumed = asyncio.Event()
    task = asyncio.create_task(consume())
    await consumed.wait()
    task.cancel()


async def by_a_timeout(start: Start) -> None:
    """Let a timeout end the run while it waits for an outcome."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(None) as timeout:
            async for _ in start():
                timeout.reschedule(0)


async def by_not_starting(start: Start) -> None:
    """Take no outcome at all."""
    start()


async def by_closing(start: Start) -> None:
    """Close the iterator, as the documentation recommends."""
    outcomes = start()
    await anext(outcomes)
    await outcomes.aclose()  # type: ignore[attr-defined]


WAYS = [
    by_break,
    by_error,
    by_anext,
    by_break_of_a_wrapper,
    by_a_cycle,
    by_cancelling,
    by_a_timeout,
    by_not_starting,
    by_closing,
]


@pytest.mark.parametrize("leave", WAYS)
@pytest.mark.slow
async def test_the_next_run_goes_on(
    leave: Callable[[Start], Awaitable[None]], start: Start, sandbox: Sandbox
) -> None:
    """After any way of leaving a run, the next one waits for its end and creates each link once."""
    gc.disable()  # the result must not depend on garbage collection
    try:
        for _ in range(3):
            await leave(start)
        outcomes = [outcome async for outcome in start()]
    finally:
        gc.enable()
    assert len(outcomes) == COUNT
    assert {outcome.status for outcome in outcomes} <= {LinkStatus.CREATED, LinkStatus.ALREADY_LINKED}
    assert len(sandbox.links) == len({link.child_entity_id for link in sandbox.links}) == COUNT


async def test_the_next_run_waits_as_long_as_the_ending_takes(
    start: Start, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run waits for the end of an earlier one in the same process, however long it takes."""
    monkeypatch.setattr(journal, "_POLL", 0)
    monkeypatch.setattr(journal, "_MAX_POLLS", 2)
    close, closing, go = Store.close, threading.Event(), threading.Event()

    def close_later(store: Store) -> str | None:
        closing.set()
        assert go.wait(60)
        return close(store)

    monkeypatch.setattr(Store, "close", close_later)
    tries = counted_tries(monkeypatch)
    await by_break(start)
    again = asyncio.create_task(first(start))
    await until(lambda: (len(tries) >= 6 and closing.is_set()) or again.done())
    assert closing.is_set()
    assert not again.done()
    go.set()
    await again
    await settle()


def counted_tries(monkeypatch: pytest.MonkeyPatch) -> list[Store]:
    """Record each attempt to open a journal."""
    tries: list[Store] = []
    opening = Store.open

    def open_counted(store: Store) -> bool:
        tries.append(store)
        return opening(store)

    monkeypatch.setattr(Store, "open", open_counted)
    return tries


class TestInUse:
    @pytest.fixture(autouse=True)
    def polls(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(journal, "_POLL", 0)
        monkeypatch.setattr(journal, "_MAX_POLLS", 5)

    async def test_within_the_loop(self, start: Start) -> None:
        """A second run during the loop is refused and does not disturb the first one."""
        count = 0
        async for _ in start():
            if not count:
                with pytest.raises(JournalError, match="is in use by another run"):
                    await anext(start())
            count += 1
        assert count == COUNT

    async def test_an_iterator_that_is_kept(self, start: Start) -> None:
        """A second run is refused while the iterator of the first one is not closed."""
        outcomes = start()
        async for _ in outcomes:
            break
        with pytest.raises(JournalError, match="is in use by another run"):
            await anext(start())
        await anext(outcomes)
        await outcomes.aclose()  # type: ignore[attr-defined]
        assert len([outcome async for outcome in start()]) == COUNT

    async def test_a_run_that_ends_in_the_meantime(
        self, start: Start, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A run waits a moment for another process that ends its use of the journal."""
        monkeypatch.setattr(journal, "_MAX_POLLS", 10**9)
        tries = counted_tries(monkeypatch)
        with contextlib.ExitStack() as other:
            other.enter_context(locked(path))
            run = asyncio.create_task(first(start))
            await until(lambda: len(tries) >= 3)
        await run
        await settle()

    async def test_cancelled_while_it_waits(
        self, start: Start, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A run that waits for the journal can be cancelled, and leaves nothing behind."""
        monkeypatch.setattr(journal, "_MAX_POLLS", 10**9)
        tries = counted_tries(monkeypatch)
        with locked(path):
            run = asyncio.create_task(first(start))
            await until(lambda: len(tries) >= 3)
            run.cancel()
            with pytest.raises(asyncio.CancelledError):
                await run
        assert len([outcome async for outcome in start()]) == COUNT
        assert not journal._ending

    @pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")  # nothing closes it: see below
    async def test_after_an_event_loop_that_did_not_end_its_run(self, path: Path, sandbox: Sandbox) -> None:
        """A run that its event loop did not end is not waited for: another process may have the journal."""

        def begin_to_end() -> None:
            loop = asyncio.new_event_loop()
            left = journal.Journal(path, site=sandbox.url)
            loop.run_until_complete(left.__aenter__())
            left.end()
            loop.close()

        await asyncio.to_thread(begin_to_end)
        with contextlib.ExitStack() as other:
            await until(lambda: other.enter_context(locked_if_free(path)))
            with pytest.raises(JournalError, match="is in use by another run"):
                async with journal.Journal(path, site=sandbox.url):
                    pass
