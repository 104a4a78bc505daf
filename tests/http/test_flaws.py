"""The rules for responses that cannot be read: what is accepted, and what the message says is wrong."""

from __future__ import annotations

import pytest

from datadog_caselinks import ApiKeys, CaseLinksClient, CaseLinksError, RetryPolicy
from datadog_caselinks.http.compatibility import MAX_HEADER
from tests.hostile.answers import KEYS, OPERATIONS, encoded, framed, with_headers
from tests.support.leaks import assert_nothing_of, texts_of
from tests.support.server import Server, Step
from tests.support.steps import sends

ONCE = RetryPolicy(max_attempts=1, settle=0)

each_operation = pytest.mark.parametrize("operation", OPERATIONS)


def client_of(server: Server) -> CaseLinksClient:
    return CaseLinksClient(server.url, ApiKeys(api_key=KEYS[0], app_key=KEYS[1]), retry=ONCE)


@each_operation
@pytest.mark.parametrize("size", [9_000, MAX_HEADER - 10])
async def test_long_headers_are_accepted(size: int, operation: str) -> None:
    """A correct response with long headers, as from a proxy, is accepted."""
    step = with_headers(f"X-A: {'a' * size}", f"X-B: {'b' * size}", f"Set-Cookie: c={'c' * size}")
    call, expected = OPERATIONS[operation]
    async with Server(step) as server, client_of(server) as client:
        assert await call(client) == expected


FLAWS: dict[str, tuple[Step, str]] = {
    "a header too long": (
        framed(b"X-A: " + b"a" * 70_000, b"Content-Length: 2", body=b"{}"),
        "a header of the response is longer than 65,536 bytes",
    ),
    "a name too long": (
        framed(b"a" * 70_000 + b": x", b"Content-Length: 2", body=b"{}"),
        "a header of the response is longer than 65,536 bytes",
    ),
    "two lengths": (
        framed(b"Content-Length: 2", b"Content-Length: 3", body=b"{}"),
        "the response has two Content-Length headers",
    ),
    "a length and chunks": (
        framed(b"Content-Length: 2", b"Transfer-Encoding: chunked", body=b"2\r\n{}\r\n0\r\n\r\n"),
        "the response has both Content-Length and Transfer-Encoding",
    ),
    "a length that is not a number": (
        framed(b"Content-Length: two", body=b"{}"),
        "the Content-Length of the response is not a length",
    ),
    "too short": (framed(b"Content-Length: 9", body=b"{}"), "the response broke off"),
    "half a chunk": (framed(b"Transfer-Encoding: chunked", body=b"9\r\n{}"), "the response broke off"),
    "not gzip": (
        framed(b"Content-Encoding: gzip", b"Content-Length: 2", body=b"{}"),
        "the content encoding of the response is gzip, and its body is not",
    ),
    "not HTTP": (sends(b"nonsense\r\n\r\n"), "the response is not valid HTTP"),
    "a broken chunk": (
        framed(b"Transfer-Encoding: chunked", body=b"what?\r\n"),
        r"the response is (not valid HTTP|incomplete or damaged)",  # depends on the version of aiohttp
    ),
}


@pytest.mark.parametrize("name", FLAWS)
async def test_the_message_says_what_is_wrong(name: str) -> None:
    """A response that is not valid HTTP is described, and not quoted."""
    step, described = FLAWS[name]
    for call, _ in OPERATIONS.values():
        async with Server(step) as server, client_of(server) as client:
            with pytest.raises(CaseLinksError, match=f"{described}([.]|$|[.]? The link|, and)") as caught:
                await call(client)
        assert_nothing_of(KEYS, texts_of(caught.value))


@each_operation
@pytest.mark.parametrize("encoding", ["rot13", "gzip, gzip", "compress"])
async def test_an_unknown_encoding(encoding: str, operation: str) -> None:
    """The message for a body with an unsupported encoding names the encoding, and not malformed JSON."""
    step = encoded(encoding, lambda body: body[::-1])
    call, _ = OPERATIONS[operation]
    async with Server(step) as server, client_of(server) as client:
        if operation == "delete":  # a delete needs no document
            await call(client)
            return
        with pytest.raises(CaseLinksError, match=f"the content encoding '{encoding}' is unknown"):
            await call(client)
