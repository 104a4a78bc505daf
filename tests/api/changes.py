"""Breaking changes of the public names since a release, found by griffe without running the code."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final

import griffe

NAME: Final = "datadog_caselinks"
PUBLIC: Final = frozenset(
    {NAME, *(f"{NAME}.{module}" for module in ("public", "sandbox", "graph.rendering", "fleet"))}
)
"""The modules from which users import: the names that they export are public, wherever they are defined."""


def last_release(project: Path) -> str | None:
    """Return the latest tag ``v…`` in the history; ``None`` without one or without a repository."""
    command = ["git", "-C", str(project), "describe", "--tags", "--abbrev=0", "--match=v[0-9]*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def breaking_changes(project: Path, *, since: str) -> list[str]:
    """Return a line for each public name, parameter or attribute that was removed or changed.

    For an attrs class, the fields are compared, but not their order as parameters.
    """
    old = griffe.load_git(NAME, ref=since, repo=project)
    # By default, griffe prefers a package in the working directory to the project's.
    new = griffe.load(NAME, search_paths=[project], try_relative_path=False)
    _hide_modules(old)
    return [
        breakage.explain(griffe.ExplanationStyle.MARKDOWN)
        for breakage in griffe.find_breaking_changes(old, new)
    ]


def is_announced(project: Path, *, since: str) -> bool:
    """Return whether the major version is higher than that of the release ``since``."""
    [version] = re.findall(
        r'^__version__ = "(.+)"$', (project / NAME / "version.py").read_text(), re.MULTILINE
    )
    return _major(version) > _major(since.removeprefix("v"))


def _hide_modules(package: griffe.Object | griffe.Alias) -> None:
    for module in package.modules.values():
        module.public = module.path in PUBLIC
        _hide_modules(module)


def _major(version: str) -> int:
    return int(version.partition(".")[0])
