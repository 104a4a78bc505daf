"""Run the tests with eager tasks, as Home Assistant and Textual do: ``pytest -p tests.on_eager_tasks``.

An eager task runs until its first wait before ``create_task`` returns. Needs Python 3.12 or later.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping

import pytest


def pytest_configure() -> None:
    """Refuse a version of Python without eager tasks."""
    if sys.version_info < (3, 12):
        raise pytest.UsageError("tests.on_eager_tasks needs Python 3.12 or later")


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"eager": _eager_loop}


def _eager_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    if sys.version_info >= (3, 12):
        loop.set_task_factory(asyncio.eager_task_factory)
    return loop
