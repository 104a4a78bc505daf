"""Many links: as many at a time as are wanted, in bounded memory, one outcome each. Knows no HTTP."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from functools import partial

from attrs import frozen

from datadog_caselinks.concurrency import each
from datadog_caselinks.errors import (
    AuthenticationError,
    CaseLinksError,
    ConnectError,
    JournalError,
    PermissionDeniedError,
    RateLimitError,
    SessionError,
)
from datadog_caselinks.models import CaseLink
from datadog_caselinks.references import WantedLink


@frozen
class Created:
    """``new`` was made and is ``link``. ``index`` counts the source from 0."""

    new: WantedLink
    link: CaseLink
    index: int


@frozen
class AlreadyLinked:
    """``new`` was there before as ``link``, or earlier in the source. ``index`` counts the source from 0."""

    new: WantedLink
    link: CaseLink
    index: int


@frozen
class Failed:
    """``new`` was not made, or not surely made, because of ``error``. ``index`` counts the source from 0."""

    new: WantedLink
    error: CaseLinksError
    index: int


def would_fail_all(error: CaseLinksError, *, has_created: bool) -> bool:
    """Whether every further link would fail as well; ``has_created`` tells if any was created before."""
    if isinstance(error, PermissionDeniedError):
        return not has_created  # else it is only this case that may not be linked
    return error.during_outage or isinstance(
        error, AuthenticationError | ConnectError | RateLimitError | SessionError
    )


MakeWanted = Callable[[WantedLink], Awaitable[tuple[CaseLink, bool]]]
"""As ``Make`` of ``creation``, also for a link at an end of which only a key is known."""

Outcome = Created | AlreadyLinked | Failed
"""What became of one link of ``create_links``."""


def create_links(
    make: MakeWanted,
    source: Iterable[WantedLink] | AsyncIterable[WantedLink],
    *,
    concurrency: int,
) -> AsyncGenerator[Outcome, None]:
    """Call ``make`` for each link of ``source``, as :func:`each` does."""
    return each(partial(_outcome, make), source, concurrency=concurrency)


async def _outcome(make: MakeWanted, index: int, new: WantedLink) -> Outcome:
    try:
        link, is_new = await make(new)
    except JournalError:
        raise  # which would fail every link to come
    except CaseLinksError as error:
        return Failed(new, error, index)
    return Created(new, link, index) if is_new else AlreadyLinked(new, link, index)
