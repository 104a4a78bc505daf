"""Serving over HTTP, and the command over standard input and output."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from click.testing import CliRunner
from mcp import MCPError, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from datadog_caselinks import ApiKeys, CaseLinksClient
from datadog_caselinks.cli.command import caselinks
from datadog_caselinks.mcp import AgentServer
from datadog_caselinks.sandbox import Sandbox
from tests.cli.program import environment, pointing_at
from tests.mcp.agents import A_LINK, TOKEN, Agent, connected, drips, over_http, serving
from tests.support.server import Server

HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "raw", "version": "1"},
    },
}


class TestHTTP:
    async def test_two_agents_work_at_once(self, sandbox: Sandbox, server: AgentServer) -> None:
        """Agents in two sessions see the same tools, and one link is created once."""
        before = len(sandbox.links)
        async with (
            serving(server) as url,
            over_http(url) as one,
            over_http(url, mode="legacy") as other,
        ):
            results = await asyncio.gather(*(agent.call("link", **A_LINK) for agent in (one, other) * 3))
            assert set(await one.tools()) == set(await other.tools())
        assert sorted(each["created"] for each in results) == [False] * 5 + [True]
        assert len(sandbox.links) == before + 1

    @pytest.mark.parametrize("mode", ["auto", "legacy"])
    async def test_a_cancelled_call_stops(self, keys: ApiKeys, mode: str) -> None:
        """Cancelling a call over HTTP ends its requests, and the session goes on."""
        async with (
            Server(drips) as datadog,
            CaseLinksClient(datadog.url, keys) as client,
            serving(AgentServer(client)) as url,
            over_http(url, mode=mode) as agent,
        ):
            call = asyncio.ensure_future(agent.call("find_cases", query="a"))
            await datadog.until_seen(1)
            call.cancel()
            await asyncio.wait([call])
            await datadog.until(lambda: not datadog.open_connections)
            assert await agent.refused("nothing")

    async def test_only_agents_with_the_token_on_this_machine_get_in(self, server: AgentServer) -> None:
        """A missing or wrong token, the name of another host, and a page of another site are refused."""
        right = {"Authorization": f"Bearer {TOKEN}", "Accept": "application/json, text/event-stream"}
        async with serving(server) as url, httpx2.AsyncClient() as http:
            here = urlsplit(url).netloc

            async def status(**headers: str) -> int:
                encoded = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
                return (await http.post(url, json=HELLO, headers=encoded)).status_code

            assert await status(**right) == 200
            assert await status(**right | {"Authorization": f"bearer  {TOKEN}"}) == 200
            assert await status(**right | {"Origin": f"http://{here}"}) == 200
            for wrong in ("", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer", "Bearer \xe4"):
                assert await status(**right | {"Authorization": wrong}) == 401, wrong
            assert await status(**right | {"Host": "evil.example"}) == 421
            assert await status(**right | {"Host": f"evil.example:{here.split(':')[1]}"}) == 421
            assert await status(**right | {"Origin": "http://evil.example"}) == 403
            refused = await http.post(url, json=HELLO)
        assert refused.headers["WWW-Authenticate"] == "Bearer"
        assert refused.json() == {
            "error": "the token is missing or wrong: send the header Authorization: Bearer TOKEN"
        }


@asynccontextmanager
async def program(folder: Path, variables: dict[str, str], *options: str) -> AsyncIterator[Agent]:
    """Start the command as a host does, and connect to it. Its process id and its log are in ``folder``."""
    start = (
        "import os, pathlib, runpy, sys\n"
        f"pathlib.Path({str(folder / 'pid')!r}).write_text(str(os.getpid()))\n"
        f"sys.argv = ['caselinks', 'mcp', *{options!r}]\n"
        "runpy.run_module('datadog_caselinks', run_name='__main__')\n"
    )
    parameters = StdioServerParameters(command=sys.executable, args=["-c", start], env=variables)
    with (folder / "log").open("w") as errors:
        async with connected(stdio_client(parameters, errlog=errors)) as agent:
            yield agent


async def call_forever(agent: Agent) -> None:
    while True:
        await agent.refused("nothing")


@pytest.mark.program
class TestCommand:
    async def test_it_serves_a_host_until_a_signal(self, sandbox: Sandbox, tmp_path: Path) -> None:
        """Site and keys are those of the environment, each write is in the log, and a signal ends it.

        It ends although standard input is open, on which a thread waits that cannot be cancelled.
        """
        options = ("--allow-write", "--allow-delete", "--write-rate", "2/1h", "--rate", "50/1s")
        log = tmp_path / "log"
        async with program(tmp_path, pointing_at(sandbox), *options) as agent:
            done = await agent.call("link", **A_LINK)
            await agent.call("unlink", **A_LINK)
            assert "allows 2 writes in 3600 s" in await agent.refused("link", **A_LINK)
            os.kill(int((tmp_path / "pid").read_text()), signal.SIGTERM)
            with pytest.raises(MCPError, match="Connection closed"):
                await call_forever(agent)
        assert {each.method for each in sandbox.requests} == {"GET", "POST", "DELETE"}
        first, *lines, last = log.read_text().splitlines()
        assert first == f"Serving {sandbox.url} on standard input and output."
        # Every line is of the log, without exception: a traceback is a defect.
        assert [re.split(" INFO | WARNING ", line)[-1] for line in lines] == [
            "asked to link: MAIL-1 blocks MAIL-2",
            f"link: MAIL-1 blocks MAIL-2: created: {done['link_id']}",
            "asked to unlink: MAIL-1 blocks MAIL-2",
            f"unlink: MAIL-1 blocks MAIL-2: deleted {done['link_id']}",
            "refused to link 1 link: more than 2 writes in 3600 s",
        ]
        assert last == "Interrupted."

    async def test_it_serves_http_until_a_signal(self) -> None:
        """It prints the URL and a new token to standard error, and ends soon after SIGTERM.

        By default it is read-only, and the sandbox needs no keys.
        """
        started = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "datadog_caselinks", "mcp", "--port", "0", "--sandbox"),
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert started.stdout
        assert started.stderr
        first, second = [(await started.stderr.readline()).decode().strip() for _ in range(2)]
        url, header = first.split(" on ")[1], dict([second.split(": ")])
        assert len(header["Authorization"].removeprefix("Bearer ")) >= 43
        async with (
            httpx2.AsyncClient(headers=header) as http,
            connected(streamable_http_client(url, http_client=http)) as agent,
        ):
            assert (await agent.call("find_cases", query="SHOP-2"))["cases"]
            assert "link" not in await agent.tools()
        started.send_signal(signal.SIGTERM)
        out, err = await started.communicate()
        assert (started.returncode, out) == (143, b"")
        assert "Traceback" not in err.decode()
        assert err.decode().endswith("Interrupted.\n")


def runner() -> CliRunner:
    """Return a runner that keeps standard output and error apart, as all do since click 8.2."""
    is_old = "mix_stderr" in inspect.signature(CliRunner).parameters
    options: dict[str, Any] = {"mix_stderr": False} if is_old else {}
    return CliRunner(**options)


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "token", "error"),
        [
            (["--allow-delete"], "", "--allow-delete needs --allow-write too"),
            (
                ["--port", "0", "--sandbox"],
                "short",
                "CASELINKS_MCP_TOKEN must have at least 16 characters, in ASCII and without spaces",
            ),
            (["--write-rate", "fast"], "", "'fast' is not a rate: write REQUESTS/PERIOD"),
            (["--write-rate", ""], "", "'' is not a rate: write REQUESTS/PERIOD"),
            (["--rate", ""], "", "'' is not a rate: write REQUESTS/PERIOD"),
            ([], "", "DD_API_KEY"),
        ],
    )
    def test_wrong_ones_are_refused_before_it_serves(
        self, options: list[str], token: str, error: str
    ) -> None:
        """Deleting needs writing, a token must be long enough, and credentials must be there."""
        variables = dict.fromkeys([name for name in os.environ if name.startswith(("DD_", "DATADOG_"))])
        result = runner().invoke(caselinks, ["mcp", *options], env=variables | {"CASELINKS_MCP_TOKEN": token})
        assert result.exit_code == 2
        assert result.stdout == ""
        assert error in result.stderr

    def test_it_ends_with_its_input(self) -> None:
        """A host that closes standard input ends the server, which has written nothing but the protocol."""
        result = runner().invoke(caselinks, ["mcp", "--sandbox"], input="")
        assert (result.exit_code, result.stdout) == (0, "")

    def test_a_given_token_is_used_and_not_printed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """With a token in the environment, the log does not have it."""
        served = []

        async def serve(_: AgentServer, listener: socket.socket, token: str) -> None:
            served.append(token)

        monkeypatch.setattr("datadog_caselinks.mcp.serve_http", serve)
        result = CliRunner().invoke(
            caselinks, ["mcp", "--port", "0", "--sandbox"], env={"CASELINKS_MCP_TOKEN": f" {TOKEN} "}
        )
        assert (result.exit_code, served) == (0, [TOKEN])
        assert TOKEN not in result.output


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The help needs no extra, and the command names the one that it needs."""
    for name in [name for name in sys.modules if name.startswith("datadog_caselinks.mcp")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mcp", None)
    monkeypatch.setitem(sys.modules, "mcp.server", None)
    monkeypatch.setitem(sys.modules, "mcp.server.mcpserver", None)
    assert CliRunner().invoke(caselinks, ["mcp", "--help"]).exit_code == 0
    result = CliRunner().invoke(caselinks, ["mcp", "--sandbox"])
    assert result.exit_code == 2
    hint = "In the folder of the project, run: pip install '.[mcp]'"
    assert result.output.endswith(f"needs the extra mcp. {hint}\n")


def test_another_missing_module_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the package itself that is missing is a defect, and no advice to install an extra."""
    for name in [name for name in sys.modules if name.startswith("datadog_caselinks.mcp")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "datadog_caselinks.mcp.server", None)
    with pytest.raises(ModuleNotFoundError, match="datadog_caselinks"):
        importlib.import_module("datadog_caselinks.mcp")
