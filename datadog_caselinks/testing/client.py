"""What tests need beside the sandbox: a client that waits for nothing, and a story to show when one fails.

Knows no test framework.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import aiohttp

from datadog_caselinks.client import CaseLinksClient
from datadog_caselinks.http.sessions import SessionManager
from datadog_caselinks.retry import RetryPolicy
from datadog_caselinks.sandbox import Sandbox

AT_ONCE: Final = RetryPolicy(base=0, settle=0, max_wait=0)
"""Repeats what the default policy repeats, as often, and never waits.

A wait that the server asks for raises the error at once.
"""

_TOLD: Final = 20


@contextmanager
def client_for(sandbox: Sandbox) -> Iterator[CaseLinksClient]:
    """A client that follows ``AT_ONCE``; it belongs to the event loop that uses it, and needs no closing."""
    sessions = _ShortConnections()
    try:
        yield CaseLinksClient(sandbox.site, sandbox.credentials, sessions=sessions, retry=AT_ONCE)
    finally:
        sessions.forget()


class _ShortConnections(SessionManager):
    """Connections that end with their answers, so that between two requests nothing is open.

    Others would have to be closed in their own event loop, which may be gone when a test ends.
    """

    def _connector(self) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(force_close=True, limit=0)

    def forget(self) -> None:
        """Let go of the sessions. Needs no event loop, and is for when no request is under way."""
        for session in self._opened.values():
            session.detach()


def story(sandbox: Sandbox) -> str:
    """What ``sandbox`` was asked, and which links it holds: a line for each of the latest ones."""
    return "\n".join([*_latest("requests", sandbox.requests), *_latest("links", sandbox.links)])


def _latest(name: str, things: Sequence[object]) -> Iterator[str]:
    yield f"{name}: {len(things)}"
    if len(things) > _TOLD:
        yield f"  the latest {_TOLD}:"
    yield from (f"  {thing!r}" for thing in things[-_TOLD:])
