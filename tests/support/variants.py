"""The API behaviors that Datadog's documentation permits. Tests check the client against each of them."""

from __future__ import annotations

from typing import Any, Final

LAG: Final = 0.25
"""The delay in seconds after which a list shows a new link; ``settle`` of a client must be longer."""

VARIANTS: Final[dict[str, dict[str, Any]]] = {
    "as known": {},
    "conflict": {"duplicates": "conflict"},
    "bad request": {"duplicates": "bad-request"},
    "lag": {"list_lag": LAG},
    "separate": {"buckets": "separate", "rate_limit": "100/1s"},
    "strings": {"error_format": "strings"},
    "objects": {"error_format": "objects"},
    "generic": {"error_format": "generic", "malformed_ids": "not-found"},
    # A create is refused because of a link that no list shows yet, with the least informative errors.
    "conflict and lag": {"duplicates": "conflict", "list_lag": LAG, "error_format": "strings"},
    "bad request and lag": {"duplicates": "bad-request", "list_lag": LAG, "error_format": "strings"},
}
"""Options of ``Sandbox``: each choice alone, and the combinations that affect each other."""
