"""The API of cases and links: which operation, whose credentials, what answer. Knows no HTTP, no faults.

Source of the operations, statuses and forms of errors: Datadog's API reference and its clients'
recorded traffic.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, get_args
from urllib.parse import parse_qs

from attrs import field, frozen

from datadog_caselinks.credentials import ApiKeys, BearerToken
from datadog_caselinks.sandbox.documents import (
    InvalidDocumentError,
    read_draft,
    read_filter,
    write_case,
    write_json,
    write_link,
    write_links,
)
from datadog_caselinks.sandbox.store import Store

Operation = Literal["create", "list", "delete", "get"]
OPERATIONS: Final[tuple[Operation, ...]] = get_args(Operation)

# Well-known and worth nothing: they open this sandbox alone.
_API_KEY: Final = "sandbox-api-key"
_APP_KEY: Final = "sandbox-app-key"
_APP_KEY_WITHOUT_SCOPE: Final = "sandbox-read-only-app-key"
_TOKEN: Final = "sandbox-token"

CREDENTIALS: Final = ApiKeys(api_key=_API_KEY, app_key=_APP_KEY)
CREDENTIALS_WITHOUT_SCOPE: Final = ApiKeys(api_key=_API_KEY, app_key=_APP_KEY_WITHOUT_SCOPE)
BEARER_TOKEN: Final = BearerToken(_TOKEN)

_JSON_API: Final = "application/vnd.api+json"
_CASES: Final = "/api/v2/cases"
_COLLECTION: Final = f"{_CASES}/link"
_COLLECTION_METHODS: Final[dict[str, Operation]] = {"GET": "list", "POST": "create"}
_LINK_METHODS: Final[dict[str, Operation]] = {"DELETE": "delete"}
_CASE_METHODS: Final[dict[str, Operation]] = {"GET": "get"}
_WRITING: Final = frozenset({"create", "delete"})


@frozen
class Answer:
    """A status, a body and the headers that tell of it."""

    status: int
    body: bytes = b""
    content_type: str = _JSON_API
    headers: Mapping[str, str] = field(factory=dict)


class RefusedError(Exception):
    """The request goes no further; ``answer`` is what it gets."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


@frozen
class Call:
    """One request to one of the operations, with what is left to read of it."""

    operation: Operation
    subject: str
    query: str
    body: bytes
    may_write: bool


def route(method: str, path: str) -> tuple[Operation, str]:
    """The operation, and what the path names: the id of a link, the id or key of a case, or nothing.

    Raises :class:`RefusedError` with 404 for an unknown path and 405 for a wrong method.
    """
    above, _, subject = path.rpartition("/")
    if path == _COLLECTION:
        methods, subject = _COLLECTION_METHODS, ""
    elif above in (_COLLECTION, _CASES) and subject:
        methods = _LINK_METHODS if above == _COLLECTION else _CASE_METHODS
    else:
        raise RefusedError(errors(404, "Not Found"))
    if method not in methods:
        raise RefusedError(errors(405, "Method Not Allowed", headers={"Allow": ", ".join(methods)}))
    return methods[method], subject


def authenticate(headers: Mapping[str, str]) -> bool:
    """Whether the caller may write as well as read.

    Raises :class:`RefusedError` with 401, or with 400 if both schemes are used at once.
    """
    api_key, app_key = headers.get("DD-API-KEY"), headers.get("DD-APPLICATION-KEY")
    authorization = headers.get("Authorization")
    if authorization is None:
        if api_key == _API_KEY and app_key in (_APP_KEY, _APP_KEY_WITHOUT_SCOPE):
            return app_key == _APP_KEY
    elif api_key is not None or app_key is not None:
        raise RefusedError(bad_request("send DD-API-KEY and DD-APPLICATION-KEY or Authorization, not both"))
    elif authorization == f"Bearer {_TOKEN}":
        return True
    raise RefusedError(errors(401, "Unauthorized"))


def perform(call: Call, store: Store, now: float) -> Answer:
    """Check the call, apply it and answer; ``now`` is in seconds since the epoch."""
    if call.operation in _WRITING and not call.may_write:
        return errors(403, "Forbidden", "the application key lacks the scope cases_write")
    try:
        if call.operation == "create":
            return Answer(201, write_link(store.add(read_draft(call.body), now)))
        if call.operation == "list":
            wanted = read_filter(parse_qs(call.query, keep_blank_values=True))
            links = store.around(wanted.entity_type, wanted.entity_id, wanted.relationship)
            return Answer(200, write_links(links))
    except InvalidDocumentError as error:
        return bad_request(*error.details)
    if call.operation == "get":
        found = store.case(call.subject)
        return Answer(200, write_case(found)) if found else _not_found("case")
    return Answer(204) if store.remove(call.subject.lower()) else _not_found("link")


def errors(status: int, *texts: str, headers: Mapping[str, str] | None = None) -> Answer:
    """An answer with errors in the form that the API reference documents: plain strings."""
    return Answer(status, write_json({"errors": texts}), headers=headers or {})


def _not_found(kind: str) -> Answer:
    return Answer(404, write_json({"errors": [{"code": "resource_not_found", "title": f"{kind} not found"}]}))


def bad_request(*details: str) -> Answer:
    """A 400 in the form recorded on the case endpoints: one object for each reason."""
    return Answer(
        400,
        write_json(
            {"errors": [{"status": "400", "title": "Bad Request", "detail": detail} for detail in details]}
        ),
    )
