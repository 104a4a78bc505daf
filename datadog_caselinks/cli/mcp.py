"""``caselinks mcp``: serve tools for agents over the Model Context Protocol."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import sys
from collections.abc import Iterator
from typing import Final

import click

from datadog_caselinks.cli.groups import Command
from datadog_caselinks.cli.run import (
    Settings,
    end_within,
    handling_log,
    max_wait_option,
    open_client,
    parse_rate,
    rate_option,
    run,
    sandbox_option,
    site_option,
    verbose_option,
)
from datadog_caselinks.cli.screen import Screen
from datadog_caselinks.values.errors import ConfigurationError, ParameterError
from datadog_caselinks.values.rate import DEFAULT_WRITE_RATE, Rate

_TOKEN: Final = "CASELINKS_MCP_TOKEN"
_MIN_TOKEN: Final = 16
"""Characters of a token that cannot be guessed in time."""

_END: Final = 1.5
"""Seconds that the server has to end after a signal: standard input cannot be cancelled."""


@click.command(cls=Command, epilog="Example: caselinks mcp --sandbox --allow-write")
@click.option("--allow-write", is_flag=True, help="Offer tools that create links. Default: read only.")
@click.option("--allow-delete", is_flag=True, help="With --allow-write: also offer to delete links.")
@click.option(
    "--write-rate",
    metavar="WRITES/PERIOD",
    default=str(DEFAULT_WRITE_RATE),
    show_default=True,
    callback=parse_rate,
    help="Maximum number of links that agents may create and delete per period, such as 20/1h.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Serve streamable HTTP on this port of 127.0.0.1; 0 chooses a free port. Default: serve on standard "
    "input and output.",
)
@site_option
@sandbox_option
@rate_option
@max_wait_option
@verbose_option
def mcp(
    allow_write: bool,
    allow_delete: bool,
    write_rate: Rate,
    port: int | None,
    site: str | None,
    in_sandbox: bool,
    rate: Rate | None,
    max_wait: float,
    verbose: bool,
) -> None:
    """Serve tools for agents over the Model Context Protocol (MCP).

    An agent can find cases and incidents, read and draw their links, and plan new
    ones. If you allow writes, it can create links, each at most once, and each write
    is logged to standard error. Needs the extra "mcp". The documentation shows how to
    configure the usual hosts.

    With --port, agents must send the token in CASELINKS_MCP_TOKEN. If that variable is
    not set, the command prints a new token to standard error.
    """
    if allow_delete and not allow_write:
        raise ParameterError("--allow-delete needs --allow-write too")
    token, is_new = (None, False) if port is None else _token()
    from datadog_caselinks.mcp import serve_http, serve_stdio
    from datadog_caselinks.mcp.server import Access, AgentServer
    from datadog_caselinks.mcp.serving import HOST, PATH

    access = Access.DELETE if allow_delete else Access.WRITE if allow_write else Access.READ
    settings = Settings(site, in_sandbox, "table", False, verbose, max_wait, rate)
    screen = Screen()

    async def serve() -> None:
        async with open_client(settings) as client:
            server = AgentServer(client, access=access, write_rate=write_rate)
            if token is None:
                screen.note(f"Serving {client.site.api_url} on standard input and output.")
                await serve_stdio(server)
            else:
                with socket.create_server((HOST, port or 0)) as listener:
                    url = f"http://{HOST}:{listener.getsockname()[1]}{PATH}"
                    screen.note(f"Serving {client.site.api_url} on {url}")
                    if is_new:
                        screen.note(f"Authorization: Bearer {token}")
                    await serve_http(server, listener, token)

    with _logging(verbose=verbose):
        run(end_within(_END, serve(), lambda: None))


def _token() -> tuple[str, bool]:
    """Return the token of agents, and whether it is a new one.

    Raises:
        ConfigurationError: The environment has one that is too short, or cannot be sent in a header.
    """
    if not (token := os.environ.get(_TOKEN, "").strip()):
        return secrets.token_urlsafe(32), True
    if len(token) < _MIN_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigurationError(
            f"{_TOKEN} must have at least {_MIN_TOKEN} characters, in ASCII and without spaces"
        )
    return token, False


@contextlib.contextmanager
def _logging(*, verbose: bool) -> Iterator[None]:
    """Write the log of this package, and warnings of others, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    # To the root logger, since the SDK adds its own handler if that has none.
    with handling_log(handler, logging.getLogger(), verbose=verbose):
        yield
