"""The parts of ``docs/mcp.md`` that are generated: the table of tools, and transcripts.

``python -m tests.mcp`` writes them into the page, and a test compares.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from attrs import define, field

from datadog_caselinks import CaseLinksClient
from datadog_caselinks.mcp import AgentServer
from datadog_caselinks.mcp.server import Access
from datadog_caselinks.sandbox import Sandbox
from tests.mcp.agents import connected, text_of

PAGE: Final = Path(__file__).parents[2] / "docs" / "mcp.md"

_OPTIONS: Final = {"link": "`--allow-write`", "link_many": "`--allow-write`", "unlink": "`--allow-delete`"}


def filled(page: str, parts: dict[str, str]) -> str:
    """Return ``page`` with the text between the marks of each part replaced."""
    for name, text in parts.items():
        marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
        assert marked.search(page), name
        page = marked.sub(lambda found, text=text: f"{found[1]}\n{text}\n{found[2]}", page)  # type: ignore[misc]
    return page


async def parts() -> dict[str, str]:
    """Return each generated part of the page by its name."""
    async with recorded() as recorder:
        return {
            "tools": await _table(recorder),
            "outage": await _outage(recorder),
            "blocked": await _blocked(recorder),
            "mistake": await _mistake(recorder),
        }


@define
class Recorder:
    """An agent whose calls and results are written down."""

    agent: Any
    lines: list[str] = field(factory=list)

    async def call(self, name: str, **arguments: Any) -> Any:
        result = await self.agent.client.call_tool(name, arguments)
        given = ", ".join(f"{key}={_shown(value)}" for key, value in arguments.items())
        self.lines.append(f"{name}({given})")
        if result.is_error:
            self.lines.append(f"    error: {text_of(result)}")
            return None
        for key, value in result.structured_content.items():
            self._add(key, value)
        return result.structured_content

    def _add(self, key: str, value: Any) -> None:
        if key == "link_ids":
            value = ["…" for _ in value]
        if isinstance(value, list) and value:
            self.lines += [f"    {key}:", *(f"      {_shown(each)}" for each in value)]
        elif isinstance(value, str) and "\n" in value:
            self.lines += [f"    {key}:", *(f"      {line}" for line in value.splitlines())]
        else:
            self.lines.append(f"    {key}: {'…' if key == 'link_id' else _shown(value)}")

    def take(self) -> str:
        """Return what was recorded as a block, and start again."""
        text, self.lines = "\n".join(self.lines), []
        return f"```text\n{text}\n```\n"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return re.sub(r'("link_id": )"[^"]*"', r'\1"…"', text)


@asynccontextmanager
async def recorded() -> AsyncIterator[Recorder]:
    """An agent of a server that allows everything, on the demo."""
    async with (
        Sandbox(seed="demo") as sandbox,
        CaseLinksClient(sandbox.site, sandbox.credentials) as client,
        connected(AgentServer(client, access=Access.DELETE)) as agent,
    ):
        yield Recorder(agent)


async def _table(recorder: Recorder) -> str:
    rows = ["| tool | what it does |", "| --- | --- |"]
    for name, tool in (await recorder.agent.tools()).items():
        required = tool.input_schema.get("required", [])
        given = [f"`{each}`" + "?" * (each not in required) for each in tool.input_schema["properties"]]
        does = tool.description.split("\n\n")[0].replace("\n", " ")
        needs = f" Needs {_OPTIONS[name]}." if name in _OPTIONS else ""
        rows.append(f"| `{name}` | {does}{needs} Arguments: {', '.join(given)}. |")
    return "\n".join(rows) + "\n"


async def _outage(recorder: Recorder) -> str:
    await recorder.call("find_cases", query="(relay OR confirmation) priority:(P1 OR P2)")
    links = [
        {"entity": "MAIL-6", "relationship": "causes", "other": "MAIL-5"},
        {"entity": "MAIL-2", "relationship": "caused by", "other": "MAIL-5"},
        {"entity": "MAIL-1", "relationship": "caused by", "other": "MAIL-2"},
    ]
    await recorder.call(
        "plan_links", links=[*links, {"entity": "MAIL-1", "relationship": "causes", "other": "MAIL-6"}]
    )
    await recorder.call("link_many", links=links)
    await recorder.call("graph", entities=["MAIL-2"], depth=1)
    return recorder.take()


async def _blocked(recorder: Recorder) -> str:
    await recorder.call("find_cases", query='"pool sizes"')
    await recorder.call("what_blocks", entity="SHOP-25")
    await recorder.call("what_blocks", entity="SHOP-22")
    return recorder.take()


async def _mistake(recorder: Recorder) -> str:
    await recorder.call("link", entity="SHOP-33", relationship="stops", other="SHOP-8")
    await recorder.call("link", entity="SHOP-33", relationship="blocks", other="SHOP-8")
    await recorder.call("link", entity="SHOP-8", relationship="blocked by", other="SHOP-33")
    await recorder.call("unlink", entity="SHOP-33", relationship="blocks", other="SHOP-8")
    return recorder.take()
