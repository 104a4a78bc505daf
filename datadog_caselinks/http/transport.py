"""Send one HTTP request, read the response up to a limit, and classify failures. Nothing is retried here."""

from __future__ import annotations

import asyncio
import functools
import math
import os
import re
import ssl as tls
from base64 import b64encode
from typing import Final

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from datadog_caselinks.base_errors import ParameterError
from datadog_caselinks.credentials import AuthHeaders, Credentials
from datadog_caselinks.errors import (
    ConnectError,
    ProxyAuthenticationError,
    RequestTimeoutError,
    StaleConnectionError,
    TLSError,
    TransportError,
)
from datadog_caselinks.http.sessions import SessionManager, closing
from datadog_caselinks.http.wire import Request, Response
from datadog_caselinks.messages import quoted
from datadog_caselinks.sites import Site

_CONNECT_TIMEOUT: Final = 10.0
"""Seconds to wait for a connection, as part of the timeout. After that, a new attempt is more likely to work.
"""


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
        ParameterError: ``timeout`` or ``proxy`` cannot work.
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
        if not 0 < timeout < math.inf:
            raise ParameterError(f"timeout must be a number of seconds greater than 0, not {quoted(timeout)}")
        self._site = site
        self._credentials = credentials
        self._sessions = sessions
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=min(timeout, _CONNECT_TIMEOUT))
        self._proxy, self._proxy_headers = _split_proxy(proxy)
        if site.api_url.startswith("http:"):  # on loopback; a proxy would see the keys unencrypted
            self._proxy = None
        self._ssl = True if ssl is None else ssl
        self._url = functools.lru_cache(16)(lambda target: URL(site.api_url + target, encoded=True))
        self._headers = functools.lru_cache(1)(_headers)

    def require_usable(self) -> None:
        """Check that requests can be sent.

        Raises:
            SessionError: The sessions are closed, or belong to another event loop.
        """
        self._sessions.session(self._site)

    async def send(self, request: Request) -> Response:
        """Send ``request`` once, and return the response, whatever its status is.

        Raises:
            TransportError: No complete response arrived. ``may_have_been_applied`` says whether anything was
                sent.
            SessionError: The sessions are closed, or belong to another event loop.
            ConfigurationError: The credentials could not be read.
        """
        auth = await self._credentials.authenticate()
        session = self._sessions.session(self._site)
        upload = aiohttp.UploadTracker()
        try:
            response = await session.request(
                request.method,
                self._url(request.target),
                data=request.body,
                headers=self._headers(auth),
                allow_redirects=False,  # a redirect would send the keys to another server
                raise_for_status=False,
                auto_decompress=True,
                timeout=self._timeout,
                proxy=self._proxy,
                proxy_headers=self._proxy_headers,
                ssl=self._ssl,
                upload_tracker=upload,
            )
            if response.content.is_eof():  # a short body that arrived with the headers
                body = response.content.read_nowait()
            else:
                async with response:
                    body = await _read(response, request.max_body)
            return Response(
                request,
                response.status,
                response.headers,
                body[: request.max_body],
                auth.redact,
                is_complete=len(body) <= request.max_body,
                was_resent=upload.attempts > 1,
                disconnect=closing(response),
            )
        except asyncio.CancelledError as error:
            raise error.with_traceback(None)  # noqa: B904 - the same error, without aiohttp's frames
        except (aiohttp.ClientError, OSError) as error:  # a TimeoutError is an OSError
            is_sent = _may_have_been_sent(upload)
            failure = self._failure(request, error, is_sent)
        if not is_sent:
            self.require_usable()  # the request may have failed because the client was closed
        # Raised outside of the except block, so that it does not keep aiohttp's error, whose frames contain
        # the keys.
        raise failure

    def _failure(self, request: Request, error: Exception, is_sent: bool) -> TransportError:
        kind, reason = _classify(error, is_sent)
        if not is_sent:
            reason = f"{reason}; nothing was sent"
        elif issubclass(kind, ConnectError):  # aiohttp's own second attempt; the first one had connected
            kind, reason = TransportError, f"the connection was lost, and then {reason}"
        via = f" (through the proxy {self._proxy.host}:{self._proxy.port})" if self._proxy else ""
        message = f"cannot {request.action}: {self._site.api_url}{via}: {reason}"
        return kind(message, sent=is_sent) if issubclass(kind, RequestTimeoutError) else kind(message)


def _headers(auth: AuthHeaders) -> CIMultiDict[str]:
    """Return the headers of a request. Cached, because ``auth`` is usually the same object."""
    own = {"Accept": "application/json", "Content-Type": "application/json"}
    return CIMultiDict({**own, **auth.headers})


def _may_have_been_sent(upload: aiohttp.UploadTracker) -> bool:
    """Return whether anything of the request may have reached the server.

    The upload of a request without a body completes with 0 bytes. A second attempt is aiohttp's own, which
    repeats a GET or DELETE whose connection was lost.
    """
    complete = upload.upload_complete
    went_out = complete.done() and not complete.exception()
    return went_out or upload.bytes_written > 0 or upload.attempts > 1


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Return the body, or a little more than its first ``limit`` bytes: aiohttp itself has no limit."""
    chunks, size = [], 0
    async for chunk in response.content.iter_any():
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            break
    return b"".join(chunks)


def _classify(error: Exception, is_sent: bool) -> tuple[type[TransportError], str]:
    """Return the class and the reason of the error that corresponds to aiohttp's ``error``.

    The status of ``error`` is ignored: aiohttp reports an invalid status line as 400.
    """
    match error:
        case aiohttp.ClientConnectorCertificateError():
            reason = getattr(error.certificate_error, "verify_message", "no reason given").rstrip(".")
            advice = (
                "check the site" if "mismatch" in reason else "set SSL_CERT_FILE to your CA, or pass ssl="
            )
            return TLSError, f"its certificate is not trusted ({reason}): {advice}"
        case aiohttp.ClientConnectorSSLError():
            return TLSError, f"the TLS handshake failed ({_describe(error.os_error)})"
        case aiohttp.ClientHttpProxyError(status=407):
            return (
                ProxyAuthenticationError,
                "the proxy requires other credentials (407): check the user and password in its URL",
            )
        case aiohttp.ClientHttpProxyError():
            return ConnectError, f"the proxy responded with {error.status}"
        case aiohttp.ClientConnectorDNSError():
            return (
                ConnectError,
                "the host name was not found: check the site and the network",
            )
        case aiohttp.ClientConnectorError():
            return ConnectError, f"{_describe(error.os_error)}: check the site and the network"
        case aiohttp.ConnectionTimeoutError():
            return ConnectError, "connecting took too long: check the network"
        case aiohttp.ClientOSError(errno=None) if not is_sent:
            return StaleConnectionError, "the server had closed the connection"
        case TimeoutError():
            return RequestTimeoutError, "no response within the timeout"
        case _ if not is_sent:
            return ConnectError, "the connection was lost"
        case aiohttp.ClientPayloadError():
            return TransportError, "the response is incomplete or damaged"
        case aiohttp.ClientResponseError():
            return TransportError, "the response is not valid HTTP"
        case _:
            return TransportError, "the connection was lost before a response arrived"


def _describe(error: OSError) -> str:
    """Return the system's description of ``error``. The text of asyncio's errors only repeats the address."""
    if isinstance(error, tls.SSLError):
        return str(error.reason or error).replace("_", " ").lower()
    if error.errno:
        return os.strerror(error.errno).lower()
    return (str(error) or re.sub("(?<=[a-z])(?=[A-Z])", " ", type(error).__name__)).lower()


def _split_proxy(proxy: str | None) -> tuple[URL | None, dict[str, str]]:
    """Return the URL of the proxy without its credentials, which errors would show, and its headers."""
    if proxy is None:
        return None, {}
    try:
        url = URL(proxy)
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise ParameterError("proxy must be a URL such as http://proxy.example:3128")
    login = f"{url.user or ''}:{url.password or ''}".encode()
    headers = {} if login == b":" else {"Proxy-Authorization": f"Basic {b64encode(login).decode()}"}
    return url.with_user(None), headers
