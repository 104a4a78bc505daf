"""Search everything that the package outputs during the tests for the keys that the tests use.

``conftest.py`` runs the search after each test. This module patches every way in which the package can
output text: log records, errors and their pickles, the output of this process and of other programs, events,
spans and metrics, journals and other files, and the page of the sandbox.
"""

from __future__ import annotations

import asyncio.subprocess
import contextlib
import functools
import logging
import pickle
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from attrs import define, field
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from datadog_caselinks import ApiKeys, BearerToken, CaseLinksError
from datadog_caselinks.observation.events import Call
from datadog_caselinks.sandbox.api import CREDENTIALS
from datadog_caselinks.sandbox.page import Page
from datadog_caselinks.values.credentials import AuthHeaders
from tests.cli import program

_logger = logging.getLogger("datadog_caselinks")

# Shorter keys are placeholders in tests, and also occur as parts of words.
SHORTEST = 9
# The maximum per class and test: 10,000 links that fail in the same way show nothing new.
ERRORS = 3
# The output in which the sandbox publishes the keys that it accepts.
_PUBLISHED = re.compile(r'export DD_\S+=.*|"keys": \{.*?\}')
PUBLIC = {CREDENTIALS.api_key, CREDENTIALS.app_key}
"""The keys that the sandbox shows on its page, and prints when it is started as a program."""


@define
class Watch:
    """The keys that a test created or used, and everything that the package output during the test."""

    texts: Counter[str] = field(factory=Counter)
    """The number of searched texts for each kind of output."""
    _keys: set[str] = field(factory=set)
    _new: list[tuple[str, str]] = field(factory=list)
    _errors: list[CaseLinksError] = field(factory=list)
    _kinds: Counter[type] = field(factory=Counter)

    def give(self, *keys: object) -> None:
        """Search for these keys."""
        self._keys.update(key for key in keys if isinstance(key, str) and len(key) >= SHORTEST)

    def see(self, way: str, text: str | bytes | None) -> None:
        """Record ``text`` as output of the kind ``way``."""
        if text:
            self._new.append((way, text.decode("latin-1") if isinstance(text, bytes) else text))

    @staticmethod
    def sees_log_records() -> bool:
        """Return whether the log has the level at which this search sees all records of the package."""
        return _logger.level == logging.DEBUG

    def see_error(self, error: CaseLinksError) -> None:
        """Record an error, which the caller may show or store."""
        self._kinds[type(error)] += 1
        if self._kinds[type(error)] <= ERRORS:
            self._errors.append(error)

    def see_files(self, folder: Path) -> None:
        """Record the files that a test left in ``folder``."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.see("files", path.read_bytes())

    def keys_shown(self) -> list[str]:
        """Return each key in the output of the test, with the kind of output and the surrounding text."""
        for error in self._errors:
            self.see("errors", f"{error}\n{error!r}\n{vars(error)!r}")
            with contextlib.suppress(Exception):  # other tests check whether errors can be pickled
                self.see("pickles", pickle.dumps(error))
        new, self._new = self._new, []
        self._errors.clear()
        self._kinds.clear()
        keys, self._keys = self._keys, set()
        found = []
        for way, text in new:
            self.texts[way] += 1
            shown = _PUBLISHED.sub("", text) if way == "programs" else text
            for key in keys - PUBLIC if way == "pages" else keys | PUBLIC:
                if (at := shown.find(key)) >= 0:
                    found.append(f"{way}: {shown[max(at - 100, 0) : at + 100]!r}")
        return found


class _Records(logging.Handler):
    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def emit(self, record: logging.LogRecord) -> None:
        self._watch.see("log records", f"{record.getMessage()}\n{vars(record)!r}")


@contextlib.contextmanager
def watching() -> Iterator[Watch]:
    """Record the output of the package while the context lasts."""
    watch = Watch()

    def after(owner: Any, name: str, do: Callable[..., None]) -> Any:
        """Call ``do`` with the result and the arguments of each call of a method."""
        method = getattr(owner, name)

        @functools.wraps(method)
        def called(*arguments: Any, **options: Any) -> Any:
            result = method(*arguments, **options)
            do(result, *arguments, **options)
            return result

        return patch.object(owner, name, called)

    def after_awaiting(owner: Any, name: str, do: Callable[..., None]) -> Any:
        method = getattr(owner, name)

        @functools.wraps(method)
        async def called(*arguments: Any, **options: Any) -> Any:
            result = await method(*arguments, **options)
            do(result)
            return result

        return patch.object(owner, name, called)

    def used(auth: AuthHeaders) -> None:
        watch.give(*auth.secrets)

    def printed(result: tuple[str | bytes | None, ...], *_: object, **__: object) -> None:
        for text in result:
            watch.see("programs", text)

    level, records = _logger.level, _Records(watch)
    with contextlib.ExitStack() as stack:
        for patched in (
            after(ApiKeys, "__attrs_post_init__", lambda _, it: watch.give(it.api_key, it.app_key)),
            after(BearerToken, "__attrs_post_init__", lambda _, it: watch.give(it.token)),
            after_awaiting(ApiKeys, "authenticate", used),
            after_awaiting(BearerToken, "authenticate", used),
            after(CaseLinksError, "__init__", lambda _, it, *__, **___: watch.see_error(it)),
            after(Call, "notify", lambda _, __, event: watch.see("events", repr(event))),
            after(Page, "state", lambda state, _: watch.see("pages", repr(state))),
            after(InMemorySpanExporter, "export", lambda _, __, spans: watch.see("spans", _json(spans))),
            after(InMemoryMetricReader, "get_metrics_data", lambda it, _: watch.see("metrics", repr(it))),
            after(pytest.CaptureFixture, "readouterr", printed),
            after(subprocess.Popen, "communicate", printed),
            after_awaiting(asyncio.subprocess.Process, "communicate", printed),
            after_awaiting(program.Program, "communicate", printed),
            after(program, "_invoke", lambda done, *_: printed((done.out, done.err))),
            after(program, "_read", lambda shown, *_: watch.see("programs", shown)),
        ):
            stack.enter_context(patched)
        _logger.addHandler(records)
        _logger.setLevel(logging.DEBUG)
        try:
            yield watch
        finally:
            _logger.removeHandler(records)
            _logger.setLevel(level)


def _json(spans: Any) -> str:
    return "\n".join(span.to_json() for span in spans)
