"""Calls as observers see them, and the events that report them. Nothing here changes the course of a call."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeVar

from attrs import define, frozen

from datadog_caselinks.isolation import isolated
from datadog_caselinks.values.errors import AmbiguousResultError, CaseLinksError
from datadog_caselinks.values.models import LinkStatus

_logger = logging.getLogger(__name__)

N = TypeVar("N")
R = TypeVar("R", bound=tuple[object, bool])

_REQUEST_OF: Final = {"ensure": "create"}
"""The operation of the main request of a call, if it is not that of the call."""


class _Observed:
    """The private state of a call, with which it reports itself. ``asdict`` omits it."""

    __slots__ = ("_observers", "_started_at", "_token")

    _observers: Sequence[OnEvent]
    _started_at: float
    _token: Token[Call | None]


@define(eq=False, kw_only=True)
class Call(_Observed):
    """One call of a client, or one run of ``create_links``: the same object in all its events.

    ``operation``
        ``create``, ``ensure``, ``list``, ``delete``, ``get``, ``search_cases`` (one page), ``get_incident``,
        ``search_incidents``, or ``bulk`` for a run.
    ``subject``
        What the call is about: a :class:`NewCaseLink`, an :class:`Entity`, the id of a link, the key or id of
        a case, a query of cases or incidents, the number or id of an incident; ``None`` for a run.
    ``parent``
        The run that it belongs to.
    ``attempts``
        Requests that were sent for it, without lookups.
    ``waited``
        Seconds for which the rate limit, or a ``rate`` of the client, held it back. Waits for a slot, for the
        end of an outage and between attempts are not included.
    ``outcome``
        Once it is finished: a :class:`LinkStatus` (``created``, ``already_linked``, ``failed``,
        ``ambiguous``),
        ``done`` or ``cancelled``.
    ``result``
        What it returned; for a run the number of links of each outcome.
    ``error``
        What it raised, except a cancellation.
    """

    operation: str
    subject: object
    parent: Call | None = None
    attempts: int = 0
    waited: float = 0.0
    outcome: str | None = None
    result: Any = None
    error: Exception | None = None

    def __enter__(self) -> Self:
        self._token = _current.set(self)  # type: ignore[misc]  # a slot of the base class
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end(error)
        _current.reset(self._token)

    def notify(self, event: CallEvent) -> None:
        """Report ``event`` to each observer. What one raises is logged."""
        for observer in self._observers:
            with isolated(_logger, "on_event failed at %s of %s", type(event).__name__, self.operation):
                observer(event)

    def _start(self) -> None:
        self._started_at = asyncio.get_running_loop().time()  # type: ignore[misc]  # a slot of the base class
        self.notify(CallStarted(self))

    def _end(self, error: BaseException | None) -> None:
        if error is None:
            self.outcome = _outcome(self.result)
        elif isinstance(error, Exception):
            self.error, self.outcome = error, failure_status(error)
        else:  # a cancellation is not kept: its traceback holds everything that was in progress
            self.outcome = "cancelled"
        self.notify(CallFinished(self, asyncio.get_running_loop().time() - self._started_at))


@frozen
class CallStarted:
    """``call`` begins."""

    call: Call


@frozen
class CallWaiting:
    """``call`` waits, since the rate limit is used up for ``seconds``, or other requests wait before it.

    It waits for a ``rate`` of the client first, and then for the server's limit, each with an event. Waits
    for a slot and for the end of an outage have none.
    """

    call: Call
    seconds: float


@frozen
class CallRetrying:
    """An attempt of ``call`` failed with ``error``; the next one, or a lookup, is in ``seconds``."""

    call: Call
    error: CaseLinksError
    seconds: float


@frozen
class CallReconciled:
    """An attempt of ``call`` was ambiguous, and the lookup found its link."""

    call: Call


@frozen
class CallFinished:
    """``call`` ended, ``seconds`` after it began."""

    call: Call
    seconds: float


CallEvent = CallStarted | CallWaiting | CallRetrying | CallReconciled | CallFinished
"""An event of a call. ``on_event`` receives each one."""

OnEvent = Callable[[CallEvent], None]
"""A callback that receives each event. It runs in the event loop, so it must be quick."""


class Telemetry(Protocol):
    """An observer that may record nothing, such as OpenTelemetry without a provider."""

    def is_recording(self) -> bool:
        """Return whether anything records the events."""

    def __call__(self, event: CallEvent) -> None:
        """Record one event."""


class _UnobservedCall:
    """The context of a call that is not observed. It costs next to nothing, and ``result`` is not used."""

    __slots__ = ("result",)

    result: Any

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Observer:
    """Reports calls to ``on_event`` and ``telemetry``. Their errors are logged, and fail no call."""

    def __init__(self, on_event: OnEvent | None = None, telemetry: Telemetry | None = None) -> None:
        self._on_event = on_event
        self._telemetry = telemetry

    def call(self, operation: str, subject: object) -> Call | _UnobservedCall:
        """Return the context of one call. Within it, set ``result`` to what the call returns."""
        if observers := self._observers():
            return _new_call(operation, subject, observers)
        return _UnobservedCall()

    @contextlib.contextmanager
    def run(self, create: Callable[[N], Awaitable[R]]) -> Iterator[Callable[[N], Awaitable[R]]]:
        """Observe a run of many links. Create each link with the yielded function instead of ``create``."""
        observers = self._observers()
        if not observers:
            yield create
            return
        call = _new_call("bulk", None, observers)
        counts = call.result = Counter[str]()

        async def create_observed(new: N) -> R:
            # In the task that creates the link: the consumer of the run has a separate context.
            token = _current.set(call)
            try:
                result = await create(new)
            except Exception as error:
                counts[failure_status(error)] += 1
                raise
            finally:
                _current.reset(token)
            counts[_outcome(result)] += 1
            return result

        call._start()
        error: BaseException | None = None
        try:
            yield create_observed
        except BaseException as raised:
            error = raised
            raise
        finally:
            call._end(error)

    def _observers(self) -> list[OnEvent]:
        observers = [self._on_event] if self._on_event else []
        if self._telemetry:
            with isolated(_logger, "OpenTelemetry failed"):
                if self._telemetry.is_recording():
                    observers.append(self._telemetry)
        return observers


def report_request(operation: str) -> None:
    """Report that a request of this operation is being sent."""
    call = _current.get()
    if call and operation == _REQUEST_OF.get(call.operation, call.operation):
        call.attempts += 1


@contextlib.contextmanager
def report_wait(seconds: float) -> Iterator[None]:
    """Report that the rate limit holds the call back for about ``seconds``."""
    call = _current_call()
    if call is None:
        yield
        return
    time = asyncio.get_running_loop().time
    began = time()
    call.notify(CallWaiting(call, seconds))
    try:
        yield
    finally:
        call.waited += time() - began


def report_retry(error: CaseLinksError, seconds: float) -> None:
    """Report that an attempt failed, and that the next one follows after ``seconds``."""
    if call := _current_call():
        call.notify(CallRetrying(call, error, seconds))


def report_reconciled() -> None:
    """Report that a lookup found the link of an ambiguous attempt."""
    if call := _current_call():
        call.notify(CallReconciled(call))


_current: Final[ContextVar[Call | None]] = ContextVar("datadog_caselinks.call", default=None)
"""The call that this task works for, if it is observed."""


def _current_call() -> Call | None:
    # A shared lookup continues after the call that began it was cancelled, and then belongs to no call.
    call = _current.get()
    return call if call and call.outcome is None else None


def _new_call(operation: str, subject: object, observers: Sequence[OnEvent]) -> Call:
    call = Call(operation=operation, subject=subject, parent=_current.get())
    call._observers = observers  # type: ignore[misc]  # a slot of the base class
    return call


def failure_status(error: Exception) -> LinkStatus:
    """Return the outcome of a create that failed with ``error``."""
    return LinkStatus.AMBIGUOUS if isinstance(error, AmbiguousResultError) else LinkStatus.FAILED


def _outcome(result: object) -> str:
    match result:
        case (_, True):
            return LinkStatus.CREATED
        case (_, False):
            return LinkStatus.ALREADY_LINKED
        case _:
            return "done"
