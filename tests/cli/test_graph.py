"""``caselinks graph``, run as a program against the demo of a sandbox."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from datadog_caselinks import CaseLinksClient, LinkGraph
from datadog_caselinks.graph import rendering
from datadog_caselinks.sandbox import Sandbox
from tests.cli.program import caselinks, environment, on_terminal, pointing_at
from tests.support.ids import some_id

pytestmark = pytest.mark.sandbox(seed="demo")


async def read(sandbox: Sandbox, depth: int = 2) -> LinkGraph:
    async with CaseLinksClient(sandbox.site, sandbox.credentials) as client:
        return await client.read_graph("SHOP-2", depth=depth)


async def test_a_tree_of_two_links_in_each_direction_by_default(sandbox: Sandbox) -> None:
    """By default, graph prints a text tree of two links in each direction, and nothing else."""
    done = await caselinks(pointing_at(sandbox), "graph", "shop-2")
    assert (done.status, done.err) == (0, "")
    assert done.out == rendering.tree(await read(sandbox))


@pytest.mark.parametrize(
    ("format_", "suffix"),
    [("mermaid", "mmd"), ("mermaid", "mermaid"), ("dot", "gv"), ("svg", "SVG"), ("html", "html")],
)
async def test_a_file_gets_what_its_name_says(
    sandbox: Sandbox, tmp_path: Path, format_: str, suffix: str
) -> None:
    """The suffix of the file selects the format, the file is replaced, and standard error has a summary."""
    file = tmp_path / f"outage.{suffix}"
    file.write_text("x" * 1_000_000)
    done = await caselinks(pointing_at(sandbox), "graph", "SHOP-2", "--depth", "3", "-o", str(file))
    draw = {"mermaid": rendering.mermaid, "dot": rendering.dot, "svg": rendering.svg, "html": rendering.page}
    assert file.read_text() == draw[format_](await read(sandbox, depth=3))
    summary = f"Links around SHOP-2: 30 entities, 31 links. Written to {file}.\n"
    assert (done.status, done.out, done.err) == (0, "", summary)


async def test_a_format_that_is_named_counts_before_the_name_of_the_file(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """The option --format overrides the suffix of the file, and --quiet omits the summary."""
    file = tmp_path / "outage.html"
    arguments = ("graph", "SHOP-2", "--format", "dot")
    shown = await caselinks(pointing_at(sandbox), *arguments)
    done = await caselinks(pointing_at(sandbox), *arguments, "-o", str(file), "--quiet")
    assert shown.out == file.read_text() == rendering.dot(await read(sandbox))
    assert (done.out, done.err) == ("", "")


async def test_json_is_the_whole_graph(sandbox: Sandbox) -> None:
    """JSON has the entities with their distances, the links with their ids, and the cycles as lists."""
    done = await caselinks(pointing_at(sandbox), "graph", "SHOP-23", "--output", "json")
    record = json.loads(done.out)
    async with CaseLinksClient(sandbox.site, sandbox.credentials) as client:
        made = await client.read_graph("SHOP-23")
    assert list(record) == [
        *("root", "other_roots", "depth", "entities", "links", "cycles", "left_out", "unread")
    ]
    assert (record["root"]["key"], record["depth"], record["left_out"], record["unread"]) == (
        "SHOP-23",
        2,
        0,
        [],
    )
    assert {each["id"]: each["distance"] for each in record["entities"]} == {
        entity.id: distance for entity, distance in made.distances.items()
    }
    assert {link["id"] for link in record["links"]} == {link.id for link in made.links}
    assert record["cycles"] == [[link.id for link in cycle] for cycle in made.cycles]
    assert len(record["cycles"]) == 1


async def test_json_lines_are_its_links(sandbox: Sandbox, tmp_path: Path) -> None:
    """JSON Lines have the links in the format of list, also in a file."""
    file = tmp_path / "links.jsonl"
    arguments = ("--depth", "1", "--output", "jsonl")
    done = await caselinks(pointing_at(sandbox), "graph", "SHOP-2", *arguments, "-o", str(file))
    listed = await caselinks(pointing_at(sandbox), "list", "SHOP-2", "--output", "jsonl")
    lines = file.read_text().splitlines()
    assert done.status == 0
    assert sorted(lines) == sorted(listed.out.splitlines())


async def test_more_entities_than_max_nodes(sandbox: Sandbox) -> None:
    """A graph with more entities than --max-nodes is drawn in part, with a message and status 1."""
    arguments = ("--depth", "9", "--max-nodes", "15")
    done = await caselinks(pointing_at(sandbox), "graph", "SHOP-2", *arguments)
    assert "15 entities" in done.out
    assert done.err == (
        "Stopped at 15 entities: all that are nearer than 2 links are shown, and 4 at that distance are "
        "not. Use a smaller --depth or a larger --max-nodes.\n"
    )
    assert done.status == 1


async def test_several_entities(sandbox: Sandbox) -> None:
    """The graph starts at every given entity, of any type."""
    arguments = ("graph", "SHOP-24", "incident:101", "--depth", "1")
    done = await caselinks(pointing_at(sandbox), *arguments, "--output", "json")
    record = json.loads(done.out)
    assert (record["root"]["key"], [each["key"] for each in record["other_roots"]]) == ("SHOP-24", ["IR-101"])
    starts = [each["key"] for each in record["entities"] if each["distance"] == 0]
    assert (done.status, starts) == (0, ["SHOP-24", "IR-101"])
    drawn = await caselinks(pointing_at(sandbox), *arguments)
    assert [line for line in drawn.out.splitlines() if line[:1] in "■▲"] == [
        "■ SHOP-24  Push config to a canary host first  ◐ in progress",
        "▲ incident:IR-101  Checkout fails for most customers  ✓ resolved",
        "",
    ]


async def test_all_cases_that_match_a_query(sandbox: Sandbox) -> None:
    """With --find, the graph starts at each matching case and at the given entities."""
    arguments = ("graph", "SHOP-1", "--find", "pool status:open", "--depth", "0", "--output", "json")
    done = await caselinks(pointing_at(sandbox), *arguments)
    keys = [each["key"] for each in json.loads(done.out)["entities"]]
    assert (done.status, keys) == (0, ["SHOP-1", "SHOP-31", "SHOP-27", "SHOP-25"])


async def test_a_query_that_matches_nothing_or_too_much(sandbox: Sandbox) -> None:
    """A query that matches no case, or more than --max-nodes, is an error that says what to do."""
    for arguments, wrong in (
        (("--find", "zzz"), "no cases match 'zzz'"),
        (
            ("--find", "pool", "--max-nodes", "2"),
            "more than 2 cases match 'pool': use a narrower query or a larger --max-nodes",
        ),
    ):
        done = await caselinks(pointing_at(sandbox), "graph", *arguments)
        assert (done.status, done.out, done.err) == (1, "", f"Error: {wrong}\n")


async def test_several_files(sandbox: Sandbox, tmp_path: Path) -> None:
    """Each -o writes a file in the format of its name, and - among them is standard output, from one read."""
    page, text = tmp_path / "outage.html", tmp_path / "outage.mmd"
    done = await caselinks(
        pointing_at(sandbox), "graph", "SHOP-2", "-o", str(page), "-o", str(text), "-o", "-"
    )
    assert done.status == 0
    assert page.read_text().startswith("<!doctype html>")
    assert text.read_text().startswith("flowchart ")
    assert done.out.startswith("■ SHOP-2")
    assert done.err.count("Written to ") == 2
    paths = [request.path for request in sandbox.requests]
    assert len(paths) == len(set(paths))


async def test_a_png_is_converted(sandbox: Sandbox, tmp_path: Path) -> None:
    """For a PNG, the command shows how to convert an SVG, and sends no request."""
    done = await caselinks(pointing_at(sandbox), "graph", "SHOP-2", "-o", str(tmp_path / "outage.png"))
    svg = tmp_path / "outage.svg"
    assert f"use -o {svg}, then run: cairosvg -s 2 {svg} -o {tmp_path / 'outage.png'}" in done.err
    assert done.status != 0
    assert list(sandbox.requests) == []


async def test_a_direction_and_a_width_can_be_chosen(sandbox: Sandbox) -> None:
    """The options --direction and --width apply to the picture."""
    arguments = ("graph", "SHOP-24", "--format", "svg", "--direction", "lr", "--width", "1900")
    done = await caselinks(pointing_at(sandbox), *arguments)
    async with CaseLinksClient(sandbox.url, sandbox.credentials) as client:
        made = await client.read_graph("SHOP-24")
    assert done.out == rendering.svg(made, direction="LR", width=1900)


async def test_a_graph_needs_a_start(sandbox: Sandbox) -> None:
    """Without an entity or a query, graph is a usage error, and nothing is sent."""
    done = await caselinks(pointing_at(sandbox), "graph")
    assert (done.status, done.out) == (2, "")
    assert "Missing argument 'ENTITY', or --find." in done.err
    assert not sandbox.requests


async def test_incidents_without_the_permission(sandbox: Sandbox) -> None:
    """Incidents that the key cannot read are drawn by id, and one message gives the reason."""
    keys = {"DD_APP_KEY": sandbox.credentials_without_incidents.app_key}
    done = await caselinks(pointing_at(sandbox) | keys, "graph", "SHOP-2", "--depth", "1")
    assert done.status == 0
    assert "▲ incident:61c41aec-dddd-59db-a8d2-bb09606ec3a2" in done.out
    assert done.err.count("an incident is shown without its number and title".capitalize()) == 1
    assert "lack the scope incident_read" in done.err


async def test_a_case_without_links(sandbox: Sandbox) -> None:
    """A case without links is drawn alone, in every format."""
    sandbox.add_case("SHOP-99", "Nobody has linked this")
    for format_ in ("tree", "mermaid", "dot", "svg", "html"):
        done = await caselinks(pointing_at(sandbox), "graph", "SHOP-99", "--format", format_)
        assert "Nobody has" in done.out
        assert (done.status, done.err) == (0, "")


async def test_a_terminal_shows_colours_and_breaks_no_line(sandbox: Sandbox) -> None:
    """A narrow terminal shortens titles but never statuses, and NO_COLOR removes the colours."""
    arguments = ("graph", "SHOP-2", "--depth", "3")
    status, shown = await on_terminal(pointing_at(sandbox), *arguments, columns=80)
    lines = shown[shown.index("\x1b[1m■ SHOP-2") :].rstrip().splitlines()  # the progress comes first
    assert status == 0
    tree = rendering.tree(await read(sandbox, depth=3))
    assert len(lines) == tree.count("\n")
    assert any("…" in line for line in lines)
    for word in ("○ open", "✓ closed", "◐ in progress"):
        assert shown.count(word) == tree.count(word)
    _, plain = await on_terminal(pointing_at(sandbox) | {"NO_COLOR": "1"}, *arguments, columns=80)
    assert "\x1b[36m" in shown
    assert "\x1b[36m" not in plain


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (("SHOP-999",), 1, "cannot get case SHOP-999: 404 case not found"),
        (("checkout",), 2, "'checkout' does not name an entity; write a case key"),
        (("SHOP-2", "-o", "/nowhere/outage.html"), 2, "/nowhere/outage.html: No such file or directory"),
        (("SHOP-2", "-o", ""), 2, "No such file or directory"),
        (
            ("SHOP-2", "-o", "outage.png"),
            2,
            "cannot derive the format from the name outage.png: use one of .txt, .mermaid",
        ),
        (("SHOP-2", "-o", "/"), 2, "/: Is a directory"),
        (("SHOP-2", "-o", "json"), 2, "-o takes the name of a file; write --output json, or -o ./json"),
        (("SHOP-2", "-o", "svg"), 2, "-o takes the name of a file; write --format svg, or -o ./svg"),
        (("SHOP-2", "-o", "a.svg", "--output", "json"), 2, "--output json contradicts the suffix of a.svg"),
        (("SHOP-2", "--width", "500"), 2, "--width is for SVG"),
        (
            ("SHOP-2", "--format", "dot", "--output", "json"),
            2,
            "--format dot cannot be combined with --output json",
        ),
        (("SHOP-2", "--depth", "-1"), 2, "Invalid value for '--depth'"),
    ],
)
async def test_an_invalid_argument_is_reported(
    sandbox: Sandbox, arguments: tuple[str, ...], status: int, expected: str
) -> None:
    """An invalid option or output file is reported with status 2, and other errors with 1."""
    done = await caselinks(pointing_at(sandbox), "graph", *arguments)
    assert (done.status, done.out) == (status, "")
    assert expected in done.err
    assert status == 1 or "full" in expected or not sandbox.requests


async def test_a_full_disk_is_an_error_after_the_requests(sandbox: Sandbox) -> None:
    """A file that cannot be written after the graph was read ends the command with status 1."""
    done = await caselinks(pointing_at(sandbox), "graph", "SHOP-2", "-o", "/dev/full")
    assert (done.status, done.err) == (1, "Error: /dev/full: No space left on device\n")


async def test_a_file_may_be_named_like_a_format(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path with a folder is a file, even if its name is that of a format."""
    monkeypatch.chdir(tmp_path)
    done = await caselinks(pointing_at(sandbox), "graph", "SHOP-2", "-o", "./json")
    assert done.status == 0
    assert (tmp_path / "json").read_text().startswith("■ SHOP-2")


async def test_a_file_is_left_as_it_was_if_there_is_nothing_to_write(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """If reading the graph fails, an existing file is unchanged, and no new file is created."""
    old, new = tmp_path / "old.svg", tmp_path / "new.svg"
    old.write_text("as it was")
    for file in (old, new):
        await caselinks(pointing_at(sandbox), "graph", "SHOP-999", "-o", str(file))
    assert old.read_text() == "as it was"
    assert os.listdir(tmp_path) == ["old.svg"]


async def test_a_pipe_is_a_file_too(sandbox: Sandbox, tmp_path: Path) -> None:
    """A graph can be written to /dev/stdout, to - and to a named pipe."""
    arguments = ("graph", "SHOP-2", "--format", "dot", "--quiet", "-o")
    expected = rendering.dot(await read(sandbox))
    for name in ("/dev/stdout", "-"):
        assert (await caselinks(pointing_at(sandbox), *arguments, name)).out == expected
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    # Without O_NONBLOCK, a command that fails before it opens the pipe would block the test forever.
    with os.fdopen(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)) as reader:
        assert (await caselinks(pointing_at(sandbox), *arguments, str(pipe))).status == 0
        assert reader.read() == expected


async def test_a_file_whose_name_says_nothing_gets_a_tree(sandbox: Sandbox, tmp_path: Path) -> None:
    """A file without a suffix, or with .txt, gets a text tree; an unknown suffix is refused."""
    for name in ("outage", "outage.txt"):
        await caselinks(pointing_at(sandbox), "graph", "SHOP-2", "-o", str(tmp_path / name))
        assert (tmp_path / name).read_text() == rendering.tree(await read(sandbox))
    await caselinks(pointing_at(sandbox), "graph", "SHOP-2", "-o", str(tmp_path / "outage.pdf"))
    assert sorted(os.listdir(tmp_path)) == ["outage", "outage.txt"]


async def test_ctrl_c_ends_it_while_it_draws(sandbox: Sandbox, tmp_path: Path) -> None:
    """Ctrl-C ends the command during the layout, although the library raises another error."""
    (tmp_path / "fast_sugiyama.py").write_text(
        "import os, signal\n"
        "def from_edges(*_, **__):\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    except KeyboardInterrupt:\n"
        "        raise SystemError from None\n"
    )
    variables = pointing_at(sandbox) | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    file = tmp_path / "outage.svg"
    done = await caselinks(variables, "graph", "SHOP-2", "--quiet", "-o", str(file))
    assert (done.status, done.out, done.err) == (-signal.SIGINT, "", "")
    assert not file.exists()


def test_where_ctrl_c_is_ignored_it_draws_on(tmp_path: Path) -> None:
    """A process that ignores SIGINT, as a background job of a script does, continues to draw."""
    (tmp_path / "fast_sugiyama.py").write_text(
        "import os, signal\n"
        "def from_edges(*_, **__):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    raise OSError('it went on')\n"
    )
    program = "trap '' INT; exec \"$0\" -m datadog_caselinks graph --sandbox SHOP-2 --format svg"
    done = subprocess.run(
        ["sh", "-c", program, sys.executable],
        env=environment(PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path])),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (2, "Error: it went on\n")


async def test_without_the_library_that_draws(sandbox: Sandbox, tmp_path: Path) -> None:
    """Without the layout library, the error names the extra before any request, and the tree still works."""
    (tmp_path / "fast_sugiyama.py").write_text("raise ModuleNotFoundError(name=__name__)")
    variables = pointing_at(sandbox) | {"PYTHONPATH": str(tmp_path)}
    done = await caselinks(variables, "graph", "SHOP-2", "--format", "svg")
    hint = "In the folder of the project, run: pip install '.[pictures]'"
    assert (done.status, done.err) == (2, f"Error: this picture needs the extra pictures. {hint}\n")
    assert not sandbox.requests
    assert (await caselinks(variables, "graph", "SHOP-2")).status == 0


async def test_the_demo_needs_no_keys() -> None:
    """The demo needs no keys, and an incident can be the root."""
    done = await caselinks(environment(), "graph", "--sandbox", f"incident:{some_id(1)}")
    assert (done.status, done.out) == (0, f"▲ incident:{some_id(1)}\n\n1 entity · 0 links\n")
