"""Links a chain of cases, each blocking the next, all at once.

Against a sandbox:  caselinks sandbox -- python examples/gather.py
Against Datadog:    python examples/gather.py SHOP-1 SHOP-2 …    (your cases, with DD_* in the environment)
"""

import asyncio
import sys
from itertools import pairwise
from uuid import uuid4

from datadog_caselinks import CaseLinksClient, CaseLinksError, Resolver, parse_link


async def link(links: CaseLinksClient, resolver: Resolver, parent: str, child: str) -> bool:
    """Link two cases, and tell whether it could be done."""
    try:
        wanted = parse_link(parent, "blocks", child, site=links.site)
        made = await links.create_link(await resolver.link(wanted))
    except CaseLinksError as error:
        print(f"not made: {parent} blocks {child}\n  {error}")
        return False
    print(f"made:     {parent} blocks {child}, as {made.id}")
    return True


async def main(names: list[str]) -> bool:
    """Link the cases in the order of ``names``, and tell whether all could be."""
    async with CaseLinksClient.from_env() as links:
        resolver = links.resolver()  # asks for each case once, though two links want it at the same time
        made = await asyncio.gather(*(link(links, resolver, *pair) for pair in pairwise(names)))
    print(f"{sum(made)} of {len(made)} links made")
    return all(made)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        sys.exit("name two cases or more")
    # The sandbox takes any UUID; Datadog wants cases that exist.
    names = sys.argv[1:] or [str(uuid4()) for _ in range(10)]
    sys.exit(0 if asyncio.run(main(names)) else 1)
