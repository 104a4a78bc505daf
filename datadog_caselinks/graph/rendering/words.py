"""Text that all pictures share, and its width."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Set
from functools import lru_cache
from itertools import accumulate
from typing import Final

from attrs import frozen

from datadog_caselinks.graph.link_graph import LinkGraph
from datadog_caselinks.values.messages import counted
from datadog_caselinks.values.models import CaseLink, Entity, EntityType, Incident, Relationship
from datadog_caselinks.values.references import Details, name_of, status_of

_STAGE_SIGNS: Final[Mapping[str, str]] = {"OPEN": "○", "IN_PROGRESS": "◐", "CLOSED": "✓"}
"""A sign for each stage."""


TYPE_COLOURS: Final[Mapping[str, tuple[str, str]]] = {
    EntityType.CASE: ("#6435b5", "#f0ebfa"),
    EntityType.INCIDENT: ("#b3212b", "#fbeaea"),
    EntityType.PAGE: ("#0b6494", "#e6f2f9"),
    EntityType.AGENT_CONVERSATION: ("#17713c", "#e7f5ec"),
}
"""The colours of the outline and the ground of each type, where text is black."""

OTHER_COLOURS: Final = ("#5d5b6a", "#f0f0f3")

_MAX_HEADING: Final = 3
"""The maximum number of roots that a heading names."""


@frozen
class Description:
    """The texts about an entity, each on one line and empty if unknown.

    ``key`` falls back to the beginning of the id. :func:`parse_reference` accepts ``reference``. ``stage`` is
    that of the case or incident.
    """

    key: str
    title: str
    type: str
    status: str
    reference: str
    stage: str = ""

    @property
    def sign(self) -> str:
        """The sign of the status, or an empty string."""
        return _STAGE_SIGNS.get(self.stage, "")

    @property
    def state(self) -> str:
        """The status after its sign, or the type if no status is known."""
        return f"{self.sign} {self.status}".strip() or self.type

    def __str__(self) -> str:
        kind = f"{self.type}, {self.status}" if self.status else self.type
        return f"{self.key} {self.title}".rstrip() + f" ({kind})"


def describe(graph: LinkGraph, entity: Entity) -> Description:
    """Return the texts about ``entity``."""
    known = graph.details.get(entity)
    key = plain(known.key or (known.number if isinstance(known, Incident) else "") if known else "")
    return Description(
        key=key or plain(f"{entity.id[:8]}…" if len(entity.id) > 12 else entity.id),
        title=plain(known.title if known else ""),
        type=words(entity.type),
        status=status_in_words(known) if known else "",
        reference=plain(name_of(entity, {entity: known} if known else {})),
        stage=known.stage if known else "",
    )


def heading(graph: LinkGraph) -> str:
    """Return the heading of a picture of ``graph``."""
    names = [
        root.key if root.title else f"{root.type} {root.key}"
        for root in (describe(graph, each) for each in graph.roots[:_MAX_HEADING])
    ]
    more = len(graph.roots) - len(names)
    if more:
        names.append(f"{more} more")
    return f"Links around {' and '.join([', '.join(names[:-1]), names[-1]] if names[1:] else names)}"


def notes(graph: LinkGraph) -> list[str]:
    """Return the size of ``graph``, and what is missing from it."""
    parts = [counted(len(graph.entities), "entity", "entities"), counted(len(graph.links), "link")]
    if cycles := graph.cycles:
        parts.append(counted(len(cycles), "cycle"))
    if graph.left_out:
        parts.append(f"{graph.left_out} more at distance {graph.depth} left out")
    if graph.unread:
        parts.append(f"links of {len(graph.unread)} could not be read")
    return parts


def words(name: str) -> str:
    """Return an API name as readable words: ``AGENT_CONVERSATION`` becomes ``agent conversation``."""
    return plain(name.replace("_", " ").lower())


def status_in_words(known: Details) -> str:
    """Return the status in the organisation's own words, or in the API's if it has no others."""
    usual, own = words(known.status), plain(status_of(known))
    return usual if not own or own.lower().replace("_", " ") == usual else own


def is_directed(link: CaseLink) -> bool:
    """Return whether the direction of ``link`` has a meaning."""
    return link.relationship != Relationship.RELATES_TO


def cycle_link_ids(graph: LinkGraph) -> Set[str]:
    """Return the ids of the links that are part of a cycle."""
    return {link.id for cycle in graph.cycles for link in cycle}


def plain(text: str) -> str:
    """Return ``text`` on one line and without invisible characters.

    Control characters, lone surrogates and characters that change the writing direction could break a
    document or make it misleading.
    """
    visible = (" " if _is_unseen(character) else character for character in text)
    return " ".join("".join(visible).split())


def _is_unseen(character: str) -> bool:
    # Joiners are format characters too, but emoji and several scripts need them.
    is_format = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Cn", "Co")
    return is_format and character not in "\u200c\u200d"


# Character widths of DejaVu Sans, the widest font in use, as fractions of the font size.
_WIDTHS: Final[Mapping[str, float]] = {
    **dict.fromkeys("ijl'I", 0.3),
    **dict.fromkeys(" .,:;/\\|J", 0.34),
    **dict.fromkeys("ft!()[]r-", 0.42),
    **dict.fromkeys('czsLF"*_`?', 0.58),
    **dict.fromkeys("ABCDGHKNOQRUVXYZ&{}·", 0.79),
    **dict.fromkeys("mwMW@%…#<>=+~^", 1.0),
}
_USUAL: Final = 0.64


def text_width(text: str, size: float) -> float:
    """Return the maximum width of ``text`` at font size ``size``."""
    return size * sum(_width(character) for character in text)


@lru_cache(maxsize=4096)
def _width(character: str) -> float:
    if unicodedata.combining(character):
        return 0
    if unicodedata.east_asian_width(character) in "WF":
        return 1.15
    return _WIDTHS.get(character, _USUAL if character.isascii() else 0.8)


def fitted(text: str, room: float, size: float) -> str:
    """Return ``text``, cut with an ellipsis if it is wider than ``room``."""
    if text_width(text, size) <= room:
        return text
    return f"{text[: _end(text, room - text_width('…', size), size)].rstrip()}…"


def wrapped(text: str, room: float, size: float, max_lines: int) -> list[str]:
    """Return ``text`` in at most ``max_lines`` lines, broken between words where possible."""
    lines: list[str] = []
    rest = text
    while rest and len(lines) < max_lines - 1 and text_width(rest, size) > room:
        line = _first_words(rest, room, size)
        lines.append(line.rstrip())
        rest = rest[len(line) :].lstrip()
    return [*lines, fitted(rest, room, size)] if rest else lines


def _first_words(text: str, room: float, size: float) -> str:
    end = max(_end(text, room, size), 1)
    space = text.rfind(" ", 0, end + 1)
    return text[:space] if space > 0 else text[:end]


def _end(text: str, room: float, size: float) -> int:
    """Return how many characters of ``text``, which is wider than ``room``, fit into it."""
    widths = accumulate(size * _width(character) for character in text)
    return next(end for end, total in enumerate(widths) if total > room)
