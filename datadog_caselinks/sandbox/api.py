"""The case-link API: which operation, whose credentials, what answer. Knows no HTTP server and no faults.

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
    write_json,
    write_link,
    write_links,
)
from datadog_caselinks.sandbox.store import Store

Operation = Literal["create", "list", "delete"]
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
_COLLECTION: Final = "/api/v2/cases/link"
_COLLECTION_METHODS: Final[dict[str, Operation]] = {"GET": "list", "POST": "create"}
_LINK_METHODS: Final[dict[str, Operation]] = {"DELETE": "delete"}


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
    link_id: str
    query: str
    body: bytes
    may_write: bool


def route(method: str, path: str) -> tuple[Operation, str]:
    """The operation, and the id of the link that it is about if there is one in the path.

    Raises :class:`RefusedError` with 404 for an unknown path and 405 for a wrong method.
    """
    if path == _COLLECTION:
        methods, link_id = _COLLECTION_METHODS, ""
    else:
        parent, _, link_id = path.rpartition("/")
        if parent != _COLLECTION or not link_id:
            raise RefusedError(errors(404, "Not Found"))
        methods = _LINK_METHODS
    if method not in methods:
        raise RefusedError(errors(405, "Method Not Allowed", headers={"Allow": ", ".join(methods)}))
    return methods[method], link_id


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
    if call.operation != "list" and not call.may_write:
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
    if store.remove(call.link_id.lower()):
        return Answer(204)
    return Answer(404, write_json({"errors": [{"code": "resource_not_found", "title": "link not found"}]}))


def errors(status: int, *texts: str, headers: Mapping[str, str] | None = None) -> Answer:
    """An answer with errors in the form that the API reference documents: plain strings."""
    return Answer(status, write_json({"errors": texts}), headers=headers or {})


def bad_request(*details: str) -> Answer:
    """A 400 in the form recorded on the case endpoints: one object for each reason."""
    return Answer(
        400,
        write_json(
            {"errors": [{"status": "400", "title": "Bad Request", "detail": detail} for detail in details]}
        ),
    )
