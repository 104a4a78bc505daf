"""``python -m tests.live [REPORT]``: write a report on Datadog's responses (``live-report.md``).

The environment contains the site and the credentials, as for :meth:`CaseLinksClient.from_env`, and in
``CASELINKS_LIVE_CASES`` the keys of two cases to link: ``ABC-1,ABC-2``.
"""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from datadog_caselinks import CaseLinksError, ConfigurationError, SessionManager
from datadog_caselinks.values.credentials import credentials_from_env
from datadog_caselinks.values.sites import site_from_env
from tests.live.probe import Probe
from tests.live.questions import Finding, findings
from tests.live.report import report


def main(path: str = "live-report.md") -> int:
    """Run the suite, write the report, and return 1 if there is a problem or a link remains."""
    keys = os.environ.get("CASELINKS_LIVE_CASES", "").replace(" ", "").split(",")
    if len(keys) != 2 or not all(keys):
        raise ConfigurationError("CASELINKS_LIVE_CASES must be the keys of two cases, such as ABC-1,ABC-2")
    site, credentials = site_from_env(), credentials_from_env()
    probe = Probe(site, credentials, SessionManager())
    try:
        found = asyncio.run(_ask(probe, (keys[0], keys[1])))
    finally:
        for link_id in sorted(probe.left):  # also after Ctrl-C
            print(f"not deleted: link {link_id}")
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    about = f"{site.api_url} at {now}, asked of {' and '.join(keys)}"
    Path(path).write_text(report(found, about=about))
    for finding in found:
        print(f"{finding.question} {finding.answer}")
        if finding.problem:
            print(f"  against the documents: {finding.problem}")
    print(f"written to {path}")
    return 1 if probe.left or any(finding.problem for finding in found) else 0


async def _ask(probe: Probe, keys: tuple[str, str]) -> list[Finding]:
    async with probe.sessions:
        return await findings(probe, keys)


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except CaseLinksError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("broken off; no report is written")
        sys.exit(130)  # as shells report Ctrl-C
