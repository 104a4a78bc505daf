"""What the server reported of its rate limit, as a value. Knows no headers and no clock."""

from __future__ import annotations

from attrs import frozen


@frozen
class RateLimit:
    """One fixed window of requests, as the server reported it.

    ``limit`` and ``remaining`` count requests; ``period`` and ``reset`` are seconds: the length of the
    window, and what was left of it when the response was made. ``name`` is the bucket, which several
    operations may share. ``None`` is what the server did not report, or not in a readable form; zero is a
    value.
    """

    limit: int | None = None
    remaining: int | None = None
    period: float | None = None
    reset: float | None = None
    name: str | None = None
