"""Python programs in an environment without the settings of these tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    outside = ("DD_", "PYTEST_", "PYTHONPATH", "PYTHONWARNINGS")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(outside)}
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
