"""The page on agents shows what the tools do now."""

from __future__ import annotations

import json
import re

import pytest

from tests.mcp.page import PAGE, filled, parts


async def test_it_is_up_to_date() -> None:
    """The table of tools and the transcripts are of this version: ``python -m tests.mcp`` writes them."""
    page = PAGE.read_text()
    assert filled(page, await parts()) == page


@pytest.mark.parametrize(
    "text", re.findall(r"^```json\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
)
def test_each_configuration_is_valid(text: str) -> None:
    """A host can read each configuration, and the command knows its options."""
    from datadog_caselinks.cli.mcp import mcp

    servers = json.loads(text).get("mcpServers") or json.loads(text)["servers"]
    options = {option for parameter in mcp.params for option in parameter.opts}
    assert servers
    for server in servers.values():
        assert set(server) <= {"type", "command", "args", "env", "url", "headers"}
        assert {each for each in server.get("args", []) if each.startswith("-")} <= options
