"""The rules of one attempt: the request, the response, the class of each failure, and no key in any error."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import gzip
import json
import logging
import pickle
import ssl
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager as Scene

import aiohttp
import pytest
from attrs import field, frozen

from datadog_caselinks import (
    AmbiguousResultError,
    ApiKeys,
    AuthenticationError,
    BadRequestError,
    BearerToken,
    CaseLinksClient,
    CaseLinksError,
    ConfigurationError,
    ConflictError,
    ConnectError,
    Credentials,
    NotFoundError,
    ParameterError,
    PermissionDeniedError,
    ProxyAuthenticationError,
    RateLimitError,
    RequestTimeoutError,
    ResponseError,
    RetryPolicy,
    SessionManager,
    Site,
    TLSError,
    TransportError,
)
from datadog_caselinks.http import transport
from datadog_caselinks.http.sessions import user_agent
from datadog_caselinks.http.transport import Transport
from datadog_caselinks.http.wire import (
    MAX_BODY,
    MAX_LIST,
    MAX_SHORT,
    Request,
    case_request,
    create_request,
    delete_request,
    list_request,
)
from tests.support.api import LINKS_PATH, Api
from tests.support.authority import Authority, counting_handshakes
from tests.support.clock import Clock
from tests.support.ids import case, some_id
from tests.support.leaks import assert_nothing_of, texts_of, texts_of_record
from tests.support.needs import (
    needing_a_tracker,
    needs_middlewares,
    needs_upload_tracker,
)
from tests.support.proxy import Proxy
from tests.support.server import Exchange, Server, Step, head
from tests.support.steps import answers, created, deleted, drops, is_silent, listed, repeats, resets, sends
from tests.support.tcp import HOST, listening, unused_port
from tests.support.waiting import settle

NEW = case(some_id(1)).blocks(case(some_id(2)))
CREATE, LIST, DELETE = create_request(NEW), list_request(NEW.parent, None), delete_request("some-link")
GET = case_request("SHOP-1")

SECRETS = API_KEY, APP_KEY, TOKEN, PASSWORD = "the-api-key", "the-app-key", "the-token", "the-password"
LOGIN = f"somebody:{PASSWORD}"


@contextlib.asynccontextmanager
async def transport_to(
    url: str,
    credentials: Credentials | None = None,
    *,
    ssl: ssl.SSLContext | None = None,
    proxy: str | None = None,
    seconds: float = 30,
) -> AsyncIterator[Transport]:
    keys = credentials or ApiKeys(api_key=API_KEY, app_key=APP_KEY)
    async with SessionManager() as sessions:
        yield Transport(Site("test", url), keys, sessions, timeout=seconds, proxy=proxy, ssl=ssl)


class TestRequest:
    async def test_a_create_on_the_wire(self) -> None:
        """A create has the documented method, path, headers and body, with both keys."""
        async with Server(created) as server, transport_to(server.url) as transport:
            await transport.send(CREATE, await transport.authenticate())
        [seen] = server.seen
        assert (seen.method, seen.target) == ("POST", "/api/v2/cases/link")
        assert seen.json == {
            "data": {
                "type": "link",
                "attributes": {
                    "child_entity_id": some_id(2),
                    "child_entity_type": "CASE",
                    "parent_entity_id": some_id(1),
                    "parent_entity_type": "CASE",
                    "relationship": "BLOCKS",
                },
            }
        }
        expected = {
            "Accept": "application/json",
            "Content-Type": "application/json",
            "Content-Length": str(len(seen.body)),
            "User-Agent": user_agent(),
            "DD-API-KEY": API_KEY,
            "DD-APPLICATION-KEY": APP_KEY,
        }
        assert {name: seen.headers.getall(name) for name in expected} == {
            name: [value] for name, value in expected.items()
        }
        assert "Authorization" not in seen.headers
        assert "Cookie" not in seen.headers

    async def test_a_token_goes_alone(self) -> None:
        """A bearer token is sent as Authorization, without any keys."""
        async with Server(created) as server, transport_to(server.url, BearerToken(TOKEN)) as transport:
            await transport.send(CREATE, await transport.authenticate())
        headers = server.seen[0].headers
        assert headers.getall("Authorization") == [f"Bearer {TOKEN}"]
        assert not {"DD-API-KEY", "DD-APPLICATION-KEY"} & set(headers)

    async def test_the_target_is_sent_as_it_is(self) -> None:
        """The target of a request is sent unchanged: nothing is decoded, encoded twice or normalized."""
        request = delete_request("a/../b?c=%41#é d")
        async with Server(deleted) as server, transport_to(f"{server.url}/base") as transport:
            await transport.send(request, await transport.authenticate())
        assert server.seen[0].target == f"/base{LINKS_PATH}/a%2F..%2Fb%3Fc%3D%2541%23%C3%A9%20d"
        assert server.seen[0].body == b""

    async def test_no_cookie_is_kept(self) -> None:
        """A cookie that the server sets is not sent back."""
        set_cookie = answers(200, b'{"data": []}', Set_Cookie="session=1; Path=/")
        async with (
            Server(set_cookie) as server,
            transport_to(server.url.replace(HOST, "localhost")) as transport,
        ):
            await transport.send(LIST, await transport.authenticate())
            await transport.send(LIST, await transport.authenticate())
        assert ["Cookie" in seen.headers for seen in server.seen] == [False, False]

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_a_redirect_is_a_response(self, status: int) -> None:
        """A redirect is not followed, so that no other origin gets the keys."""
        async with Server(created) as other:
            redirect = answers(status, Location=f"{other.url}{LINKS_PATH}")
            async with Server(redirect) as server, transport_to(server.url) as transport:
                answer = await transport.send(CREATE, await transport.authenticate())
        assert answer.status == status
        assert (len(server.seen), other.connections) == (1, 0)


class TestAnswer:
    @pytest.mark.parametrize(
        "parts",
        [
            pytest.param((head(201, Content_Length="14"), b'{"data"', b": null}"), id="with its length"),
            pytest.param(
                (
                    head(201, Transfer_Encoding="chunked"),
                    b"7\r\n",
                    b'{"data"\r\n7\r\n: null}\r\n',
                    b"0\r\n\r\n",
                ),
                id="in chunks",
            ),
            pytest.param((head(201, Connection="close"), b'{"data"', b": null}"), id="up to the end"),
            pytest.param(
                (head(201, Content_Encoding="gzip", Connection="close"), gzip.compress(b'{"data": null}')),
                id="compressed",
            ),
        ],
    )
    async def test_every_framing_of_a_body(self, parts: tuple[bytes, ...]) -> None:
        """A body is complete with each way in which HTTP can delimit it."""
        async with Server(sends(*parts)) as server, transport_to(server.url) as transport:
            answer = await transport.send(CREATE, await transport.authenticate())
        assert (answer.status, answer.body, answer.is_complete) == (201, b'{"data": null}', True)
        assert answer.request is CREATE

    @pytest.mark.parametrize("more", [0, 1])
    @pytest.mark.parametrize(
        ("request_", "bound"), [(CREATE, MAX_SHORT), (DELETE, MAX_SHORT), (GET, MAX_BODY), (LIST, MAX_LIST)]
    )
    async def test_the_bound_is_exact(self, request_: Request, bound: int, more: int) -> None:
        """A body of exactly the maximum is complete, and one byte more is cut off; lists may be longer."""
        step = answers(200, b"x" * (bound + more))
        async with Server(step) as server, transport_to(server.url) as transport:
            answer = await transport.send(request_, await transport.authenticate())
        assert len(answer.body) == bound
        assert answer.is_complete is not bool(more)

    @pytest.mark.parametrize(
        "is_bomb", [pytest.param(False, id="endless"), pytest.param(True, id="gzip bomb")]
    )
    async def test_a_body_too_large_is_cut_off(self, is_bomb: bool) -> None:
        """A body that is too large is cut off, takes little memory, and closes the connection."""
        if is_bomb:
            bomb = gzip.compress(bytes(2**20), 9) * 512
            step: Step = sends(head(200, Content_Encoding="gzip", Content_Length=str(len(bomb))), bomb)
        else:
            step = repeats(head(200, Content_Length=str(2**40)), bytes(2**16))
        async with Server(step, listed) as server, transport_to(server.url) as transport:
            tracemalloc.start()
            answer = await transport.send(LIST, await transport.authenticate())
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            await server.until(lambda: server.open_connections == 0)
            assert (await transport.send(LIST, await transport.authenticate())).body == b'{"data": []}'
        assert (len(answer.body), answer.is_complete) == (MAX_LIST, False)
        assert peak < 4 * MAX_LIST

    @pytest.mark.parametrize("credentials", [ApiKeys(api_key=API_KEY, app_key=APP_KEY), BearerToken(TOKEN)])
    async def test_keys_that_come_back_are_blotted_out(self, credentials: Credentials) -> None:
        """Keys that a server echoes are redacted in the text of its response."""
        async with Server(echoes(400)) as server, transport_to(server.url, credentials) as transport:
            answer = await transport.send(CREATE, await transport.authenticate())
        assert "[redacted]" in answer.text()
        assert not any(secret in answer.text() for secret in SECRETS)

    @needs_upload_tracker
    async def test_a_request_that_aiohttp_sent_twice_says_so(self) -> None:
        """A response reports whether aiohttp has resent the request on a new connection."""
        async with Server(drops, deleted) as server, transport_to(server.url) as transport:
            answer = await transport.send(DELETE, await transport.authenticate())
            again = await transport.send(DELETE, await transport.authenticate())
        assert (answer.was_resent, again.was_resent) == (True, False)
        assert len(server.seen) == 3


def echoes(status: int) -> Step:
    """A step that quotes the headers of the request in the headers and the body of the response."""

    async def step(exchange: Exchange) -> None:
        reported = str(dict(exchange.seen.headers))
        await exchange.answer(
            status, json.dumps({"errors": [{"detail": reported}]}).encode(), X_Echo=reported
        )

    return step


@frozen
class World:
    authority: Authority
    clock: Clock


@frozen
class Place:
    """A server to send requests to, and the attempts that it has received, or None if it cannot count them.

    ``posts`` is the number of received creates.
    """

    url: str
    attempts: Callable[[], int] | None = None
    posts: Callable[[], int] = lambda: 0
    ssl: ssl.SSLContext | None = None
    proxy: str | None = field(default=None, repr=False)


Setting = Callable[[World], Scene[Place]]


def serving(*steps: Step) -> Setting:
    """Return a plain server with these steps."""

    @contextlib.asynccontextmanager
    async def setting(_: World) -> AsyncIterator[Place]:
        async with Server(*steps) as server:
            yield Place(server.url, lambda: len(server.seen), lambda: server.methods.count("POST"))

    return setting


def holding_back(step: Step) -> Setting:
    """Return a server that executes ``step`` and then lets more time pass than the client's timeout."""

    @contextlib.asynccontextmanager
    async def setting(world: World) -> AsyncIterator[Place]:
        async def step_and_wait(exchange: Exchange) -> None:
            await step(exchange)
            await settle()
            world.clock.advance(31)

        async with Server(step_and_wait) as server:
            yield Place(server.url, lambda: len(server.seen), lambda: server.methods.count("POST"))

    return setting


def while_time_passes(*parts: bytes, seconds: float) -> Setting:
    """Return a server that lets ``seconds`` pass before each of ``parts``, and again at the end."""

    @contextlib.asynccontextmanager
    async def setting(world: World) -> AsyncIterator[Place]:
        async def step(exchange: Exchange) -> None:
            for part in parts:
                await exchange.send(part)
                await asyncio.sleep(0)
                world.clock.advance(seconds)
            world.clock.advance(seconds)
            await is_silent(exchange)

        async with Server(step) as server:
            yield Place(server.url, lambda: len(server.seen), lambda: server.methods.count("POST"))

    return setting


def with_certificate(*names: str, days: int = 1, trusted: bool = True) -> Setting:
    """Return a TLS server with a certificate for ``names`` that expires in ``days``."""

    @contextlib.asynccontextmanager
    async def setting(world: World) -> AsyncIterator[Place]:
        now = datetime.datetime.now(datetime.UTC)
        context = world.authority.server(
            *names,
            not_before=now - datetime.timedelta(days=30),
            not_after=now + datetime.timedelta(days=days),
        )
        with counting_handshakes(context) as handshakes:
            async with Server(created, tls=context, host="localhost") as server:
                trust = world.authority.client() if trusted else None
                yield Place(server.url, lambda: len(handshakes), ssl=trust)

    return setting


def tcp(scheme: str, *parts: bytes, hangs: tuple[float, ...] = ()) -> Setting:
    """Return a server that reads a byte, sends ``parts``, and closes or hangs for ``hangs`` seconds."""

    @contextlib.asynccontextmanager
    async def setting(world: World) -> AsyncIterator[Place]:
        connections = 0

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            await reader.read(1)
            for part in parts:
                writer.write(part)
                await writer.drain()
            for seconds in hangs:
                world.clock.advance(seconds)
                await settle()
            if hangs:
                await asyncio.Event().wait()

        async with listening(connected) as port:
            yield Place(f"{scheme}://{HOST}:{port}", lambda: connections)

    return setting


def by_proxy(status: int = 200, login: str = LOGIN) -> Setting:
    """Return a TLS server behind a proxy that responds with ``status`` and receives ``LOGIN``."""

    @contextlib.asynccontextmanager
    async def setting(world: World) -> AsyncIterator[Place]:
        tls = world.authority.server("localhost")
        async with (
            Server(echoes(401), tls=tls, host="localhost") as server,
            Proxy(login, status).running() as proxy,
        ):
            shown = f"http://{LOGIN}@{HOST}:{proxy.port}"
            yield Place(
                server.url,
                lambda: len(proxy.requests),
                lambda: server.methods.count("POST"),
                world.authority.client(),
                shown,
            )

    return setting


def by_tcp_proxy(proxied: Setting) -> Setting:
    """Return a proxy that fails as ``proxied`` does."""

    @contextlib.asynccontextmanager
    async def setting(world: World) -> AsyncIterator[Place]:
        async with proxied(world) as place:
            proxy = place.url.replace("://", f"://{LOGIN}@")
            yield Place("https://localhost:1", place.attempts, proxy=proxy)

    return setting


@contextlib.asynccontextmanager
async def refused(_: World) -> AsyncIterator[Place]:
    yield Place(f"http://{HOST}:{unused_port()}")


@contextlib.asynccontextmanager
async def proxy_refused(_: World) -> AsyncIterator[Place]:
    yield Place("https://localhost:1", proxy=f"http://{LOGIN}@{HOST}:{unused_port()}")


@contextlib.asynccontextmanager
async def unknown_host(_: World) -> AsyncIterator[Place]:
    yield Place("https://caselinks.invalid")


UNKNOWN_WITHOUT_A_TRACKER = {"proxy closes", "proxy talks no HTTP", "proxy hangs"}

Errors = type[TransportError] | tuple[type[TransportError], ...]
NEVER_SENT: dict[str, tuple[Setting, Errors, int]] = {
    # name: (setting, error, number of attempts of at most three)
    "refused": (refused, ConnectError, 3),
    "unknown host": (unknown_host, ConnectError, 3),
    "handshake hangs": (tcp("https", hangs=(1,) * 32), ConnectError, 3),
    "closed in the handshake": (tcp("https"), ConnectError, 3),
    "no TLS at all": (tcp("https", head(400)), TLSError, 1),
    "certificate of an unknown CA": (with_certificate("localhost", trusted=False), TLSError, 1),
    "certificate for another host": (with_certificate("other.example"), TLSError, 1),
    "certificate expired": (with_certificate("localhost", days=-1), TLSError, 1),
    "proxy refused": (proxy_refused, ConnectError, 3),
    "proxy wants a login": (by_proxy(login="other:login"), ProxyAuthenticationError, 1),
    "proxy answers 503": (by_proxy(status=503), ConnectError, 3),
    "proxy closes": (by_tcp_proxy(tcp("http")), ConnectError, 3),
    "proxy talks no HTTP": (by_tcp_proxy(tcp("http", b"nonsense\r\n\r\n")), ConnectError, 3),
    "proxy hangs": (by_tcp_proxy(tcp("http", hangs=(1,) * 32)), (ConnectError, RequestTimeoutError), 3),
}

MAYBE_SENT: dict[str, Setting] = {
    "no answer": while_time_passes(seconds=31),
    "answer drips": while_time_passes(head(201, Content_Length="9"), *[b"x"] * 8, seconds=4),
    "headers drip": while_time_passes(b"HTTP/1.1 201 Created\r\n", *[b"X: y\r\n"] * 9, seconds=4),
    "dropped": serving(drops),
    "reset": serving(resets),
    "dropped within the headers": serving(sends(b"HTTP/1.1 201 Created\r\nContent-Le")),
    "dropped within the body": serving(sends(head(201, Content_Length="99"), b'{"data"')),
    "dropped within a chunk": serving(sends(head(201, Transfer_Encoding="chunked"), b"63\r\n{")),
    "no HTTP": serving(sends(b"nonsense\r\n\r\n")),
    "a garbage status line": serving(sends(b"HTTP/1.1 none of your business\r\n\r\n")),
    "a garbage chunk": serving(sends(head(201, Transfer_Encoding="chunked"), b"what?\r\n")),
    "no gzip": serving(answers(201, b"nonsense", Content_Encoding="gzip")),
}

TIMEOUTS = {"no answer", "answer drips", "headers drip"}

ANSWERED: dict[str, tuple[Setting, type[CaseLinksError]]] = {
    # name: (setting, error of a create)
    "302": (serving(answers(302, Location="http://localhost:1/")), ResponseError),
    "400": (serving(echoes(400)), BadRequestError),
    "401": (serving(echoes(401)), AuthenticationError),
    "401 through a proxy": (by_proxy(), AuthenticationError),
    "403": (serving(echoes(403)), PermissionDeniedError),
    "404": (serving(echoes(404)), NotFoundError),
    "408": (serving(echoes(408)), AmbiguousResultError),
    "409": (serving(echoes(409)), ConflictError),
    "418": (serving(echoes(418)), ResponseError),
    "422": (serving(echoes(422)), BadRequestError),
    "429": (holding_back(echoes(429)), RateLimitError),
    "500": (serving(echoes(500)), AmbiguousResultError),
    "503": (serving(echoes(503)), AmbiguousResultError),
    "201 with no link": (serving(echoes(201)), AmbiguousResultError),
    "201 without an end": (serving(repeats(head(201), bytes(2**16))), AmbiguousResultError),
}


@pytest.fixture
def world(authority: Authority, clock: Clock) -> World:
    return World(authority, clock)


async def failure_of(place: Place, request: Request, seconds: float = 30) -> TransportError:
    async with transport_to(place.url, ssl=place.ssl, proxy=place.proxy, seconds=seconds) as transport:
        with pytest.raises(TransportError) as caught:
            await transport.send(request, await transport.authenticate())
    return caught.value


class TestFailure:
    @pytest.mark.parametrize("name", needing_a_tracker(NEVER_SENT, UNKNOWN_WITHOUT_A_TRACKER))
    async def test_never_sent(self, name: str, world: World) -> None:
        """A failure before the request was sent is an error that says so, and was not applied."""
        setting, kind, _ = NEVER_SENT[name]
        async with setting(world) as place:
            error = await failure_of(place, CREATE)
        assert type(error) in (kind if isinstance(kind, tuple) else (kind,))
        assert not error.may_have_been_applied
        assert str(error).startswith(f"cannot create {NEW}: {place.url}")

    @pytest.mark.parametrize("name", MAYBE_SENT)
    async def test_maybe_sent(self, name: str, world: World) -> None:
        """A failure after the request was sent may have been applied."""
        async with MAYBE_SENT[name](world) as place:
            error = await failure_of(place, CREATE)
        assert type(error) is (RequestTimeoutError if name in TIMEOUTS else TransportError)
        assert not isinstance(error, RequestTimeoutError) or (isinstance(error, TimeoutError) and error.sent)
        assert error.may_have_been_applied
        assert str(error).startswith(f"cannot create {NEW}: {place.url}: ")

    @needs_upload_tracker
    @pytest.mark.parametrize("request_", [CREATE, LIST, DELETE], ids=["create", "list", "delete"])
    @pytest.mark.parametrize("seconds", [3, 9, 30])
    async def test_a_connection_that_hangs_was_never_used(
        self, request_: Request, seconds: int, world: World
    ) -> None:
        """A request is never sent before the handshake is complete, for any operation and timeout."""
        hanging = tcp("https", hangs=(1,) * (seconds + 2))
        async with hanging(world) as place:
            error = await failure_of(place, request_, seconds)
        assert not error.may_have_been_applied, repr(error)

    async def test_a_resend_that_cannot_connect(self) -> None:
        """A delete may have been applied if aiohttp's own retry of it cannot connect."""

        async def leave(exchange: Exchange) -> None:
            server.stop_listening()
            exchange.close()

        async with Server(leave) as server:
            error = await failure_of(Place(server.url), DELETE)
        assert len(server.seen) == 1
        assert error.may_have_been_applied, repr(error)

    @pytest.mark.parametrize(
        ("name", "advice"),
        [
            ("certificate of an unknown CA", "set SSL_CERT_FILE to your CA file"),
            ("certificate for another host", "localhost"),
            ("certificate expired", "expired"),
            ("proxy wants a login", "check the user and password"),
            ("unknown host", "the host name was not found"),
        ],
    )
    async def test_a_message_says_what_to_do(self, name: str, advice: str, world: World) -> None:
        """The message of a failure that a person can fix says how."""
        async with NEVER_SENT[name][0](world) as place:
            assert advice in str(await failure_of(place, CREATE))

    def test_an_error_of_windows(self) -> None:
        """An error of Windows is described by its own text, because its errno is often EINVAL."""

        class RefusedError(OSError):
            winerror = 1225

        error = RefusedError(22, "The remote computer refused the network connection.")
        assert transport._describe(error, str) == "the remote computer refused the network connection"

    @needs_middlewares
    @needs_upload_tracker
    async def test_time_that_is_lost_before_the_request(self, keys: ApiKeys, clock: Clock) -> None:
        """A middleware that uses up the timeout before sending raises an error that says nothing was sent."""

        async def dawdle(
            request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            clock.advance(31)
            await asyncio.Event().wait()
            return await handler(request)

        async with (
            Server(created) as server,
            aiohttp.ClientSession(middlewares=(dawdle,)) as session,
            CaseLinksClient(server.url, keys, sessions=session, retry=RetryPolicy(max_attempts=1)) as links,
        ):
            with pytest.raises(RequestTimeoutError, match="nothing was sent") as caught:
                await links.create_link(NEW)
        assert not caught.value.sent
        assert server.connections == 0


class TestStaleConnection:
    @pytest.mark.parametrize("turns", [0, 1, 2, 3, 10])
    async def test_a_pooled_one_that_the_server_closed(self, turns: int, at_once: RetryPolicy) -> None:
        """A create on a pooled connection that the server closed, at any moment, arrives once."""
        api = Api()

        async def answer_and_close(exchange: Exchange) -> None:
            await created(exchange)
            exchange.close()

        async with (
            Server(answer_and_close, api) as server,
            CaseLinksClient(server.url, BearerToken(TOKEN), retry=at_once) as links,
        ):
            await links.create_link(NEW)
            await server.until(lambda: server.open_connections == 0)
            await settle(turns)
            await links.create_link(NEW)
        assert server.methods in (["POST", "POST"], ["POST", "GET", "POST"])
        assert [seen.connection for seen in server.seen] == [0, 1, 1][: len(server.seen)]

    @needs_upload_tracker
    @pytest.mark.parametrize("turns", [0, 1, 2, 3, 20])
    async def test_one_that_ends_as_it_is_taken(
        self, turns: int, keys: ApiKeys, at_once: RetryPolicy
    ) -> None:
        """A create is sent again if its connection ended before the write, and rarely needs a lookup."""
        api, taken = Api(), asyncio.Event()

        async def close_once_taken(exchange: Exchange) -> None:
            await created(exchange)
            await taken.wait()
            exchange.close()

        async def on_reuse(*_: object) -> None:
            if taken.is_set():
                return
            taken.set()
            await server.until(lambda: server.open_connections == 0)
            await settle(turns)

        trace = aiohttp.TraceConfig()
        trace.on_connection_reuseconn.append(on_reuse)
        async with (
            Server(close_once_taken, api) as server,
            aiohttp.ClientSession(trace_configs=[trace]) as session,
            CaseLinksClient(server.url, keys, sessions=session, retry=at_once) as links,
        ):
            await links.create_link(NEW)
            await links.create_link(NEW)
        assert server.methods in (["POST", "POST"], *[["POST", "GET", "POST"]] * (turns < 20))
        assert [seen.connection for seen in server.seen] == [0, 1, 1][: len(server.seen)]
        assert len(api.links) == 1  # the first link was created elsewhere


CREDENTIALS = [
    pytest.param(ApiKeys(api_key=API_KEY, app_key=APP_KEY), id="keys"),
    pytest.param(BearerToken(TOKEN), id="token"),
]


async def raised_by(place: Place, credentials: Credentials, method: str) -> CaseLinksError:
    """Return the error that a call raises after two retries. No secret is a local variable here."""
    policy = RetryPolicy(max_attempts=3, max_rate_limited=2, base=0, settle=0)
    async with CaseLinksClient(
        place.url, credentials, retry=policy, proxy=place.proxy, ssl=place.ssl
    ) as links:
        match method:
            case "create":
                call: Awaitable[object] = links.create_link(NEW)
            case "list":
                call = links.list_links(NEW.parent)
            case _:
                call = links.delete_link("some-link")
        with pytest.raises(CaseLinksError) as caught:
            await call
    return caught.value


async def ended(how: str, server: Server, links: CaseLinksClient) -> None:
    """Create a link that gets no response, and end the call in one of three ways."""
    if how == "cancel":
        call = asyncio.ensure_future(links.create_link(NEW))
        await server.until_seen(1)
        call.cancel()
        await call
    elif how == "timeout":
        async with asyncio.timeout(None) as limit:
            seen = asyncio.ensure_future(server.until_seen(1))
            seen.add_done_callback(lambda _: limit.reschedule(0))
            await links.create_link(NEW)
    else:
        await asyncio.wait_for(links.create_link(NEW), 0.05)


def assert_no_secret(texts: Iterator[str]) -> None:
    assert_nothing_of([*SECRETS, base64.b64encode(LOGIN.encode()).decode()], texts)


ALL = {
    **{name: setting for name, (setting, *_) in NEVER_SENT.items()},
    **MAYBE_SENT,
    **{name: setting for name, (setting, _) in ANSWERED.items()},
}


class TestSecrets:
    @pytest.mark.parametrize("credentials", CREDENTIALS)
    @pytest.mark.parametrize(
        ("name", "method"),
        [
            (name, method)
            for name in ALL
            for method in ("create", "list", "delete")
            if not (method == "delete" and name.startswith("201"))  # a success with any body
        ],
    )
    @pytest.mark.slow
    async def test_no_failure_shows_a_secret(
        self,
        name: str,
        method: str,
        credentials: Credentials,
        world: World,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """An error, its causes, tracebacks and pickle, and every log record, are free of secrets."""
        caplog.set_level(logging.DEBUG)
        async with ALL[name](world) as place:
            error = await raised_by(place, credentials, method)
        assert_no_secret(texts_of(error))
        for record in caplog.records:
            assert_no_secret(texts_of_record(record))
        assert type(pickle.loads(pickle.dumps(error))) is type(error)

    @pytest.mark.parametrize("credentials", CREDENTIALS)
    @pytest.mark.parametrize("ending", ["cancel", "timeout", "wait_for"])
    async def test_nor_does_a_call_that_the_user_ends(self, ending: str, credentials: Credentials) -> None:
        """A timeout or cancellation by the user contains no frames of aiohttp, which contain the keys."""
        async with Server(is_silent) as server, CaseLinksClient(server.url, credentials) as links:
            task = asyncio.ensure_future(ended(ending, server, links))
            with pytest.raises((asyncio.CancelledError, TimeoutError)) as caught:
                await task
        assert_no_secret(texts_of(caught.value))

    async def test_nor_does_a_token_that_is_refused(self) -> None:
        """A fetched token with a line end is reported as malformed, without quoting it."""

        async def fetch() -> str:
            return f"{TOKEN}\n"

        async with Server(created) as server:
            error = await raised_by(Place(server.url), BearerToken(fetch), "create")
        assert type(error) is ConfigurationError
        assert_no_secret(texts_of(error))
        assert server.connections == 0


class TestRetries:
    @pytest.mark.parametrize("name", needing_a_tracker(NEVER_SENT, UNKNOWN_WITHOUT_A_TRACKER))
    async def test_never_sent(self, name: str, world: World, caplog: pytest.LogCaptureFixture) -> None:
        """A create that was never sent is retried, unless the next attempt must fail in the same way."""
        setting, kind, attempts = NEVER_SENT[name]
        caplog.set_level(logging.INFO, "datadog_caselinks")
        async with setting(world) as place:
            error = await raised_by(place, BearerToken(TOKEN), "create")
            assert isinstance(error, kind)
            assert len(caplog.records) == attempts - 1
            assert place.attempts is None or place.attempts() == attempts

    @pytest.mark.parametrize("name", MAYBE_SENT)
    async def test_maybe_sent(self, name: str, world: World) -> None:
        """A create that may have been applied is sent once if its lookup fails.

        The lookup meets the same failure. The error contains the link and the reason.
        """
        async with MAYBE_SENT[name](world) as place:
            error = await raised_by(place, BearerToken(TOKEN), "create")
            assert isinstance(error, AmbiguousResultError)
            assert error.new == NEW
            assert type(error.reason) is (RequestTimeoutError if name in TIMEOUTS else TransportError)
            assert str(error).startswith(str(error.reason))
            assert "the lookup failed" in str(error)
            assert place.attempts
            assert (place.posts(), place.attempts() > 3) == (1, True)

    @pytest.mark.parametrize("name", ANSWERED)
    async def test_a_response_arrived(self, name: str, world: World) -> None:
        """Each response has its error, and only a 429 is sent again, since nothing was applied.

        A create that may have been applied is not sent again here, because its lookup gets the same response.
        """
        setting, kind = ANSWERED[name]
        async with setting(world) as place:
            error = await raised_by(place, BearerToken(TOKEN), "create")
            assert type(error) is kind
            assert place.posts() == (3 if kind is RateLimitError else 1)
            looks = {AmbiguousResultError: 3, ConflictError: 1}.get(kind, 0) if place.proxy is None else 0
            if name == "201 without an end":
                looks = 2  # the lists of both ends, which are as large
            assert place.attempts
            assert place.attempts() == place.posts() + looks


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_a_timeout_that_is_none(timeout: float) -> None:
    """A timeout must be a number of seconds above 0 and below infinity."""
    with pytest.raises(ParameterError, match="timeout must be"):
        CaseLinksClient(Site.US1, BearerToken(TOKEN), timeout=timeout)
