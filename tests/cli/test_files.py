"""The files that the command writes."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

from datadog_caselinks.cli.files import write_file
from tests.cli.program import environment

FILE_LIMIT = 8  # blocks of 512 bytes or of 1 kB; a page is longer


def run(program: str, file: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``program``, a shell script that finds the command in ``$caselinks``.

    The command is not measured for coverage, because the limit of the disk applies to the coverage file too.
    """
    return subprocess.run(
        ["sh", "-c", program, "sh", str(file), *arguments],
        env=environment(
            caselinks=f"{sys.executable} -W error -m datadog_caselinks", COVERAGE_PROCESS_CONFIG=""
        ),
        capture_output=True,
        text=True,
        check=False,
    )


FULL = f'ulimit -f {FILE_LIMIT}; exec $caselinks graph --sandbox SHOP-2 -o "$1"'


@pytest.mark.parametrize("before", [None, "the earlier page"])
def test_a_page_that_does_not_fit_is_not_written(tmp_path: Path, before: str | None) -> None:
    """A page for which the disk has no space leaves the earlier file unchanged, and no other file."""
    file = tmp_path / "page.html"
    if before:
        file.write_text(before)
    done = run(FULL, file)
    assert (done.returncode, done.stderr) == (1, f"Error: {file}: File too large\n")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == (
        {"page.html": before} if before else {}
    )


def test_the_mode_and_the_owner_stay(tmp_path: Path) -> None:
    """A replaced file keeps its mode and its owner, and a new file gets the usual ones."""
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("earlier")
    old.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(old, 1000, 1001)
    before = old.stat()
    umask = os.umask(0o027)
    try:
        for file in (old, new):
            write_file(str(file), "é\n")
            assert file.read_bytes() == "é\n".encode()
    finally:
        os.umask(umask)
    assert (old.stat().st_mode, old.stat().st_uid, old.stat().st_gid) == (
        before.st_mode,
        before.st_uid,
        before.st_gid,
    )
    assert stat.S_IMODE(new.stat().st_mode) == 0o640
    assert sorted(os.listdir(tmp_path)) == ["new", "old"]


def test_an_owner_that_cannot_be_kept(tmp_path: Path) -> None:
    """A file whose owner cannot be kept is still replaced."""
    file = tmp_path / "page.html"
    file.write_text("earlier")
    with patch.object(os, "chown", side_effect=PermissionError):
        write_file(str(file), "page")
    assert file.read_text() == "page"


@pytest.mark.parametrize("exists", [True, False])
def test_a_symbolic_link_stays(tmp_path: Path, exists: bool) -> None:
    """Writing to a symbolic link replaces its target and keeps the link."""
    target, link = tmp_path / "elsewhere" / "page.html", tmp_path / "link.html"
    target.parent.mkdir()
    if exists:
        target.write_text("earlier")
    link.symlink_to("elsewhere/page.html")
    write_file(str(link), "page")
    assert link.is_symlink()
    assert target.read_text() == "page"
    assert os.listdir(target.parent) == ["page.html"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EBUSY])
def test_a_file_that_cannot_be_replaced_is_written_directly(tmp_path: Path, number: int) -> None:
    """A file that cannot be replaced, for example because it is mounted, is overwritten in place."""
    file = tmp_path / "page.html"
    file.write_text("the earlier and longer page")
    with patch.object(os, "replace", side_effect=OSError(number, "no")):
        write_file(str(file), "page")
        with pytest.raises(OSError, match="no") as caught:
            write_file(str(tmp_path / "new.html"), "page")
    assert file.read_text() == "page"
    assert caught.value.filename == str(tmp_path / "new.html")
    assert os.listdir(tmp_path) == ["page.html"]


def test_standard_output_by_its_name_is_appended_to(tmp_path: Path) -> None:
    """A graph written to /dev/stdout is appended to what standard output already contains."""
    file = tmp_path / "notes"
    file.write_text("notes\n")
    done = run('$caselinks graph --sandbox SHOP-23 --depth 1 -o /dev/stdout >> "$1"', file)
    assert (done.returncode, done.stdout) == (0, "")
    first, second, *_ = file.read_text().splitlines()
    assert first == "notes"
    assert "SHOP-23" in second


def test_a_device_is_written() -> None:
    """Writing to a device writes into the device and does not replace it."""
    write_file(os.devnull, "page")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
