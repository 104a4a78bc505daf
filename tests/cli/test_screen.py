"""The progress that a run shows."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from unittest.mock import patch

import pytest

from datadog_caselinks.cli.screen import Screen, ScreenHandler
from tests.support.clock import ManualClock


@pytest.fixture
def manual_clock() -> ManualClock:
    return ManualClock(100.0)


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the variables that control colours and the progress bar."""
    for name in ("CI", "COLUMNS", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


@contextlib.contextmanager
def terminal() -> Iterator[None]:
    """Let standard error be a terminal."""
    with patch.object(sys.stderr, "isatty", return_value=True), patch.dict(os.environ, COLUMNS="150"):
        yield


def test_without_a_terminal_there_is_a_line_now_and_then(
    manual_clock: ManualClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a terminal, a line every ten seconds shows the count, the rate and the time left."""
    screen = Screen(clock=manual_clock)
    screen.start(5000)
    for second in range(1, 26):
        manual_clock.now = 100.0 + second
        screen.advance(done=50 * second, failed=second // 5)
    assert capsys.readouterr().err.splitlines() == [
        "500 of 5,000, 2 failed, 50/s, 0:01:30 left",
        "1,000 of 5,000, 4 failed, 50/s, 0:01:20 left",
    ]


def test_what_was_done_before_is_none_of_its_speed(
    manual_clock: ManualClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rate excludes links done before the start, and a run without progress has no time left."""
    screen = Screen(clock=manual_clock)
    screen.start(1000, done=400)
    for done in (400, 500):
        manual_clock.now += 10
        screen.advance(done=done, failed=0)
    assert capsys.readouterr().err.splitlines() == [
        "400 of 1,000, 0 failed, 0/s, no progress",
        "500 of 1,000, 0 failed, 5/s, 0:01:40 left",
    ]


def test_the_number_may_grow_on_the_way(
    manual_clock: ManualClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """The total may grow during the work, as it does while a graph is read."""
    screen = Screen(clock=manual_clock)
    screen.start(None)
    for total in (10, 100):
        manual_clock.now += 10
        screen.on_progress(total // 2, total)
    assert capsys.readouterr().err.splitlines() == [
        "5 of 10, 0 failed, 0/s, 0:00:10 left",
        "50 of 100, 0 failed, 2/s, 0:00:20 left",
    ]


def test_an_unknown_total_has_no_time_left(
    manual_clock: ManualClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a known total, the progress has no time left."""
    screen = Screen(clock=manual_clock)
    screen.start(None)
    manual_clock.now += 10
    screen.advance(done=1200, failed=0)
    assert capsys.readouterr().err == "1,200, 0 failed, 120/s\n"


def test_quiet_shows_no_progress(manual_clock: ManualClock, capsys: pytest.CaptureFixture[str]) -> None:
    """--quiet hides the progress and the rate limit messages, but not problems and the summary."""
    screen = Screen(quiet=True, clock=manual_clock)
    screen.start(10)
    manual_clock.now += 100
    screen.advance(done=5, failed=0)
    handler = ScreenHandler(screen, show_all=True)
    handler.emit(logging.makeLogRecord({"msg": "the rate limit is used up", "levelno": logging.INFO}))
    handler.emit(logging.makeLogRecord({"msg": "the database went away", "levelno": logging.WARNING}))
    screen.problem("one was not made")
    screen.summary("4 were made")
    assert capsys.readouterr().err == "The database went away\none was not made\n4 were made\n"


def shown(clock: ManualClock, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what a run shows within ten seconds: progress, a problem, and the summary."""
    screen = Screen(clock=clock)
    screen.start(10)
    clock.now += 10
    screen.advance(done=5, failed=0)
    screen.problem("one was not created")
    screen.close()
    screen.summary("the end")
    return capsys.readouterr().err


LINES = "5 of 10, 0 failed, 0/s, 0:00:10 left\none was not created\nthe end\n"
BAR = "\x1b[?25l"
RED = "\x1b[31m"


@pytest.mark.parametrize(
    ("name", "value"),
    [("TERM", "dumb"), ("CI", "true"), ("TTY_INTERACTIVE", "0")],
)
def test_a_terminal_that_is_not_watched_shows_lines(
    manual_clock: ManualClock,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
) -> None:
    """A terminal without a cursor, or of a CI job, shows lines and no bar."""
    monkeypatch.setenv(name, value)
    with terminal():
        text = shown(manual_clock, capsys)
    assert strip(text) == LINES


def strip(text: str) -> str:
    return text.replace(RED, "").replace("\x1b[0m", "")


@pytest.mark.parametrize("name", ["FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"])
def test_only_a_terminal_shows_a_bar(
    manual_clock: ManualClock,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """FORCE_COLOR adds colours to a file, but no bar, which would fill the file."""
    monkeypatch.setenv(name, "1")
    text = shown(manual_clock, capsys)
    assert strip(text) == LINES
    assert (RED in text) == (name != "TTY_INTERACTIVE")


@pytest.mark.parametrize(
    ("name", "value"),
    [("NO_COLOR", "1"), ("NO_COLOR", ""), ("CI", "")],
)
def test_a_terminal_without_colours_shows_a_bar(
    manual_clock: ManualClock,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
) -> None:
    """NO_COLOR removes the colours and keeps the bar, and empty variables count as unset."""
    monkeypatch.setenv(name, value)
    with terminal():
        text = shown(manual_clock, capsys)
    assert BAR in text
    assert "5/10" in text
    assert (RED in text) == (not value)


def test_a_terminal_shows_until_when_the_limit_holds(
    manual_clock: ManualClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bar shows until when the rate limit applies, and stops showing it afterwards."""
    with terminal():
        screen = Screen(clock=manual_clock)
        screen.start(10)
        handler = ScreenHandler(screen, show_all=False)
        record = {"msg": "the rate limit is used up", "levelno": logging.INFO, "wait_seconds": 7.0}
        handler.emit(logging.makeLogRecord(record))
        screen.advance(done=1, failed=0)
        screen.close()
        assert "rate limit until " in capsys.readouterr().err
        screen.start(10)
        manual_clock.now += 8
        screen.advance(done=2, failed=0)
        capsys.readouterr()
        screen.close()
        assert "rate limit until " not in capsys.readouterr().err
