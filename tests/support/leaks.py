"""All that an error or a log record can come to be, for the tests that try to make a secret leak by one.

That is more than ``keys.py`` looks at after every test: tracebacks with local variables, and causes.
"""

from __future__ import annotations

import logging
import pickle
import traceback
from collections.abc import Iterable, Iterator


def texts_of(error: BaseException) -> Iterator[str]:
    """Everything that a log, a crash report or a queue could come to hold of an error."""
    yield str(error)
    yield repr(error)
    yield pickle.dumps(error).decode("latin-1")
    yield "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    for linked in (error.__cause__, error.__context__):
        if linked is not None:
            yield from texts_of(linked)


def texts_of_record(record: logging.LogRecord) -> Iterator[str]:
    """The same of a log record."""
    yield record.getMessage()
    yield repr(vars(record))
    if record.exc_info and record.exc_info[1]:
        yield from texts_of(record.exc_info[1])


def assert_nothing_of(secrets: Iterable[str], texts: Iterable[str]) -> None:
    """Fail if one of ``secrets`` is in one of ``texts``."""
    for text in texts:
        found = [secret for secret in secrets if secret in text]
        assert not found, text
