"""The OpenAPI document of the API: each operation, status, header and body.

Datadog does not publish such a document for all of this. Source: Datadog's API reference and its clients'
recorded traffic.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, get_args

from datadog_caselinks.sandbox.api import CASES, COLLECTION, INCIDENTS, JSON_API
from datadog_caselinks.sandbox.documents import (
    ATTRIBUTES,
    ENTITY_TYPES,
    INCIDENT_SORTS,
    MAX_NUMBER,
    MAX_PAGE,
    RELATIONSHIPS,
    SORT_FIELDS,
)
from datadog_caselinks.sandbox.store import CasePriority, CaseStatus, CaseStatusGroup, IncidentState

Json = dict[str, Any]

_UUID: Final[Json] = {"type": "string", "format": "uuid"}
_TEXT: Final[Json] = {"type": "string"}
_CASE_NAME: Final[Json] = {
    "type": "string",
    "pattern": "^([A-Za-z][A-Za-z0-9_]*-[0-9]+|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})$",
}
_COUNT: Final[Json] = {"type": "integer", "minimum": 0}
_ENTITY_TYPE: Final[Json] = {"type": "string", "enum": ENTITY_TYPES}
_RELATIONSHIP: Final[Json] = {"type": "string", "enum": RELATIONSHIPS}

# Copied from the API reference.
_EXAMPLE: Final[Json] = {
    "data": {
        "type": "link",
        "attributes": {
            "parent_entity_type": "CASE",
            "parent_entity_id": "bf0cbac6-4c16-4cfb-b6bf-ca5e0ec37a4f",
            "relationship": "BLOCKS",
            "child_entity_type": "CASE",
            "child_entity_id": "4417921d-0866-4a38-822c-6f2a0f65f77d",
        },
    }
}


def document() -> Json:
    """Return the document as JSON values."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Datadog case links",
            "version": "v2",
            "summary": "Links between cases, incidents, pages and agent conversations, and searches.",
            "description": (
                "Written for the sandbox of datadog_caselinks, not by Datadog. Where Datadog's documentation "
                "is ambiguous, this document contains every variant that a sandbox can be configured for. "
                "A link of an entity to itself is refused with 400, which a schema cannot express."
            ),
        },
        "servers": [{"url": "/"}],
        "security": [{"apiKey": [], "appKey": []}, {"bearer": []}],
        "paths": {
            COLLECTION: {"post": _create(), "get": _list()},
            f"{COLLECTION}/{{link_id}}": {"delete": _delete()},
            CASES: {"get": _search_cases()},
            f"{CASES}/{{case_id}}": {"get": _get()},
            f"{INCIDENTS}/search": {"get": _search_incidents()},
            f"{INCIDENTS}/{{incident_id}}": {"get": _get_incident()},
        },
        "components": {
            "securitySchemes": {
                "apiKey": {"type": "apiKey", "in": "header", "name": "DD-API-KEY"},
                "appKey": {"type": "apiKey", "in": "header", "name": "DD-APPLICATION-KEY"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
            "schemas": {
                "NewLink": _envelope(_object(type={"const": "link"}, attributes=_ref("LinkAttributes"))),
                "Link": _envelope(_ref("LinkResource")),
                "Links": _envelope({"type": "array", "items": _ref("LinkResource")}),
                "LinkResource": _object(id=_UUID, type={"const": "link"}, attributes=_ref("LinkAttributes")),
                "LinkAttributes": _link_attributes(),
                "Case": _envelope(_ref("CaseResource")),
                "Cases": _object(
                    data={"type": "array", "items": _ref("CaseResource")},
                    meta=_object(total_cases=_COUNT, page=_object(current=_COUNT, size=_COUNT, total=_COUNT)),
                ),
                "CaseResource": _object(id=_UUID, type={"const": "case"}, attributes=_case_attributes()),
                "Incident": _envelope(_ref("IncidentResource")),
                "Incidents": _object(
                    data=_object(
                        type={"const": "incidents_search_results"},
                        attributes=_object(
                            total=_COUNT, incidents={"type": "array", "items": _ref("Incident")}
                        ),
                    ),
                    meta=_object(pagination=_object(offset=_COUNT, next_offset=_COUNT, size=_COUNT)),
                ),
                "IncidentResource": _object(
                    id=_UUID, type={"const": "incidents"}, attributes=_incident_attributes()
                ),
                "Errors": _object(errors={"type": "array", "minItems": 1, "items": _error()}),
            },
            "headers": {
                "X-RateLimit-Limit": _header("requests in each period", {"type": "integer", "minimum": 1}),
                "X-RateLimit-Period": _header("seconds", {"type": "number", "exclusiveMinimum": 0}),
                "X-RateLimit-Remaining": _header(
                    "requests left in the current period", {"type": "integer", "minimum": 0}
                ),
                "X-RateLimit-Reset": _header(
                    "whole seconds until the period ends", {"type": "integer", "minimum": 0}
                ),
                "X-RateLimit-Name": _header("the bucket that counted the request", _TEXT),
                "Retry-After": _header("seconds", {"type": "integer", "minimum": 0}),
            },
        },
    }


def _create() -> Json:
    sent = "$request.body#/data/attributes"
    created = _response("the new link", "Link") | {
        "links": {
            "delete": {
                "operationId": "DeleteCaseLink",
                "parameters": {"link_id": "$response.body#/data/id"},
            },
            **{
                f"list by {side}": {
                    "operationId": "ListCaseLinks",
                    "parameters": {
                        "entity_type": f"{sent}/{side}_entity_type",
                        "entity_id": f"{sent}/{side}_entity_id",
                        "relationship": f"{sent}/relationship",
                    },
                }
                for side in ("parent", "child")
            },
        }
    }
    return {
        "operationId": "CreateCaseLink",
        "summary": "Create a link. Needs the scope cases_write.",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _ref("NewLink"), "example": _EXAMPLE}},
        },
        "responses": {
            "201": created,
            **_refusals("400", "401", "403", "404", "413"),
            "409": _response("an equal link exists, if configured so", "Errors"),
            **_failures(),
        },
    }


def _list() -> Json:
    return {
        "operationId": "ListCaseLinks",
        "summary": "List the links of an entity, as parent or child. Needs the scope cases_read.",
        "parameters": [
            _parameter("query", "entity_type", _ENTITY_TYPE),
            _parameter("query", "entity_id", _UUID),
            _parameter("query", "relationship", _RELATIONSHIP) | {"required": False},
        ],
        "responses": {
            "200": _response("the links, oldest first", "Links"),
            **_refusals("400", "401", "403", "404"),
            **_failures(),
        },
    }


def _delete() -> Json:
    return {
        "operationId": "DeleteCaseLink",
        "summary": "Delete a link. Needs the scope cases_write.",
        "parameters": [_parameter("path", "link_id", _UUID)],
        "responses": {
            "204": {"description": "the link is deleted", "headers": _limits()},
            **_refusals("400", "401", "403", "404"),
            **_failures(),
        },
    }


def _get() -> Json:
    return {
        "operationId": "GetCase",
        "summary": "Get a case by its UUID, or by its key such as SHOP-1. Needs the scope cases_read.",
        "parameters": [_parameter("path", "case_id", _CASE_NAME) | {"example": "SHOP-1"}],
        "responses": {
            "200": _response("the case", "Case"),
            **_refusals("400", "401", "403", "404"),
            **_failures(),
        },
    }


def _search_cases() -> Json:
    return {
        "operationId": "SearchCases",
        "summary": "Search cases, newest first. Needs the scope cases_read.",
        "parameters": [
            _parameter("query", "filter", _TEXT | {"example": "status:closed"}) | {"required": False},
            *_paging("page[number]", least=1),
            _parameter("query", "sort[field]", {"type": "string", "enum": SORT_FIELDS}) | {"required": False},
            _parameter("query", "sort[asc]", {"type": "boolean"}) | {"required": False},
        ],
        "responses": {
            "200": _response("one page of the cases", "Cases"),
            **_refusals("400", "401", "403"),
            **_failures(),
        },
    }


def _get_incident() -> Json:
    return {
        "operationId": "GetIncident",
        "summary": "Get an incident by its UUID. Needs the permission incident_read.",
        "parameters": [_parameter("path", "incident_id", _UUID)],
        "responses": {
            "200": _response("the incident", "Incident", "application/json"),
            **_refusals("400", "401", "403", "404"),
            **_failures(),
        },
    }


def _search_incidents() -> Json:
    return {
        "operationId": "SearchIncidents",
        "summary": "Search incidents, newest first. Needs the permission incident_read.",
        "parameters": [
            _parameter("query", "query", _TEXT | {"example": "slug:IR-101"}),
            *_paging("page[offset]", least=0),
            _parameter("query", "sort", {"type": "string", "enum": INCIDENT_SORTS}) | {"required": False},
        ],
        "responses": {
            "200": _response("one page of the incidents", "Incidents", "application/json"),
            **_refusals("400", "401", "403"),
            **_failures(),
        },
    }


def _paging(start: str, *, least: int) -> list[Json]:
    sizes = {"type": "integer", "minimum": 1, "maximum": MAX_PAGE}
    starts = {"type": "integer", "minimum": least, "maximum": MAX_NUMBER}
    return [
        _parameter("query", name, schema) | {"required": False}
        for name, schema in (("page[size]", sizes), (start, starts))
    ]


_REFUSALS: Final = {
    "400": "the request is invalid, or an equal link exists and the sandbox is configured to refuse it",
    "401": "the credentials are missing or wrong",
    "403": "the credentials lack the scope",
    "404": "it does not exist, or these credentials cannot access it",
    "413": "the body is larger than 1 MiB",
}


def _refusals(*statuses: str) -> Json:
    return {status: _response(_REFUSALS[status], "Errors") for status in statuses}


def _failures() -> Json:
    """Return the errors of every operation, in the formats of the API and of the edge in front of it."""
    html = {"text/html": {"schema": _TEXT}}
    over = _response("over the rate limit", "Errors")
    broken = {
        "500": "internal error",
        "502": "bad gateway",
        "504": "timeout, possibly after it was applied",
        "512": "a status of Datadog's own, which its clients retry",
    }
    return {
        "408": {"description": "timeout", "headers": _limits(), "content": html},
        "429": over | {"headers": _limits("Retry-After"), "content": over["content"] | html},
        "503": {"description": "unavailable", "headers": _limits("Retry-After"), "content": html},
        **{
            status: {"description": what, "headers": _limits(), "content": html}
            for status, what in broken.items()
        },
    }


def _response(description: str, schema: str, content_type: str = JSON_API) -> Json:
    return {
        "description": description,
        "headers": _limits(),
        "content": {content_type: {"schema": _ref(schema)}},
    }


def _limits(*others: str) -> Json:
    names = [f"X-RateLimit-{name}" for name in ("Limit", "Period", "Remaining", "Reset", "Name")]
    return {name: {"$ref": f"#/components/headers/{name}"} for name in (*names, *others)}


def _header(description: str, schema: Mapping[str, Any]) -> Json:
    return {"description": description, "schema": schema}


def _parameter(place: str, name: str, schema: Json) -> Json:
    return {"name": name, "in": place, "required": True, "schema": schema}


def _ref(schema: str) -> Json:
    return {"$ref": f"#/components/schemas/{schema}"}


def _object(**properties: Json) -> Json:
    return {"type": "object", "required": list(properties), "properties": properties}


def _envelope(data: Json) -> Json:
    return _object(data=data)


def _link_attributes() -> Json:
    kinds = {"id": _UUID, "type": _ENTITY_TYPE, "relationship": _RELATIONSHIP}
    one_is_a_case = [
        {"properties": {f"{side}_entity_type": {"const": "CASE"}}} for side in ("parent", "child")
    ]
    return _object(**{name: kinds[name.rpartition("_")[2]] for name in ATTRIBUTES}) | {"anyOf": one_is_a_case}


def _case_attributes() -> Json:
    attributes = _object(
        key=_TEXT,
        public_id=_TEXT,
        title=_TEXT,
        status={"type": "string", "enum": get_args(CaseStatus)},
        priority={"type": "string", "enum": get_args(CasePriority)},
    )
    attributes["properties"] |= {  # missing in some recorded responses
        "status_name": _TEXT,
        "status_group": {"type": "string", "enum": get_args(CaseStatusGroup)},
    }
    return attributes


def _incident_attributes() -> Json:
    state = {"type": "string", "enum": get_args(IncidentState)}
    return _object(
        public_id={"type": "integer", "minimum": 1},
        title=_TEXT,
        state=state,
        fields=_object(slug=_object(type=_TEXT, value=_TEXT), state=_object(type=_TEXT, value=state)),
    )


def _error() -> Json:
    entry: Json = {"type": "object"}
    entry["properties"] = dict.fromkeys(("status", "code", "title", "detail"), _TEXT)
    entry["properties"] |= {"source": {"type": "object"}, "meta": {"type": "object"}}
    return {"anyOf": [_TEXT, entry | {"required": ["title"]}]}
