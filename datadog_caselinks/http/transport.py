"""One HTTP attempt: a request out, an answer with a capped body in, a failure classified. Decides nothing."""

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

from datadog_caselinks.credentials import AuthHeaders, Credentials
from datadog_caselinks.errors import (
    ConfigurationError,
    ConnectError,
    ProxyAuthenticationError,
    RequestTimeoutError,
    StaleConnectionError,
    TLSError,
    TransportError,
)
from datadog_caselinks.http.sessions import SessionManager
from datadog_caselinks.http.wire import Answer, Request
from datadog_caselinks.sites import Site

_CONNECT_TIMEOUT: Final = 10.0
"""Seconds for connecting, within the time of the attempt: beyond it another try is worth more."""


class Transport:
    """Sends requests to one site with one set of credentials.

    ``timeout`` is in seconds and bounds an attempt from connecting to the last byte of the answer.
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
            raise ConfigurationError(f"timeout must be a number of seconds above 0, not {timeout!r}")
        self._site = site
        self._credentials = credentials
        self._sessions = sessions
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=min(timeout, _CONNECT_TIMEOUT))
        self._proxy, self._proxy_headers = _proxy_and_login(proxy)
        if site.api_url.startswith("http:"):  # on loopback: a proxy would be told the keys in the clear
            self._proxy = None
        self._ssl = True if ssl is None else ssl
        self._url = functools.lru_cache(16)(lambda target: URL(site.api_url + target, encoded=True))
        self._headers = functools.lru_cache(1)(_headers)

    def require_usable(self) -> None:
        """Raise :class:`SessionError` where a request could not be sent at all."""
        self._sessions.session(self._site)

    async def send(self, request: Request) -> Answer:
        """Make one attempt.

        Raises :class:`ConnectError` or :class:`RequestTimeoutError` if nothing was sent, and a plain
        :class:`TransportError` if it may have been. Whatever the server answers is an :class:`Answer`.
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
                allow_redirects=False,  # a redirect would carry the keys to wherever it points
                raise_for_status=False,
                auto_decompress=True,
                timeout=self._timeout,
                proxy=self._proxy,
                proxy_headers=self._proxy_headers,
                ssl=self._ssl,
                upload_tracker=upload,
            )
            if response.content.is_eof():  # a short one came together with the headers, and is done with
                body = response.content.read_nowait()
            else:
                async with response:
                    body = await _read(response, request.max_body)
            return Answer(
                request,
                response.status,
                response.headers,
                body[: request.max_body],
                auth.redact,
                complete=len(body) <= request.max_body,
                resent=upload.attempts > 1,
            )
        except asyncio.CancelledError as error:
            raise error.with_traceback(None)  # noqa: B904 - it is the same one, without aiohttp's frames
        except (aiohttp.ClientError, OSError) as error:
            is_sent = _may_have_been_sent(upload)
            failure = self._failure(request, error, is_sent)
        if not is_sent:
            self.require_usable()  # closing the client is what ended it, then
        # Raised out here so that aiohttp's error and frames, which hold the keys, do not hang on to it.
        raise failure

    def _failure(self, request: Request, error: Exception, is_sent: bool) -> TransportError:
        kind, reason = _classify(error, is_sent)
        if not is_sent:
            reason = f"{reason}; nothing was sent"
        elif issubclass(kind, ConnectError):  # of aiohttp's own second attempt: the first had connected
            kind, reason = TransportError, f"the connection was lost, and then {reason}"
        via = f" (through the proxy {self._proxy.host}:{self._proxy.port})" if self._proxy else ""
        return kind(f"cannot {request.about}: {self._site.api_url}{via}: {reason}")


def _headers(auth: AuthHeaders) -> CIMultiDict[str]:
    """The headers of a request; of the same credentials they are the same object, so this is called once."""
    own = {"Accept": "application/json", "Content-Type": "application/json"}
    return CIMultiDict({**own, **auth.headers})


def _may_have_been_sent(upload: aiohttp.UploadTracker) -> bool:
    """Whether anything of the request may have reached the server.

    A request without a body uploads no byte, but completes. A second attempt is aiohttp's own, which it
    makes of a GET or DELETE whose connection dropped.
    """
    complete = upload.upload_complete
    went_out = complete.done() and not complete.exception()
    return went_out or upload.bytes_written > 0 or upload.attempts > 1


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body, or more than ``limit`` bytes of it; aiohttp itself knows no bound."""
    chunks, size = [], 0
    async for chunk in response.content.iter_any():
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            break
    return b"".join(chunks)


def _classify(error: Exception, is_sent: bool) -> tuple[type[TransportError], str]:
    """What ``error`` of aiohttp means, and how to say it.

    Statuses are not taken from here: aiohttp raises a garbage status line as a "400".
    """
    match error:
        case aiohttp.ClientConnectorCertificateError():
            reason = getattr(error.certificate_error, "verify_message", "no reason given").rstrip(".")
            cure = "check the site" if "mismatch" in reason else "set SSL_CERT_FILE to your CA, or pass ssl="
            return TLSError, f"its certificate is not trusted ({reason}): {cure}"
        case aiohttp.ClientConnectorSSLError():
            return TLSError, f"the TLS handshake failed ({_words(error.os_error)})"
        case aiohttp.ClientHttpProxyError(status=407):
            return (
                ProxyAuthenticationError,
                "the proxy wants other credentials (407): check user and password in its URL",
            )
        case aiohttp.ClientHttpProxyError():
            return ConnectError, f"the proxy answered {error.status}"
        case aiohttp.ClientConnectorDNSError():
            return (
                ConnectError,
                "the host name was not found: check the site and the network",
            )
        case aiohttp.ClientConnectorError():
            return ConnectError, f"{_words(error.os_error)}: check the site and the network"
        case aiohttp.ConnectionTimeoutError():
            return ConnectError, "connecting took too long: check the network"
        case aiohttp.ClientOSError(errno=None) if not is_sent:
            return StaleConnectionError, "the server had closed the connection"
        case TimeoutError() if not is_sent:
            return RequestTimeoutError, "the time ran out"
        case TimeoutError():
            return TransportError, "no answer within the time allowed"
        case _ if not is_sent:
            return ConnectError, "the connection was lost"
        case aiohttp.ClientPayloadError():
            return TransportError, "the answer broke off or was garbled"
        case aiohttp.ClientResponseError():
            return TransportError, "what came back is no HTTP"
        case _:
            return TransportError, "the connection was lost before an answer came"


def _words(error: OSError) -> str:
    """What the system says; asyncio's own text names the address once more instead."""
    if isinstance(error, tls.SSLError):
        return str(error.reason or error).replace("_", " ").lower()
    if error.errno:
        return os.strerror(error.errno).lower()
    return (str(error) or re.sub("(?<=[a-z])(?=[A-Z])", " ", type(error).__name__)).lower()


def _proxy_and_login(proxy: str | None) -> tuple[URL | None, dict[str, str]]:
    """The proxy, and the header with its login: aiohttp's errors quote the URL, and spans quote them."""
    if proxy is None:
        return None, {}
    try:
        url = URL(proxy)
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigurationError("proxy must be a URL such as http://proxy.example:3128")
    login = f"{url.user or ''}:{url.password or ''}".encode()
    headers = {} if login == b":" else {"Proxy-Authorization": f"Basic {b64encode(login).decode()}"}
    return url.with_user(None), headers
