"""Contradictions between links: cycles, and children with several parents."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Final

from attrs import frozen

from datadog_caselinks.graph.cycles import find_cycles
from datadog_caselinks.models import CaseLink, Entity, NewCaseLink, Relationship, named

_MAX_NAMES: Final = 10
"""Links of a cycle, or parents of a child, that a message names before it only counts the rest."""

Link = NewCaseLink | CaseLink
Name = Callable[[Entity], str]


class ContradictionKind(StrEnum):
    """The rule that a :class:`Contradiction` breaks."""

    CYCLE = "cycle"
    """Links of one relationship lead from an entity back to itself.

    Checked for ``BLOCKS``, ``PARENT_OF``, ``SUCCESSOR_OF``, ``CAUSES`` and ``DUPLICATES``.
    """

    SEVERAL_PARENTS = "several-parents"
    """An entity is the child of several others by ``PARENT_OF``, which is a hierarchy."""


@frozen
class Contradiction:
    """Links that cannot all be right, found in a :class:`LinkPlan` before anything is sent.

    ``str()`` returns the message.

    ``kind``
        The rule that the links break.
    ``links``
        The links concerned: a :class:`NewCaseLink` is to be created, a :class:`CaseLink` exists. In a cycle
        the child of each link is the parent of the next one.
    ``message``
        One line for people that names the entities.
    """

    kind: ContradictionKind
    links: tuple[Link, ...]
    message: str

    def __str__(self) -> str:
        return self.message


def find_contradictions(links: Iterable[Link], *, name: Name = named) -> list[Contradiction]:
    """Return the contradictions between ``links``: first the cycles, then the children with several parents.

    Unusual links are fine, such as a case that blocks its own parent. ``name`` returns what a message calls
    an entity.
    """
    links = list(links)
    return [*_cycles(links, name), *_several_parents(links, name)]


def _cycles(links: Sequence[Link], name: Name) -> Iterator[Contradiction]:
    for cycle in find_cycles(links):
        steps = [f"{link.relationship} {name(link.child)}" for link in cycle]
        if len(steps) > _MAX_NAMES:
            steps = [*steps[: _MAX_NAMES - 1], f"… ({len(steps) - _MAX_NAMES} more)", steps[-1]]
        message = f"a cycle: {' '.join([name(cycle[0].parent), *steps])}"
        yield Contradiction(ContradictionKind.CYCLE, cycle, message)


def _several_parents(links: Sequence[Link], name: Name) -> Iterator[Contradiction]:
    parents = defaultdict[Entity, dict[Entity, Link]](dict)
    for link in links:
        if link.relationship == Relationship.PARENT_OF:
            parents[link.child].setdefault(link.parent, link)
    for child, by_parent in parents.items():
        if len(by_parent) > 1:
            names = [name(parent) for parent in by_parent]
            if len(names) > _MAX_NAMES:
                names = [*names[:_MAX_NAMES], f"… ({len(names) - _MAX_NAMES} more)"]
            message = f"{name(child)} has {len(by_parent)} parents: {', '.join(names)}"
            yield Contradiction(ContradictionKind.SEVERAL_PARENTS, tuple(by_parent.values()), message)
