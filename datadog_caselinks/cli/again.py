"""Suggest the command to run next."""

from __future__ import annotations

import math
import os
import shlex
import shutil
import subprocess
import sys

from datadog_caselinks.values.errors import RateLimitError
from datadog_caselinks.values.messages import one_line

_MAX_LENGTH = 10_000


def to_continue(
    what: str = "",
    *,
    first: str = "",
    command: str = "",
    file: tuple[str, str] | None = None,
    flag: str = "",
    option: str = "",
) -> str:
    """Return how to continue: a sentence, and the command on a separate line, ready to be copied.

    Args:
        what: A description of the command, such as ``it creates only the missing links``.
        first: The step before it, such as ``fix the problems above``.
        command: The subcommand to run instead of this one.
        file: The FILE of this command, and the one that replaces it.
        flag: An option to leave out.
        option: An option to leave out with its value.
    """
    words = _without(sys.argv[1:], flag, option)
    if command:
        words[0] = command
    if file:
        words[len(words) - 1 - words[::-1].index(file[0])] = file[1]
    fix = f"{first}, then " if first else ""
    same_input = " with the same input" if "-" in words else ""
    then = f" ({what})" if what else ""
    return f"To continue, {fix}run this command{same_input}{then}:\n  {_line([_program(), *words])}"


def to_show_ids() -> str:
    """Return the command ``list --ids`` with the entity and the options of this command."""
    return _line([_program(), "list", "--ids", *sys.argv[2:]])


def to_undo(journal: str, site: str | None) -> str:
    """Return the command that undoes the run with this journal, on the site that an option named, if any."""
    return _line([_program(), "undo", *(["--site", site] if site else []), journal])


def longer_wait(error: BaseException | None, max_wait: float) -> str:
    """Return what to do about a wait that is longer than ``--max-wait``; an empty text for other errors."""
    wait = error.retry_after if isinstance(error, RateLimitError) else None
    if wait is None or wait <= max_wait:
        return ""
    return f"wait {math.ceil(wait)} s or add --max-wait {math.ceil(wait)}"


def _without(words: list[str], flag: str, option: str) -> list[str]:
    kept: list[str] = []
    rest = iter(words)
    for word in rest:
        if option and word == option:
            next(rest, None)
        elif word != flag and not (option and word.startswith(f"{option}=")):
            kept.append(word)
    return kept


def _program() -> str:
    """Return the name of the program, with its path if the shell would not find it."""
    name, path = "caselinks", sys.argv[0]
    return path if os.path.basename(path) == name and not shutil.which(name) else name


def _line(words: list[str]) -> str:
    line = subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)
    return one_line(line, limit=_MAX_LENGTH)
