"""``caselinks graph``: the links around an entity as a picture, or as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from uuid import UUID

import click
from rich.console import Console
from rich.text import Text

from datadog_caselinks import pictures
from datadog_caselinks.cli.records import entity_record, is_for_people, link_record
from datadog_caselinks.cli.run import Settings, client, logging_to, run, with_settings
from datadog_caselinks.cli.screen import Screen
from datadog_caselinks.errors import ConfigurationError
from datadog_caselinks.graph import LinkGraph
from datadog_caselinks.messages import counted
from datadog_caselinks.models import Entity, EntityType
from datadog_caselinks.pictures import Style

_PICTURES: Final[Mapping[str, Callable[[LinkGraph], str]]] = {
    "tree": pictures.tree,
    "mermaid": pictures.mermaid,
    "dot": pictures.dot,
    "svg": pictures.svg,
    "html": pictures.page,
}
_SUFFIXES: Final = {
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
    help="What to draw. Default: as FILE ends (.mmd, .dot, .svg, .html), or else a tree.",
)
@click.option("-o", "file", metavar="FILE", help="Write into FILE, in the place of what it holds.")
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
    format_ = format_ or _SUFFIXES.get(Path(file or "").suffix.lower(), "tree")
    draw = {"json": _json, "jsonl": _json_lines}.get(settings.output, _PICTURES[format_])
    screen = Screen(quiet=settings.quiet)
    # What would keep the picture from being drawn or written is told before anything is asked.
    draw(LinkGraph(Entity(str(UUID(int=0)), EntityType.CASE), ()))
    if file:
        _require_writable(file)

    async def read() -> LinkGraph:
        async with client(settings) as links:
            screen.start(None)
            return await links.graph(entity, depth=depth, max_nodes=max_nodes, progress=screen.answered)

    with logging_to(screen, settings):
        try:
            made = run(read())
        finally:
            screen.close()
    if file:
        _write(file, draw(made))
        if not settings.quiet:
            screen.note(f"{pictures.heading(made)}: {', '.join(pictures.notes(made))}. Written to {file}.")
    elif draw is pictures.tree and is_for_people(settings.output):
        _draw_tree(made)
    else:
        screen.data(draw(made).removesuffix("\n"))
    if made.left_out:
        screen.problem(
            f"There are more than {counted(max_nodes, 'entity', 'entities')}: all within "
            f"{counted(made.depth - 1, 'link')} are here, and {made.left_out} of those one link further are "
            "not. Ask for less --depth, or for more --max-nodes."
        )
        context.exit(1)


def _require_writable(file: str) -> None:
    """Raise the :class:`OSError` that writing to ``file`` would. What it holds stays as it is."""
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
    """The tree in colours; a line that is too long ends at the edge."""
    console = Console(highlight=False)
    for line in pictures.tree_lines(made):
        text = Text.assemble(*((piece.text, _STYLES[piece.style]) for piece in line))
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
