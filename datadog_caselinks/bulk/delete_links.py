"""Delete many links concurrently, and yield one outcome for each."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from functools import partial

from attrs import field, frozen

from datadog_caselinks.calls.concurrency import for_each
from datadog_caselinks.values.errors import CaseLinksError, JournalError, NotFoundError
from datadog_caselinks.values.models import CaseLink

DeleteFunc = Callable[[CaseLink], Awaitable[None]]
"""Deletes a link. Raises :class:`NotFoundError` if it does not exist."""


@frozen
class Deleted:
    """The outcome of a delete after which the link does not exist.

    ``link``
        The link, which this call deleted or found already deleted.
    ``index``
        The position of the link among the links to delete, such as ``LinkPlan.delete``, from 0.
    ``was_gone``
        Whether the link did not exist before.
    """

    link: CaseLink
    index: int
    was_gone: bool = field(default=False, eq=False)


@frozen
class NotDeleted:
    """The outcome of a delete that failed or was skipped; the link may still exist.

    ``link``
        The link that was to be deleted.
    ``error``
        The reason. After a failed create of a plan it says that all deletes were skipped. After a timeout the
        server may have deleted the link nevertheless; do the same again to find out.
    ``index``
        The position of the link among the links to delete, such as ``LinkPlan.delete``, from 0.
    """

    link: CaseLink
    error: CaseLinksError
    index: int


def delete_links(
    delete: DeleteFunc, links: Iterable[CaseLink], *, concurrency: int
) -> AsyncGenerator[Deleted | NotDeleted, None]:
    """Call ``delete`` for each of ``links``, and yield the outcomes in the order of completion.

    Raises:
        JournalError: The journal cannot be written, so every further link would fail.
    """
    return for_each(partial(_outcome, delete), links, concurrency=concurrency)


async def _outcome(delete: DeleteFunc, index: int, link: CaseLink) -> Deleted | NotDeleted:
    try:
        await delete(link)
    except NotFoundError:
        return Deleted(link, index, was_gone=True)  # someone else deleted it
    except JournalError:
        raise
    except CaseLinksError as error:
        return NotDeleted(link, error, index)
    return Deleted(link, index)
