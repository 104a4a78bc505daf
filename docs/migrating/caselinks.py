"""The functions for docs/migrating.md."""

import asyncio
from collections.abc import (
    AsyncIterator,
    Iterable,
)
from contextlib import asynccontextmanager

from datadog_caselinks import (
    AmbiguousResultError,
    AuthenticationError,
    CaseLinksClient,
    CaseLinksError,
    Relationship,
    RetryPolicy,
    case,
)


@asynccontextmanager
async def opened(
    site: str | None = None,
) -> AsyncIterator[CaseLinksClient]:
    """Open a client from DD_* variables."""
    async with CaseLinksClient.from_env(
        site,
        retry=RetryPolicy(max_attempts=6),
    ) as client:
        yield client


async def block(
    client: CaseLinksClient,
    parent: str,
    child: str,
) -> str:
    """Create a link and return its id."""
    new = case(parent).blocks(case(child))
    return (await client.create_link(new)).id


async def blocked_by(
    client: CaseLinksClient, parent: str
) -> dict[str, str]:
    """Return blocked cases and their links."""
    found = await client.list_links(
        case(parent),
        relationship=Relationship.BLOCKS,
    )
    return {
        link.child.id: link.id
        for link in found
        if link.parent == case(parent)
    }


async def unblock(
    client: CaseLinksClient,
    parent: str,
    child: str,
) -> None:
    """Delete the link between two cases."""
    link = case(parent).blocks(case(child))
    await client.delete_link(link)


async def ensure_blocked(
    client: CaseLinksClient,
    parent: str,
    child: str,
) -> str:
    """Create the link unless it exists."""
    new = case(parent).blocks(case(child))
    link, _ = await client.ensure_link(new)
    return link.id


async def try_to_block(
    client: CaseLinksClient,
    parent: str,
    child: str,
) -> str:
    """Create a link and describe the result."""
    try:
        await block(client, parent, child)
    except AuthenticationError:
        return "not linked: check the keys"
    except AmbiguousResultError:
        return "perhaps linked"
    except CaseLinksError as error:
        return f"not linked: {error}"
    return "linked"


async def block_all(
    client: CaseLinksClient,
    pairs: Iterable[tuple[str, str]],
) -> list[str | BaseException]:
    """Create links; return ids or errors."""
    return await asyncio.gather(
        *(block(client, *pair) for pair in pairs),
        return_exceptions=True,
    )


async def title(
    client: CaseLinksClient, key: str
) -> str:
    """Return the title of a case."""
    return (await client.get_case(key)).title
