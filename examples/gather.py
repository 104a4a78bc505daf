"""Links a chain of cases, each blocking the next, all at once.

Against a sandbox:  caselinks sandbox -- python examples/gather.py
Against Datadog:    python examples/gather.py UUID UUID …    (your cases, with DD_* in the environment)
"""

import asyncio
import sys
from itertools import pairwise
from uuid import uuid4

from datadog_caselinks import CaseLinksClient, CaseLinksError, case


async def main(ids: list[str]) -> None:
    """Link ``ids`` in their order, then show what is at the second of them."""
    wanted = [case(a).blocks(case(b)) for a, b in pairwise(ids)]
    async with CaseLinksClient.from_env() as links:
        results = await asyncio.gather(*(links.create_link(new) for new in wanted), return_exceptions=True)
        for new, result in zip(wanted, results, strict=True):
            if isinstance(result, CaseLinksError):
                print(f"not made: {new}\n  {result}")
            else:
                print(f"made:     {result}")
        around = await links.list_links(case(ids[1]))
        print(f"{len(around)} links at case {ids[1]}")


if __name__ == "__main__":
    if len(sys.argv) == 2:
        sys.exit("give the ids of two cases or more")
    # The sandbox takes any UUID; Datadog wants cases that exist.
    asyncio.run(main(sys.argv[1:] or [str(uuid4()) for _ in range(10)]))
