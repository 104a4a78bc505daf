"""The live suite for Datadog, run against the sandbox: it finds out how the sandbox behaves."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import define
from multidict import CIMultiDict, CIMultiDictProxy

from datadog_caselinks import (
    ApiKeys,
    ConfigurationError,
    NewCaseLink,
    NotFoundError,
    Relationship,
    SessionManager,
)
from datadog_caselinks.http.wire import Request, Response
from datadog_caselinks.sandbox import Fault, Sandbox
from tests.live import __main__ as command
from tests.live import questions
from tests.live.probe import Exchange, Probe
from tests.live.questions import Finding, findings
from tests.live.report import report
from tests.support.ids import case

CASES = ("SHOP-1", "SHOP-36")
MANY = 1000
# So long that a test which waited for it would hang.
NEVER = 1e6
ROOT = Path(__file__).parents[2]
NEW = case("bf0cbac6-4c16-4cfb-b6bf-ca5e0ec37a4f").blocks(case("4417921d-0866-4a38-822c-6f2a0f65f77d"))
REQUEST = Request("get", "GET", "/api/v2/cases/X-1", None, "X-1")

# Each variant of the sandbox, with the answers that the suite must find.
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "as it is": (
        {},
        {
            "Is an equal second create rejected?": "no: 201, and there are two links",
            "How long until a list shows a new link?": (
                "between 0.00 and 0.00 s: list number 1 is the first to have it"
            ),
            "What is answered to a body that is no JSON?": (
                "400, errors as objects of detail, status, title; read as BadRequestError"
            ),
            "What is answered to wrong keys?": "401, errors as strings; read as AuthenticationError",
            "What is answered to an unknown link?": (
                "404, errors as objects of code, title; read as NotFoundError"
            ),
            "What is answered to a link from an unknown case?": "201, JSON without errors",
            "Do create, list, delete and get share a bucket?": "not reported for create, list, delete, get",
            "Which limits and periods are there?": "none is reported",
            "Which header carries a request id?": "none",
            "How long is an idle connection kept?": "not reported; not measured here",
        },
    ),
    "rate limit": (
        {"rate_limit": "5/10s"},
        {
            "Do create, list, delete and get share a bucket?": (
                "yes; create: case_links, list: case_links, delete: case_links, get: case_links"
            ),
            "Which limits and periods are there?": (
                "create: 5 in 10 s; list: 5 in 10 s; delete: 5 in 10 s; get: 5 in 10 s"
            ),
            "Was the limit met?": "4 of 30 requests were answered with 429",
        },
    ),
    "conflict": (
        {"duplicates": "conflict", "error_format": "strings"},
        {"Is an equal second create rejected?": "yes: 409, errors as strings; read as ConflictError"},
    ),
    "bad request": (
        {"duplicates": "bad-request", "error_format": "objects"},
        {
            "Is an equal second create rejected?": (
                "yes: 400, errors as objects of detail, status, title; read as BadRequestError"
            ),
            "What is answered to wrong keys?": (
                "401, errors as objects of status, title; read as AuthenticationError"
            ),
        },
    ),
    "lag": (
        {"list_lag": 1.5},
        {
            "How long until a list shows a new link?": (
                "between 0.70 and 1.50 s: list number 5 is the first to have it"
            ),
        },
    ),
    "a lag without end": (
        {"list_lag": 1e6},
        {"How long until a list shows a new link?": "more than 30 s: none of 10 lists has it"},
    ),
    "separate buckets": (
        {"buckets": "separate", "rate_limit": "100/1h"},
        {
            "Do create, list, delete and get share a bucket?": (
                "no; create: case_links_create, list: case_links_list, delete: case_links_delete, "
                "get: case_links_get"
            ),
        },
    ),
}


@define
class Clock:
    """A clock for the sandbox and the suite, which each wait advances."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@define
class Asked:
    """A sandbox and the probe for it."""

    sandbox: Sandbox
    probe: Probe

    @property
    def is_as_before(self) -> bool:
        return len(self.sandbox.links) == 44


@asynccontextmanager
async def asked(**options: Any) -> AsyncIterator[Asked]:
    clock = Clock()
    async with Sandbox(seed="demo", clock=clock, **options) as sandbox, SessionManager() as sessions:
        probe = Probe(sandbox.site, sandbox.credentials, sessions, sleep=clock.sleep, now=clock)
        yield Asked(sandbox, probe)


@pytest.fixture
async def here() -> AsyncIterator[Asked]:
    async with asked() as here:
        yield here


@pytest.mark.parametrize(("options", "learned"), VARIANTS.values(), ids=VARIANTS)
async def test_learns_what_the_sandbox_does(options: dict[str, Any], learned: dict[str, str]) -> None:
    """The suite finds out each variant of the sandbox, reports no problem, and leaves no link."""
    async with asked(**options) as here:
        found = await findings(here.probe, CASES)
        answers = {finding.question: finding.answer for finding in found}
        assert answers == {**answers, **learned}
        assert [finding.problem for finding in found if finding.problem] == []
        assert here.is_as_before
        assert not here.probe.left


class TestLeavesNothing:
    @pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt(), AssertionError()])
    async def test_when_it_is_broken_off(
        self, error: BaseException, here: Asked, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The suite deletes its links even if Ctrl-C or an error ends it."""

        async def broken_off(probe: Probe, new: NewCaseLink) -> list[Finding]:
            await probe.create(new)
            assert not here.is_as_before
            raise error

        monkeypatch.setattr(questions, "QUESTIONS", (broken_off,))
        with pytest.raises(type(error)):
            await findings(here.probe, CASES)
        assert here.is_as_before

    async def test_a_link_whose_response_was_lost(self, here: Asked) -> None:
        """A link whose response was lost is deleted, and only its question stays open."""
        here.sandbox.fail_next(Fault.LOST_RESPONSE, operation="create")
        first, *others = await findings(here.probe, CASES)
        assert first.answer.startswith("not learned: cannot create CASE ")
        assert first.problem
        assert not any(finding.problem for finding in others)
        assert here.is_as_before

    async def test_but_what_cannot_be_deleted(self, here: Asked) -> None:
        """A link that cannot be deleted is reported by its id."""
        here.sandbox.fail_next(Fault.HTTP_503, operation="delete", count=MANY)
        before = {link.id for link in here.sandbox.links}
        await findings(here.probe, CASES)
        assert here.probe.left == {link.id for link in here.sandbox.links} - before != set()

    async def test_and_takes_nothing_that_was_there(self, here: Asked) -> None:
        """A link that existed before is not deleted, even if it equals one of the suite."""
        parent, child = [await here.probe.case(key) for key in CASES]
        other = Probe(here.sandbox.site, here.sandbox.credentials, here.probe.sessions)
        await other.create(NewCaseLink(parent, Relationship.BLOCKS, child))
        await findings(here.probe, CASES)
        assert other.left == {here.sandbox.links[-1].id}


async def test_needs_its_cases(here: Asked) -> None:
    """The suite creates nothing if one of its cases does not exist."""
    with pytest.raises(NotFoundError, match="cannot get case SHOP-99"):
        await findings(here.probe, ("SHOP-1", "SHOP-99"))
    assert {request.method for request in here.sandbox.requests} == {"GET"}


@pytest.mark.parametrize(
    ("fault", "answer"),
    [
        (Fault.HTTP_500, "500, HTML; read as ServerError"),
        (Fault.HTTP_429, "404, errors as objects of code, title; read as NotFoundError"),
    ],
)
async def test_reports_what_is_not_documented(fault: Fault, answer: str, here: Asked) -> None:
    """An undocumented status is a problem; a rate limit is waited out."""
    await here.probe.case("SHOP-1")
    here.sandbox.fail_next(fault, operation="delete")
    parent, child = [await here.probe.case(key) for key in CASES]
    new = NewCaseLink(parent, Relationship.BLOCKS, child)
    found = {each.question: each for each in await questions.errors(here.probe, new)}
    finding = found["What is answered to an unknown link?"]
    assert finding.answer == answer
    problem = "What is answered to an unknown link? 500, and 404 is documented"
    assert finding.problem == (problem if fault is Fault.HTTP_500 else None)


class TestReport:
    async def test_a_header_that_no_two_responses_share_is_a_request_id(self, here: Asked) -> None:
        """A header that differs in every response is a request id, unless its meaning is known."""
        for number in range(3):
            reported = {"X-Trace": f"t{number}", "Date": f"{number}", "X-RateLimit-Reset": f"{number}"}
            headers = CIMultiDictProxy(
                CIMultiDict({**reported, "Server": "edge", "Keep-Alive": "timeout=60"})
            )
            here.probe.seen.append(Exchange(REQUEST, Response(REQUEST, 200, headers, b""), 0))
        ids, idle = await questions.headers(here.probe, NEW)
        assert (ids.answer, idle.answer) == ("x-trace", "timeout=60")

    async def test_holds_no_key(self) -> None:
        """The report contains neither echoed keys nor cookies, and all other headers."""
        auth = await ApiKeys(api_key="secret-1", app_key="secret-2").authenticate()
        reported = CIMultiDictProxy(
            CIMultiDict({"X-Echo": "secret-1", "Set-Cookie": "secret-3", "Via": "edge"})
        )
        exchange = Exchange(REQUEST, Response(REQUEST, 403, reported, b"not secret-2", auth.redact), 0.5)
        written = report([Finding("Who?", "nobody", [exchange], problem="Who? 403")], about="here")
        assert "secret-" not in written
        for line in (
            "| Who? | nobody |",
            "- Who? 403",
            "GET /api/v2/cases/X-1",
            "403 after 0.500 s",
            "Via: edge",
        ):
            assert line in written.splitlines()


class TestCommand:
    @pytest.fixture
    def sandbox(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
        with Sandbox(seed="demo").in_thread() as sandbox:
            monkeypatch.delenv("DD_BEARER_TOKEN", raising=False)
            for name, value in sandbox.environment.items():
                monkeypatch.setenv(name, value)
            monkeypatch.setenv("CASELINKS_LIVE_CASES", "SHOP-1, SHOP-36")
            yield sandbox

    def test_writes_a_report(
        self, sandbox: Sandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The command prints the results, and returns 0 if no link and no problem remains."""
        path = tmp_path / "report.md"
        assert command.main(str(path)) == 0
        assert path.read_text().startswith(f"# What the case links API answered\n\n{sandbox.url} at ")
        printed = capsys.readouterr().out
        assert printed.startswith("Is an equal second create rejected? no: 201, and there are two links\n")
        assert printed.endswith(f"\nwritten to {path}\n")

    def test_names_what_is_left(
        self, sandbox: Sandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The command prints the id of a link that it could not delete."""
        sandbox.fail_next(Fault.HTTP_503, operation="delete", count=MANY)
        before = {link.id for link in sandbox.links}
        assert command.main(str(tmp_path / "report.md")) == 1
        printed = capsys.readouterr().out
        for left in {link.id for link in sandbox.links} - before:
            assert f"not deleted: link {left}\n" in printed

    def test_deletes_what_it_created_after_ctrl_c(self, sandbox: Sandbox) -> None:
        """The command deletes its links after Ctrl-C, even one whose response has not arrived."""
        before = sandbox.links
        sandbox.fail_next(Fault.DELAY, seconds=NEVER, operation="create")
        asking = [sys.executable, "-m", "tests.live"]
        with subprocess.Popen(asking, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            while sandbox.links == before:
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            printed, _ = process.communicate()
        assert (process.returncode, printed) == (130, "broken off; no report is written\n")
        assert sandbox.links == before

    @pytest.mark.parametrize("keys", ["", "SHOP-1", "SHOP-1,", "SHOP-1,SHOP-2,SHOP-3"])
    @pytest.mark.usefixtures("sandbox")
    def test_needs_two_cases(self, keys: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The command requires the keys of exactly two cases."""
        monkeypatch.setenv("CASELINKS_LIVE_CASES", keys)
        with pytest.raises(ConfigurationError, match="CASELINKS_LIVE_CASES must be the keys of two cases"):
            command.main()
