"""Serving over standard input and output, and over HTTP on loopback behind a token."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import socket
from collections.abc import Iterator
from typing import Final

import uvicorn
from mcp.server.transport_security import TransportSecuritySettings
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from datadog_caselinks.mcp.server import AgentServer

HOST: Final = "127.0.0.1"
PATH: Final = "/mcp"

_GRACE: Final = 1
"""Seconds for calls in flight when the server ends."""

_REFUSED: Final = JSONResponse(
    {"error": "the token is missing or wrong: send the header Authorization: Bearer TOKEN"},
    status_code=401,
    headers={"WWW-Authenticate": "Bearer"},
)


async def serve_stdio(server: AgentServer) -> None:
    """Serve one agent on standard input and output until its end of input."""
    await server.run_stdio_async()


async def serve_http(server: AgentServer, listener: socket.socket, token: str) -> None:
    """Serve agents that send ``token``, on a ``listener`` that is bound to loopback, until cancelled.

    A page in a browser cannot use the server: it does not know the token, and requests with the name of
    another host, or from another origin, are refused.
    """
    port = listener.getsockname()[1]
    names = [f"{host}:{port}" for host in (HOST, "localhost")]
    security = TransportSecuritySettings(
        allowed_hosts=names, allowed_origins=[f"http://{name}" for name in names]
    )
    app = server.streamable_http_app(streamable_http_path=PATH, transport_security=security)
    config = uvicorn.Config(
        _with_token(app, token),
        http="h11",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE,
    )
    http = _HTTPServer(config)
    serving = asyncio.ensure_future(http.serve(sockets=[listener]))
    try:
        await asyncio.wait([serving])
    finally:
        http.should_exit = True
        await serving


class _HTTPServer(uvicorn.Server):
    """A server that leaves signals to the program, which cancels it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing."""
        yield


def _with_token(app: ASGIApp, token: str) -> ASGIApp:
    """Return ``app`` behind a check of the bearer token, which takes the same time for each wrong one."""
    expected = token.encode()

    async def check(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            header = Headers(scope=scope).get("authorization", "")
            scheme, _, given = header.partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), expected):
                await _REFUSED(scope, receive, send)
                return
        await app(scope, receive, send)

    return check
