"""The name and the group that a status has unless an organisation has its own.

Source: Datadog's clients' recorded traffic. The group of a status that was never recorded is a guess.
"""

from __future__ import annotations

from typing import Final

_IN_PROGRESS: Final = frozenset(
    {"IN_PROGRESS", "ACKNOWLEDGED", "PENDING_APPROVAL", "APPROVED", "IMPLEMENTING"}
)
_CLOSED: Final = frozenset({"CLOSED", "COMPLETED", "CANCELLED", "DECLINED", "RESOLVED"})


def usual_name(status: str) -> str:
    """Return the name of ``status``, such as ``In Progress``."""
    return status.replace("_", " ").title()


def usual_group(status: str) -> str:
    """Return the group of ``status``: ``SG_OPEN``, ``SG_IN_PROGRESS`` or ``SG_CLOSED``."""
    if status in _CLOSED:
        return "SG_CLOSED"
    return "SG_IN_PROGRESS" if status in _IN_PROGRESS else "SG_OPEN"
