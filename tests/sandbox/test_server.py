"""The sandbox as a server: start, stop, recorded requests, and no recorded keys."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING

import aiohttp
import pytest
from attrs import asdict

from datadog_caselinks.sandbox import Fault, RateLimitRule, RecordedRequest, Sandbox, StoredCase
from datadog_caselinks.sandbox.record import Record
from datadog_caselinks.values.errors import ParameterError
from datadog_caselinks.values.sites import Site

if TYPE_CHECKING:
    from tests.sandbox.caller import Caller
    from tests.support.clock import ManualClock

CallerOf = Callable[[Sandbox], "Caller"]

CASE = "bf0cbac6-4c16-4cfb-b6bf-ca5e0ec37a4f"

# So long that a test which waited for it would hang.
NEVER = 1e6
HALF_A_REQUEST = (
    b"POST /api/v2/cases/link HTTP/1.1\r\nHost: sandbox\r\nAuthorization: Bearer sandbox-token\r\n"
    b"Content-Length: 9\r\n\r\n{"
)


def open_sockets(port: int) -> list[socket.socket]:
    """Return the server's open sockets."""
    sockets = [
        thing
        for thing in gc.get_objects()
        if isinstance(thing, socket.socket) and thing.family == socket.AF_INET
    ]
    return [each for each in sockets if each.fileno() != -1 and each.getsockname()[1] == port]


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


def address(sandbox: Sandbox) -> tuple[str, int]:
    return "127.0.0.1", int(sandbox.url.rpartition(":")[2])


class TestLifecycle:
    async def test_has_a_url_and_a_site(self, sandbox: Sandbox) -> None:
        """The sandbox has a loopback URL and the site for it."""
        assert sandbox.url.startswith("http://127.0.0.1:")
        assert sandbox.site == Site("sandbox", sandbox.url)
        assert Site.parse(sandbox.url).api_url == sandbox.url

    async def test_listens_on_loopback_alone(self, sandbox: Sandbox) -> None:
        """The sandbox listens on 127.0.0.1 only."""
        with pytest.raises(OSError, match=r"Connect call failed|refused"):
            await asyncio.open_connection("127.0.0.2", address(sandbox)[1])

    async def test_takes_the_port_that_it_is_given(self, caller_of: CallerOf) -> None:
        """A sandbox can use a port again immediately after a stop."""
        async with Sandbox() as sandbox:
            port = address(sandbox)[1]
            await caller_of(sandbox).create()
        async with Sandbox(port=port) as sandbox:
            assert address(sandbox)[1] == port
            assert (await caller_of(sandbox).create()).status == 201

    async def test_refuses_a_port_in_use(self, sandbox: Sandbox) -> None:
        """A port in use is refused with a clear message, and no socket stays open."""
        port = address(sandbox)[1]
        with pytest.raises(ParameterError, match=f"^port {port} on 127.0.0.1 cannot be used: .*in use$"):
            await Sandbox(port=port).start()

    async def test_refuses_a_port_that_is_none(self) -> None:
        """A port above 65535 is refused."""
        with pytest.raises(ParameterError, match="port 65536 on"):
            await Sandbox(port=65536).start()

    async def test_starts_once(self, sandbox: Sandbox) -> None:
        """A second start is refused, and the sandbox continues."""
        with pytest.raises(RuntimeError, match="already running"):
            await sandbox.start()
        assert sandbox.links == []

    async def test_stops_twice(self, caller: Caller, sandbox: Sandbox) -> None:
        """A second stop does nothing; a stopped sandbox has its requests, but no links, cases or URL."""
        await caller.create()
        await sandbox.stop()
        await sandbox.stop()

        assert [request.status for request in sandbox.requests] == [201]
        for name in ("links", "url", "site"):
            with pytest.raises(RuntimeError, match="is not running"):
                getattr(sandbox, name)
        with pytest.raises(RuntimeError, match="is not running"):
            sandbox.add_case("SHOP-1")

    @pytest.mark.parametrize("fault", [Fault.DELAY, Fault.DRIP, Fault.LATE_APPLY])
    async def test_leaves_nothing_behind(self, fault: Fault, caller_of: CallerOf) -> None:
        """A stop leaves no task and no socket, even during a slow fault."""
        before = asyncio.all_tasks()
        async with Sandbox() as sandbox:
            port = address(sandbox)[1]
            sandbox.fail_next(fault, seconds=NEVER)
            _, waiting = await caller_of(sandbox).create_two()
            assert len(open_sockets(port)) == 3

        assert open_sockets(port) == []
        assert (await waiting).status == 201
        assert asyncio.all_tasks() == before

    async def test_stops_while_a_client_sends_and_does_not_end(
        self, caller: Caller, sandbox: Sandbox
    ) -> None:
        """A client that has sent half a request does not delay a stop."""
        reader, writer = await asyncio.open_connection(*address(sandbox))
        writer.write(HALF_A_REQUEST)
        # After this response, the server has read the bytes that were sent before.
        await caller.list()

        await sandbox.stop()

        assert await reader.read() == b""
        assert [request.status for request in sandbox.requests] == [200]
        await close(writer)

    @pytest.mark.slow
    async def test_stops_while_a_client_does_not_read(self, caller: Caller, sandbox: Sandbox) -> None:
        """A client that does not read its response does not delay a stop, and its socket is closed."""
        port = address(sandbox)[1]
        loop = asyncio.get_running_loop()
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            await loop.sock_connect(client, address(sandbox))
            for _ in range(200):
                await caller.send("GET", "/" + "x" * 8000)
            for connection in open_sockets(port):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            # The state contains the 200 requests, which is more than the buffers can store.
            await loop.sock_sendall(client, b"GET /_sandbox/state HTTP/1.1\r\nHost: sandbox\r\n\r\n")
            assert await loop.sock_recv(client, 8) == b"HTTP/1.1"

            await sandbox.stop()

            assert open_sockets(port) == []


class TestRequests:
    async def test_shows_what_came_and_what_became_of_it(
        self, caller: Caller, sandbox: Sandbox, manual_clock: ManualClock
    ) -> None:
        """Each recorded request has its time, method, path, status, fault and body, oldest first."""
        sandbox.fail_next(Fault.HTTP_503)
        await caller.send("POST", "/api/v2/cases/link", data=b"{}")
        manual_clock.now += 1
        await caller.send("GET", "/api/v2/cases/link?entity_type=CASE")

        assert list(sandbox.requests) == [
            RecordedRequest(1_800_000_000.0, "POST", "/api/v2/cases/link", 503, Fault.HTTP_503, "{}"),
            RecordedRequest(1_800_000_001.0, "GET", "/api/v2/cases/link?entity_type=CASE", 400, None, ""),
        ]

    async def test_keeps_the_beginning_of_a_body(self, caller: Caller, sandbox: Sandbox) -> None:
        """The first 500 characters of a body are recorded, for any bytes."""
        await caller.send("POST", "/api/v2/cases/link", data=("é" * 1000).encode())
        await caller.send("POST", "/api/v2/cases/link", data=b"\xff")

        assert [request.body for request in sandbox.requests] == ["é" * 500, "\ufffd"]

    async def test_shows_a_client_that_left_while_it_sent(self, caller: Caller, sandbox: Sandbox) -> None:
        """A client that leaves while it sends is recorded without a status."""
        _, writer = await asyncio.open_connection(*address(sandbox))
        writer.write(HALF_A_REQUEST)
        await caller.list()
        await close(writer)
        await caller.list()

        assert [request.status for request in sandbox.requests] == [200, None, 200]
        assert sandbox.requests[1].fault is None
        assert sandbox.links == []

    def test_is_bounded(self) -> None:
        """The latest 10,000 requests are kept."""
        record = Record()
        for at in range(10_001):
            record.add(RecordedRequest(at, "GET", "/", 200, None, ""))
        assert [record.requests[0].at, record.requests[-1].at] == [1, 10_000]

    async def test_each_is_one_line_where_a_test_fails(self, caller: Caller, sandbox: Sandbox) -> None:
        """The ``repr`` of each request is one line with its method, path, status and fault."""
        sandbox.fail_next(Fault.LOST_RESPONSE)
        with pytest.raises(aiohttp.ClientError):
            await caller.create()
        await caller.get(CASE)

        assert repr(sandbox.requests) == (
            f"[<POST /api/v2/cases/link -> cut, lost-response>, <GET /api/v2/cases/{CASE} -> 404>]"
        )

    async def test_a_link_is_one_line_too(self, caller: Caller, sandbox: Sandbox) -> None:
        """The ``repr`` of a link is one line with its ends and the beginning of its id."""
        created = (await caller.create()).json["data"]["id"]
        text = f"CASE {CASE} BLOCKS CASE 4417921d-0866-4a38-822c-6f2a0f65f77d"

        assert repr(sandbox.links) == f"[<link {created[:8]}: {text}>]"
        assert str(sandbox.links[0]) == text

    async def test_never_holds_a_header(
        self, caller: Caller, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
    ) -> None:
        """No key, valid or not, is in what the sandbox records, shows or logs."""
        caplog.set_level(logging.DEBUG)
        await caller.create(headers={"DD-API-KEY": "real-key-1", "DD-APPLICATION-KEY": "real-key-2"})
        await caller.create(headers={"Authorization": "Bearer real-key-3"})
        await caller.create()
        state = (await caller.send("GET", "/_sandbox/state")).json
        del state["keys"]

        recorded = repr([asdict(request) for request in sandbox.requests])
        for text in (recorded, json.dumps(state), caplog.text):
            assert "real-key" not in text
            assert "sandbox-app-key" not in text


class TestCases:
    async def test_one_has_what_it_is_given(self, sandbox: Sandbox) -> None:
        """A case needs only a key: the title is the key, and the UUID is new."""
        assert sandbox.add_case("SHOP-1", "Checkout hangs", status="CLOSED", priority="P1", id=CASE) == (
            StoredCase(CASE, "SHOP-1", "Checkout hangs", "CLOSED", "P1", "Closed", "SG_CLOSED")
        )
        first, second = sandbox.add_case("SHOP-2"), sandbox.add_case("SHOP-3")
        assert first == StoredCase(
            str(uuid.UUID(first.id)), "SHOP-2", "SHOP-2", "OPEN", "NOT_DEFINED", "Open", "SG_OPEN"
        )
        assert first.id != second.id

    @pytest.mark.parametrize("key", ["SHOP-1", "shop-1"])
    async def test_refuses_the_key_of_another(self, sandbox: Sandbox, key: str) -> None:
        """A key of another case is refused, in either letter case."""
        first = sandbox.add_case("SHOP-1")
        with pytest.raises(ParameterError, match=f"^another case has the key {key}$"):
            sandbox.add_case(key)
        other = sandbox.add_case("SHOP-2")
        with pytest.raises(ParameterError, match=f"^another case has the key {key}$"):
            sandbox.add_case(key, id=other.id)
        assert first.id != other.id

    async def test_the_same_one_again_is_a_change(self, caller: Caller, sandbox: Sandbox) -> None:
        """A case that is added again with its id changes its title, its status or its key."""
        case_id = sandbox.add_case("SHOP-1", "Checkout hangs").id
        sandbox.add_case("PAY-1", "Checkout hung", status="CLOSED", id=case_id)

        assert (await caller.get("SHOP-1")).status == 404
        assert (await caller.get("PAY-1")).json == (await caller.get(case_id)).json
        assert (await caller.get(case_id)).json["data"]["attributes"]["title"] == "Checkout hung"


class TestParameters:
    async def test_takes_rules_and_their_texts(self, caller_of: CallerOf) -> None:
        """A rate limit that is given at the start applies from the first request on."""
        async with Sandbox(rate_limit="1/1h") as sandbox:
            assert sandbox.rate_limit == RateLimitRule(1, 3600)
            assert (await caller_of(sandbox).create()).headers["X-RateLimit-Remaining"] == "0"

    def test_refuses_a_malformed_fault(self) -> None:
        """A malformed fault is refused when the sandbox is created."""
        with pytest.raises(ParameterError, match="is not a fault"):
            Sandbox(faults=["boom"])


@pytest.mark.slow
def test_is_the_only_part_that_needs_a_server_or_a_database() -> None:
    """Importing the SDK imports neither ``aiohttp.web`` nor ``sqlite3``; importing the sandbox does."""
    program = (
        "import sys; heavy = {'aiohttp.web', 'sqlite3'}; "
        "import datadog_caselinks; print(*sorted(heavy & set(sys.modules)), sep=','); "
        "import datadog_caselinks.sandbox; print(*sorted(heavy & set(sys.modules)), sep=',')"
    )
    # Measuring coverage would itself import sqlite3 into the process.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    )

    assert shown.stdout.splitlines() == ["", "aiohttp.web,sqlite3"]


async def test_the_id_of_a_case_in_upper_case() -> None:
    """The id of a case is stored in lower case."""
    async with Sandbox() as sandbox:
        assert sandbox.add_case("SHOP-1", id=CASE.upper()).id == CASE
