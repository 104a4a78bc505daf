"""The differences between the supported versions of aiohttp, and all uses of its private names."""

from __future__ import annotations

import asyncio
import socket
import zlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

import aiohttp
from aiohttp.compression_utils import ZLibDecompressor

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.client_reqrep import ConnectionKey
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace


class BlindTracker:
    """Replaces the ``UploadTracker`` of aiohttp 3.14.4 and later. It does not know what was sent."""

    attempts: Final = 1


UploadTracker: Final[type[aiohttp.UploadTracker | BlindTracker]] = getattr(
    aiohttp, "UploadTracker", BlindTracker
)

MAX_HEADER: Final = 2**16
"""Bytes of the longest response header. aiohttp's own limit is 8,190, and proxies add longer ones."""

_OPTIONS: Final[dict[str, Any]] = {
    "max_line_size": MAX_HEADER,
    "max_field_size": MAX_HEADER,
    "auto_decompress": True,
}

_DECOMPRESSES_IN_PIECES: Final = hasattr(ZLibDecompressor, "data_available")
"""Whether aiohttp decompresses a body only as fast as it is read, as since 3.14.0.

Before, it decompresses all that has arrived: 64 kB can become 64 MB, in each request at once.
"""

OWN_HEADERS: Final = {} if _DECOMPRESSES_IN_PIECES else {"Accept-Encoding": "gzip, deflate"}
"""Headers of each request: the encodings that ``Decompressed`` knows."""

_PIECE: Final = 2**16
"""Bytes that ``Decompressed`` decompresses at a time."""

_BEFORE_SENDING: Final = (
    aiohttp.ClientConnectorError,
    aiohttp.ClientHttpProxyError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
)
"""Errors of a request that has no connection yet."""


def request_options(
    upload: aiohttp.UploadTracker | BlindTracker, session: aiohttp.ClientSession
) -> dict[str, Any]:
    """Return the options of a request of ``session`` that ``upload`` tracks."""
    options = _OPTIONS
    # Middlewares may read the body, and expect that it is decompressed.
    if not _DECOMPRESSES_IN_PIECES and not getattr(session, "_middlewares", ()):
        options = {**_OPTIONS, "auto_decompress": False}
    return options if isinstance(upload, BlindTracker) else {**options, "upload_tracker": upload}


class Decompressed:
    """The content of a response, which is decompressed while it is read.

    Args:
        content: The compressed content.
        encoding: Its encoding, ``gzip`` or ``deflate``.
    """

    def __init__(self, content: aiohttp.StreamReader, encoding: str) -> None:
        self._content = content
        self._encoding = encoding
        self._stream: zlib._Decompress | None = None

    async def readany(self) -> bytes:
        """Return the next bytes, at most ``_PIECE``, or nothing at the end.

        Raises:
            aiohttp.ClientPayloadError: The content does not have the encoding.
        """
        while True:
            stream = self._stream
            data = (stream.unused_data or stream.unconsumed_tail) if stream else b""
            is_end = not (data := data or await self._content.readany())
            if stream is None or (stream.eof and not is_end):  # gzip may have several members
                if is_end:
                    return b""
                stream = self._stream = zlib.decompressobj(_wbits(self._encoding, data))
            try:
                piece = stream.decompress(data, _PIECE)
            except zlib.error:
                raise aiohttp.ClientPayloadError(
                    f"Can not decode content-encoding: {self._encoding}"
                ) from None
            if piece or is_end:
                return piece


def content_of(
    response: aiohttp.ClientResponse, options: dict[str, Any]
) -> aiohttp.StreamReader | Decompressed:
    """Return the content of ``response``, decompressed a little at a time.

    ``options`` are those of the request.

    Raises:
        aiohttp.ClientPayloadError: Its encoding needs a later aiohttp.
    """
    if options["auto_decompress"]:
        return response.content
    encoding = response.headers.get("Content-Encoding", "").lower()
    if encoding in ("br", "zstd"):
        raise aiohttp.ClientPayloadError(
            f"Can not decode content-encoding: {encoding}. Please install `aiohttp>=3.14`"
        )
    return Decompressed(response.content, encoding) if encoding in ("gzip", "deflate") else response.content


def _wbits(encoding: str, beginning: bytes) -> int:
    """Return what zlib needs to know of a stream: some servers send deflate without its header."""
    if encoding == "gzip":
        return 16 + zlib.MAX_WBITS
    return zlib.MAX_WBITS if beginning[0] & 15 == zlib.DEFLATED else -zlib.MAX_WBITS


def may_have_been_sent(upload: aiohttp.UploadTracker | BlindTracker, error: BaseException) -> bool:
    """Return whether the server may have received any of the request that ended with ``error``.

    Where nothing tracks the upload, this is true of everything that fails after connecting.
    """
    if isinstance(upload, BlindTracker):
        return not isinstance(error, _BEFORE_SENDING)
    # The upload of a request without a body completes with 0 bytes. A second attempt is aiohttp's own, which
    # repeats a GET or DELETE whose connection was lost.
    complete = upload.upload_complete
    went_out = complete.done() and not complete.exception()
    return went_out or upload.bytes_written > 0 or upload.attempts > 1


class Connector(aiohttp.TCPConnector):
    """A connector that drops a pooled connection if an unsolicited response arrived on it.

    With aiohttp's own connector, the next request on it would receive that response, and each later request
    the response to the one before.

    Args:
        sockets: Receives each socket that is opened, since aiohttp 3.12.
    """

    def __init__(self, sockets: WeakSet[socket.socket]) -> None:
        def open_socket(address: aiohttp.AddrInfoType) -> socket.socket:
            family, kind, protocol, *_ = address
            opened = socket.socket(family, kind, protocol)
            sockets.add(opened)
            return opened

        options: dict[str, Any] = {"socket_factory": open_socket} if hasattr(aiohttp, "AddrInfoType") else {}
        # Unlimited, because each client limits its own requests: here, attempts would wait for a connection
        # while their timeout runs.
        super().__init__(limit=0, **options)

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        while pooled := await super()._get(key, traces):
            if not (pooled.protocol and pooled.protocol.should_close):
                return pooled
            pooled.close()
        return None


def reports_resends() -> bool:
    """Return whether aiohttp reports that it has repeated a request by itself."""
    return UploadTracker is not BlindTracker


def stop_resends(session: aiohttp.ClientSession) -> None:
    """Keep ``session`` from repeating a GET or DELETE by itself when a pooled connection drops."""
    session._retry_connection = False


def closing(response: aiohttp.ClientResponse) -> Callable[[], None]:
    """Return a function that closes the connection of ``response``, even if it is in the pool again."""
    return partial(_close, response._protocol)


def _close(protocol: ResponseHandler | None) -> None:
    if protocol is None:
        return
    try:
        asyncio.get_running_loop()
    except RuntimeError:  # in the thread that decodes a long body
        protocol._loop.call_soon_threadsafe(protocol.close)
    else:
        protocol.close()
