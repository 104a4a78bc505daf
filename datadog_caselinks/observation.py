"""What happens in a call, said to whoever watches it; nobody does unless it is asked for. Knows no HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from datadog_caselinks.errors import CaseLinksError

if TYPE_CHECKING:
    from datadog_caselinks.events import Call

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
