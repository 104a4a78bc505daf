"""The code blocks of the documentation, and programs without a Datadog site or key in their environment."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.cli.program import environment

ROOT = Path(__file__).parents[2]
PARSED = {"dockerfile", "ini", "yaml"}  # files of the recipes, which test_recipes.py checks
CELLS = "recipes/jupyter.md"  # the cells of a notebook, which test_recipes.py runs one after the other


def blocks(page: Path) -> list[tuple[str, int, str]]:
    """Return the language, line number and text of each fenced block."""
    text = page.read_text()
    fences = re.finditer(r"^```(\S*)[^\n]*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(match[1], text.count("\n", 0, match.start()) + 1, match[2]) for match in fences]


def run(command: list[str], folder: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=variables, capture_output=True, text=True, timeout=300, check=False
    )


def without_datadog() -> dict[str, str]:
    """Return the environment with this Python's commands first and without a Datadog site or key."""
    return environment(PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
