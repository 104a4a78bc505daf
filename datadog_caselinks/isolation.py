"""Keep optional side effects, such as logs, events and progress, from changing the course of a call.

Handlers, filters and observers belong to the program that uses the package, and may raise anything: a full
disk, a closed stream, a bug. A synchronous function cannot be cancelled, so a ``CancelledError`` that it
raises is an error like any other. Only what ends the program passes.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping


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


@contextlib.contextmanager
def isolated(logger: logging.Logger, message: str, *values: object) -> Iterator[None]:
    """Run a side effect. If it raises, log ``message`` with the traceback, and go on."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        log(logger, logging.ERROR, message, *values, exc_info=True)
