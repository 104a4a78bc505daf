"""The read-only views of the sandbox: the page at ``/``, its state as JSON, and the OpenAPI document."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from importlib import resources
from itertools import islice
from typing import Any, Final, TypeAlias

from aiohttp import web
from attrs import asdict, frozen

from datadog_caselinks.sandbox import openapi
from datadog_caselinks.sandbox.api import CREDENTIALS
from datadog_caselinks.sandbox.documents import write_json
from datadog_caselinks.sandbox.limits import Limiter
from datadog_caselinks.sandbox.record import Record
from datadog_caselinks.sandbox.store import Store, StoredLink
from datadog_caselinks.values.errors import CaseLinksError

# A browser lays out this many rows without delay.
_SHOWN: Final = 200
_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_TEMPLATE: Final = resources.files(__package__).joinpath("page.html").read_text("utf-8")


DrawGraph: TypeAlias = Callable[[Store, str, str], str]
"""Draws the links around an entity, given by type and id, as an HTML page. It may raise CaseLinksError."""


@frozen
class Page:
    """A handler of ``/``, of ``/_sandbox/state`` for the page's script, and of ``/openapi.json``.

    With ``draw_graph`` it also handles ``/_sandbox/graph``.
    """

    store: Store
    limiter: Limiter
    record: Record
    clock: Callable[[], float]
    draw_graph: DrawGraph | None = None

    def respond(self, request: web.BaseRequest) -> web.Response | None:
        """Return the response, or ``None`` if the request is for the API."""
        if request.method != "GET":
            return None
        if request.path == "/openapi.json":
            return _json(openapi.document())
        if request.path == "/_sandbox/state":
            return _json(self.state())
        if request.path == "/_sandbox/graph" and self.draw_graph:
            return self._graph(request, self.draw_graph)
        return self._html() if request.path == "/" else None

    def _graph(self, request: web.BaseRequest, draw: DrawGraph) -> web.Response:
        try:
            html = draw(self.store, request.query.get("type", ""), request.query.get("id", ""))
        except CaseLinksError as error:
            return web.Response(status=400, text=str(error), headers=_HEADERS)
        return web.Response(text=html, content_type="text/html", headers=_HEADERS)

    def _html(self) -> web.Response:
        headers = dict(_HEADERS)
        nonce = secrets.token_urlsafe(16)
        headers["Content-Security-Policy"] = (
            f"default-src 'none'; connect-src 'self'; img-src data:; "
            f"script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'"
        )
        # The state is inserted last and with "<" escaped, since it contains text from clients.
        escaped = write_json(self.state()).decode().replace("<", "\\u003c")
        html = _TEMPLATE.replace("__NONCE__", nonce).replace("__STATE__", escaped)
        return web.Response(text=html, content_type="text/html", headers=headers)

    def state(self) -> dict[str, Any]:
        """Return the data of the page: totals, and the newest links and requests, newest first."""
        total = sum(self.record.statuses.values())
        latest = islice(reversed(self.record.requests), _SHOWN)
        window = self.limiter.fullest(self.clock())
        links = self.store.latest(_SHOWN)
        return {
            "keys": {"DD_API_KEY": CREDENTIALS.api_key, "DD_APP_KEY": CREDENTIALS.app_key},
            "links": {
                "total": len(self.store),
                "latest": [asdict(link) for link in links],
            },
            "names": self._names(links),
            "has_graph": self.draw_graph is not None,
            "requests": {
                "total": total,
                "latest": [
                    {"number": total - index, **asdict(request)} for index, request in enumerate(latest)
                ],
            },
            "statuses": {str(status or "cut"): count for status, count in self.record.statuses.items()},
            "rejected": self.record.statuses[429],
            "faults": dict(self.record.faults),
            "window": None if window is None else asdict(window),
        }

    def _names(self, links: Iterable[StoredLink]) -> dict[str, dict[str, str]]:
        """Return the key and the title of each case and incident at an end of ``links``, by its id."""
        ends = [end for x in links for end in (x.parent_entity_id, x.child_entity_id)]
        names = {}
        for entity_id in dict.fromkeys(ends):
            if case := self.store.case(entity_id):
                names[entity_id] = {"key": case.key, "title": case.title}
            elif incident := self.store.incident(entity_id):
                names[entity_id] = {"key": incident.slug, "title": incident.title}
        return names


def _json(document: object) -> web.Response:
    return web.Response(body=write_json(document), content_type="application/json", headers=_HEADERS)
