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

from datadog_caselinks.sandbox.store import Draft, StoredCase, StoredLink

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
    return write_json({"data": {"id": case.id, "type": "case", "attributes": attributes}})


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
