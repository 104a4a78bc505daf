"""``caselinks sandbox``: run a local server until Ctrl-C, or for as long as a command runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from typing import Final, Literal, get_args

import click

from datadog_caselinks.cli import sandbox_graph
from datadog_caselinks.cli.groups import Command
from datadog_caselinks.cli.interruption import RunInterruptedError
from datadog_caselinks.cli.run import ending_signals, on_signals, run
from datadog_caselinks.cli.streams import OutputError
from datadog_caselinks.sandbox import Fault, Sandbox
from datadog_caselinks.sandbox.variant import (
    Buckets,
    Duplicates,
    ErrorFormat,
    IncidentSearch,
    MalformedIds,
    UnknownCases,
)
from datadog_caselinks.values.credentials import TOKEN_VARIABLES

_AN_INCIDENT: Final = "incident:1588a905-212d-5dcb-ad1b-15647f1ad62d"
_A_CASE: Final = "4417921d-0866-4a38-822c-6f2a0f65f77d"


@click.command(
    cls=Command,
    epilog="\b\nExamples:\n"
    "  caselinks sandbox --rate-limit 200/2s --fault lost-response:5%\n"
    "  caselinks sandbox -- python my_service.py",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Listen on this port; 0 chooses a free port. Default: 8321, or a free port if COMMAND is given.",
)
@click.option("--db", metavar="FILE", help="Keep the links in this SQLite file. Default: in memory.")
@click.option(
    "--rate-limit", metavar="LIMIT/PERIOD", help="Limit requests, such as 200/2s or 60/1m. Default: none."
)
@click.option(
    "--fault",
    "faults",
    metavar="FAULT[=SECONDS][@OPERATION][:PERCENT%]",
    multiple=True,
    help="Simulate a fault, such as lost-response:5% or delay=0.2@create:10%. Repeatable. "
    f"Faults: {', '.join(Fault)}.",
)
@click.option("--fault-seed", type=int, metavar="N", help="Make the random choices of --fault repeatable.")
@click.option(
    "--duplicates",
    type=click.Choice(get_args(Duplicates)),
    default="allow",
    help="Response to a duplicate create: a second link, 409 or 400. Default: allow.",
)
@click.option(
    "--list-lag",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    default=0.0,
    help="Delay before a new link appears in lists. Default: 0.",
)
@click.option(
    "--buckets",
    type=click.Choice(get_args(Buckets)),
    default="shared",
    help="Whether all operations share --rate-limit or each has its own. Default: shared.",
)
@click.option(
    "--error-format",
    type=click.Choice(get_args(ErrorFormat)),
    default="mixed",
    help="Form of errors: strings, objects, generic, or mixed as in recorded responses. Default: mixed.",
)
@click.option(
    "--unknown-cases",
    type=click.Choice(get_args(UnknownCases)),
    default="allow",
    help="Response to a request that names an unknown case: as usual, or 404. Default: allow.",
)
@click.option(
    "--malformed-ids",
    type=click.Choice(get_args(MalformedIds)),
    default="bad-request",
    help="Response to an id that is not a UUID: 400 or 404. Default: bad-request.",
)
@click.option(
    "--incident-search",
    type=click.Choice(get_args(IncidentSearch)),
    default="slug",
    help="The filter that finds an incident by its number: slug:, public_id: or its text; or all incidents "
    "are found. Default: slug.",
)
@click.option("--seed", type=click.Choice(["demo"]), help="Start with demo cases and links.")
@click.argument("command", nargs=-1)
@click.pass_context
def sandbox(
    context: click.Context,
    port: int | None,
    db: str | None,
    rate_limit: str | None,
    faults: tuple[str, ...],
    fault_seed: int | None,
    duplicates: Duplicates,
    list_lag: float,
    buckets: Buckets,
    error_format: ErrorFormat,
    unknown_cases: UnknownCases,
    malformed_ids: MalformedIds,
    incident_search: IncidentSearch,
    seed: Literal["demo"] | None,
    command: tuple[str, ...],
) -> None:
    """Run a local server that simulates Datadog, for experiments and tests.

    The server listens on 127.0.0.1 only and accepts fixed keys that are valid nowhere else. Its web page
    shows the links and requests. If COMMAND is given, it runs with DD_SITE, DD_API_KEY and DD_APP_KEY set
    to the sandbox; the sandbox ends with it and returns its exit status.
    """
    if port is None:
        port = 0 if command else 8321
    server = Sandbox(
        port=port,
        db=db or ":memory:",
        seed=seed,
        rate_limit=rate_limit,
        faults=faults,
        fault_seed=fault_seed,
        duplicates=duplicates,
        list_lag=list_lag,
        buckets=buckets,
        error_format=error_format,
        unknown_cases=unknown_cases,
        malformed_ids=malformed_ids,
        incident_search=incident_search,
        draw_graph=sandbox_graph.draw,
    )
    try:
        if command:
            context.exit(run(_run(server, command)))
        run(_serve(server, "list SHOP-2" if seed else f"create {_AN_INCIDENT} causes {_A_CASE}"))
    except RunInterruptedError:
        with contextlib.suppress(OutputError):  # it has served to its end
            click.echo("\nSandbox stopped.")


async def _serve(server: Sandbox, example: str) -> None:
    async with server:
        click.echo("The sandbox is running. Its keys are not secret. In another terminal:\n")
        click.echo(f"  {_assignments(server.environment, is_windows=sys.platform == 'win32')}")
        click.echo(f"  caselinks {example}\n")
        click.echo(f"Links and requests: {server.url}/   Stop the sandbox with Ctrl-C.")
        await asyncio.Event().wait()


def _assignments(variables: dict[str, str], *, is_windows: bool) -> str:
    """Return the command that sets ``variables`` in a POSIX shell, or in PowerShell."""
    if is_windows:
        return "; ".join(f'$env:{name} = "{value}"' for name, value in variables.items())
    return " ".join(["export", *(f"{name}={value}" for name, value in variables.items())])


async def _run(server: Sandbox, command: tuple[str, ...]) -> int:
    process: asyncio.subprocess.Process | None = None
    is_ending = False

    def end(_: signal.Signals) -> None:
        nonlocal is_ending
        is_ending = True
        if process:
            process.terminate()

    async with server:
        environment = {name: value for name, value in os.environ.items() if name not in TOKEN_VARIABLES}
        # Ctrl-C reaches the command too, which may still need the server while it shuts down.
        with on_signals(lambda _: None, signal.SIGINT), on_signals(end, *ending_signals()):
            process = await asyncio.create_subprocess_exec(*command, env=environment | server.environment)
            if is_ending:  # a signal arrived while the command started
                process.terminate()
            status = await process.wait()
        return status if status >= 0 else 128 - status  # the status that shells report for a signal
