"""The APIs that the documents allow, for the tests that prove that the client holds with each."""

from __future__ import annotations

from typing import Any, Final

LAG: Final = 0.25
"""Seconds by which lists lag; a client that is to hold needs a longer ``settle``."""

VARIANTS: Final[dict[str, dict[str, Any]]] = {
    "as known": {},
    "conflict": {"duplicates": "conflict"},
    "bad request": {"duplicates": "bad-request"},
    "lag": {"list_lag": LAG},
    "separate": {"buckets": "separate", "rate_limit": "100/1s"},
    "strings": {"error_form": "strings"},
    "objects": {"error_form": "objects"},
    # What is refused because of a link that no list tells of yet, in the forms that say least of it.
    "conflict and lag": {"duplicates": "conflict", "list_lag": LAG, "error_form": "strings"},
    "bad request and lag": {"duplicates": "bad-request", "list_lag": LAG, "error_form": "strings"},
}
"""Each choice alone, and the pairs that bear on each other; what ``Sandbox`` is made with."""
