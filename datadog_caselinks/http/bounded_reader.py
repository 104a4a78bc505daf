"""Send lists, gets and searches, and decode the responses, within a bound on the memory of all of them."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any, Final, TypeVar

from datadog_caselinks.http.requester import Requester
from datadog_caselinks.http.wire import MAX_BODY, Request, Response
from datadog_caselinks.values.errors import CaseLinksError

_TOTAL: Final = 100 * 2**20
"""Bytes of all bodies together, besides one long list.

Responses to creates and deletes do not count. They are short (``MAX_SHORT``): 1,600 of them take as much.
"""

_LONG_BODY: Final = 2**17
"""Bytes of a body that is decoded in a thread: a list of some 350 links, which takes two milliseconds."""

T = TypeVar("T")


class BoundedReader:
    """A budget for the bodies of one client that are being read or decoded.

    Each body has a share. Only one at a time may be longer, and only one is decoded at a time if that takes
    long: its objects take several times as much memory as the body, up to sixty times if the server is
    hostile.

    Args:
        requester: Sends one request.
        max_in_flight: The most requests in flight at once.
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

        If the body is longer than its share, and another long one is being read, the request is sent again
        when that one is decoded: waiting in between would count towards the timeout. ``last_failure`` is as
        for :meth:`Requester.send`.

        Raises:
            CaseLinksError: As :meth:`Requester.send` and ``decode``.
        """
        is_long = False

        async def extend() -> int:
            nonlocal is_long
            if not is_long and not self._long.locked():
                await self._long.acquire()  # at once
                is_long = True
            return request.max_body if is_long else self._share

        try:
            first = request._replace(max_body=min(request.max_body, self._share), extend=extend)
            # In flight until it is decoded: the bodies of so many requests are in memory, and no more.
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
        # In a thread, so that the event loop goes on.
        decoded = asyncio.get_running_loop().run_in_executor(None, run, decode, response)
        decoded.add_done_callback(self._end_decoding)
        await asyncio.wait([decoded])  # the thread goes on when its call is cancelled
        return decoded.result()

    def _end_decoding(self, decoded: asyncio.Future[Any]) -> None:
        self._decoding.release()
        decoded.exception()  # or asyncio would log that of a cancelled call
