"""One link, made once: what is done about each way in which creating it can fail. Does no I/O of its own.

There is no key by which the server could tell a repeated request from a second one. So an attempt that may
have made the link is followed by a look at the links of its parent, and by another attempt only if it is not
there. What no look can tell: a server may carry out a request after the look, and an equal link that was
found may be another writer's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple
from weakref import WeakValueDictionary

from datadog_caselinks import events
from datadog_caselinks.errors import (
    AmbiguousResultError,
    BadRequestError,
    CaseLinksError,
    ConflictError,
    ResponseError,
)
from datadog_caselinks.http import wire
from datadog_caselinks.http.wire import Answer, Request
from datadog_caselinks.lookup import Lookup
from datadog_caselinks.models import CaseLink, Identity, NewCaseLink, identity
from datadog_caselinks.retry import RetryBudget, RetryPolicy, may_have_been_applied, retrying


class CreateResult(NamedTuple):
    """A link, and whether it was created or existed already."""

    link: CaseLink
    created: bool


CreateFunc = Callable[[NewCaseLink], Awaitable[tuple[CaseLink, bool]]]
"""A function that creates a link or finds an equal one, and returns a :class:`CreateResult`."""


class _Creation:
    """One call, over all of its attempts. If it ``is_ensured``, an equal link is as good as a new one."""

    def __init__(self, new: NewCaseLink, request: Request, *, is_ensured: bool = False) -> None:
        self.new = new
        self.request = request
        self.is_ensured = is_ensured
        self.failure: CaseLinksError | None = None  # of an attempt that was made already
        self.doubt: CaseLinksError | None = None  # why it may be there, until it is looked for
        self.was_doubted = False
        self._settled_at = 0.0

    def doubted(self, why: CaseLinksError, settle: float) -> None:
        """It may have been made; after ``settle`` seconds it can be looked for."""
        self.doubt = why
        self.was_doubted = True
        self._settled_at = asyncio.get_running_loop().time() + settle

    async def settled(self) -> None:
        """Wait until it can be looked for."""
        await asyncio.sleep(max(0.0, self._settled_at - asyncio.get_running_loop().time()))


class _Turn:
    """What calls that ensure equal links wait for, and the link that the latest of them came to."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.link: CaseLink | None = None


class Creator:
    """Creates links by ``attempt``, which makes one request and tells the answer."""

    def __init__(
        self,
        attempt: Callable[[Request], Awaitable[Answer]],
        lookup: Lookup,
        policy: RetryPolicy,
        budget: RetryBudget,
    ) -> None:
        self._attempt = attempt
        self._lookup = lookup
        self._settle = policy.settle
        self._max_wait = policy.max_wait
        self._budget = budget
        # Decorated here and not for each call, which would cost more than the rest of the retry.
        self._repeat = retrying(policy, budget)(self._look_and_attempt)
        self._turns: WeakValueDictionary[Identity, _Turn] = WeakValueDictionary()

    async def create(self, new: NewCaseLink) -> tuple[CaseLink, bool]:
        """Make the link. If this raises :class:`AmbiguousResultError` it may have been made, else not."""
        request = wire.create_request(new)
        # Most calls end with this. Thousands that wait here, and not within what may follow a failure, hold
        # less memory, and leave Python's garbage collector less to walk through.
        try:
            link = wire.read_link(await self._attempt(request))
        except CaseLinksError as error:
            creation = _Creation(new, request)
            creation.failure = error
        else:
            self._budget.succeeded()
            return link, True
        return await self._make(creation)

    async def ensure(self, new: NewCaseLink) -> tuple[CaseLink, bool]:
        """The link that is there, or a new one; and whether it is new. Calls for equal links take turns."""
        creation = _Creation(new, wire.create_request(new), is_ensured=True)
        turn = self._turns.setdefault(identity(new), _Turn())
        async with turn.lock:
            if turn.link:  # a moment ago, so that no list need tell of it yet
                return turn.link, False
            found = await self._lookup.find(new)
            turn.link, is_new = (found, False) if found else await self._make(creation)
            return turn.link, is_new

    async def resume(self, new: NewCaseLink) -> tuple[CaseLink, bool]:
        """As :meth:`ensure`, after an earlier run that may have made the link just before it ended."""
        creation = _Creation(new, wire.create_request(new))
        creation.doubted(CaseLinksError(f"an earlier run may have sent {new}"), self._settle)
        found = await self._look(creation)
        return (found, False) if found else await self._make(creation)

    async def _make(self, creation: _Creation) -> tuple[CaseLink, bool]:
        try:
            return await self._repeat(creation)
        except CaseLinksError as error:
            if creation.doubt is None or isinstance(error, AmbiguousResultError):
                raise
            # A look would add to the load as well, or come sooner than the server said.
            if error.during_outage or _asked_wait(error) > self._max_wait:
                raise _ambiguous(creation) from creation.doubt
            last = error
        if link := await self._look(creation):
            return link, True
        raise last

    async def _look_and_attempt(self, creation: _Creation) -> tuple[CaseLink, bool]:
        if creation.doubt and (link := await self._look(creation)):
            return link, True
        try:
            if failure := creation.failure:
                creation.failure = None
                raise failure
            return wire.read_link(await self._attempt(creation.request)), True
        except (BadRequestError, ConflictError) as error:
            return await self._equal(creation, error), creation.was_doubted
        except CaseLinksError as error:
            if may_have_been_applied(error):
                creation.doubted(error, max(self._settle, _asked_wait(error)))
            raise

    async def _look(self, creation: _Creation) -> CaseLink | None:
        """The link, if it was made after all. If not, there is no doubt left."""
        await creation.settled()
        try:
            link = await self._lookup.find(creation.new)
        except CaseLinksError as error:
            ambiguous = _ambiguous(creation, f", and looking for it failed: {error}")
            ambiguous.during_outage |= error.during_outage
            raise ambiguous from creation.doubt
        creation.doubt = None
        if link:
            events.reconciled()
        return link

    async def _equal(self, creation: _Creation, error: BadRequestError | ConflictError) -> CaseLink:
        """The equal link that made the server refuse this one, where it will do; else raises ``error``.

        Whether such a link is refused at all, and by which of the two, is not documented.
        """
        will_do = creation.is_ensured or creation.was_doubted
        if isinstance(error, BadRequestError) and not will_do:
            raise error
        if will_do:
            await asyncio.sleep(self._settle)  # the link was refused by what a list may not tell of yet
        if creation.was_doubted:
            creation.doubt = error
            link = await self._look(creation)
        else:
            try:
                link = await self._lookup.find(creation.new)
            except CaseLinksError:
                raise error from None
        if link and will_do:
            return link
        if isinstance(error, ConflictError):
            error.existing = link
        raise error


def _asked_wait(error: CaseLinksError) -> float:
    """Seconds that the server asks for before anything else."""
    return (error.retry_after or 0.0) if isinstance(error, ResponseError) else 0.0


def _ambiguous(creation: _Creation, look: str = "") -> AmbiguousResultError:
    assert creation.doubt is not None
    error = AmbiguousResultError(
        f"{creation.doubt}. It may have been made{look}: "
        f"list the links of {creation.new.parent} before creating it again",
        new=creation.new,
        reason=creation.doubt,
    )
    error.during_outage = creation.doubt.during_outage
    return error
