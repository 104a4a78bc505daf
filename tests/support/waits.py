"""Does something to a call at whichever of its waits is wanted: as it begins, or just as it is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Generator
from contextvars import ContextVar
from typing import Any, TypeVar
from weakref import WeakSet

T = TypeVar("T")

_waits: ContextVar[Waits | None] = ContextVar("waits", default=None)


class Waits:
    """The waits of one call, over all tasks that it makes, counted from 0.

    ``at``
        The numbers of those at which something happens. What is waited for after that counts on.
    ``act``
        What happens, to the task of the call: it is cancelled.
    ``as_they_end``
        It happens not as a wait begins, but once what is waited for has come and before its task learns of
        that: what is on its way then has nobody who could give it back.
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
        """What the call has begun and has not ended."""
        return [task for task in self._tasks if not task.done()]

    async def of(self, call: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run ``call`` until it is done."""
        loop = asyncio.get_running_loop()
        token = _waits.set(self)
        loop.set_task_factory(_counted_task)
        try:
            # Its own tasks are made within its context, and so are known from those of a server beside it.
            self._call = task = loop.create_task(call)
            _waits.reset(token)
            await asyncio.wait([task])
        finally:
            loop.set_task_factory(None)
            self._call = None  # whose traceback would hold on to all that it had
        return task

    def began(self, task: asyncio.Task[T]) -> asyncio.Task[T]:
        """One more task of the call."""
        self._tasks.add(task)
        return task

    def begins(self, awaited: Any) -> None:
        """A task is about to wait for ``awaited``, or with ``None`` for the next round of the loop."""
        number, self.count = self.count, self.count + 1
        if number not in self._at:
            return
        if not self._as_they_end:
            self._act()
        elif awaited is None:
            asyncio.get_running_loop().call_soon(self._act)
        else:
            awaited.add_done_callback(self._act)  # is called before the task that is to wait for it

    def _act(self, _: object = None) -> None:
        if self._call and not self._call.done():
            self.has_acted = True
            self._act_on(self._call)


class _Counted(Coroutine[Any, Any, T]):
    """A coroutine that tells of each wait before it begins."""

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
