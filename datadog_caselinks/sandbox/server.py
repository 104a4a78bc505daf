"""The sandbox: starts and stops the server, and gives access to its links, cases and requests."""

from __future__ import annotations

import asyncio
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import AsyncExitStack, closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeVar

from attrs import frozen

from datadog_caselinks.sandbox import demo
from datadog_caselinks.sandbox.api import (
    ACCESS_TOKEN,
    BEARER_TOKEN,
    CREDENTIALS,
    CREDENTIALS_WITHOUT_INCIDENTS,
    CREDENTIALS_WITHOUT_SCOPE,
    Operation,
)
from datadog_caselinks.sandbox.exchange import Exchange
from datadog_caselinks.sandbox.faults import Fault, FaultPlan, FaultRule, read_rules
from datadog_caselinks.sandbox.limits import Limiter, RateLimitRule
from datadog_caselinks.sandbox.listener import Listener
from datadog_caselinks.sandbox.page import DrawGraph, Page
from datadog_caselinks.sandbox.record import Record, RecordedRequest
from datadog_caselinks.sandbox.statuses import usual_group, usual_name
from datadog_caselinks.sandbox.store import (
    CasePriority,
    CaseStatus,
    CaseStatusGroup,
    IncidentState,
    Store,
    StoredCase,
    StoredIncident,
    StoredLink,
)
from datadog_caselinks.sandbox.thread import loop_in_thread, result_of
from datadog_caselinks.sandbox.variant import (
    Buckets,
    Duplicates,
    ErrorFormat,
    IncidentSearch,
    MalformedIds,
    UnknownCases,
    Variant,
)
from datadog_caselinks.values.credentials import ApiKeys, BearerToken
from datadog_caselinks.values.errors import ParameterError
from datadog_caselinks.values.messages import quoted
from datadog_caselinks.values.parameters import require, require_function, require_path, require_whole_number
from datadog_caselinks.values.sites import Site

T = TypeVar("T")


@frozen
class _Running:
    url: str
    store: Store
    resources: AsyncExitStack
    loop: asyncio.AbstractEventLoop
    thread: int


class Sandbox:
    """A local HTTP server that simulates Datadog's API for case links.

    ::

        async with Sandbox(rate_limit="200/2s", faults=["lost-response:5%"], fault_seed=1) as sandbox:
            client = CaseLinksClient(sandbox.site, sandbox.credentials)

    For sync code use :meth:`in_thread`. All properties and methods may be used from any thread, except
    :meth:`start` and :meth:`stop`.

    Where the API documentation leaves the behaviour open, the parameters from ``duplicates`` to
    ``incident_search`` select it.

    Args:
        port: The port. 0 chooses a free one.
        db: The path of an SQLite file that survives restarts. By default, the data is in memory.
        rate_limit: A rule, or a text that :meth:`RateLimitRule.parse` accepts. ``None`` means no limit and no
            rate-limit headers.
        faults: Rules, or texts that :meth:`FaultRule.parse` accepts.
        seed: ``"demo"`` fills a sandbox without cases with the cases and links of an outage.
        fault_seed: The seed of the random ``faults``. The same seed selects the same requests.
        duplicates: The response to a create if a link with the same five attributes exists: a second link
            (``allow``), 409 (``conflict``) or 400 (``bad-request``). ``RELATES_TO`` in the other direction
            is a different link.
        list_lag: Seconds until lists contain a new link.
        buckets: Whether the rate limit counts all operations together (``shared``) or each separately
            (``separate``).
        error_format: ``strings``, ``objects``, ``generic``, which is objects without a status or code, or
            ``mixed`` as recorded: objects for 400 and for an unknown link or case, strings for all other
            errors. A 409 was never recorded; it has the format of a 400.
        unknown_cases: The response to a create or list that names a case that was not added: as for any other
            case (``allow``), or 404 (``not-found``).
        malformed_ids: The response to an id that is not a UUID (for a case also not a key): 400
            (``bad-request``) or 404 (``not-found``).
        incident_search: The query that finds an incident by its number: ``slug:IR-1`` (``slug``),
            ``public_id:1`` (``public-id``) or its text (``text``). With ``all``, every search returns all
            incidents.
        clock: A function that returns the time in seconds since the epoch.
        draw_graph: A function that draws the links around an entity as an HTML page. The page of the
            sandbox links to it. The function gets the store, and the type and the id of the entity.
            ``caselinks sandbox`` passes one.

    Raises:
        ParameterError: A rule is malformed, or a value is unknown.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        db: str | Path = ":memory:",
        rate_limit: RateLimitRule | str | None = None,
        faults: Iterable[FaultRule | str] = (),
        seed: Literal["demo"] | None = None,
        fault_seed: int | None = None,
        duplicates: Duplicates = "allow",
        list_lag: float = 0.0,
        buckets: Buckets = "shared",
        error_format: ErrorFormat = "mixed",
        unknown_cases: UnknownCases = "allow",
        malformed_ids: MalformedIds = "bad-request",
        incident_search: IncidentSearch = "slug",
        clock: Callable[[], float] = time.time,
        draw_graph: DrawGraph | None = None,
    ) -> None:
        require_whole_number("port", port, at_least=0)
        require_path("db", db)
        require_function("clock", clock)
        require("fault_seed", fault_seed, (int, str, type(None)), "a whole number")
        self._port = port
        self._db = db
        self._clock = clock
        self._draw_graph = draw_graph
        self._variant = Variant(
            duplicates=duplicates,
            list_lag=list_lag,
            buckets=buckets,
            error_format=error_format,
            unknown_cases=unknown_cases,
            malformed_ids=malformed_ids,
            incident_search=incident_search,
        )
        self._limiter = Limiter(_read_rule(rate_limit), buckets)
        self._plan = FaultPlan(read_rules(faults), random.Random(fault_seed))
        if seed not in (None, "demo"):
            raise ParameterError(
                f'seed must be "demo", not {quoted(seed)}; the seed of random faults is fault_seed'
            )
        self._seed = seed
        self._record = Record()
        self._running: _Running | None = None

    async def start(self) -> None:
        """Open the database and listen.

        Raises:
            ParameterError: The database cannot be used or the port is taken.
            RuntimeError: The sandbox is already running.
        """
        if self._running:
            raise RuntimeError("the sandbox is already running")
        async with AsyncExitStack() as resources:
            store = resources.enter_context(closing(Store(self._db)))
            if self._seed and not store.has_cases():
                self._fill(store)
            loop = asyncio.get_running_loop()
            stopping = loop.create_future()
            exchange = Exchange(
                store, self._variant, self._limiter, self._plan, self._record, self._clock, stopping
            )
            page = Page(store, self._limiter, self._record, self._clock, self._draw_graph)
            listener = Listener(exchange, page)
            resources.push_async_callback(listener.close)
            url = await listener.listen(self._port)
            self._running = _Running(url, store, resources.pop_all(), loop, threading.get_ident())

    def _fill(self, store: Store) -> None:
        for case in demo.cases():
            store.add_case(case)
        for incident in demo.incidents():
            store.add_incident(incident)
        for draft in demo.links():
            store.add(draft, self._clock())

    async def stop(self) -> None:
        """Close every connection and the database. Has no effect if the sandbox is not running.

        Responses that a fault delays are sent immediately.
        """
        running, self._running = self._running, None
        if running:
            await running.resources.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    @contextmanager
    def in_thread(self) -> Iterator[Self]:
        """Run the sandbox in a thread of its own, for sync code and for tests with any event loop.

        ::

            with Sandbox(seed="demo").in_thread() as sandbox:
                urllib.request.urlopen(sandbox.url)

        Raises the same errors as :meth:`start`.
        """
        with loop_in_thread("caselinks sandbox") as loop:
            result_of(self.start(), loop)
            try:
                yield self
            finally:
                result_of(self.stop(), loop)

    @property
    def url(self) -> str:
        """The base URL, such as ``http://127.0.0.1:8126``; open it in a browser to see the page."""
        return self._require_running().url

    @property
    def site(self) -> Site:
        """The site for a client."""
        return Site("sandbox", self.url)

    @property
    def credentials(self) -> ApiKeys:
        """Keys that may read and write."""
        return CREDENTIALS

    @property
    def credentials_without_scope(self) -> ApiKeys:
        """Keys that may only read; a create or delete is refused with 403."""
        return CREDENTIALS_WITHOUT_SCOPE

    @property
    def credentials_without_incidents(self) -> ApiKeys:
        """Keys without the permission ``incident_read``; a request about an incident is refused with 403."""
        return CREDENTIALS_WITHOUT_INCIDENTS

    @property
    def bearer_token(self) -> BearerToken:
        """A token that may read and write."""
        return BEARER_TOKEN

    @property
    def access_token(self) -> BearerToken:
        """A personal access token that may read and write, also in place of the application key."""
        return ACCESS_TOKEN

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that point :meth:`CaseLinksClient.from_env` and the command here."""
        return {
            "DD_SITE": self.url,
            "DD_API_KEY": self.credentials.api_key,
            "DD_APP_KEY": self.credentials.app_key,
        }

    @property
    def links(self) -> list[StoredLink]:
        """The stored links, oldest first."""
        return self._run_in_loop(lambda: self._require_running().store.all())

    def add_case(
        self,
        key: str,
        title: str = "",
        *,
        status: CaseStatus = "OPEN",
        priority: CasePriority = "NOT_DEFINED",
        id: str | None = None,
        status_name: str | None = None,
        status_group: CaseStatusGroup | Literal[""] | None = None,
    ) -> StoredCase:
        """Add a case with the key ``key``, such as ``SHOP-1``; ``id`` is its UUID, by default a new one.

        With the ``id`` of a case that exists, the case is replaced: so it gets another key, as a case does
        that moves to another project. The old key is unknown then.

        ``status_name`` is the status in the organisation's own words, and ``status_group`` its group. By
        default they follow from ``status``; an empty text leaves them out of responses.

        Links may be created between any entities; their cases do not have to be added first.

        Raises:
            ParameterError: Another case has the key.
        """
        require("key", key, str, "a text such as SHOP-1")
        case = StoredCase(
            (id or str(uuid.uuid4())).lower(),
            *(key, title or key, status, priority),
            usual_name(status) if status_name is None else status_name,
            usual_group(status) if status_group is None else status_group,
        )
        self._run_in_loop(lambda: self._require_running().store.add_case(case))
        return case

    def add_incident(
        self, number: int, title: str = "", *, state: IncidentState = "active", id: str | None = None
    ) -> StoredIncident:
        """Add an incident with the number ``number``; ``id`` is its UUID, by default a new one.

        Its key is ``IR-`` and the number, and its title by default the key.

        Raises:
            ParameterError: Another incident has the number, or it is not a whole number above zero.
        """
        require_whole_number("number", number, at_least=1)
        incident = StoredIncident((id or str(uuid.uuid4())).lower(), number, title or f"IR-{number}", state)
        self._run_in_loop(lambda: self._require_running().store.add_incident(incident))
        return incident

    @property
    def requests(self) -> list[RecordedRequest]:
        """The latest 10,000 requests to the API, oldest first. They remain after a stop."""
        return self._run_in_loop(lambda: list(self._record.requests))

    @property
    def rejected(self) -> int:
        """The number of responses with status 429, from the rate limit or from a fault."""
        return self._record.statuses[429]

    @property
    def rate_limit(self) -> RateLimitRule | None:
        """The current rule. May be set at any time, to a rule, its text or ``None``."""
        return self._limiter.rule

    @rate_limit.setter
    def rate_limit(self, rule: RateLimitRule | str | None) -> None:
        read = _read_rule(rule)
        self._run_in_loop(lambda: setattr(self._limiter, "rule", read))

    def fail_next(
        self,
        fault: Fault | str,
        *,
        count: int = 1,
        operation: Operation | None = None,
        seconds: float | None = None,
    ) -> None:
        """Make the next ``count`` requests fail with ``fault``, after the faults that are already queued.

        ``operation`` limits the fault to ``create``, ``list``, ``delete``, ``get``, ``search_cases``,
        ``get_incident`` or ``search_incidents``; ``seconds`` is the duration of faults that have one, by
        default one second. A request with wrong credentials or above the rate limit is refused as usual and
        leaves the fault in the queue.

        Raises:
            ParameterError: The combination is invalid, or ``count`` is below one.
        """
        rule = FaultRule(fault, seconds=seconds, operation=operation)
        self._run_in_loop(lambda: self._plan.queue(rule, count))

    def _run_in_loop(self, act: Callable[[], T]) -> T:
        # Access from another thread runs in the sandbox's own event loop, so no locks are needed.
        running = self._running
        if running is None or running.thread == threading.get_ident():
            return act()

        async def run() -> T:
            return act()

        return result_of(run(), running.loop)

    def _require_running(self) -> _Running:
        if self._running is None:
            raise RuntimeError('the sandbox is not running; use "async with Sandbox() as sandbox:"')
        return self._running


def _read_rule(rule: RateLimitRule | str | None) -> RateLimitRule | None:
    return rule if rule is None or isinstance(rule, RateLimitRule) else RateLimitRule.parse(rule)
