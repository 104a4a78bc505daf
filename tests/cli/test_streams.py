"""The command with closed streams, or with streams of a limited encoding."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LINKS = Path(__file__).parents[2] / "examples/links.yaml"


def run(arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command with a shell that interprets ``arguments``."""
    return subprocess.run(
        ["sh", "-c", f'exec "$0" -W error -m datadog_caselinks {arguments}', sys.executable],
        env={**os.environ, **variables},
        capture_output=True,
        encoding=variables.get("PYTHONIOENCODING", "utf-8"),
        check=False,
    )


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(
    "command", ["list --sandbox SHOP-2", "graph --sandbox SHOP-2", f"plan --sandbox {LINKS}"]
)
def test_what_goes_to_a_closed_stream_is_lost_and_nothing_else(command: str, closed: str) -> None:
    """A closed stream is not an error, and no socket takes its place."""
    done = run(f"{command} {closed}")
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert (done.stdout == "") == (">&-" in closed.split())


def test_closed_standard_input_cannot_be_read_or_asked() -> None:
    """A closed standard input cannot provide links or a confirmation, which is reported with status 2."""
    done = run("plan --sandbox - <&-")
    assert (done.returncode, done.stderr) == (2, "Error: standard input is closed\n")
    done = run(f"plan --sandbox --apply {LINKS} <&-")
    assert done.returncode == 2
    assert "without a terminal" in done.stderr


def test_an_encoding_without_signs_shows_others_of_their_width() -> None:
    """An ASCII stream shows the tree with characters of equal width, including the direction of links."""
    utf_8 = run("graph --sandbox SHOP-24").stdout
    done = run("graph --sandbox SHOP-24", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert list(map(len, done.stdout.splitlines())) == list(map(len, utf_8.splitlines()))
    assert "|  |-- parent of > # SHOP-25" in done.stdout
    assert "|-< parent of -- # SHOP-23" in done.stdout


def test_any_other_letter_is_shown_by_its_number() -> None:
    """A character that the encoding lacks is shown by its code point."""
    show = "from datadog_caselinks.cli import streams; streams.prepare(); print('é漢→')"
    done = subprocess.run(
        [sys.executable, "-c", show],
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode("latin-1") == "é\\u6f22>\n"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("list SHOP-2", ""),
        ("graph SHOP-2 --format dot", ""),
        ("create SHOP-27 blocks SHOP-32", "Created.\n"),
        (
            f"plan {LINKS} --apply --yes --output jsonl",
            "So far: 1 created. Changes in flight may have been applied too.\n"
            "To continue, run this command (it plans the rest):\n"
            f"  caselinks plan {LINKS} --apply --yes --output jsonl --sandbox\n",
        ),
    ],
)
def test_a_full_disk_is_reported_with_what_was_done_before(command: str, expected: str) -> None:
    """A full disk is reported with what was done before, and the status is 1."""
    done = run(f"{command} --sandbox >/dev/full")
    error = "Error: cannot write to standard output: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, expected + error)


def test_a_stream_that_is_no_file_is_left_as_it_is() -> None:
    """A stream that is not a file, such as io.StringIO, is left unchanged."""
    program = (
        "import io, sys\n"
        "from datadog_caselinks.cli import streams\n"
        "kept = sys.stdout = io.StringIO()\n"
        "streams.prepare()\n"
        "assert sys.stdout is kept"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
