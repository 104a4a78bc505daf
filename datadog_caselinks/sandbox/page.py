"""The page at ``/``: the state of the sandbox for a browser. Reads the other parts, changes none."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from importlib import resources
from itertools import islice
from typing import Any, Final

from aiohttp import web
from attrs import asdict, frozen

from datadog_caselinks.sandbox.api import CREDENTIALS
from datadog_caselinks.sandbox.documents import write_json
from datadog_caselinks.sandbox.limits import Limiter
from datadog_caselinks.sandbox.record import Record
from datadog_caselinks.sandbox.store import Store

# What a browser lays out at once and a person scrolls through.
_SHOWN: Final = 200
_TEMPLATE: Final = resources.files(__package__).joinpath("page.html").read_text("utf-8")


@frozen
class Page:
    """Answers a browser at ``/``, and the page's own script at ``/_sandbox/state``."""

    store: Store
    limiter: Limiter
    record: Record
    clock: Callable[[], float]

    def answer(self, request: web.BaseRequest) -> web.Response | None:
        """The answer, or ``None`` if the request is not for the page."""
        if request.method != "GET" or request.path not in ("/", "/_sandbox/state"):
            return None
        state = write_json(self.state())
        headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
        if request.path != "/":
            return web.Response(body=state, content_type="application/json", headers=headers)
        nonce = secrets.token_urlsafe(16)
        headers["Content-Security-Policy"] = (
            f"default-src 'none'; connect-src 'self'; img-src data:; "
            f"script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'"
        )
        # The state goes in last and without a "<": it may hold whatever a client sent.
        inert = state.decode().replace("<", "\\u003c")
        html = _TEMPLATE.replace("__NONCE__", nonce).replace("__STATE__", inert)
        return web.Response(text=html, content_type="text/html", headers=headers)

    def state(self) -> dict[str, Any]:
        """What the page shows: totals over all, and the newest links and requests, newest first."""
        seen = sum(self.record.statuses.values())
        latest = islice(reversed(self.record.requests), _SHOWN)
        window = self.limiter.window(self.clock())
        return {
            "keys": {"DD_API_KEY": CREDENTIALS.api_key, "DD_APP_KEY": CREDENTIALS.app_key},
            "links": {
                "total": len(self.store),
                "latest": [asdict(link) for link in self.store.latest(_SHOWN)],
            },
            "requests": {
                "total": seen,
                "latest": [
                    {"number": seen - place, **asdict(request)} for place, request in enumerate(latest)
                ],
            },
            "statuses": {str(status or "cut"): count for status, count in self.record.statuses.items()},
            "rejected": self.record.statuses[429],
            "faults": dict(self.record.faults),
            "window": None if window is None else asdict(window),
        }
