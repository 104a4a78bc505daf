"""The command ``caselinks``. Its libraries come with the extra ``cli``."""

import sys


def main() -> None:
    """Run the command, or say what to install for it."""
    try:
        from datadog_caselinks.cli import streams
        from datadog_caselinks.cli.command import caselinks

        streams.prepare()
        caselinks(prog_name="caselinks")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("click", "rich"):
            raise
        sys.exit("caselinks: the command needs its extra: pip install 'datadog_caselinks[cli]'")
    except KeyboardInterrupt:
        sys.exit(130)
