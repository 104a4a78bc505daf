"""Format text for messages: printable, on one line, and of bounded length."""

from __future__ import annotations

from typing import Final

MAX_QUOTED: Final = 100
"""The maximum length of a quoted value in characters."""

MAX_STORED: Final = 1000
"""The maximum length of a stored error message in characters."""

_QUOTES: Final = frozenset("\"'`")


def quoted(value: object) -> str:
    """Return ``value`` as messages quote it: its ``repr`` on one line, cut after ``MAX_QUOTED`` characters.

    Every message that quotes a value from outside uses this function, except for paths, whose end matters. It
    accepts any object: control characters become spaces, and if ``repr`` raises, the result names the type.
    """
    try:
        # Cut first: the repr of a long text takes time and memory, and only its beginning is needed.
        text = repr(value[:MAX_QUOTED] if type(value) in (str, bytes) else value)  # type: ignore[index]
    except Exception:
        text = f"<{type(value).__name__}, whose repr fails>"
    return _cut(_printable(text), MAX_QUOTED)


def one_line(text: str, *, limit: int = 300) -> str:
    """Return ``text`` on one line, cut after ``limit`` characters.

    It is for text that a person should read as written, such as a server's error or the title of a case.
    Unlike :func:`quoted` it adds no quotation marks and no escapes, and it joins lines with single spaces.
    """
    return _cut(" ".join(_printable(text).split()), limit)


def is_in_quotes(text: str) -> bool:
    """Return whether ``text`` is between two quotation marks.

    ``docker run --env-file`` keeps the quotation marks of a file that was written for a shell.
    """
    return len(text) > 1 and text[0] == text[-1] and text[0] in _QUOTES


def storable(text: str) -> str:
    """Return the first ``MAX_STORED`` characters of ``text``, without lone surrogates.

    It is for error messages in journals and databases. UTF-8 cannot encode lone surrogates, so each becomes a
    question mark.
    """
    return text[:MAX_STORED].encode(errors="replace").decode()


def counted(count: int, one: str, many: str = "") -> str:
    """Return ``count`` with its noun, such as ``1 link`` or ``2 links``.

    Args:
        count: The number.
        one: The singular of the noun.
        many: The plural. By default ``one`` with an ``s``.
    """
    return f"{count} {one}" if count == 1 else f"{count} {many or f'{one}s'}"


def needs_extra(what: str, extra: str) -> str:
    """Return a message that says that ``what`` needs an extra of this package, and how to install the extra.

    The package is not published, so the hint installs it from the folder of the project.
    """
    return f"{what} needs the extra {extra}. In the folder of the project, run: pip install '.[{extra}]'"


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(char if char.isprintable() else " " for char in text)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}…"
