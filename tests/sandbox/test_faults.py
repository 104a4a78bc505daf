"""Faults: what the client sees, whether the request was applied, and when a fault occurs."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from datadog_caselinks.sandbox import Fault, FaultRule, Sandbox
from datadog_caselinks.values.errors import ParameterError

if TYPE_CHECKING:
    from tests.sandbox.caller import Caller

CallerOf = Callable[[Sandbox], "Caller"]

# So long that a test which waited for it would hang.
NEVER = 1e6


class TestFaultRule:
    @pytest.mark.parametrize(
        ("text", "rule"),
        [
            ("lost-response", FaultRule(Fault.LOST_RESPONSE)),
            ("lost-response:5%", FaultRule(Fault.LOST_RESPONSE, probability=0.05)),
            ("delay=0.2:10%", FaultRule(Fault.DELAY, seconds=0.2, probability=0.1)),
            ("drip@list", FaultRule(Fault.DRIP, operation="list")),
            (
                "429-retry-after=3@create:2.5%",
                FaultRule(Fault.HTTP_429_RETRY_AFTER, seconds=3, probability=0.025, operation="create"),
            ),
        ],
    )
    def test_reads_fault_seconds_operation_and_percent(self, text: str, rule: FaultRule) -> None:
        """A rule has a fault and, optionally, seconds, an operation and a percentage."""
        assert FaultRule.parse(text) == rule

    @pytest.mark.parametrize("fault", Fault)
    def test_reads_every_fault_by_its_value(self, fault: Fault) -> None:
        """The text of a rule can name every fault."""
        assert FaultRule.parse(fault.value) == FaultRule(fault)

    def test_lists_the_faults(self) -> None:
        """An unknown fault is refused with the list of known ones."""
        with pytest.raises(ParameterError, match="'boom' is not a fault") as caught:
            FaultRule.parse("boom:5%")
        assert all(fault.value in str(caught.value) for fault in Fault)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "write FAULT"),
            ("lost-response:5", "write FAULT"),
            ("lost-response:", "write FAULT"),
            ("delay:5%=1", "write FAULT"),
            ("delay=soon", "'soon' in the fault rule 'delay=soon' is not a number"),
            ("delay=-1", "'-1' in the fault rule 'delay=-1' is not a number"),
            ("delay:nan%", "'nan' in the fault rule 'delay:nan%' is not a number"),
            ("reset=1", "reset takes no seconds; these faults do: 429, "),
            ("reset:101%", "a probability must be from 0 to 1"),
            ("reset@update", "'update' is not an operation; the operations are: create, list, delete, get"),
            ("drip@delete", "drip is a fault of the body, and the response to a delete has no body"),
        ],
    )
    def test_says_what_is_wrong(self, text: str, message: str) -> None:
        """The message for a malformed rule names the mistake."""
        with pytest.raises(ParameterError) as caught:
            FaultRule.parse(text)
        assert message in str(caught.value)

    @pytest.mark.parametrize(
        "options",
        [{"seconds": -1.0}, {"seconds": float("inf")}, {"seconds": float("nan")}, {"probability": -0.1}],
    )
    def test_refuses_numbers_that_mean_nothing(self, options: dict[str, Any]) -> None:
        """A rule that is constructed from numbers is checked too."""
        with pytest.raises(ParameterError):
            FaultRule(Fault.DELAY, **options)


class TestCutConnections:
    async def test_lost_response_is_applied(self, caller: Caller, sandbox: Sandbox) -> None:
        """A create with a lost response is applied, and the connection closes without a response."""
        sandbox.fail_next(Fault.LOST_RESPONSE)

        with pytest.raises(aiohttp.ServerDisconnectedError):
            await caller.create()

        assert len(sandbox.links) == 1
        assert (sandbox.requests[-1].status, sandbox.requests[-1].fault) == (None, Fault.LOST_RESPONSE)

    async def test_lost_response_of_a_delete_is_applied(self, caller: Caller, sandbox: Sandbox) -> None:
        """A delete with a lost response is applied."""
        link_id = (await caller.create()).json["data"]["id"]
        sandbox.fail_next(Fault.LOST_RESPONSE, operation="delete")

        # aiohttp itself retries a DELETE on a reused connection.
        reply = await caller.delete(link_id)

        assert [request.status for request in sandbox.requests] == [201, None, 404]
        assert (reply.status, sandbox.links) == (404, [])

    async def test_reset_is_not_applied(self, caller: Caller, sandbox: Sandbox) -> None:
        """A create with a reset is not applied."""
        sandbox.fail_next(Fault.RESET)

        with pytest.raises(aiohttp.ClientOSError) as caught:
            await caller.create()

        assert caught.value.errno == errno.ECONNRESET
        assert sandbox.links == []
        assert (sandbox.requests[-1].status, sandbox.requests[-1].fault) == (None, Fault.RESET)

    async def test_truncated_is_applied(self, caller: Caller, sandbox: Sandbox) -> None:
        """A truncated response has its status and half of its body, and the create is applied."""
        sandbox.fail_next(Fault.TRUNCATED)

        with pytest.raises(aiohttp.ClientPayloadError):
            await caller.create()

        assert len(sandbox.links) == 1
        assert sandbox.requests[-1].status == 201


class TestAnswers:
    async def test_malformed_is_applied(self, caller: Caller, sandbox: Sandbox) -> None:
        """A malformed response has the right status and invalid JSON, and the create is applied."""
        sandbox.fail_next(Fault.MALFORMED)

        reply = await caller.create()

        assert (reply.status, reply.headers["Content-Type"]) == (201, "application/vnd.api+json")
        with pytest.raises(ValueError, match="Expecting value"):
            _ = reply.json
        assert len(sandbox.links) == 1

    @pytest.mark.parametrize(
        ("fault", "status"),
        [
            (Fault.HTTP_408, 408),
            (Fault.HTTP_500, 500),
            (Fault.HTTP_502, 502),
            (Fault.HTTP_503, 503),
            (Fault.HTTP_504, 504),
            (Fault.HTTP_512, 512),
        ],
    )
    async def test_html_errors_are_not_applied(
        self, caller: Caller, sandbox: Sandbox, fault: Fault, status: int
    ) -> None:
        """An HTML error is not applied, and still has the rate limit headers."""
        sandbox.rate_limit = "2/10s"
        sandbox.fail_next(fault)

        reply = await caller.create()

        assert (reply.status, reply.headers["Content-Type"]) == (status, "text/html")
        assert reply.body.startswith(b"<html>")
        assert "Retry-After" not in reply.headers
        assert reply.headers["X-RateLimit-Remaining"] == "1"
        assert sandbox.links == []
        assert (await caller.create()).status == 201

    async def test_503_may_say_when_to_come_back(self, caller: Caller, sandbox: Sandbox) -> None:
        """A 503 can have a ``Retry-After`` in whole seconds, rounded up."""
        sandbox.fail_next(Fault.HTTP_503_RETRY_AFTER, seconds=2.1)

        reply = await caller.create()

        assert (reply.status, reply.headers["Retry-After"], sandbox.links) == (503, "3", [])

    async def test_504_may_be_applied(self, caller: Caller, sandbox: Sandbox) -> None:
        """A 504 looks the same whether or not the create was applied."""
        sandbox.fail_next(Fault.HTTP_504)
        sandbox.fail_next(Fault.HTTP_504_APPLIED)

        not_applied = await caller.create()
        assert sandbox.links == []
        applied = await caller.create()

        assert (applied.status, applied.body) == (not_applied.status, not_applied.body)
        assert len(sandbox.links) == 1

    @pytest.mark.parametrize(("rate_limit", "limit"), [(None, "60"), ("9/10s", "9")])
    async def test_429_has_the_window(
        self, caller: Caller, sandbox: Sandbox, rate_limit: str | None, limit: str
    ) -> None:
        """A 429 has all rate limit headers, and its window ends after the fault's seconds."""
        sandbox.rate_limit = rate_limit
        sandbox.fail_next(Fault.HTTP_429, seconds=2.5)

        reply = await caller.create()

        assert (reply.status, sandbox.links) == (429, [])
        assert reply.headers["X-RateLimit-Limit"] == limit
        assert reply.headers["X-RateLimit-Remaining"] == "0"
        assert reply.headers["X-RateLimit-Reset"] == "3"
        assert "Retry-After" not in reply.headers

    async def test_429_may_have_retry_after_only(self, caller: Caller, sandbox: Sandbox) -> None:
        """A 429 can have ``Retry-After`` only, by default of one second."""
        sandbox.rate_limit = "9/10s"
        sandbox.fail_next(Fault.HTTP_429_RETRY_AFTER)

        reply = await caller.create()

        assert (reply.status, reply.headers["Retry-After"], sandbox.links) == (429, "1", [])
        assert "X-RateLimit-Remaining" not in reply.headers

    async def test_429_may_have_no_hint(self, caller: Caller, sandbox: Sandbox) -> None:
        """A 429 can have no hint at all, and counts as rejected like any other."""
        sandbox.rate_limit = "9/10s"
        sandbox.fail_next(Fault.HTTP_429_NO_HINT)

        reply = await caller.create()

        assert (reply.status, reply.headers["Content-Type"], sandbox.links) == (429, "text/html", [])
        assert not {"Retry-After", "X-RateLimit-Remaining"} & set(reply.headers)
        assert sandbox.rejected == 1


class TestSlowAnswers:
    async def test_delay_is_applied_at_once(self, caller: Caller, sandbox: Sandbox) -> None:
        """A delayed create is applied at once, and its response is sent when the sandbox stops."""
        sandbox.fail_next(Fault.DELAY, seconds=NEVER)
        _, waiting = await caller.create_two()

        assert len(sandbox.links) == 2
        assert {request.fault for request in sandbox.requests} == {Fault.DELAY, None}

        await sandbox.stop()
        assert (await waiting).status == 201

    async def test_late_apply_is_applied_before_its_response(self, caller: Caller, sandbox: Sandbox) -> None:
        """A late create is applied before its response is sent."""
        sandbox.fail_next(Fault.LATE_APPLY, seconds=0)

        reply = await caller.create()

        assert reply.json["data"]["id"] == sandbox.links[0].id

    async def test_late_apply_outlasts_its_client(self, tmp_path: Path, caller_of: CallerOf) -> None:
        """A late create is applied even if the client has left before."""
        async with Sandbox(db=tmp_path / "links.db") as sandbox:
            sandbox.fail_next(Fault.LATE_APPLY, seconds=NEVER)
            _, waiting = await caller_of(sandbox).create_two()
            assert len(sandbox.links) == 1

            waiting.cancel()
            await caller_of(sandbox).list()
            assert len(sandbox.links) == 1

        async with Sandbox(db=tmp_path / "links.db") as sandbox:
            assert len(sandbox.links) == 2

    async def test_drip_sends_the_whole_response(self, caller: Caller, sandbox: Sandbox) -> None:
        """A dripping response is sent byte by byte, and is complete at the end."""
        sandbox.fail_next(Fault.DRIP, seconds=0)

        reply = await caller.create()

        assert reply.status == 201
        assert reply.json["data"]["id"] == sandbox.links[0].id

    async def test_drip_holds_back_the_body(self, caller: Caller, sandbox: Sandbox) -> None:
        """A dripping response is applied at once, and is completed when the sandbox stops."""
        sandbox.fail_next(Fault.DRIP, seconds=NEVER)
        _, waiting = await caller.create_two()

        assert len(sandbox.links) == 2

        await sandbox.stop()
        assert (await waiting).json["data"]["type"] == "link"

    async def test_drip_ends_when_the_client_leaves(
        self, caller: Caller, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A dripping response whose client leaves logs no error."""
        sandbox.fail_next(Fault.DRIP, seconds=NEVER)
        _, waiting = await caller.create_two()

        waiting.cancel()
        assert (await caller.list()).status == 200
        await sandbox.stop()

        assert caplog.records == []


class TestFailNext:
    async def test_queued_faults_occur_in_order_and_then_no_more(
        self, caller: Caller, sandbox: Sandbox
    ) -> None:
        """Queued faults occur in FIFO order, each as often as requested."""
        sandbox.fail_next(Fault.HTTP_500, count=2)
        sandbox.fail_next(Fault.HTTP_502)

        assert [(await caller.create()).status for _ in range(4)] == [500, 500, 502, 201]

    async def test_takes_a_value_as_well(self, caller: Caller, sandbox: Sandbox) -> None:
        """A fault can be given by its value, and an unknown value is refused before any request."""
        sandbox.fail_next("503")
        with pytest.raises(ParameterError, match="'lost_response' is not a fault; the faults are: 408, "):
            sandbox.fail_next("lost_response")

        assert [(await caller.create()).status for _ in range(2)] == [503, 201]

    async def test_waits_for_its_operation(self, caller: Caller, sandbox: Sandbox) -> None:
        """A queued fault waits for its operation, and does not block the faults behind it."""
        sandbox.fail_next(Fault.HTTP_500, operation="delete")
        sandbox.fail_next(Fault.HTTP_502, operation="list")

        created = await caller.create()
        listed, deleted = await caller.list(), await caller.delete(created.json["data"]["id"])

        assert (created.status, listed.status, deleted.status) == (201, 502, 500)

    async def test_faults_of_the_body_pass_a_delete_by(self, caller: Caller, sandbox: Sandbox) -> None:
        """A fault of the body waits for a request whose response has one, and skips a delete."""
        link_id = (await caller.create()).json["data"]["id"]
        sandbox.fail_next(Fault.MALFORMED)

        assert (await caller.delete(link_id)).status == 204
        assert (await caller.list()).body == b'{"data": {"id": '

    async def test_waits_for_an_admitted_request(self, caller: Caller, sandbox: Sandbox) -> None:
        """A request that is refused for its credentials or by the rate limit meets no fault."""
        sandbox.rate_limit = "1/10s"
        await caller.create()
        sandbox.fail_next(Fault.HTTP_500)

        assert [(await caller.create(headers={})).status, (await caller.create()).status] == [401, 429]
        sandbox.rate_limit = None
        assert (await caller.create()).status == 500

    async def test_affects_a_request_that_is_refused(self, caller: Caller, sandbox: Sandbox) -> None:
        """A fault also affects a request that is refused with a 400."""
        sandbox.fail_next(Fault.LOST_RESPONSE)

        with pytest.raises(aiohttp.ServerDisconnectedError):
            await caller.create(relationship="?")

        assert sandbox.links == []

    @pytest.mark.parametrize(
        ("fault", "options"),
        [
            (Fault.RESET, {"count": 0}),
            (Fault.RESET, {"seconds": 1.0}),
            (Fault.RESET, {"operation": "update"}),
            (Fault.DRIP, {"operation": "delete"}),
        ],
    )
    def test_refuses_what_makes_no_sense(self, fault: Fault, options: dict[str, Any]) -> None:
        """Invalid arguments for a queued fault are refused at once."""
        with pytest.raises(ParameterError):
            Sandbox().fail_next(fault, **options)


class TestDrawnFaults:
    async def test_one_seed_gives_the_same_draws(self, caller_of: CallerOf) -> None:
        """Sandboxes with the same seed fail the same requests."""
        runs = []
        for _ in range(2):
            async with Sandbox(
                faults=["503:30%", FaultRule(Fault.HTTP_500, probability=0.5)], fault_seed=7
            ) as sandbox:
                runs.append([(await caller_of(sandbox).create()).status for _ in range(40)])

        assert runs[0] == runs[1]
        assert set(runs[0]) == {201, 500, 503}

    async def test_rules_strike_by_order_operation_and_certainty(self, caller_of: CallerOf) -> None:
        """The first rule that matches applies; 0% never does, and a rule without a percentage always does."""
        async with Sandbox(faults=["500:0%", "502@list", "malformed", "503"]) as sandbox:
            caller = caller_of(sandbox)

            assert (await caller.list()).status == 502
            assert (await caller.create()).body == b'{"data": {"id": '
            assert (await caller.delete("x")).status == 503

    async def test_a_get_has_its_own(self, caller_of: CallerOf) -> None:
        """A rule for ``get`` does not affect lists, and every fault can affect a lookup of a case."""
        async with Sandbox(faults=["503@get"]) as sandbox:
            sandbox.add_case("SHOP-1")
            caller = caller_of(sandbox)

            assert ((await caller.list()).status, (await caller.get("SHOP-1")).status) == (200, 503)
            sandbox.fail_next(Fault.MALFORMED, operation="get")
            assert ((await caller.list()).status, (await caller.get("SHOP-1")).body) == (
                200,
                b'{"data": {"id": ',
            )

    async def test_what_is_queued_comes_first(self, caller_of: CallerOf) -> None:
        """A queued fault precedes the rules."""
        async with Sandbox(faults=["503"]) as sandbox:
            sandbox.fail_next(Fault.HTTP_500)

            assert [(await caller_of(sandbox).create()).status for _ in range(2)] == [500, 503]
