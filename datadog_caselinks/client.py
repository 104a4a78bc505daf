"""The client, with one method for each operation."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import os
import ssl as tls
import sys
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from functools import partial
from typing import Final, Self, TypedDict, Unpack
from uuid import UUID

import aiohttp

from datadog_caselinks.bulk.create_links import Outcome
from datadog_caselinks.bulk.create_links import create_links as create_each
from datadog_caselinks.bulk.journal import Journal
from datadog_caselinks.bulk.known_links import End, KnownLinks, choose_ends, parent_ends
from datadog_caselinks.bulk.preview import Preview, Previewer, links_in_journal
from datadog_caselinks.bulk.undo import Undo, open_undo
from datadog_caselinks.calls.concurrency import OnProgress, Progress
from datadog_caselinks.calls.creation import BeforeCreate, CreateFunc, CreateResult, Creator
from datadog_caselinks.calls.operations import Operations
from datadog_caselinks.calls.recent_links import RecentLinks
from datadog_caselinks.calls.resolver import Resolver
from datadog_caselinks.calls.retry import RetryPolicy
from datadog_caselinks.calls.search import Search, next_offset
from datadog_caselinks.graph.link_graph import LinkGraph
from datadog_caselinks.graph.plan import LinkPlan, OnFailure, PlanOutcome, apply_plan, plan_links
from datadog_caselinks.graph.reading import read_graph
from datadog_caselinks.http.bounded_reader import BoundedReader
from datadog_caselinks.http.fence import Check, FencedRequester
from datadog_caselinks.http.requester import Requester
from datadog_caselinks.http.sessions import SessionManager
from datadog_caselinks.http.transport import Transport
from datadog_caselinks.isolation import isolated
from datadog_caselinks.observation.events import Observer, OnEvent, Telemetry
from datadog_caselinks.values.credentials import Credentials, credentials_from_env, require_credentials
from datadog_caselinks.values.errors import InvalidLinkError, NotFoundError, ParameterError
from datadog_caselinks.values.messages import quoted
from datadog_caselinks.values.models import (
    Case,
    CaseLink,
    Entity,
    Incident,
    LinkReference,
    NewCaseLink,
    Reference,
    Relationship,
    WantedLink,
    case_name,
    identity,
    incident_name,
    is_incident_number,
    is_uuid,
    text_of,
)
from datadog_caselinks.values.parameters import (
    require,
    require_function,
    require_items,
    require_path,
    require_whole_number,
)
from datadog_caselinks.values.rate import Rate, parsed_rate
from datadog_caselinks.values.rate_limit import RateLimit
from datadog_caselinks.values.sites import Site, parsed_site, site_from_env

# As recommended for libraries: log records go only where the program sends them.
logging.getLogger("datadog_caselinks").addHandler(logging.NullHandler())

_logger = logging.getLogger(__name__)

_SESSIONS: Final = (SessionManager, aiohttp.ClientSession, type(None))

DEFAULT_CONCURRENCY: Final = 100
DEFAULT_TIMEOUT: Final = 30.0

_FOUND_FOR: Final = 300.0
"""Seconds for which the result of a lookup by key or number is used. A key may name another case later."""


class ClientOptions(TypedDict, total=False):
    """The keyword parameters of :class:`CaseLinksClient`, as :meth:`CaseLinksClient.from_env` takes them."""

    sessions: SessionManager | aiohttp.ClientSession | None
    retry: RetryPolicy
    max_concurrency: int
    rate: Rate | str | None
    timeout: float
    proxy: str | None
    ssl: tls.SSLContext | None
    on_event: OnEvent | None


class CaseLinksClient:
    """Creates, lists and deletes the links of Datadog cases on one site, with one set of credentials.

    Use it as ``async with CaseLinksClient(…) as client``, or call :meth:`close` at the end. Create one client
    and keep it: it pools connections. It can be created before the event loop runs, and any number of calls
    may run concurrently.

    Every method raises a :class:`CaseLinksError` if it fails; the error reference says what to do about each.
    Cancelling a call stops it immediately. The server may still apply a request that was in flight.

    Args:
        site: A :class:`Site`, or text that :meth:`Site.parse` accepts.
        credentials: :class:`ApiKeys` or :class:`BearerToken`.
        sessions: A :class:`SessionManager` to share, or an ``aiohttp.ClientSession`` of your own; neither is
            closed with the client. By default the client has its own manager.
        retry: How often and after what wait a failed attempt is retried.
        max_concurrency: The maximum number of requests in flight. Further calls wait.
        rate: The maximum number of requests in any period, such as ``"50/1s"`` or ``Rate(50, 1)``, even if
            the server allows more. By default, only the server's limit applies.
        timeout: Seconds for one attempt, from connecting to the end of the response. Waiting for a slot, for
            the rate limit or for the next attempt does not count.
        proxy: URL of an HTTP or HTTPS proxy, with user and password if it requires them. ``None`` or an empty
            text means no proxy. A site on loopback over ``http`` is reached without the proxy, which would
            see the keys.
        ssl: An ``ssl.SSLContext``, for a private CA or a client certificate. It must check certificates.
        on_event: Called with each event of a call: :class:`CallStarted`, :class:`CallWaiting`,
            :class:`CallRetrying`, :class:`CallReconciled` and :class:`CallFinished`. It runs in the event
            loop, so it must be quick; what it raises is logged. With ``opentelemetry-api`` installed and a
            provider set up, there are spans and metrics too.

    Raises:
        ParameterError: An argument cannot work, or has the wrong type.
        ConfigurationError: The site is malformed.
    """

    def __init__(
        self,
        site: Site | str,
        credentials: Credentials,
        *,
        sessions: SessionManager | aiohttp.ClientSession | None = None,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 - frozen, so it can be shared
        max_concurrency: int = DEFAULT_CONCURRENCY,
        rate: Rate | str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        proxy: str | None = None,
        ssl: tls.SSLContext | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        require_whole_number("max_concurrency", max_concurrency, at_least=1)
        require("sessions", sessions, _SESSIONS, "a SessionManager or an aiohttp.ClientSession")
        require("retry", retry, RetryPolicy, "a RetryPolicy (RetryPolicy(max_attempts=1) never retries)")
        require_function("on_event", on_event)
        self._site = parsed_site(site)
        require_credentials(credentials)
        self._is_shared = isinstance(sessions, SessionManager)
        self._sessions = sessions if isinstance(sessions, SessionManager) else SessionManager(sessions)
        # With more slots than connections, attempts would wait for a connection while their timeout runs.
        self._concurrency = min(max_concurrency, self._sessions.max_connections or sys.maxsize)
        self._gate = self._sessions.gate(self.site, credentials)
        own_rate = parsed_rate(rate)
        if own_rate:
            self._sessions.stop_resends()
        budget = retry.new_budget(self._concurrency)
        self._requester = Requester(
            Transport(self.site, credentials, self._sessions, timeout=timeout, proxy=proxy, ssl=ssl),
            self._gate,
            budget.outage,
            max_in_flight=self._concurrency,
            max_wait=retry.max_wait,
            rate=own_rate,
        )
        reader = BoundedReader(self._requester, max_in_flight=self._concurrency)
        self._longest_settle = retry.longest_settle
        self._recent = RecentLinks(self._longest_settle)
        self._operations = Operations(self._requester, reader, self._recent, retry, budget)
        self._creator = Creator(self._requester, self._operations, self._recent, retry, budget)
        self._observer = Observer(on_event, _opentelemetry())
        # Not self.get_case: in a reference cycle, a client would stay until the garbage is collected.
        get_case = partial(_get_case, self._operations, self._observer)
        get_incident = partial(_get_incident, self._operations, self._observer)
        self._resolver = Resolver(get_case, get_incident, self.site, found_for=_FOUND_FOR, missing_for=0.0)

    @classmethod
    def from_env(cls, site: Site | str | None = None, **options: Unpack[ClientOptions]) -> Self:
        """Return a client with the site and the credentials from the environment variables.

        Args:
            site: The site. By default it is ``DD_SITE`` or ``DATADOG_SITE``, or US1 (``datadoghq.com``) if
                neither is set.
            options: The keyword parameters of the class.

        The credentials are ``DD_API_KEY`` and ``DD_APP_KEY``, or ``DD_BEARER_TOKEN``. The spellings of
        Datadog's other tools work too: ``DATADOG_API_KEY`` and so on, ``DD_ACCESS_TOKEN``, or an access token
        (``ddpat_…``, ``ddsat_…``) as ``DD_APP_KEY``.

        Raises:
            ConfigurationError: A variable is missing or malformed; the message names it.
        """
        if site is None:
            site = site_from_env()
        # The site first: a wrong one is reported before missing credentials.
        return cls(parsed_site(site), credentials_from_env(), **options)

    @property
    def site(self) -> Site:
        """The site of the client."""
        return self._site

    async def create_link(self, new: WantedLink) -> CaseLink:
        """Create one link.

        The client retries a failed attempt as the :class:`RetryPolicy` says. If the server may have applied
        the attempt, the client first lists the links of ``new.parent``. If the link is among them, it is
        returned, so a retry creates no duplicate.

        Raises:
            AmbiguousResultError: The link may exist, and no lookup could find out.
            ConflictError: An equal link exists, and the server refused a second one. ``existing`` is the
                existing link, if the lookup found it.
        """
        if not isinstance(new, NewCaseLink):
            new = await self._resolver.link(new)
        with self._observer.call("create", new) as call:
            call.result = result = await self._creator.create(new)
            return result.link

    async def ensure_link(self, new: WantedLink) -> CreateResult:
        """Create the link unless it exists. ``RELATES_TO`` links are equal in either direction.

        Equal calls of one client run one after the other, and a link that the client has just created, or may
        have created, is not created again. An equal call of another process at the same moment may create a
        second one.

        Returns:
            The link, and whether this call created it. Write
            ``link, created = await client.ensure_link(new)``.

        Raises:
            AmbiguousResultError: The link may exist, and no lookup could find out.
        """
        if not isinstance(new, NewCaseLink):
            new = await self._resolver.link(new)
        with self._observer.call("ensure", new) as call:
            call.result = result = await self._creator.ensure(new)
            return result

    async def create_links(
        self,
        source: Iterable[WantedLink] | AsyncIterable[WantedLink],
        *,
        concurrency: int | None = None,
        ensure: bool = False,
        journal: str | os.PathLike[str] | None = None,
        proceed: Callable[[int], bool] | None = None,
    ) -> AsyncGenerator[Outcome, None]:
        """Create each link in ``source``, and yield the outcome of each as it completes.

        The error of a link is in its outcome; it is not raised. A case that is known only by its key
        (:func:`parse_link`) is looked up, once for the whole run. Leaving the loop early cancels the creates
        that are in flight.

        Args:
            source: The links. It may be endless: the client reads at most twice ``concurrency`` links ahead
                of the outcomes, and 2,000 more with ``ensure``. A generator is closed at the end of the run,
                even if the run ends early.
            concurrency: The maximum number of links in progress. By default, the ``max_concurrency`` of the
                client.
            ensure: Look up each link first, and create it only if it is missing. One list request serves many
                links: the client lists the end that more of the next 2,000 links share, and uses the list for
                five minutes. If another process creates a link in that time, the run may create it a second
                time.
            journal: The path of a file that records each link and its outcome. If a run ends early, for any
                reason, the same call continues it: links that were created are not sent again, and links that
                were in flight are looked up first. A link that appears twice in ``source`` is created once.
            proceed: Called with the index of each link before it is sent. Once it returns false, no further
                link is sent; those in flight are completed. Use it to stop a run.

        Yields:
            :class:`Created`, :class:`AlreadyLinked` or :class:`Failed`, with the link and its index in
            ``source``.

        Raises:
            ParameterError: An argument cannot work, such as a ``concurrency`` below 1.
            JournalError: The journal cannot be used, for example because another run is using it.
        """
        require_items("source", source)
        if concurrency is not None:
            require_whole_number("concurrency", concurrency, at_least=1)
        if journal is not None:
            require_path("journal", journal)
        require_function("proceed", proceed)
        known = self._known_links() if ensure else None
        run = self._create_all(source, known, concurrency=concurrency, journal=journal, proceed=proceed)
        async with contextlib.aclosing(run) as outcomes:
            async for outcome in outcomes:
                yield outcome

    async def _create_all(
        self,
        source: Iterable[WantedLink] | AsyncIterable[WantedLink],
        known: KnownLinks | None,
        *,
        concurrency: int | None = None,
        journal: str | os.PathLike[str] | None = None,
        proceed: Callable[[int], bool] | None = None,
    ) -> AsyncGenerator[Outcome, None]:
        resolver = self.resolver()
        create_unchecked = self._observed("create", self._creator.create)

        def resume(before_create: BeforeCreate) -> CreateFunc:
            resume_one = partial(self._creator.resume, ended_at=opened_at, before_create=before_create)
            return self._observed("ensure", resume_one)

        async with contextlib.AsyncExitStack() as stack:
            opened: Journal | None = None
            if journal is not None:
                opened = await stack.enter_async_context(Journal(journal, site=self.site.api_url))
                if opened.is_incomplete:
                    known = known or self._known_links()
            if known:
                await stack.enter_async_context(known)
            opened_at = asyncio.get_running_loop().time()  # every earlier run with the journal has ended

            async def create_one(item: tuple[WantedLink, End]) -> CreateResult:
                wanted, end = item
                new = await resolver.link(wanted)
                create = self._ensuring(known, end) if known else create_unchecked
                return await (opened.once(new, create, resume, wanted=wanted) if opened else create(new))

            outcomes = create_each(
                stack.enter_context(self._observer.run(create_one)),
                choose_ends(source) if known else parent_ends(source),
                concurrency=concurrency or self._concurrency,
                proceed=proceed,
            )
            await stack.enter_async_context(contextlib.aclosing(outcomes))
            if opened:
                stack.callback(opened.end)  # before the creates in flight are cancelled
            async for outcome in outcomes:
                yield outcome

    async def preview_links(
        self,
        source: Iterable[WantedLink] | AsyncIterable[WantedLink],
        *,
        concurrency: int | None = None,
        journal: str | os.PathLike[str] | None = None,
    ) -> AsyncGenerator[Preview, None]:
        """Look up each link in ``source``, and yield what ``create_links(…, ensure=True)`` would do.

        Creates nothing. Without ``ensure``, :meth:`create_links` would create existing links again. The
        parameters are those of :meth:`create_links`. The journal is only read; a link that it contains needs
        no lookup.

        Yields:
            :class:`WouldCreate`, :class:`AlreadyLinked`, :class:`Repeated` for a link that equals another one
            in ``source``, or :class:`Failed` if a lookup failed.

        Raises:
            ParameterError: An argument cannot work, such as a ``concurrency`` below 1.
            JournalError: The journal cannot be used, for example because a run is using it.
        """
        require_items("source", source)
        if concurrency is not None:
            require_whole_number("concurrency", concurrency, at_least=1)
        recorded = {}
        if journal is not None:
            require_path("journal", journal)
            recorded = await links_in_journal(journal, site=self.site.api_url)
        known = self._known_links()
        previewer = Previewer(self.resolver().link, known.find, recorded)
        outcomes = previewer.preview(source, concurrency=concurrency or self._concurrency)
        async with known, contextlib.aclosing(outcomes):
            async for outcome in outcomes:
                yield outcome

    def undo(self, run: str | os.PathLike[str]) -> contextlib.AbstractAsyncContextManager[Undo]:
        """Open the record of a run to delete the links that the run created, and no others.

        Use it as ``async with client.undo("run.journal") as undo``: ``undo.links`` are the links, and
        ``undo.delete()`` deletes them. No other run can use the journal until the end of the block. A link
        that was deleted is removed from the journal, so the next run with it creates the link again.

        A link that was in flight when the run ended, or that only a lookup found because the response to its
        create was lost, is looked up. If it exists, it is in ``undo.ambiguous`` and not deleted, since
        another process may have created it.

        Args:
            run: The path of the journal of the run, or of the output of
                ``caselinks bulk --output jsonl``.

        Raises:
            JournalError: The file does not exist, is neither a journal nor such an output, belongs to another
                site, or is in use by a run.
            ParameterError: ``run`` is not a path.
        """
        require_path("run", run)
        return open_undo(
            run,
            site=self.site.api_url,
            known=self._known_links(),
            wait=self._longest_settle,
            delete=self.delete_link,
            concurrency=self._concurrency,
        )

    async def plan_links(
        self,
        wanted: Iterable[WantedLink] | AsyncIterable[WantedLink],
        *,
        prune: bool = False,
        progress: OnProgress | None = None,
        on_failure: OnFailure | None = None,
    ) -> LinkPlan:
        """Compare the ``wanted`` links with the existing ones. Changes nothing.

        Each key is looked up once. Equal links count once; ``RELATES_TO`` links are equal in either
        direction. The plan has a warning for each contradiction among the wanted and the listed links.

        Args:
            wanted: The links that should exist.
            prune: Also plan to delete existing links between two entities that ``wanted`` names, if the link
                is not wanted or exists more than once. Links to entities that ``wanted`` does not name are
                kept, and so are links with a relationship that this version does not know.
            progress: Called after each response with the number of responses so far, and how many are
                expected by now.
            on_failure: Called with each link that is not allowed, or whose end does not exist, and with
                the error. The link is left out, and nothing is pruned, since an existing link may be
                meant. What it raises ends the call. By default, the error is raised.

        Raises:
            NotFoundError: A case or incident does not exist. The message names each one.
            ParameterError: An argument has the wrong type.
        """
        require_items("wanted", wanted)
        require_function("progress", progress)
        require_function("on_failure", on_failure)
        return await plan_links(
            wanted,
            list_links=self._list_whole,
            known=self._known_links(),
            resolver=self.resolver(),
            prune=prune,
            concurrency=self._concurrency,
            progress=Progress(progress),
            on_failure=on_failure,
        )

    async def _list_whole(self, entity: Entity) -> list[CaseLink]:
        with self._observer.call("list", entity) as call:
            call.result = links = await self._operations.list_whole(entity)
            return links

    def apply_plan(self, plan: LinkPlan, *, trust_lists: bool = False) -> AsyncGenerator[PlanOutcome, None]:
        """Create and delete the links in ``plan``, and yield the outcome of each as it completes.

        The error of a link is in its outcome; it is not raised. Applying a plan twice changes nothing: links
        are created as by :meth:`ensure_link`, and a link that no longer exists counts as deleted.

        All creates finish before the first delete. If a create failed, nothing is deleted, because the new
        link may replace a deleted one. Leaving the loop early cancels the requests that are in flight.

        Args:
            plan: The plan.
            trust_lists: Use the lists that the plan requested, until they are five minutes old, instead of
                requesting them again. This saves requests. If another process creates a link in that time,
                the link may be created twice.

        Yields:
            :class:`Created`, :class:`AlreadyLinked` or :class:`Failed` for each link to create, then
            :class:`Deleted` or :class:`NotDeleted` for each link to delete.

        Raises:
            ParameterError: ``plan`` is not a :class:`LinkPlan`.
        """
        require("plan", plan, LinkPlan, "a LinkPlan, as plan_links returns it")
        known = self._known_links()
        if trust_lists and plan.known and plan.known.is_listed_by(self._operations.list_ids):
            known = plan.known
        return apply_plan(
            plan,
            ensure_links=partial(self._create_all, known=known),
            delete=self.delete_link,
            concurrency=self._concurrency,
        )

    async def list_links(
        self, entity: Reference | str, *, relationship: Relationship | None = None
    ) -> list[CaseLink]:
        """List the links that have ``entity`` as parent or child; with ``relationship``, only those.

        ``entity`` may be a case key or text that :func:`parse_reference` reads; a key is looked up first.

        The result leaves out members of the response that are not links, for example those without an id, and
        the log has a warning.
        """
        if not isinstance(entity, Entity):
            entity = await self._resolver.entity(entity)
        with self._observer.call("list", entity) as call:
            call.result = links = await self._operations.list_links(entity, relationship)
            return links

    async def find_links(self, wanted: WantedLink | CaseLink) -> list[CaseLink]:
        """Find the links that are equal to ``wanted``: the same relationship between the same entities.

        ``RELATES_TO`` links are equal in either direction. The links of the parent are listed. The result is
        empty if the link does not exist, and has several links if it was created more than once. For a
        :class:`CaseLink`, the result has its duplicates and the link itself, if it still exists.
        """
        if not isinstance(wanted, NewCaseLink | CaseLink):
            wanted = await self._resolver.link(wanted)
        links = await self.list_links(wanted.parent)
        return [link for link in links if identity(link) == identity(wanted)]

    async def read_graph(
        self,
        *roots: Reference | str,
        depth: int = 2,
        max_nodes: int = 500,
        progress: OnProgress | None = None,
    ) -> LinkGraph:
        """Read the graph of links around ``roots``, with the titles of its cases and incidents.

        Each case or incident takes two requests: one for its links, one for its title. An entity that these
        credentials may not read is in the graph without its links.

        Args:
            roots: Where to begin: entities, keys, numbers, or texts that :func:`parse_reference` reads.
            depth: How many links away from ``roots`` to read; 1 reads only their own links.
            max_nodes: The maximum number of entities in the graph. ``LinkGraph.left_out`` counts those left
                out.
            progress: Called after each response with the number of responses so far, and how many are
                expected by now.

        Raises:
            ParameterError: ``roots`` is empty, ``depth`` is below 0 or ``max_nodes`` below 1, or an argument
                has the wrong type.
            InvalidLinkError: A root is a text that does not name an entity.
            NotFoundError: A case with this key, or an incident with this number, does not exist.
        """
        if not roots:
            raise ParameterError("read_graph needs at least one root, such as 'SHOP-1'")
        require_whole_number("depth", depth, at_least=0)
        require_whole_number("max_nodes", max_nodes, at_least=1)
        require_function("progress", progress)
        resolver = self.resolver()
        return await read_graph(
            [await resolver.entity(root) for root in roots],
            self.list_links,
            resolver.details,
            depth=depth,
            max_nodes=max_nodes,
            concurrency=self._concurrency,
            progress=Progress(progress),
            site=self.site,
        )

    async def delete_link(self, link: CaseLink | WantedLink | str) -> None:
        """Delete a link. Repeating a delete that failed is safe.

        Args:
            link: The :class:`CaseLink`, its id, or its ends, such as
                ``case("SHOP-6").causes(case("SHOP-5"))``. The links of the parent are then listed, and each
                equal one is deleted; ``RELATES_TO`` links are equal in either direction.

        Raises:
            NotFoundError: The link does not exist, and no attempt of this call can have deleted it. With an
                ``aiohttp.ClientSession`` of your own and an aiohttp before 3.14.4, aiohttp may have repeated
                an attempt unseen, and the first one deleted the link.
        """
        if isinstance(link, NewCaseLink | LinkReference):
            await self._delete_equal(link)
            return
        link_id = link.id if isinstance(link, CaseLink) else link
        with self._observer.call("delete", link_id):
            await self._operations.delete_link(link_id)

    async def _delete_equal(self, wanted: WantedLink) -> None:
        equal = await self.find_links(wanted)
        if not equal:
            raise NotFoundError(f"cannot delete {wanted}: it does not exist", status=404)
        for link in equal:
            with contextlib.suppress(NotFoundError):  # another process deleted it after the list
                await self.delete_link(link)

    async def get_case(self, key_or_id: str | UUID | Reference) -> Case:
        """Get a case by its key, such as ``SHOP-1``, by its UUID, or as an end of a link.

        For URLs and other texts, use :meth:`resolver`.

        Raises:
            NotFoundError: The case does not exist, or these credentials cannot access it.
            InvalidLinkError: ``key_or_id`` is not a key, a UUID or an end that is a case.
        """
        name = case_name(key_or_id) if isinstance(key_or_id, Reference) else key_or_id
        return await _get_case(self._operations, self._observer, name)

    async def search_cases(self, query: str) -> AsyncGenerator[Case, None]:
        """Search for cases, and yield each that matches, newest first.

        A page of up to 100 cases is one request, which is sent when its first case is needed: leave the loop
        when you have enough. No case is yielded twice, even if new cases shift the pages. The search ends
        when the server has no more pages, or, with a warning in the log, after ten pages in a row without a
        new case.

        Args:
            query: A text such as ``payment timeout``, or a filter such as ``status:closed`` or
                ``priority:(P1 OR P2)``, with ``AND``, ``OR``, ``-`` and quotation marks. Datadog does not
                find archived cases, and often finds none by ``key:``: use :meth:`get_case` for a key. An
                empty text finds all cases.

        Yields:
            Each :class:`Case`.

        Raises:
            ParameterError: ``query`` is not a text.
            BadRequestError: The server does not understand the query.
        """
        _require_query(query)
        search = Search[Case]("case", query)
        page = 1
        while True:
            with self._observer.call("search_cases", query) as call:
                (cases, skipped, _), _, last = await self._operations.search_cases(query, page)
                call.result = cases
            for case in search.new_on(cases):
                yield case
            is_last = page >= last if last and last > 0 else not (cases or skipped)
            if is_last or search.repeats_itself():
                return
            page += 1

    async def get_incident(self, number_or_id: str | int | UUID | Reference) -> Incident:
        """Get an incident by its number, such as ``123`` or ``IR-123``, by its UUID, or as an end of a link.

        The client searches for a number, and accepts only an incident that has exactly this number.

        Raises:
            NotFoundError: The incident does not exist, or these credentials cannot access it.
            PermissionDeniedError: These credentials lack the permission ``incident_read``.
            InvalidLinkError: ``number_or_id`` is not a number, a UUID or an end that is an incident.
        """
        name = incident_name(number_or_id) if isinstance(number_or_id, Reference) else number_or_id
        return await _get_incident(self._operations, self._observer, name)

    async def search_incidents(self, query: str) -> AsyncGenerator[Incident, None]:
        """Search for incidents, and yield each that matches, newest first.

        A page of up to 100 incidents is one request, as for :meth:`search_cases`.

        Args:
            query: A filter such as ``state:active`` or ``state:(active OR stable)``, or a text. Datadog
                documents filters only. To get an incident by its number, use :meth:`get_incident`.

        Yields:
            Each :class:`Incident`.

        Raises:
            ParameterError: ``query`` is not a text.
            BadRequestError: The server does not understand the query.
            PermissionDeniedError: These credentials lack the permission ``incident_read``.
        """
        _require_query(query)
        search = Search[Incident]("incident", query)
        offset: int | None = 0
        while offset is not None:
            with self._observer.call("search_incidents", query) as call:
                page = await self._operations.search_incidents(query, offset)
                (incidents, _, _), _ = page
                call.result = incidents
            for incident in search.new_on(incidents):
                yield incident
            offset = next_offset(page, offset)
            if offset is not None and search.repeats_itself():
                return

    def resolver(self) -> Resolver:
        """Return a :class:`Resolver`, which looks up entities by key, number or URL, and caches them."""
        return Resolver(self.get_case, self.get_incident, self.site)

    @property
    def rate_limit(self) -> RateLimit | None:
        """The current rate-limit window for creates, as of the latest response.

        ``None`` before the first response, once the window is over, and if the server sends no limit.
        """
        return self._gate.rate_limit("create")

    async def close(self) -> None:
        """Close the client, and its connections unless they are shared.

        A waiting call fails with :class:`SessionError` when its wait ends. Requests in flight fail too,
        unless the connections are shared. A second call does nothing.
        """
        self._requester.close()
        if not self._is_shared:
            await self._sessions.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"CaseLinksClient({self.site!r})"

    def _fenced(self, check: Check) -> Self:
        """Return a copy of this client that runs ``check`` right before it sends each create."""
        fenced = copy.copy(self)
        fenced._creator = self._creator.through(FencedRequester(self._requester, check))
        return fenced

    def _known_links(self) -> KnownLinks:
        return KnownLinks(self._operations.list_ids, self._recent)

    def _ensuring(self, known: KnownLinks, end: End) -> CreateFunc:
        async def find(new: NewCaseLink) -> CaseLink | None:
            return await known.find(new, end)

        return self._observed("ensure", partial(self._creator.ensure, find=find))

    def _observed(self, operation: str, create: CreateFunc) -> CreateFunc:
        async def create_observed(new: NewCaseLink) -> CreateResult:
            with self._observer.call(operation, new) as call:
                call.result = result = await create(new)
                return result

        return create_observed


def _require_query(query: str) -> None:
    require("query", query, str, "a text such as 'payment timeout'")
    if any("\ud800" <= character <= "\udfff" for character in query):
        raise ParameterError(f"query must be valid Unicode, not {quoted(query)}")


async def _get_case(operations: Operations, observer: Observer, key_or_id: str | UUID) -> Case:
    with observer.call("get", text_of(key_or_id)) as call:
        call.result = case = await operations.get_case(key_or_id)
        return case


async def _get_incident(
    operations: Operations, observer: Observer, number_or_id: str | int | UUID
) -> Incident:
    name = text_of(number_or_id).removeprefix("incident:")
    if is_uuid(name):
        with observer.call("get_incident", name) as call:
            call.result = incident = await operations.get_incident(name)
            return incident
    if not is_incident_number(name):
        raise InvalidLinkError(f"{quoted(number_or_id)} is neither the number of an incident nor a UUID")
    with observer.call("search_incidents", name) as call:
        call.result = incident = await operations.find_incident(name)
        return incident


def _opentelemetry() -> Telemetry | None:
    with isolated(_logger, "OpenTelemetry cannot be used"):
        try:
            from datadog_caselinks.observation.telemetry import telemetry
        except ModuleNotFoundError:  # the extra "otel" is not installed
            return None
        return telemetry()
    return None
