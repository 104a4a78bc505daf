"""Parsing and encoding of JSON:API documents and query parameters, as pure functions.

The code follows the API reference and shares nothing with ``http/envelope.py``, so that a mistake in either
one shows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from attrs import frozen

from datadog_caselinks.sandbox.query import InvalidQueryError, Query, parse_query
from datadog_caselinks.sandbox.store import Draft, StoredCase, StoredIncident, StoredLink

ENTITY_TYPES: Final = ("CASE", "INCIDENT", "PAGE", "AGENT_CONVERSATION")
RELATIONSHIPS: Final = (
    "RELATES_TO",
    "CAUSES",
    "BLOCKS",
    "DUPLICATES",
    "PARENT_OF",
    "SUCCESSOR_OF",
    "ESCALATES_TO",
)
ATTRIBUTES: Final = (
    "parent_entity_type",
    "parent_entity_id",
    "relationship",
    "child_entity_type",
    "child_entity_id",
)

SORT_FIELDS: Final = ("created_at", "priority", "status")
INCIDENT_SORTS: Final = ("created", "-created")
MAX_PAGE: Final = 100
MAX_NUMBER: Final = 10**9

_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_CASE_KEY: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9_]*-[0-9]+")


class InvalidDocumentError(Exception):
    """An invalid document; ``details`` holds the reasons, one sentence each."""

    def __init__(self, *details: str) -> None:
        super().__init__(*details)
        self.details = details


class MalformedIdError(InvalidDocumentError):
    """A document in which nothing but the form of ids is invalid."""


@frozen
class Filter:
    """The filter of a list request; the id is in lower case."""

    entity_type: str
    entity_id: str
    relationship: str | None


def read_draft(body: bytes) -> Draft:
    """Parse the body of a create request.

    Raises:
        InvalidDocumentError: A member is missing or invalid; the message names each.
    """
    attributes = _read_attributes(body)
    details = {
        name: f"data.attributes.{name} {reason}"
        for name in ATTRIBUTES
        if (reason := _invalid_reason(name, attributes[name]) if name in attributes else "is missing")
    }
    if details:
        raise _invalid(details, attributes)
    parent_type, parent_id, relationship, child_type, child_id = (attributes[name] for name in ATTRIBUTES)
    draft = Draft(parent_type, parent_id.lower(), relationship, child_type, child_id.lower())
    if "CASE" not in (draft.parent_entity_type, draft.child_entity_type):
        raise InvalidDocumentError("at least one of the two entities must be a CASE")
    if (draft.parent_entity_type, draft.parent_entity_id) == (draft.child_entity_type, draft.child_entity_id):
        raise InvalidDocumentError("an entity cannot be linked to itself")
    return draft


def read_filter(query: Mapping[str, Sequence[str]]) -> Filter:
    """Parse the query of a list request; ``query`` holds the values of each parameter.

    Raises:
        InvalidDocumentError: A parameter is missing or invalid; the message names each.
    """
    details = {}
    for name, required in (("entity_type", True), ("entity_id", True), ("relationship", False)):
        values = query.get(name, ())
        if len(values) > 1:
            details[name] = f"query parameter {name} is given {len(values)} times"
        elif values and (reason := _invalid_reason(name, values[0])):
            details[name] = f"query parameter {name} {reason}"
        elif required and not values:
            details[name] = f"query parameter {name} is missing"
    if details:
        raise _invalid(details, {name: values[0] for name, values in query.items() if len(values) == 1})
    relationship = query["relationship"][0] if "relationship" in query else None
    return Filter(query["entity_type"][0], query["entity_id"][0].lower(), relationship)


@frozen
class Search:
    """A search: the query, and the part of the results to return."""

    query: Query
    size: int
    start: int
    sort: str = ""
    is_ascending: bool = False


def read_case_search(query: Mapping[str, Sequence[str]]) -> Search:
    """Parse the query of a search for cases. Pages count from 1.

    Raises:
        InvalidDocumentError: A parameter is invalid; the message names each.
    """
    read = _Parameters(query)
    size, number = read.number("page[size]", 10, 1, MAX_PAGE), read.number("page[number]", 1, 1, MAX_NUMBER)
    search = Search(
        read.query("filter"),
        size,
        (number - 1) * size,
        read.one_of("sort[field]", SORT_FIELDS, "created_at"),
        read.one_of("sort[asc]", ("true", "false"), "false") == "true",
    )
    read.raise_details()
    return search


def read_incident_search(query: Mapping[str, Sequence[str]]) -> Search:
    """Parse the query of a search for incidents.

    Raises:
        InvalidDocumentError: A parameter is missing or invalid; the message names each.
    """
    read = _Parameters(query)
    search = Search(
        read.query("query", is_required=True),
        read.number("page[size]", 10, 1, MAX_PAGE),
        read.number("page[offset]", 0, 0, MAX_NUMBER),
        "created_at",
        read.one_of("sort", INCIDENT_SORTS, "-created") == "created",
    )
    read.raise_details()
    return search


class _Parameters:
    """The parameters of a query, and what is wrong with them."""

    def __init__(self, query: Mapping[str, Sequence[str]]) -> None:
        self._query = query
        self._details: list[str] = []

    def raise_details(self) -> None:
        if self._details:
            raise InvalidDocumentError(*self._details)

    def query(self, name: str, *, is_required: bool = False) -> Query:
        if is_required and not self._query.get(name):
            self._details.append(f"query parameter {name} is missing")
        try:
            return parse_query(self._text(name, ""))
        except InvalidQueryError as error:
            self._details.append(f"query parameter {name} is invalid: {error}")
            return parse_query("")

    def number(self, name: str, default: int, least: int, most: int) -> int:
        text = self._text(name, str(default))
        if re.fullmatch(r"-?[0-9]{1,10}", text) and least <= int(text) <= most:
            return int(text)
        self._details.append(f"query parameter {name} must be a number from {least} to {most}")
        return default

    def one_of(self, name: str, allowed: Sequence[str], default: str) -> str:
        text = self._text(name, default)
        if text not in allowed:
            self._details.append(
                f"query parameter {name} must be one of {', '.join(allowed)}, not {_truncated(text)}"
            )
        return text

    def _text(self, name: str, default: str) -> str:
        values = self._query.get(name, ())
        if len(values) > 1:
            self._details.append(f"query parameter {name} is given {len(values)} times")
        return values[0] if values else default


def is_uuid(text: str) -> bool:
    """Return whether ``text`` is a UUID with hyphens."""
    return _UUID.fullmatch(text) is not None


def is_case_name(text: str) -> bool:
    """Return whether ``text`` has the form of a UUID or of a case key."""
    return is_uuid(text) or _CASE_KEY.fullmatch(text) is not None


def _invalid(details: Mapping[str, str], values: Mapping[str, object]) -> InvalidDocumentError:
    are_ids = all(name.endswith("_id") and isinstance(values.get(name), str) for name in details)
    return (MalformedIdError if are_ids else InvalidDocumentError)(*details.values())


def write_link(link: StoredLink) -> bytes:
    """Return the response document of a create."""
    return write_json({"data": _resource(link)})


def write_links(links: Iterable[StoredLink]) -> bytes:
    """Return the response document of a list."""
    return write_json({"data": [_resource(link) for link in links]})


def write_case(case: StoredCase) -> bytes:
    """Return the response document of a get."""
    return write_json({"data": _case_resource(case)})


def write_cases(cases: Sequence[StoredCase], search: Search, total: int) -> bytes:
    """Return one page of the cases that a search found, ``total`` on all pages."""
    page = {
        "current": search.start // search.size + 1,
        "size": len(cases),
        "total": -(-total // search.size),  # pages
    }
    meta = {"page": page, "total_cases": total}
    return write_json({"data": [_case_resource(case) for case in cases], "meta": meta})


def write_incident(incident: StoredIncident) -> bytes:
    """Return the response document of a get."""
    return write_json({"data": _incident_resource(incident)})


def write_incidents(incidents: Sequence[StoredIncident], search: Search, total: int) -> bytes:
    """Return one page of the incidents that a search found, ``total`` on all pages."""
    attributes = {
        "total": total,
        "incidents": [{"data": _incident_resource(incident)} for incident in incidents],
    }
    pagination = {
        "offset": search.start,
        "next_offset": search.start + len(incidents),
        "size": len(incidents),
    }
    return write_json(
        {
            "data": {"type": "incidents_search_results", "attributes": attributes},
            "meta": {"pagination": pagination},
        }
    )


def _case_resource(case: StoredCase) -> dict[str, object]:
    attributes = {
        "key": case.key,
        "public_id": case.key.rpartition("-")[2],
        "title": case.title,
        "status": case.status,
        "priority": case.priority,
    }
    if case.status_name:
        attributes["status_name"] = case.status_name
    if case.status_group:
        attributes["status_group"] = case.status_group
    return {"id": case.id, "type": "case", "attributes": attributes}


def _incident_resource(incident: StoredIncident) -> dict[str, object]:
    attributes = {
        "public_id": incident.number,
        "title": incident.title,
        "state": incident.state,
        "fields": {
            "slug": {"type": "textbox", "value": incident.slug},
            "state": {"type": "dropdown", "value": incident.state},
        },
    }
    return {"id": incident.id, "type": "incidents", "attributes": attributes}


def write_json(document: object) -> bytes:
    """Encode ``document`` as ASCII JSON, which can also represent lone surrogates from a request."""
    return json.dumps(document).encode()


def _read_attributes(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidDocumentError("the body is not valid JSON") from None
    if not isinstance(document, dict):
        raise InvalidDocumentError("the body must be a JSON object")
    data = document.get("data")
    if not isinstance(data, dict):
        raise InvalidDocumentError("data must be an object")
    if data.get("type") != "link":
        raise InvalidDocumentError(f'data.type must be "link", not {_truncated(data.get("type"))}')
    attributes = data.get("attributes")
    if not isinstance(attributes, dict):
        raise InvalidDocumentError("data.attributes must be an object")
    return attributes


def _invalid_reason(name: str, value: object) -> str | None:
    """Return why the value is invalid, or ``None``."""
    if name.endswith("_id"):
        is_valid = isinstance(value, str) and is_uuid(value)
        return None if is_valid else f"must be a UUID, not {_truncated(value)}"
    allowed = ENTITY_TYPES if name.endswith("_type") else RELATIONSHIPS
    return None if value in allowed else f"must be one of {', '.join(allowed)}, not {_truncated(value)}"


def _truncated(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def _resource(link: StoredLink) -> dict[str, object]:
    return {
        "id": link.id,
        "type": "link",
        "attributes": {name: getattr(link, name) for name in ATTRIBUTES},
    }
