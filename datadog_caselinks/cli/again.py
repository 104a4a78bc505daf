"""The commands with which to go on after a run."""

from __future__ import annotations

import math
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping

from datadog_caselinks.errors import RateLimitError
from datadog_caselinks.messages import one_line

_MAX_LENGTH = 10_000


def to_continue(
    what: str = "", *, first: str = "", replacing: Mapping[str, str | None] | None = None, option: str = ""
) -> str:
    """Return how to go on: a sentence, and the command on a line of its own, ready to be copied.

    Args:
        what: What the command does then, such as ``it creates only the missing links``.
        first: What to do before, such as ``fix the problems above``.
        replacing: Words of this command to replace, or to leave out.
        option: A word to leave out with the word after it.
    """
    words = _replaced(sys.argv[1:], replacing or {}, option)
    fix = f"{first}, then " if first else ""
    same_input = " with the same input" if "-" in words else ""
    then = f" ({what})" if what else ""
    return f"To continue, {fix}run this command{same_input}{then}:\n  {_line([_program(), *words])}"


def to_undo(journal: str, site: str | None) -> str:
    """Return the command that undoes the run with this journal, on the site that an option named, if any."""
    return _line([_program(), "undo", *(["--site", site] if site else []), journal])


def longer_wait(error: BaseException | None, max_wait: float) -> str:
    """Return what to do about a wait that is longer than ``--max-wait``; an empty text for other errors."""
    wait = error.retry_after if isinstance(error, RateLimitError) else None
    if wait is None or wait <= max_wait:
        return ""
    return f"wait {math.ceil(wait)} s or add --max-wait {math.ceil(wait)}"


def _replaced(words: list[str], replacing: Mapping[str, str | None], option: str) -> list[str]:
    kept: list[str] = []
    rest = iter(words)
    for word in rest:
        if option and word == option:
            next(rest, None)
        elif not (option and word.startswith(f"{option}=")):
            replacement = replacing.get(word, word)
            kept += [] if replacement is None else [replacement]
    return kept


def _program() -> str:
    """Return the name of the program, with its path if the shell would not find it."""
    name, path = "caselinks", sys.argv[0]
    return path if os.path.basename(path) == name and not shutil.which(name) else name


def _line(words: list[str]) -> str:
    line = subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)
    return one_line(line, limit=_MAX_LENGTH)
