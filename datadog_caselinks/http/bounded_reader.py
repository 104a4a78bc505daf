"""Send lists, gets and searches, and decode their responses in bounded memory."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any, Final, TypeVar

from datadog_caselinks.http.requester import Requester
from datadog_caselinks.http.wire import MAX_BODY, Request, Response
from datadog_caselinks.values.errors import CaseLinksError

_TOTAL: Final = 100 * 2**20
"""The maximum size in bytes of all bodies together, without one long list.

Responses to creates and deletes do not count. They are short (``MAX_SHORT``): 1,600 of them take as much.
"""

_LONG_BODY: Final = 2**17
"""The size in bytes above which a body is decoded in a thread: about 350 links, in two milliseconds."""

T = TypeVar("T")


class BoundedReader:
    """A budget for the bodies of one client that are being read or decoded.

    Each body has a share. Only one at a time may be longer, and only one is decoded at a time if that takes
    long: its objects take several times as much memory as the body, up to sixty times if the server is
    hostile.

    Args:
        requester: The requester that sends each request.
        max_in_flight: The maximum number of requests in flight.
    """

    def __init__(self, requester: Requester, *, max_in_flight: int) -> None:
        self._requester = requester
        self._share = min(MAX_BODY, _TOTAL // max_in_flight)
        self._long = asyncio.Semaphore(1)
        self._decoding = asyncio.Semaphore(1)

    async def fetch(
        self, request: Request, decode: Callable[[Response], T], last_failure: CaseLinksError | None = None
    ) -> T:
        """Send ``request``, and return what ``decode`` returns for the response.

        If the body is longer than its share while another long one is being read, the request is sent again
        when that one is decoded: to wait within the request would count towards its timeout.
        ``last_failure`` is as for :meth:`Requester.send`.

        Raises:
            CaseLinksError: As :meth:`Requester.send` and ``decode``.
        """
        is_long = False

        async def extend() -> int:
            nonlocal is_long
            if not is_long and not self._long.locked():
                await self._long.acquire()  # returns immediately
                is_long = True
            return request.max_body if is_long else self._share

        try:
            first = request._replace(max_body=min(request.max_body, self._share), extend=extend)
            # In flight until it is decoded, so that no more bodies are in memory than requests in flight.
            async with self._requester.sending(first, last_failure) as response:
                if response.is_complete or is_long or response.status >= 300:
                    return await self._decode(response, decode)
        finally:
            if is_long:
                self._long.release()
        del response
        async with self._long:
            return await self._decode(await self._requester.send(request, last_failure), decode)

    async def _decode(self, response: Response, decode: Callable[[Response], T]) -> T:
        if len(response.body) <= _LONG_BODY:
            return decode(response)
        await self._decoding.acquire()
        run = contextvars.copy_context().run
        try:
            # In a thread, so that it does not block the event loop.
            decoded = asyncio.get_running_loop().run_in_executor(None, run, decode, response)
        except BaseException:
            self._decoding.release()
            raise
        decoded.add_done_callback(self._end_decoding)
        await asyncio.wait([decoded])  # the thread continues if the call is cancelled
        return decoded.result()

    def _end_decoding(self, decoded: asyncio.Future[Any]) -> None:
        self._decoding.release()
        decoded.exception()  # else asyncio would log the error of a cancelled call
