"""Files of rejected lines: in the format of the input, complete after each line, and readable again."""

from __future__ import annotations

import csv
import io
import json
import os
import stat
from pathlib import Path

import pytest

from datadog_caselinks import LinkLine, MalformedLine, ParameterError
from datadog_caselinks.bulk.rejects import LineSource, Rejects
from tests.bulk.reading import read

ROW = "SHOP-1,blocks,SHOP-2"
OBJECT = {"parent": "SHOP-1", "relationship": "blocks", "child": "SHOP-2"}


def sources(lines: list[LinkLine | MalformedLine]) -> list[LineSource]:
    return [line.source for line in lines if line.source]


async def rejected(content: str | bytes, *, format: str | None = None) -> bytes:
    """Return the file of rejected lines for all lines of ``content``."""
    lines = sources(await read(content, format=format))
    return lines[0].head + b"".join(line.rejected("because") for line in lines)


class TestForms:
    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    async def test_csv(self, end: str) -> None:
        """In CSV, the reason is the last column; header, delimiter, line ends and cells stay unchanged."""
        content = end.join(["sep=;", "Parent;Relationship;Child;Note", 'a;b;c;"x;', 'y"', "é;2;3;4;5", ""])
        expected = ["sep=;", "Parent;Relationship;Child;Note;rejected_because"]
        expected += ['a;b;c;"x;', 'y";"because"', 'é;2;3;4;5;"because"', ""]
        assert await rejected(f"\ufeff{content}") == f"\ufeff{end.join(expected)}".encode()

    async def test_a_line_that_is_not_valid_csv(self) -> None:
        """A line that is not valid CSV is written unchanged, and a new reason replaces that of an old run."""
        content = b'parent,relationship,child\n"SHOP-1,blocks,SHOP-2\nSHOP-\xe9,,\n'
        written = await rejected(content)
        head, first, second = written.splitlines()
        assert head == b"parent,relationship,child,rejected_because"
        assert first == b'"SHOP-1,blocks,SHOP-2,"because"'
        assert second == b'SHOP-\xe9,,,"because"'
        assert await rejected(written) == written

    @pytest.mark.parametrize("row", ["SHOP-1,blocks", ROW, f"{ROW},", f"{ROW},,,,", f'{ROW},note," ",""'])
    async def test_the_reason_is_in_its_column(self, row: str) -> None:
        """The reason is below its name, also in rows with fewer or more cells than the header."""
        written = await rejected(f"parent,relationship,child,note,\n{row}\n")
        header, line = csv.reader(io.StringIO(written.decode()))
        assert header.index("rejected_because") == len(header) - 1 == line.index("because") == len(line) - 1
        assert await rejected(written) == written

    async def test_a_fixed_line_is_read(self) -> None:
        """A row that was fixed in place is a link. Its reason is ignored."""
        header = b"parent,relationship,child"
        content = header + b'\nSHOP-1,bloks,SHOP-2,,\n"SHOP-1,bloks,SHOP-2\nSHOP-1,bloks,SHOP-2,x\n'
        fixed = (await rejected(content)).replace(b"bloks", b"blocks").replace(b'"SHOP-1', b"SHOP-1")
        fixed = fixed.replace(b",x", b"")
        for reason in (b"because", b'a ""b"", c', b"SHOP-3,blocks,SHOP-4"):
            lines = await read(fixed.replace(b'because"', reason + b'"'))
            assert [type(line) for line in lines] == [LinkLine] * 3

    async def test_a_rejected_line_is_rejected_again(self) -> None:
        """A new reason replaces the old one, even if a spreadsheet has saved the file in between."""
        for old in ('"one, two"', "three"):
            content = f"parent,relationship,child,rejected_because\n{ROW},{old}\n"
            assert await rejected(content) == (
                f'parent,relationship,child,rejected_because\n{ROW},"because"\n'.encode()
            )
        content = 'parent,relationship,child,rejected_because\n"x"y,SHOP-1\n'
        assert (await rejected(content)).endswith(b'\n"x"y,SHOP-1,"because"\n')

    async def test_a_reason_that_was_moved(self) -> None:
        """A column of reasons that is not the last one is ignored, and a new one is added."""
        content = f"rejected_because,parent,relationship,child\nold,{ROW}\n"
        assert (await rejected(content)).endswith(f'\nold,{ROW},"because"\n'.encode())

    async def test_utf16_becomes_utf8(self) -> None:
        """A file in UTF-16 is rejected as UTF-8 with a byte order mark, which spreadsheets need."""
        content = f"\ufeffparent\trelationship\tchild\n{ROW.replace(',', chr(9))}".encode("utf-16-le")
        assert (await rejected(content)).startswith(
            b"\xef\xbb\xbfparent\trelationship\tchild\trejected_because\n"
        )

    async def test_json_lines(self) -> None:
        """In JSON Lines, the reason is the first member of each object, and the others stay unchanged."""
        line = json.dumps(OBJECT, separators=(",", ":"))
        written = await rejected(f"{line}\n {line}\r\n{{}}\n{{broken\n{{")
        reason = '{"rejected_because": "because"'
        assert written.decode().splitlines() == [
            f"{reason}, {line[1:]}",
            f"{reason}, {line[1:]}",
            f"{reason}}}",
            f"{reason}, broken",
            f"{reason}, ",
        ]
        again = await rejected(written)
        assert again == written

    @pytest.mark.parametrize(
        "line",
        [
            '{"parent": {"rejected_because": "x", "a": 1}, "child": "SHOP-2"}',
            '{"parent": "{\\"rejected_because\\": \\"x\\"}"}',
            '{"notes": [{"rejected_because": "x"}]}',
        ],
    )
    async def test_only_the_reason_of_the_line_itself_is_replaced(self, line: str) -> None:
        """A member of a nested object is not an earlier reason, so the line keeps it."""
        written = await rejected(f"{line}\n", format="jsonl")
        assert written.decode() == f'{{"rejected_because": "because", {line[1:]}\n'
        assert await rejected(written, format="jsonl") == written

    async def test_what_is_not_an_object(self) -> None:
        """A line that is not a JSON object is kept as a string in an object, because JSON has no comments."""
        (_, last) = sources(await read(f'{json.dumps(OBJECT)}\n[1, "x"]\n'))
        assert json.loads(last.rejected("because")) == {"rejected_because": "because", "line": '[1, "x"]'}

    async def test_yaml(self) -> None:
        """In YAML, each rejected link is a list item, and other content is a comment."""
        content = "SHOP-1:\n  blocks: [SHOP-2, shop]\n  causes:\n"
        written = (await rejected(content, format="yaml")).decode()
        start = '- {"rejected_because": "because", "parent": "SHOP-1", "relationship": "blocks", "child"'
        assert written.splitlines() == [f'{start}: "SHOP-2"}}', f'{start}: "shop"}}', "# because"]
        assert len(await read(written, format="yaml")) == 2

    async def test_an_earlier_reason_in_yaml(self) -> None:
        """In YAML, a new reason replaces the old one anywhere in an item, because keys must differ."""
        content = "- parent: SHOP-1\n  rejected_because: old\n  relationship: blocks\n  child: shop\n"
        written = await rejected(content, format="yaml")
        assert b"old" not in written
        (line,) = await read(written, format="yaml")
        assert isinstance(line, MalformedLine)
        assert line.reason.startswith("'shop' does not name an entity")

    async def test_a_reason_is_one_line(self) -> None:
        """A reason with line breaks and quotation marks is written as one line."""
        (source,) = sources(await read(f"parent,relationship,child\n{ROW}\n"))
        assert source.rejected('a\n"b",\x1b c') == f'{ROW},"a ""b"", c"\n'.encode()


@pytest.fixture
async def source() -> LineSource:
    (source,) = sources(await read(f"parent,relationship,child\n{ROW}\n"))
    return source


class TestFile:
    async def test_each_line_is_in_the_file_at_once(self, tmp_path: Path, source: LineSource) -> None:
        """Each rejected line is in the file immediately, so that a killed process loses none."""
        path = tmp_path / "bad.csv"
        with Rejects(path) as rejects:
            for count in range(1, 4):
                rejects.add(source, "because")
                assert path.read_bytes().count(ROW.encode()) == rejects.count == count
        assert len(await read(path.read_bytes())) == 3

    def test_nothing_rejected_leaves_no_file(self, tmp_path: Path) -> None:
        """Without a rejected line, no file is created."""
        with Rejects(tmp_path / "bad.csv"):
            pass
        assert list(tmp_path.iterdir()) == []

    def test_each_earlier_file_is_kept(self, tmp_path: Path, source: LineSource) -> None:
        """An existing file is renamed, and no earlier backup is overwritten: lines may be fixed by hand."""
        path = tmp_path / "bad.csv"
        for number, name in enumerate(["bad.csv~", "bad.csv~2", "bad.csv~3"]):
            path.write_text(f"by hand {number}")
            with Rejects(path) as rejects:
                rejects.add(source, "because")
                rejects.add(source, "because")
            assert rejects.backup == tmp_path / name
            assert rejects.backup.read_text() == f"by hand {number}"
        assert path.read_text().count("because") == 3
        assert len(list(tmp_path.iterdir())) == 4

    def test_an_earlier_file_stays_without_a_rejected_line(self, tmp_path: Path) -> None:
        """An existing file keeps its name and its content if no line is rejected."""
        path = tmp_path / "bad.csv"
        path.write_text("by hand")
        with Rejects(path) as rejects:
            assert path.read_text() == "by hand"
        assert rejects.backup is None
        assert path.read_text() == "by hand"
        assert list(tmp_path.iterdir()) == [path]

    def test_an_earlier_file_may_be_the_source(self, tmp_path: Path, source: LineSource) -> None:
        """A file that is being read can be renamed, and is read to its end."""
        path = tmp_path / "bad.csv"
        path.write_text("by hand")
        with open(path) as file, Rejects(path) as rejects:
            rejects.add(source, "because")
            assert file.read() == "by hand"

    def test_an_empty_file_is_not_a_backup(self, tmp_path: Path, source: LineSource) -> None:
        """An empty file has nothing to keep, so the lines are written to it."""
        path = tmp_path / "bad.csv"
        path.touch()
        with Rejects(path) as rejects:
            rejects.add(source, "because")
        assert rejects.backup is None
        assert path.read_bytes().endswith(source.rejected("because"))
        assert list(tmp_path.iterdir()) == [path]

    def test_a_symbolic_link_stays(self, tmp_path: Path, source: LineSource) -> None:
        """A symbolic link stays, and the file that it names is written, or renamed if it exists."""
        path, target = tmp_path / "bad.csv", tmp_path / "elsewhere.csv"
        path.symlink_to(target)
        for backup in (None, tmp_path / "elsewhere.csv~"):
            with Rejects(path) as rejects:
                rejects.add(source, "because")
            assert rejects.backup == backup
            assert path.is_symlink()
            assert target.read_bytes().endswith(source.rejected("because"))

    def test_a_file_that_appeared_during_the_run_stays(self, tmp_path: Path, source: LineSource) -> None:
        """A file that did not exist at the beginning belongs to another program, and is not overwritten."""
        path = tmp_path / "bad.csv"
        with Rejects(path) as rejects:
            path.write_text("of another program")
            with pytest.raises(FileExistsError):
                rejects.add(source, "because")
        assert path.read_text() == "of another program"

    def test_a_directory_that_cannot_be_written(self, tmp_path: Path) -> None:
        """A file that cannot be created is an error before any line is rejected, with the given name."""
        path = tmp_path / "nowhere" / "bad.csv"
        with pytest.raises(FileNotFoundError) as caught, Rejects(path):
            pass
        assert caught.value.filename == str(path)

    @pytest.mark.parametrize("other", ["same", "./same", "../{}/same", "link", "same~"])
    def test_a_path_of_the_run_is_refused_before_it_exists(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
    ) -> None:
        """A path that the run will use is refused under any of its names, although no file exists yet."""
        monkeypatch.chdir(tmp_path)
        Path("link").symlink_to("same")
        used = other.format(tmp_path.name)
        for rejects in ("same", str(tmp_path / "same")):
            for path in (used, str(Path(used).absolute())):
                with pytest.raises(ParameterError, match="must not overwrite"):
                    Rejects(rejects).require_not(path)
        Rejects("other").require_not(used)

    @pytest.mark.parametrize("name", ["bad.csv", "bad.csv~"])
    def test_a_file_of_the_run_is_not_overwritten(self, tmp_path: Path, name: str) -> None:
        """The input can be neither the file nor its backup, even if it was opened by another name."""
        used = tmp_path / "links.csv"
        used.write_text("x")
        (tmp_path / name).symlink_to(used)
        rejects = Rejects(tmp_path / "bad.csv")
        rejects.require_not(str(tmp_path / "other.csv"))
        with open(used) as file, pytest.raises(ParameterError, match="must not overwrite"):
            rejects.require_not(file.fileno())

    def test_a_pipe_is_not_renamed(self, tmp_path: Path, source: LineSource) -> None:
        """A pipe is written to and not renamed."""
        path = tmp_path / "pipe"
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with Rejects(path) as rejects:
            rejects.add(source, "because")
        with Rejects(path):
            pass
        assert os.read(reader, 1000).endswith(f'{ROW},"because"\n'.encode())
        os.close(reader)
        assert stat.S_ISFIFO(path.stat().st_mode)
        assert [each.name for each in tmp_path.iterdir()] == ["pipe"]
