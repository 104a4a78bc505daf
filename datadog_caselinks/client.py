"""The client: it joins the parts, and says what is done about a delete that fails."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import ssl as tls
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Final, Self, TypedDict, Unpack
from uuid import UUID

import aiohttp

from datadog_caselinks.creation import CreateFunc, Creator
from datadog_caselinks.credentials import Credentials, credentials_from_env
from datadog_caselinks.errors import (
    CaseLinksError,
    ConfigurationError,
    NotFoundError,
    ParameterError,
    SessionError,
)
from datadog_caselinks.events import sent
from datadog_caselinks.http import wire
from datadog_caselinks.http.sessions import SessionManager
from datadog_caselinks.http.transport import Transport
from datadog_caselinks.http.wire import Answer, Request
from datadog_caselinks.lookup import Lookup
from datadog_caselinks.models import Case, CaseLink, Entity, NewCaseLink, Relationship
from datadog_caselinks.rate_limit import RateLimit, retry_after
from datadog_caselinks.retry import RetryBudget, RetryPolicy, may_have_been_applied, retrying
from datadog_caselinks.sites import Site, site_from_env

if TYPE_CHECKING:
    from datadog_caselinks.bulk.create_links import Outcome
    from datadog_caselinks.concurrency import OnProgress
    from datadog_caselinks.events import Observer, OnEvent
    from datadog_caselinks.graph.link_graph import LinkGraph
    from datadog_caselinks.graph.plan import LinkPlan, PlanOutcome
    from datadog_caselinks.references import Reference, Resolver, WantedLink

# As libraries should: what is logged goes where the program sends it, and nowhere else.
logging.getLogger("datadog_caselinks").addHandler(logging.NullHandler())

DEFAULT_CONCURRENCY: Final = 100
DEFAULT_TIMEOUT: Final = 30.0

_LONG_BODY: Final = 2**17
"""Bytes of a list that is read in a thread: some 350 links, which take two milliseconds."""


class ClientOptions(TypedDict, total=False):
    """The keyword parameters of :class:`CaseLinksClient`, as :meth:`CaseLinksClient.from_env` takes them."""

    sessions: SessionManager | aiohttp.ClientSession | None
    retry: RetryPolicy
    max_concurrency: int
    timeout: float
    proxy: str | None
    ssl: tls.SSLContext | None
    on_event: OnEvent | None


class CaseLinksClient:
    """Creates, lists and deletes the links of Datadog cases on one site, with one set of credentials.

    Use it as ``async with CaseLinksClient(…) as links``, or call :meth:`close` at the end. Make one client
    and keep it: it pools connections, and may be made before the event loop runs. Any number of calls may
    be under way at once.

    ``site``
        A :class:`Site`, or a text that :meth:`Site.parse` understands.
    ``credentials``
        :class:`ApiKeys` or :class:`BearerToken`.
    ``sessions``
        A :class:`SessionManager` to share, or an ``aiohttp.ClientSession`` of your own; neither is closed
        with the client. By default the client has a manager of its own.
    ``retry``
        When a failed attempt is repeated.
    ``max_concurrency``
        Requests under way at once; further calls wait for their turn.
    ``timeout``
        Seconds for one attempt, from connecting to the end of the answer. Waiting for a turn or for the
        next attempt does not count.
    ``proxy``
        URL of an HTTP or HTTPS proxy, with user and password if it wants them. A site on loopback by ``http``
        is asked without it, as the proxy would see the keys.
    ``ssl``
        An ``ssl.SSLContext``, for a private CA or a client certificate.
    ``on_event``
        Is called with what calls are doing: a :class:`CallStarted`, :class:`CallWaiting`,
        :class:`CallRetrying`, :class:`CallReconciled` or :class:`CallFinished`, in the event loop, so it must
        be quick. What it raises is logged. With ``opentelemetry-api`` installed there are spans and metrics
        too.

    Every method raises a :class:`CaseLinksError`; the page on errors says what to do about each. Cancelling
    a call stops it at once; whether a request that was under way is still carried out, nobody can know.
    """

    def __init__(
        self,
        site: Site | str,
        credentials: Credentials,
        *,
        sessions: SessionManager | aiohttp.ClientSession | None = None,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 - frozen, so it can be shared
        max_concurrency: int = DEFAULT_CONCURRENCY,
        timeout: float = DEFAULT_TIMEOUT,
        proxy: str | None = None,
        ssl: tls.SSLContext | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        if max_concurrency < 1:
            raise ConfigurationError(f"max_concurrency must be at least 1, not {max_concurrency!r}")
        self.site: Site = Site.parse(site) if isinstance(site, str) else site
        self._is_closed = False
        self._is_shared = isinstance(sessions, SessionManager)
        self._sessions = sessions if isinstance(sessions, SessionManager) else SessionManager(sessions)
        self._transport = Transport(
            self.site, credentials, self._sessions, timeout=timeout, proxy=proxy, ssl=ssl
        )
        # More slots than connections would make attempts wait for a connection with the clock running.
        self._concurrency = min(max_concurrency, self._sessions.max_connections or max_concurrency)
        self._slots = asyncio.Semaphore(self._concurrency)
        self._gate = self._sessions.gate(self.site, credentials)
        self._max_wait = retry.max_wait
        budget = RetryBudget(retry.budget)
        self._creator = creator = Creator(self._attempt, Lookup(self._look_at), retry, budget)
        self._create, self._ensure, self._resume = creator.create, creator.ensure, creator.resume
        retried = retrying(retry, budget)
        self._list = retried(self._list_once)
        self._delete = retried(self._delete_once)
        self._get = retried(self._get_once)
        # A look pays back no retry: where creates fail and lists do not, the budget would never be spent.
        self._look = retrying(retry, budget, is_credited=False)(self._list_once)
        watchers = [on_event] if on_event else []
        with contextlib.suppress(ModuleNotFoundError):  # OpenTelemetry is not installed
            from datadog_caselinks.telemetry import telemetry

            watchers.append(telemetry())
        self._observer: Observer | None = None
        if watchers:
            from datadog_caselinks.events import Observer

            self._observer = Observer(watchers)
            self._observe(self._observer)

    def _observe(self, observer: Observer) -> None:
        """Let each call pass by ``observer``. Without one, nothing stands in its way."""
        self._create = observer.watched(self._create, lambda new: ("create", new))
        self._resume = observer.watched(self._resume, lambda new: ("ensure", new))
        self._ensure = observer.watched(self._ensure, lambda new: ("ensure", new))
        self._list = observer.watched(self._list, lambda request: ("list", request.subject))
        self._get = observer.watched(self._get, lambda request: ("get", request.subject))
        self._delete = observer.watched(self._delete, lambda deletion: ("delete", deletion.request.subject))

    @classmethod
    def from_env(cls, site: Site | str | None = None, **options: Unpack[ClientOptions]) -> Self:
        """A client from the environment.

        Without ``site``, ``DD_SITE`` names it, or else it is US1 (``datadoghq.com``). The credentials are
        ``DD_API_KEY`` and ``DD_APP_KEY``, or ``DD_BEARER_TOKEN``. ``options`` are the keyword parameters of
        the class.

        Raises :class:`ConfigurationError` that names the variable which is missing or malformed.
        """
        if site is None:
            site = site_from_env()
        elif isinstance(site, str):
            site = Site.parse(site)  # before the credentials: whose they are depends on it
        return cls(site, credentials_from_env(), **options)

    async def create_link(self, new: NewCaseLink) -> CaseLink:
        """Create one link.

        An attempt that failed is repeated as the :class:`RetryPolicy` says. One that may have been carried
        out is first looked for among the links of ``new.parent``, so that a retry makes no second link.

        Raises :class:`AmbiguousResultError` if it may have been made and that could not be looked for, and
        :class:`ConflictError`, with the ``existing`` link, where the server refuses an equal second one.
        """
        link, _ = await self._create(new)
        return link

    async def ensure_link(self, new: NewCaseLink) -> tuple[CaseLink, bool]:
        """Create the link unless it is there already; for ``RELATES_TO``, either way round.

        Returns the link and whether it was created. Equal calls of one client take turns, so it is made once;
        an equal call of another process at the same moment may make a second one.

        Raises as :meth:`create_link` and :meth:`list_links`.
        """
        return await self._ensure(new)

    async def create_links(
        self,
        source: Iterable[WantedLink] | AsyncIterable[WantedLink],
        *,
        concurrency: int | None = None,
        ensure: bool = False,
        journal: str | os.PathLike[str] | None = None,
    ) -> AsyncGenerator[Outcome, None]:
        """Create each link of ``source``, and yield what became of it, in the order of completion.

        A case of which only the key is known (:func:`parse_link`) is looked up, once for the whole run.

        Yields :class:`Created`, :class:`AlreadyLinked` or :class:`Failed`, each with its link and its index
        in ``source``, and raises for no link. ``source`` may be endless: it is read no further ahead than
        twice ``concurrency``, by default the ``max_concurrency`` of the client. Breaking off cancels what is
        under way. A ``source`` that is a generator is closed at the end, however that comes.

        ``ensure``
            Look for each link first, as :meth:`ensure_link` does.
        ``journal``
            A file in which each link is kept with what became of it. After a run that ended early, however it
            ended, the same call goes on: what is done is not sent again, and what was under way is looked
            for. A link that stands twice in ``source`` is made once. Raises :class:`JournalError` if the file
            cannot be used, such as while another run has it.
        """
        if concurrency is not None and concurrency < 1:
            raise ConfigurationError(f"concurrency must be at least 1, not {concurrency!r}")
        from datadog_caselinks.bulk import (
            create_links as bulk,  # not before it is needed, as further ones below
        )

        make: CreateFunc = self._ensure if ensure else self._create
        async with contextlib.AsyncExitStack() as stack:
            if journal is not None:
                from datadog_caselinks.bulk.journal import Journal  # which SQLite comes with

                opened = await stack.enter_async_context(Journal(journal, site=self.site.api_url))
                make = opened.once(make, self._resume)
            made = self._resolving(make)
            if self._observer:
                made = stack.enter_context(self._observer.run(made))
            outcomes = bulk.create_links(made, source, concurrency=concurrency or self._concurrency)
            await stack.enter_async_context(contextlib.aclosing(outcomes))
            async for outcome in outcomes:
                yield outcome

    async def plan_links(
        self,
        wanted: Iterable[WantedLink] | AsyncIterable[WantedLink],
        *,
        prune: bool = False,
        progress: OnProgress | None = None,
    ) -> LinkPlan:
        """Compare the links that are ``wanted`` with those that are there. Changes nothing.

        Keys are looked up, each once. Equal links count once, for ``RELATES_TO`` either way round. The plan
        warns of contradictions: among the wanted links, and with those that were listed for it.

        ``prune``
            Plan to delete what is there between two entities that ``wanted`` names, and is not wanted; also
            what is there more than once, but for the one with the least id. What leads to an entity that
            ``wanted`` does not name stays, and so does a relationship that this version does not know.
        ``progress``
            Is called for each answer with how many there are, and how many are waited for by then.

        Raises :class:`NotFoundError` that names the keys of which there is no case, and as
        :meth:`list_links`.
        """
        from datadog_caselinks.concurrency import Progress
        from datadog_caselinks.graph.plan import plan_links

        return await plan_links(
            wanted,
            list_links=self.list_links,
            resolver=self.resolver(),
            prune=prune,
            concurrency=self._concurrency,
            progress=Progress(progress),
        )

    def apply_plan(self, plan: LinkPlan) -> AsyncGenerator[PlanOutcome, None]:
        """Do what ``plan`` says, and yield what became of each link, in the order of completion.

        Yields :class:`Created`, :class:`AlreadyLinked` or :class:`Failed` for each link to create, then
        :class:`Deleted` or :class:`NotDeleted` for each to delete, and raises for none. Applying it twice
        changes nothing: links are made as by :meth:`ensure_link`, and what is gone counts as deleted.

        All creates come before the first delete, and where one failed nothing is deleted: of links that
        replace others, first the new ones must be there. Breaking off cancels what is under way.
        """
        from datadog_caselinks.graph.plan import apply_plan

        return apply_plan(
            plan,
            ensure=self._resolving(self._ensure),
            delete=self.delete_link,
            concurrency=self._concurrency,
        )

    async def list_links(self, entity: Entity, *, relationship: Relationship | None = None) -> list[CaseLink]:
        """List the links in which ``entity`` stands on either side, all or those of one ``relationship``."""
        return await self._list(wire.list_request(entity, relationship))

    async def read_graph(
        self,
        entity: Reference | str,
        *,
        depth: int = 2,
        max_nodes: int = 500,
        progress: OnProgress | None = None,
    ) -> LinkGraph:
        """Read the links around ``entity``, as far as ``depth`` links away from it, and what they link.

        A depth of 1 is its own links. ``entity`` may be a text, as :func:`parse_reference` reads it. Of cases
        the titles are read too, so that each takes two requests. A graph of more than ``max_nodes`` entities
        ends there, and says so. What these credentials may not see is in it, without its own links.

        ``progress`` is called for each answer with how many there are, and how many are waited for by then.

        Raises as :meth:`list_links` and :meth:`get_case`.
        """
        if depth < 0:
            raise ParameterError(f"depth must be at least 0, not {depth!r}")
        if max_nodes < 1:
            raise ParameterError(f"max_nodes must be at least 1, not {max_nodes!r}")
        from datadog_caselinks.concurrency import Progress
        from datadog_caselinks.graph.reading import read_graph as read_graph_around

        resolver = self.resolver()
        return await read_graph_around(
            await resolver.entity(entity),
            self.list_links,
            resolver.case,
            depth=depth,
            max_nodes=max_nodes,
            concurrency=self._concurrency,
            progress=Progress(progress),
            site=self.site,
        )

    async def delete_link(self, link: CaseLink | str) -> None:
        """Delete a link, given as the :class:`CaseLink` or its id.

        Raises :class:`NotFoundError` if there is none, but not when an attempt of this same call may have
        deleted it. Repeating a delete that failed is safe.
        """
        link_id = link.id if isinstance(link, CaseLink) else link
        await self._delete(_Deletion(wire.delete_request(link_id)))

    async def get_case(self, key_or_id: str | UUID) -> Case:
        """Get a case by its key, such as ``SHOP-1``, or by its UUID.

        Raises :class:`NotFoundError` if there is none that these credentials may see, and
        :class:`InvalidLinkError` for what is neither a key nor a UUID.
        """
        return await self._get(wire.case_request(key_or_id))

    def resolver(self) -> Resolver:
        """Make what finds entities by whatever people write, and remembers those that it found."""
        from datadog_caselinks.references import Resolver

        return Resolver(self.get_case, self.site)

    @property
    def rate_limit(self) -> RateLimit | None:
        """What is left of the current rate-limit window for creating links, as far as the answers told.

        ``None`` before the first answer, once the window is over, and where the server tells of no limit.
        """
        return self._gate.rate_limit("create")

    async def close(self) -> None:
        """Close the client, and its connections unless they are shared.

        Calls that have not been sent, or wait to be repeated, fail when their turn comes. Requests under way
        fail too, unless the connections are shared. A second call of this does nothing.
        """
        self._is_closed = True
        if not self._is_shared:
            await self._sessions.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"CaseLinksClient({self.site!r})"

    async def _list_once(self, request: Request) -> list[CaseLink]:
        answer = await self._attempt(request)
        if len(answer.body) > _LONG_BODY:  # all else would stand still meanwhile
            return await asyncio.to_thread(wire.read_links, answer)
        return wire.read_links(answer)

    async def _get_once(self, request: Request) -> Case:
        return wire.read_case(await self._attempt(request))

    async def _look_at(self, entity: Entity) -> list[CaseLink]:
        return await self._look(wire.list_request(entity, None))

    async def _delete_once(self, deletion: _Deletion) -> None:
        try:
            answer = await self._attempt(deletion.request)
            deletion.may_be_done |= answer.resent
            wire.read_deleted(answer)
        except NotFoundError:
            if not deletion.may_be_done:
                raise
        except CaseLinksError as error:
            deletion.may_be_done |= may_have_been_applied(error)
            raise

    def _resolving(self, make: CreateFunc) -> Callable[[WantedLink], Awaitable[tuple[CaseLink, bool]]]:
        resolver = self.resolver()

        async def resolve_and_make(wanted: WantedLink) -> tuple[CaseLink, bool]:
            return await make(await resolver.link(wanted))

        return resolve_and_make

    def _require_open(self) -> None:
        if self._is_closed:
            raise SessionError("this client is closed: make a new one")
        self._transport.require_usable()

    async def _attempt(self, request: Request) -> Answer:
        # Before the queue, or a closed client would be noticed only at its head.
        self._require_open()
        async with self._slots:
            with await self._gate.turn(request.operation, max_wait=self._max_wait) as turn:
                if self._is_closed:  # meanwhile
                    raise SessionError("this client was closed: make a new one")
                sent(request.operation)
                answer = await self._transport.send(request)
                limit = answer.rate_limit()
                is_rejected = answer.status == 429
                # An error without the headers came from in front of what counts; a 401 meets all alike.
                if limit or is_rejected or answer.status < 300 or answer.status == 401:
                    hint = retry_after(answer.headers) if is_rejected else None
                    turn.answered(limit, is_rejected=is_rejected, retry_after=hint)
                return answer


class _Deletion:
    """One call of ``delete_link``. Once an attempt may have deleted the link, its absence is success."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.may_be_done = False
