"""Calls as those who watch them see them, and the events that they are told. Changes nothing in a call."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, Final, ParamSpec, TypeVar

from attrs import define, field, frozen

from datadog_caselinks.errors import AmbiguousResultError, CaseLinksError

_logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
N = TypeVar("N")
L = TypeVar("L")

_SENT_FOR: Final = {"ensure": "create"}
"""The operation of the request that does what a call is for, where it is not called the same."""


@define(eq=False, kw_only=True)
class Call:
    """One call of a client, or one run of ``create_links``: the same object in all its events.

    ``operation``
        ``create``, ``ensure``, ``list``, ``delete``, ``get``, or ``bulk`` for a run.
    ``subject``
        What it is about: a :class:`NewCaseLink`, an :class:`Entity`, the id of a link, the key or id of a
        case; ``None`` for a run.
    ``parent``
        The run that it belongs to.
    ``attempts``
        Requests that were sent to do it. Looking whether a link is there does not count.
    ``waited``
        Seconds for which the rate limit held it back.
    ``outcome``
        Once it is finished: ``created``, ``already_linked``, ``done``, ``failed``, ``ambiguous`` (perhaps
        created) or ``cancelled``.
    ``result``
        What it returned; of a run how many links of each outcome.
    ``error``
        What it raised, but for a cancellation.
    """

    operation: str
    subject: object
    parent: Call | None = None
    attempts: int = 0
    waited: float = 0.0
    outcome: str | None = None
    result: Any = None
    error: Exception | None = None
    _tell: Callable[[CallEvent], None] = field(repr=False)

    def sent(self, operation: str) -> None:
        """A request is sent: an attempt, unless it looks whether the link is there."""
        self.attempts += operation == _SENT_FOR.get(self.operation, self.operation)

    def held_back(self, seconds: float) -> None:
        """It waits for its turn."""
        self._tell(CallWaiting(self, seconds))

    def retried(self, error: CaseLinksError, seconds: float) -> None:
        """An attempt failed, and another one follows."""
        self._tell(CallRetrying(self, error, seconds))

    def reconciled(self) -> None:
        """Its link was found."""
        self._tell(CallReconciled(self))


@frozen
class CallStarted:
    """``call`` begins."""

    call: Call


@frozen
class CallWaiting:
    """``call`` waits for its turn, since the rate limit is used up for ``seconds``, or by those before it."""

    call: Call
    seconds: float


@frozen
class CallRetrying:
    """An attempt of ``call`` ended with ``error``; the next one follows after ``seconds``."""

    call: Call
    error: CaseLinksError
    seconds: float


@frozen
class CallReconciled:
    """What had become of an attempt of ``call`` was not known; its link was looked for, and is there."""

    call: Call


@frozen
class CallFinished:
    """``call`` ended, ``seconds`` after it began."""

    call: Call
    seconds: float


CallEvent = CallStarted | CallWaiting | CallRetrying | CallReconciled | CallFinished
"""What ``on_event`` is called with."""

OnEvent = Callable[[CallEvent], None]
"""Watches calls: it is called with each event, in the event loop, so it must be quick."""


class Observer:
    """Lets ``watchers`` know of calls. What one of them raises is logged, and ends no call."""

    def __init__(self, watchers: Sequence[OnEvent]) -> None:
        self._watchers = watchers

    def watched(
        self, function: Callable[P, Coroutine[Any, Any, R]], describe: Callable[P, tuple[str, object]]
    ) -> Callable[P, Coroutine[Any, Any, R]]:
        """``function``, each call of which is told of; ``describe`` says its operation and its subject."""

        async def watched(*args: P.args, **kwargs: P.kwargs) -> R:
            operation, subject = describe(*args, **kwargs)
            call = Call(operation=operation, subject=subject, parent=current.get(), tell=self._tell)
            with _within(call), self._told(call):
                result = call.result = await function(*args, **kwargs)
                return result

        return watched

    @contextlib.contextmanager
    def run(
        self, make: Callable[[N], Awaitable[tuple[L, bool]]]
    ) -> Iterator[Callable[[N], Awaitable[tuple[L, bool]]]]:
        """A run of many links, of which each is made by what this gives in the place of ``make``."""
        call = Call(operation="bulk", subject=None, parent=current.get(), tell=self._tell)
        counts = call.result = Counter[str]()

        async def made(new: N) -> tuple[L, bool]:
            try:
                # In the task that makes it: whoever consumes the run goes on in a context of their own.
                with _within(call):
                    result = await make(new)
            except Exception as error:
                counts[_failure(error)] += 1
                raise
            counts[_success(result)] += 1
            return result

        with self._told(call):
            yield made

    @contextlib.contextmanager
    def _told(self, call: Call) -> Iterator[None]:
        time = asyncio.get_running_loop().time
        began = time()
        self._tell(CallStarted(call))
        try:
            yield
        except Exception as error:
            call.error, call.outcome = error, _failure(error)
            raise
        except BaseException:  # is not kept, since it holds all that was under way
            call.outcome = "cancelled"
            raise
        else:
            call.outcome = _success(call.result)
        finally:
            self._tell(CallFinished(call, time() - began))

    def _tell(self, event: CallEvent) -> None:
        for watcher in self._watchers:
            try:
                watcher(event)
            except Exception:
                _logger.exception("on_event failed at %s of %s", type(event).__name__, event.call.operation)


@contextlib.contextmanager
def _within(call: Call) -> Iterator[None]:
    token = current.set(call)
    try:
        yield
    finally:
        current.reset(token)


def _failure(error: Exception) -> str:
    return "ambiguous" if isinstance(error, AmbiguousResultError) else "failed"


def _success(result: object) -> str:
    match result:
        case (_, True):
            return "created"
        case (_, False):
            return "already_linked"
        case _:
            return "done"


current: Final[ContextVar[Call | None]] = ContextVar("datadog_caselinks.call", default=None)
"""The call that this task does something for, if it is watched."""


def sent(operation: str) -> None:
    """A request of this operation is sent now."""
    if call := _observed():
        call.sent(operation)


@contextlib.contextmanager
def waiting(seconds: float) -> Iterator[None]:
    """The rate limit holds the call back, as far as is known for so long."""
    call = _observed()
    if call is None:
        yield
        return
    time = asyncio.get_running_loop().time
    began = time()
    call.held_back(seconds)
    try:
        yield
    finally:
        call.waited += time() - began


def retrying(error: CaseLinksError, seconds: float) -> None:
    """The call is repeated after so long."""
    if call := _observed():
        call.retried(error, seconds)


def reconciled() -> None:
    """The link of the call was found, after it was not known whether it had been made."""
    if call := _observed():
        call.reconciled()


def _observed() -> Call | None:
    """The call that this happens in.

    A look that several calls wait for goes on when the one that began it was cancelled, and is then of none.
    """
    call = current.get()
    return call if call and call.outcome is None else None
