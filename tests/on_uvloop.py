"""Run the tests on uvloop: ``pytest -p tests.on_uvloop``. Tests with the fixture ``clock`` are skipped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import uvloop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}
