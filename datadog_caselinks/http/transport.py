"""Send one HTTP request, read the response up to a limit, and classify failures. Nothing is retried here."""

from __future__ import annotations

import functools
import os
import re
import ssl as tls
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from datadog_caselinks.http.compatibility import (
    OWN_HEADERS,
    BlindTracker,
    Decompressed,
    UploadTracker,
    closing,
    content_of,
    may_have_been_sent,
    request_options,
)
from datadog_caselinks.http.proxies import split_proxy
from datadog_caselinks.http.sessions import SessionManager
from datadog_caselinks.http.trust import Trust, require_verifying
from datadog_caselinks.http.wire import Request, Response
from datadog_caselinks.isolation import is_interruption
from datadog_caselinks.values.credentials import AuthHeaders, Credentials
from datadog_caselinks.values.errors import (
    ConnectError,
    ProxyAuthenticationError,
    RequestTimeoutError,
    StaleConnectionError,
    TLSError,
    TransportError,
)
from datadog_caselinks.values.messages import one_line
from datadog_caselinks.values.parameters import require_seconds
from datadog_caselinks.values.sites import Site

_CONNECT_TIMEOUT: Final = 10.0
"""Seconds to wait for a connection, as part of the timeout. After that, a new attempt is more likely to work.
"""

_TOO_LONG: Final = re.compile(r"Got more than (\d+) bytes")
_CANNOT_DECODE: Final = re.compile(
    r"Can not decode content-encoding: (\w+)(?: \(\w+\))?(?:\. Please install `(\S+)`)?"
)

_FLAWS: Final = {
    "Too many headers": "the response has too many headers",
    "Duplicate Content-Length": "the response has two Content-Length headers",
    "Transfer-Encoding can't": "the response has both Content-Length and Transfer-Encoding",
    "Content-Length": "the Content-Length of the response is not a length",
    "Not enough data": "the response broke off",
}
"""Parts of the messages of aiohttp's parsers, each with a description of the flaw in the response."""


class Transport:
    """A sender of requests to one site with one set of credentials.

    Args:
        site: The site.
        credentials: The credentials.
        sessions: The sessions to send requests with.
        timeout: Seconds for one attempt, from connecting to the last byte of the response.
        proxy: The URL of a proxy, or None. It is not used for a site with ``http``.
        ssl: The TLS settings, or None for the defaults.

    Raises:
        ParameterError: ``timeout``, ``proxy`` or ``ssl`` cannot work.
    """

    def __init__(
        self,
        site: Site,
        credentials: Credentials,
        sessions: SessionManager,
        *,
        timeout: float,
        proxy: str | None,
        ssl: tls.SSLContext | None,
    ) -> None:
        require_seconds("timeout", timeout)
        self._site = site
        self.authenticate: Final = credentials.authenticate
        self._sessions = sessions
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=min(timeout, _CONNECT_TIMEOUT))
        self._proxy, self._proxy_headers = split_proxy(proxy)
        if site.api_url.startswith("http:"):  # on loopback; a proxy would see the keys unencrypted
            self._proxy = None
        require_verifying("ssl", ssl)
        self._trust = Trust.of_parameter(ssl) if isinstance(ssl, tls.SSLContext) else sessions.trust(site)
        self._ssl = self._trust.ssl
        self._url = functools.lru_cache(16)(lambda target: URL(site.api_url + target, encoded=True))
        self._headers = functools.lru_cache(1)(_headers)

    def require_usable(self) -> None:
        """Check that requests can be sent.

        Raises:
            SessionError: The sessions are closed, or belong to another event loop.
        """
        self._sessions.session(self._site)

    async def send(self, request: Request, auth: AuthHeaders) -> Response:
        """Send ``request`` once, and return the response, with any status.

        ``auth`` is what :meth:`authenticate` returned.

        Raises:
            TransportError: No complete response arrived. ``may_have_been_applied`` says whether anything was
                sent.
            SessionError: The sessions are closed, or belong to another event loop.
        """
        session = self._sessions.session(self._site)
        upload = UploadTracker()
        try:
            return await self._exchange(request, session, auth, upload)
        except BaseException as error:
            if is_interruption(error):
                # The same error without the frames and errors below: they contain keys, and responses that
                # may echo the keys.
                error.__context__ = error.__cause__ = None
                raise error.with_traceback(None)  # noqa: B904 - has no cause
            is_sent = may_have_been_sent(upload, error)
            failure = self._failure(request, error, is_sent, auth)
        if not is_sent:
            self.require_usable()  # the request may have failed because the client was closed
        # Raised outside of the except block, so that it does not keep the error of aiohttp: see above.
        raise failure

    async def _exchange(
        self,
        request: Request,
        session: aiohttp.ClientSession,
        auth: AuthHeaders,
        upload: aiohttp.UploadTracker | BlindTracker,
    ) -> Response:
        """Send ``request`` and read the response. No frame of this method may be in a traceback."""
        options = request_options(upload, session)
        response = await session.request(
            request.method,
            self._url(request.target),
            data=request.body,
            headers=self._headers(auth),
            allow_redirects=False,  # a redirect would send the keys to another server
            raise_for_status=False,
            timeout=self._timeout,
            proxy=self._proxy,
            proxy_headers=self._proxy_headers,
            ssl=self._ssl,
            **options,
        )
        limit = request.max_body
        if options["auto_decompress"] and response.content.is_eof():
            # A short body, which arrived with the headers. Where it is empty, a middleware may have read it
            # before: aiohttp keeps what it read.
            body = response.content.read_nowait() or await response.read()
            if len(body) > limit and request.extend:
                limit = await request.extend()
        else:
            async with response:
                body, limit = await _read(content_of(response, options), request)
        return Response(
            request,
            response.status,
            response.headers,
            body[:limit],
            auth.redact,
            is_complete=len(body) <= limit,
            was_resent=upload.attempts > 1,
            disconnect=closing(response),
        )

    def _failure(
        self, request: Request, error: BaseException, is_sent: bool, auth: AuthHeaders
    ) -> TransportError:
        def redact(text: str) -> str:
            for login in self._proxy_headers.values():
                text = text.replace(login.removeprefix("Basic "), "[redacted]")
            return one_line(auth.redact(text))

        try:
            kind, reason = classify(error, is_sent, self._trust, redact, has_proxy=self._proxy is not None)
        except Exception:  # of a session of your own: the text or an attribute of the error cannot be read
            kind, reason = (TransportError if is_sent else ConnectError), _raised(error, redact)
        reason = auth.redact(reason)
        if not is_sent:
            reason = f"{reason}; nothing was sent"
        elif issubclass(kind, ConnectError):  # aiohttp's own second attempt; the first one had connected
            kind, reason = TransportError, f"the connection was lost, and then {reason}"
        via = f" (through the proxy {self._proxy.host}:{self._proxy.port})" if self._proxy else ""
        message = f"cannot {request.action}: {self._site.api_url}{via}: {reason}"
        return kind(message, sent=is_sent) if issubclass(kind, RequestTimeoutError) else kind(message)


def _headers(auth: AuthHeaders) -> CIMultiDict[str]:
    """Return the headers of a request. Cached, because ``auth`` is usually the same object."""
    own = {"Accept": "application/json", "Content-Type": "application/json", **OWN_HEADERS}
    return CIMultiDict({**own, **auth.headers})


async def _read(content: aiohttp.StreamReader | Decompressed, request: Request) -> tuple[bytes, int]:
    """Read the body until it exceeds the limit. Return what was read, and the limit."""
    chunks, size, limit = [], 0, request.max_body
    while chunk := await content.readany():
        chunks.append(chunk)
        size += len(chunk)
        if size > limit and request.extend:
            limit = await request.extend()
        if size > limit:
            break
    return b"".join(chunks), limit


def classify(
    error: BaseException,
    is_sent: bool,
    trust: Trust,
    redact: Callable[[str], str] = str,
    *,
    has_proxy: bool,
) -> tuple[type[TransportError], str]:
    """Return the class and the reason of the error that corresponds to ``error``.

    The status of ``error`` is ignored: aiohttp reports an invalid status line as 400. ``redact`` removes the
    keys from a text that is not our own. ``has_proxy`` says whether the client connects to a proxy.
    """
    advice = f"check the {'proxy' if has_proxy else 'site'} and the network"
    match error:
        case aiohttp.ClientConnectorCertificateError():
            reason = getattr(error.certificate_error, "verify_message", "no reason given").rstrip(".")
            return (
                TLSError,
                f"its certificate is not trusted ({reason}): {trust.advice(error.certificate_error)}",
            )
        case aiohttp.ClientConnectorSSLError():
            return TLSError, f"the TLS handshake failed ({_describe(error.os_error, redact)})"
        case aiohttp.ClientHttpProxyError(status=407):
            return (
                ProxyAuthenticationError,
                "the proxy requires other credentials (407): check the user and password in its URL",
            )
        case aiohttp.ClientHttpProxyError():
            return ConnectError, f"the proxy responded with {error.status}"
        case aiohttp.ClientConnectorDNSError():
            return ConnectError, f"the host name was not found: {advice}"
        case aiohttp.ClientConnectorError():
            return ConnectError, f"{_describe(error.os_error, redact)}: {advice}"
        case aiohttp.ConnectionTimeoutError():
            return ConnectError, "connecting took too long: check the network"
        case (
            aiohttp.ClientConnectionResetError()
            | aiohttp.ClientOSError(__cause__=aiohttp.ClientConnectionResetError())
        ) if not is_sent:
            return StaleConnectionError, "the server had closed the connection"
        case TimeoutError():
            return RequestTimeoutError, "no response within the timeout"
        case aiohttp.ClientPayloadError():
            reason = _describe_flaw(error, "the response is incomplete or damaged")
        case aiohttp.ClientResponseError():
            reason = _describe_flaw(error, "the response is not valid HTTP")
        case OSError() if not is_sent:  # of a connector that is not aiohttp's own
            reason = _describe(error, redact)
        case aiohttp.ClientError() | OSError():
            reason = (
                "the connection was lost before a response arrived" if is_sent else "the connection was lost"
            )
        case _:
            reason = _raised(error, redact)
    return TransportError if is_sent else ConnectError, reason


def _describe_flaw(error: aiohttp.ClientError, default: str) -> str:
    """Return what is wrong with the response that aiohttp could not read, in words that do not quote it."""
    text = str(getattr(error.__cause__, "message", error))
    first_line = text.partition("\n")[0]
    if found := _TOO_LONG.match(first_line):
        return f"a header of the response is longer than {int(found[1]):,} bytes"
    if found := _CANNOT_DECODE.search(first_line):
        needed = f", which needs the package {found[2]}" if found[2] else ", and its body is not"
        return f"the content encoding of the response is {found[1]}{needed}"
    return next((reason for sign, reason in _FLAWS.items() if sign in first_line), default)


def _raised(error: BaseException, redact: Callable[[str], str]) -> str:
    """Return the class, the text and the place of ``error``. Its traceback would show the keys."""
    try:
        text = redact(str(error))
    except Exception:
        text = ""
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    described = ": ".join(filter(None, [type(error).__name__, text]))
    place = f"{Path(frame.f_code.co_filename).name}:{line}"
    return f"aiohttp, or a connector, middleware or hook of its session, raised {described} ({place})"


def _describe(error: OSError, redact: Callable[[str], str]) -> str:
    """Return the system's description of ``error``. The text of asyncio's errors only repeats the address."""
    if isinstance(error, tls.SSLError):
        return str(getattr(error, "reason", None) or error).replace("_", " ").lower()
    if getattr(error, "winerror", None):  # on Windows errno is often EINVAL, whatever happened
        return str(error.strerror).rstrip(".").lower()
    # Libraries also raise OSError("why", "more"), and the numbers of a failed name lookup are below 0.
    if isinstance(error.errno, int) and error.errno > 0:
        return os.strerror(error.errno).lower()
    return (redact(str(error)) or re.sub("(?<=[a-z])(?=[A-Z])", " ", type(error).__name__)).lower()
