"""The tools: each method is one, its signature is the schema, and its docstring is what an agent reads."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import quote

from attrs import evolve
from mcp.server.mcpserver import Context
from pydantic import BaseModel, Field

from datadog_caselinks.bulk.create_links import Failed
from datadog_caselinks.calls.concurrency import OnProgress, Progress, map_concurrently
from datadog_caselinks.calls.resolver import Resolver, look_up_details
from datadog_caselinks.client import CaseLinksClient
from datadog_caselinks.graph import rendering
from datadog_caselinks.graph.contradictions import find_contradictions
from datadog_caselinks.graph.cycles import ACYCLIC
from datadog_caselinks.graph.link_graph import LinkGraph
from datadog_caselinks.graph.reading import read_graph
from datadog_caselinks.mcp import views
from datadog_caselinks.mcp.writes import Writes, as_asked
from datadog_caselinks.values.errors import (
    CaseLinksError,
    CycleError,
    InvalidLinkError,
    NotFoundError,
    ParameterError,
    PermissionDeniedError,
)
from datadog_caselinks.values.messages import one_line
from datadog_caselinks.values.models import (
    CaseLink,
    Entity,
    LinkStatus,
    NewCaseLink,
    Relationship,
    WantedLink,
    ends_of,
    identity,
    is_case_key,
    is_incident_number,
    named,
)
from datadog_caselinks.values.references import Details, parse_link, parse_relationship, url_of

T = TypeVar("T")

MAX_LINKS: Final = 50
"""The maximum number of links in one call."""

_MAX_SEARCHED: Final = 1000
"""How many results of a search an agent can page through before it has to narrow the query."""

_CONCURRENCY: Final = 20
"""Requests at once for the titles of a page, and for the blockers of one distance."""

MAX_ENTITIES: Final = 50
"""Entities of a graph, unless an agent asks for another number."""

_MAX_CHECKED: Final = 200
"""Entities whose links a plan reads to find contradictions."""

_MAX_BLOCKERS: Final = 200
_MAX_BLOCKER_DEPTH: Final = 25

EntityText = Annotated[
    str,
    Field(
        description="A case key such as SHOP-1, an incident with this prefix such as incident:123 or "
        "incident:IR-123, the URL of a case or incident, a UUID, page:UUID or conversation:UUID.",
        max_length=500,
    ),
]
RelationshipText = Annotated[
    str,
    Field(
        description="How entity relates to other, in one of these words: blocks, blocked by, causes, "
        "caused by, duplicates, duplicated by, parent of, child of, relates to, escalates to, escalated "
        "from, successor of or predecessor of.",
        max_length=50,
    ),
]
Cursor = Annotated[str | None, Field(description="next_cursor of the page before.", max_length=200)]
Limit = Annotated[int, Field(description="The most results of this page.", ge=1, le=50)]


class Wanted(BaseModel, extra="forbid"):
    """A link, read as a sentence: entity, relationship, other."""

    entity: EntityText
    relationship: RelationshipText
    other: EntityText


WantedLinks = Annotated[
    list[Wanted], Field(description=f"At most {MAX_LINKS} links.", min_length=1, max_length=MAX_LINKS)
]


class Tools:
    """The tools on top of ``client``. ``on_graph`` is called with the URI of each graph asked for."""

    def __init__(self, client: CaseLinksClient, writes: Writes, on_graph: Callable[[str], None]) -> None:
        self._client = client
        self._writes = writes
        self._on_graph = on_graph

    async def find_cases(
        self,
        query: Annotated[
            str,
            Field(
                description="One to three distinctive words of the title, such as payment timeout, and no "
                "sentence: every word must occur. Alternatives and filters: (timeout OR hangs) "
                "-status:closed priority:(P1 OR P2). A case key finds that case. Empty finds all.",
                max_length=1000,
            ),
        ],
        limit: Limit = 20,
        cursor: Cursor = None,
    ) -> views.FoundCases:
        """Find cases (work items) by words or filters, newest first.

        Use it first when you have a description and not a key. Archived cases are not found.
        """
        if is_case_key(query.strip()):
            with contextlib.suppress(NotFoundError):
                return views.FoundCases(cases=[views.found_case(await self._client.get_case(query.strip()))])
        found, next_cursor = await _page(self._client.search_cases(query), limit, cursor)
        return views.FoundCases(
            cases=list(map(views.found_case, found)), next_cursor=next_cursor, hint=_hint(found, query)
        )

    async def find_incidents(
        self,
        query: Annotated[
            str,
            Field(
                description="A number such as 123 or IR-123, a filter such as state:active or "
                "state:(active OR stable), or one or two words of the title, all of which must occur. Empty "
                "finds all.",
                max_length=1000,
            ),
        ],
        limit: Limit = 20,
        cursor: Cursor = None,
    ) -> views.FoundIncidents:
        """Find incidents by number, filters or words, newest first, without their dates.

        If words find nothing, use a filter, or an empty query, and choose by the titles.
        """
        number = query.strip().removeprefix("incident:").removeprefix("#")
        if is_incident_number(number):
            with contextlib.suppress(NotFoundError):
                incident = await self._client.get_incident(number)
                return views.FoundIncidents(incidents=[views.found_incident(incident)])
        found, next_cursor = await _page(self._client.search_incidents(query), limit, cursor)
        return views.FoundIncidents(
            incidents=list(map(views.found_incident, found)),
            next_cursor=next_cursor,
            hint=_hint(found, query)
            and "nothing has all of these words: use state:active, or an empty query",
        )

    async def show_entity(self, entity: EntityText) -> views.ShownEntity:
        """Show one case or incident (title, status, URL) with its first 20 links.

        Also for a page or agent conversation, of which only the links are known.
        """
        resolver = self._client.resolver()
        shown = await resolver.entity(entity)
        own = await look_up_details(resolver, shown)
        page = await self._links_page(resolver, shown, None, 20, None)
        return views.ShownEntity(
            name=views.named_by(shown, {shown: own} if own else {}),
            type=views.type_in_words(shown),
            id=shown.id,
            title=views.quoted_title(own),
            status=views.status(own),
            priority=views.priority(own),
            url=url_of(own, self._client.site) if own else None,
            total_links=page.total,
            links=page.links,
            next_cursor=page.next_cursor,
        )

    async def list_links(
        self,
        entity: EntityText,
        relationship: Annotated[
            str | None,
            Field(
                description="Only links of this kind and direction, in words as seen from entity, such as "
                "blocks, blocked by or caused by.",
                max_length=50,
            ),
        ] = None,
        limit: Limit = 20,
        cursor: Cursor = None,
    ) -> views.LinksPage:
        """List the links of one entity, each with the entity at its other end, page by page.

        For links of links use graph, and for chains of blockers what_blocks.
        """
        resolver = self._client.resolver()
        return await self._links_page(
            resolver, await resolver.entity(entity), _direction(relationship), limit, cursor
        )

    async def what_blocks(self, entity: EntityText, context: Context[Any, Any]) -> views.Blockers:
        """Show everything that blocks a case, directly or through other cases: the chain of each blocker.

        Also the order in which to work on the blockers that are not closed, and cycles, which allow no order.
        Children of a case are not read: call it for each of them.
        """
        client, resolver = self._client, self._client.resolver()
        blocked = await resolver.entity(entity)

        async def list_blockers(each: Entity) -> list[CaseLink]:
            links = await client.list_links(each, relationship=Relationship.BLOCKS)
            return [link for link in links if link.child == each]

        async with _reporting(context) as on_progress:
            graph = await read_graph(
                [blocked],
                list_blockers,
                resolver.details,
                depth=_MAX_BLOCKER_DEPTH,
                max_nodes=_MAX_BLOCKERS,
                concurrency=_CONCURRENCY,
                progress=Progress(on_progress),
                site=client.site,
            )
        return _blockers(graph)

    async def graph(
        self,
        entities: Annotated[
            list[EntityText], Field(description="Where to begin.", min_length=1, max_length=10)
        ],
        context: Context[Any, Any],
        depth: Annotated[int, Field(description="How many links away to go.", ge=1, le=5)] = 2,
        max_entities: Annotated[
            int, Field(description="Cut off a larger graph.", ge=1, le=200)
        ] = MAX_ENTITIES,
    ) -> views.Graph:
        """Draw the links around one or more entities as a Mermaid flowchart, and list what is still open.

        Use it to see or show how cases and incidents hang together, such as chains of causes. Cycles are
        marked. The result does not say what lies beyond depth.
        """
        async with _reporting(context) as on_progress:
            graph = await self._client.read_graph(
                *entities, depth=depth, max_nodes=max_entities, progress=on_progress
            )
        uri = graph_uri(graph, depth, max_entities)
        self._on_graph(uri)
        return views.Graph(
            mermaid=drawn(graph),
            entities=len(graph.entities),
            links=len(graph.links),
            open=[
                views.OpenEntity(
                    name=views.named_by(each, graph.details),
                    title=views.quoted_title(found),
                    status=views.status(found),
                )
                for each in graph.entities
                if (found := graph.details.get(each)) and not _is_closed(found)
            ],
            cycles=_cycles(graph) or None,
            left_out=graph.left_out or None,
            unread=[views.named_by(each, graph.details) for each in graph.unread] or None,
            uri=uri,
        )

    async def plan_links(self, links: WantedLinks, context: Context[Any, Any]) -> views.Plan:
        """Check links before you create them, and change nothing.

        Says which links would be created, which exist already, which cannot be (with the reason), and
        contradictions with each other or with existing links: cycles, and a second parent. Show the result
        to the user before you call link_many.
        """
        wanted, left_out = self._parsed(links)

        def leave_out(link: WantedLink, error: CaseLinksError) -> None:
            for index, each in wanted.items():
                if each == link:
                    left_out.append(views.LeftOut(index=index, error=views.error_text(error)))

        async with _reporting(context) as on_progress:
            first, then = _in_two_parts(on_progress)
            plan = await self._client.plan_links(wanted.values(), progress=first, on_failure=leave_out)
            ahead, is_complete = await self._links_ahead(plan.create, Progress(then))
        created = frozenset(map(identity, plan.create))
        contradictions = find_contradictions(
            [*plan.create, *ahead], name=named, about=lambda link: identity(link) in created
        )
        ends = [end for each in contradictions for link in each.links for end in (link.parent, link.child)]
        known = await self._client.resolver().all_details(ends)
        return views.Plan(
            would_create=[views.sentence(link, plan.details) for link in plan.create],
            already_linked=[views.sentence(link, plan.details) for link in plan.keep],
            contradictions=[views.contradiction(each, known) for each in contradictions],
            is_checked=is_complete,
            left_out=sorted(left_out, key=lambda each: each.index),
        )

    async def link(
        self, entity: EntityText, relationship: RelationshipText, other: EntityText
    ) -> views.Linked:
        """Create one link unless it exists, and say whether it was created. Calling it again is safe.

        Read it as a sentence: SHOP-1, blocked by, SHOP-2. At least one end must be a case. For several links
        use link_many.
        """
        wanted = parse_link(entity, relationship, other, site=self._client.site)
        with self._writes.asked("link", [wanted]) as report:
            result = await self._client.ensure_link(wanted)
            outcome = LinkStatus.CREATED if result.created else LinkStatus.ALREADY_LINKED
            report(wanted, f"{outcome}: {result.link.id}")
        return views.Linked(link=as_asked(wanted), created=result.created, link_id=views.fact(result.link.id))

    async def link_many(self, links: WantedLinks, context: Context[Any, Any]) -> views.LinkedMany:
        """Create up to 50 links, each unless it exists, and report the outcome of each.

        One that fails does not stop the others, and calling it again with the same links is safe. Use
        plan_links first.
        """
        wanted, malformed = self._parsed(links)
        outcomes = {
            each.index: views.LinkOutcome(
                index=each.index,
                status=LinkStatus.MALFORMED,
                link=one_line(" ".join(links[each.index].model_dump().values())),
                error=each.error,
            )
            for each in malformed
        }
        indexes = list(wanted)
        with self._writes.asked("link", list(wanted.values())) as report:
            creating = self._client.create_links(list(wanted.values()), ensure=True)
            async with contextlib.aclosing(creating) as outcomes_of_run:
                async for outcome in outcomes_of_run:
                    error = views.error_text(outcome.error) if isinstance(outcome, Failed) else None
                    index = indexes[outcome.index]
                    outcomes[index] = views.LinkOutcome(
                        index=index, status=outcome.status, link=as_asked(outcome.new), error=error
                    )
                    done = error if isinstance(outcome, Failed) else outcome.link.id
                    report(outcome.new, f"{outcome.status}: {done}")
                    await context.report_progress(len(outcomes), len(links))
        statuses = [each.status for each in outcomes.values()]
        created, kept = map(statuses.count, (LinkStatus.CREATED, LinkStatus.ALREADY_LINKED))
        return views.LinkedMany(
            created=created,
            already_linked=kept,
            failed=len(statuses) - created - kept,
            outcomes=[outcomes[index] for index in sorted(outcomes)],
        )

    async def unlink(
        self,
        entity: EntityText,
        relationship: RelationshipText,
        other: EntityText,
        link_id: Annotated[
            str | None, Field(description="Of several equal links, delete only this one.", max_length=100)
        ] = None,
    ) -> views.Unlinked:
        """Delete the link entity, relationship, other. The cases and incidents stay.

        A deleted link can be created again with link. Ask the user first, unless they asked for it.
        """
        wanted = parse_link(entity, relationship, other, site=self._client.site)
        found = await self._client.find_links(wanted)
        equal = [link.id for link in found if link_id in (None, link.id)]
        # Each is a write. If there is none, the agent asked for one nevertheless.
        with self._writes.asked("unlink", [wanted] * max(len(equal), 1)) as report:
            deleted: list[str] = []
            try:
                for each in equal:
                    with contextlib.suppress(NotFoundError):  # deleted in the meantime
                        await self._client.delete_link(each)
                    deleted.append(each)
            except CaseLinksError as error:
                if not deleted:
                    raise
                raise CaseLinksError(f"deleted {', '.join(deleted)}, but then: {error}") from error
            report(wanted, f"deleted {', '.join(equal) or 'nothing'}")
        return views.Unlinked(
            link=as_asked(wanted), deleted=len(equal), link_ids=list(map(views.fact, equal))
        )

    async def read_drawn_graph(self, entities: Sequence[str], depth: int, max_entities: int) -> str:
        """Return the graph around ``entities`` as Mermaid."""
        return drawn(await self._client.read_graph(*entities, depth=depth, max_nodes=max_entities))

    def _parsed(self, links: Sequence[Wanted]) -> tuple[dict[int, WantedLink], list[views.LeftOut]]:
        """Return the links by their index, and those that cannot be parsed."""
        wanted: dict[int, WantedLink] = {}
        malformed = []
        for index, each in enumerate(links):
            try:
                wanted[index] = parse_link(each.entity, each.relationship, each.other, site=self._client.site)
            except InvalidLinkError as error:
                malformed.append(views.LeftOut(index=index, error=views.error_text(error)))
        return wanted, malformed

    async def _links_ahead(
        self, new: Sequence[NewCaseLink], progress: Progress
    ) -> tuple[list[CaseLink], bool]:
        """Return the existing links that could contradict ``new``, and whether these are all.

        They are those of the same relationships to and from the children of ``new``, and what these lead to.
        """
        relationships = {each.relationship for each in new if each.relationship in ACYCLIC}
        due = list(dict.fromkeys(each.child for each in new if each.relationship in ACYCLIC))
        seen = set[Entity]()
        found: dict[str, CaseLink] = {}
        unreadable = False

        async def list_links(entity: Entity) -> list[CaseLink]:
            nonlocal unreadable
            try:
                return await self._client.list_links(entity)
            except (NotFoundError, PermissionDeniedError):
                unreadable = True
                return []

        while due and len(seen) < _MAX_CHECKED:
            now = due[: _MAX_CHECKED - len(seen)]
            due = due[len(now) :]
            seen.update(now)
            lists = await map_concurrently(list_links, now, concurrency=_CONCURRENCY, progress=progress)
            links = [each for listed in lists.values() for each in listed]
            found |= {each.id: each for each in links if each.relationship in relationships}
            reached = (each.child for each in found.values() if each.parent in seen)
            due = [each for each in dict.fromkeys([*due, *reached]) if each not in seen]
        return list(found.values()), not due and not unreadable

    async def _links_page(
        self,
        resolver: Resolver,
        entity: Entity,
        direction: tuple[Relationship, bool | None] | None,
        limit: int,
        cursor: str | None,
    ) -> views.LinksPage:
        listed = await self._client.list_links(entity, relationship=direction[0] if direction else None)
        from_child = direction[1] if direction else None
        links = sorted(
            (each for each in listed if from_child is None or from_child == (each.parent != entity)),
            key=_position,
        )
        following = [each for each in links if cursor is None or _position(each) > cursor]
        page = following[:limit]
        known = await resolver.all_details([entity, *ends_of(page)])
        return views.LinksPage(
            entity=views.named_by(entity, known),
            total=len(links),
            links=[views.link_view(each, entity, known) for each in page],
            next_cursor=_position(page[-1]) if len(following) > limit else None,
        )


def graph_uri(graph: LinkGraph, depth: int, max_entities: int) -> str:
    """Return the URI of the resource that draws ``graph``."""
    roots = quote(",".join(views.named_by(each, graph.details) for each in graph.roots), safe="")
    limit = "" if max_entities == MAX_ENTITIES else f"&max_entities={max_entities}"
    return f"caselinks://graph/{roots}?depth={depth}{limit}"


def drawn(graph: LinkGraph) -> str:
    """Return ``graph`` as Mermaid. Quotation marks delimit its texts, which are cut as everywhere else."""
    cases = {
        entity: evolve(
            case,
            key=views.fact(case.key),
            title=one_line(case.title, limit=views.MAX_TITLE),
            status=views.fact(case.status),
            status_name=views.fact(case.status_name),
        )
        for entity, case in graph.cases.items()
    }
    incidents = {
        entity: evolve(
            incident,
            key=views.fact(incident.key),
            title=one_line(incident.title, limit=views.MAX_TITLE),
            status=views.fact(incident.status),
        )
        for entity, incident in graph.incidents.items()
    }
    return rendering.mermaid(evolve(graph, cases=cases, incidents=incidents))


def _blockers(graph: LinkGraph) -> views.Blockers:
    root, known = graph.root, graph.details
    by_child: dict[Entity, list[Entity]] = defaultdict(list)
    for link in graph.links:
        by_child[link.child].append(link.parent)
    blockers = graph.blockers_of(root)
    towards: dict[Entity, Entity] = {}
    for child in (root, *blockers):
        for parent in by_child[child]:
            towards.setdefault(parent, child)

    def path(blocker: Entity) -> list[str]:
        way = [blocker]
        while way[-1] != root:
            way.append(towards[way[-1]])
        return [views.named_by(each, known) for each in way]

    # A case that is closed neither blocks nor is blocked.
    is_due = {each: not _is_closed(known.get(each)) for each in graph.entities} | {root: True}
    links = tuple(link for link in graph.links if is_due[link.parent] and is_due[link.child])
    due = LinkGraph(root, links, graph.cases, incidents=graph.incidents)
    order = None
    with contextlib.suppress(CycleError):
        order = [views.named_by(each, known) for each in due.topological_order() if each != root]
    return views.Blockers(
        entity=views.named_by(root, known),
        is_blocked=any(is_due[each] for each in by_child[root]),
        blockers=[
            views.Blocker(
                name=views.named_by(each, known),
                title=views.quoted_title(known.get(each)),
                status=views.status(known.get(each)),
                is_closed=_is_closed(known.get(each)),
                path=path(each),
            )
            for each in blockers
        ],
        order=order,
        cycles=_cycles(due) or None,
        left_out=(graph.left_out + len(graph.unread)) or None,
    )


def _is_closed(found: Details | None) -> bool:
    return found is not None and found.stage == "CLOSED"


def _cycles(graph: LinkGraph) -> list[list[str]]:
    return [
        [views.named_by(each, graph.details) for each in (cycle[0].parent, *(link.child for link in cycle))]
        for cycle in graph.cycles
    ]


def _position(link: CaseLink) -> str:
    """Return the position of ``link`` in a list, which stays the same if links are added or deleted."""
    return views.fact(f"{link.relationship} {link.id}")


def _direction(relationship: str | None) -> tuple[Relationship, bool | None] | None:
    """Return the relationship that the words name, and whether from the child; ``None`` for either end."""
    if relationship is None:
        return None
    known, is_from_child = parse_relationship(relationship)
    return known, None if known == Relationship.RELATES_TO else is_from_child


async def _page(
    results: AsyncGenerator[T, None], limit: int, cursor: str | None
) -> tuple[list[T], str | None]:
    """Return a page of ``results``, and the cursor of the next one."""
    start = int(cursor) if cursor and cursor.isascii() and cursor.isdecimal() else 0
    if cursor and not 0 < start < _MAX_SEARCHED:
        raise ParameterError(
            "cursor must be the next_cursor of an earlier page of the same query"
            if start < _MAX_SEARCHED
            else f"a search shows its first {_MAX_SEARCHED} results: use a narrower query"
        )
    page: list[T] = []
    index = 0
    async with contextlib.aclosing(results) as found:
        async for each in found:
            index += 1
            if index > start + limit:
                return page, str(start + limit)
            if index > start:
                page.append(each)
    return page, None


def _hint(found: Sequence[object], query: str) -> str | None:
    """Return what to try if a search with several words has found nothing."""
    if found or len(query.split()) < 2:
        return None
    return "nothing has all of these words: use fewer, other ones, or (one OR another)"


def _in_two_parts(on_progress: OnProgress) -> tuple[OnProgress, OnProgress]:
    """Return the callbacks of two pieces of work that follow each other."""
    before = 0

    def first(done: int, expected: int) -> None:
        nonlocal before
        before = done
        on_progress(done, expected)

    return first, lambda done, expected: on_progress(before + done, before + expected)


@contextlib.asynccontextmanager
async def _reporting(context: Context[Any, Any]) -> AsyncIterator[OnProgress]:
    """Yield a callback that reports progress to the agent, as fast as the agent reads it."""
    latest: tuple[int, int] | None = None
    changed = asyncio.Event()

    async def send() -> None:
        nonlocal latest
        if latest:
            sent, latest = latest, None
            await context.report_progress(*sent)

    async def send_each() -> None:
        while True:
            await changed.wait()
            changed.clear()
            await send()

    def on_progress(done: int, expected: int) -> None:
        nonlocal latest
        latest = done, expected
        changed.set()

    sending = asyncio.ensure_future(send_each())
    try:
        yield on_progress
    finally:
        sending.cancel()
        await asyncio.wait([sending])
    await send()
