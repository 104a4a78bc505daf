"""The API's requests and answers as values: models in, models or errors out. Does no I/O.

Facts of the API: https://docs.datadoghq.com/api/latest/case-management/
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol, TypeVar
from urllib.parse import quote, urlencode
from uuid import UUID

from attrs import evolve

from datadog_caselinks import errors
from datadog_caselinks.errors import (
    InvalidLinkError,
    MalformedResponseError,
    ResponseError,
    ResponseTooLargeError,
)
from datadog_caselinks.messages import one_line, shortened
from datadog_caselinks.models import (
    Case,
    CaseLink,
    Entity,
    NewCaseLink,
    Relationship,
    is_case_key,
    is_uuid,
    require_known_relationship,
)
from datadog_caselinks.rate_limit import Headers, RateLimit, retry_after

_CASES_PATH: Final = "/api/v2/cases"
LINKS_PATH: Final = f"{_CASES_PATH}/link"

MAX_LIST: Final = 16 * 2**20
"""Bytes that are read of a list: room for some 40,000 links."""

MAX_BODY: Final = 2**20
"""Bytes that are read of any other answer, of which a hundred may be under way."""

_TITLE: Final = re.compile(r"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)

_EXCERPT: Final = 1000
"""Characters of a body that an error keeps."""

_TOLD: Final = 2**18
"""Bytes of a body in which an error looks for what the server says; it is refused in far fewer."""

_HEADER: Final = 6 * 2**13
"""Characters that a secret may take: servers take 8 KiB of a header, and escaped it is six times as long."""

_NESTED: Final = 20
"""How deep ``errors`` may be nested. Python reads deeper ones, and can then neither print nor pickle them."""

_ABOUT: Final = {
    "create": "create {}",
    "list": "list the links of {}",
    "delete": "delete link {}",
    "get": "get case {}",
}
_READING: Final = frozenset({"list", "get"})


class Request(NamedTuple):
    """What to ask: ``target`` is path and query, ``subject`` what it is about, for people to read.

    ``operation`` is ``create``, ``list``, ``delete`` or ``get``: what the server may count by.
    """

    operation: str
    method: str
    target: str
    body: bytes | None
    subject: object

    @property
    def about(self) -> str:
        """What it asks, for the messages of errors."""
        return _ABOUT[self.operation].format(self.subject)

    @property
    def max_body(self) -> int:
        """Bytes that are read of its answer; decoded, one that is made for it takes fifty times as much."""
        return MAX_LIST if self.operation == "list" else MAX_BODY

    @property
    def scope(self) -> str:
        """The OAuth scope that it needs."""
        return "cases_read" if self.operation in _READING else "cases_write"


class Answer(NamedTuple):
    """What came back.

    ``redact`` takes what is secret out of what is to be kept of it;
    ``complete`` is false where the body was longer than what was read of it; ``resent`` is true where the
    request went out twice, since a pooled connection dropped.
    """

    request: Request
    status: int
    headers: Headers
    body: bytes
    redact: Callable[[str], str] = str
    complete: bool = True
    resent: bool = False

    def rate_limit(self) -> RateLimit | None:
        """What its headers say of the rate limit."""
        limit = RateLimit.from_headers(self.headers)
        if limit and limit.name and (told := self.redact(limit.name)) != limit.name:
            return evolve(limit, name=told)
        return limit

    def text(self) -> str:
        """The beginning of the body, as much as can tell what is wrong."""
        beginning = self.body[:_TOLD]
        told = self.redact(beginning.decode(json.detect_encoding(beginning), "replace"))
        # Where it was cut, half a secret may be left.
        return told if len(beginning) == len(self.body) else told[:-_HEADER]

    def __repr__(self) -> str:
        # Where local variables are stored: headers and body may echo what was sent, and be large.
        return f"Answer({self.request!r}, {self.status})"


def create_request(new: NewCaseLink) -> Request:
    """``POST /api/v2/cases/link``. Raises :class:`InvalidLinkError` for what is no :class:`NewCaseLink`."""
    if not isinstance(new, NewCaseLink):
        raise InvalidLinkError(
            f"only a NewCaseLink can be created, such as case(a).blocks(case(b)), not {shortened(new)}"
        )
    return Request("create", "POST", LINKS_PATH, _codec().encode_new_link(new), new)


def list_request(entity: Entity, relationship: Relationship | None) -> Request:
    """``GET /api/v2/cases/link`` for the links at ``entity``, of one relationship or of all."""
    if not isinstance(entity, Entity):
        raise InvalidLinkError(f"links are listed of an Entity such as case(…), not of {shortened(entity)}")
    entity.require_known()
    query = {"entity_type": entity.type, "entity_id": entity.id}
    if relationship is not None:
        query["relationship"] = require_known_relationship(relationship)
    target = f"{LINKS_PATH}?{urlencode(query)}"
    return Request("list", "GET", target, None, entity)


def delete_request(link_id: str) -> Request:
    """``DELETE /api/v2/cases/link/{link_id}``. Raises :class:`InvalidLinkError` for what is no id."""
    # A path of "." or ".." would be resolved away and name another resource.
    if not isinstance(link_id, str) or link_id.strip(".") == "" or not link_id.isprintable():
        raise InvalidLinkError(f"{shortened(link_id)} is no id of a link")
    target = f"{LINKS_PATH}/{quote(link_id, safe='')}"
    return Request("delete", "DELETE", target, None, link_id)


def case_request(key_or_id: str | UUID) -> Request:
    """``GET /api/v2/cases/{key_or_id}``. Raises :class:`InvalidLinkError` for what is neither."""
    name = str(key_or_id)
    if not (is_case_key(name) or is_uuid(name)):
        raise InvalidLinkError(f"{shortened(key_or_id)} is neither the key of a case nor a UUID")
    return Request("get", "GET", f"{_CASES_PATH}/{name}", None, name)


def read_link(answer: Answer) -> CaseLink:
    """The link that ``answer`` holds, or the error that it is."""
    return _read(answer, _codec().decode_link)


def read_links(answer: Answer) -> list[CaseLink]:
    """The links that ``answer`` holds, or the error that it is."""
    return _read(answer, _codec().decode_links)


def read_case(answer: Answer) -> Case:
    """The case that ``answer`` holds, or the error that it is."""
    return _read(answer, _codec().decode_case)


def read_deleted(answer: Answer) -> None:
    """Nothing, unless ``answer`` is an error."""
    if not 200 <= answer.status < 300:
        raise _error(answer)


class _Codec(Protocol):
    """The module ``envelope``."""

    def encode_new_link(self, new: NewCaseLink) -> bytes: ...

    def decode_link(self, body: bytes) -> CaseLink: ...

    def decode_links(self, body: bytes) -> list[CaseLink]: ...

    def decode_case(self, body: bytes) -> Case: ...


@functools.cache
def _codec() -> _Codec:
    # With the first link and not before: cattrs takes as long to import as a tenth of aiohttp.
    from datadog_caselinks.http import envelope

    return envelope


T = TypeVar("T")


def _read(answer: Answer, decode: Callable[[bytes], T]) -> T:
    if not 200 <= answer.status < 300:
        raise _error(answer)
    if not answer.complete:
        raise _malformed(answer, "longer than this client reads", ResponseTooLargeError)
    try:
        return decode(answer.body)
    except ValueError as error:
        reason = str(error)
    raise _malformed(answer, reason)


def _malformed(
    answer: Answer, reason: str, kind: type[MalformedResponseError] = MalformedResponseError
) -> MalformedResponseError:
    return kind(
        f"cannot {answer.request.about}: {answer.status} with a malformed answer: {one_line(reason)}",
        body=answer.text()[:_EXCERPT],
    )


_STATUS_ERRORS: Final[dict[int, tuple[type[ResponseError], str]]] = {
    400: (errors.BadRequestError, "the request is wrong and would be refused again"),
    401: (
        errors.AuthenticationError,
        "check DD_API_KEY and DD_APP_KEY, or DD_BEARER_TOKEN, and that DD_SITE is the site they belong to",
    ),
    403: (errors.PermissionDeniedError, "give the application key or token the scope {scope}"),
    404: (errors.NotFoundError, "what it names is not on this site, or these credentials may not see it"),
    408: (ResponseError, "the server gave up waiting"),
    409: (errors.ConflictError, "it contradicts what is there: list the links of both sides"),
    422: (errors.BadRequestError, "the request is wrong and would be refused again"),
    429: (errors.RateLimitError, "wait, or ask for fewer at a time"),
}


def _error(answer: Answer) -> ResponseError:
    kind: type[ResponseError]
    if answer.status >= 500:
        kind, advice = errors.ServerError, "the fault is the server's"
    elif 300 <= answer.status < 400:
        kind, advice = ResponseError, "redirects are not followed, they would carry the keys: check the site"
    else:
        kind, advice = _STATUS_ERRORS.get(answer.status, (ResponseError, "see the answer's body"))
    told = answer.text()
    raw = _raw_errors(told)
    said = tuple(_readable(error) for error in raw)
    rate_limit = answer.rate_limit()
    waits = [retry_after(answer.headers), rate_limit.reset if rate_limit and answer.status == 429 else None]
    wait = max((wait for wait in waits if wait is not None), default=None)
    if answer.status == 429 and wait is not None:
        advice = f"the server asks for {wait:g} s; " + advice
    excerpt = told[:_EXCERPT]
    heard = one_line("; ".join(said) or _title(excerpt)).removeprefix(f"{answer.status} ")
    return kind(
        f"cannot {answer.request.about}: {answer.status}, {heard or 'no reason given'}; "
        + advice.format(scope=answer.request.scope),
        status=answer.status,
        errors=said,
        raw_errors=raw,
        retry_after=wait,
        rate_limit=rate_limit,
        body=excerpt,
    )


def _raw_errors(body: str) -> tuple[Any, ...]:
    """The members of ``errors``; none where the body is HTML, plain text, empty or otherwise odd."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return ()
    found = document.get("errors") if isinstance(document, dict) else None
    return tuple(found) if isinstance(found, list) and _is_shallow(found, _NESTED) else ()


def _is_shallow(value: object, levels: int) -> bool:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels > 0 and all(_is_shallow(part, levels - 1) for part in parts)


def _readable(error: object) -> str:
    """One error as a person reads it: a string, or of an object its title and detail, or its code."""
    if isinstance(error, dict):
        told = [str(error[key]) for key in ("title", "detail") if error.get(key)]
        return ": ".join(told) or str(error.get("code") or error)
    return str(error)


def _title(text: str) -> str:
    """What to quote of a body that is no JSON:API: the title of an HTML page, or its beginning."""
    title = _TITLE.search(text)
    return title[1] if title else text
