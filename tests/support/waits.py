"""Interrupt a call at a chosen wait: when the wait begins, or just after it has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Generator
from contextvars import ContextVar
from typing import Any, TypeVar
from weakref import WeakSet

T = TypeVar("T")

_waits: ContextVar[Waits | None] = ContextVar("waits", default=None)


class Waits:
    """The waits of one call and of all tasks that it creates, numbered from 0.

    Args:
        at: The numbers of the waits at which to act. Later waits are counted too.
        act: The action, which gets the task of the call. By default it cancels the task.
        as_they_end: Act after the awaited result is available and before the task receives it, instead of
            when the wait begins. This is the moment at which a result can get lost.
    """

    def __init__(
        self,
        at: Collection[int] = (),
        act: Callable[[asyncio.Task[Any]], object] = asyncio.Task.cancel,
        *,
        as_they_end: bool = False,
    ) -> None:
        self._at = at
        self._act_on = act
        self._as_they_end = as_they_end
        self._call: asyncio.Task[Any] | None = None
        self._tasks = WeakSet[asyncio.Task[Any]]()
        self.count = 0
        self.has_acted = False

    @property
    def tasks_left(self) -> list[asyncio.Task[Any]]:
        """The tasks that the call has started and that are still running."""
        return [task for task in self._tasks if not task.done()]

    async def of(self, call: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run ``call`` to its end and return its task."""
        loop = asyncio.get_running_loop()
        token = _waits.set(self)
        loop.set_task_factory(_counted_task)
        try:
            # Tasks of the call inherit its context, which distinguishes them from the tasks of a test server.
            self._call = task = loop.create_task(call)
            _waits.reset(token)
            await asyncio.wait([task])
        finally:
            loop.set_task_factory(None)
            self._call = None  # its traceback would keep all its objects alive
        return task

    def began(self, task: asyncio.Task[T]) -> asyncio.Task[T]:
        """Record a task of the call."""
        self._tasks.add(task)
        return task

    def begins(self, awaited: Any) -> None:
        """Count a wait for ``awaited``, where ``None`` is the next iteration of the event loop."""
        number, self.count = self.count, self.count + 1
        if number not in self._at:
            return
        if not self._as_they_end:
            self._act()
        elif awaited is None:
            asyncio.get_running_loop().call_soon(self._act)
        else:
            awaited.add_done_callback(self._act)  # runs before the callback that wakes the task up

    def _act(self, _: object = None) -> None:
        if self._call and not self._call.done():
            self.has_acted = True
            self._act_on(self._call)


class _Counted(Coroutine[Any, Any, T]):
    """A coroutine that reports each wait before it begins."""

    def __init__(self, coroutine: Coroutine[Any, Any, T], waits: Waits) -> None:
        self._coroutine = coroutine
        self._waits = waits

    def send(self, value: Any) -> Any:
        awaited = self._coroutine.send(value)
        self._waits.begins(awaited)
        return awaited

    def throw(self, *error: Any) -> Any:
        awaited = self._coroutine.throw(*error)
        self._waits.begins(awaited)
        return awaited

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, T]:
        raise NotImplementedError  # a task calls send and throw


def _counted_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    waits = _waits.get()
    if waits is None:
        return asyncio.Task(coroutine, loop=loop, **options)
    return waits.began(asyncio.Task(_Counted(coroutine, waits), loop=loop, **options))
