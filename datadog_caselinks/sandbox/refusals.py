"""The reasons for refused requests, and the formats of their error documents.

Source of the formats: Datadog's API reference, which documents strings, and its clients' recorded traffic.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from datadog_caselinks.sandbox.variant import ErrorFormat


@frozen
class Refusal:
    """A status with its ``title``, and ``details`` with one sentence for each reason.

    ``code`` replaces the status in error objects, as recorded for 404. ``source`` names the parameter that is
    at fault; where there is one, error objects also have ``meta``.
    """

    status: int
    title: str
    details: tuple[str, ...] = ()
    code: str | None = None
    source: Mapping[str, str] | None = None
    headers: Mapping[str, str] = field(factory=dict)

    def document(self, error_format: ErrorFormat) -> dict[str, Any]:
        """Return the body as a document."""
        if error_format == "mixed":
            error_format = "objects" if self.code or self.status in (400, 409) else "strings"
        if error_format == "strings":
            return {"errors": list(self.details) or [self.title]}
        if error_format == "generic":
            details = self.details or (self.title,)
            return {"errors": [{"title": "Generic Error", "detail": detail} for detail in details]}
        entry: dict[str, Any] = {"code": self.code} if self.code else {"status": str(self.status)}
        entry["title"] = self.title
        if self.source:
            entry |= {"source": dict(self.source), "meta": {}}
        return {"errors": [entry | {"detail": detail} for detail in self.details] or [entry]}


class RefusedError(Exception):
    """An error that ends the handling of a request; ``refusal`` is the response."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal)
        self.refusal = refusal


def not_found(kind: str) -> RefusedError:
    """Return the error for a link or case that does not exist."""
    return RefusedError(Refusal(404, f"{kind} not found", code="resource_not_found"))


def invalid_parameter(name: str, detail: str) -> RefusedError:
    """Return the error for a malformed id in a path."""
    return RefusedError(Refusal(400, "Invalid Parameter", (detail,), source={"parameter": name}))


def bad_request(*details: str) -> RefusedError:
    """Return the error for an invalid request."""
    return RefusedError(Refusal(400, "Bad Request", details))
