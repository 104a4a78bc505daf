"""Find out what a run would do with each link, without creating any."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Mapping

from attrs import frozen

from datadog_caselinks.bulk.create_links import AlreadyLinked, Failed
from datadog_caselinks.bulk.journal import Journal
from datadog_caselinks.bulk.journal_file import LINKED, Key, key_of
from datadog_caselinks.bulk.known_links import End, choose_ends
from datadog_caselinks.calls.concurrency import for_each
from datadog_caselinks.values.errors import CaseLinksError
from datadog_caselinks.values.models import CaseLink, NewCaseLink, WantedLink


@frozen
class WouldCreate:
    """The outcome of a preview: the link does not exist, so a run would create it.

    ``new``
        The link to create, from the source.
    ``link``
        The same link between entities, after the lookup of its keys.
    ``index``
        The position of ``new`` in the source, from 0.
    """

    new: WantedLink
    link: NewCaseLink
    index: int


@frozen
class Repeated:
    """The outcome of a preview: another link in the source is equal, so this one is not needed.

    ``new``
        The link to create, from the source.
    ``link``
        The same link between entities, after the lookup of its keys.
    ``index``
        The position of ``new`` in the source, from 0.
    """

    new: WantedLink
    link: NewCaseLink
    index: int


Preview = WouldCreate | Repeated | AlreadyLinked | Failed
"""The outcome of one link of ``preview_links``."""


class Previewer:
    """Looks up the links of one source.

    Args:
        resolve: Looks up the keys of a link.
        find: Returns the existing link that is equal, or ``None``, by a list of this end.
        recorded: The ids of the links that a journal contains.
    """

    def __init__(
        self,
        resolve: Callable[[WantedLink], Awaitable[NewCaseLink]],
        find: Callable[[NewCaseLink, End], Awaitable[CaseLink | None]],
        recorded: Mapping[Key, str],
    ) -> None:
        self._resolve = resolve
        self._find = find
        self._recorded = recorded
        self._seen: set[bytes] = set()  # hashes, which take less memory than links

    def preview(
        self, source: Iterable[WantedLink] | AsyncIterable[WantedLink], *, concurrency: int
    ) -> AsyncGenerator[Preview, None]:
        """Yield the outcomes in the order of completion."""
        return for_each(self._outcome, choose_ends(source), concurrency=concurrency)

    async def _outcome(self, index: int, item: tuple[WantedLink, End]) -> Preview:
        wanted, end = item
        try:
            new = await self._resolve(wanted)
            key = key_of(new)
            if self._is_repeated(key):
                return Repeated(wanted, new, index)
            if link_id := self._recorded.get(key):
                found: CaseLink | None = new.existing(link_id)
            else:
                found = await self._find(new, end)
        except CaseLinksError as error:
            return Failed(wanted, error, index)
        return AlreadyLinked(wanted, found, index) if found else WouldCreate(wanted, new, index)

    def _is_repeated(self, key: Key) -> bool:
        digest = hashlib.blake2b(" ".join(key).encode(), digest_size=16).digest()
        is_known = digest in self._seen
        self._seen.add(digest)
        return is_known


async def links_in_journal(path: str | os.PathLike[str], *, site: str) -> dict[Key, str]:
    """Return the ids of the links in a journal, if there is one, for a run that may use it now.

    Raises:
        JournalError: The file is not a journal, belongs to another site, or is in use by a run.
    """
    if not await asyncio.to_thread(_has_content, path):
        return {}
    async with Journal(path, site=site) as journal:
        records = await journal.records(lambda record: record.status in LINKED)
    return {key_of(record.new): record.link_id for record in records if record.link_id}


def _has_content(path: str | os.PathLike[str]) -> bool:
    return os.path.exists(path) and os.path.getsize(path) > 0
