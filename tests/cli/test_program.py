"""The tests' own way to start the command."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from tests.cli import program
from tests.support.waiting import MAX_SECONDS


async def test_a_start_fails_where_the_starter_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test whose starter could not start fails, and does not wait for a process forever."""
    monkeypatch.setattr(program, "_starter", None)
    monkeypatch.setattr(program, "starter", SimpleNamespace(__name__="tests.cli"))  # is not a program
    with program.starting():
        async with asyncio.timeout(MAX_SECONDS):
            with pytest.raises((OSError, ValueError)):
                await program.start({}, "--version")
