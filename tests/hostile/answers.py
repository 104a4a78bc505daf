"""The responses of a hostile or broken server, by name: steps for the server of ``tests.support``."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any, Final

from datadog_caselinks import Case, CaseLink, CaseLinksClient
from tests.support.clock import Clock
from tests.support.ids import case, some_id
from tests.support.server import Exchange, Seen, Step, head
from tests.support.steps import answers, link_json, sends

KEYS: Final = "api/key+0123", "app<key>&4567"
"""With characters that JSON, HTML and URLs escape."""

NEW: Final = case(some_id(1)).blocks(case(some_id(2)))
LINK: Final = CaseLink(f"link-{some_id(2)}", NEW.parent, NEW.relationship, NEW.child)
CASE: Final = Case(some_id(3), "SHOP-1", "A title", "OPEN", "P1")

Call = Callable[[CaseLinksClient], Any]

OPERATIONS: Final[dict[str, tuple[Call, object]]] = {
    # name: (the call, its result from a correct server)
    "create": (lambda links: links.create_link(NEW), LINK),
    "ensure": (lambda links: links.ensure_link(NEW), (LINK, True)),
    "list": (lambda links: links.list_links(NEW.parent), []),
    "delete": (lambda links: links.delete_link("some-link"), None),
    "get_case": (lambda links: links.get_case(CASE.key), CASE),
}


def good(seen: Seen) -> tuple[int, Any]:
    """Return the status and the document of a correct response."""
    match seen.method:
        case "POST":
            return 201, {"data": link_json(seen.json["data"]["attributes"])}
        case "DELETE":
            return 200, {"data": []}
    if "/link?" in seen.target:
        return 200, {"data": []}
    reported = {"key": CASE.key, "title": CASE.title, "status": CASE.status, "priority": CASE.priority}
    return 200, {"data": {"type": "case", "id": CASE.id, "attributes": reported}}


async def well(exchange: Exchange) -> None:
    """Respond as the API does."""
    status, document = good(exchange.seen)
    await exchange.answer(status, json.dumps(document).encode())


def but(send: Callable[[int, bytes], tuple[bytes, ...]]) -> Step:
    """Return a step that sends a correct status and body in the form that ``send`` returns."""

    async def step(exchange: Exchange) -> None:
        status, document = good(exchange.seen)
        for part in send(status, json.dumps(document).encode()):
            await exchange.send(part)
            await asyncio.sleep(0)

    return step


def with_headers(*lines: str, status: int | None = None) -> Step:
    """Return a step that responds correctly, or with ``status``, and adds these header lines."""
    more = "".join(f"{line}\r\n" for line in lines).encode("latin-1")

    def send(good_status: int, body: bytes) -> tuple[bytes, ...]:
        begin = head(status or good_status, Content_Length=str(len(body)))
        return (begin.removesuffix(b"\r\n") + more + b"\r\n" + body,)

    return but(send)


def framed(*lines: bytes, body: bytes | None = None) -> Step:
    """Return a step that sends only these header lines, and closes the connection after the body."""

    async def step(exchange: Exchange) -> None:
        status, document = good(exchange.seen)
        reported = json.dumps(document).encode() if body is None else body
        await exchange.send(b"\r\n".join([b"HTTP/1.1 %d Fine" % status, *lines, b"", b""]) + reported)
        exchange.close()

    return step


def encoded(encoding: str, encode: Callable[[bytes], bytes]) -> Step:
    """Return a step that encodes the body."""

    def send(status: int, body: bytes) -> tuple[bytes, ...]:
        reported = encode(body)
        return (head(status, Content_Length=str(len(reported)), Content_Encoding=encoding) + reported,)

    return but(send)


def saying(text: bytes) -> Step:
    """Return a step that succeeds with ``text`` as the body."""

    async def step(exchange: Exchange) -> None:
        await exchange.answer(good(exchange.seen)[0], text)

    return step


def endless(begin: bytes, again: bytes, clock: Clock | None = None) -> Step:
    """Return a step that sends ``again`` without end; a second passes on ``clock`` each time."""

    async def step(exchange: Exchange) -> None:
        await exchange.send(begin)
        while True:
            await exchange.send(again)
            await asyncio.sleep(0)
            if clock:
                clock.advance(1)

    return step


async def half_closes(exchange: Exchange) -> None:
    """Close the sending side without a response, and keep reading."""
    exchange.writer.write_eof()
    await asyncio.Event().wait()


async def half_closes_after_the_answer(exchange: Exchange) -> None:
    """Respond correctly, then close the sending side and keep reading."""
    await well(exchange)
    exchange.writer.write_eof()


def _raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


def _twice(status: int, body: bytes) -> tuple[bytes, ...]:
    stolen = json.dumps({"data": link_json({**_ATTRIBUTES, "child_entity_id": some_id(9)})}).encode()
    second = head(201, Content_Length=str(len(stolen))) + stolen
    return (head(status, Content_Length=str(len(body))) + body + second,)


_ATTRIBUTES: Final = {
    "parent_entity_id": some_id(8),
    "parent_entity_type": "CASE",
    "relationship": "BLOCKS",
    "child_entity_id": some_id(9),
    "child_entity_type": "CASE",
}

_ANY_LINK: Final = json.dumps({"data": link_json(_ATTRIBUTES)})

HARMLESS: Final[dict[str, Step]] = {
    "byte by byte": but(
        lambda status, body: tuple(
            bytes([byte]) for byte in head(status, Content_Length=str(len(body))) + body
        )
    ),
    "gzip": encoded("gzip", gzip.compress),
    "gzip, and more after its end": encoded("gzip", lambda body: gzip.compress(body) + gzip.compress(b"  ")),
    "deflate": encoded("deflate", zlib.compress),
    "deflate without a header": encoded("deflate", _raw_deflate),
    "an encoding that nobody knows": encoded("rot13", bytes),
    "chunks with extensions": but(
        lambda status, body: (
            head(status, Transfer_Encoding="chunked") + b"%x;a=b;c\r\n%s\r\n0\r\n\r\n" % (len(body), body),
        )
    ),
    "trailers": but(
        lambda status, body: (
            head(status, Transfer_Encoding="chunked", Trailer="X-RateLimit-Name, Set-Cookie")
            + b"%x\r\n%s\r\n0\r\nX-RateLimit-Name: a\r\nSet-Cookie: a=b\r\n\r\n" % (len(body), body),
        )
    ),
    "informational answers first": but(
        lambda status, body: (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n",
            b"HTTP/1.1 103 Early Hints\r\nLink: </>; rel=preload\r\n\r\n",
            head(status, Content_Length=str(len(body))) + body,
        )
    ),
    "two answers at once": but(_twice),
    "no reason": but(
        lambda s, body: (b"HTTP/1.1 %d\r\nContent-Length: %d\r\n\r\n%s" % (s, len(body), body),)
    ),
    "a reason in another encoding": but(
        lambda s, body: (b"HTTP/1.1 %d \xe9\xff\r\nContent-Length: %d\r\n\r\n%s" % (s, len(body), body),)
    ),
    "headers in another encoding": with_headers("X-A: \xe9\xff", "X-RateLimit-Name: \xe9\xff"),
    "types that do not hold": with_headers(
        "Content-Type: text/html; charset=nonsense", "Content-Language: \x07"
    ),
    "cookies": with_headers(
        "Set-Cookie: a=b",
        "Set-Cookie: a=c; Domain=127.0.0.1; Path=/",
        "Set-Cookie: =;;; \x01",
        "Set-Cookie2: a=b",
    ),
    "half closed": half_closes_after_the_answer,
    "a name twice, the last as it should be": but(
        lambda status, body: (
            head(status, Content_Length=str(len(body) + 12)) + b'{"data": 7, ' + body[1:] + b" ",
        )
    ),
}
"""Odd, and yet a good answer: every operation succeeds."""

GARBLED: Final[dict[str, Step]] = {
    **{
        f"a status line of {line!r:.40}": sends(line + b"\r\nContent-Length: 2\r\n\r\n{}")
        for line in (
            b"",
            b"HTTP/1.1",
            b"HTTP/1.1 2OO OK",
            b"HTTP/1.1 -200 OK",
            b"HTTP/1.1 2000 OK",
            b"HTTP/9.9 200 OK",
            b"HTTP/1.1 200\x00OK",
            b"ICY 200 OK",
            b"SSH-2.0-OpenSSH_9.9",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"PRI * HTTP/2.0\r\n\r\nSM",
            b"A" * 100_000,
        )
    },
    "a header without a colon": framed(b"Content-Length 2", body=b"{}"),
    "a header without a name": framed(b": 2", body=b"{}"),
    "a header with a zero byte": framed(b"X-A: a\x00b", b"Content-Length: 2", body=b"{}"),
    "a header of 100 kB": framed(b"X-A: " + b"a" * 100_000),
    "1,000 headers": framed(*[b"X-%d: a" % number for number in range(1000)]),
    "1,000 times the same header": framed(*[b"X-A: a"] * 1000),
    "a negative length": framed(b"Content-Length: -2", body=b"{}"),
    "a length of words": framed(b"Content-Length: two", body=b"{}"),
    "an endless length": framed(b"Content-Length: " + b"9" * 30),
    "a length too long": framed(b"Content-Length: 9999"),
    "a length too short": framed(b"Content-Length: 9"),
    "two lengths": framed(b"Content-Length: 2", b"Content-Length: 3", body=b"{}  "),
    "a length and chunks": framed(
        b"Content-Length: 2", b"Transfer-Encoding: chunked", body=b"2\r\n{}\r\n0\r\n\r\n"
    ),
    "a negative chunk": framed(b"Transfer-Encoding: chunked", body=b"-2\r\n{}\r\n0\r\n\r\n"),
    "a chunk beyond all numbers": framed(b"Transfer-Encoding: chunked", body=b"f" * 40 + b"\r\n{}\r\n"),
    "a chunk that is longer than it says": framed(
        b"Transfer-Encoding: chunked", body=b"1\r\n{}\r\n0\r\n\r\n"
    ),
    "deflate that is none": framed(b"Content-Encoding: deflate", b"Content-Length: 2", body=b"{}"),
    "br that is none": framed(b"Content-Encoding: br", b"Content-Length: 2", body=b"{}"),
    "zstd that is none": framed(b"Content-Encoding: zstd", b"Content-Length: 2", body=b"{}"),
    "half closed without an answer": half_closes,
}
"""No answer at all: no operation succeeds."""

MEANINGLESS: Final[dict[str, Step]] = {
    "nothing": saying(b""),
    "gzip that breaks off": framed(b"Content-Encoding: gzip", body=gzip.compress(b"{}" * 99)[:-12]),
    "gzip within gzip that says so": framed(
        b"Content-Encoding: gzip, gzip", b"Content-Length: 3", body=b"{}\n"
    ),
    "no UTF-8": saying(_ANY_LINK.replace("link-", "\xff\xfe").encode("latin-1")),
    "zero bytes": saying(bytes(1000)),
    "deep lists": saying(b'{"data": ' + b"[" * 100_000),
    "deep objects": saying(b'{"data": ' * 100_000),
    "NaN": saying(b'{"data": NaN}'),
    "Infinity": saying(b'{"data": {"id": Infinity, "attributes": -Infinity}}'),
    "a huge number": saying(b'{"data": ' + b"9" * 100_000 + b"}"),
    "a huge exponent": saying(b'{"data": 1e99999}'),
    "half a character in the id": saying(_ANY_LINK.replace("link-", "\\ud800").encode()),
    "a name twice, the last malformed": saying(_ANY_LINK[:-1].encode() + b', "data": 7}'),
    "a list of odd items": saying(b'{"data": [' + b'{"id": "a", "attributes": {}},' * 1000 + b"{}]}"),
    "an error that says success": saying(b'{"errors": ["no"]}'),
}
"""Success with a body that is no link: a delete succeeds, and nothing else."""


def _errors(*errors: object) -> bytes:
    return json.dumps({"errors": errors}).encode()


_ESCAPES: Final = "\x1b]0;owned\x07\x1b[2J\x1b[31m\u202e\u2066\x9b\r\n\x00\x7f"

REFUSED: Final[dict[str, Step]] = {
    **{str(status): answers(status, b"{}") for status in (300, 305, 402, 418, 451, 508, 599, 600, 999)},
    "304": answers(304),
    "errors that are nested deeply": answers(400, b'{"errors":[' + b"[" * 700 + b"]" * 700 + b"]}"),
    "errors that are nested too deeply": answers(400, b'{"errors":' + b"[" * 100_000),
    "errors of odd types": answers(400, _errors(None, 7, 1.5, True, [], {}, [[]], {"title": {"a": []}})),
    "100,000 errors": answers(400, _errors(*["a"] * 100_000)),
    "a number beyond all digits": answers(422, b'{"errors":[' + b"9" * 5000 + b"]}"),
    "errors with escapes of terminals": answers(
        403, _errors(_ESCAPES, {"title": _ESCAPES, "detail": _ESCAPES})
    ),
    "a page with escapes of terminals": answers(502, f"<title>{_ESCAPES}</title>".encode()),
    "an error without UTF-8": answers(400, b"\xff\xfe\xfd" * 100),
    "an error in UTF-32": answers(400, _errors("odd").decode().encode("utf-32")),
    "half a character in an error": answers(400, b'{"errors":["\\ud800"]}'),
}
"""Another status than success: no operation succeeds."""


def elsewhere(url: str) -> dict[str, Step]:
    """Return responses that point to ``url``: redirects, challenges and similar headers."""
    target = f"{url}/api/v2/cases/link?a=b"
    locations = {
        "elsewhere": target,
        "without a scheme": target.partition(":")[2],
        "by https": target.replace("http:", "https:"),
        "with a password": target.replace("://", "://somebody:password@"),
    }
    return {
        **{
            f"{status} {where}": with_headers(f"Location: {location}", status=status)
            for status in (301, 302, 303, 307, 308)
            for where, location in locations.items()
        },
        "201 with a location": with_headers(f"Location: {target}", f"Content-Location: {target}", status=400),
        "a refresh": with_headers(f"Refresh: 0; url={target}", f"Link: <{target}>; rel=next", status=400),
        "another service": with_headers(f'Alt-Svc: h2="{url.rpartition("/")[2]}"; ma=86400', status=400),
        "a proxy": with_headers(f"Location: {target}", f"Proxy-Authenticate: Basic realm={url}", status=305),
        "a login": with_headers(f'WWW-Authenticate: Digest realm="a", domain="{url}", nonce="b"', status=401),
        "an upgrade": with_headers("Upgrade: websocket", "Connection: Upgrade", status=101),
    }


LIMITS: Final[dict[str, tuple[str, ...]]] = {
    **{
        f"{what} {value!r:.20}": (f"{what}: {value}",)
        for what in ("Retry-After", "X-RateLimit-Reset", "X-RateLimit-Remaining")
        for value in (
            "9" * 5000,
            "-1",
            "NaN",
            "1e400",
            "1.7e308",
            "1e-320",
            "0",
            "\x01\x1b[2J",
        )
    },
    "a date long ago": (
        "Retry-After: Mon, 01 Jan 0001 00:00:00 +2359",
        "Date: Fri, 31 Dec 9999 23:59:59 -2359",
    ),
    "a date far away": ("Retry-After: Fri, 31 Dec 9999 23:59:59 GMT", "Date: Thu, 01 Jan 1970 00:00:00 GMT"),
    "no limit at all": ("X-RateLimit-Limit: 0", "X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 0"),
    "a limit beyond all numbers": (
        "X-RateLimit-Limit: " + "9" * 90,
        "X-RateLimit-Remaining: " + "9" * 90,
        "X-RateLimit-Period: " + "9" * 90,
        "X-RateLimit-Reset: 99999999",
    ),
    **{
        f"{name} of the largest float": tuple(
            f"X-RateLimit-{header}: {'1.7e308' if header == name else number}"
            for header, number in {"Limit": 9, "Remaining": 8, "Period": 60, "Reset": 60}.items()
        )
        for name in ("Limit", "Remaining", "Period", "Reset")
    },
    "more left than there is": ("X-RateLimit-Limit: 1", "X-RateLimit-Remaining: 99", "X-RateLimit-Reset: 1"),
    "a name of 8 kB": ("X-RateLimit-Name: " + "a" * 8000, "X-RateLimit-Remaining: 1"),
    "a name of escapes": ("X-RateLimit-Name: \x1b[31m\x07\x9b", "X-RateLimit-Remaining: 1"),
    "each a hundred times": tuple(
        f"X-RateLimit-{name}: {number}" for name in ("Limit", "Remaining", "Reset") for number in range(30)
    ),
}
"""Headers of a rate limit that no server means."""
