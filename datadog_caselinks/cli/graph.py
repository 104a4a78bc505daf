"""``caselinks graph``: draw the links around an entity, or print them as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final
from uuid import UUID

import click
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from datadog_caselinks.cli.files import require_writable, write_file
from datadog_caselinks.cli.find import search_cases
from datadog_caselinks.cli.groups import Command
from datadog_caselinks.cli.records import entity_record, is_for_people, link_record
from datadog_caselinks.cli.run import Settings, default_sigint, logging_to, open_client, run, with_settings
from datadog_caselinks.cli.screen import Screen
from datadog_caselinks.client import CaseLinksClient
from datadog_caselinks.graph import rendering
from datadog_caselinks.graph.link_graph import LinkGraph
from datadog_caselinks.graph.rendering import Direction, Style
from datadog_caselinks.values.errors import CaseLinksError, ParameterError
from datadog_caselinks.values.messages import counted, quoted
from datadog_caselinks.values.models import Entity, EntityType

_FORMATS: Final = ("tree", "mermaid", "dot", "svg", "html")
_SUFFIXES: Final = {
    "": "tree",  # such as /dev/stdout
    ".txt": "tree",
    ".mermaid": "mermaid",
    ".mmd": "mermaid",
    ".dot": "dot",
    ".gv": "dot",
    ".svg": "svg",
    ".html": "html",
    ".htm": "html",
}
_STYLES: Final = {
    Style.BRANCH: "dim",
    Style.RELATIONSHIP: "cyan",
    Style.CYCLE: "bold red",
    Style.KEY: "bold",
    Style.TITLE: "",
    Style.STATUS: "dim",
    Style.NOTE: "dim",
}
_MIN_TITLE: Final = 12
"""The minimum width of a title, in characters."""


@click.command(cls=Command, epilog="Example: caselinks graph --sandbox SHOP-2 --depth 3 -o outage.html")
@click.argument("entities", metavar="[ENTITY]...", nargs=-1)
@click.option("--find", "query", metavar="QUERY", help="Draw the links around all cases that match QUERY.")
@click.option(
    "--depth",
    type=click.IntRange(min=0),
    metavar="N",
    default=2,
    show_default=True,
    help="Maximum number of links between ENTITY and the entities shown.",
)
@click.option(
    "--max-nodes",
    type=click.IntRange(min=1),
    metavar="N",
    default=500,
    show_default=True,
    help="Maximum number of entities.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(_FORMATS),
    help="Output format. Default: by the suffix of FILE (.mmd, .dot, .svg, .html, .txt), else tree.",
)
@click.option(
    "--direction",
    type=click.Choice(["auto", "LR", "TB"], case_sensitive=False),
    default="auto",
    show_default=True,
    help="Draw left to right (lr) or top to bottom (tb); auto chooses the better fit.",
)
@click.option(
    "--width",
    type=click.IntRange(min=200),
    metavar="PIXELS",
    help=f"Lay out an SVG so that it is readable at this width. Default: {int(rendering.README_WIDTH)}.",
)
@click.option(
    "-o",
    "files",
    metavar="FILE",
    multiple=True,
    help="Write to FILE and overwrite it; - is standard output. Repeatable.",
)
@with_settings()
@click.pass_context
def graph(
    context: click.Context,
    entities: tuple[str, ...],
    query: str | None,
    depth: int,
    max_nodes: int,
    format_: str | None,
    direction: Direction,
    width: int | None,
    files: tuple[str, ...],
    settings: Settings,
) -> None:
    """Draw the links around entities as a tree, Mermaid, DOT, SVG, or an HTML page.

    ENTITY is written as for list, and QUERY as for find. The HTML page works offline; you can search and
    zoom it. SVG and HTML need the extra "pictures". To get a PNG, write an SVG and convert it, for example
    with: pip install cairosvg; cairosvg -s 2 outage.svg -o outage.png

    \b
    --output json    one object: entities, links, cycles
    --output jsonl   the links, one per line
    """
    if not entities and query is None:
        raise click.UsageError("Missing argument 'ENTITY', or --find.")
    if format_ and settings.output != "table":
        raise ParameterError(f"--format {format_} cannot be combined with --output {settings.output}")
    texts = {"json": _json, "jsonl": _json_lines}
    formats = {file: _format(file, format_, settings.output) for file in files or ["-"]}
    if width is not None and "svg" not in formats.values():
        raise ParameterError("--width is for SVG; leave it out, or add -o FILE.svg or --format svg")
    outputs = {
        file: texts.get(format) or _picture(format, direction, width or int(rendering.README_WIDTH))
        for file, format in formats.items()
    }
    screen = Screen(quiet=settings.quiet)
    # Fail before the first request if a library is missing or a file cannot be written.
    for file, draw in outputs.items():
        draw(LinkGraph(Entity(str(UUID(int=0)), EntityType.CASE), ()))
        if file != "-":
            require_writable(file)

    async def read() -> LinkGraph:
        async with open_client(settings) as client:
            screen.start(None)
            roots = [*entities, *(await _found(client, query, max_nodes) if query is not None else ())]
            return await client.read_graph(
                *roots, depth=depth, max_nodes=max_nodes, progress=screen.on_progress
            )

    with logging_to(screen, settings):
        try:
            link_graph = run(read())
        finally:
            screen.close()
    for file, draw in outputs.items():
        _write(screen, settings, link_graph, file, draw)
    if link_graph.left_out:
        screen.problem(
            f"Stopped at {counted(max_nodes, 'entity', 'entities')}: all that are nearer than "
            f"{counted(link_graph.depth, 'link')} are shown, and {link_graph.left_out} at that distance are "
            "not. Use a smaller --depth or a larger --max-nodes."
        )
        context.exit(1)


def _write(
    screen: Screen, settings: Settings, link_graph: LinkGraph, file: str, draw: Callable[[LinkGraph], str]
) -> None:
    """Write the graph to ``file``; - is standard output."""
    if file == "-" and draw is rendering.tree and is_for_people(settings.output):
        _draw_tree(link_graph)
        return
    with default_sigint():
        text = draw(link_graph)
    if file == "-":
        screen.data(text.removesuffix("\n"))
        return
    try:
        write_file(file, text)
    except OSError as error:
        raise CaseLinksError(f"{error.filename}: {error.strerror}") from error
    notes = ", ".join(rendering.notes(link_graph))
    screen.note(f"{rendering.heading(link_graph)}: {notes}. Written to {file}.")


async def _found(client: CaseLinksClient, query: str, max_nodes: int) -> list[Entity]:
    """Return the cases that match ``query``.

    Raises:
        CaseLinksError: There are none, or more than ``max_nodes``.
    """
    found, has_more = await search_cases(client, query, max_nodes)
    if not found:
        raise CaseLinksError(f"no cases match {quoted(query)}")
    if has_more:
        raise CaseLinksError(
            f"more than {max_nodes} cases match {quoted(query)}: use a narrower query or a larger --max-nodes"
        )
    return [case.entity for case in found]


def _picture(format_: str, direction: Direction, width: int) -> Callable[[LinkGraph], str]:
    """Return the function that draws a graph in this format."""
    pictures: Mapping[str, Callable[[LinkGraph], str]] = {
        "tree": rendering.tree,
        "mermaid": partial(rendering.mermaid, direction=direction),
        "dot": partial(rendering.dot, direction=direction),
        "svg": partial(rendering.svg, direction=direction, width=width),
        "html": partial(rendering.page, direction=direction),
    }
    return pictures[format_]


def _format(file: str, given: str | None, output: str) -> str:
    """Return the format of ``file``: that of --format, of --output, or of its suffix.

    Raises:
        ParameterError: The name of the file contradicts the option, or says nothing.
    """
    if file in (*_FORMATS, "json", "jsonl"):
        option = "--output" if file.startswith("json") else "--format"
        raise ParameterError(f"-o takes the name of a file; write {option} {file}, or -o ./{file} for a file")
    suffix = Path(file).suffix.lower()
    if output != "table":
        if suffix in _SUFFIXES and suffix not in ("", ".txt"):
            raise ParameterError(f"--output {output} contradicts the suffix of {file}: use .{output}")
        return output
    if given:
        return given
    if suffix not in _SUFFIXES:
        known = ", ".join(filter(None, _SUFFIXES))
        picture = Path(file).with_suffix(".svg")
        command = f"cairosvg -s 2 {picture} -o {file}"
        hint = f". For a PNG, use -o {picture}, then run: {command} (pip install cairosvg)"
        raise ParameterError(
            f"cannot derive the format from the name {file}: use one of {known}, or --format"
            + hint * (suffix == ".png")
        )
    return _SUFFIXES[suffix]


def _draw_tree(link_graph: LinkGraph) -> None:
    """Draw the tree in colour. In a line that is too long the title is cut first, then its end."""
    console = Console(highlight=False)
    for line in rendering.tree_lines(link_graph):
        over = sum(cell_len(piece.text) for piece in line) - console.width
        text = Text()
        for piece in line:
            part = Text(piece.text, _STYLES[piece.style])
            if piece.style == Style.TITLE and over > 0:
                part.truncate(max(part.cell_len - over, _MIN_TITLE), overflow="ellipsis")
            text.append_text(part)
        console.print(text, no_wrap=True, overflow="ellipsis")


def _json(link_graph: LinkGraph) -> str:
    record = {
        "root": entity_record(link_graph.root, link_graph.details),
        "other_roots": [entity_record(root, link_graph.details) for root in link_graph.other_roots],
        "depth": link_graph.depth,
        "entities": [
            entity_record(entity, link_graph.details) | {"distance": distance}
            for entity, distance in link_graph.distances.items()
        ],
        "links": [link_record(link, link_graph.details) for link in link_graph.links],
        "cycles": [[link.id for link in cycle] for cycle in link_graph.cycles],
        "left_out": link_graph.left_out,
        "unread": [entity_record(entity, link_graph.details) for entity in link_graph.unread],
    }
    return json.dumps(record) + "\n"


def _json_lines(link_graph: LinkGraph) -> str:
    return "".join(json.dumps(link_record(link, link_graph.details)) + "\n" for link in link_graph.links)
