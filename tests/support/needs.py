"""Marks of tests that need a later aiohttp than the lowest one that the package supports."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import aiohttp
import pytest

needs_middlewares = pytest.mark.skipif(
    not hasattr(aiohttp, "ClientHandlerType"), reason="sessions have middlewares since aiohttp 3.12"
)
needs_socket_factory = pytest.mark.skipif(
    not hasattr(aiohttp, "AddrInfoType"), reason="connectors have a socket_factory since aiohttp 3.12"
)
needs_upload_tracker = pytest.mark.skipif(
    not hasattr(aiohttp, "UploadTracker"),
    reason="before aiohttp 3.14.4, a failure after connecting counts as sent",
)


def needing_a_tracker(names: Iterable[str], needing: set[str]) -> list[Any]:
    """Return ``names`` as parameters, and mark those that are in ``needing``."""
    return [pytest.param(name, marks=[needs_upload_tracker] if name in needing else []) for name in names]
