"""A check right before the body of a create is sent: whether the sender may still send it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import BytesPayload
from aiohttp.abc import AbstractStreamWriter

from datadog_caselinks.http.requester import Requester
from datadog_caselinks.http.wire import Request, Response
from datadog_caselinks.values.errors import CaseLinksError, TransportError

Check = Callable[[], Awaitable[None]]
"""A function that returns if a create may be sent now, and otherwise raises a :class:`CaseLinksError`."""


class FencedRequester:
    """Sends creates through ``requester``, each only if ``check`` allows it.

    ``check`` runs after every wait: for a slot, for the rate limit and for the connection. Without its body a
    server cannot apply a create, so a create that ``check`` refuses was not sent.
    """

    def __init__(self, requester: Requester, check: Check) -> None:
        self._requester = requester
        self._check = check

    async def send(self, request: Request, last_failure: CaseLinksError | None = None) -> Response:
        """Send a create like :meth:`Requester.send`.

        Raises:
            CaseLinksError: As :meth:`Requester.send` and ``check``.
        """
        assert isinstance(request.body, bytes)  # a create
        body = _FencedBody(request.body, self._check)
        try:
            return await self._requester.send(request._replace(body=body), last_failure)
        except TransportError:
            if not (refusal := body.refusal):
                raise
        # Outside of the except block and without aiohttp's frames, which contain the keys.
        raise refusal.with_traceback(None)


class _FencedBody(BytesPayload):
    """A body that is written only if ``check`` allows it. ``refusal`` is what ``check`` raised."""

    def __init__(self, body: bytes, check: Check) -> None:
        super().__init__(body)
        self._check = check
        self.refusal: CaseLinksError | None = None

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Write the body, immediately after the check."""
        await self.write(writer)  # the body is the whole content

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write the body, immediately after the check. aiohttp 3.11 calls this method."""
        try:
            await self._check()
        except CaseLinksError as error:
            self.refusal = error
            raise
        await super().write(writer)
