"""The rules of pooled sessions: opened once, shared, bounded, and closed without leftovers."""

from __future__ import annotations

import asyncio
import gc
import ssl
import warnings

import aiohttp
import pytest

from datadog_caselinks import (
    AmbiguousResultError,
    ApiKeys,
    BearerToken,
    CaseLink,
    CaseLinksClient,
    NotFoundError,
    ParameterError,
    RetryPolicy,
    SessionError,
    SessionManager,
    Site,
    case,
)
from datadog_caselinks.http.sessions import user_agent
from tests.support.authority import Authority
from tests.support.clock import Clock
from tests.support.ids import some_id
from tests.support.leftovers import leaving_nothing
from tests.support.needs import needs_socket_factory, needs_upload_tracker
from tests.support.proxy import Proxy
from tests.support.server import Exchange, Server, Step
from tests.support.steps import Held, answers, created, drops, is_silent, listed
from tests.support.tcp import listening, sockets_to
from tests.support.waiting import MAX_SECONDS, settle

NEW = case(some_id(1)).blocks(case(some_id(2)))


class OopsError(Exception):
    pass


async def one_tls_request(
    context: ssl.SSLContext, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Complete a TLS handshake and read one request; later data is left unread."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_side=True)
    for step in (tls.do_handshake, tls.read):
        while True:
            try:
                step()
                break
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
                incoming.write(await reader.read(2**16))
        writer.write(outgoing.read())


@pytest.fixture(params=["http", pytest.param("https", marks=needs_socket_factory)])
async def tls(request: pytest.FixtureRequest, authority: Authority) -> ssl.SSLContext | None:
    return authority.server("localhost") if request.param == "https" else None


@pytest.fixture
def trust(tls: ssl.SSLContext | None, authority: Authority) -> ssl.SSLContext | None:
    return tls and authority.client()


class TestPool:
    async def test_clients_of_one_manager_share_connections(self, keys: ApiKeys) -> None:
        """Clients of two organisations on one site share one connection of the pool."""
        async with Server(listed) as server, SessionManager() as sessions:
            for credentials in (keys, BearerToken("token")):
                async with CaseLinksClient(server.url, credentials, sessions=sessions) as links:
                    await links.list_links(NEW.parent)
                    await links.list_links(NEW.parent)
        assert [seen.connection for seen in server.seen] == [0, 0, 0, 0]
        assert server.seen[0].headers["User-Agent"] == user_agent()

    async def test_a_session_for_each_site(self, keys: ApiKeys) -> None:
        """Each site has one session in a manager."""
        async with Server(listed) as one, Server(listed) as other, SessionManager() as sessions:
            sites = [CaseLinksClient(url, keys).site for url in (one.url, one.url, other.url)]
            first, again, second = (sessions.session(site) for site in sites)
            assert first is again
            assert first is not second

    async def test_nothing_is_opened_before_the_first_use(self, keys: ApiKeys) -> None:
        """A client that is never used opens no connection, and does not need to be closed."""
        async with leaving_nothing(), Server(listed) as server:
            CaseLinksClient(server.url, keys)
            await settle()
            assert server.connections == 0

    async def test_a_pool_of_our_own_has_no_bound(self) -> None:
        """The pool has no limit of its own: only the clients' slots bound the number of connections."""
        assert SessionManager().max_connections is None

    def test_a_client_is_created_before_the_loop_runs(self, keys: ApiKeys) -> None:
        """A client can be created before the event loop runs, and belongs to the loop of its first use."""
        with asyncio.Runner() as runner:
            server = runner.run(Server(listed).__aenter__())
            links = CaseLinksClient(server.url, keys)
            assert runner.run(links.list_links(NEW.parent)) == []
            runner.run(links.close())
            runner.run(server.__aexit__())

    def test_another_loop_is_refused(self, keys: ApiKeys) -> None:
        """Use in a second loop raises an error with the solution, and use in the first loop still works."""
        manager = SessionManager()

        async def use(url: str) -> None:
            await CaseLinksClient(url, keys, sessions=manager).list_links(NEW.parent)

        with asyncio.Runner() as runner:
            server = runner.run(Server(listed).__aenter__())
            runner.run(use(server.url))
            with pytest.raises(SessionError, match=r"create one inside each asyncio\.run"):
                asyncio.run(use(server.url))
            runner.run(use(server.url))
            assert [seen.connection for seen in server.seen] == [0, 0]
            runner.run(manager.close())
            runner.run(server.__aexit__())

    async def test_an_unsolicited_response_ends_its_connection(self, keys: ApiKeys) -> None:
        """An unsolicited response is not read as the response to the next request."""

        held: list[Exchange] = []

        async def keep(exchange: Exchange) -> None:
            held.append(exchange)
            await listed(exchange)

        async with Server(keep, listed) as server, CaseLinksClient(server.url, keys) as client:
            assert await client.list_links(NEW.parent) == []
            await held[0].answer(200, b'{"data": "unsolicited"}')
            await settle()
            assert await client.list_links(NEW.parent) == []
        assert [seen.connection for seen in server.seen] == [0, 1]


class TestClose:
    async def test_closing_leaves_nothing(
        self, keys: ApiKeys, tls: ssl.SSLContext | None, trust: ssl.SSLContext | None
    ) -> None:
        """A closed client leaves no socket, task or warning, also with TLS."""
        async with leaving_nothing(), Server(listed, tls=tls, host="localhost") as server:
            async with CaseLinksClient(server.url, keys, ssl=trust) as links:
                await asyncio.gather(*(links.list_links(NEW.parent) for _ in range(5)))
                assert sockets_to(server.port) > 0
            assert sockets_to(server.port) == 0

    async def test_a_body_that_raises_leaves_nothing(
        self,
        keys: ApiKeys,
        at_once: RetryPolicy,
        tls: ssl.SSLContext | None,
        trust: ssl.SSLContext | None,
    ) -> None:
        """An error in the body of ``async with`` is raised unchanged, and requests in flight are closed."""
        async with leaving_nothing(), Server(listed, Held(), tls=tls, host="localhost") as server:
            tasks = []

            async def use() -> None:
                async with CaseLinksClient(server.url, keys, retry=at_once, ssl=trust) as links:
                    await links.list_links(NEW.parent)
                    tasks.append(asyncio.create_task(links.create_link(NEW)))
                    await server.until_seen(2)
                    raise OopsError

            with pytest.raises(OopsError):
                await use()
            assert sockets_to(server.port) == 0
            with pytest.raises(AmbiguousResultError):
                await tasks.pop()

    async def test_a_cancelled_body_leaves_nothing(
        self, keys: ApiKeys, tls: ssl.SSLContext | None, trust: ssl.SSLContext | None
    ) -> None:
        """A cancelled ``async with`` block closes its request in flight."""
        async with leaving_nothing(), Server(Held(), tls=tls, host="localhost") as server:

            async def use() -> None:
                async with CaseLinksClient(server.url, keys, ssl=trust) as links:
                    await links.create_link(NEW)

            task = asyncio.create_task(use())
            await server.until_seen(1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            del task
            assert sockets_to(server.port) == 0

    @needs_socket_factory
    async def test_a_server_that_hangs_leaves_nothing(self, keys: ApiKeys, authority: Authority) -> None:
        """A TLS server that no longer takes part in the shutdown keeps no socket open."""
        asked = asyncio.Event()

        async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await one_tls_request(authority.server("localhost"), reader, writer)
            asked.set()
            await asyncio.Event().wait()

        async with leaving_nothing(), listening(hang) as port:
            async with CaseLinksClient(f"https://localhost:{port}", keys, ssl=authority.client()) as links:
                task = asyncio.create_task(links.create_link(NEW))
                await asked.wait()
                task.cancel()
                await asyncio.wait([task])
            assert sockets_to(port) == 0
            del task

    @needs_upload_tracker
    @pytest.mark.parametrize("attempts", [1, 3])
    async def test_closing_while_connecting(self, keys: ApiKeys, attempts: int) -> None:
        """A call that is still connecting when its client is closed sends nothing and raises an error."""
        async with leaving_nothing(), Server(created) as server:
            links = CaseLinksClient(server.url, keys, retry=RetryPolicy(max_attempts=attempts, base=0))
            task = asyncio.create_task(links.create_link(NEW))
            await asyncio.sleep(0)
            await links.close()
            with pytest.raises(SessionError):
                await task
            del task
            assert sockets_to(server.port) == 0
        assert server.seen == []

    @pytest.mark.parametrize("rounds", range(6))
    async def test_a_cancelled_close_closes_all_the_same(self, keys: ApiKeys, rounds: int) -> None:
        """A close that is cancelled at any moment closes the sessions of all sites."""
        async with (
            leaving_nothing(),
            Server(listed) as first,
            Server(listed) as second,
            Server(listed) as third,
        ):
            sessions = SessionManager()
            for server in (first, second, third):
                await CaseLinksClient(server.url, keys, sessions=sessions).list_links(NEW.parent)
            closing = asyncio.create_task(sessions.close())
            for _ in range(rounds):
                await asyncio.sleep(0)
            closing.cancel()
            await asyncio.wait([closing])
            if rounds:  # cancelled before its first step a coroutine does nothing at all
                assert [sockets_to(server.port) for server in (first, second, third)] == [0, 0, 0]
            await sessions.close()
            del closing

    async def test_a_client_of_shared_sessions_closes_too(self, keys: ApiKeys) -> None:
        """A closed client of shared sessions cannot be used, and leaves the sessions open for others."""
        async with Server(listed) as server, SessionManager() as sessions:
            links = CaseLinksClient(server.url, keys, sessions=sessions)
            await links.close()
            with pytest.raises(SessionError, match="closed"):
                await links.list_links(NEW.parent)
            assert await CaseLinksClient(server.url, keys, sessions=sessions).list_links(NEW.parent) == []

    async def test_calls_in_the_queue_end_too(self, keys: ApiKeys, at_once: RetryPolicy) -> None:
        """A call that waits for a slot when the client is closed is not sent."""
        async with Server(Held()) as server:
            links = CaseLinksClient(server.url, keys, max_concurrency=1, retry=at_once)
            tasks = [asyncio.create_task(links.create_link(NEW)) for _ in range(3)]
            await server.until_seen(1)
            await links.close()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [AmbiguousResultError, SessionError, SessionError]
        assert len(server.seen) == 1

    async def test_calls_at_the_gate_end_too(self, keys: ApiKeys, clock: Clock) -> None:
        """A call that waits for the rate limit when the client is closed is not sent."""
        async with Server(answers(429, Retry_After="60"), created) as server:
            links = CaseLinksClient(server.url, keys)
            tasks = [asyncio.create_task(links.create_link(NEW)) for _ in range(3)]
            await server.until_seen(1)
            await settle()
            await links.close()
            clock.advance(60)
            results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [SessionError] * 3
        assert len(server.seen) == 1

    async def test_a_token_that_comes_after_closing(self, at_once: RetryPolicy) -> None:
        """A call that is fetching its token when the client is closed raises ``SessionError``."""
        fetching, go = asyncio.Event(), asyncio.Event()

        async def fetch() -> str:
            fetching.set()
            await go.wait()
            return "token"

        async with Server(created) as server:
            links = CaseLinksClient(server.url, BearerToken(fetch), retry=at_once, max_concurrency=1)
            task = asyncio.create_task(links.create_link(NEW))
            await fetching.wait()
            await links.close()
            with pytest.raises(SessionError):
                await links.create_link(NEW)  # at once, although the first call has the only slot
            go.set()
            with pytest.raises(SessionError):
                await task
        assert server.connections == 0

    async def test_closing_twice(self, keys: ApiKeys) -> None:
        """A second close, or the close of an unused client, does nothing."""
        unused = CaseLinksClient("datadoghq.eu", keys)
        async with Server(listed) as server, CaseLinksClient(server.url, keys) as links:
            await links.list_links(NEW.parent)
            await asyncio.gather(links.close(), links.close())
        for client in (links, unused, unused):
            await client.close()

    async def test_after_closing(self, keys: ApiKeys) -> None:
        """A closed client and a client of a closed manager raise ``SessionError`` and send nothing."""
        async with Server(listed) as server:
            links = CaseLinksClient(server.url, keys)
            await links.close()
            async with SessionManager() as sessions:
                shared = CaseLinksClient(server.url, keys, sessions=sessions)
            for client in (links, shared):
                with pytest.raises(SessionError, match=r"is closed: (create|make) a new one"):
                    await client.list_links(NEW.parent)
        assert server.connections == 0

    async def test_a_shared_manager_outlives_its_clients(self, keys: ApiKeys) -> None:
        """Closing a client leaves the manager open, and closing the manager closes the connections."""
        async with leaving_nothing(), Server(listed) as server, SessionManager() as sessions:
            async with CaseLinksClient(server.url, keys, sessions=sessions) as links:
                await links.list_links(NEW.parent)
            async with CaseLinksClient(server.url, keys, sessions=sessions) as links:
                await links.list_links(NEW.parent)
            assert sockets_to(server.port) == 1
            await sessions.close()
            assert sockets_to(server.port) == 0


@pytest.mark.slow
class TestSeveralSites:
    @pytest.mark.parametrize(
        "trouble",
        [
            is_silent,
            drops,
            answers(503),
            answers(429, Retry_After="60"),
            answers(500, X_RateLimit_Limit="1", X_RateLimit_Remaining="0", X_RateLimit_Reset="60"),
        ],
        ids=["silent", "hanging up", "failing", "limited", "used up"],
    )
    async def test_trouble_at_one_delays_no_other(self, keys: ApiKeys, trouble: Step) -> None:
        """Calls that exceed one site's concurrency do not delay the calls to another site."""
        policy = RetryPolicy(base=60, cap=60, settle=60)
        async with Server(trouble) as bad, Server(created) as good, SessionManager() as sessions:
            stuck, fine = (
                CaseLinksClient(server.url, keys, sessions=sessions, retry=policy) for server in (bad, good)
            )
            waiting = [asyncio.create_task(stuck.create_link(NEW)) for _ in range(120)]
            await bad.until_seen(1)
            await asyncio.gather(*(fine.create_link(NEW) for _ in range(120)))
            assert len(good.seen) == 120
            assert not any(task.done() for task in waiting)
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def test_a_dead_one_delays_no_other(self, keys: ApiKeys) -> None:
        """Calls to a server that is down wait for a retry, and do not delay the calls to another site."""
        policy = RetryPolicy(max_attempts=2, base=1e6, cap=1e6)
        async with Server(created) as gone:
            pass
        async with Server(created) as good, SessionManager() as sessions:
            dead, fine = (
                CaseLinksClient(server.url, keys, sessions=sessions, retry=policy) for server in (gone, good)
            )
            waiting = [asyncio.create_task(dead.create_link(NEW)) for _ in range(300)]
            async with asyncio.timeout(MAX_SECONDS):
                await asyncio.gather(*(fine.create_link(NEW) for _ in range(300)))
            assert len(good.seen) == 300
            assert not all(task.done() for task in waiting)
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)


class TestGate:
    async def test_one_for_each_site_and_credentials(self, keys: ApiKeys) -> None:
        """Clients with the same site and credentials share a gate, and no others do."""
        sessions, again = SessionManager(), ApiKeys(api_key="the-api-key", app_key="the-app-key")
        gate = sessions.gate(Site.EU1, keys)
        assert sessions.gate(Site.parse("EU1"), again) is gate
        others = [
            sessions.gate(Site.US1, keys),
            sessions.gate(Site.EU1, BearerToken("token")),
            SessionManager().gate(Site.EU1, keys),
        ]
        assert len({id(other) for other in (gate, *others)}) == 4

    async def test_a_429_of_one_client_holds_the_others(self, keys: ApiKeys, clock: Clock) -> None:
        """A 429 holds back all clients with the same credentials, and no others."""
        async with (
            Server(answers(429, Retry_After="60"), listed) as server,
            SessionManager() as sessions,
        ):
            one, same = (CaseLinksClient(server.url, keys, sessions=sessions) for _ in range(2))
            other = CaseLinksClient(server.url, BearerToken("token"), sessions=sessions)
            first = asyncio.create_task(one.list_links(NEW.parent))
            await server.until_seen(1)
            await settle()
            second = asyncio.create_task(same.list_links(NEW.parent))
            await other.list_links(NEW.parent)
            clock.advance(59)
            await settle()
            assert ["Authorization" in seen.headers for seen in server.seen] == [False, True]
            clock.advance(1)
            await asyncio.gather(first, second)
        assert len(server.seen) == 4

    async def test_the_window_of_one_client_is_that_of_the_others(self, keys: ApiKeys) -> None:
        """Clients with the same credentials share what one of them has learned about the rate limit."""
        step = answers(200, b'{"data": []}', X_RateLimit_Limit="9", X_RateLimit_Remaining="5")
        async with Server(step) as server, SessionManager() as sessions:
            one, same = (CaseLinksClient(server.url, keys, sessions=sessions) for _ in range(2))
            other = CaseLinksClient(server.url, BearerToken("token"), sessions=sessions)
            await one.list_links(NEW.parent)
            assert same.rate_limit
            assert same.rate_limit.remaining == 5
            assert other.rate_limit is None


class TestBorrowedSession:
    async def test_it_is_used_and_left_open(self, keys: ApiKeys) -> None:
        """A session of the caller is used with any defaults, and neither client nor manager closes it."""
        async with (
            Server(listed, listed, answers(404), listed) as server,
            aiohttp.ClientSession(headers={"X-Bot": "mine"}, raise_for_status=True) as session,
        ):
            async with CaseLinksClient(server.url, keys, sessions=session) as links:
                await links.list_links(NEW.parent)
            async with SessionManager(session) as manager:
                await CaseLinksClient(server.url, keys, sessions=manager).list_links(NEW.parent)
                with pytest.raises(NotFoundError):
                    await CaseLinksClient(server.url, keys, sessions=manager).list_links(NEW.parent)
            assert not session.closed
            async with session.get(server.url) as response:
                await response.read()
        assert [(seen.connection, seen.headers["X-Bot"]) for seen in server.seen] == [(0, "mine")] * 4

    async def test_its_proxy_and_its_trust_hold(self, keys: ApiKeys, authority: Authority) -> None:
        """The proxy and the trust of the caller's session also apply to the client."""
        async with (
            Server(listed, tls=authority.server("localhost"), host="localhost") as server,
            Proxy("user:password").running() as proxy,
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=authority.client()), proxy=proxy.url
            ) as session,
        ):
            await CaseLinksClient(server.url, keys, sessions=session).list_links(NEW.parent)
        assert len(proxy.requests) == 1

    @pytest.mark.parametrize(("limit", "limit_per_host"), [(10, 0), (0, 10), (100, 10), (10, 100)])
    async def test_its_limit_bounds_the_slots(
        self, limit: int, limit_per_host: int, keys: ApiKeys, clock: Clock
    ) -> None:
        """Requests beyond the connector's limit wait for a slot, where no timeout runs."""
        hold = Held(listed)
        async with (
            Server(listed, hold) as server,
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=limit, limit_per_host=limit_per_host)
            ) as session,
        ):
            once = RetryPolicy(max_attempts=1)
            links = CaseLinksClient(server.url, keys, sessions=session, timeout=30, retry=once)
            await links.list_links(NEW.parent)
            tasks = [asyncio.create_task(links.list_links(NEW.parent)) for _ in range(30)]
            for count in (10, 20, 30):
                await server.until_seen(1 + count)
                await settle()
                assert (len(server.seen), server.busy) == (1 + count, 10)
                clock.advance(20)
                hold.release(10)
            await asyncio.gather(*tasks)

    @pytest.mark.parametrize("limit", [0, 200])
    async def test_a_wide_limit_changes_nothing(self, limit: int, keys: ApiKeys) -> None:
        """A connector's limit above ``max_concurrency`` does not change the number of slots."""
        hold = Held(listed)
        async with (
            Server(listed, hold) as server,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=limit)) as session,
        ):
            links = CaseLinksClient(server.url, keys, sessions=session, max_concurrency=3)
            await links.list_links(NEW.parent)
            tasks = [asyncio.create_task(links.list_links(NEW.parent)) for _ in range(6)]
            await server.until_seen(4)
            await settle()
            assert server.busy == 3
            hold.release(6)
            await asyncio.gather(*tasks)
        assert server.most_busy == 3

    async def test_its_owner_closed_it(self, keys: ApiKeys) -> None:
        """A session that its owner closed raises ``SessionError``, also for a client created afterwards."""
        async with Server(listed) as server:
            session = aiohttp.ClientSession()
            links = CaseLinksClient(server.url, keys, sessions=session)
            await links.list_links(NEW.parent)
            await session.close()
            for client in (links, CaseLinksClient(server.url, keys, sessions=session)):
                with pytest.raises(SessionError, match=r"ClientSession is closed: create a new one"):
                    await client.list_links(NEW.parent)
        assert len(server.seen) == 1

    @pytest.mark.parametrize("name", ["Authorization", "authorization", "DD-API-KEY", "dd-application-key"])
    async def test_one_with_credentials_of_its_own_is_refused(self, name: str) -> None:
        """A session with headers for credentials is refused, and the message does not quote them."""
        async with aiohttp.ClientSession(headers={name: "secret"}) as session:
            for make in (SessionManager, lambda it: CaseLinksClient("EU1", BearerToken("t"), sessions=it)):
                with pytest.raises(ParameterError) as caught:
                    make(session)
                assert "secret" not in str(caught.value)

    async def test_one_that_trusts_the_environment_is_refused(self) -> None:
        """A session with ``trust_env`` is refused, since a netrc file may add a login for the host."""
        async with aiohttp.ClientSession(trust_env=True) as session:
            with pytest.raises(ParameterError, match="netrc"):
                SessionManager(session)

    async def test_one_with_a_login_is_refused(self) -> None:
        """A session with ``auth=`` is refused, since ``auth=`` sets the header Authorization."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            session = aiohttp.ClientSession(auth=aiohttp.BasicAuth("user", "secret"))
        async with session:
            with pytest.raises(ParameterError, match="Authorization"):
                SessionManager(session)


def test_a_gate_lasts_as_long_as_its_clients() -> None:
    """A manager that outlives its clients keeps neither their tokens nor their rate limits."""
    sessions = SessionManager()
    for number in range(10):
        CaseLinksClient("EU1", BearerToken(f"token-{number}"), sessions=sessions)
    gc.collect()
    assert len(sessions._gates) == 0


async def test_a_closed_client_sends_nothing_more(keys: ApiKeys) -> None:
    """Calls in the queue of a closed client fail, also if its connections are shared and stay open."""
    hold = Held()
    async with Server(created, hold) as server, SessionManager() as sessions:
        links = CaseLinksClient(server.url, keys, sessions=sessions, max_concurrency=2)
        await links.create_link(NEW)
        calls = [asyncio.create_task(links.create_link(NEW)) for _ in range(10)]
        await server.until_seen(3)
        await links.close()
        hold.release(2)
        reported = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in reported] == [CaseLink] * 2 + [SessionError] * 8
    assert len(server.seen) == 3
