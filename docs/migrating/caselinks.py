"""What docs/migrating.md shows of this."""

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
    """DD_SITE, DD_API_KEY and DD_APP_KEY."""
    async with CaseLinksClient.from_env(
        site,
        retry=RetryPolicy(max_attempts=6),
    ) as links:
        yield links


async def block(
    links: CaseLinksClient,
    parent: str,
    child: str,
) -> str:
    """Make a link, and give its id."""
    new = case(parent).blocks(case(child))
    return (await links.create_link(new)).id


async def blocked_by(
    links: CaseLinksClient, parent: str
) -> dict[str, str]:
    """The blocked cases, each with its link."""
    found = await links.list_links(
        case(parent),
        relationship=Relationship.BLOCKS,
    )
    return {
        link.child.id: link.id
        for link in found
        if link.parent == case(parent)
    }


async def unblock(
    links: CaseLinksClient,
    parent: str,
    child: str,
) -> None:
    """Delete the link between two cases."""
    blocked = await blocked_by(links, parent)
    await links.delete_link(blocked[child])


async def ensure_blocked(
    links: CaseLinksClient,
    parent: str,
    child: str,
) -> str:
    """Make the link, unless it is there."""
    new = case(parent).blocks(case(child))
    link, _ = await links.ensure_link(new)
    return link.id


async def try_to_block(
    links: CaseLinksClient,
    parent: str,
    child: str,
) -> str:
    """Make a link, and say what came of it."""
    try:
        await block(links, parent, child)
    except AuthenticationError:
        return "not linked: check the keys"
    except AmbiguousResultError:
        return "perhaps linked"
    except CaseLinksError as error:
        return f"not linked: {error}"
    return "linked"


async def block_all(
    links: CaseLinksClient,
    pairs: Iterable[tuple[str, str]],
) -> list[str | BaseException]:
    """Make links, and give ids or errors."""
    return await asyncio.gather(
        *(block(links, *pair) for pair in pairs),
        return_exceptions=True,
    )


async def title(
    links: CaseLinksClient, key: str
) -> str:
    """The title of a case."""
    return (await links.get_case(key)).title
