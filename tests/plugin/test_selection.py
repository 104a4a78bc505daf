"""Which tests a command selects."""

from __future__ import annotations

import pytest

from tests.plugin.test_project import ROOT, run

MARKED = "tests/http/test_sharing.py::test_the_server_counts_in_aligned_windows"
"""A fast test with a marker that is not selected by default."""


@pytest.mark.parametrize("workers", [0, 1])
def test_all_tests_of_a_named_path_run(workers: int) -> None:
    result = run(
        "-m", "pytest", "-q", f"--numprocesses={workers}", "-p", "no:cacheprovider", MARKED, folder=ROOT
    )
    assert "1 passed" in result.stdout, result.stdout + result.stderr


def test_workers_keep_the_named_markers() -> None:
    result = run(
        "-m", "pytest", "-q", "-n", "1", "-p", "no:cacheprovider", "-m", "browser", MARKED, folder=ROOT
    )
    assert result.returncode == pytest.ExitCode.NO_TESTS_COLLECTED
