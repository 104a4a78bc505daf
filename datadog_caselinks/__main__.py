"""``python -m datadog_caselinks`` is the command ``caselinks``."""

from datadog_caselinks.cli import main

main()
