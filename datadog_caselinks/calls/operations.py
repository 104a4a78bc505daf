"""List, get, search and delete. All are safe to repeat, so the client retries them as the policy says."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final, TypeVar
from uuid import UUID

from attrs import frozen

from datadog_caselinks.calls.recent_links import RecentLinks
from datadog_caselinks.calls.retry import Attempts, RetryBudget, RetryPolicy, with_retries
from datadog_caselinks.calls.search import next_offset
from datadog_caselinks.http import wire
from datadog_caselinks.http.bounded_reader import BoundedReader
from datadog_caselinks.http.envelope import CasePage, IncidentPage
from datadog_caselinks.http.requester import Requester
from datadog_caselinks.http.wire import Request, Response
from datadog_caselinks.isolation import log
from datadog_caselinks.values.errors import (
    BadRequestError,
    CaseLinksError,
    IncompleteListError,
    MalformedResponseError,
    NotFoundError,
    PermissionDeniedError,
    ResponseTooLargeError,
)
from datadog_caselinks.values.messages import counted, quoted
from datadog_caselinks.values.models import (
    Case,
    CaseLink,
    Entity,
    Identity,
    Incident,
    Relationship,
    identity,
)

_logger = logging.getLogger(__name__)

T = TypeVar("T")

CANNOT_LIST: Final = (
    *(BadRequestError, NotFoundError, PermissionDeniedError),
    *(IncompleteListError, ResponseTooLargeError),
)
"""The errors of a list that concern one entity only. The list of the other end of a link may still work."""

_MAX_PAGES: Final = 5
"""The maximum number of pages of incidents to read for each query. A query that works needs only one."""


def ids_by_identity(links: Iterable[CaseLink]) -> dict[Identity, str]:
    """Return the id of each link; of equal links, that of the first."""
    ids: dict[Identity, str] = {}
    for link in links:
        ids.setdefault(identity(link), link.id)
    return ids


@frozen
class FoundLinks:
    """The links of ``entity`` that a lookup found, and how many members of its list cannot be read."""

    entity: Entity
    links: Mapping[Identity, CaseLink]
    skipped: int

    def get(self, key: Identity) -> CaseLink | None:
        """Return the link, or ``None`` if it does not exist.

        Raises:
            IncompleteListError: The link was not found, but may be a member that cannot be read.
        """
        if key not in self.links and self.skipped:
            raise _incomplete(self.entity, self.skipped)
        return self.links.get(key)


def _incomplete(entity: Entity, skipped: int) -> IncompleteListError:
    return IncompleteListError(
        f"cannot find out which links of {entity} exist: {counted(skipped, 'member')} of the list cannot be "
        "read as links",
        body="",
    )


class Operations:
    """Lists, gets, searches and deletes through ``requester``.

    Lookups leave out the links that ``recent`` knows to be deleted.
    """

    def __init__(
        self,
        requester: Requester,
        reader: BoundedReader,
        recent: RecentLinks,
        policy: RetryPolicy,
        budget: RetryBudget,
    ) -> None:
        self._requester = requester
        self._reader = reader
        self._recent = recent
        self._policy = policy
        self._budget = budget

    async def list_links(self, entity: Entity, relationship: Relationship | None = None) -> list[CaseLink]:
        """Return the links of ``entity``, all or those of one ``relationship``."""
        request = wire.list_request(entity, relationship)
        return await self._fetch(request, wire.read_links, self._attempts())

    async def list_whole(self, entity: Entity) -> list[CaseLink]:
        """Return all links of ``entity``.

        Raises:
            IncompleteListError: A member of the list cannot be read, so it may be any link.
        """
        request = wire.list_request(entity, None)
        links, skipped = await self._fetch(request, self._read_members, self._attempts())
        if skipped:
            raise _incomplete(entity, skipped)
        return links

    async def find_links(self, entity: Entity, identities: Collection[Identity]) -> FoundLinks:
        """Return for each of ``identities`` the first link of ``entity`` that has it, and keep no others."""

        def find(response: Response) -> FoundLinks:
            found: dict[Identity, CaseLink] = {}
            members, skipped = self._read_members(response)
            for link in members:
                if (key := identity(link)) in identities:
                    found.setdefault(key, link)
            return FoundLinks(entity, found, skipped)

        return await self._look_up(entity, find)

    async def list_ids(self, entity: Entity) -> Mapping[Identity, str]:
        """Return the id of each link of ``entity``; of equal links, that of the first.

        Raises:
            IncompleteListError: A member of the list cannot be read, so it may be any link.
        """

        def ids(response: Response) -> tuple[Mapping[Identity, str], int]:
            members, skipped = self._read_members(response)
            return ids_by_identity(members), skipped

        found, skipped = await self._look_up(entity, ids)
        if skipped:
            raise _incomplete(entity, skipped)
        return found

    async def _look_up(self, entity: Entity, read: Callable[[Response], T]) -> T:
        # A lookup earns no budget: if creates fail and lists succeed, the budget would never be used up.
        return await self._fetch(wire.list_request(entity, None), read, self._attempts(), earns_budget=False)

    async def get_case(self, key_or_id: str | UUID) -> Case:
        """Return the case with this key or UUID.

        A case with another key is requested again, on another connection: if its project was renamed, both
        responses are about the same case. A response without a key does not say which case it is about.
        """
        request = wire.case_request(key_or_id)
        case = await self._fetch(request, wire.read_case, self._attempts())
        if wire.has_requested_key(case, request):
            return case
        again = await self._fetch(request, wire.read_case, self._attempts())
        have_keys = bool(case.key and again.key)
        if wire.has_requested_key(again, request) or (have_keys and again.id == case.id):
            return again
        del case, again  # they may echo the keys, and tracebacks show local variables
        flaw = "two responses are about two other cases" if have_keys else "a response has no case key"
        raise MalformedResponseError(f"cannot {request.action}: {flaw}", body="")

    async def search_cases(self, query: str, page: int) -> CasePage:
        """Return one page of the cases that match ``query``."""
        return await self._fetch(wire.case_search_request(query, page), wire.read_cases, self._attempts())

    async def get_incident(self, incident_id: str) -> Incident:
        """Return the incident with this UUID."""
        return await self._fetch(wire.incident_request(incident_id), wire.read_incident, self._attempts())

    async def find_incident(self, number: str) -> Incident:
        """Return the incident with this number, such as ``123`` or ``IR-123``.

        The API does not document which query finds a number, so each is tried, and only an incident that
        reports exactly this number is returned.
        """
        queries, refusals = _incident_queries(number), list[BadRequestError]()
        for query in queries:
            try:
                if found := await self._search_incident(number, query):
                    return found
            except BadRequestError as error:
                refusals.append(error)  # another query may be valid
        if len(refusals) == len(queries):
            raise refusals[0]
        raise NotFoundError(
            f"cannot find incident {number}: no incident on this site has this number, or these credentials "
            "cannot access it",
            status=404,
        )

    async def search_incidents(self, query: str, offset: int) -> IncidentPage:
        """Return one page of the incidents that match ``query``, without the first ``offset`` of them."""
        request = wire.incident_search_request(f"that matches {quoted(query)}", query, offset)
        return await self._fetch(request, wire.read_incidents, self._attempts())

    async def _search_incident(self, number: str, query: str) -> Incident | None:
        """Return the incident that a query finds. Read all pages, since two may have the same number."""
        found: dict[str, Incident] = {}
        offset = 0
        for _ in range(_MAX_PAGES):
            request = wire.incident_search_request(number, query, offset)
            page = await self._fetch(request, wire.read_incidents, self._attempts())
            (incidents, _, _), _ = page
            found |= {each.id: each for each in incidents if each.has_number(number)}
            following = next_offset(page, offset)
            del page, incidents  # they may echo the keys, and tracebacks show local variables
            if (count := len(found)) > 1:
                del found  # as above
                raise MalformedResponseError(
                    f"cannot {request.action}: {count} incidents have this number", body=""
                )
            if following is None:
                break
            offset = following
        else:
            if not found:
                message = "the search for incident %s ends after %d pages, although there may be more"
                log(_logger, logging.WARNING, message, number, _MAX_PAGES)
        return next(iter(found.values()), None)

    async def delete_link(self, link_id: str) -> None:
        """Delete the link with this id. A 404 is a success if an earlier attempt may have deleted it."""
        deletion = _Deletion(wire.delete_request(link_id), self._attempts())
        try:
            await self._delete(deletion)
        except BaseException as error:
            is_refusal = isinstance(error, CaseLinksError) and not deletion.may_be_done
            if not is_refusal or isinstance(error, NotFoundError):
                self._recent.delete_failed(link_id)
            raise
        self._recent.add_deleted(link_id)

    def _read_members(self, response: Response) -> tuple[list[CaseLink], int]:
        """Return the links of a list that the client has not deleted, and how many members cannot be read."""
        members, skipped, _ = wire.read_members(response)
        return [link for link in members if not self._recent.has_deleted(link.id)], skipped

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
            result = await self._reader.fetch(request, read, attempts.last_failure)
        except CaseLinksError as error:
            raise attempts.error_to_raise(error)  # noqa: B904 - its context is the error itself
        if earns_budget:
            self._budget.give_back()
        else:
            self._budget.outage.on_success()
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


def _incident_queries(number: str) -> tuple[str, ...]:
    if number.isdigit():
        return f"slug:IR-{number}", f"public_id:{number}", number
    return f"slug:{number}", f'"{number}"'


class _Deletion:
    """One call of ``delete_link``, over all of its attempts."""

    def __init__(self, request: Request, attempts: Attempts) -> None:
        self.request = request
        self.attempts = attempts
        self.may_be_done = False
