"""The rules of events: each call begins and ends once, and no observer changes it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from pathlib import Path

import pytest

from datadog_caselinks import (
    AmbiguousResultError,
    ApiKeys,
    AuthenticationError,
    BadRequestError,
    CallEvent,
    CallFinished,
    CallRetrying,
    CallStarted,
    CallWaiting,
    CaseLinksClient,
    InvalidLinkError,
    RetryPolicy,
    ServerError,
    case,
    parse_link,
)
from datadog_caselinks.sandbox import Sandbox
from tests.support.api import Api
from tests.support.clock import Clock
from tests.support.ids import some_id
from tests.support.server import Server, Step
from tests.support.steps import Held, answers, created, drops, is_silent, listed
from tests.support.waiting import settle

NEW = case(some_id(1)).blocks(case(some_id(2)))


@pytest.fixture
def events() -> list[CallEvent]:
    return []


def reported(events: list[CallEvent]) -> list[str]:
    return [type(event).__name__.removeprefix("Call").lower() for event in events]


class TestEvents:
    async def test_each_operation_begins_and_ends(self, events: list[CallEvent]) -> None:
        """Each operation has a first and a last event with the same call, its subject and its result."""
        async with (
            Sandbox(seed="demo") as sandbox,
            CaseLinksClient(sandbox.site, sandbox.credentials, on_event=events.append) as links,
        ):
            link = await links.create_link(NEW)
            found = await links.ensure_link(NEW)
            listed_ = await links.list_links(NEW.parent)
            await links.delete_link(link)
            got = await links.get_case("SHOP-1")
        assert reported(events) == ["started", "finished"] * 5
        calls = [event.call for event in events if isinstance(event, CallFinished)]
        assert [event.call for event in events[::2]] == calls
        assert [(call.operation, call.subject, call.outcome, call.result) for call in calls] == [
            ("create", NEW, "created", (link, True)),
            ("ensure", NEW, "already_linked", found),
            ("list", NEW.parent, "done", listed_),
            ("delete", link.id, "done", None),
            ("get", "SHOP-1", "done", got),
        ]
        assert [call.attempts for call in calls] == [1, 0, 1, 1, 1]
        assert all(event.seconds >= 0 for event in events if isinstance(event, CallFinished))

    async def test_a_retry(self, events: list[CallEvent], keys: ApiKeys, at_once: RetryPolicy) -> None:
        """A retry has an event with its error and the seconds to the next attempt."""
        async with (
            Server(answers(503), answers(503), listed) as server,
            CaseLinksClient(server.url, keys, retry=at_once, on_event=events.append) as links,
        ):
            await links.list_links(NEW.parent)
        assert reported(events) == ["started", "retrying", "retrying", "finished"]
        retries = [event for event in events if isinstance(event, CallRetrying)]
        assert [(type(event.error), event.seconds) for event in retries] == [(ServerError, 0.0)] * 2
        assert events[0].call.attempts == 3

    async def test_a_lost_response_is_reconciled(
        self, events: list[CallEvent], keys: ApiKeys, at_once: RetryPolicy
    ) -> None:
        """A lookup is not an attempt, and the link that it finds counts as created."""
        api = Api()
        async with (
            Server(api.applies(drops), api) as server,
            CaseLinksClient(server.url, keys, retry=at_once, on_event=events.append) as links,
        ):
            await links.create_link(NEW)
        assert reported(events) == ["started", "retrying", "reconciled", "finished"]
        assert (events[0].call.attempts, events[0].call.outcome) == (1, "created")

    async def test_a_wait_for_the_rate_limit(
        self, events: list[CallEvent], keys: ApiKeys, at_once: RetryPolicy, clock: Clock
    ) -> None:
        """A wait for the rate limit has an event with its length, and the call has the total."""
        async with (
            Server(answers(429, Retry_After="60"), created) as server,
            CaseLinksClient(server.url, keys, retry=at_once, on_event=events.append) as links,
        ):
            task = asyncio.create_task(links.create_link(NEW))
            await server.until_seen(1)
            await settle()
            assert reported(events) == ["started", "waiting"]
            clock.advance(60)
            await task
        assert reported(events) == ["started", "waiting", "finished"]
        wait = events[1]
        assert isinstance(wait, CallWaiting)
        assert 59 < wait.seconds <= 60
        assert 59 < wait.call.waited < 61
        assert wait.call.attempts == 2

    async def test_a_wait_for_those_before_it(self, events: list[CallEvent], keys: ApiKeys) -> None:
        """A wait for the first response has an event with zero seconds, since its length is unknown."""
        hold = Held()
        async with (
            Server(hold, created) as server,
            CaseLinksClient(server.url, keys, on_event=events.append) as links,
        ):
            first = asyncio.create_task(links.create_link(NEW))
            await server.until_seen(1)
            second = asyncio.create_task(links.create_link(NEW))
            await settle()
            hold.release()
            await asyncio.gather(first, second)
        assert [event.seconds for event in events if isinstance(event, CallWaiting)] == [0.0]

    @pytest.mark.parametrize(
        ("step", "error", "outcome"),
        [
            (answers(400), BadRequestError, "failed"),
            (drops, AmbiguousResultError, "ambiguous"),
        ],
    )
    async def test_a_failure(
        self, events: list[CallEvent], keys: ApiKeys, step: Step, error: type[Exception], outcome: str
    ) -> None:
        """The last event of a failed call has the error that the call raises."""
        policy = RetryPolicy(max_attempts=1, base=0, settle=0)
        async with (
            Server(step) as server,
            CaseLinksClient(server.url, keys, retry=policy, on_event=events.append) as links,
        ):
            with pytest.raises(error) as raised:
                await links.create_link(NEW)
        assert reported(events)[-1] == "finished"
        call = events[-1].call
        assert (call.error, call.outcome, call.result) == (raised.value, outcome, None)

    async def test_a_cancelled_call_ends_too(self, events: list[CallEvent], keys: ApiKeys) -> None:
        """A cancelled call has a last event, so that a count of calls in flight returns to zero."""
        async with (
            Server(is_silent) as server,
            CaseLinksClient(server.url, keys, on_event=events.append) as links,
        ):
            task = asyncio.create_task(links.create_link(NEW))
            await server.until_seen(1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert reported(events) == ["started", "finished"]
        assert events[-1].call.outcome == "cancelled"

    async def test_nothing_is_reported_after_the_end(
        self, events: list[CallEvent], keys: ApiKeys, at_once: RetryPolicy
    ) -> None:
        """A cancelled call has no events after its last one, even if another call uses its lookup."""
        hold = Held(answers(503))
        api = Api()
        async with (
            Server(hold, api) as server,
            CaseLinksClient(server.url, keys, retry=at_once, on_event=events.append) as links,
        ):
            others = NEW.parent.blocks(case(some_id(3)))
            first, second = (asyncio.create_task(links.ensure_link(new)) for new in (NEW, others))
            await server.until_seen(1)
            first.cancel()
            await settle()
            hold.release()
            await second
        assert server.methods == ["GET", "GET", "POST"]
        assert reported(events) == ["started", "started", "finished", "finished"]

    async def test_what_is_refused_before_it_is_sent(self, events: list[CallEvent], keys: ApiKeys) -> None:
        """An argument that is not a link is refused before the call begins, and nothing is sent."""
        async with (
            Server(created) as server,
            CaseLinksClient(server.url, keys, on_event=events.append) as links,
        ):
            with pytest.raises(InvalidLinkError):
                await links.create_link("a blocks b")  # type: ignore[arg-type]
        assert (events, server.methods) == ([], [])


class TestRun:
    async def test_each_link_belongs_to_its_run(self, events: list[CallEvent]) -> None:
        """The events of a run surround those of its links, and the last one counts the outcomes."""
        async with (
            Sandbox(seed="demo") as sandbox,
            CaseLinksClient(sandbox.site, sandbox.credentials, on_event=events.append) as links,
        ):
            wanted = [NEW, NEW, parse_link("SHOP-1", "blocks", "SHOP-999")]
            outcomes = [outcome async for outcome in links.create_links(wanted, ensure=True)]
        assert len(outcomes) == 3
        run = events[0].call
        assert (run.operation, run.subject, run.parent) == ("bulk", None, None)
        assert events[-1] == CallFinished(run, events[-1].seconds)  # type: ignore[union-attr]
        assert run.result == Counter(created=1, already_linked=1, failed=1)
        children = {event.call for event in events[1:-1]}
        assert {call.parent for call in children} == {run}
        assert Counter(call.operation for call in children) == Counter(ensure=2, get=2)
        assert run.outcome == "done"

    async def test_links_of_a_journal(self, events: list[CallEvent], tmp_path: Path) -> None:
        """A link that an earlier run has created is not a call of the next run."""
        async with (
            Sandbox() as sandbox,
            CaseLinksClient(sandbox.site, sandbox.credentials, on_event=events.append) as links,
        ):
            for _ in range(2):
                async for _ in links.create_links([NEW], journal=tmp_path / "journal"):
                    pass
        assert [event.call.operation for event in events if isinstance(event, CallStarted)] == [
            "bulk",
            "create",
            "bulk",
        ]

    async def test_a_consumer_is_not_within_the_run(self, events: list[CallEvent]) -> None:
        """A call of the consumer between two outcomes does not belong to the run."""
        async with (
            Sandbox() as sandbox,
            CaseLinksClient(sandbox.site, sandbox.credentials, on_event=events.append) as links,
            contextlib.aclosing(links.create_links([NEW])) as outcomes,
        ):
            async for _ in outcomes:
                await links.list_links(NEW.parent)
        (call,) = {event.call for event in events if event.call.operation == "list"}
        assert call.parent is None

    async def test_a_run_that_is_broken_off(self, events: list[CallEvent]) -> None:
        """A run that the consumer ends early ends as cancelled, after all of its calls."""
        async with (
            Sandbox() as sandbox,
            CaseLinksClient(sandbox.site, sandbox.credentials, on_event=events.append) as links,
            contextlib.aclosing(links.create_links([NEW] * 50, concurrency=2)) as outcomes,
        ):
            async for _ in outcomes:
                break
        started = [event.call for event in events if isinstance(event, CallStarted)]
        finished = [event.call for event in events if isinstance(event, CallFinished)]
        assert set(started) == set(finished)
        assert len(started) == len(finished)
        assert (finished[-1].operation, finished[-1].outcome) == ("bulk", "cancelled")


class TestWatchers:
    async def test_one_that_fails_ends_no_call(self, keys: ApiKeys, caplog: pytest.LogCaptureFixture) -> None:
        """An error of an observer is logged, and does not fail the call."""

        def fails(event: CallEvent) -> None:
            raise ZeroDivisionError

        async with Server(created) as server, CaseLinksClient(server.url, keys, on_event=fails) as links:
            link = await links.create_link(NEW)
        assert link.relationship == NEW.relationship
        assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
            ("ERROR", "on_event failed at CallStarted of create"),
            ("ERROR", "on_event failed at CallFinished of create"),
        ]

    async def test_no_event_shows_a_key(
        self, events: list[CallEvent], keys: ApiKeys, at_once: RetryPolicy
    ) -> None:
        """No event contains a key, neither as text nor in its attributes."""
        async with (
            Server(answers(500), answers(401)) as server,
            CaseLinksClient(server.url, keys, retry=at_once, on_event=events.append) as links,
        ):
            with pytest.raises(AuthenticationError):
                await links.list_links(NEW.parent)
        assert reported(events) == ["started", "retrying", "finished"]
        assert isinstance(keys.api_key, str)
        assert not any(key in repr(events) for key in (keys.api_key, keys.app_key))
