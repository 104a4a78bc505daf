"""What links say that cannot all be true. Knows the models and their names alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Final

from attrs import frozen

from datadog_caselinks.graph.cycles import DIRECTED, cycles
from datadog_caselinks.models import CaseLink, Entity, NewCaseLink, Relationship
from datadog_caselinks.references import named

_SHOWN: Final = 10
"""Links of a cycle, or parents of a child, that a message names; of more it tells the number."""

Link = NewCaseLink | CaseLink
Name = Callable[[Entity], str]


class ContradictionKind(StrEnum):
    """Why links cannot all be true."""

    CYCLE = "cycle"
    """``BLOCKS``, ``PARENT_OF``, ``SUCCESSOR_OF`` or ``CAUSES`` leads from an entity back to itself."""

    NO_ORIGINAL = "no-original"
    """Each of some entities ``DUPLICATES`` another one of them, so that none is the original."""

    SEVERAL_PARENTS = "several-parents"
    """An entity is the child of several others by ``PARENT_OF``, which is a hierarchy."""

    SAME_AND_DIFFERENT = "same-and-different"
    """One entity ``DUPLICATES`` another, and one also blocks, causes, follows or contains the other."""


@frozen
class Contradiction:
    """``links`` that cannot all be true, and a ``message`` that names them.

    A link that is to be created is a :class:`NewCaseLink`, one that is there a :class:`CaseLink`. Those of a
    cycle are in their order: the child of each is the parent of the next.
    """

    kind: ContradictionKind
    links: tuple[Link, ...]
    message: str

    def __str__(self) -> str:
        return self.message


def contradictions(links: Iterable[Link], *, name: Name = named) -> list[Contradiction]:
    """The contradictions among ``links``, kind by kind. ``name`` is what a message calls an entity.

    Of cycles that have an entity in common one is told, a short one. What is merely odd is not told, such
    as a case that blocks its own parent.
    """
    links = list(links)
    return [
        *_cycles(links, name),
        *_without_original(links, name),
        *_several_parents(links, name),
        *_same_and_different(links, name),
    ]


def _cycles(links: Sequence[Link], name: Name) -> Iterator[Contradiction]:
    for cycle in cycles(links):
        yield Contradiction(ContradictionKind.CYCLE, cycle, f"a cycle: {_path(cycle, name)}")


def _without_original(links: Sequence[Link], name: Name) -> Iterator[Contradiction]:
    for cycle in cycles(links, relationships=[Relationship.DUPLICATES]):
        message = f"duplicates of each other, and none is the original: {_path(cycle, name)}"
        yield Contradiction(ContradictionKind.NO_ORIGINAL, cycle, message)


def _several_parents(links: Sequence[Link], name: Name) -> Iterator[Contradiction]:
    parents = defaultdict[Entity, dict[Entity, Link]](dict)
    for link in links:
        if link.relationship == Relationship.PARENT_OF:
            parents[link.child].setdefault(link.parent, link)
    for child, by_parent in parents.items():
        if len(by_parent) > 1:
            shown = [name(parent) for parent in by_parent]
            if len(shown) > _SHOWN:
                shown = [*shown[:_SHOWN], f"… ({len(shown) - _SHOWN} more)"]
            message = f"{len(by_parent)} parents of {name(child)}: {', '.join(shown)}"
            yield Contradiction(ContradictionKind.SEVERAL_PARENTS, tuple(by_parent.values()), message)


def _same_and_different(links: Sequence[Link], name: Name) -> Iterator[Contradiction]:
    pairs = defaultdict[frozenset[Entity], dict[Relationship | str, Link]](dict)
    for link in links:
        pairs[frozenset((link.parent, link.child))].setdefault(link.relationship, link)
    for between in pairs.values():
        others = [between[relationship] for relationship in DIRECTED if relationship in between]
        same = between.get(Relationship.DUPLICATES)
        if same and others:
            told = " and ".join(_path([link], name) for link in others)
            message = f"a duplicate that is not the same: {_path([same], name)}, but {told}"
            yield Contradiction(ContradictionKind.SAME_AND_DIFFERENT, (same, *others), message)


def _path(links: Sequence[Link], name: Name) -> str:
    """``links``, each of which begins where the one before it ends, as a chain of names."""
    steps = [f"{link.relationship} {name(link.child)}" for link in links]
    if len(steps) > _SHOWN:
        steps = [*steps[: _SHOWN - 1], f"… ({len(steps) - _SHOWN} more)", steps[-1]]
    return " ".join([name(links[0].parent), *steps])
