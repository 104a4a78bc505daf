"""The questions that the API's documentation leaves open, answered by single requests to a server."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final
from uuid import uuid4

from attrs import field, frozen

from datadog_caselinks import CaseLinksError, Entity, NewCaseLink, RateLimit, case
from datadog_caselinks.http import wire
from datadog_caselinks.http.headers import read_rate_limit
from datadog_caselinks.http.wire import LINKS_PATH, Request
from tests.live.probe import RELATIONSHIP, Exchange, Probe

_PATIENCE: Final = 30.0
"""Seconds in which a list may come to show a new link."""

_OPERATIONS: Final = ("create", "list", "delete", "get")
# These headers differ in each response, and are known not to be request ids.
_NO_REQUEST_ID: Final = frozenset(
    {"age", "content-length", "content-security-policy", "date", "etag", "retry-after", "set-cookie"}
)


@frozen
class Finding:
    """A question, its result, and the exchanges that prove it.

    ``problem`` is a contradiction to the API's documentation.
    """

    question: str
    answer: str
    exchanges: Sequence[Exchange] = ()
    problem: str | None = field(default=None, kw_only=True)


Ask = Callable[[Probe, NewCaseLink], Awaitable[list[Finding]]]


async def findings(probe: Probe, keys: tuple[str, str]) -> list[Finding]:
    """Answer all questions with links between the two cases with these keys, and delete the links.

    Raises:
        CaseLinksError: The cases cannot be read.
    """
    parent, child = [await probe.case(key) for key in keys]
    new = NewCaseLink(parent, RELATIONSHIP, child)
    found: list[Finding] = []
    for ask in QUESTIONS:
        try:
            found += await ask(probe, new)
        except CaseLinksError as error:
            title = str(ask.__doc__)
            found.append(Finding(title, f"not learned: {error}", problem=f"{title} {error}"))
        finally:
            await probe.clean_up()
    return found


async def duplicates(probe: Probe, new: NewCaseLink) -> list[Finding]:
    """Is an equal second create rejected?"""
    first, second = await probe.create(new), await probe.create(new)
    made = wire.read_link(first.answer)
    if not second.is_success:
        answer = f"yes: {form(second)}"
    elif wire.read_link(second.answer).id == made.id:
        answer = f"no: {second.answer.status}, and the link is the first one"
    else:
        answer = f"no: {second.answer.status}, and there are two links"
    return [_documented(str(duplicates.__doc__), answer, first, second, statuses={201, 400, 409})]


async def lag(probe: Probe, new: NewCaseLink) -> list[Finding]:
    """How long until a list shows a new link?"""
    created = await probe.create(new)
    made, begun = wire.read_link(created.answer), probe.now()
    lists, pause, not_yet = 0, 0.1, 0.0
    while True:
        listed = await probe.send(wire.list_request(new.parent, None))
        seconds, lists = probe.now() - begun, lists + 1
        if made.id in [link.id for link in wire.read_links(listed.answer)]:
            answer = f"between {not_yet:.2f} and {seconds:.2f} s: list number {lists} is the first to have it"
            break
        if seconds >= _PATIENCE:
            answer = f"more than {seconds:.0f} s: none of {lists} lists has it"
            break
        not_yet = seconds
        await probe.sleep(min(pause, _PATIENCE - seconds))
        pause *= 2
    return [_documented(str(lag.__doc__), answer, created, listed, statuses={200, 201})]


async def errors(probe: Probe, new: NewCaseLink) -> list[Finding]:
    """What is the form of errors?"""
    stranger = case(uuid4())
    no_json = Request("create", "POST", LINKS_PATH, b"{", "a link that is no JSON")
    empty = Request("create", "POST", LINKS_PATH, b'{"data": {"type": "link"}}', "a link without attributes")
    asked = [
        ("a body that is no JSON", await probe.send(no_json), {400}),
        ("a body without attributes", await probe.send(empty), {400}),
        (
            "wrong keys",
            await probe.send(wire.list_request(new.parent, None), wrong_keys=True),
            {401, 403},
        ),
        ("an unknown link", await probe.send(wire.delete_request(str(uuid4()))), {404}),
        ("an unknown case", await probe.send(wire.case_request(str(uuid4()))), {404}),
        (
            "a link from an unknown case",
            await probe.create(NewCaseLink(stranger, RELATIONSHIP, new.child)),
            {201, 400, 403, 404},
        ),
        ("the links of an unknown case", await probe.send(_list(stranger)), {200, 400, 403, 404}),
    ]
    return [
        _documented(f"What is answered to {what}?", form(exchange), exchange, statuses=statuses)
        for what, exchange, statuses in asked
    ]


async def rate_limits(probe: Probe, _: NewCaseLink) -> list[Finding]:
    """Which limits are there, and which operations share one?"""
    reported = {
        operation: limit
        for operation in _OPERATIONS
        for exchange in _of(probe, operation)
        if (limit := read_rate_limit(exchange.answer.headers))
    }
    rejected = sum(exchange.answer.status == 429 for exchange in probe.seen)
    return [
        Finding("Do create, list, delete and get share a bucket?", _buckets(reported)),
        Finding(
            "Which limits and periods are there?",
            "; ".join(f"{operation}: {_rate(limit)}" for operation, limit in reported.items())
            or "none is reported",
            [next(_of(probe, operation)) for operation in reported],
        ),
        Finding("Was the limit met?", f"{rejected} of {len(probe.seen)} requests were answered with 429"),
    ]


async def headers(probe: Probe, _: NewCaseLink) -> list[Finding]:
    """What do the other headers tell?"""
    answers = [exchange.headers for exchange in probe.seen]
    names = {name.lower() for each in answers for name in each}
    values = {name: [each[name] for each in answers if name in each] for name in names}
    ids = [
        name
        for name, reported in sorted(values.items())
        if len(reported) == len(set(reported)) == len(answers)
        and name not in _NO_REQUEST_ID
        and not name.startswith("x-ratelimit-")
    ]
    kept = sorted(set(values.get("keep-alive", [])))
    return [
        Finding("Which header carries a request id?", ", ".join(ids) or "none", [probe.seen[-1]]),
        Finding("How long is an idle connection kept?", ", ".join(kept) or "not reported; not measured here"),
    ]


QUESTIONS: Final[tuple[Ask, ...]] = (duplicates, lag, errors, rate_limits, headers)


def form(exchange: Exchange) -> str:
    """Return the status and the form of a response, and the error that the client derives from it."""
    error = exchange.error()
    read_as = f"; read as {type(error).__name__}" if error else ""
    return f"{exchange.answer.status}, {_shape(exchange.answer.body)}{read_as}"


def _shape(body: bytes) -> str:
    if not body:
        return "no body"
    try:
        document = json.loads(body)
    except ValueError:
        return "HTML" if b"<html" in body.lower() else "plain text"
    reported = document.get("errors") if isinstance(document, dict) else None
    if not isinstance(reported, list) or not reported:
        return "JSON without errors"
    if all(isinstance(error, str) for error in reported):
        return "errors as strings"
    if all(isinstance(error, dict) for error in reported):
        return f"errors as objects of {', '.join(sorted({name for error in reported for name in error}))}"
    return "errors of several kinds"


def _list(entity: Entity) -> Request:
    return wire.list_request(entity, None)


def _of(probe: Probe, operation: str) -> Iterator[Exchange]:
    return (exchange for exchange in probe.seen if exchange.request.operation == operation)


def _rate(limit: RateLimit) -> str:
    return f"{limit.limit} in {'?' if limit.period is None else f'{limit.period:g}'} s"


def _buckets(reported: dict[str, RateLimit]) -> str:
    names = {operation: limit.name for operation, limit in reported.items() if limit.name}
    if len(names) < len(_OPERATIONS):
        missing = ", ".join(operation for operation in _OPERATIONS if operation not in names)
        return f"not reported for {missing}"
    listed = ", ".join(f"{operation}: {name}" for operation, name in names.items())
    return f"{'yes' if len(set(names.values())) == 1 else 'no'}; {listed}"


def _documented(question: str, answer: str, *exchanges: Exchange, statuses: set[int]) -> Finding:
    """Return a finding, with a problem if an exchange has a status that is not documented."""
    odd = [exchange for exchange in exchanges if exchange.answer.status not in statuses]
    problem = "; ".join(
        f"{question} {exchange.answer.status}, and {' or '.join(map(str, sorted(statuses)))} is documented"
        for exchange in odd
    )
    return Finding(question, answer, exchanges, problem=problem or None)
