"""The selection of tests by a path or by markers."""

from __future__ import annotations

import pytest

from tests.plugin.programs import ROOT, run

MARKED = "tests/http/test_sharing.py::test_the_server_counts_in_aligned_windows"
"""A fast test with a marker that is not selected by default."""

WITH_A_WORKER = ("-m", "pytest", "-q", "-n", "1", "-p", "no:cacheprovider", "-p", "no:schemathesis")


def test_workers_run_all_tests_of_a_named_path() -> None:
    """A path on the command line selects all its tests, even those with markers, in parallel runs too."""
    result = run(*WITH_A_WORKER, MARKED, folder=ROOT)
    assert "1 passed" in result.stdout, result.stdout + result.stderr


def test_workers_keep_the_named_markers() -> None:
    """Markers on the command line select the tests of a path in parallel runs too."""
    result = run(*WITH_A_WORKER, "-m", "browser", MARKED, folder=ROOT)
    assert result.returncode == pytest.ExitCode.NO_TESTS_COLLECTED
