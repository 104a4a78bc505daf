"""The rate limit that the server reports, as a value. ``http/headers.py`` reads it from a response."""

from __future__ import annotations

from typing import Final

from attrs import frozen

from datadog_caselinks.values.messages import one_line

LONGEST_WAIT: Final = 3600.0
"""The maximum wait in seconds that a header can cause. After it, a request checks the limit again."""


@frozen
class RateLimit:
    """The state of one window of the rate limit, as the server reported it in a response.

    Attributes that the server did not report, or not in a readable form, are ``None``.

    ``limit``
        How many requests the window allows.
    ``remaining``
        How many requests were left.
    ``period``
        The length of the window, in seconds.
    ``reset``
        The time from the response to the end of the window, in seconds.
    ``name``
        The name of the bucket that counted the request. Several operations may share a bucket.
    """

    limit: int | None = None
    remaining: int | None = None
    period: float | None = None
    reset: float | None = None
    name: str | None = None


def where_to_raise(limit: RateLimit | None) -> str:
    """Return the sentence that says which limit it is, where to see its use, and who can raise it.

    It begins with a space. It is empty if the server did not name the limit.
    """
    if limit is None or not limit.name:
        return ""
    return (
        f" The limit is named {one_line(limit.name, limit=100)}: the metrics "
        "datadog.apis.rate_limit.usage.* show its use by limit_name, and Datadog's support can raise it"
    )
