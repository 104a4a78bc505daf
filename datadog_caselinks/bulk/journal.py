"""Create each link only once, even over several runs with the same journal.

Each link is recorded before its request is sent, and again with the outcome. So a link that is not in the
journal was either never sent, or deleted by an undo of the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, Self, TypeVar
from weakref import WeakSet

from attrs import frozen

from datadog_caselinks.bulk.delete_links import DeleteFunc
from datadog_caselinks.bulk.journal_file import LINKED, JournalRecord, Key, Previous, Store, Write, key_of
from datadog_caselinks.calls.creation import BeforeCreate, CreateFunc, CreateResult
from datadog_caselinks.isolation import log
from datadog_caselinks.values.errors import AmbiguousResultError, CaseLinksError, JournalError, NotFoundError
from datadog_caselinks.values.messages import storable
from datadog_caselinks.values.models import CaseKey, CaseLink, LinkStatus, NewCaseLink, WantedLink

_logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")

ResumeFunc = Callable[[BeforeCreate], CreateFunc]
"""Returns a function that finds a link or creates it. The function calls ``BeforeCreate`` before a create."""

_POLL: Final = 0.01
"""Seconds between two attempts to open a file that another run is using."""

_MAX_POLLS: Final = 100
"""How often to try to open it. A count and no timeout: the event loop may be blocked for longer than that."""


@frozen(eq=False)
class Entry:
    """The entry of a link that is being created. It stays ambiguous until an outcome is recorded.

    Outcomes are written by the next commit, which starts immediately and is not awaited.

    ``previous``
        The status of the link before, or ``None`` if the journal did not contain the link.
    ``link``
        The link, if an earlier entry created or found it.
    ``undone_id``
        The id of the link, if an undo that was to delete it did not finish.
    """

    previous: LinkStatus | None
    link: CaseLink | None
    undone_id: str | None
    _forget_id: BeforeCreate
    _put: Callable[[LinkStatus, str | None, str | None, bool], None]

    def linked(self, link: CaseLink, *, created: bool, found_by_lookup: bool = False) -> None:
        """Record that the link exists as ``link``, and whether a run with this journal created it.

        With ``found_by_lookup``, another process may have created it; see :class:`CreateResult`.
        """
        was_ours = link.id == self.undone_id
        status = LinkStatus.CREATED if created or was_ours else LinkStatus.ALREADY_LINKED
        self._put(status, link.id, None, found_by_lookup and not was_ours)

    def failed(self, error: Exception, *, may_exist: bool = False) -> None:
        """Record that the link was not created, and the first 1,000 characters of ``error``.

        With ``may_exist`` the entry stays ambiguous, so the next run looks the link up.
        """
        status = LinkStatus.AMBIGUOUS if may_exist else LinkStatus.FAILED
        self._put(status, None, storable(str(error)), False)

    async def will_send(self) -> None:
        """Record that the link is about to be sent again, since it was not found.

        The id of an undo that did not finish is forgotten: the next undo must find the new link.
        """
        if self.undone_id:
            await self._forget_id()


class Journal:
    """The journal of one run, used as ``async with Journal(path, site=…) as journal``.

    An empty file with the suffix ``-lock`` next to the journal keeps other runs out. The lock is released
    when the process ends, even if it is killed. Entering waits for a run of this process that is ending, and
    a second for any other run.

    Args:
        path: The file. If it is missing or empty, a new journal is created.
        site: The API URL of the site to which all links of the journal belong.

    Raises:
        JournalError: On entering, if another run uses the file, or it belongs to another site or cannot be
            used. On leaving, if something could not be written.
    """

    def __init__(self, path: str | os.PathLike[str], *, site: str) -> None:
        self._store = Store(path, site)
        self._in_progress: dict[Key, asyncio.Event] = {}
        self._pending: list[tuple[Write, asyncio.Future[Previous] | None]] = []
        self._is_committing = False
        self._is_open = False

    async def __aenter__(self) -> Self:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="caselinks-journal")
        try:
            await self._open()
        except BaseException:
            await self._close()
            raise
        self._is_open = True
        if self.is_incomplete:
            log(
                _logger,
                logging.WARNING,
                "the journal %s lacks its newest records: its file %s-wal was removed or not copied with it. "
                "Runs with this journal look up each link first, and an undo does not find every link",
                *(self._store.file, self._store.file.name),
            )
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.end()
        self._is_open = False
        self._commit()
        failure = await self._close()
        if failure and kind is None:
            raise JournalError(failure)

    @property
    def is_incomplete(self) -> bool:
        """Whether records were lost with the write-ahead log of an earlier run that was killed."""
        return self._store.is_incomplete

    def end(self) -> None:
        """Announce that the run is ending: the next one in this process waits for that."""
        _ending.add(self)

    async def once(
        self, new: NewCaseLink, create: CreateFunc, resume: ResumeFunc, *, wanted: WantedLink | None = None
    ) -> CreateResult:
        """Call ``create`` for ``new``, once over all runs.

        Calls what ``resume`` returns instead if an earlier run sent the link without recording an outcome.
        The keys in ``wanted``, the link as the source names it, are recorded.
        """
        async with self.entry(new, wanted) as entry:
            if entry.link:
                return CreateResult(entry.link, created=False)
            if entry.previous is LinkStatus.AMBIGUOUS:
                create = resume(entry.will_send)
            try:
                result = await create(new)
            except AmbiguousResultError:
                raise  # the entry is ambiguous already
            except CaseLinksError as error:
                entry.failed(error, may_exist=error.was_ambiguous)
                raise
            entry.linked(result.link, created=result.created, found_by_lookup=result.found_by_lookup)
            return result

    @contextlib.asynccontextmanager
    async def entry(self, new: NewCaseLink, wanted: WantedLink | None = None) -> AsyncGenerator[Entry, None]:
        """Record on the disk that ``new`` is about to be sent, and yield its entry.

        A link that was created or found before is left unchanged. A second entry for the same link waits
        until the first is left, and starts with its outcome.

        Raises:
            JournalError: The journal is not open, or something could not be written.
        """
        key = key_of(new)
        while key in self._in_progress:
            await self._in_progress[key].wait()
        left = self._in_progress[key] = asyncio.Event()
        try:
            begin = Write(key, LinkStatus.AMBIGUOUS, keys=_keys(new, wanted))
            previous, link_id = await self._begin(begin)
            link = new.existing(link_id) if link_id else None
            undone_id = None
            if link and previous not in LINKED:
                undone_id, link = link.id, None

            async def forget_id() -> None:
                self._put(Write(key, None))  # in the same transaction
                await self._begin(begin)

            yield Entry(
                previous, link, undone_id, forget_id, lambda *outcome: self._put(Write(key, *outcome))
            )
        finally:
            del self._in_progress[key]
            left.set()

    async def records(self, is_wanted: Callable[[JournalRecord], bool]) -> list[JournalRecord]:
        """Return the records for which ``is_wanted``, which runs in a thread, returns true."""
        return await self._in_thread(partial(self._store.records, is_wanted))

    def deleting(self, delete: DeleteFunc) -> DeleteFunc:
        """Return a function that calls ``delete`` for a link, and then removes the link from the journal.

        A delete that fails or is cancelled may have been applied, so until it succeeds, the link is
        ambiguous: the next run looks it up.
        """

        async def delete_recorded(link: CaseLink) -> None:
            key = key_of(link)
            await self._begin(Write(key, LinkStatus.AMBIGUOUS, link.id))
            try:
                await delete(link)
            except NotFoundError:
                self._put(Write(key, None))
                raise
            self._put(Write(key, None))

        return delete_recorded

    async def _open(self) -> None:
        """Open the file. If another run is using it, wait a moment, in case that run is ending.

        A run whose loop was left by ``break`` ends in a task that asyncio starts later.
        """
        polls = 0
        while not await self._in_thread(self._store.open):
            if polls == _MAX_POLLS:
                raise self._store.in_use()
            if not polls:
                gc.collect()  # ends a run that only a reference cycle keeps, such as that of a traceback
            polls += self._store.file not in {each._store.file for each in list(_ending)}
            await asyncio.sleep(_POLL)

    async def _begin(self, write: Write) -> Previous:
        begun: asyncio.Future[Previous] = asyncio.get_running_loop().create_future()
        self._put(write, begun)
        return await begun

    def _put(self, write: Write, begun: asyncio.Future[Previous] | None = None) -> None:
        if not self._is_open:
            raise JournalError("the journal is not open: use it within 'async with'")
        self._pending.append((write, begun))
        if not self._is_committing:
            self._is_committing = True
            # Deferred, so that writes of other tasks in this iteration of the event loop share the commit.
            asyncio.get_running_loop().call_soon(self._commit)

    def _commit(self) -> None:
        """Write all pending entries in one transaction. Later entries wait for the next one."""
        batch, self._pending = self._pending, []
        self._is_committing = bool(batch)
        if batch:
            written = self._in_thread(partial(self._store.write, [write for write, _ in batch]))
            written.add_done_callback(partial(self._committed, [begun for _, begun in batch]))

    def _committed(
        self, batch: list[asyncio.Future[Previous] | None], written: asyncio.Future[list[Previous]]
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

    async def _close(self) -> str | None:
        """Close the file after all pending writes, and end the thread, even if cancelled while waiting."""
        cancelled = None
        try:
            closed = self._in_thread(self._store.close)
            while not closed.done():
                try:
                    await asyncio.wait([closed])
                except asyncio.CancelledError as error:
                    cancelled = error
        finally:
            _ending.discard(self)
        self._thread.shutdown()  # does not block, because the thread has no work left
        if cancelled:
            raise cancelled
        return closed.result()

    def _in_thread(self, function: Callable[[], _Result]) -> asyncio.Future[_Result]:
        return asyncio.get_running_loop().run_in_executor(self._thread, function)


_ending: Final = WeakSet[Journal]()
"""The journals of the runs of this process that are ending, while their event loops exist."""


def _keys(new: NewCaseLink, wanted: WantedLink | None) -> list[tuple[str, str]]:
    """Return the entity and the key of each end of ``new`` that ``wanted`` names by its key."""
    ends = ((new.parent, wanted.parent), (new.child, wanted.child)) if wanted else ()
    return [(str(entity), name.key) for entity, name in ends if isinstance(name, CaseKey)]
