"""A server may echo the keys in any place and encoding: no error shows a key."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

import pytest

from datadog_caselinks import (
    ApiKeys,
    BearerToken,
    CaseLinksClient,
    CaseLinksError,
    Credentials,
    MalformedResponseError,
    RetryPolicy,
)
from tests.hostile.answers import CASE, KEYS, OPERATIONS, good, with_headers
from tests.support.clock import Clock, in_no_time
from tests.support.leaks import assert_nothing_of, texts_of
from tests.support.server import Exchange, Server, Step

POLICY = RetryPolicy(max_attempts=2, max_rate_limited=1, base=0, settle=0)
TOKEN: Final = "token/with+0123<&>==" + "x" * 2000
SECRETS: Final = [*KEYS, TOKEN]

# Each function encodes the keys for a body.
SPELLINGS: Final[dict[str, Callable[[str], bytes]]] = {
    "as text": str.encode,
    "in JSON": lambda reported: json.dumps({"errors": [reported]}).encode(),
    "in an object": lambda reported: json.dumps(
        {"errors": [{"title": reported, "detail": reported, "meta": reported}]}
    ).encode(),
    "in JSON with escaped slashes": lambda reported: (
        json.dumps({"errors": [reported]}).replace("/", "\\/").encode()
    ),
    "in JSON with escaped letters": lambda reported: b'{"errors":["%s"]}' % _escaped(reported).encode(),
    "in JSON within JSON": lambda reported: json.dumps(
        {"errors": [json.dumps([reported]).replace("/", "\\/")]}
    ).encode(),
    "in JSON in UTF-16": lambda reported: json.dumps({"errors": [reported]}).encode("utf-16"),
    "in JSON in UTF-32": lambda reported: json.dumps({"errors": [reported]}).encode("utf-32-le"),
    "in HTML": lambda reported: f"<title>{html.escape(reported)}</title>".encode(),
    "in HTML by numbers": lambda reported: "".join(f"&#{ord(char)};" for char in reported).encode(),
    "in a URL": lambda reported: f"https://a.example/?key={quote(reported, safe='')}".encode(),
    "in a URL in JSON": lambda reported: (
        json.dumps({"errors": [quote(reported, safe="/")]}).replace("/", "\\/").encode()
    ),
    "in control characters": lambda reported: f"\x1b[31m{reported}\x00{reported}\x07".encode(),
    "at the end of what is read": lambda reported: (reported * 400).rjust(2**18 + 7).encode(),
    "again and again, and cut": lambda reported: reported.encode() * (2**20 // len(reported)),
    "again and again in numbers, and cut": lambda reported: (
        _escaped(reported).encode() * (2**18 // len(reported))
    ),
}


def _escaped(reported: str) -> str:
    return "".join(f"\\u{ord(char):04X}" for char in reported)


def in_body(status: int | None, spell: Callable[[str], bytes]) -> Step:
    """Return a step with the keys in the body of an error or of a success."""

    async def step(exchange: Exchange) -> None:
        await exchange.answer(status or good(exchange.seen)[0], spell("".join(sent(exchange))))

    return step


async def in_ids(exchange: Exchange) -> None:
    """Respond with a success whose ids, types and titles are the keys."""
    reported = ",".join(sent(exchange))
    ends = {f"{end}_entity_{part}": reported for end in ("parent", "child") for part in ("type", "id")}
    kind = "link" if "/link" in exchange.seen.target else "case"
    attributes = (
        {**ends, "relationship": reported} if kind == "link" else {"key": "SHOP-1", "title": reported}
    )
    data: object = {"id": reported, "type": kind, "attributes": attributes}
    data = [data] if "/link?" in exchange.seen.target else data
    await exchange.answer(good(exchange.seen)[0], json.dumps({"data": data}).encode())


def in_header(name: str, status: int) -> Step:
    """Return a step with the keys in this header."""

    async def step(exchange: Exchange) -> None:
        reported = ",".join(sent(exchange))
        answer = with_headers(
            f"{name}: {reported}", "X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 1", status=status
        )
        await answer(exchange)

    return step


def in_reason(form: bytes) -> Step:
    """Return a step that sends this line with the keys in place of ``%s``."""

    async def step(exchange: Exchange) -> None:
        await exchange.send(form % ",".join(sent(exchange)).encode() + b"\r\nContent-Length: 0\r\n\r\n")
        exchange.close()

    return step


def sent(exchange: Exchange) -> list[str]:
    """Return the keys or the token of the request."""
    headers = exchange.seen.headers
    if "Authorization" in headers:
        return [headers["Authorization"].removeprefix("Bearer ")]
    return [headers["DD-API-KEY"], headers["DD-APPLICATION-KEY"]]


@pytest.fixture(params=["keys", "token"])
def credentials(request: pytest.FixtureRequest) -> Credentials:
    return ApiKeys(api_key=KEYS[0], app_key=KEYS[1]) if request.param == "keys" else BearerToken(TOKEN)


async def require_silent(clock: Clock, step: Step, credentials: Credentials, operation: str) -> None:
    """Fail if an error of ``operation`` shows a key or half of one."""
    events: list[object] = []
    async with (
        Server(step) as server,
        CaseLinksClient(server.url, credentials, retry=POLICY, on_event=events.append) as links,
    ):
        call, _ = OPERATIONS[operation]
        with pytest.raises(CaseLinksError) as caught:
            await in_no_time(clock, call(links))
        limits = repr(links.rate_limit)
    reported = [text.replace("\0", "") for text in (*texts_of(caught.value), repr(events), limits)]
    assert_nothing_of([*SECRETS, *(secret[:9] for secret in SECRETS), *map(_escaped, SECRETS)], reported)


@pytest.mark.parametrize("operation", ["create", "list"])
@pytest.mark.parametrize("status", [None, 400])
@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_in_a_body(
    clock: Clock, credentials: Credentials, spelling: str, status: int | None, operation: str
) -> None:
    """Keys in a body are not shown, in any encoding, for an error or a success."""
    await require_silent(clock, in_body(status, SPELLINGS[spelling]), credentials, operation)


@pytest.mark.parametrize("status", [400, 429])
@pytest.mark.parametrize("name", ["X-RateLimit-Name", "X-RateLimit-Limit", "Retry-After", "Date", "Location"])
async def test_in_a_header(clock: Clock, credentials: Credentials, name: str, status: int) -> None:
    """Keys in a header are not shown, not even in the name of a rate limit."""
    await require_silent(clock, in_header(name, status), credentials, "create")


@pytest.mark.parametrize("form", [b"HTTP/1.1 400 %s", b"HTTP/1.1 %s", b"%s", b"HTTP/1.1 400 No\r\n%s"])
async def test_in_a_status_line(clock: Clock, credentials: Credentials, form: bytes) -> None:
    """Keys in an invalid status line are not shown, because the line is not quoted."""
    await require_silent(clock, in_reason(form), credentials, "create")


@pytest.mark.parametrize("operation", ["create", "list"])
async def test_in_a_success_about_other_links(clock: Clock, credentials: Credentials, operation: str) -> None:
    """Keys in the ids of unsolicited links are not shown."""
    await require_silent(clock, in_ids, credentials, operation)


async def test_in_a_success_about_another_case(clock: Clock, credentials: Credentials) -> None:
    """Keys in the id and the title of an unsolicited case are not shown."""
    async with Server(in_ids) as server, CaseLinksClient(server.url, credentials, retry=POLICY) as links:
        with pytest.raises(MalformedResponseError) as caught:
            await in_no_time(clock, links.get_case(CASE.id))
    assert_nothing_of(SECRETS, texts_of(caught.value))
