"""Entity ids for tests."""

from __future__ import annotations

from uuid import UUID


def some_id(number: int) -> str:
    """Return a UUID that is unique to ``number``."""
    return str(UUID(int=number))
