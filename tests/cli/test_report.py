"""Reports of the outcomes of a run, tested without a run."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from datadog_caselinks import (
    AlreadyLinked,
    AmbiguousResultError,
    AuthenticationError,
    CaseLink,
    CaseLinksError,
    ConnectError,
    Created,
    Failed,
    LinkLine,
    MalformedLine,
    NewCaseLink,
    ServerError,
)
from datadog_caselinks.cli.outcome_lines import OutcomeLines
from datadog_caselinks.cli.report import Report
from datadog_caselinks.cli.screen import Screen
from tests.support.ids import case, some_id

NEW = case(some_id(1)).blocks(case(some_id(2)))


async def lines(count: int) -> AsyncIterator[LinkLine | MalformedLine]:
    for number in range(2, count + 2):
        yield LinkLine(number, NEW)


@pytest.fixture
async def report() -> Report:
    """Return the report of a run with three lines in flight."""
    screen = Screen()
    report = Report(screen, OutcomeLines(screen, None, has_lines=True))
    assert [new async for new in report.links(lines(3))] == [NEW] * 3
    return report


def unclear(*, during_outage: bool) -> AmbiguousResultError:
    error = AmbiguousResultError("perhaps", new=NEW, reason=ServerError("503", status=503))
    error.during_outage = during_outage
    return error


def fail(report: Report, *errors: CaseLinksError, new: NewCaseLink = NEW) -> None:
    for index, error in enumerate(errors):
        report.add(Failed(new, error, index))


def test_the_lines_that_are_remembered_are_bounded(
    report: Report, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report remembers a limited number of lines, and a repeat of a forgotten one has no line number."""
    monkeypatch.setattr("datadog_caselinks.cli.report._MAX_LINES", 1)
    links = [CaseLink(some_id(number), NEW.parent, NEW.relationship, NEW.child) for number in (1, 2)]
    report.add(Created(NEW, links[0], 0))
    report.add(Created(NEW, links[1], 1))
    report.add(AlreadyLinked(NEW, links[0], 2))
    report.summarize()
    assert "repeats line" not in capsys.readouterr().out


def test_what_fails_alike_is_shown_once(report: Report, capsys: pytest.CaptureFixture[str]) -> None:
    """A reason for which every link fails is shown at once, and again beside the lines of the others."""
    fail(report, *[ConnectError("no network")] * 3)
    assert capsys.readouterr().err == "line 2: failed: no network\n"
    report.add_malformed(MalformedLine(9, "lacks child"))
    report.summarize()
    *_, stopped, _, _ = capsys.readouterr().err.splitlines()
    assert stopped == (
        "Stopped: line 2: failed: no network. "
        "Lines 3-4 failed for the same reason, and no later line was sent."
    )


def test_the_only_failure_is_shown_once(report: Report, capsys: pytest.CaptureFixture[str]) -> None:
    """The reason is not repeated if no other failure is shown after it."""
    fail(report, ConnectError("no network"))
    report.summarize()
    err = capsys.readouterr().err
    assert err.count("no network") == 1
    assert "Stopped: no later line was sent." in err


def test_a_single_line_is_named_in_the_singular(report: Report, capsys: pytest.CaptureFixture[str]) -> None:
    """The report says "line" for a single line, and not "lines"."""
    fail(report, *[ConnectError("no network")] * 2)
    report.summarize()
    err = capsys.readouterr().err
    assert "no network. Line 3 failed for the same reason, and no later line was sent." in err


def test_what_fails_otherwise_is_shown(report: Report, capsys: pytest.CaptureFixture[str]) -> None:
    """A link in flight that fails for another reason than the one that stopped the run is reported."""
    fail(report, ConnectError("no network"), AuthenticationError("wrong keys", status=401))
    report.summarize()
    err = capsys.readouterr().err
    assert "line 3: failed: wrong keys" in err
    assert "same reason" not in err


def test_an_outage_stops_the_run(report: Report, capsys: pytest.CaptureFixture[str]) -> None:
    """Each ambiguous link has a line of its own, and the first one during an outage stops the run."""
    fail(report, unclear(during_outage=False))
    assert report.proceed(3)
    report.add(Failed(NEW, unclear(during_outage=True), 1))
    assert not report.proceed(3)
    report.summarize()
    err = capsys.readouterr().err
    assert [line for line in err.splitlines() if ": ambiguous: perhaps" in line] == [
        "line 2: ambiguous: perhaps",
        "line 3: ambiguous: perhaps",
        "Stopped: line 3: ambiguous: perhaps. No later line was sent.",
    ]
