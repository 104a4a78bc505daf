"""The group of subcommands. Turns every error into a message and an exit status.

The module of a subcommand is imported when it is called, so that ``--help`` and ``--version`` are fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

import click

from datadog_caselinks.cli.groups import Group
from datadog_caselinks.cli.interruption import RunInterruptedError
from datadog_caselinks.values.errors import (
    CaseLinksError,
    ConfigurationError,
    FleetError,
    InvalidLinkError,
    JournalError,
    LinkFileError,
    ParameterError,
)
from datadog_caselinks.version import __version__

_COMMANDS: Final = {
    "create": ("link", "Create the link PARENT RELATIONSHIP CHILD."),
    "ensure": ("link", "Create the link PARENT RELATIONSHIP CHILD unless it exists."),
    "list": ("link", "List the links that have ENTITY as parent or child."),
    "delete": ("link", "Delete links by their ids or ends."),
    "find": ("find", "Find cases (work items) by their text, or by a filter."),
    "show": ("find", "Show the key, title, status, UUID, URL and links of ENTITY."),
    "bulk": ("bulk", "Create the links in FILE that do not exist yet; - is standard input."),
    "undo": ("undo", "Delete the links that RUN created, and no others, after showing them."),
    "plan": ("plan", "Show which links to create and delete to match FILE."),
    "graph": (
        "graph",
        "Draw the links around entities as a tree, Mermaid, DOT, SVG, or an HTML page.",
    ),
    "journal": ("journal", "Show the journal of a bulk run."),
    "fleet": ("fleet", "Create the links in a file on many machines that share a PostgreSQL database."),
    "mcp": ("mcp", "Serve tools for agents over the Model Context Protocol (MCP)."),
    "doctor": ("doctor", "Check step by step whether this machine can create links."),
    "sandbox": ("sandbox", "Run a local server that simulates Datadog, for experiments and tests."),
}
"""The module of each subcommand, and the first paragraph of its help."""


class _Failure(click.ClickException):
    exit_code = 1


class _NothingSent(click.ClickException):
    exit_code = 2


class _Group(Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the subcommands, most commonly used first."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of the subcommand and return the subcommand."""
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(f"datadog_caselinks.cli.{_COMMANDS[cmd_name][0]}")
        return next(
            command
            for command in vars(module).values()
            if isinstance(command, click.Command) and command.name == cmd_name
        )

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the subcommands without importing them."""
        with formatter.section("Commands"):
            rows = [(name, summary) for name, (_, summary) in _COMMANDS.items()]
            formatter.write_dl([*rows, ("help", "Show the help of a command.")])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand. An error ends as one line and an exit status."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # during the import of the subcommand, or a second Ctrl-C
            ctx.exit(130)
        except RunInterruptedError as interruption:
            click.echo("Interrupted.", err=True)
            ctx.exit(interruption.exit_status)
        except (
            InvalidLinkError,
            LinkFileError,
            ConfigurationError,
            ParameterError,
            JournalError,
            FleetError,
        ) as error:
            raise _NothingSent(str(error)) from error
        except CaseLinksError as error:
            raise _Failure(str(error)) from error
        except OSError as error:
            parts = (error.filename, error.strerror or error)
            raise _NothingSent(": ".join(str(part) for part in parts if part)) from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="caselinks")
def caselinks() -> None:
    """Link Datadog cases, incidents and pages.

    \b
    The site and the credentials come from the environment:
      DD_SITE                     such as datadoghq.eu; the default is datadoghq.com
      DD_API_KEY and DD_APP_KEY   or instead DD_BEARER_TOKEN or DD_ACCESS_TOKEN

    \b
    To try it without an account:
      caselinks list --sandbox SHOP-2

    \b
    Ways to write an entity:
      SHOP-1                the key of a case
      UUID                  the id of a case
      https://…/cases/…     the URL of a case in the browser; also https://…/work/…
      incident:123          an incident by its number; also incident:IR-123,
                            incident:UUID, https://…/incidents/123
      page:UUID             an on-call page; the response to its creation has the UUID
      conversation:UUID     an agent conversation; list shows the UUIDs of linked ones

    \b
    Exit status:
      0    everything succeeded
      1    something failed
      2    nothing was sent: wrong usage, configuration or file
      3    changes are pending (plan --check)
      130  interrupted by Ctrl-C; 143 by SIGTERM, 129 by SIGHUP
    """
