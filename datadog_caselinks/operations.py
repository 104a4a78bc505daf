"""List, get and delete: operations that are safe to repeat, so each is retried as the policy says."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TypeVar
from uuid import UUID

from datadog_caselinks.errors import CaseLinksError, MalformedResponseError, NotFoundError
from datadog_caselinks.http import wire
from datadog_caselinks.http.memory import Memory
from datadog_caselinks.http.requester import Requester
from datadog_caselinks.http.wire import Request, Response
from datadog_caselinks.models import Case, CaseLink, Entity, Identity, Relationship, identity
from datadog_caselinks.retry import Attempts, RetryBudget, RetryPolicy, with_retries

T = TypeVar("T")


def ids_by_identity(links: Iterable[CaseLink]) -> dict[Identity, str]:
    """Return the id of each link; of equal links, that of the first."""
    ids: dict[Identity, str] = {}
    for link in links:
        ids.setdefault(identity(link), link.id)
    return ids


class Operations:
    """Lists, gets and deletes through ``requester``."""

    def __init__(
        self, requester: Requester, memory: Memory, policy: RetryPolicy, budget: RetryBudget
    ) -> None:
        self._requester = requester
        self._memory = memory
        self._policy = policy
        self._budget = budget

    async def list_links(self, entity: Entity, relationship: Relationship | None = None) -> list[CaseLink]:
        """Return the links of ``entity``, all or those of one ``relationship``."""
        request = wire.list_request(entity, relationship)
        return await self._fetch(request, wire.read_links, self._attempts())

    async def find_links(
        self, entity: Entity, identities: Collection[Identity]
    ) -> Mapping[Identity, CaseLink]:
        """Return the first link of ``entity`` that has each of ``identities``, and keep no others."""

        def find(response: Response) -> Mapping[Identity, CaseLink]:
            found: dict[Identity, CaseLink] = {}
            for link in wire.read_links(response):
                if (key := identity(link)) in identities:
                    found.setdefault(key, link)
            return found

        return await self._look_up(entity, find)

    async def list_ids(self, entity: Entity) -> Mapping[Identity, str]:
        """Return the id of each link of ``entity``; of equal links, that of the first."""

        def ids(response: Response) -> Mapping[Identity, str]:
            return ids_by_identity(wire.read_links(response))

        return await self._look_up(entity, ids)

    async def _look_up(self, entity: Entity, read: Callable[[Response], T]) -> T:
        # A lookup earns no budget: where creates fail and lists do not, it would never be spent.
        return await self._fetch(wire.list_request(entity, None), read, self._attempts(), earns_budget=False)

    async def get_case(self, key_or_id: str | UUID) -> Case:
        """Return the case with this key or UUID.

        A case with another key is requested again, on another connection: if its project was renamed, both
        responses are about the same case.
        """
        request = wire.case_request(key_or_id)
        case = await self._fetch(request, wire.read_case, self._attempts())
        if wire.has_requested_key(case, request):
            return case
        again = await self._fetch(request, wire.read_case, self._attempts())
        if again.id != case.id and not wire.has_requested_key(again, request):
            raise MalformedResponseError(
                f"cannot {request.action}: two responses are about two other cases", body=""
            )
        return again

    async def delete_link(self, link_id: str) -> None:
        """Delete the link with this id. A 404 is a success if an earlier attempt may have deleted it."""
        await self._delete(_Deletion(wire.delete_request(link_id), self._attempts()))

    def _attempts(self) -> Attempts:
        return Attempts(self._policy, self._budget)

    @with_retries
    async def _fetch(
        self,
        request: Request,
        read: Callable[[Response], T],
        attempts: Attempts,
        *,
        earns_budget: bool = True,
    ) -> T:
        try:
            result = await self._memory.read(request, read, attempts.last_failure)
        except CaseLinksError as error:
            raise attempts.error_to_raise(error)  # noqa: B904 - its context is the error itself
        if earns_budget:
            self._budget.give_back()
        else:
            self._budget.note_success()
        return result

    @with_retries
    async def _delete(self, deletion: _Deletion) -> None:
        try:
            response = await self._requester.send(deletion.request, deletion.attempts.last_failure)
            deletion.may_be_done |= response.was_resent
            wire.read_deleted(response)
        except CaseLinksError as error:
            if not (isinstance(error, NotFoundError) and deletion.may_be_done):
                deletion.may_be_done |= error.may_have_been_applied
                raise deletion.attempts.error_to_raise(error)  # noqa: B904 - its context is the error itself
        self._budget.give_back()


class _Deletion:
    """One call of ``delete_link``, over all of its attempts."""

    def __init__(self, request: Request, attempts: Attempts) -> None:
        self.request = request
        self.attempts = attempts
        self.may_be_done = False
