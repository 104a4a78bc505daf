"""The API's requests and responses as values: models in, models or errors out. Sends nothing.

HTTP does not name the request that a response belongs to. A proxy that responds twice to one request leaves
the connection one response behind, and each later request gets the response to the one before. So each
response is compared with its request, and a connection on which this may have happened is closed.

Facts of the API: https://docs.datadoghq.com/api/latest/case-management/
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Any, Final, NamedTuple, TypeVar, TypeVarTuple
from urllib.parse import quote, urlencode
from uuid import UUID

from aiohttp import Payload
from attrs import define, evolve, field

from datadog_caselinks.http import envelope
from datadog_caselinks.http.headers import Headers, read_rate_limit, request_id, retry_after
from datadog_caselinks.isolation import log
from datadog_caselinks.values.errors import (
    AuthenticationError,
    BadRequestError,
    ConflictError,
    InvalidLinkError,
    MalformedResponseError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ResponseError,
    ResponseTooLargeError,
    ServerError,
    may_be_at_work,
)
from datadog_caselinks.values.messages import counted, one_line, quoted
from datadog_caselinks.values.models import (
    Case,
    CaseLink,
    Entity,
    Incident,
    NewCaseLink,
    Relationship,
    dash_hint,
    is_case_key,
    is_uuid,
    require_known_relationship,
)
from datadog_caselinks.values.rate_limit import RateLimit, where_to_raise

_logger = logging.getLogger("datadog_caselinks.wire")

_CASES_PATH: Final = "/api/v2/cases"
_INCIDENTS_PATH: Final = "/api/v2/incidents"
LINKS_PATH: Final = f"{_CASES_PATH}/link"

MAX_LIST: Final = 16 * 2**20
"""The maximum number of bytes that are read of a list: room for about 40,000 links."""

MAX_BODY: Final = 2**20
"""The maximum number of bytes that are read of a case or incident."""

MAX_SHORT: Final = 2**16
"""The maximum number of bytes that are read of the response to a create or delete: one link or an error.

The client reads as many such responses at once as it may have requests in flight.
"""

_TITLE: Final = re.compile(r"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)

_EXCERPT: Final = 1000
"""The maximum number of characters of a body that an error keeps."""

_MAX_SEARCHED: Final = 2**18
"""The maximum number of bytes of a body in which an error looks for the server's reasons."""

_LONGEST_SECRET: Final = 6 * 2**13
"""The maximum length of a secret in characters: servers accept headers of 8 KiB, and an escaped secret is six
times as long."""

_ENCODINGS: Final = frozenset({"identity", "gzip", "deflate", "br", "zstd"})
"""The content encodings that aiohttp decodes, each where its package is installed. It ignores any other."""

_MAX_DEPTH: Final = 20
"""The maximum depth of ``errors``. Python can read deeper ones, but neither print nor pickle them."""

_MAX_HEADERS: Final = 100
"""The maximum number of headers that an error keeps."""

_ACTIONS: Final = {
    "create": "create {}",
    "list": "list the links of {}",
    "delete": "delete link {}",
    "get": "get case {}",
    "search_cases": "search cases for {}",
    "get_incident": "get incident {}",
    "search_incidents": "find incident {}",
}
_SCOPES: Final = {
    "create": "cases_write",
    "list": "cases_read",
    "delete": "cases_write",
    "get": "cases_read",
    "search_cases": "cases_read",
    "get_incident": "incident_read",
    "search_incidents": "incident_read",
}

PAGE_SIZE: Final = 100
"""The maximum number of members of a page that the API allows."""


class Request(NamedTuple):
    """A request.

    ``operation``
        A key of ``_ACTIONS``. The server may have a rate limit for each operation.
    ``target``
        The path and query.
    ``subject``
        The case, incident, link or query of the request, for messages and to check the response.
    ``max_body``
        The maximum number of bytes that are read of the response. A hostile response takes sixty times as
        much memory once it is decoded.
    ``extend``
        Called when the response is longer. It returns the new limit.
    """

    operation: str
    method: str
    target: str
    body: bytes | Payload | None
    subject: object
    max_body: int = MAX_BODY
    extend: Callable[[], Awaitable[int]] | None = None

    @property
    def action(self) -> str:
        """The action that the request performs, for the messages of errors."""
        return _ACTIONS[self.operation].format(self.subject)

    @property
    def scope(self) -> str:
        """The OAuth scope that it needs."""
        return _SCOPES[self.operation]


class CaseSearch(NamedTuple):
    """The subject of a request for one page of a search."""

    query: str
    page: int

    def __str__(self) -> str:
        return quoted(self.query)


def _unchanged(text: str) -> str:
    return text


def _nothing() -> None:
    """Do nothing."""


@define(eq=False)
class Response:
    """The response to ``request``.

    ``redact`` removes the keys from a text. ``is_complete`` is false if the body was longer than what was
    read of it; ``was_resent`` is true if aiohttp sent the request twice because a pooled connection dropped.
    ``disconnect`` closes the connection, from any thread.

    Headers and body may echo the keys, and error trackers store local variables: some also the items of each
    sequence and the fields in a ``repr``. Therefore a response is neither a tuple, nor shows these fields.
    """

    request: Request
    status: int
    headers: Headers = field(repr=False)
    body: bytes = field(repr=False)
    redact: Callable[[str], str] = field(default=_unchanged, repr=False)
    is_complete: bool = True
    was_resent: bool = False
    disconnect: Callable[[], object] = _nothing

    def rate_limit(self) -> RateLimit | None:
        """Return what its headers say of the rate limit."""
        limit = read_rate_limit(self.headers)
        if limit and limit.name and (name := self.redact(limit.name)) != limit.name:
            return evolve(limit, name=name)
        return limit

    def text(self) -> str:
        """Return the beginning of the body, redacted: enough to find out what is wrong."""
        beginning = self.body[:_MAX_SEARCHED]
        text = self.redact(beginning.decode(json.detect_encoding(beginning), "replace"))
        is_cut = len(beginning) < len(self.body) or not self.is_complete
        return text[:-_LONGEST_SECRET] if is_cut else text  # half a secret may be left at the end


def create_request(new: NewCaseLink) -> Request:
    """Return ``POST /api/v2/cases/link``. Raises :class:`InvalidLinkError` if ``new`` is anything else."""
    if not isinstance(new, NewCaseLink):
        raise InvalidLinkError(
            f"a link to create must be a NewCaseLink such as case(a).blocks(case(b)), not {quoted(new)}"
        )
    return Request("create", "POST", LINKS_PATH, envelope.encode_new_link(new), new, MAX_SHORT)


def list_request(entity: Entity, relationship: Relationship | None) -> Request:
    """Return ``GET /api/v2/cases/link`` for the links of ``entity``, of one relationship or of all."""
    if not isinstance(entity, Entity):
        raise InvalidLinkError(f"entity must be an Entity such as case(…), not {quoted(entity)}")
    entity.require_known()
    query = {"entity_type": entity.type, "entity_id": entity.id}
    if relationship is not None:
        query["relationship"] = require_known_relationship(relationship)
    target = f"{LINKS_PATH}?{urlencode(query)}"
    return Request("list", "GET", target, None, entity, MAX_LIST)


def delete_request(link_id: str) -> Request:
    """Return ``DELETE /api/v2/cases/link/{link_id}``. Raises :class:`InvalidLinkError` if it is not an id."""
    # A path of "." or ".." would be resolved away and name another resource.
    if not isinstance(link_id, str) or link_id.strip(".") == "" or not link_id.isprintable():
        raise InvalidLinkError(f"{quoted(link_id)} is not the id of a link")
    target = f"{LINKS_PATH}/{quote(link_id, safe='')}"
    return Request("delete", "DELETE", target, None, link_id, MAX_SHORT)


def case_request(key_or_id: str | UUID) -> Request:
    """Return ``GET /api/v2/cases/{key_or_id}``. Raises :class:`InvalidLinkError` if it is neither."""
    name = str(key_or_id)
    if not (is_case_key(name) or is_uuid(name)):
        hint = dash_hint(name)
        raise InvalidLinkError(f"{quoted(key_or_id)} is neither the key of a case nor a UUID{hint}")
    return Request("get", "GET", f"{_CASES_PATH}/{name}", None, name)


def case_search_request(query: str, page: int) -> Request:
    """Return ``GET /api/v2/cases`` for one page of a search, newest first. Pages count from 1."""
    parameters = {
        **({"filter": query} if query else {}),
        "page[size]": PAGE_SIZE,
        "page[number]": page,
        "sort[field]": "created_at",
        "sort[asc]": "false",
    }
    target = f"{_CASES_PATH}?{urlencode(parameters)}"
    return Request("search_cases", "GET", target, None, CaseSearch(query, page), MAX_LIST)


def incident_request(incident_id: str) -> Request:
    """Return ``GET /api/v2/incidents/{incident_id}``, which is documented for UUIDs only."""
    return Request("get_incident", "GET", f"{_INCIDENTS_PATH}/{incident_id}", None, incident_id)


def incident_search_request(subject: str, query: str, offset: int) -> Request:
    """Return ``GET /api/v2/incidents/search``, newest first. ``subject`` says what is searched for."""
    parameters = {"query": query, "sort": "-created", "page[size]": PAGE_SIZE, "page[offset]": offset}
    target = f"{_INCIDENTS_PATH}/search?{urlencode(parameters)}"
    return Request("search_incidents", "GET", target, None, subject, MAX_LIST)


def read_link(response: Response) -> CaseLink:
    """Return the link in ``response``, or raise the error that it reports."""
    new = response.request.subject
    assert isinstance(new, NewCaseLink)
    return _read(response, envelope.decode_link, new)


def read_links(response: Response) -> list[CaseLink]:
    """Return the links in ``response``, or raise the error that it reports.

    A member that is not a link is skipped, and logged: one flawed member says nothing about the others.
    """
    return read_members(response).members


def read_members(response: Response) -> envelope.Members[CaseLink]:
    """Return the links in ``response`` and the number of members that are not links; see ``read_links``."""
    decoded, entity = _read(response, envelope.decode_links), response.request.subject
    if decoded.skipped:
        _log_skipped(f"the list of the links of {entity}", "links", decoded)
    assert isinstance(entity, Entity)
    if not _is_about(entity, decoded.members):
        del decoded  # it may echo the keys, and tracebacks show local variables
        raise _malformed(response, "it is about another entity")
    return decoded


def _log_skipped(where: str, kind: str, decoded: envelope.Members[Any]) -> None:
    log(
        _logger,
        logging.WARNING,
        "%s has %s that cannot be read as %s, which are left out: %s",
        *(where, counted(decoded.skipped, "member"), kind, one_line(decoded.first_flaw)),
        extra={"skipped": decoded.skipped},
    )


def _is_about(entity: Entity, links: list[CaseLink]) -> bool:
    return not links or any(entity in (link.parent, link.child) for link in links)


def read_case(response: Response) -> Case:
    """Return the case in ``response``, or raise the error that it reports.

    The key of the case may be another one than requested; see :func:`has_requested_key`.
    """
    case, name = _read(response, envelope.decode_case), str(response.request.subject)
    if is_uuid(name) and case.id.lower() != name.lower():
        del case  # it may echo the keys, and tracebacks show local variables
        raise _malformed(response, "it is about another case")
    if not has_requested_key(case, response.request):
        response.disconnect()
    return case


def has_requested_key(case: Case, request: Request) -> bool:
    """Return whether ``case`` has the key that ``request`` names.

    If it does not, its project may have been renamed, or the response may belong to another request; one
    without a key may be about any case. The result is true if the request names a UUID.
    """
    name = str(request.subject)
    return is_uuid(name) or case.key.upper() == name.upper()


def read_cases(response: Response) -> envelope.CasePage:
    """Return one page of the cases that a search found, or raise the error that ``response`` reports.

    A member that is not a case is skipped, and logged.
    """
    page, search = _read(response, envelope.decode_cases), response.request.subject
    if page.cases.skipped:
        _log_skipped(f"a page of the search for {search}", "cases", page.cases)
    assert isinstance(search, CaseSearch)
    if page.number not in (None, search.page):
        del page  # as above
        raise _malformed(response, "it is another page of the search")
    return page


def read_incident(response: Response) -> Incident:
    """Return the incident in ``response``, or raise the error that it reports."""
    incident, wanted = _read(response, envelope.decode_incident), str(response.request.subject)
    if incident.id.lower() != wanted.lower():
        del incident  # as above
        raise _malformed(response, "it is about another incident")
    return incident


def read_incidents(response: Response) -> envelope.IncidentPage:
    """Return one page of the incidents that a search found, or raise the error that ``response`` reports.

    A member that is not an incident is skipped, and logged.
    """
    page = _read(response, envelope.decode_incidents)
    if page.incidents.skipped:
        _log_skipped(
            f"a page of the search for incident {response.request.subject}", "incidents", page.incidents
        )
    return page


def read_deleted(response: Response) -> None:
    """Return nothing, or raise the error that ``response`` reports."""
    if not 200 <= response.status < 300:
        raise _error(response)
    if response.body and envelope.decode_id(response.body) not in (None, response.request.subject):
        raise _malformed(response, "it is about something else")


T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def _read(response: Response, decode: Callable[[bytes, *Ts], T], *wanted: *Ts) -> T:
    if not 200 <= response.status < 300:
        raise _error(response)
    if not response.is_complete:
        raise _malformed(response, "longer than the client reads", ResponseTooLargeError)
    if envelope.has_too_many_values(response.body):
        reason = f"more than the {envelope.MAX_VALUES:,} values that the client reads"
        raise _malformed(response, reason, ResponseTooLargeError)
    try:
        return decode(response.body, *wanted)
    except ValueError as error:
        reason = str(error)
    raise _malformed(response, _unknown_encoding(response) or reason)


def _malformed(
    response: Response, reason: str, kind: type[MalformedResponseError] = MalformedResponseError
) -> MalformedResponseError:
    response.disconnect()
    return kind(
        f"cannot {response.request.action}: {response.status} with a malformed response: {one_line(reason)}",
        body=response.text()[:_EXCERPT],
    )


_STATUS_ERRORS: Final[dict[int, tuple[type[ResponseError], str]]] = {
    400: (BadRequestError, "The request is invalid, and would be refused again."),
    401: (
        AuthenticationError,
        "Check DD_API_KEY and DD_APP_KEY, or DD_BEARER_TOKEN, and that DD_SITE is the site they belong to.",
    ),
    403: (
        PermissionDeniedError,
        "The application key or token may lack the scope {scope}, or access to the project or incident.",
    ),
    404: (NotFoundError, "It does not exist on this site, or these credentials cannot access it."),
    408: (ResponseError, "The server gave up waiting for the request."),
    409: (ConflictError, "An equal link may exist: list the links of either end."),
    422: (BadRequestError, "The request is invalid, and would be refused again."),
    429: (RateLimitError, "Wait, or send fewer requests at a time."),
}


def _error(response: Response) -> ResponseError:
    kind: type[ResponseError]
    if response.status >= 500:
        kind, advice = ServerError, "The server or a gateway failed."
    elif 300 <= response.status < 400:
        kind, advice = (
            ResponseError,
            "Redirects are not followed, since they would carry the keys: check the site.",
        )
    else:
        kind, advice = _STATUS_ERRORS.get(response.status, (ResponseError, "See the body of the response."))
    text = response.text()
    raw = _raw_errors(text)
    reported = tuple(_readable(error) for error in raw)
    rate_limit = response.rate_limit()
    waits = [retry_after(response.headers)]
    if rate_limit and response.status == 429:
        waits.append(rate_limit.reset)
    wait = max((wait for wait in waits if wait is not None), default=None)
    if response.status == 429 and wait is not None:
        advice = f"The server asks to wait {wait:g} s. {advice}"
    advice = advice.format(scope=response.request.scope)
    where = where_to_raise(rate_limit) if response.status == 429 else ""
    if response.status == 404 and response.request.operation == "create":
        advice = "One of its ends does not exist on this site, or these credentials cannot access it."
    if response.status == 404 and _names_a_key(response.request):
        where = " A case that moved to another project has another key"
    excerpt = text[:_EXCERPT]
    reason = one_line("; ".join(reported) or _unknown_encoding(response) or _title(excerpt)).removeprefix(
        f"{response.status} "
    )
    error = kind(
        f"cannot {response.request.action}: {response.status} {reason.rstrip('.') or 'without a reason'}. "
        + f"{advice}{where}".rstrip("."),  # a longer message may quote this one
        status=response.status,
        errors=reported,
        raw_errors=raw,
        retry_after=wait,
        rate_limit=rate_limit,
        headers=_redacted_headers(response),
        request_id=_redacted(request_id(response.headers), response.redact),
        body=excerpt,
    )
    if error.may_have_been_applied and may_be_at_work(error):
        response.disconnect()  # the response of the server behind the gateway may still arrive on it
    return error


def _names_a_key(request: Request) -> bool:
    return request.operation == "get" and not is_uuid(str(request.subject))


def _unknown_encoding(response: Response) -> str:
    """Return a message if the content encoding of the body is unknown, otherwise an empty text."""
    encoding = ", ".join(response.headers.getall("Content-Encoding", []))
    is_known = not encoding or encoding.lower() in _ENCODINGS
    return "" if is_known else f"the content encoding {quoted(response.redact(encoding))} is unknown"


def _redacted_headers(response: Response) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in islice(response.headers.items(), _MAX_HEADERS):
        name, value = response.redact(name), response.redact(value)
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _redacted(text: str | None, redact: Callable[[str], str]) -> str | None:
    return None if text is None else redact(text)


def _raw_errors(body: str) -> tuple[Any, ...]:
    """Return the members of ``errors``; none if the body is HTML, plain text, empty or something else."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return ()
    found = document.get("errors") if isinstance(document, dict) else None
    return tuple(found) if isinstance(found, list) and _is_shallow(found, _MAX_DEPTH) else ()


def _is_shallow(value: object, levels: int) -> bool:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels > 0 and all(_is_shallow(part, levels - 1) for part in parts)


def _readable(error: object) -> str:
    """Return one error for people: a string, or the title and detail of an object, or its code."""
    if not isinstance(error, dict):
        return str(error)
    parts = [str(error[key]) for key in ("title", "detail") if error.get(key)]
    if len(parts) > 1 and parts[0] == "Generic Error":  # says nothing that the detail does not
        parts.pop(0)
    text = ": ".join(parts) or str(error.get("code") or error)
    source = error.get("source")
    where = source.get("parameter") or source.get("pointer") if isinstance(source, dict) else None
    return f"{text} ({where})" if isinstance(where, str) and where not in text else text


def _title(text: str) -> str:
    """Return what to quote of a body that is not JSON:API: the title of an HTML page, or its beginning."""
    title = _TITLE.search(text)
    return title[1] if title else text
