"""The listening socket and its connections, which all close when the sandbox stops."""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import web

from datadog_caselinks.sandbox.exchange import Exchange
from datadog_caselinks.sandbox.page import Page
from datadog_caselinks.values.errors import ParameterError

# Loopback only, since the sandbox's keys are public.
_HOST: Final = "127.0.0.1"
# Enough for a response in progress, unless its client does not read.
_GRACE_SECONDS: Final = 0.5


class Listener:
    """A listening socket and the connections made to it."""

    def __init__(self, exchange: Exchange, page: Page) -> None:
        self._exchange = exchange
        self._page = page
        self._server = web.Server(self._handle, access_log=None)
        self._runner = web.ServerRunner(self._server, shutdown_timeout=_GRACE_SECONDS)

    async def listen(self, port: int) -> str:
        """Listen on ``port``, or on a free port for 0, and return the base URL.

        Raises:
            ParameterError: The port cannot be used.
        """
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, _HOST, port).start()
        except (OSError, OverflowError) as error:
            raise ParameterError(f"port {port} on {_HOST} cannot be used: {error}") from error
        return "http://{}:{}".format(*self._runner.addresses[0])

    async def close(self) -> None:
        """Stop accepting connections, finish the responses in progress, and close every connection."""
        self._exchange.stopping.set_result(None)
        transports = [connection.transport for connection in self._server.connections]
        await self._runner.cleanup()
        for transport in transports:
            # Without this, a connection stays open as long as its client does not read.
            if transport is not None:
                transport.abort()
        # A transport closes its socket in the next iteration of the event loop.
        await asyncio.sleep(0)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        response = self._page.respond(request)
        # Not by its truth value: a response of aiohttp 3.11 is false.
        return await self._exchange.handle(request) if response is None else response
