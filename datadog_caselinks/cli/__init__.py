"""The command ``caselinks``. Needs the extra ``cli``."""

import sys


def main() -> None:
    """Run the command, or print what to install if the extra ``cli`` is missing."""
    try:
        from datadog_caselinks.cli import streams
        from datadog_caselinks.cli.command import caselinks

        streams.prepare()
        caselinks(prog_name="caselinks")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("click", "rich"):
            raise
        from datadog_caselinks.values.messages import needs_extra

        sys.exit(f"caselinks: {needs_extra('the command', 'cli')}")
    except KeyboardInterrupt:
        sys.exit(130)
