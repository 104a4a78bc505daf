"""What every picture says of entities and links, and the room that it takes. Draws nothing."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Set
from typing import Final

from attrs import frozen

from datadog_caselinks.graph.link_graph import LinkGraph
from datadog_caselinks.messages import counted
from datadog_caselinks.models import CaseLink, Entity, Relationship
from datadog_caselinks.references import named

_STATUS_SIGNS: Final[Mapping[str, str]] = {"open": "○", "in progress": "◐", "closed": "✓"}
"""A form for each status, by its words."""


@frozen
class Told:
    """An entity in words, each on one line and empty where it is not known.

    Without a key ``key`` is the beginning of the id. ``reference`` is what :func:`parse_reference` reads.
    """

    key: str
    title: str
    type: str
    status: str
    reference: str

    @property
    def sign(self) -> str:
        """The form of its status; empty for one that has none."""
        return _STATUS_SIGNS.get(self.status, "")

    @property
    def state(self) -> str:
        """Its status after its sign; its type where no status is known."""
        return f"{self.sign} {self.status}".strip() or self.type

    def __str__(self) -> str:
        kind = f"{self.type}, {self.status}" if self.status else self.type
        return f"{self.key} {self.title}".rstrip() + f" ({kind})"


def told(graph: LinkGraph, entity: Entity) -> Told:
    """``entity`` in words."""
    case = graph.cases.get(entity)
    key = plain(case.key if case else "")
    return Told(
        key=key or plain(f"{entity.id[:8]}…" if len(entity.id) > 12 else entity.id),
        title=plain(case.title if case else ""),
        type=words(entity.type),
        status=words(case.status if case else ""),
        reference=key or plain(named(entity)),
    )


def heading(graph: LinkGraph) -> str:
    """What the picture is of."""
    root = told(graph, graph.root)
    return f"Links around {root.key if root.title else f'{root.type} {root.key}'}"


def notes(graph: LinkGraph) -> list[str]:
    """How much there is in it, and what is not."""
    made = [counted(len(graph.entities), "entity", "entities"), counted(len(graph.links), "link")]
    if cycles := graph.cycles:
        made.append(counted(len(cycles), "cycle"))
    if graph.left_out:
        made.append(f"{graph.left_out} more at distance {graph.depth} left out")
    if graph.unread:
        made.append(f"links of {len(graph.unread)} could not be read")
    return made


def words(name: str) -> str:
    """A name of the API as one says it: ``AGENT_CONVERSATION`` is an agent conversation."""
    return plain(name.replace("_", " ").lower())


def has_direction(link: CaseLink) -> bool:
    """Whether its parent and child differ."""
    return link.relationship != Relationship.RELATES_TO


def in_cycles(graph: LinkGraph) -> Set[str]:
    """The ids of the links that are on a cycle."""
    return {link.id for cycle in graph.cycles for link in cycle}


def plain(text: str) -> str:
    """``text`` on one line and of what can be seen, whatever somebody has put into a title.

    Control characters, lone surrogates and what turns the direction of writing would break a document, or
    make it say something else than it holds.
    """
    visible = (" " if _is_unseen(character) else character for character in text)
    return " ".join("".join(visible).split())


def _is_unseen(character: str) -> bool:
    # Joiners are format characters too; emoji and several scripts need them.
    is_format = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Cn", "Co")
    return is_format and character not in "\u200c\u200d"


# Of DejaVu Sans, the widest of the fonts that pictures are shown in, in parts of the font's size.
_WIDTHS: Final[Mapping[str, float]] = {
    **dict.fromkeys("ijl'I", 0.3),
    **dict.fromkeys(" .,:;/\\|J", 0.34),
    **dict.fromkeys("ft!()[]r-", 0.42),
    **dict.fromkeys('czsLF"*_`?', 0.58),
    **dict.fromkeys("ABCDGHKNOQRUVXYZ&{}·", 0.79),
    **dict.fromkeys("mwMW@%…#<>=+~^", 1.0),
}
_USUAL: Final = 0.64


def width(text: str, size: float) -> float:
    """How wide ``text`` is at most, in letters of ``size``."""
    return size * sum(_width(character) for character in text)


def _width(character: str) -> float:
    if unicodedata.combining(character):
        return 0
    if unicodedata.east_asian_width(character) in "WF":
        return 1.15
    return _WIDTHS.get(character, _USUAL if character.isascii() else 0.8)


def fitted(text: str, room: float, size: float) -> str:
    """``text``, or what of it there is room for and an ellipsis."""
    if width(text, size) <= room:
        return text
    room -= width("…", size)
    end = 0
    while width(text[: end + 1], size) <= room:
        end += 1
    return f"{text[:end].rstrip()}…"


def wrapped(text: str, room: float, size: float, lines: int) -> list[str]:
    """``text`` in so many lines at most, broken between words where that can be."""
    made: list[str] = []
    rest = text
    while rest and len(made) < lines - 1 and width(rest, size) > room:
        line = _first_words(rest, room, size)
        made.append(line.rstrip())
        rest = rest[len(line) :].lstrip()
    return [*made, fitted(rest, room, size)] if rest else made


def _first_words(text: str, room: float, size: float) -> str:
    end = 1
    while width(text[: end + 1], size) <= room:
        end += 1
    space = text.rfind(" ", 0, end + 1)
    return text[:space] if space > 0 else text[:end]
