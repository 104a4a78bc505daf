"""A graph as a tree for terminals, in pieces of text with a style but without colours."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Final

from attrs import frozen

from datadog_caselinks.graph.link_graph import LinkGraph
from datadog_caselinks.graph.rendering.words import cycle_link_ids, describe, is_directed, notes, words
from datadog_caselinks.values.models import CaseLink, Entity, EntityType


class Style(StrEnum):
    """The meaning of a piece of a line."""

    BRANCH = "branch"
    RELATIONSHIP = "relationship"
    CYCLE = "cycle"
    KEY = "key"
    TITLE = "title"
    STATUS = "status"
    NOTE = "note"


@frozen
class Piece:
    """A text of one style."""

    text: str
    style: Style


Line = tuple[Piece, ...]

_SIGNS: Final[Mapping[str, str]] = {
    EntityType.CASE: "■",
    EntityType.INCIDENT: "▲",
    EntityType.PAGE: "◉",
    EntityType.AGENT_CONVERSATION: "◇",
}
_OTHER_SIGN: Final = "·"


def tree(graph: LinkGraph) -> str:
    """Return ``graph`` as a tree in plain text."""
    return "".join("".join(piece.text for piece in line) + "\n" for line in tree_lines(graph))


def tree_lines(graph: LinkGraph) -> Iterator[Line]:
    """Yield the lines of a tree that starts at the root, one for each link.

    The links of an entity are listed once, as near to the root as possible. Where the entity appears again,
    an arrow points up or down to that place.
    """
    return _Tree(graph).lines()


@frozen
class _Row:
    """A link on a line below ``above`` that leads to ``entity``; ``is_home`` if its links are listed here."""

    link: CaseLink
    above: Entity
    entity: Entity
    is_home: bool
    branches: str


class _Tree:
    def __init__(self, graph: LinkGraph) -> None:
        self._graph = graph
        self._cyclic = cycle_link_ids(graph)
        self._below: dict[Entity, list[tuple[CaseLink, Entity, bool]]] = {}
        self._starts: list[Entity] = []
        self._grow()

    def lines(self) -> Iterator[Line]:
        trees = [(start, list(self._rows(start))) for start in self._starts]
        # Trees of several roots refer to each other, so places are counted through all of them.
        lines = [line for start, rows in trees for line in (start, *rows)]
        home = {
            line.entity if isinstance(line, _Row) else line: place
            for place, line in enumerate(lines)
            if not isinstance(line, _Row) or line.is_home
        }
        place = 0
        for start, rows in trees:
            yield self._entity(start)
            for row in rows:
                place += 1
                hint = "" if row.is_home else "  ↑ see above" if home[row.entity] < place else "  ↓ see below"
                note = (Piece(hint, Style.NOTE),) if hint else ()
                yield (
                    Piece(row.branches, Style.BRANCH),
                    self._relationship(row),
                    *self._entity(row.entity),
                    *note,
                )
            place += 1
        yield ()
        yield (Piece(" · ".join(notes(self._graph)), Style.NOTE),)
        for cycle in self._graph.cycles:
            ends = [cycle[0].parent, *(link.child for link in cycle)]
            way = " → ".join(describe(self._graph, end).key for end in ends)
            yield Piece(f"↻ {words(cycle[0].relationship)} ", Style.CYCLE), Piece(way, Style.KEY)

    def _grow(self) -> None:
        """Assign each link to its end nearer to the root, and each entity a home where it first appears."""
        links: dict[Entity, list[CaseLink]] = defaultdict(list)
        for link in self._graph.links:
            for end in dict.fromkeys((link.parent, link.child)):
                links[end].append(link)
        met: set[Entity] = set()
        done: set[str] = set()
        for entity in self._graph.entities:
            if entity not in met:
                self._starts.append(entity)
                met.add(entity)
            below = self._below[entity] = []
            for link in links[entity]:
                if link.id not in done:
                    other = link.child if link.parent == entity else link.parent
                    below.append((link, other, other not in met))
                    met.add(other)
                    done.add(link.id)

    def _rows(self, start: Entity) -> Iterator[_Row]:
        """Yield the rows below ``start``, top to bottom. Iterative, because a chain can be long."""
        pending = self._branched(start, "")
        while pending:
            row, beneath = pending.pop()
            yield row
            if row.is_home:
                pending += self._branched(row.entity, beneath)

    def _branched(self, entity: Entity, beneath: str) -> list[tuple[_Row, str]]:
        """Return the rows directly below ``entity`` in reverse, each with the branches for its own rows."""
        below = self._below[entity]
        rows = [
            (
                _Row(link, entity, other, is_home, f"{beneath}{'└─' if is_last else '├─'}"),
                f"{beneath}{'   ' if is_last else '│  '}",
            )
            for number, (link, other, is_home) in enumerate(below, start=1)
            for is_last in [number == len(below)]
        ]
        return rows[::-1]

    def _relationship(self, row: _Row) -> Piece:
        is_cyclic = row.link.id in self._cyclic
        name = f"{'↻ ' * is_cyclic}{words(row.link.relationship)}"
        style = Style.CYCLE if is_cyclic else Style.RELATIONSHIP
        if not is_directed(row.link):
            return Piece(f"─ {name} ── ", style)
        return Piece(f"─ {name} → " if row.link.parent == row.above else f"← {name} ── ", style)

    def _entity(self, entity: Entity) -> Line:
        description = describe(self._graph, entity)
        pieces = [Piece(f"{_SIGNS.get(entity.type, _OTHER_SIGN)} {description.reference}", Style.KEY)]
        if description.title:
            pieces.append(Piece(f"  {description.title}", Style.TITLE))
        if description.status:
            pieces.append(Piece(f"  {description.sign or '·'} {description.status}", Style.STATUS))
        return tuple(pieces)
