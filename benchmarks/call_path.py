"""Count the functions of the package that one ``create_link`` calls, with ``sys.setprofile``.

The program prints the number of functions and files for a create that succeeds at once, and for one whose
first attempt gets a 503; with ``--list`` the functions too. The client has created one link before, so that
imports do not count.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from types import CodeType
from typing import Any

import datadog_caselinks
from datadog_caselinks import CaseLinksClient, RetryPolicy, WantedLink, case
from datadog_caselinks.sandbox import Fault, Sandbox

ROOT = Path(datadog_caselinks.__path__[0])
NEW = case("4417921d-0866-4a38-822c-6f2a0f65f77d").blocks(case("c9a888ae-bfd4-5ac6-a16a-d64ccec67c1a"))
POLICY = RetryPolicy(base=0, settle=0)


async def passed(client: CaseLinksClient, new: WantedLink) -> set[CodeType]:
    """Return the functions of the package that one create calls."""
    seen: set[CodeType] = set()

    def profile(frame: Any, event: str, _: object) -> None:
        if event == "call" and Path(frame.f_code.co_filename).is_relative_to(ROOT):
            seen.add(frame.f_code)

    sys.setprofile(profile)
    try:
        await client.create_link(new)
    finally:
        sys.setprofile(None)
    return seen


async def main() -> None:
    """Count the functions for both creates, and print them."""
    with Sandbox().in_thread() as sandbox:  # setprofile counts only this thread
        async with CaseLinksClient(sandbox.site, sandbox.credentials, retry=POLICY) as client:
            await client.create_link(NEW)
            print_path("success", await passed(client, NEW))
            sandbox.fail_next(Fault.HTTP_503, operation="create")
            print_path("503, then success", await passed(client, NEW))


def print_path(name: str, seen: set[CodeType]) -> None:
    """Print the number of functions, and with ``--list`` their names."""
    files = {code.co_filename for code in seen}
    print(f"{name}: {len(seen)} functions in {len(files)} files")
    if "--list" in sys.argv:
        for code in sorted(seen, key=lambda each: (each.co_filename, each.co_firstlineno)):
            print(f"  {Path(code.co_filename).relative_to(ROOT)} {code.co_qualname}")


if __name__ == "__main__":
    asyncio.run(main())
