"""Create many links concurrently, in bounded memory, and yield one outcome for each."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from functools import partial
from typing import TypeVar

from attrs import frozen

from datadog_caselinks.bulk.known_links import End
from datadog_caselinks.calls.concurrency import enumerate_async, for_each
from datadog_caselinks.calls.creation import CreateResult
from datadog_caselinks.observation.events import failure_status
from datadog_caselinks.values.errors import (
    AuthenticationError,
    CaseLinksError,
    ConnectError,
    FleetError,
    JournalError,
    PermissionDeniedError,
    RateLimitError,
    SessionError,
)
from datadog_caselinks.values.models import CaseLink, LinkStatus, WantedLink

T = TypeVar("T")


@frozen
class Created:
    """The outcome of a link that was created.

    ``new``
        The link to create, from the source.
    ``link``
        The link that was created.
    ``index``
        The position of ``new`` in the source, from 0.
    ``found_by_lookup``
        Whether the response to the create was lost, and a lookup found the link. Another process may have
        created it, so an undo of the run keeps it.
    """

    new: WantedLink
    link: CaseLink
    index: int
    found_by_lookup: bool = False

    @property
    def status(self) -> LinkStatus:
        """Return ``LinkStatus.CREATED``."""
        return LinkStatus.CREATED


@frozen
class AlreadyLinked:
    """The outcome of a link that already existed, or was created for an equal link earlier in the source.

    ``new``
        The link to create, from the source.
    ``link``
        The link that exists.
    ``index``
        The position of ``new`` in the source, from 0.
    ``found_by_lookup``
        Whether an earlier run with the same journal may have created the link just before it ended. An undo
        of the run keeps it, and reports it.
    """

    new: WantedLink
    link: CaseLink
    index: int
    found_by_lookup: bool = False

    @property
    def status(self) -> LinkStatus:
        """Return ``LinkStatus.ALREADY_LINKED``."""
        return LinkStatus.ALREADY_LINKED


@frozen
class Failed:
    """The outcome of a link that was not created, or may have been created.

    ``new``
        The link to create, from the source.
    ``error``
        The reason. For an :class:`AmbiguousResultError`, the link may have been created.
    ``index``
        The position of ``new`` in the source, from 0.
    """

    new: WantedLink
    error: CaseLinksError
    index: int

    @property
    def status(self) -> LinkStatus:
        """Return ``LinkStatus.AMBIGUOUS`` if the link may have been created, else ``LinkStatus.FAILED``."""
        return failure_status(self.error)


def would_fail_all(error: CaseLinksError, *, has_created: bool) -> bool:
    """Return whether every further link would fail with ``error`` too.

    Args:
        error: The error of one link.
        has_created: Whether any link was created before. If so, a 403 concerns one case, not the credentials.
    """
    if isinstance(error, PermissionDeniedError):
        return not has_created
    return error.during_outage or isinstance(
        error, AuthenticationError | ConnectError | FleetError | RateLimitError | SessionError
    )


Outcome = Created | AlreadyLinked | Failed
"""The outcome of one link of ``create_links``."""


def create_links(
    create: Callable[[tuple[WantedLink, End]], Awaitable[CreateResult]],
    source: AsyncIterable[tuple[WantedLink, End]],
    *,
    concurrency: int,
    proceed: Callable[[int], bool] | None = None,
) -> AsyncGenerator[Outcome, None]:
    """Call ``create`` for each link of ``source``, and yield the outcomes in the order of completion.

    Args:
        create: A function that returns the link, and whether it created the link.
        source: The links to create, each with the end to list if it is looked up.
        concurrency: The maximum number of calls in progress at once.
        proceed: Called with the index of each link before it is created. Once it returns false, no further
            link is created.

    Raises:
        JournalError: The journal cannot be written, so every further link would fail.
    """
    items = _while(proceed, source) if proceed else source
    return for_each(partial(_outcome, create), items, concurrency=concurrency)


async def _while(proceed: Callable[[int], bool], source: AsyncIterable[T]) -> AsyncGenerator[T, None]:
    async with contextlib.aclosing(enumerate_async(source)) as items:
        async for index, item in items:
            if not proceed(index):
                return
            yield item


async def _outcome(
    create: Callable[[tuple[WantedLink, End]], Awaitable[CreateResult]],
    index: int,
    item: tuple[WantedLink, End],
) -> Outcome:
    new = item[0]
    try:
        result = await create(item)
    except JournalError:
        raise
    except CaseLinksError as error:
        return Failed(new, error, index)
    if result.created:
        return Created(new, result.link, index, result.found_by_lookup)
    return AlreadyLinked(new, result.link, index, result.found_by_lookup)
