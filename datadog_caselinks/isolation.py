"""Tell failures from interruptions, and keep optional side effects from changing the course of a call.

Side effects are logs, events and progress. Handlers, filters and observers belong to the program that uses
the package, and may raise any error: a full disk, a closed stream, a bug. A synchronous function cannot be
cancelled, so a ``CancelledError`` that it raises is an error like any other. Only exceptions that end the
program are raised.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping


def is_interruption(error: BaseException) -> bool:
    """Return whether ``error`` ends the task or the program, such as a cancellation, and is not a failure.

    A ``CancelledError`` in a task that nobody cancelled is a failure: of another task that it awaited.
    """
    if not isinstance(error, asyncio.CancelledError):
        return not isinstance(error, Exception)
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def log(
    logger: logging.Logger,
    level: int,
    message: str,
    *values: object,
    extra: Mapping[str, object] | None = None,
    exc_info: bool = False,
) -> None:
    """Log ``message``. What a handler or filter raises is dropped: there is no other place to report it."""
    try:
        logger.log(level, message, *values, extra=extra, exc_info=exc_info, stacklevel=2)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        pass


class isolated:  # noqa: N801 - in lower case like the context managers of contextlib
    """The context of a side effect. If it raises, ``message`` is logged with the traceback."""

    __slots__ = ("_logger", "_message", "_values")

    def __init__(self, logger: logging.Logger, message: str, *values: object) -> None:
        self._logger = logger
        self._message = message
        self._values = values

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        if error is None or isinstance(error, KeyboardInterrupt | SystemExit):
            return False
        log(self._logger, logging.ERROR, self._message, *self._values, exc_info=True)
        return True
