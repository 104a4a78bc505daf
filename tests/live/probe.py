"""A probe that sends single requests, and records the responses and the links to delete again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, cast

from attrs import frozen
from multidict import CIMultiDictProxy

from datadog_caselinks import (
    ApiKeys,
    CaseLink,
    CaseLinksError,
    Entity,
    NewCaseLink,
    NotFoundError,
    RateLimitError,
    Relationship,
    SessionManager,
    Site,
)
from datadog_caselinks.client import DEFAULT_TIMEOUT
from datadog_caselinks.http import wire
from datadog_caselinks.http.transport import Transport
from datadog_caselinks.http.wire import Request, Response
from datadog_caselinks.values.credentials import Credentials

RELATIONSHIP: Final = Relationship.BLOCKS
WRONG_KEYS: Final = ApiKeys(api_key="wrong-api-key", app_key="wrong-app-key")

_MANY_REJECTIONS: Final = 10
_LONGEST_WAIT: Final = 120.0


@frozen
class Exchange:
    """A request, its response, and the seconds between them."""

    request: Request
    answer: Response
    seconds: float

    @property
    def is_success(self) -> bool:
        return 200 <= self.answer.status < 300

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        """The headers of the response."""
        return cast("CIMultiDictProxy[str]", self.answer.headers)

    def error(self) -> CaseLinksError | None:
        """Return the error that the client raises for the status of the response, if any."""
        if 200 <= self.answer.status < 300:
            return None
        try:
            wire.read_deleted(self.answer)
        except CaseLinksError as error:
            return error
        return None


class Probe:
    """A client that sends one request at a time, and records all responses and the created links.

    ``sleep`` and ``now`` use the same clock, in seconds.
    """

    def __init__(
        self,
        site: Site,
        credentials: Credentials,
        sessions: SessionManager,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.sessions = sessions
        self.sleep = sleep
        self.now = now
        self.seen: list[Exchange] = []
        self.left: set[str] = set()
        self._transport, self._without_keys = (
            Transport(site, each, sessions, timeout=DEFAULT_TIMEOUT, proxy=None, ssl=None)
            for each in (credentials, WRONG_KEYS)
        )
        self._entities: set[Entity] = set()
        self._strangers: set[str] = set()

    async def send(self, request: Request, *, wrong_keys: bool = False) -> Exchange:
        """Send a request, and again only after a 429 and the wait that it requests."""
        transport = self._without_keys if wrong_keys else self._transport
        for _ in range(_MANY_REJECTIONS):
            auth, begun = await transport.authenticate(), self.now()
            exchange = Exchange(request, await transport.send(request, auth), self.now() - begun)
            self.seen.append(exchange)
            rejection = exchange.error()
            if not isinstance(rejection, RateLimitError):
                break
            await self.sleep(min(rejection.retry_after or 1.0, _LONGEST_WAIT))
        return exchange

    async def case(self, key: str) -> Entity:
        """Return a case to link; its present links will not be deleted."""
        entity = wire.read_case((await self.send(wire.case_request(key))).answer).entity
        self._strangers |= {link.id for link in await self.links(entity)}
        self._entities.add(entity)
        return entity

    async def links(self, entity: Entity) -> list[CaseLink]:
        """Return the links of ``entity``."""
        return wire.read_links((await self.send(wire.list_request(entity, None))).answer)

    async def create(self, new: NewCaseLink) -> Exchange:
        """Create a link, to be deleted in :meth:`clean_up`."""
        self._entities |= {new.parent, new.child}
        exchange = await self.send(wire.create_request(new))
        if exchange.is_success:
            self.left.add(wire.read_link(exchange.answer).id)
        return exchange

    async def clean_up(self) -> None:
        """Delete all created links; the links that cannot be deleted stay in ``left``.

        A link whose response was lost is found in the lists of the cases.
        """
        for entity in list(self._entities):
            try:
                self.left |= {link.id for link in await self.links(entity) if self._is_ours(link)}
            except CaseLinksError:
                continue  # not a case, so there may be no list; or no response
        for link_id in sorted(self.left):
            try:
                wire.read_deleted((await self.send(wire.delete_request(link_id))).answer)
            except NotFoundError:
                pass  # it is gone
            except CaseLinksError:
                continue
            self.left.discard(link_id)

    def _is_ours(self, link: CaseLink) -> bool:
        ends = {link.parent, link.child}
        return ends <= self._entities and link.relationship == RELATIONSHIP and link.id not in self._strangers
