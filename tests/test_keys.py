"""The rules of the search for keys: a key is found in every kind of output."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from asyncio.subprocess import PIPE
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from datadog_caselinks import ApiKeys, BearerToken, CaseLinksClient, CaseLinksError
from datadog_caselinks.sandbox import Sandbox
from tests.cli.program import caselinks, environment, starting
from tests.support.ids import case, some_id
from tests.support.keys import Watch

KEY = "a-key-that-must-not-show"


def print_it(_: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print(KEY)  # noqa: T201
    capsys.readouterr()


def export_it(*_: object) -> None:
    with TracerProvider().get_tracer("x").start_as_current_span(KEY) as span:
        pass
    InMemorySpanExporter().export([span])  # type: ignore[list-item] # it is one that can be read


WAYS: dict[str, Callable[[Path, pytest.CaptureFixture[str]], object]] = {
    "log records": lambda *_: logging.getLogger("datadog_caselinks.x").debug("%s", KEY),
    "errors": lambda *_: CaseLinksError(KEY),
    "files": lambda folder, _: (folder / "journal").write_text(KEY),
    "programs": print_it,
    "spans": export_it,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_key_is_found(way: str, watch: Watch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A key in any kind of output is found, with the kind."""
    BearerToken(KEY)
    WAYS[way](tmp_path, capsys)
    watch.see_files(tmp_path)
    assert {found.partition(":")[0] for found in watch.keys_shown()} >= {way}


@pytest.mark.slow
async def test_a_key_is_found_that_a_program_prints(watch: Watch) -> None:
    """A key in the output of a program is found, however the program was started."""
    command = [sys.executable, "-c", f"print({KEY!r})"]
    ApiKeys(api_key=KEY, app_key=KEY)
    await asyncio.to_thread(subprocess.run, command, capture_output=True, check=True)
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE)
    await process.communicate()
    with starting():
        await caselinks(environment(), KEY)
    assert [found.partition(":")[0] for found in watch.keys_shown()] == ["programs"] * 3


async def test_a_key_is_found_in_an_event(watch: Watch) -> None:
    """A key in an event or on the page of the sandbox is found."""
    link = case(some_id(1)).blocks(case(some_id(2)))
    BearerToken(link.parent.id)
    async with (
        Sandbox() as sandbox,
        CaseLinksClient(sandbox.site, sandbox.credentials, on_event=lambda _: None) as links,
        aiohttp.ClientSession() as http,
    ):
        await links.create_link(link)
        await http.get(sandbox.url)
    assert {found.partition(":")[0] for found in watch.keys_shown()} >= {"events", "pages"}
