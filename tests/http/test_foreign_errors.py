"""The rules for a session whose connector, middlewares or hooks raise errors that are not aiohttp's."""

from __future__ import annotations

import asyncio
import socket
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest

from datadog_caselinks import (
    AmbiguousResultError,
    ApiKeys,
    CaseLinksClient,
    CaseLinksError,
    ConnectError,
    LinkStatus,
    RetryPolicy,
    TransportError,
    case,
)
from tests.hostile.answers import OPERATIONS
from tests.support.api import Api
from tests.support.ids import some_id
from tests.support.leaks import assert_nothing_of, texts_of
from tests.support.needs import needs_middlewares, needs_upload_tracker
from tests.support.server import Server
from tests.support.steps import created

NEW = case(some_id(1)).blocks(case(some_id(2)))
SECRETS = API_KEY, APP_KEY = "the-api-key", "the-app-key"
ONCE = RetryPolicy(max_attempts=1, settle=0)
AT_ONCE = RetryPolicy(max_attempts=3, base=0, settle=0)


class ForeignError(Exception):
    """An error that the package does not know."""


class UnprintableError(Exception):
    """An error without a text."""

    def __str__(self) -> str:
        raise ValueError


ERRORS: dict[str, Callable[[], BaseException]] = {
    "an exception": lambda: ForeignError("the tunnel is closed"),
    "an exception without a text": ForeignError,
    "an exception whose text fails": UnprintableError,
    "an exception group": lambda: ExceptionGroup("two", [ForeignError(), OSError()]),
    "an error in its code": lambda: KeyError("retries"),
    "an OSError without a number": lambda: OSError("the tunnel is closed"),
    "an OSError with words for its number": lambda: OSError("the tunnel is closed", "try again"),
    "an OSError with a number beyond C": lambda: OSError(2**80, "too large"),
    "a TLS error without a reason": lambda: ssl.SSLError("the tunnel is closed"),
    "aiohttp's error about a response, without its request": lambda: aiohttp.ClientResponseError(None, ()),  # type: ignore[arg-type]
    "an OSError with the number of a failed name lookup": lambda: socket.gaierror(-2, "name not known"),
    "an OSError": lambda: ConnectionRefusedError(111, "refused"),
    "aiohttp's base class": lambda: aiohttp.ClientError("the tunnel is closed"),
    "a cancellation that nobody asked for": asyncio.CancelledError,
}
each_error = pytest.mark.parametrize("error", ERRORS.values(), ids=list(ERRORS))


class FailingConnector(aiohttp.TCPConnector):
    """A connector that cannot connect and raises an error of its own."""

    def __init__(self, error: Callable[[], BaseException]) -> None:
        super().__init__()
        self.error = error

    async def connect(self, *_: object, **__: object) -> aiohttp.connector.Connection:
        raise self.error()


@asynccontextmanager
async def client_of(
    server: Server, session: aiohttp.ClientSession, policy: RetryPolicy = ONCE
) -> AsyncIterator[CaseLinksClient]:
    keys = ApiKeys(api_key=API_KEY, app_key=APP_KEY)
    async with session, CaseLinksClient(server.url, keys, sessions=session, retry=policy) as client:
        yield client


def raising_in(hook: str, error: Callable[[], BaseException]) -> aiohttp.ClientSession:
    """Return a session with a trace hook that raises."""

    async def fail(*_: object) -> None:
        raise error()

    trace = aiohttp.TraceConfig()
    getattr(trace, hook).append(fail)
    return aiohttp.ClientSession(trace_configs=[trace])


@needs_upload_tracker
class TestBeforeSending:
    @each_error
    async def test_a_connector(self, error: Callable[[], BaseException]) -> None:
        """An error of a connector is a ``ConnectError``, because nothing was sent."""
        async with (
            Server(created) as server,
            client_of(server, aiohttp.ClientSession(connector=FailingConnector(error))) as client,
        ):
            for call, _ in OPERATIONS.values():
                with pytest.raises(ConnectError, match="nothing was sent") as caught:
                    await call(client)
                assert not caught.value.may_have_been_applied
        assert server.connections == 0

    @each_error
    @pytest.mark.parametrize("hook", ["on_request_start", "on_connection_create_start"])
    async def test_a_hook(self, hook: str, error: Callable[[], BaseException]) -> None:
        """An error of a trace hook before the connection is a ``ConnectError``."""
        async with Server(created) as server, client_of(server, raising_in(hook, error)) as client:
            with pytest.raises(ConnectError, match="nothing was sent"):
                await client.create_link(NEW)
        assert server.seen == []

    async def test_a_failed_name_lookup_is_described(self) -> None:
        """The number of a failed name lookup is not one of the system's, so its text is quoted."""
        connector = FailingConnector(lambda: socket.gaierror(-2, "name not known"))
        async with (
            Server(created) as server,
            client_of(server, aiohttp.ClientSession(connector=connector)) as client,
        ):
            with pytest.raises(ConnectError, match="name not known"):
                await client.create_link(NEW)

    async def test_create_links_goes_on(self) -> None:
        """Each link of ``create_links`` gets an outcome, although a connector raises for each."""
        connector = FailingConnector(ForeignError)
        new = [case(some_id(1)).blocks(case(some_id(number))) for number in range(2, 5)]
        async with (
            Server(created) as server,
            client_of(server, aiohttp.ClientSession(connector=connector)) as client,
        ):
            outcomes = [outcome async for outcome in client.create_links(new)]
        assert [outcome.status for outcome in outcomes] == [LinkStatus.FAILED] * 3

    async def test_is_retried(self) -> None:
        """A connection that failed once is tried again, and the link is created without a lookup."""
        failures = iter([ForeignError])

        class Recovering(aiohttp.TCPConnector):
            async def connect(self, *args: object, **options: object) -> aiohttp.connector.Connection:
                for failure in failures:
                    raise failure
                return await super().connect(*args, **options)  # type: ignore[arg-type] # as they came

        async with (
            Server(created) as server,
            client_of(server, aiohttp.ClientSession(connector=Recovering()), AT_ONCE) as client,
        ):
            await client.create_link(NEW)
        assert server.methods == ["POST"]

    async def test_the_message_says_what_and_where(self) -> None:
        """The message for a foreign error has its class, its text and its place."""
        connector = FailingConnector(lambda: ForeignError("the tunnel is closed"))
        async with (
            Server(created) as server,
            client_of(server, aiohttp.ClientSession(connector=connector)) as client,
        ):
            with pytest.raises(ConnectError) as caught:
                await client.create_link(NEW)
        assert "raised ForeignError: the tunnel is closed (test_foreign_errors.py:" in str(caught.value)

    async def test_an_operating_system_error_is_described(self) -> None:
        """An ``OSError`` of a connector is described, and not taken for a connection that had been closed."""
        connector = FailingConnector(lambda: OSError("The tunnel is closed"))
        async with (
            Server(created) as server,
            client_of(server, aiohttp.ClientSession(connector=connector)) as client,
        ):
            with pytest.raises(ConnectError, match="the tunnel is closed; nothing was sent") as caught:
                await client.create_link(NEW)
        assert type(caught.value) is ConnectError


class TestAfterSending:
    @each_error
    async def test_a_hook(self, error: Callable[[], BaseException]) -> None:
        """A create whose hook raises after the response is looked up, and not sent again."""
        api = Api()
        posts = 0

        async def fail(_: object, __: object, params: aiohttp.TraceRequestEndParams) -> None:
            nonlocal posts
            if params.method == "POST":
                posts += 1
                raise error()

        trace = aiohttp.TraceConfig()
        trace.on_request_end.append(fail)
        async with (
            Server(api) as server,
            client_of(server, aiohttp.ClientSession(trace_configs=[trace]), AT_ONCE) as client,
        ):
            link = await client.create_link(NEW)
        assert (link.child, posts, len(api.links)) == (NEW.child, 1, 1)
        assert server.methods == ["POST", "GET"]

    @each_error
    async def test_a_lookup_that_fails_too(self, error: Callable[[], BaseException]) -> None:
        """A create is ambiguous if its lookup fails with the same foreign error."""
        async with (
            Server(Api()) as server,
            client_of(server, raising_in("on_request_end", error), AT_ONCE) as client,
        ):
            with pytest.raises(AmbiguousResultError) as caught:
                await client.create_link(NEW)
        assert type(caught.value.reason) is TransportError
        assert server.methods.count("POST") == 1


@needs_middlewares
class TestMiddleware:
    @each_error
    @pytest.mark.parametrize("is_sent", [False, True])
    async def test_that_raises(self, is_sent: bool, error: Callable[[], BaseException]) -> None:
        """A middleware that raises before sending fails the connection; afterwards a create is ambiguous."""

        async def fail(
            request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            if is_sent:
                await handler(request)
            raise error()

        async with (
            Server(created) as server,
            client_of(server, aiohttp.ClientSession(middlewares=[fail])) as client,
        ):
            with pytest.raises(AmbiguousResultError if is_sent else ConnectError) as caught:
                await client.create_link(NEW)
        assert caught.value.may_have_been_applied is is_sent
        assert ("POST" in server.methods) is is_sent

    async def test_that_shows_the_request(self) -> None:
        """No error, cause or traceback shows a key, although the middleware's error quotes the request."""

        async def fail(
            request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            raise ForeignError(str(dict(request.headers)) * 10)

        async with (
            Server(created) as server,
            client_of(server, aiohttp.ClientSession(middlewares=[fail])) as client,
        ):
            with pytest.raises(ConnectError, match=r"\[redacted\]") as caught:
                await client.create_link(NEW)
        assert_nothing_of([*SECRETS, *(secret[:9] for secret in SECRETS)], texts_of(caught.value))

    async def test_that_cannot_be_read(self) -> None:
        """No error or traceback shows a key if the text of the middleware's error cannot be read."""

        async def fail(
            request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            raise aiohttp.ClientResponseError(None, ())  # type: ignore[arg-type] # has no text without it

        async with (
            Server(created) as server,
            client_of(server, aiohttp.ClientSession(middlewares=[fail])) as client,
        ):
            with pytest.raises(ConnectError, match="raised ClientResponseError") as caught:
                await client.create_link(NEW)
        assert_nothing_of(SECRETS, texts_of(caught.value))

    async def test_that_shows_the_login_of_a_proxy(self) -> None:
        """No error shows the login of the client's proxy, although the middleware's error quotes it."""

        async def fail(
            request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            raise ForeignError(str(request.proxy_headers))

        async with (
            aiohttp.ClientSession(middlewares=[fail]) as session,
            CaseLinksClient(
                "https://caselinks.invalid",
                ApiKeys(api_key=API_KEY, app_key=APP_KEY),
                sessions=session,
                retry=ONCE,
                proxy="http://somebody:the-password@127.0.0.1:1",
            ) as client,
        ):
            with pytest.raises(ConnectError, match=r"\[redacted\]") as caught:
                await client.create_link(NEW)
        assert_nothing_of([b64encode(b"somebody:the-password").decode(), "the-password"], [str(caught.value)])

    async def test_that_reads_the_body(self) -> None:
        """A response that a middleware has read, for example to log it, is also read by the client."""

        async def log(
            request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            response = await handler(request)
            await response.read()
            return response

        async with (
            Server(created) as server,
            client_of(server, aiohttp.ClientSession(middlewares=[log])) as client,
        ):
            link = await client.create_link(NEW)
        assert link.child == NEW.child
        assert server.methods == ["POST"]


class TestCancellation:
    @pytest.mark.parametrize("ending", ["cancel", "timeout"])
    async def test_of_the_caller(self, ending: str) -> None:
        """A cancellation by the caller is not a failure, also within a foreign connector."""
        is_connecting = asyncio.Event()

        class Hanging(aiohttp.TCPConnector):
            async def connect(self, *_: object, **__: object) -> aiohttp.connector.Connection:
                is_connecting.set()
                await asyncio.Event().wait()
                raise AssertionError

        async def create(client: CaseLinksClient) -> None:
            if ending == "cancel":
                await client.create_link(NEW)
            async with asyncio.timeout(None) as limit:
                connecting = asyncio.ensure_future(is_connecting.wait())
                connecting.add_done_callback(lambda _: limit.reschedule(0))
                await client.create_link(NEW)

        async with (
            Server(created) as server,
            client_of(server, aiohttp.ClientSession(connector=Hanging())) as client,
        ):
            task = asyncio.ensure_future(create(client))
            await is_connecting.wait()
            if ending == "cancel":
                task.cancel()
            with pytest.raises(asyncio.CancelledError if ending == "cancel" else TimeoutError) as caught:
                await task
        assert not isinstance(caught.value, CaseLinksError)

    async def test_an_exit_of_the_program(self) -> None:
        """An exception that ends the program, such as ``SystemExit``, passes unchanged."""
        connector = FailingConnector(SystemExit)
        async with (
            Server(created) as server,
            client_of(server, aiohttp.ClientSession(connector=connector)) as client,
        ):
            call: Awaitable[object] = client.create_link(NEW)
            with pytest.raises(SystemExit):
                await call
