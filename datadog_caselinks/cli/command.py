"""The group of subcommands, and how every error ends: in a line that says what to do, and a status.

A subcommand's module is imported when it is called, so that ``--help`` and ``--version`` answer at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

import click

from datadog_caselinks.cli.interruption import RunInterruptedError
from datadog_caselinks.cli.streams import OutputError
from datadog_caselinks.errors import (
    CaseLinksError,
    ConfigurationError,
    FleetError,
    InvalidLinkError,
    JournalError,
    LinkFileError,
)

_COMMANDS: Final = {
    "create": ("link", "Create the link PARENT RELATIONSHIP CHILD."),
    "ensure": ("link", "Create the link PARENT RELATIONSHIP CHILD unless it is there."),
    "list": ("link", "List the links in which ENTITY stands on either side."),
    "delete": ("link", "Delete links by their ids, as list and create show them."),
    "bulk": ("bulk", "Create the links that FILE lists; - is standard input."),
    "plan": ("plan", "Show what to create and delete so that the links are as FILE states them."),
    "graph": ("graph", "Draw the links around ENTITY: as a tree, Mermaid, DOT, SVG, or an HTML page."),
    "journal": ("journal", "Look at the journal of a bulk run."),
    "fleet": ("fleet", "Let many machines create the links of a file, by way of a PostgreSQL."),
    "doctor": ("doctor", "Check whether links can be created from here, step by step."),
    "sandbox": (
        "sandbox",
        "Run a local Datadog that links cases: a server to try things out and to test against.",
    ),
}
"""The module of each subcommand, and the first sentence of its help."""


class _Failure(click.ClickException):
    exit_code = 1


class _NothingSent(click.ClickException):
    exit_code = 2


class _Group(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        """The subcommands, in the order in which they are of use."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The subcommand, of which the module is imported now."""
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
            formatter.write_dl([(name, summary) for name, (_, summary) in _COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand. What it raises ends as one line and a status."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # while the subcommand is imported, or a second one
            ctx.exit(130)
        except RunInterruptedError as interruption:
            click.echo("Interrupted.", err=True)
            ctx.exit(interruption.exit_status)
        except (
            InvalidLinkError,
            LinkFileError,
            ConfigurationError,
            JournalError,
            FleetError,
        ) as error:
            raise _NothingSent(str(error)) from error
        except (CaseLinksError, OutputError) as error:
            raise _Failure(str(error)) from error
        except OSError as error:
            parts = (error.filename, error.strerror or error)
            raise _NothingSent(": ".join(str(part) for part in parts if part)) from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="datadog_caselinks", prog_name="caselinks")
def caselinks() -> None:
    """Links Datadog cases, incidents and pages.

    \b
    The site and the credentials come from the environment:
      DD_SITE                     such as datadoghq.eu; datadoghq.com if not set
      DD_API_KEY and DD_APP_KEY   or else DD_BEARER_TOKEN

    \b
    Try it without any:
      caselinks list --sandbox SHOP-2

    \b
    An entity is written as:
      SHOP-1                the key of a case
      UUID                  the id of a case
      https://…/cases/…     the address of a case in the browser
      incident:UUID         an incident; likewise page:UUID, conversation:UUID

    \b
    Exit status:
      0    all was done
      1    something was not
      2    nothing was sent: usage, configuration, or no such file
      130  interrupted by Ctrl-C; 143 by SIGTERM, 129 by SIGHUP
    """
