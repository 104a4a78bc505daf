"""The lines that a bulk run shows for its outcomes: their order, and what happens if writing fails."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import pytest

from datadog_caselinks import CaseLinksClient, LinkLine, MalformedLine, NewCaseLink, RateLimitError
from datadog_caselinks.cli import outcome_lines
from datadog_caselinks.cli.dry_run import DryRun
from datadog_caselinks.cli.outcome_lines import OutcomeLine, OutcomeLines
from datadog_caselinks.cli.records import Records
from datadog_caselinks.cli.run import Settings, open_client
from datadog_caselinks.cli.screen import Screen
from datadog_caselinks.cli.streams import OutputError
from datadog_caselinks.sandbox import Sandbox
from tests.support.ids import case, some_id


def link(number: int) -> NewCaseLink:
    return case(some_id(number)).blocks(case(some_id(100 + number)))


@pytest.fixture
def lines() -> OutcomeLines:
    return OutcomeLines(Screen(), None, has_lines=True)


def add(lines: OutcomeLines, *numbers: int) -> None:
    for number in numbers:
        lines.add(number, {}, OutcomeLine("✓", link(number), f"id-{number}"))


def shown(capsys: pytest.CaptureFixture[str]) -> list[int]:
    """Return the numbers of the links whose lines appeared since the last call."""
    return [int(line.split("\t")[1].removeprefix("id-")) for line in capsys.readouterr().out.splitlines()]


async def test_lines_are_in_the_order_of_the_file(
    lines: OutcomeLines, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines appear in the order of the file, and a failed link, which has no line, does not delay others."""
    add(lines, 2, 1)
    assert shown(capsys) == []
    add(lines, 0)
    assert shown(capsys) == [0, 1, 2]
    add(lines, 5)
    lines.add(3, {})
    add(lines, 4)
    assert shown(capsys) == [4, 5]


async def test_no_line_waits_for_a_slow_one(
    lines: OutcomeLines, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines that have waited for the longest delay appear before earlier ones that are still missing."""
    monkeypatch.setattr(outcome_lines, "_LONGEST_DELAY", 0.0)
    add(lines, 3, 1)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert shown(capsys) == [1, 3]
    add(lines, 5, 0, 4)
    assert shown(capsys) == [0, 4, 5]
    add(lines, 2)
    lines.release()
    assert shown(capsys) == [2]


@pytest.fixture
def on_screen(monkeypatch: pytest.MonkeyPatch) -> OutcomeLines:
    """Return lines for people, as on a terminal."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    return OutcomeLines(Screen(), None, has_lines=True)


def two_lines(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """Return the two lines that appeared, without colours."""
    first, second = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out).splitlines()
    return first, second


SHORT, LONG = case(some_id(1)).blocks(case(some_id(2))), case(some_id(1)).parent_of(case(some_id(2)))


async def test_ids_are_aligned(on_screen: OutcomeLines, capsys: pytest.CaptureFixture[str]) -> None:
    """On a terminal, the ids of all links are in one column, unless a link is very long."""
    for new in (SHORT, LONG):
        on_screen.expect(new, 2)
    for index, new in enumerate((SHORT, LONG)):
        on_screen.add(index, {}, OutcomeLine("✓", new, "id"))
    first, second = two_lines(capsys)
    assert first.index("id") == second.index("id") == len(f"✓ {some_id(1)} parent of {some_id(2)}  ")


async def test_numbers_are_aligned(on_screen: OutcomeLines, capsys: pytest.CaptureFixture[str]) -> None:
    """On a terminal, a line with its number is aligned too, and has no id, which would not fit."""
    for number, new in ((9, SHORT), (10, LONG)):
        on_screen.expect(new, number)
    for number, new in ((9, SHORT), (10, LONG)):
        on_screen.add(number, {}, OutcomeLine("=", new, "id", "already linked", number))
    on_screen.release()
    first, second = two_lines(capsys)
    width = len(f"line 10  = {some_id(1)} parent of {some_id(2)}  ")
    assert first[width:] == second[width:] == "already linked"
    assert (first[:11], second[:11]) == ("line 9   = ", "line 10  = ")


async def test_programs_get_columns(lines: OutcomeLines, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal, tabs separate sign and link, id, and outcome, also for a link of any length."""
    lines.add(0, {}, OutcomeLine("✓", link(1), "id-1"))
    lines.add(
        1, {}, OutcomeLine("+", case(some_id(1)).parent_of(case(some_id(2))), note="would create", number=7)
    )
    assert [line.split("\t") for line in capsys.readouterr().out.splitlines()] == [
        [f"✓ {some_id(1)} blocks {some_id(101)}", "id-1", "created"],
        ["line 7", f"+ {some_id(1)} parent of {some_id(2)}", "", "would create"],
    ]


async def test_no_id_is_lost_if_a_line_cannot_be_written(
    lines: OutcomeLines, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that standard output does not accept appears on standard error, even if it was delayed."""

    def refuse(*_: object) -> None:
        raise OutputError("no space left")

    add(lines, 1)
    monkeypatch.setattr(Screen, "data", refuse)
    lines.release()
    assert "id-1" in capsys.readouterr().err
    assert isinstance(lines.failure, OutputError)


class FullDisk(Screen):
    """A screen whose standard output cannot be written to."""

    def data(self, line: object, row: object = None) -> None:
        raise OutputError("no space left")


async def test_no_id_is_lost_if_a_record_cannot_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    """A JSON record that standard output does not accept appears on standard error, if it has an id."""
    screen = FullDisk()
    lines = OutcomeLines(screen, Records(screen, "jsonl", ()), has_lines=False)
    lines.add_record({"outcome": "malformed"})
    assert capsys.readouterr().err == ""
    add(lines, 0)
    assert "id-0" in capsys.readouterr().err


async def test_a_dry_run_that_cannot_be_shown_fails(sandbox: Sandbox, client: CaseLinksClient) -> None:
    """A dry run ends with the error of standard output, because it does nothing but print."""
    screen = FullDisk()
    lines = OutcomeLines(screen, Records(screen, "jsonl", ()), has_lines=False)
    trial = DryRun(screen, lines, False, looks_up=True)

    async def read() -> AsyncIterator[LinkLine | MalformedLine]:
        yield LinkLine(2, link(1))

    with pytest.raises(OutputError):
        await trial.run(client, read(), total=1, journal=None)


async def test_only_a_long_wait_gets_advice() -> None:
    """An error about a wait that --max-wait allows is left unchanged."""
    settings = Settings(None, in_sandbox=True, output="table", quiet=False, verbose=False)
    with pytest.raises(RateLimitError) as caught:
        async with open_client(settings):
            raise RateLimitError("429 too often", status=429, retry_after=1.0)
    assert str(caught.value) == "429 too often"
