"""The section that the report of a failed test shows about its sandbox."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from datadog_caselinks.sandbox import Sandbox

_MAX_SHOWN: Final = 20


def describe(sandbox: Sandbox) -> str:
    """Return the latest requests to ``sandbox`` and its latest links, one per line."""
    return "\n".join([*_latest("requests", sandbox.requests), *_latest("links", sandbox.links)])


def _latest(name: str, items: Sequence[object]) -> Iterator[str]:
    yield f"{name}: {len(items)}"
    if len(items) > _MAX_SHOWN:
        yield f"  the latest {_MAX_SHOWN}:"
    yield from (f"  {item!r}" for item in items[-_MAX_SHOWN:])
