"""The compared ways to create a link, each with one client, written as its users would.

Each contender has its own imports, so that a process loads no other contender.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from datadog_caselinks import CaseLinksClient, WantedLink

Pair = tuple[str, str]
"""The ids of two cases, the first of which blocks the second."""

Create = Callable[[Pair], Awaitable[object]]
Contender = Callable[..., AbstractAsyncContextManager[Create]]
"""Takes the base URL of a server; gives a function that creates one link, of any number at once."""

CONCURRENCY: Final = 100
API_KEY: Final = "sandbox-api-key"
APP_KEY: Final = "sandbox-app-key"
PATH: Final = "/api/v2/cases/link"
KEYS: Final = {"DD-API-KEY": API_KEY, "DD-APPLICATION-KEY": APP_KEY}


def _payload(pair: Pair) -> dict[str, Any]:
    return {
        "data": {
            "type": "link",
            "attributes": {
                "parent_entity_type": "CASE",
                "parent_entity_id": pair[0],
                "relationship": "BLOCKS",
                "child_entity_type": "CASE",
                "child_entity_id": pair[1],
            },
        }
    }


@asynccontextmanager
async def bare(url: str) -> AsyncIterator[Create]:
    """Create links with the minimum that aiohttp can do: fixed bytes, and a response that is not parsed."""
    import json

    import aiohttp

    slots = asyncio.Semaphore(CONCURRENCY)
    body = json.dumps(_payload(("4417921d-0866-4a38-822c-6f2a0f65f77d",) * 2)).encode()
    headers = {**KEYS, "Content-Type": "application/json"}
    async with aiohttp.ClientSession() as session:

        async def create(_: Pair) -> object:
            async with slots, session.post(url + PATH, data=body, headers=headers) as response:
                return await response.read()

        yield create


@asynccontextmanager
async def by_hand(url: str) -> AsyncIterator[Create]:
    """Create links as a careful developer would: one payload per link, with a checked and parsed response."""
    import aiohttp

    slots = asyncio.Semaphore(CONCURRENCY)
    async with aiohttp.ClientSession(headers=KEYS) as session:

        async def create(pair: Pair) -> object:
            async with slots, session.post(url + PATH, json=_payload(pair)) as response:
                if response.status != 201:
                    raise RuntimeError(f"{response.status}: {await response.text()}")
                return (await response.json())["data"]["id"]

        yield create


@asynccontextmanager
async def sdk(url: str, timeout: float = 30.0) -> AsyncIterator[Create]:
    """Create links with this SDK and the extra ``speed``. ``timeout`` is in seconds."""
    async with sdk_client(url, timeout=timeout) as links:
        _require(orjson=True)
        link = sdk_link_maker()
        yield lambda pair: links.create_link(link(pair))


@asynccontextmanager
async def sdk_plain(url: str) -> AsyncIterator[Create]:
    """Create links with this SDK without the extra: orjson cannot be imported."""
    sys.modules["orjson"] = None  # type: ignore[assignment]
    async with sdk_client(url) as links:
        _require(orjson=False)
        link = sdk_link_maker()
        yield lambda pair: links.create_link(link(pair))


def sdk_client(url: str, timeout: float = 30.0) -> CaseLinksClient:
    """Return the SDK's client, created as users create it."""
    from datadog_caselinks import ApiKeys, CaseLinksClient

    keys = ApiKeys(api_key=API_KEY, app_key=APP_KEY)
    return CaseLinksClient(url, keys, max_concurrency=CONCURRENCY, timeout=timeout)


def sdk_link_maker() -> Callable[[Pair], WantedLink]:
    """Return a function that builds a link as users of the SDK do."""
    from datadog_caselinks import case

    return lambda pair: case(pair[0]).blocks(case(pair[1]))


def _require(*, orjson: bool) -> None:
    """Raise an error unless the SDK uses the expected encoder."""
    import datadog_caselinks.http.envelope  # noqa: F401 - which the first link would import

    if ("cattrs.preconf.orjson" in sys.modules) is not orjson:
        raise RuntimeError(f"orjson should {'' if orjson else 'not '}be in use: install the extra 'speed'")


@asynccontextmanager
async def official(url: str) -> AsyncIterator[Create]:
    """Create links with Datadog's own async client, 100 calls at once."""
    async with _official(url) as create:
        yield _at_once(create)


@asynccontextmanager
async def official_retrying(url: str) -> AsyncIterator[Create]:
    """Create links with Datadog's own async client and its retry enabled."""
    async with _official(url, enable_retry=True) as create:
        yield create


@asynccontextmanager
async def official_retrying_in_slots(url: str) -> AsyncIterator[Create]:
    """Create links with Datadog's own async client and its retry enabled, 100 calls at once."""
    async with _official(url, enable_retry=True) as create:
        yield _at_once(create)


@asynccontextmanager
async def _official(url: str, **options: bool) -> AsyncIterator[Create]:
    from datadog_api_client import AsyncApiClient, Configuration
    from datadog_api_client.v2.api.case_management_api import CaseManagementApi
    from datadog_api_client.v2.model.case_link_attributes import CaseLinkAttributes
    from datadog_api_client.v2.model.case_link_create import CaseLinkCreate
    from datadog_api_client.v2.model.case_link_create_request import CaseLinkCreateRequest
    from datadog_api_client.v2.model.case_link_resource_type import CaseLinkResourceType

    keys = {"apiKeyAuth": API_KEY, "appKeyAuth": APP_KEY}
    configuration: Any = Configuration(host=url, api_key=keys, **options)
    async with AsyncApiClient(configuration) as client:
        api: Any = CaseManagementApi(client)

        async def create(pair: Pair) -> object:
            attributes = CaseLinkAttributes(
                parent_entity_type="CASE",
                parent_entity_id=pair[0],
                relationship="BLOCKS",
                child_entity_type="CASE",
                child_entity_id=pair[1],
            )
            data = CaseLinkCreate(attributes=attributes, type=CaseLinkResourceType.LINK)
            return await api.create_case_link(body=CaseLinkCreateRequest(data=data))

        yield create


def _at_once(create: Create) -> Create:
    slots = asyncio.Semaphore(CONCURRENCY)

    async def create_in_slot(pair: Pair) -> object:
        async with slots:
            return await create(pair)

    return create_in_slot


CONTENDERS: Final[dict[str, Contender]] = {
    "bare": bare,
    "by_hand": by_hand,
    "sdk": sdk,
    "sdk_plain": sdk_plain,
    "official": official,
    "official_retrying": official_retrying,
    "official_retrying_in_slots": official_retrying_in_slots,
}


def official_is_installed() -> bool:
    """Return whether Datadog's client is installed."""
    return find_spec("datadog_api_client") is not None
