"""Create one link, and handle each way in which a create can fail without creating a duplicate.

The server has no idempotency key, so it cannot tell a repeated request from a second one. Each attempt ends
in one of four states:

- *created*: the response has the link.
- *never sent*: the link does not exist, so a retry needs no lookup.
- *rejected*: the server refused the request, so this attempt created nothing, and only a 429 is retried. It
  may have refused it because an equal link exists, perhaps one that an earlier attempt created.
- *ambiguous*: the server may have created the link. It is looked up among the links of its parent, and sent
  again only if it is not among them.

A lookup cannot exclude that the server applies a request after the lookup, or that an equal link was created
by another process.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable
from typing import NamedTuple
from weakref import WeakValueDictionary

from attrs import define, frozen

from datadog_caselinks.calls.lookup import Lookup
from datadog_caselinks.calls.operations import Operations
from datadog_caselinks.calls.recent_links import RecentLinks
from datadog_caselinks.calls.retry import Attempts, RetryBudget, RetryPolicy, requested_wait, with_retries
from datadog_caselinks.http import wire
from datadog_caselinks.http.fence import FencedRequester
from datadog_caselinks.http.requester import Requester
from datadog_caselinks.http.wire import Request
from datadog_caselinks.observation.events import report_reconciled
from datadog_caselinks.values.errors import (
    AmbiguousResultError,
    BadRequestError,
    CaseLinksError,
    ConflictError,
)
from datadog_caselinks.values.models import CaseLink, Identity, NewCaseLink, identity


class CreateResult(NamedTuple):
    """A link, and whether this call created it, as far as a lookup can tell."""

    link: CaseLink
    created: bool

    @property
    def found_by_lookup(self) -> bool:
        """Whether the link was found by a lookup, so that another process may have created it.

        Either the response to the create was lost, or an earlier call or run may have sent the link.
        """
        return False


class _FoundResult(CreateResult):
    """A link that a lookup found. It is not certain which process created it."""

    __slots__ = ()

    @property
    def found_by_lookup(self) -> bool:
        return True


CreateFunc = Callable[[NewCaseLink], Awaitable[CreateResult]]
"""A function that creates a link, or finds it."""

BeforeCreate = Callable[[], Awaitable[None]]
"""A callback before the create of a link that an earlier run may have created, and a lookup did not find."""

FindFunc = Callable[[NewCaseLink], Awaitable[CaseLink | None]]
"""A function that returns the link that is equal to a new one, or ``None``. It may use an old list."""


@frozen
class _Ambiguity:
    """The reason why a link may exist, and the event loop's time from which a lookup can find it."""

    error: CaseLinksError
    lookup_at: float


@define(eq=False)
class _Creation:
    """One call, over all of its attempts.

    ``accepts_existing``
        Whether an equal link is as good as a new one.
    ``ambiguity``
        The ambiguous attempt that no lookup has resolved yet, if any.
    ``may_be_ours``
        Whether an attempt of this or an earlier call was ambiguous, so an equal link may be its result.
    ``was_ambiguous``
        Whether an attempt of this call was ambiguous.
    """

    new: NewCaseLink
    request: Request
    attempts: Attempts
    accepts_existing: bool = False
    ambiguity: _Ambiguity | None = None
    may_be_ours: bool = False
    was_ambiguous: bool = False


class Creator:
    """Creates links through ``requester``, and looks them up through ``operations`` and in ``recent``."""

    def __init__(
        self,
        requester: Requester,
        operations: Operations,
        recent: RecentLinks,
        policy: RetryPolicy,
        budget: RetryBudget,
    ) -> None:
        self._requester: Requester | FencedRequester = requester
        self._lookup = Lookup(operations)
        self._policy = policy
        self._budget = budget
        self._recent = recent
        self._locks: WeakValueDictionary[Identity, asyncio.Lock] = WeakValueDictionary()

    def through(self, requester: FencedRequester) -> Creator:
        """Return a creator that sends its creates through ``requester``, and shares everything else."""
        other = copy.copy(self)
        other._requester = requester
        return other

    async def create(self, new: NewCaseLink) -> CreateResult:
        """Create the link.

        Raises:
            AmbiguousResultError: The link may exist.
            CaseLinksError: Any other error: nothing was created, as far as the lookup can tell.
        """
        result = await self._create(self._begin(new))
        self._recent.add(result.link, created=result.created)
        return result

    async def ensure(self, new: NewCaseLink, find: FindFunc | None = None) -> CreateResult:
        """Return the link that exists, or create it. Calls for equal links run one after the other.

        ``find`` looks the link up; by default the links of its parent are listed. A link that an earlier call
        created, or may have created, is not looked up before a list can show it.
        """
        creation = self._begin(new)
        creation.accepts_existing = True
        called_at, key = self._recent.now(), identity(new)
        async with self._lock(key):
            if recent := self._recent.find(key, called_at):
                return CreateResult(recent, created=False)
            if (lookup_at := self._recent.lookup_at(key)) is not None:
                return await self._resume(creation, f"an earlier call may have sent {new}", lookup_at)
            found = await (find or self._lookup.find)(new)
            if found and self._recent.has_deleted(found.id):  # after it was listed
                found = await self._lookup.find(new)
            result = CreateResult(found, created=False) if found else await self._create(creation)
            self._recent.add(result.link, created=result.created)
            return result

    async def resume(
        self, new: NewCaseLink, ended_at: float, before_create: BeforeCreate | None = None
    ) -> CreateResult:
        """Ensure the link, after an earlier run that may have created it just before it ended.

        The earlier run ended at ``ended_at`` (in the event loop's time) or before. The wait before the lookup
        begins then, so a run with many such links waits once and not for each of them.
        """
        creation = self._begin(new)
        called_at, key = self._recent.now(), identity(new)
        async with self._lock(key):
            if recent := self._recent.find(key, called_at):
                return _FoundResult(recent, created=False)
            # An earlier call of this run may have sent it too.
            lookup_at = max(ended_at + self._policy.longest_settle, self._recent.lookup_at(key) or 0.0)
            return await self._resume(
                creation, f"an earlier run may have sent {new}", lookup_at, before_create
            )

    def _lock(self, key: Identity) -> asyncio.Lock:
        """Return the lock of all calls for a link. It exists while calls refer to it."""
        return self._locks.setdefault(key, asyncio.Lock())

    async def _resume(
        self,
        creation: _Creation,
        reason: str,
        lookup_at: float,
        before_create: BeforeCreate | None = None,
    ) -> CreateResult:
        self._mark_ambiguous(creation, CaseLinksError(reason), lookup_at)
        found = await self._resolve(creation)
        if before_create and not found:
            await before_create()
        result = _FoundResult(found, created=False) if found else await self._create(creation)
        self._recent.add(result.link, created=result.created)
        return result

    def _begin(self, new: NewCaseLink) -> _Creation:
        return _Creation(new, wire.create_request(new), Attempts(self._policy, self._budget))

    async def _create(self, creation: _Creation) -> CreateResult:
        try:
            return await self._attempt(creation)
        except CaseLinksError as error:
            error.was_ambiguous |= creation.was_ambiguous
            if creation.ambiguity is None or isinstance(error, AmbiguousResultError):
                raise
            # A lookup would add to the load, or come sooner than the server said.
            if error.during_outage or requested_wait(error) > self._policy.max_wait:
                raise _ambiguous(creation, creation.ambiguity) from creation.ambiguity.error
            last = error
        if link := await self._resolve(creation):
            return _FoundResult(link, created=True)
        raise last

    @with_retries
    async def _attempt(self, creation: _Creation) -> CreateResult:
        """Make one attempt, unless the lookup after an ambiguous one finds the link."""
        if creation.ambiguity and (link := await self._resolve(creation)):
            return _FoundResult(link, created=True)
        try:
            response = await self._requester.send(creation.request, creation.attempts.last_failure)
            link = wire.read_link(response)
        except (BadRequestError, ConflictError) as error:
            existing = await self._resolve_refusal(creation, error)
            if creation.may_be_ours:
                return _FoundResult(existing, created=True)
            return CreateResult(existing, created=False)
        except asyncio.CancelledError:
            self._recent.add_ambiguous(creation.new, _in_seconds(self._policy.longest_settle))
            raise
        except CaseLinksError as error:
            seconds = 0.0
            is_new = error is not creation.attempts.last_failure  # else the requester raised it again
            if is_new and error.may_have_been_applied:
                seconds = self._policy.wait_before_lookup(error)
                self._mark_ambiguous(creation, error, _in_seconds(seconds))
                creation.was_ambiguous = True
            raise creation.attempts.error_to_raise(error, min_wait=seconds)  # noqa: B904 - as its context
        self._budget.give_back()
        return CreateResult(link, created=True)

    def _mark_ambiguous(self, creation: _Creation, error: CaseLinksError, lookup_at: float) -> _Ambiguity:
        """Note that the link may exist, for this call and for later ones."""
        creation.ambiguity = _Ambiguity(error, lookup_at)
        creation.may_be_ours = True
        self._recent.add_ambiguous(creation.new, lookup_at)
        return creation.ambiguity

    async def _resolve(self, creation: _Creation) -> CaseLink | None:
        """Look the link up once it can be found; return it, or ``None`` if it was not created after all.

        Before a retry, the wait is over: the decorator waited at least as long.
        """
        ambiguity = creation.ambiguity
        assert ambiguity is not None
        await asyncio.sleep(max(0.0, ambiguity.lookup_at - _in_seconds(0.0)))
        try:
            link = await self._lookup.find(creation.new)
        except CaseLinksError as error:
            ambiguous = _ambiguous(creation, ambiguity, f", and the lookup failed: {error}")
            ambiguous.during_outage |= error.during_outage
            raise ambiguous from ambiguity.error
        creation.ambiguity = None
        if link:
            report_reconciled()
        return link

    async def _resolve_refusal(self, creation: _Creation, error: BadRequestError | ConflictError) -> CaseLink:
        """Return the equal link for which the server refused this one, if the call accepts it, else raise.

        The API does not document whether it refuses equal links, nor with which status.
        """
        self._budget.give_back()  # a refusal shows that the server works
        if creation.may_be_ours:
            return await self._resolve_refusal_of_ours(creation, error)
        if isinstance(error, BadRequestError) and not creation.accepts_existing:
            raise error
        if creation.accepts_existing:
            await asyncio.sleep(self._policy.settle)  # a list may not show the equal link yet
        try:
            link = await self._lookup.find(creation.new)
        except CaseLinksError:
            raise error from None
        if link and creation.accepts_existing:
            return link
        if isinstance(error, ConflictError):
            error.existing = link
        raise error

    async def _resolve_refusal_of_ours(
        self, creation: _Creation, error: BadRequestError | ConflictError
    ) -> CaseLink:
        """Return the equal link that an earlier, ambiguous attempt may have created.

        A list that lags behind may not show it, so without a link the result stays ambiguous.
        """
        ambiguity = self._mark_ambiguous(creation, error, _in_seconds(self._policy.settle))
        link = await self._resolve(creation)
        if link is None:
            raise _ambiguous(creation, ambiguity, " by an earlier attempt") from error
        return link


def _in_seconds(seconds: float) -> float:
    """Return the event loop's time after this number of seconds."""
    return asyncio.get_running_loop().time() + seconds


def _ambiguous(creation: _Creation, ambiguity: _Ambiguity, detail: str = "") -> AmbiguousResultError:
    error = AmbiguousResultError(
        f"{ambiguity.error}. The link may have been created{detail}. "
        f"List the links of {creation.new.parent} before you create it again",
        new=creation.new,
        reason=ambiguity.error,
    )
    error.during_outage = ambiguity.error.during_outage
    return error
