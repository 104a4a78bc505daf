"""Small real servers on loopback for the tests that speak HTTP, each scripted request by request.

Run as a program it is a plain server in a process of its own: it creates every link that it is asked for,
prints its port first and, once its standard input ends, how often it created each.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import json
import os
import re
import socket
import ssl
import struct
import sys
import threading
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, ClassVar, Self, TypeVar
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import trustme
from attrs import Factory, define, frozen
from multidict import CIMultiDict

LINKS_PATH = "/api/v2/cases/link"
HOST = "127.0.0.1"
MAX_SECONDS = 60.0

T = TypeVar("T")


@frozen
class Seen:
    """A request as it came in; ``connection`` counts the server's connections from 0."""

    method: str
    target: str
    headers: CIMultiDict[str]
    body: bytes
    connection: int

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


@define
class Exchange:
    """One request, and the means to answer it well or badly."""

    seen: Seen
    writer: asyncio.StreamWriter

    async def send(self, *parts: bytes) -> None:
        """Send each of ``parts`` as it is."""
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()

    async def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Send a whole answer; ``_`` in a header's name stands for a hyphen."""
        await self.send(head(status, Content_Length=str(len(body)), **headers) + body)

    def close(self) -> None:
        """Close the connection in an orderly way."""
        self.writer.close()

    def reset(self) -> None:
        """Close the connection with a TCP reset."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Step = Callable[[Exchange], Awaitable[None]]
"""What a server does about one request."""


def head(status: int, **headers: str) -> bytes:
    """Status line and headers; ``_`` in a header's name stands for a hyphen."""
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def link_id(attributes: dict[str, str]) -> str:
    """The id that these servers give to a link: the child's with a prefix."""
    return f"link-{attributes['child_entity_id']}"


def link_json(attributes: dict[str, str]) -> dict[str, Any]:
    """A link as the API tells it."""
    return {"type": "link", "id": link_id(attributes), "attributes": attributes}


async def created(exchange: Exchange) -> None:
    """Do as the API does: make the link that is asked for."""
    body = json.dumps({"data": link_json(exchange.seen.json["data"]["attributes"])}).encode()
    await exchange.answer(201, body, Content_Type="application/vnd.api+json")


async def listed(exchange: Exchange) -> None:
    """No links."""
    await exchange.answer(200, b'{"data": []}')


async def deleted(exchange: Exchange) -> None:
    """It is gone."""
    await exchange.answer(204)


def answers(status: int, body: bytes = b"", **headers: str) -> Step:
    """A step that answers so."""

    async def step(exchange: Exchange) -> None:
        await exchange.answer(status, body, **headers)

    return step


def sends(*parts: bytes) -> Step:
    """A step that sends these bytes and closes the connection."""

    async def step(exchange: Exchange) -> None:
        await exchange.send(*parts)
        exchange.close()

    return step


async def drops(exchange: Exchange) -> None:
    """Close the connection without a word."""
    exchange.close()


async def resets(exchange: Exchange) -> None:
    """Reset the connection without a word."""
    exchange.reset()


async def is_silent(_: Exchange) -> None:
    """Never answer."""
    await asyncio.Event().wait()


def repeats(head: bytes, chunk: bytes) -> Step:
    """A step whose body never ends."""

    async def step(exchange: Exchange) -> None:
        await exchange.send(head)
        while True:
            await exchange.send(chunk)

    return step


@define
class Api:
    """A step that does as the API does: it makes, lists and deletes ``links``, which have their own ids."""

    links: list[dict[str, Any]] = Factory(list)

    async def __call__(self, exchange: Exchange) -> None:
        match exchange.seen.method:
            case "POST":
                self.make(exchange.seen.json["data"]["attributes"])
                await exchange.answer(201, json.dumps({"data": self.links[-1]}).encode())
            case "GET":
                await exchange.answer(200, json.dumps({"data": self._around(exchange.seen.target)}).encode())
            case _:
                kept = [link for link in self.links if not exchange.seen.target.endswith(f"/{link['id']}")]
                is_gone, self.links = len(kept) < len(self.links), kept
                await exchange.answer(204 if is_gone else 404)

    def make(self, attributes: dict[str, str]) -> None:
        """Make a link, also where there is an equal one."""
        self.links.append({"type": "link", "id": f"link-{len(self.links)}", "attributes": attributes})

    def applies(self, step: Step) -> Step:
        """A step that makes the link that is asked for, and then does ``step`` instead of telling."""

        async def applied(exchange: Exchange) -> None:
            self.make(exchange.seen.json["data"]["attributes"])
            await step(exchange)

        return applied

    def _around(self, target: str) -> list[dict[str, Any]]:
        query = {name: values[0] for name, values in parse_qs(urlsplit(target).query).items()}
        wanted = query["entity_type"], query["entity_id"]
        return [
            link
            for link in self.links
            for its in [link["attributes"]]
            if wanted
            in [(its[f"{side}_entity_type"], its[f"{side}_entity_id"]) for side in ("parent", "child")]
        ]


UNCLEAR: dict[str, Step] = {
    "dropped": drops,
    "reset": resets,
    "dropped within the headers": sends(b"HTTP/1.1 201 Created\r\nContent-Le"),
    "dropped within the body": sends(head(201, Content_Length="99"), b'{"data"'),
    "a garbage status line": sends(b"HTTP/1.1 none of your business\r\n\r\n"),
    "no gzip": answers(201, b"nonsense", Content_Encoding="gzip"),
    **{str(status): answers(status) for status in (408, 500, 502, 503, 504)},
}
"""Steps that leave open whether what was asked for is done."""

MALFORMED: dict[str, Step] = {
    "201 without a body": answers(201),
    "201 of broken JSON": answers(201, b'{"data": {"id": '),
    "201 that is no link": answers(201, b'{"data": {}}'),
    "204": answers(204),
}
"""Steps that tell of success and not of the link."""


class Held:
    """A step that keeps its answers back until they are released, one by one or all."""

    def __init__(self, step: Step = created) -> None:
        self._step = step
        self._permits = asyncio.Semaphore(0)

    async def __call__(self, exchange: Exchange) -> None:
        await self._permits.acquire()
        await self._step(exchange)

    def release(self, count: int = 1) -> None:
        """Let ``count`` more answers go."""
        for _ in range(count):
            self._permits.release()


class Server:
    """An HTTP server on loopback: each request is met by the next of ``steps``, the last one for ever.

    Leaving it ends its connections. ``host`` is the name in its URL.
    """

    def __init__(self, *steps: Step, tls: ssl.SSLContext | None = None, host: str = HOST) -> None:
        self._steps = list(steps)
        self._tls = tls
        self._host = host
        self._news = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self.seen: list[Seen] = []
        self.connections = 0
        self.open_connections = 0
        self.busy = 0
        self.most_busy = 0

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{'https' if self._tls else 'http'}://{self._host}:{self.port}"

    @property
    def methods(self) -> list[str]:
        """The methods of the requests that came in."""
        return [seen.method for seen in self.seen]

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, HOST, 0, ssl=self._tls, backlog=1024)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def stop_listening(self) -> None:
        """Refuse new connections; those that are open stay so."""
        self._server.close()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until ``holds``, which is looked at with each request and connection that comes or goes."""
        async with asyncio.timeout(MAX_SECONDS), self._news:
            await self._news.wait_for(holds)

    async def until_seen(self, count: int) -> None:
        """Wait until ``count`` requests have come in."""
        await self.until(lambda: len(self.seen) >= count)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        number, self.connections = self.connections, self.connections + 1
        self.open_connections += 1
        try:
            await self._tell()
            while not writer.is_closing() and (seen := await _read_request(reader, number)):
                await self._met(Exchange(seen, writer))
        except (OSError, asyncio.CancelledError):
            pass  # the client left, or the server is closing
        finally:
            writer.transport.abort()
            self.open_connections -= 1
            self._tasks.discard(task)
            await self._tell()

    async def _met(self, exchange: Exchange) -> None:
        self.seen.append(exchange.seen)
        step = self._steps.pop(0) if len(self._steps) > 1 else self._steps[0]
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        try:
            await self._tell()
            await step(exchange)
        finally:
            self.busy -= 1

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()


async def _read_request(reader: asyncio.StreamReader, connection: int) -> Seen | None:
    try:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ")
        headers = CIMultiDict[str]()
        for line in filter(None, lines[1:]):
            headers.add(*line.split(": ", 1))
        body = await reader.readexactly(int(headers.get("Content-Length", "0")))
    except asyncio.IncompleteReadError:
        return None
    return Seen(method, target, headers, body, connection)


@contextlib.asynccontextmanager
async def listening(
    connected: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[int]:
    """The port of a TCP server that meets each connection with ``connected``, and ends them at the end."""
    tasks: set[asyncio.Task[None]] = set()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await connected(reader, writer)
        except (OSError, EOFError, asyncio.CancelledError):
            pass  # the other side left, or this one is closing
        finally:
            writer.transport.abort()
            tasks.discard(task)

    server = await asyncio.start_server(meet, HOST, 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@define
class Proxy:
    """An HTTP proxy that tunnels by CONNECT, for whoever shows ``user:password`` if it is set."""

    login: str | None = None
    status: int = 200
    tls: ssl.SSLContext | None = None
    requests: list[bytes] = Factory(list)
    port: int = 0

    @property
    def url(self) -> str:
        """Where it is, with its login."""
        login = f"{self.login}@" if self.login else ""
        return f"{'https' if self.tls else 'http'}://{login}{HOST}:{self.port}"

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Serve."""
        async with listening(self._connected, self.tls) as self.port:
            yield self

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        self.requests.append(request)
        wanted = base64.b64encode((self.login or "").encode())
        status = self.status if not self.login or wanted in request else 407
        writer.write(head(status, Content_Length="0") if status != 200 else head(200))
        await writer.drain()
        if status == 200:
            asked = re.match(rb"CONNECT ([^ :]+):(\d+) ", request)
            assert asked, request
            await _tunnel(reader, writer, asked[1].decode(), int(asked[2]))


async def _tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int) -> None:
    far_reader, far_writer = await asyncio.open_connection(host, port)

    async def pipe(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(2**16):
                target.write(data)
                await target.drain()
        target.close()

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(pipe(reader, far_writer))
            group.create_task(pipe(far_reader, writer))
    finally:
        far_writer.transport.abort()


@frozen
class Authority:
    """A private certificate authority, the contexts of servers that it vouches for and of their clients."""

    ca: trustme.CA = Factory(trustme.CA)

    def server(self, *names: str, **validity: Any) -> ssl.SSLContext:
        """A server's context, with a certificate for ``names``."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(*names, **validity).configure_cert(context)
        return context

    def client(self) -> ssl.SSLContext:
        """A client's context that trusts this authority."""
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        return context


@contextlib.contextmanager
def counting_handshakes(context: ssl.SSLContext) -> Iterator[list[str]]:
    """The server names that clients asked ``context`` for: one for each TLS handshake."""
    names: list[str] = []
    context.sni_callback = lambda _, name, __: names.append(name)
    yield names


class Clock:
    """The time of the loop and the gate, to be moved on: timers fire as though that much time had passed."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._real = loop.time
        self._ahead = 0.0

    def time(self) -> float:
        """Stands in for ``loop.time``."""
        return self._real() + self._ahead

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        self._ahead += seconds


@contextlib.asynccontextmanager
async def leaving_nothing() -> AsyncIterator[None]:
    """Fail if the body leaves a task, a warning of something unclosed or a complaint of the loop."""
    loop, complaints = asyncio.get_running_loop(), list[dict[str, Any]]()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    gc.freeze()  # what is there already is not looked through below, which would take long
    before = asyncio.all_tasks() - {asyncio.current_task()}  # which is another one where a fixture ends
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
            gc.collect()
        finally:
            gc.unfreeze()
    assert asyncio.all_tasks() - {asyncio.current_task()} == before
    assert [str(warning.message) for warning in caught] == []
    assert complaints == []


async def settle(turns: int = 20) -> None:
    """Let every task that can go on do so."""
    for _ in range(turns):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def hurrying(clock: Clock) -> AsyncIterator[None]:
    """Let half a second pass whenever the body had the turns for a request.

    All that it waits for must be of this process and of the loop, or time runs away from it.
    """

    async def hurry() -> None:
        while True:
            await settle(50)
            clock.advance(0.5)

    task = asyncio.create_task(hurry())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def in_no_time(clock: Clock, call: Awaitable[T]) -> T:
    """What comes of ``call``, with :func:`hurrying`."""
    async with hurrying(clock):
        return await call


def unused_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        port: int = free.getsockname()[1]
        return port


def sockets_to(port: int) -> int:
    """How many open sockets of this process are connected to ``port``."""
    count = 0
    for found in gc.get_objects():
        if issubclass(type(found), socket.socket) and found.family == socket.AF_INET:
            with contextlib.suppress(OSError):  # closed, or connected to nobody
                count += found.getpeername()[1] == port
    return count


def some_id(number: int) -> str:
    """A UUID for each number."""
    return str(UUID(int=number))


class PlainServer:
    """The server of this file in another process. Leaving it ends the process and fills ``created``."""

    async def __aenter__(self) -> Self:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, __file__, stdin=pipe, stdout=pipe
        )
        assert self._process.stdout is not None
        self.url = f"http://{HOST}:{int(await self._process.stdout.readline())}"
        self.created: dict[str, int] = {}
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            told, _err = await asyncio.wait_for(self._process.communicate(b""), MAX_SECONDS)
        except BaseException:
            self._process.kill()
            await self._process.wait()
            raise
        self.created = json.loads(told)


class _PlainProtocol(asyncio.Protocol):
    created: ClassVar[Counter[str]] = Counter()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        headers, end, rest = self._buffer.partition(b"\r\n\r\n")
        length = int(re.search(rb"(?i)content-length: (\d+)", headers + b"content-length: 0")[1])  # type: ignore[index]
        if not end or len(rest) < length:
            return
        self._buffer = rest[length:]
        attributes = json.loads(rest[:length])["data"]["attributes"]
        self.created[attributes["child_entity_id"]] += 1
        body = json.dumps({"data": link_json(attributes)}).encode()
        self._transport.write(head(201, Content_Length=str(len(body))) + body)


async def _main() -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def wait_for_end() -> None:
        while os.read(0, 1024):
            pass
        loop.call_soon_threadsafe(ended.set)

    server = await loop.create_server(_PlainProtocol, HOST, 0, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    threading.Thread(target=wait_for_end, daemon=True).start()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(ended.wait(), MAX_SECONDS)
    sys.stdout.write(json.dumps(_PlainProtocol.created))


if __name__ == "__main__":
    asyncio.run(_main())
