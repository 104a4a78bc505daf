"""The API of cases, links and incidents: routing, authentication, operations. Independent of the HTTP server.

Source of the operations and statuses: Datadog's API reference and its clients' recorded traffic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from typing import Final, Literal, TypeVar, get_args
from urllib.parse import parse_qs

from attrs import field, frozen

from datadog_caselinks.sandbox.documents import (
    InvalidDocumentError,
    MalformedIdError,
    Search,
    is_case_name,
    is_uuid,
    read_case_search,
    read_draft,
    read_filter,
    read_incident_search,
    write_case,
    write_cases,
    write_incident,
    write_incidents,
    write_link,
    write_links,
)
from datadog_caselinks.sandbox.query import Document
from datadog_caselinks.sandbox.refusals import (
    Refusal,
    RefusedError,
    bad_request,
    invalid_parameter,
    not_found,
)
from datadog_caselinks.sandbox.store import Draft, Store, StoredCase, StoredIncident, StoredLink
from datadog_caselinks.sandbox.variant import IncidentSearch, Variant
from datadog_caselinks.values.credentials import ApiKeys, BearerToken

T = TypeVar("T")

Operation = Literal["create", "list", "delete", "get", "search_cases", "get_incident", "search_incidents"]
OPERATIONS: Final[tuple[Operation, ...]] = get_args(Operation)

# Public on purpose: these credentials work only with the sandbox.
_API_KEY: Final = "sandbox-api-key"
_APP_KEY: Final = "sandbox-app-key"
_APP_KEY_WITHOUT_SCOPE: Final = "sandbox-read-only-app-key"
_APP_KEY_WITHOUT_INCIDENTS: Final = "sandbox-cases-only-app-key"
_TOKEN: Final = "sandbox-token"
_ACCESS_TOKEN: Final = "ddpat_sandbox-token"

CREDENTIALS: Final = ApiKeys(api_key=_API_KEY, app_key=_APP_KEY)
CREDENTIALS_WITHOUT_SCOPE: Final = ApiKeys(api_key=_API_KEY, app_key=_APP_KEY_WITHOUT_SCOPE)
CREDENTIALS_WITHOUT_INCIDENTS: Final = ApiKeys(api_key=_API_KEY, app_key=_APP_KEY_WITHOUT_INCIDENTS)
BEARER_TOKEN: Final = BearerToken(_TOKEN)
ACCESS_TOKEN: Final = BearerToken(_ACCESS_TOKEN)

JSON_API: Final = "application/vnd.api+json"
CASES: Final = "/api/v2/cases"
COLLECTION: Final = f"{CASES}/link"
_COLLECTION_METHODS: Final[dict[str, Operation]] = {"GET": "list", "POST": "create"}
_LINK_METHODS: Final[dict[str, Operation]] = {"DELETE": "delete"}
_CASE_METHODS: Final[dict[str, Operation]] = {"GET": "get"}
INCIDENTS: Final = "/api/v2/incidents"
_FIXED: Final[dict[str, dict[str, Operation]]] = {
    COLLECTION: _COLLECTION_METHODS,
    CASES: {"GET": "search_cases"},
    f"{INCIDENTS}/search": {"GET": "search_incidents"},
}
"""The methods of each path without a subject."""
_BELOW: Final[dict[str, dict[str, Operation]]] = {
    COLLECTION: _LINK_METHODS,
    CASES: _CASE_METHODS,
    INCIDENTS: {"GET": "get_incident"},
}
"""The methods of each path that is followed by a subject."""
_SCOPES: Final[dict[Operation, str]] = {
    "create": "cases_write",
    "list": "cases_read",
    "delete": "cases_write",
    "get": "cases_read",
    "search_cases": "cases_read",
    "get_incident": "incident_read",
    "search_incidents": "incident_read",
}
_ALL_SCOPES: Final = frozenset(_SCOPES.values())
_SCOPES_OF: Final = {
    _APP_KEY: _ALL_SCOPES,
    _APP_KEY_WITHOUT_SCOPE: _ALL_SCOPES - {"cases_write"},
    _APP_KEY_WITHOUT_INCIDENTS: _ALL_SCOPES - {"incident_read"},
}


@frozen
class Response:
    """A response: status, body and headers."""

    status: int
    body: bytes = b""
    content_type: str = JSON_API
    headers: Mapping[str, str] = field(factory=dict)


@frozen
class Call:
    """An authenticated request to one of the operations; its query and body are not parsed yet."""

    operation: Operation
    subject: str
    query: str
    body: bytes
    scopes: Set[str]


def route(method: str, path: str) -> tuple[Operation, str]:
    """Return the operation and its subject: an id or key, or an empty text.

    Raises:
        RefusedError: 404 for an unknown path, 405 for a wrong method.
    """
    above, _, subject = path.rpartition("/")
    if path in _FIXED:
        methods, subject = _FIXED[path], ""
    elif above in _BELOW and subject:
        methods = _BELOW[above]
    else:
        raise RefusedError(Refusal(404, "Not Found"))
    if method not in methods:
        allowed = {"Allow": ", ".join(methods)}
        raise RefusedError(Refusal(405, "Method Not Allowed", headers=allowed))
    return methods[method], subject


def authenticate(headers: Mapping[str, str]) -> Set[str]:
    """Return the scopes of the caller.

    Raises:
        RefusedError: 401 for missing or wrong credentials, or for both schemes at once.
    """
    api_key, app_key = headers.get("DD-API-KEY"), headers.get("DD-APPLICATION-KEY")
    authorization = headers.get("Authorization")
    if authorization is None:
        if app_key == _ACCESS_TOKEN:  # the API key is optional then, and not checked
            return _ALL_SCOPES
        if api_key == _API_KEY and app_key in _SCOPES_OF:
            return _SCOPES_OF[app_key]
    elif api_key is not None or app_key is not None:
        reason = "send DD-API-KEY and DD-APPLICATION-KEY or Authorization, not both"
        raise RefusedError(Refusal(401, "Unauthorized", (reason,)))
    elif authorization in (f"Bearer {_TOKEN}", f"Bearer {_ACCESS_TOKEN}"):
        return _ALL_SCOPES
    raise RefusedError(Refusal(401, "Unauthorized"))


def perform(call: Call, store: Store, variant: Variant, now: float) -> Response:
    """Check the call, apply it and return the response; ``now`` is in seconds since the epoch.

    Raises:
        RefusedError: The request is refused.
    """
    if (scope := _SCOPES[call.operation]) not in call.scopes:
        reason = f"the application key lacks the scope {scope}"
        raise RefusedError(Refusal(403, "Forbidden", (reason,)))
    try:
        return _OPERATIONS[call.operation](call, store, variant, now)
    except InvalidDocumentError as error:
        if isinstance(error, MalformedIdError) and variant.malformed_ids == "not-found":
            raise not_found("case") from None
        raise bad_request(*error.details) from None


def _create_link(call: Call, store: Store, variant: Variant, now: float) -> Response:
    return Response(201, write_link(_create(read_draft(call.body), store, variant, now)))


def _list_links(call: Call, store: Store, variant: Variant, now: float) -> Response:
    filters = read_filter(parse_qs(call.query, keep_blank_values=True))
    _require_case(filters.entity_type, filters.entity_id, store, variant)
    # Without a lag, times are not compared: a clock that was set back would hide links.
    until = now - variant.list_lag if variant.list_lag else None
    links = store.around(filters.entity_type, filters.entity_id, filters.relationship, until=until)
    return Response(200, write_links(links))


def _delete_link(call: Call, store: Store, variant: Variant, _: float) -> Response:
    if variant.malformed_ids == "bad-request" and not is_uuid(call.subject):
        raise invalid_parameter("link_id", "must be a UUID")
    if store.remove(call.subject.lower()):
        return Response(204)
    raise not_found("link")


def _get_case(call: Call, store: Store, variant: Variant, _: float) -> Response:
    if variant.malformed_ids == "bad-request" and not is_case_name(call.subject):
        raise invalid_parameter("case_id", "must be a UUID or a key")
    if found := store.case(call.subject):
        return Response(200, write_case(found))
    raise not_found("case")


def _search_cases(call: Call, store: Store, _: Variant, __: float) -> Response:
    search = read_case_search(parse_qs(call.query, keep_blank_values=True))
    found = [case for case in store.cases() if search.query(_case_document(case))]
    if search.sort != "created_at":
        found.sort(key=lambda case: str(getattr(case, search.sort)), reverse=not search.is_ascending)
    elif search.is_ascending:
        found.reverse()
    return Response(200, write_cases(_page(found, search), search, len(found)))


def _get_incident(call: Call, store: Store, variant: Variant, _: float) -> Response:
    if variant.malformed_ids == "bad-request" and not is_uuid(call.subject):
        raise invalid_parameter("incident_id", "must be a UUID")
    if found := store.incident(call.subject):
        return Response(200, write_incident(found), "application/json")
    raise not_found("incident")


def _search_incidents(call: Call, store: Store, variant: Variant, _: float) -> Response:
    search = read_incident_search(parse_qs(call.query, keep_blank_values=True))
    how = variant.incident_search
    found = [
        incident
        for incident in store.incidents()
        if how == "all" or search.query(_incident_document(incident, how))
    ]
    if search.is_ascending:
        found.reverse()
    body = write_incidents(_page(found, search), search, len(found))
    return Response(200, body, "application/json")


def _page(found: Sequence[T], search: Search) -> Sequence[T]:
    return found[search.start : search.start + search.size]


def _case_document(case: StoredCase) -> Document:
    # As others report of the real API, "key:" finds nothing.
    return Document({"status": case.status.lower(), "priority": case.priority.lower()}, case.title.lower())


def _incident_document(incident: StoredIncident, how: IncidentSearch) -> Document:
    numbers = {"slug": incident.slug.lower(), "public-id": str(incident.number)}
    fields = {"state": incident.state.lower()}
    if how in numbers:
        fields[how.replace("-", "_")] = numbers[how]
    text = incident.title.lower()
    return Document(fields, f"{text} {incident.slug.lower()}" if how == "text" else text)


_OPERATIONS: Final[dict[Operation, Callable[[Call, Store, Variant, float], Response]]] = {
    "create": _create_link,
    "list": _list_links,
    "delete": _delete_link,
    "get": _get_case,
    "search_cases": _search_cases,
    "get_incident": _get_incident,
    "search_incidents": _search_incidents,
}


def _create(draft: Draft, store: Store, variant: Variant, now: float) -> StoredLink:
    _require_case(draft.parent_entity_type, draft.parent_entity_id, store, variant)
    _require_case(draft.child_entity_type, draft.child_entity_id, store, variant)
    if variant.duplicates != "allow" and store.has(draft):
        reason = "an equal link exists"
        if variant.duplicates == "conflict":
            raise RefusedError(Refusal(409, "Conflict", (reason,)))
        raise bad_request(reason)
    return store.add(draft, now)


def _require_case(entity_type: str, entity_id: str, store: Store, variant: Variant) -> None:
    is_strict = variant.unknown_cases == "not-found"
    if is_strict and entity_type == "CASE" and not store.case(entity_id):
        raise not_found("case")
