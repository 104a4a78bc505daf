"""A client for tests: it retries without waiting and does not have to be closed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import aiohttp

from datadog_caselinks.calls.retry import RetryPolicy
from datadog_caselinks.client import CaseLinksClient
from datadog_caselinks.http.sessions import SessionManager
from datadog_caselinks.sandbox import Sandbox

NO_WAIT: Final = RetryPolicy(base=0, settle=0, max_wait=0)
"""Retries the same errors as the default policy, as many times, without waiting.

If the server asks the client to wait, the error is raised at once.
"""


@contextmanager
def client_for(sandbox: Sandbox) -> Iterator[CaseLinksClient]:
    """Yield a client for ``sandbox`` that follows ``NO_WAIT``.

    The client belongs to the event loop that first uses it and does not have to be closed.
    """
    sessions = _UnpooledSessions()
    try:
        yield CaseLinksClient(sandbox.site, sandbox.credentials, sessions=sessions, retry=NO_WAIT)
    finally:
        sessions.detach()


class _UnpooledSessions(SessionManager):
    """Sessions that close each connection after its response.

    Pooled connections would have to be closed in their own event loop, which may be gone when a test ends.
    """

    def _connector(self) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(force_close=True, limit=0)

    def detach(self) -> None:
        """Detach the sessions without an event loop. No request may be in flight."""
        for session in self._opened.values():
            session.detach()
