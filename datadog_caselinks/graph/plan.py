"""Plans: compare the wanted links with the existing ones, then create and delete the difference."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial

from attrs import evolve, field, frozen

from datadog_caselinks.bulk.create_links import Failed, Outcome
from datadog_caselinks.bulk.delete_links import Deleted, DeleteFunc, NotDeleted, delete_links
from datadog_caselinks.bulk.known_links import KnownLinks
from datadog_caselinks.calls.concurrency import Progress, enumerate_async, map_concurrently
from datadog_caselinks.calls.operations import ids_by_identity
from datadog_caselinks.calls.resolver import Resolver
from datadog_caselinks.graph.contradictions import Contradiction, find_contradictions
from datadog_caselinks.values.errors import (
    BadRequestError,
    CaseLinksError,
    IncompleteListError,
    InvalidLinkError,
    NotFoundError,
    PermissionDeniedError,
    ResponseTooLargeError,
)
from datadog_caselinks.values.messages import quoted
from datadog_caselinks.values.models import (
    Case,
    CaseKey,
    CaseLink,
    Entity,
    EntityType,
    Identity,
    Incident,
    IncidentNumber,
    LinkReference,
    NewCaseLink,
    Relationship,
    WantedLink,
    ends_of,
    identity,
)
from datadog_caselinks.values.references import Details, name_of, relationship_in_words


@frozen
class LinkPlan:
    """The links to create and to delete so that the wanted links exist.

    ``str()`` returns the difference, one line for each link to create or delete.

    ``create``
        The wanted links that do not exist yet.
    ``keep``
        The existing links that are wanted.
    ``delete``
        The existing links to delete. Empty unless ``prune`` was set.
    ``warnings``
        Contradictions between a wanted link and others that will exist, as far as those were listed.
    ``cases``
        The cases that were looked up by key.
    ``incidents``
        The incidents that were looked up by number.
    ``known``
        The lists of existing links that the plan requested, for ``apply_plan(…, trust_lists=True)``. They are
        not copied or pickled.
    """

    create: tuple[NewCaseLink, ...] = ()
    keep: tuple[CaseLink, ...] = ()
    delete: tuple[CaseLink, ...] = ()
    warnings: tuple[Contradiction, ...] = ()
    cases: Mapping[Entity, Case] = field(factory=dict, eq=False, repr=False)
    known: KnownLinks | None = field(default=None, eq=False, repr=False)
    incidents: Mapping[Entity, Incident] = field(factory=dict, eq=False, repr=False)

    @cached_property
    def details(self) -> Mapping[Entity, Details]:
        """Key, title and status of each case and incident in ``cases`` and ``incidents``."""
        return {**self.cases, **self.incidents}

    def name_of(self, entity: Entity) -> str:
        """Return the key of ``entity`` if known, else a text that :func:`parse_reference` accepts."""
        return name_of(entity, self.details)

    def describe(self, link: NewCaseLink | CaseLink) -> str:
        """Return ``link`` for people, with the names of its entities, such as ``SHOP-1 blocks SHOP-2``."""
        words = relationship_in_words(link.relationship)
        return f"{self.name_of(link.parent)} {words} {self.name_of(link.child)}"

    def __str__(self) -> str:
        created = [f"+ {self.describe(new)}" for new in self.create]
        deleted = [f"- {self.describe(link)}" for link in self.delete]
        return "\n".join([*created, *deleted])


OnFailure = Callable[[WantedLink, CaseLinksError], None]
"""A callback that receives a link that cannot be planned, and the reason.

If it raises an error, the plan fails: otherwise, a link could be missing from the plan unnoticed.
"""

PlanOutcome = Outcome | Deleted | NotDeleted
"""The outcome of one create or delete of a plan."""


async def plan_links(
    wanted: Iterable[WantedLink] | AsyncIterable[WantedLink],
    *,
    list_links: Callable[[Entity], Awaitable[list[CaseLink]]],
    known: KnownLinks,
    resolver: Resolver,
    prune: bool,
    concurrency: int,
    progress: Progress,
    on_failure: OnFailure | None = None,
) -> LinkPlan:
    """Look up the keys in ``wanted``, list the existing links, and compare."""
    async with contextlib.aclosing(enumerate_async(wanted)) as items:
        references = [_checked(link) async for _, link in items]
    unresolved = dict.fromkeys(
        end
        for link in references
        for end in (link.parent, link.child)
        if isinstance(end, CaseKey | IncidentNumber)
    )
    is_tolerant = on_failure is not None
    found = await _find_all(resolver, list(unresolved), concurrency, progress, is_tolerant=is_tolerant)
    links: dict[WantedLink, NewCaseLink] = {}
    for reference in references:
        try:
            links[reference] = await resolver.link(reference)  # sends no requests: all names are known
        except (NotFoundError, InvalidLinkError) as error:
            if on_failure is None:
                raise
            on_failure(reference, error)
    # A link that is left out may be one that exists.
    prune = prune and len(links) == len(set(references))
    # In threads: 10,000 links take a fifth of a second, which would block the event loop.
    to_list = await asyncio.to_thread(_entities_to_list, list(links.values()), prune=prune)
    refused: dict[Entity, CaseLinksError] = {}
    unlisted: dict[Entity, CaseLinksError] = {}

    async def list_and_learn(entity: Entity) -> list[CaseLink]:
        requested_at = asyncio.get_running_loop().time()
        try:
            links = await list_links(entity)
        except (BadRequestError, NotFoundError) as error:
            if on_failure is None:
                raise
            refused[entity] = error
            return []
        except (IncompleteListError, PermissionDeniedError, ResponseTooLargeError) as error:
            if isinstance(error, PermissionDeniedError) and entity.type == EntityType.CASE:
                raise  # with these credentials no case can be listed
            unlisted[entity] = error
            return []
        known.learn(entity, await asyncio.to_thread(ids_by_identity, links), requested_at)
        return links

    list_all = partial(map_concurrently, list_and_learn, concurrency=concurrency, progress=progress)
    lists = await list_all(to_list)
    if unlisted:  # their links are found at the other end
        prune = False
        at_other_end = [link for link in links.values() if unlisted.keys() & {link.parent, link.child}]
        lists |= await list_all([entity for entity in ends_of(at_other_end) if entity not in lists])
        for link in at_other_end:
            if link.parent in unlisted and link.child in unlisted:
                raise unlisted[link.parent]
    if on_failure:
        for reference, link in list(links.items()):
            if reason := refused.get(link.parent) or refused.get(link.child):
                on_failure(reference, reason)
                del links[reference]
                prune = False
    existing = {link.id: link for listed in lists.values() for link in listed}
    details = {each.entity: each for each in found}
    plan = await asyncio.to_thread(
        compare, list(links.values()), list(existing.values()), prune=prune, details=details
    )
    return evolve(plan, known=known)


def compare(
    wanted: Iterable[NewCaseLink],
    existing: Iterable[CaseLink],
    *,
    prune: bool,
    details: Mapping[Entity, Details],
) -> LinkPlan:
    """Return the plan that turns the ``existing`` links into the ``wanted`` ones."""
    new: dict[Identity, NewCaseLink] = {}
    for link in wanted:
        new.setdefault(identity(link), link)
    equal = defaultdict[Identity, list[CaseLink]](list)
    for found in existing:
        equal[identity(found)].append(found)
    # Of equal links, keep the one with the smallest id. The order of a list is not documented, so keeping the
    # first could make two people who prune at the same time delete both links.
    keep = {each: min(equal[each], key=_id) for each in new if each in equal}
    entities = frozenset(ends_of(new.values()))
    delete = {
        link.id: link
        for each, links in equal.items()
        for link in links
        if prune and _could_be_wanted(link, entities) and link != keep.get(each)
    }
    create = [link for each, link in new.items() if each not in keep]
    remaining = [link for links in equal.values() for link in links if link.id not in delete]
    return LinkPlan(
        tuple(create),
        tuple(keep.values()),
        tuple(delete.values()),
        tuple(
            find_contradictions(
                [*create, *remaining],
                name=partial(name_of, known=details),
                about=lambda link: identity(link) in new,
            )
        ),
        {entity: each for entity, each in details.items() if isinstance(each, Case)},
        incidents={entity: each for entity, each in details.items() if isinstance(each, Incident)},
    )


async def apply_plan(
    plan: LinkPlan,
    *,
    ensure_links: Callable[[Iterable[NewCaseLink]], AsyncGenerator[Outcome, None]],
    delete: DeleteFunc,
    concurrency: int,
) -> AsyncGenerator[PlanOutcome, None]:
    """Create the missing links, then delete the unwanted ones, and yield the outcome of each link."""
    failed = 0
    async with contextlib.aclosing(ensure_links(plan.create)) as outcomes:
        async for outcome in outcomes:
            failed += isinstance(outcome, Failed)
            yield outcome
    deleting = delete_links(_skip_delete if failed else delete, plan.delete, concurrency=concurrency)
    async with contextlib.aclosing(deleting) as deletions:
        async for deletion in deletions:
            yield deletion


async def _skip_delete(link: CaseLink) -> None:
    raise CaseLinksError(
        f"{link} was not deleted, because some links could not be created. Plan and apply again."
    )


async def _find_all(
    resolver: Resolver,
    names: Sequence[CaseKey | IncidentNumber],
    concurrency: int,
    progress: Progress,
    *,
    is_tolerant: bool,
) -> list[Details]:
    """Return the case or incident of each name.

    The error for unknown names has all of them, not only the first. If ``is_tolerant``, they are left out.
    """

    missing: dict[CaseKey | IncidentNumber, NotFoundError] = {}

    async def find(name: CaseKey | IncidentNumber) -> Details | None:
        try:
            return await (resolver.case(name) if isinstance(name, CaseKey) else resolver.incident(name))
        except NotFoundError as error:
            missing[name] = error
            return None

    found = await map_concurrently(find, names, concurrency=concurrency, progress=progress)
    if missing and not is_tolerant:
        first, *others = (name for name in names if name in missing)
        error = missing[first]
        if others:
            error.args = (f"{error}; also not found: {', '.join(map(str, others))}",)
        raise error
    return [each for each in found.values() if each]


def _checked(link: WantedLink) -> WantedLink:
    if not isinstance(link, NewCaseLink | LinkReference):
        raise InvalidLinkError(
            f"a plan takes links such as case(a).blocks(case(b)) or parse_link(…), not {quoted(link)}"
        )
    return link


def _entities_to_list(wanted: Sequence[NewCaseLink], *, prune: bool) -> list[Entity]:
    """Return entities whose lists show whether each wanted link exists: one end of each link is enough."""
    if prune:
        return ends_of(wanted)
    degree = Counter(end for link in wanted for end in (link.parent, link.child))
    listed: dict[Entity, None] = {}
    for link in wanted:
        if link.parent not in listed and link.child not in listed:
            # The end with more wanted links: one list may then show all of them.
            listed[max(link.child, link.parent, key=degree.__getitem__)] = None
    return list(listed)


def _could_be_wanted(link: CaseLink, entities: frozenset[Entity]) -> bool:
    """Return whether ``link`` could be wanted: its relationship is known and both ends are ``entities``."""
    return isinstance(link.relationship, Relationship) and link.parent in entities and link.child in entities


def _id(link: CaseLink) -> str:
    return link.id
