"""Collect every text in which an error or a log record may appear, for tests that secrets do not leak.

The texts include tracebacks with local variables and causes, which ``keys.py`` does not search.
"""

from __future__ import annotations

import logging
import pickle
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set


def texts_of(error: BaseException) -> Iterator[str]:
    """Yield every text of an error that a log, a crash report or a queue could contain."""
    yield from _texts_of(error, {})


def _texts_of(error: BaseException, seen: dict[int, object]) -> Iterator[str]:
    """Yield the texts of ``error`` and its causes, each object's once; ``seen`` keeps them alive."""
    if id(error) in seen:  # most often the cause is the context too
        return
    seen[id(error)] = error
    yield str(error)
    yield repr(error)
    yield pickle.dumps(error).decode("latin-1")
    yield "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    for frame, _ in traceback.walk_tb(error.__traceback__):
        for value in list(frame.f_locals.values()):
            if id(value) not in seen:
                seen[id(value)] = value
                yield from _texts_within(value)
    for linked in (error.__cause__, error.__context__):
        if linked is not None:
            yield from _texts_of(linked, seen)


def _texts_within(value: object, levels: int = 4) -> Iterator[str]:
    """Yield what an error tracker stores of a local variable: also the items of containers and tuples."""
    yield repr(value)
    if levels == 0 or isinstance(value, str | bytes):
        return
    if isinstance(value, Mapping):
        value = [*value, *value.values()]
    if isinstance(value, Sequence | Set):
        for item in list(value)[:100]:
            yield from _texts_within(item, levels - 1)


def texts_of_record(record: logging.LogRecord) -> Iterator[str]:
    """Yield every text of a log record, including those of its error."""
    yield record.getMessage()
    yield repr(vars(record))
    if record.exc_info and record.exc_info[1]:
        yield from texts_of(record.exc_info[1])


def assert_nothing_of(secrets: Iterable[str], texts: Iterable[str]) -> None:
    """Fail if any of ``texts`` contains any of ``secrets``."""
    for text in texts:
        found = [secret for secret in secrets if secret in text]
        assert not found, text
