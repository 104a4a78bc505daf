"""The findings as Markdown, without keys: requests are shown without headers, and responses are redacted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from tests.live.probe import Exchange
from tests.live.questions import Finding

_SHOWN: Final = 1000
# A session cookie is as secret as a key.
_HIDDEN: Final = frozenset({"set-cookie"})


def report(findings: Sequence[Finding], *, about: str) -> str:
    """Return a table of all results, then the requests and responses of each; ``about`` is the heading."""
    return "\n".join(_lines(findings, about)) + "\n"


def _lines(findings: Sequence[Finding], about: str) -> Iterator[str]:
    yield from ("# What the case links API answered", "", about, "")
    yield from ("| question | answer |", "| --- | --- |")
    yield from (f"| {finding.question} | {finding.answer} |" for finding in findings)
    problems = [finding.problem for finding in findings if finding.problem]
    yield from ("", "## Against the documents", "")
    yield from (f"- {problem}" for problem in problems or ["nothing"])
    for finding in findings:
        if finding.exchanges:
            yield from ("", f"## {finding.question}", "", finding.answer)
            for exchange in finding.exchanges:
                yield from ("", "```http", *_exchange(exchange), "```")


def _exchange(exchange: Exchange) -> Iterator[str]:
    request, answer = exchange.request, exchange.answer
    yield f"{request.method} {request.target}"
    if request.body:
        yield request.body.decode()
    yield ""
    yield f"{answer.status} after {exchange.seconds:.3f} s"
    yield from _headers(exchange)
    body = answer.redact(answer.body.decode("utf-8", "replace"))[:_SHOWN]
    if body:
        yield from ("", body)


def _headers(exchange: Exchange) -> Iterator[str]:
    for name, value in exchange.headers.items():
        if name.lower() not in _HIDDEN:
            yield f"{name}: {exchange.answer.redact(value)}"
