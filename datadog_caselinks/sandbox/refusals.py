"""Why a request is refused, and the forms in which an answer tells it. Knows no HTTP server.

Source of the forms: Datadog's API reference, which documents strings, and its clients' recorded traffic.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from datadog_caselinks.sandbox.variant import ErrorFormat


@frozen
class Refusal:
    """A status, and why: ``title`` in general, ``details`` one sentence for each reason.

    ``code`` stands in the place of the status where objects were recorded so.
    """

    status: int
    title: str
    details: tuple[str, ...] = ()
    code: str | None = None
    headers: Mapping[str, str] = field(factory=dict)

    def document(self, form: ErrorFormat) -> dict[str, Any]:
        """What the body says of it."""
        if form == "mixed":
            form = "objects" if self.code or self.status in (400, 409) else "strings"
        if form == "strings":
            return {"errors": list(self.details) or [self.title]}
        about = {"code": self.code} if self.code else {"status": str(self.status)}
        about["title"] = self.title
        return {"errors": [about | {"detail": detail} for detail in self.details] or [about]}


class RefusedError(Exception):
    """The request goes no further, because of ``refusal``."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal)
        self.refusal = refusal


def bad_request(*details: str) -> RefusedError:
    """To be raised where the request itself is wrong."""
    return RefusedError(Refusal(400, "Bad Request", details))
