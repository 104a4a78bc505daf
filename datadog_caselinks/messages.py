"""Text fit to be shown to people: on one line, without control characters, of readable length."""

from __future__ import annotations

from typing import Final

MAX_STORED: Final = 1000
"""Characters that are kept of an error's text."""


def shortened(value: object) -> str:
    """``value`` as a message quotes what was given: its ``repr``, cut after 100 characters."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"


def one_line(text: str, *, limit: int = 300) -> str:
    """``text`` fit for a terminal: on one line, without control characters, cut after ``limit``."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= limit else f"{line[:limit]}…"


def storable(text: str) -> str:
    """What is kept of ``text``: its beginning, without the lone surrogates that UTF-8 cannot hold."""
    return text[:MAX_STORED].encode(errors="replace").decode()


def counted(count: int, one: str, many: str = "") -> str:
    """``count`` with its noun: ``one`` in the singular, else ``many``, or ``one`` with an s."""
    return f"{count} {one}" if count == 1 else f"{count} {many or f'{one}s'}"
