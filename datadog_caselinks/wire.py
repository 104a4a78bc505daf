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

_EXCERPT: Final = 1000
"""Characters of a body that an error keeps."""


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
    def scope(self) -> str:
        """The OAuth scope that it needs."""
        return "cases_read" if self.operation in _READING else "cases_write"


class Answer(NamedTuple):
    """What came back.

    ``redact`` takes what is secret out of what an error is to keep of the body;
    ``complete`` is false where the body was longer than what was read of it; ``resent`` is true where the
    request went out twice, since a pooled connection dropped.
    """

    request: Request
    status: int
    headers: Headers
    body: bytes
    redact: Callable[[bytes], bytes] = bytes
    complete: bool = True
    resent: bool = False

    def __repr__(self) -> str:
        # Where local variables are stored: headers and body may echo what was sent, and be large.
        return f"Answer({self.request!r}, {self.status})"


def create_request(new: NewCaseLink) -> Request:
    """``POST /api/v2/cases/link``. Raises :class:`InvalidLinkError` for what is no :class:`NewCaseLink`."""
    if not isinstance(new, NewCaseLink):
        raise InvalidLinkError(
            f"only a NewCaseLink can be created, such as case(a).blocks(case(b)), not {new!r:.100}"
        )
    return Request("create", "POST", LINKS_PATH, _codec().encode_new_link(new), new)


def list_request(entity: Entity, relationship: Relationship | None) -> Request:
    """``GET /api/v2/cases/link`` for the links at ``entity``, of one relationship or of all."""
    if not isinstance(entity, Entity):
        raise InvalidLinkError(f"links are listed of an Entity such as case(…), not of {entity!r:.100}")
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
        raise InvalidLinkError(f"{link_id!r} is no id of a link")
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
    from datadog_caselinks import envelope

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
        body=_text(answer.redact(answer.body)),
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
    429: (errors.RateLimitedError, "wait, or ask for fewer at a time"),
}


def _error(answer: Answer) -> ResponseError:
    kind: type[ResponseError]
    if answer.status >= 500:
        kind, advice = errors.ServerError, "the fault is the server's"
    elif 300 <= answer.status < 400:
        kind, advice = ResponseError, "redirects are not followed, they would carry the keys: check the site"
    else:
        kind, advice = _STATUS_ERRORS.get(answer.status, (ResponseError, "see the answer's body"))
    told = answer.redact(answer.body)
    raw = _raw_errors(told)
    said = tuple(_readable(error) for error in raw)
    body = _text(told)
    rate_limit = RateLimit.from_headers(answer.headers)
    waits = [retry_after(answer.headers), rate_limit.reset if rate_limit and answer.status == 429 else None]
    wait = max((wait for wait in waits if wait is not None), default=None)
    if answer.status == 429 and wait is not None:
        advice = f"the server asks for {wait:g} s; " + advice
    heard = one_line("; ".join(said) or _title(body)).removeprefix(f"{answer.status} ") or "no reason given"
    return kind(
        f"cannot {answer.request.about}: {answer.status}, {heard}; "
        + advice.format(scope=answer.request.scope),
        status=answer.status,
        errors=said,
        raw_errors=raw,
        retry_after=wait,
        rate_limit=rate_limit,
        body=body,
    )


def _raw_errors(body: bytes) -> tuple[Any, ...]:
    """The members of ``errors``; none where the body is HTML, plain text, empty or otherwise odd."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return ()
    found = document.get("errors") if isinstance(document, dict) else None
    return tuple(found) if isinstance(found, list) else ()


def _readable(error: object) -> str:
    """One error as a person reads it: a string, or of an object its title and detail, or its code."""
    if isinstance(error, dict):
        told = [str(error[key]) for key in ("title", "detail") if error.get(key)]
        return ": ".join(told) or str(error.get("code") or error)
    return str(error)


def _text(body: bytes) -> str:
    return body[: 4 * _EXCERPT].decode("utf-8", "replace")[:_EXCERPT]  # a character has 4 bytes at most


def _title(text: str) -> str:
    """What to quote of a body that is no JSON:API: the title of an HTML page, or its beginning."""
    title = re.search(r"<title[^>]*>(.*?)</title", text, re.IGNORECASE | re.DOTALL)
    return title[1] if title else text
