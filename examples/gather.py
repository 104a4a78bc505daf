"""Link a chain of cases, each of which blocks the next, all at once.

Against a sandbox:  caselinks sandbox -- python examples/gather.py
Against Datadog:    python examples/gather.py SHOP-1 SHOP-2 …    (your cases, with DD_* in the environment)
"""

import asyncio
import sys
from itertools import pairwise
from uuid import uuid4

from datadog_caselinks import CaseLinksClient, CaseLinksError, case


async def link(client: CaseLinksClient, parent: str, child: str) -> bool:
    """Link two cases. Return whether it succeeded."""
    try:
        created = await client.create_link(case(parent).blocks(case(child)))
    except CaseLinksError as error:
        print(f"not created: {parent} blocks {child}\n  {error}")
        return False
    print(f"created:     {parent} blocks {child}, with the id {created.id}")
    return True


async def main(names: list[str]) -> bool:
    """Link the cases in the order of ``names``. Return whether every link was created."""
    async with CaseLinksClient.from_env() as client:
        # The client looks up each case once, even if two links need it at the same time.
        created = await asyncio.gather(*(link(client, *pair) for pair in pairwise(names)))
    print(f"{sum(created)} of {len(created)} links created")
    return all(created)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        sys.exit("name at least two cases")
    # The sandbox accepts any UUID; Datadog requires cases that exist.
    names = sys.argv[1:] or [str(uuid4()) for _ in range(10)]
    sys.exit(0 if asyncio.run(main(names)) else 1)
