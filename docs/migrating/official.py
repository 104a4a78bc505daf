"""The functions for docs/migrating.md."""

import asyncio
from collections.abc import (
    AsyncIterator,
    Iterable,
)
from contextlib import asynccontextmanager

from aiosonic.exceptions import AiosonicError
from datadog_api_client import (
    AsyncApiClient,
    Configuration,
)
from datadog_api_client.exceptions import (
    ApiException,
    UnauthorizedException,
)
from datadog_api_client.v2.api.case_management_api import (
    CaseManagementApi,
)
from datadog_api_client.v2.model.case_link_attributes import (
    CaseLinkAttributes,
)
from datadog_api_client.v2.model.case_link_create import (
    CaseLinkCreate,
)
from datadog_api_client.v2.model.case_link_create_request import (
    CaseLinkCreateRequest,
)
from datadog_api_client.v2.model.case_link_resource_type import (
    CaseLinkResourceType,
)


@asynccontextmanager
async def opened(
    host: str | None = None,
) -> AsyncIterator[CaseManagementApi]:
    """Open a client from DD_* variables."""
    configuration = Configuration(
        host=host,
        enable_retry=True,
        max_retries=5,
    )
    async with AsyncApiClient(
        configuration
    ) as client:
        yield CaseManagementApi(client)


async def block(
    api: CaseManagementApi,
    parent: str,
    child: str,
) -> str:
    """Create a link and return its id."""
    attributes = CaseLinkAttributes(
        parent_entity_type="CASE",
        parent_entity_id=parent,
        relationship="BLOCKS",
        child_entity_type="CASE",
        child_entity_id=child,
    )
    data = CaseLinkCreate(
        attributes=attributes,
        type=CaseLinkResourceType.LINK,
    )
    body = CaseLinkCreateRequest(data=data)
    response = await api.create_case_link(
        body=body
    )
    link_id: str = response.data.id
    return link_id


async def blocked_by(
    api: CaseManagementApi, parent: str
) -> dict[str, str]:
    """Return blocked cases and their links."""
    response = await api.list_case_links(
        "CASE", parent, relationship="BLOCKS"
    )
    links = (
        (it.id, it.attributes)
        for it in response.data
    )
    return {
        link.child_entity_id: link_id
        for link_id, link in links
        if link.parent_entity_id == parent
    }


async def unblock(
    api: CaseManagementApi,
    parent: str,
    child: str,
) -> None:
    """Delete the link between two cases."""
    blocked = await blocked_by(api, parent)
    await api.delete_case_link(blocked[child])


async def ensure_blocked(
    api: CaseManagementApi,
    parent: str,
    child: str,
) -> str:
    """Create the link unless it exists."""
    blocked = await blocked_by(api, parent)
    if child in blocked:
        return blocked[child]
    return await block(api, parent, child)


async def try_to_block(
    api: CaseManagementApi,
    parent: str,
    child: str,
) -> str:
    """Create a link and describe the result."""
    try:
        await block(api, parent, child)
    except UnauthorizedException:
        return "not linked: check the keys"
    except ApiException as error:
        if error.status >= 500:
            return "perhaps linked"
        return f"not linked: {error.body}"
    except (AiosonicError, EOFError, OSError):
        return "perhaps linked"
    return "linked"


async def block_all(
    api: CaseManagementApi,
    pairs: Iterable[tuple[str, str]],
) -> list[str | BaseException]:
    """Create links; return ids or errors."""
    slots = asyncio.Semaphore(100)

    async def in_slot(
        parent: str, child: str
    ) -> str:
        async with slots:
            return await block(api, parent, child)

    return await asyncio.gather(
        *(in_slot(*pair) for pair in pairs),
        return_exceptions=True,
    )


async def title(
    api: CaseManagementApi, key: str
) -> str:
    """Return the title of a case."""
    response = await api.get_case(key)
    name: str = response.data.attributes.title
    return name
