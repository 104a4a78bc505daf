"""The group of subcommands, and how every error ends: in a line that says what to do, and a status."""

from __future__ import annotations

from typing import Any

import click

from datadog_caselinks.cli.bulk import bulk
from datadog_caselinks.cli.journal import journal
from datadog_caselinks.cli.sandbox import sandbox
from datadog_caselinks.errors import CaseLinksError


class _Usage(click.ClickException):
    exit_code = 2


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand. What it raises concerns the command as a whole: a usage error."""
        try:
            return super().invoke(ctx)
        except CaseLinksError as error:
            raise _Usage(str(error)) from error
        except OSError as error:
            parts = (error.filename, error.strerror or error)
            raise _Usage(": ".join(str(part) for part in parts if part)) from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="datadog_caselinks", prog_name="caselinks")
def caselinks() -> None:
    """Links Datadog cases, incidents and pages.

    \b
    The site and the credentials come from the environment:
      DD_SITE                     such as datadoghq.eu; datadoghq.com if not set
      DD_API_KEY and DD_APP_KEY   or else DD_BEARER_TOKEN
    """


caselinks.add_command(bulk)
caselinks.add_command(journal)
caselinks.add_command(sandbox)
