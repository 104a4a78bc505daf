"""Link a chain of cases, each of which blocks the next, all at once.

Against a sandbox:  caselinks sandbox -- python examples/gather.py
Against Datadog:    python examples/gather.py SHOP-1 SHOP-2 …    (your cases, with DD_* in the environment)
"""

import asyncio
import sys
from itertools import pairwise
from uuid import uuid4

from datadog_caselinks import CaseLinksClient, CaseLinksError, Resolver, parse_link


async def link(client: CaseLinksClient, resolver: Resolver, parent: str, child: str) -> bool:
    """Link two cases. Return whether it succeeded."""
    try:
        wanted = parse_link(parent, "blocks", child, site=client.site)
        created = await client.create_link(await resolver.link(wanted))
    except CaseLinksError as error:
        print(f"not created: {parent} blocks {child}\n  {error}")
        return False
    print(f"created:     {parent} blocks {child}, with the id {created.id}")
    return True


async def main(names: list[str]) -> bool:
    """Link the cases in the order of ``names``. Return whether every link was created."""
    async with CaseLinksClient.from_env() as client:
        resolver = client.resolver()  # looks up each case once, even if two links need it at the same time
        created = await asyncio.gather(*(link(client, resolver, *pair) for pair in pairwise(names)))
    print(f"{sum(created)} of {len(created)} links created")
    return all(created)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        sys.exit("name at least two cases")
    # The sandbox accepts any UUID; Datadog requires cases that exist.
    names = sys.argv[1:] or [str(uuid4()) for _ in range(10)]
    sys.exit(0 if asyncio.run(main(names)) else 1)
