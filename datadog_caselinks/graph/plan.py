"""Links as they should be, against those that are there: what to create and what to delete. Knows no HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial

from attrs import field, frozen

from datadog_caselinks.bulk.create_links import Failed, Outcome, create_links
from datadog_caselinks.concurrency import Progress, enumerate_async, for_each, map_concurrently
from datadog_caselinks.errors import CaseLinksError, InvalidLinkError, NotFoundError
from datadog_caselinks.graph.contradictions import Contradiction, contradictions
from datadog_caselinks.messages import shortened
from datadog_caselinks.models import (
    Case,
    CaseLink,
    Entity,
    Identity,
    NewCaseLink,
    Relationship,
    identity,
)
from datadog_caselinks.references import CaseKey, LinkReference, Resolver, WantedLink, name_of


@frozen
class LinkPlan:
    """What to do so that the links are as they should be. ``str`` of it is the difference, a line for a link.

    ``create``
        Links that are wanted and not there.
    ``keep``
        Links that are wanted and there.
    ``delete``
        Links to delete: none, unless that was asked for.
    ``warnings``
        What of this cannot all be true, among the links that there will be, as far as they were looked at.
    ``cases``
        The cases that were looked up by their keys.
    """

    create: tuple[NewCaseLink, ...] = ()
    keep: tuple[CaseLink, ...] = ()
    delete: tuple[CaseLink, ...] = ()
    warnings: tuple[Contradiction, ...] = ()
    cases: Mapping[Entity, Case] = field(factory=dict, eq=False, repr=False)

    def named(self, entity: Entity) -> str:
        """``entity`` by its key, if it was looked up; else as :func:`parse_reference` reads it."""
        return name_of(entity, self.cases)

    def told(self, link: NewCaseLink | CaseLink) -> str:
        """``link`` with the names of its ends, such as ``SHOP-1 BLOCKS SHOP-2``."""
        return f"{self.named(link.parent)} {link.relationship} {self.named(link.child)}"

    def __str__(self) -> str:
        come = [f"+ {self.told(new)}" for new in self.create]
        go = [f"- {self.told(link)}" for link in self.delete]
        return "\n".join([*come, *go])


@frozen
class Deleted:
    """``link`` is deleted, or was gone already. ``index`` counts ``LinkPlan.delete`` from 0."""

    link: CaseLink
    index: int


@frozen
class NotDeleted:
    """``link`` was not deleted, or not surely, because of ``error``. ``index`` counts ``LinkPlan.delete``."""

    link: CaseLink
    error: CaseLinksError
    index: int


PlanOutcome = Outcome | Deleted | NotDeleted
"""What became of one link of ``apply_plan``."""


async def plan_links(
    wanted: Iterable[WantedLink] | AsyncIterable[WantedLink],
    *,
    list_links: Callable[[Entity], Awaitable[list[CaseLink]]],
    resolver: Resolver,
    prune: bool,
    concurrency: int,
    progress: Progress,
) -> LinkPlan:
    """Look up what ``wanted`` names, list the links that are there, and compare."""
    async with contextlib.aclosing(enumerate_async(wanted)) as items:
        asked = [_checked(link) async for _, link in items]
    keys = dict.fromkeys(
        end for link in asked for end in (link.parent, link.child) if isinstance(end, CaseKey)
    )
    found = await _cases(resolver, list(keys), concurrency, progress)
    links = [await resolver.link(link) for link in asked]  # which asks nobody any more
    # What goes over all links is done in threads: ten thousand take it a fifth of a second, in which all else
    # in the event loop would stand still.
    to_list = await asyncio.to_thread(_to_list, links, prune=prune)
    lists = await map_concurrently(list_links, to_list, concurrency=concurrency, progress=progress)
    there = {link.id: link for around in lists.values() for link in around}
    cases = {case.entity: case for case in found.values()}
    return await asyncio.to_thread(compare, links, list(there.values()), prune=prune, cases=cases)


def compare(
    wanted: Iterable[NewCaseLink],
    there: Iterable[CaseLink],
    *,
    prune: bool,
    cases: Mapping[Entity, Case],
) -> LinkPlan:
    """The plan that makes of the links that are ``there`` those that are ``wanted``."""
    new: dict[Identity, NewCaseLink] = {}
    for one in wanted:
        new.setdefault(identity(one), one)
    equal = defaultdict[Identity, list[CaseLink]](list)
    for link in there:
        equal[identity(link)].append(link)
    # Of equal links the one with the least id, and not the first: in what order a server lists them is not
    # documented, and of two who prune at once neither may delete the one that the other keeps.
    keep = {each: min(equal[each], key=_id) for each in new if each in equal}
    entities = _ends(new.values())
    delete = {
        link.id: link
        for each, links in equal.items()
        for link in links
        if prune and _could_be_wanted(link, entities) and link != keep.get(each)
    }
    create = [link for each, link in new.items() if each not in keep]
    rest = [link for links in equal.values() for link in links if link.id not in delete]
    return LinkPlan(
        tuple(create),
        tuple(keep.values()),
        tuple(delete.values()),
        tuple(contradictions([*create, *rest], name=partial(name_of, cases=cases))),
        cases,
    )


async def apply_plan(
    plan: LinkPlan,
    *,
    ensure: Callable[[WantedLink], Awaitable[tuple[CaseLink, bool]]],
    delete: Callable[[CaseLink], Awaitable[None]],
    concurrency: int,
) -> AsyncGenerator[PlanOutcome, None]:
    """Create what is to be created, then delete what is to be deleted; yield what came of each link."""
    failed = 0
    creating = create_links(ensure, plan.create, concurrency=concurrency)
    async with contextlib.aclosing(creating) as outcomes:
        async for outcome in outcomes:
            failed += isinstance(outcome, Failed)
            yield outcome
    deleting = for_each(
        partial(_deletion, _refuse if failed else delete), plan.delete, concurrency=concurrency
    )
    async with contextlib.aclosing(deleting) as deletions:
        async for deletion in deletions:
            yield deletion


async def _deletion(
    delete: Callable[[CaseLink], Awaitable[None]], index: int, link: CaseLink
) -> Deleted | NotDeleted:
    try:
        await delete(link)
    except NotFoundError:
        pass  # somebody else has deleted it
    except CaseLinksError as error:
        return NotDeleted(link, error, index)
    return Deleted(link, index)


async def _refuse(link: CaseLink) -> None:
    raise CaseLinksError(
        f"{link} was left as it is, since not all links of the plan were created: plan and apply once more"
    )


async def _cases(
    resolver: Resolver, keys: Sequence[CaseKey], concurrency: int, progress: Progress
) -> dict[CaseKey, Case]:
    """The case of each key. Whoever misspelt several learns of them all at once."""

    missing: dict[CaseKey, NotFoundError] = {}

    async def find(key: CaseKey) -> Case | None:
        try:
            return await resolver.case(key)
        except NotFoundError as error:
            missing[key] = error
            return None

    found = await map_concurrently(find, keys, concurrency=concurrency, progress=progress)
    if missing:
        first, *others = (key for key in keys if key in missing)
        error = missing[first]
        if others:
            error.args = (f"{error}; and so it is with {', '.join(map(str, others))}",)
        raise error
    return {key: case for key, case in found.items() if case}


def _checked(link: WantedLink) -> WantedLink:
    if not isinstance(link, NewCaseLink | LinkReference):
        raise InvalidLinkError(
            f"a plan is of links such as case(a).blocks(case(b)) or parse_link(…), not of {shortened(link)}"
        )
    return link


def _to_list(wanted: Sequence[NewCaseLink], *, prune: bool) -> list[Entity]:
    """The entities whose links must be listed: a list of either end of a link tells whether it is there."""
    if prune:
        return list(_ends(wanted))
    shared = Counter(end for link in wanted for end in (link.parent, link.child))
    listed: dict[Entity, None] = {}
    for link in wanted:
        if link.parent not in listed and link.child not in listed:
            # The end that more of the links share, so that one list tells of them all.
            listed[max(link.child, link.parent, key=shared.__getitem__)] = None
    return list(listed)


def _ends(links: Iterable[NewCaseLink]) -> dict[Entity, None]:
    return dict.fromkeys(end for link in links for end in (link.parent, link.child))


def _could_be_wanted(link: CaseLink, entities: Mapping[Entity, None]) -> bool:
    """Whether it is between ``entities``, and of a relationship that a link can be wanted of."""
    return isinstance(link.relationship, Relationship) and link.parent in entities and link.child in entities


def _id(link: CaseLink) -> str:
    return link.id
