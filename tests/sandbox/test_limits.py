"""The rate limit of the sandbox: its rules, its windows aligned to the calendar, and its headers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pytest

from datadog_caselinks.sandbox import RateLimitRule, Sandbox
from datadog_caselinks.values.errors import ParameterError

if TYPE_CHECKING:
    from tests.sandbox.caller import Caller
    from tests.support.clock import ManualClock

HEADERS = ("Limit", "Period", "Remaining", "Reset", "Name")


def hints(headers: Mapping[str, str]) -> list[str]:
    return [headers[f"X-RateLimit-{name}"] for name in HEADERS]


class TestRateLimitRule:
    @pytest.mark.parametrize(
        ("text", "rule"),
        [
            ("200/2s", RateLimitRule(200, 2)),
            ("60/1m", RateLimitRule(60, 60)),
            ("1000/1h", RateLimitRule(1000, 3600)),
            ("3/10", RateLimitRule(3, 10)),
            ("5/0.5s", RateLimitRule(5, 0.5)),
        ],
    )
    def test_reads_limit_and_period(self, text: str, rule: RateLimitRule) -> None:
        """A rule has a number of requests and a period in seconds, minutes or hours."""
        assert RateLimitRule.parse(text) == rule

    @pytest.mark.parametrize(
        "text", ["", "200", "200/", "/2s", "200/2d", "-1/2s", "1.5/2s", "200 / 2s", "٣/10"]
    )
    def test_refuses_other_texts(self, text: str) -> None:
        """The message for another text shows the form of a rule."""
        with pytest.raises(ParameterError, match="LIMIT/PERIOD such as 200/2s, 60/1m or 3/10"):
            RateLimitRule.parse(text)

    @pytest.mark.parametrize(("limit", "period"), [(0, 1.0), (1, 0.0), (1, -1.0), (1, float("inf"))])
    def test_refuses_numbers_that_limit_nothing(self, limit: int, period: float) -> None:
        """A rule with a limit or a period that is not positive and finite is refused."""
        with pytest.raises(ParameterError, match="above zero"):
            RateLimitRule(limit, period)


async def test_reports_nothing_without_a_rule(caller: Caller) -> None:
    """A response without a rule has no rate limit headers."""
    reply = await caller.create()

    assert not [name for name in reply.headers if name.lower().startswith("x-ratelimit")]


async def test_counts_down_and_rejects(caller: Caller, sandbox: Sandbox) -> None:
    """Each response reports what remains; a request above the limit gets a 429 and is not applied."""
    sandbox.rate_limit = "2/10s"

    replies = [await caller.create() for _ in range(4)]

    assert [reply.status for reply in replies] == [201, 201, 429, 429]
    assert [hints(reply.headers) for reply in replies] == [
        ["2", "10", "1", "10", "case_links"],
        ["2", "10", "0", "10", "case_links"],
        ["2", "10", "0", "10", "case_links"],
        ["2", "10", "0", "10", "case_links"],
    ]
    assert replies[2].json == {"errors": ["Rate limit of 2 requests in 10 seconds exceeded"]}
    assert sandbox.rejected == 2
    assert len(sandbox.links) == 2


async def test_shares_one_bucket_between_the_operations(caller: Caller, sandbox: Sandbox) -> None:
    """All operations count in one bucket."""
    sandbox.rate_limit = RateLimitRule(3, 10)

    created = await caller.create()
    listed, deleted = await caller.list(), await caller.delete(created.json["data"]["id"])

    assert [reply.headers["X-RateLimit-Remaining"] for reply in (created, listed, deleted)] == ["2", "1", "0"]
    assert (await caller.list()).status == 429


async def test_aligns_windows_to_the_calendar(
    caller: Caller, sandbox: Sandbox, manual_clock: ManualClock
) -> None:
    """Windows are aligned to the calendar, whenever the first request arrives."""
    sandbox.rate_limit = "1/10s"
    manual_clock.now += 9.5

    last = await caller.create()
    manual_clock.now += 0.5
    first = await caller.create()

    assert (last.status, last.headers["X-RateLimit-Reset"]) == (201, "1")
    assert (first.status, first.headers["X-RateLimit-Reset"]) == (201, "10")


@pytest.mark.parametrize(("elapsed", "reset"), [(0.0, "10"), (0.001, "10"), (1.0, "9"), (9.999, "1")])
async def test_rounds_the_reset_up(
    caller: Caller, sandbox: Sandbox, manual_clock: ManualClock, elapsed: float, reset: str
) -> None:
    """``Reset`` is in whole seconds, rounded up, and never zero."""
    sandbox.rate_limit = "9/10s"
    manual_clock.now += elapsed

    assert (await caller.list()).headers["X-RateLimit-Reset"] == reset


async def test_reports_a_fraction_of_a_period(caller: Caller, sandbox: Sandbox) -> None:
    """A period of half a second is reported as a fraction."""
    sandbox.rate_limit = "9/0.5s"

    assert hints((await caller.list()).headers) == ["9", "0.5", "8", "1", "case_links"]


async def test_does_not_count_a_401(caller: Caller, sandbox: Sandbox) -> None:
    """A 401 does not count, and reports the rate limit."""
    sandbox.rate_limit = "1/10s"

    refused = await caller.create(headers={})

    assert (refused.status, refused.headers["X-RateLimit-Remaining"]) == (401, "1")
    assert (await caller.create()).status == 201
    assert (await caller.create(headers={})).status == 401


async def test_counts_a_refused_request(caller: Caller, sandbox: Sandbox) -> None:
    """A 400, a 403 and a 404 count, and report the rate limit."""
    sandbox.rate_limit = "3/10s"
    without_scope = (await sandbox.credentials_without_scope.authenticate()).headers

    replies = [
        await caller.create(relationship="?"),
        await caller.create(headers=without_scope),
        await caller.delete("00000000-0000-4000-8000-000000000000"),
    ]

    assert [(reply.status, reply.headers["X-RateLimit-Remaining"]) for reply in replies] == [
        (400, "2"),
        (403, "1"),
        (404, "0"),
    ]


async def test_changes_while_it_runs(caller: Caller, sandbox: Sandbox) -> None:
    """A new rule starts with a full window, and ``None`` removes the limit."""
    sandbox.rate_limit = "1/10s"
    await caller.create()
    assert (await caller.create()).status == 429

    sandbox.rate_limit = "2/10s"
    assert sandbox.rate_limit == RateLimitRule(2, 10)
    assert (await caller.create()).headers["X-RateLimit-Remaining"] == "1"

    sandbox.rate_limit = None
    assert "X-RateLimit-Limit" not in (await caller.create()).headers


async def test_refuses_a_malformed_rule(sandbox: Sandbox) -> None:
    """A malformed rule is refused at once, and the old rule remains."""
    sandbox.rate_limit = "1/10s"
    with pytest.raises(ParameterError, match="LIMIT/PERIOD"):
        sandbox.rate_limit = "fast"
    with pytest.raises(ParameterError, match="LIMIT/PERIOD"):
        Sandbox(rate_limit="fast")
    assert sandbox.rate_limit == RateLimitRule(1, 10)
