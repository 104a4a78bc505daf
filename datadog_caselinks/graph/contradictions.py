"""Contradictions between links: cycles, and children with several parents."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Final

from attrs import frozen

from datadog_caselinks.graph.cycles import find_cycles
from datadog_caselinks.values.models import CaseLink, Entity, NewCaseLink, Relationship, named
from datadog_caselinks.values.references import relationship_in_words

_MAX_NAMES: Final = 10
"""How many links of a cycle, or parents of a child, a message names at most. It counts the others."""

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

    def describe(self, name: Name) -> str:
        """Return the message, in which ``name`` returns what to call an entity."""
        return _describe(self.kind, self.links, name)

    def __str__(self) -> str:
        return self.message


def find_contradictions(
    links: Iterable[Link], *, name: Name = named, about: Callable[[Link], bool] | None = None
) -> list[Contradiction]:
    """Return the contradictions between ``links``: first the cycles, then the children with several parents.

    Unusual links are fine, such as a case that blocks its own parent. ``name`` returns what a message calls
    an entity. With ``about``, only contradictions with a link for which it returns true are returned.
    """
    links = list(links)
    found = [(ContradictionKind.CYCLE, cycle) for cycle in find_cycles(links, through=about)]
    found += [(ContradictionKind.SEVERAL_PARENTS, several) for several in _parents(links, about)]
    return [Contradiction(kind, each, _describe(kind, each, name)) for kind, each in found]


def _describe(kind: ContradictionKind, links: Sequence[Link], name: Name) -> str:
    return _describe_cycle(links, name) if kind is ContradictionKind.CYCLE else _describe_parents(links, name)


def _describe_cycle(cycle: Sequence[Link], name: Name) -> str:
    steps = [f"{relationship_in_words(link.relationship)} {name(link.child)}" for link in cycle]
    if len(steps) > _MAX_NAMES:
        steps = [*steps[: _MAX_NAMES - 1], f"… ({len(steps) - _MAX_NAMES} more)", steps[-1]]
    return f"a cycle: {' '.join([name(cycle[0].parent), *steps])}"


def _describe_parents(links: Sequence[Link], name: Name) -> str:
    names = [name(link.parent) for link in links[:_MAX_NAMES]]
    if len(links) > _MAX_NAMES:
        names.append(f"… ({len(links) - _MAX_NAMES} more)")
    return f"{name(links[0].child)} has {len(links)} parents: {', '.join(names)}"


def _parents(links: Iterable[Link], about: Callable[[Link], bool] | None) -> Iterator[tuple[Link, ...]]:
    """Yield the links of each child with several parents, one for each parent."""
    parents = defaultdict[Entity, dict[Entity, Link]](dict)
    concerned = set[Entity]()
    for link in links:
        if link.relationship == Relationship.PARENT_OF:
            parents[link.child].setdefault(link.parent, link)
            if about is None or about(link):
                concerned.add(link.child)
    for child, by_parent in parents.items():
        if child in concerned and len(by_parent) > 1:
            yield tuple(by_parent.values())
