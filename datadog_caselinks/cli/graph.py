"""``caselinks graph``: the links around an entity as a picture, or as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from uuid import UUID

import click
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from datadog_caselinks.cli.records import entity_record, is_for_people, link_record
from datadog_caselinks.cli.run import Settings, client, ended_at_once, logging_to, run, with_settings
from datadog_caselinks.cli.screen import Screen
from datadog_caselinks.errors import ConfigurationError
from datadog_caselinks.graph import rendering
from datadog_caselinks.graph.link_graph import LinkGraph
from datadog_caselinks.graph.rendering import Style
from datadog_caselinks.messages import counted
from datadog_caselinks.models import Entity, EntityType

_PICTURES: Final[Mapping[str, Callable[[LinkGraph], str]]] = {
    "tree": rendering.tree,
    "mermaid": rendering.mermaid,
    "dot": rendering.dot,
    "svg": rendering.svg,
    "html": rendering.page,
}
_SUFFIXES: Final = {
    "": "tree",  # as of /dev/stdout
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
_LEAST_TITLE: Final = 12
"""Columns of a title, of which less would tell nothing."""


@click.command(epilog="Example: caselinks graph --sandbox SHOP-2 --depth 3 -o outage.html")
@click.argument("entity")
@click.option(
    "--depth",
    type=click.IntRange(min=0),
    default=2,
    show_default=True,
    help="How many links away from ENTITY to go.",
)
@click.option(
    "--max-nodes",
    type=click.IntRange(min=1),
    default=500,
    show_default=True,
    help="Stop at so many entities.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(list(_PICTURES)),
    help="What to draw. Default: as FILE ends (.mmd, .dot, .svg, .html, .txt), or a tree.",
)
@click.option(
    "-o",
    "file",
    metavar="FILE",
    help="Write into FILE, in the place of what it holds; - is standard output.",
)
@with_settings()
@click.pass_context
def graph(
    context: click.Context,
    entity: str,
    depth: int,
    max_nodes: int,
    format_: str | None,
    file: str | None,
    settings: Settings,
) -> None:
    """Draw the links around ENTITY: as a tree, Mermaid, DOT, SVG, or an HTML page.

    ENTITY is written as for list. The page can be searched, zoomed and clicked, and
    needs no network. It and SVG take the extra "pictures".

    \b
    --output json    one object: entities, links, cycles
    --output jsonl   the links, one on each line
    """
    if format_ and settings.output != "table":
        raise ConfigurationError(f"--format {format_} is a picture and --output {settings.output} is none")
    if file == "-":
        file = None
    texts = {"json": _json, "jsonl": _json_lines}
    draw = texts.get(settings.output) or _PICTURES[format_ or _format_of(file or "")]
    screen = Screen(quiet=settings.quiet)
    # What would keep the picture from being drawn or written is told before anything is asked.
    draw(LinkGraph(Entity(str(UUID(int=0)), EntityType.CASE), ()))
    if file is not None:
        _require_writable(file)

    async def read() -> LinkGraph:
        async with client(settings) as links:
            screen.start(None)
            return await links.read_graph(entity, depth=depth, max_nodes=max_nodes, progress=screen.answered)

    with logging_to(screen, settings):
        try:
            made = run(read())
        finally:
            screen.close()
    if file is None and draw is rendering.tree and is_for_people(settings.output):
        _draw_tree(made)
    else:
        with ended_at_once():
            text = draw(made)
        if file is None:
            screen.data(text.removesuffix("\n"))
        else:
            _write(file, text)
            screen.note(f"{rendering.heading(made)}: {', '.join(rendering.notes(made))}. Written to {file}.")
    if made.left_out:
        screen.problem(
            f"Stopped at {counted(max_nodes, 'entity', 'entities')}: what is nearer than "
            f"{counted(made.depth, 'link')} is all here, and {made.left_out} of those so far away are not. "
            "Ask for less --depth, or for more --max-nodes."
        )
        context.exit(1)


def _format_of(file: str) -> str:
    """The picture that a file of this name holds."""
    suffix = Path(file).suffix.lower()
    if suffix not in _SUFFIXES:
        known = ", ".join(filter(None, _SUFFIXES))
        raise ConfigurationError(f"{file} ends in none of {known}: say which --format or --output it is")
    return _SUFFIXES[suffix]


def _require_writable(file: str) -> None:
    """Raise the :class:`OSError` that writing to ``file`` would. What it holds stays as it is."""
    if Path(file).is_fifo():
        return  # which who reads it would take for the end
    is_new = not os.path.lexists(file)
    with open(file, "ab"):
        pass
    if is_new:
        os.unlink(file)


def _write(file: str, text: str) -> None:
    try:
        Path(file).write_text(text, "utf-8")
    except OSError as error:
        raise OSError(error.errno, error.strerror, file) from error  # a full disk is told without its name


def _draw_tree(made: LinkGraph) -> None:
    """The tree in colours. Of a line that is too long the title gives way, and then it ends at the edge."""
    console = Console(highlight=False)
    for line in rendering.tree_lines(made):
        over = sum(cell_len(piece.text) for piece in line) - console.width
        text = Text()
        for piece in line:
            part = Text(piece.text, _STYLES[piece.style])
            if piece.style == Style.TITLE and over > 0:
                part.truncate(max(part.cell_len - over, _LEAST_TITLE), overflow="ellipsis")
            text.append_text(part)
        console.print(text, no_wrap=True, overflow="ellipsis")


def _json(made: LinkGraph) -> str:
    record = {
        "root": entity_record(made.root, made.cases),
        "depth": made.depth,
        "entities": [
            entity_record(entity, made.cases) | {"distance": distance}
            for entity, distance in made.distances.items()
        ],
        "links": [link_record(link, made.cases) for link in made.links],
        "cycles": [[link.id for link in cycle] for cycle in made.cycles],
        "left_out": made.left_out,
        "unread": [entity_record(entity, made.cases) for entity in made.unread],
    }
    return json.dumps(record) + "\n"


def _json_lines(made: LinkGraph) -> str:
    return "".join(json.dumps(link_record(link, made.cases)) + "\n" for link in made.links)
