"""Each link once, over all runs with one journal: written before it is sent and after its outcome.

Knows the file and the one thread that it blocks; no HTTP. Of a link that it does not know nothing was sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Self, TypeVar

from attrs import frozen

from datadog_caselinks.bulk.journal_file import Before, Key, LinkState, Store, Write, key_of
from datadog_caselinks.creation import CreateFunc, CreateResult
from datadog_caselinks.errors import AmbiguousResultError, CaseLinksError, JournalError
from datadog_caselinks.messages import storable
from datadog_caselinks.models import CaseLink, NewCaseLink

_Result = TypeVar("_Result")


@frozen(eq=False)
class Entry:
    """One link while it is being made; left without an outcome, it stays SENT.

    ``before`` is what the journal said of it until now, ``None`` if nothing, and ``link`` the link that was
    made earlier, if ``before`` is LINKED. An outcome goes along with the next commit, which comes at once
    and is not waited for: until then the link is SENT, which is true as well.
    """

    before: LinkState | None
    link: CaseLink | None
    _put: Callable[[LinkState, str | None, str | None], None]

    def linked(self, link: CaseLink) -> None:
        """It is there, as ``link``."""
        self._put(LinkState.LINKED, link.id, None)

    def failed(self, error: Exception) -> None:
        """It was surely not made, because of ``error``, of whose text 1,000 characters are kept."""
        self._put(LinkState.FAILED, None, storable(str(error)))


class Journal:
    """The one run that writes the journal at ``path``: ``async with Journal(path, site=…) as journal``.

    ``site`` is the API URL that all its links belong to. A missing or empty file is a new journal. Beside it
    an empty file stays, ``path`` with ``-lock`` at its end, by which a second run is refused at once; the
    lock is free again however this process ends.

    Entering raises :class:`JournalError` if another run has the file, or it is of another site or cannot be
    used. Leaving raises it if something could not be written since.
    """

    def __init__(self, path: str | os.PathLike[str], *, site: str) -> None:
        self._store = Store(path, site)
        self._under_way: dict[Key, asyncio.Event] = {}
        self._pending: list[tuple[Write, asyncio.Future[Before] | None]] = []
        self._is_committing = False
        self._is_open = False

    async def __aenter__(self) -> Self:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="caselinks-journal")
        try:
            await self._in_thread(self._store.open)
        except BaseException:
            await self._end()
            raise
        self._is_open = True
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._is_open = False
        self._commit()
        failure = await self._end()
        if failure and kind is None:
            raise JournalError(failure)

    def once(self, make: CreateFunc, resume: CreateFunc) -> CreateFunc:
        """As ``make``, for each link once over all runs.

        ``resume`` is asked instead where an earlier run sent the link and did not learn what came of it.
        """

        async def make_once(new: NewCaseLink) -> CreateResult:
            if not isinstance(new, NewCaseLink):
                return await make(new)  # which refuses it
            async with self.entry(new) as entry:
                if entry.link:
                    return CreateResult(entry.link, created=False)
                try:
                    link, is_new = await (resume if entry.before is LinkState.SENT else make)(new)
                except AmbiguousResultError:
                    raise  # it stays sent
                except CaseLinksError as error:
                    entry.failed(error)
                    raise
                entry.linked(link)
                return CreateResult(link, is_new)

        return make_once

    @contextlib.asynccontextmanager
    async def entry(self, new: NewCaseLink) -> AsyncGenerator[Entry, None]:
        """Begin with ``new``: unless it is LINKED, it is SENT from here on, safely on the disk.

        A link has one entry at a time; a second one waits until the first is left, and begins with its
        outcome. Raises :class:`JournalError` if the journal is not open, or something could not be written.
        """
        key = key_of(new)
        while key in self._under_way:
            await self._under_way[key].wait()
        left = self._under_way[key] = asyncio.Event()
        try:
            before, link_id = await self._begin(key)
            link = CaseLink(link_id, new.parent, new.relationship, new.child) if link_id else None
            yield Entry(before, link, lambda *outcome: self._put(Write(key, *outcome)))
        finally:
            del self._under_way[key]
            left.set()

    async def _begin(self, key: Key) -> Before:
        begun: asyncio.Future[Before] = asyncio.get_running_loop().create_future()
        self._put(Write(key, LinkState.SENT), begun)
        return await begun

    def _put(self, write: Write, begun: asyncio.Future[Before] | None = None) -> None:
        if not self._is_open:
            raise JournalError("the journal is not open: use it within 'async with'")
        self._pending.append((write, begun))
        if not self._is_committing:
            self._is_committing = True
            # Not yet: what other tasks put in this round of the event loop goes along.
            asyncio.get_running_loop().call_soon(self._commit)

    def _commit(self) -> None:
        """Write what is pending, in one transaction; what comes meanwhile is the next."""
        batch, self._pending = self._pending, []
        self._is_committing = bool(batch)
        if batch:
            written = self._in_thread(partial(self._store.write, [write for write, _ in batch]))
            written.add_done_callback(partial(self._committed, [begun for _, begun in batch]))

    def _committed(
        self, batch: list[asyncio.Future[Before] | None], written: asyncio.Future[list[Before]]
    ) -> None:
        error = written.exception()
        for number, begun in enumerate(batch):
            if begun is None or begun.done():  # an outcome, or an entry that was cancelled
                continue
            if error:
                begun.set_exception(JournalError(str(error)))
            else:
                begun.set_result(written.result()[number])
        self._commit()

    async def _end(self) -> str | None:
        """Close the file after all that is to be written, and end the thread, even if cancelled meanwhile."""
        closed = self._in_thread(self._store.close)
        cancelled = None
        while not closed.done():
            try:
                await asyncio.wait([closed])
            except asyncio.CancelledError as error:
                cancelled = error
        self._thread.shutdown()  # does not block: nothing is left to be done
        if cancelled:
            raise cancelled
        return closed.result()

    def _in_thread(self, function: Callable[[], _Result]) -> asyncio.Future[_Result]:
        return asyncio.get_running_loop().run_in_executor(self._thread, function)
