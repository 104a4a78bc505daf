"""The hierarchy of errors, and after which of them the request may have been applied.

::

    CaseLinksError
    ├── InvalidLinkError              refused before sending (also a ValueError)
    ├── ConfigurationError            site or credentials missing or malformed (also a ValueError)
    ├── ParameterError                an argument that cannot work (also a ValueError and a TypeError)
    ├── LinkFileError                 a file that is not a list of links (also a ValueError)
    ├── CycleError                    the links contain a cycle, so they give no order
    ├── JournalError                  a journal in use, of another site, or unusable
    ├── FleetError                    a fleet's database is unreachable, or has no fleet tables
    ├── SessionError                  closed, or another event loop's (also a RuntimeError)
    ├── TransportError                no response
    │   ├── ConnectError              never sent: refused, DNS, connect or handshake timeout
    │   │   ├── StaleConnectionError  never sent: the server had closed the pooled connection
    │   │   ├── TLSError              the certificate or the handshake was refused
    │   │   └── ProxyAuthenticationError  the proxy requires other credentials
    │   └── RequestTimeoutError       out of time (also a TimeoutError); see ``sent``
    ├── AmbiguousResultError          sent, and the client could not find out whether it was applied
    ├── MalformedResponseError        a response without the requested content
    │   ├── IncompleteListError       a list that does not show whether a link exists
    │   └── ResponseTooLargeError     a response that is longer than the client reads
    └── ResponseError                 a response with a status other than success
        ├── BadRequestError           400, 422
        ├── AuthenticationError       401
        ├── PermissionDeniedError     403
        ├── NotFoundError             404
        ├── ConflictError             409
        ├── RateLimitError            429
        └── ServerError               5xx

Every failed attempt is one of three; ``error.may_have_been_applied`` is true for the last:

- *never sent*: ``ConnectError`` and its subclasses, ``RequestTimeoutError`` without ``sent``, and every error
  listed before ``TransportError``, which the client raises itself;
- *rejected*: every ``ResponseError`` but 408 and 5xx;
- *ambiguous*: 408, 5xx, ``MalformedResponseError``, any other ``TransportError``.

``AmbiguousResultError`` is about a whole call, not about one attempt: the only error of a create after which
the link may exist. If a create raises another error, no attempt was ambiguous, or a lookup after the last
such attempt did not find the link.

Which error for bad input: ``InvalidLinkError`` is about a link or an entity, ``LinkFileError`` about a file,
``ConfigurationError`` about the site, the credentials or what is installed, and ``ParameterError`` about any
other argument.

Every error can be pickled with its attributes, and none contains a key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from datadog_caselinks.values.base_errors import CaseLinksError as CaseLinksError
from datadog_caselinks.values.base_errors import ConfigurationError as ConfigurationError
from datadog_caselinks.values.base_errors import InvalidLinkError as InvalidLinkError
from datadog_caselinks.values.base_errors import ParameterError as ParameterError
from datadog_caselinks.values.models import CaseLink, NewCaseLink
from datadog_caselinks.values.rate_limit import RateLimit


class LinkFileError(CaseLinksError, ValueError):
    """A file that is not a list of links: empty, binary, or without the required columns."""


class CycleError(CaseLinksError):
    """The links contain a cycle, so they give no order.

    ``links`` is the cycle: the child of the last link is the parent of the first.
    """

    def __init__(self, message: str, *, links: tuple[CaseLink, ...]) -> None:
        super().__init__(message)
        self.links = links


class JournalError(CaseLinksError):
    """A journal cannot be used: another run has it open, it is of another site, or it is not a journal."""


class FleetError(CaseLinksError):
    """The database of a fleet cannot be used: it is unreachable, refuses, or has no fleet tables."""


class SessionError(CaseLinksError, RuntimeError):
    """A client or session manager was used after it was closed, or from another event loop."""


class TransportError(CaseLinksError):
    """No response arrived. ``may_have_been_applied`` says whether the server may have got the request."""

    @property
    def may_have_been_applied(self) -> bool:
        """Whether the server may have carried out the request: something of it was sent."""
        return True


class ConnectError(TransportError):
    """No connection, so nothing was sent: it was refused, the host is unknown, or it took too long."""

    @property
    def may_have_been_applied(self) -> bool:
        """Always false: nothing was sent."""
        return False


class StaleConnectionError(ConnectError):
    """The server had closed the pooled connection before anything was sent on it."""


class TLSError(ConnectError):
    """The TLS handshake failed, usually because the certificate is not trusted. Not retried."""


class ProxyAuthenticationError(ConnectError):
    """The proxy responded with 407: it requires credentials, or other ones. Not retried."""


class RequestTimeoutError(TransportError, TimeoutError):
    """An attempt took longer than the client's ``timeout``. ``sent`` says whether anything was sent."""

    def __init__(self, message: str, *, sent: bool = False) -> None:
        super().__init__(message)
        self.sent = sent

    @property
    def may_have_been_applied(self) -> bool:
        """Whether the server may have carried out the request: something of it was sent."""
        return self.sent


class AmbiguousResultError(CaseLinksError):
    """The request was sent, and the client could not find out whether the link was created.

    ``new`` is the link that was requested, ``reason`` the error that left the result open. List the links of
    ``new.parent`` before creating it again: the link may exist.
    """

    def __init__(self, message: str, *, new: NewCaseLink, reason: CaseLinksError) -> None:
        super().__init__(message)
        self.new = new
        self.reason = reason

    @property
    def may_have_been_applied(self) -> bool:
        """Always true."""
        return True


class MalformedResponseError(CaseLinksError):
    """A successful response without the requested content. ``body`` is its beginning."""

    def __init__(self, message: str, *, body: str) -> None:
        super().__init__(message)
        self.body = body

    @property
    def may_have_been_applied(self) -> bool:
        """Always true: the status says success."""
        return True


class IncompleteListError(MalformedResponseError):
    """A lookup did not find a link, but members of the list cannot be read, and may be this link."""


class ResponseTooLargeError(MalformedResponseError):
    """A response that is longer than the client reads: 16 MiB for a list, 64 KiB for a create, else
    1 MiB.

    A list of 16 MiB has about 40,000 links. A list of more than 1,048,576 JSON values, twice the number in
    40,000 links, raises this error too.
    """


class ResponseError(CaseLinksError):
    """The server responded with a status other than success.

    ``status``
        The HTTP status.
    ``errors``
        What the server reported, one string for each error; may be empty.
    ``raw_errors``
        The members of the response's ``errors``, unchanged: strings or JSON objects.
    ``retry_after``
        Seconds to wait before the next request, if the server said so: ``Retry-After``, and for a 429 the end
        of the rate-limit window. The later of the two applies.
    ``rate_limit``
        The rate-limit headers of the response, if there were any.
    ``headers``
        All headers of the response. Keys in them are redacted, repeated ones are joined by ``", "``.
    ``request_id``
        The id of the request in the logs of the server or a proxy, from a header of the response. ``None``
        without such a header.
    ``body``
        The beginning of the body as text, at most 1,000 characters.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        errors: tuple[str, ...] = (),
        raw_errors: tuple[Any, ...] = (),
        retry_after: float | None = None,
        rate_limit: RateLimit | None = None,
        headers: Mapping[str, str] | None = None,
        request_id: str | None = None,
        body: str = "",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.errors = errors
        self.raw_errors = raw_errors
        self.retry_after = retry_after
        self.rate_limit = rate_limit
        self.headers: Mapping[str, str] = headers or {}
        self.request_id = request_id
        self.body = body

    @property
    def may_have_been_applied(self) -> bool:
        """Whether the server may have carried out the request: its status does not say that it refused."""
        return self.status == 408 or self.status >= 500


_FINISHED: Final = frozenset({408, 500, 501, 503})
"""Statuses with which a server reports that it has stopped processing the request. With 502, 504 and others,
a gateway reports this about itself, and the server behind it may still be at work on the request."""


def may_be_at_work(error: CaseLinksError) -> bool:
    """Return whether a server may still be at work on a request that ended ambiguously with ``error``."""
    return not (isinstance(error, ResponseError) and error.status in _FINISHED)


class BadRequestError(ResponseError):
    """400 or 422: the server refused the request as invalid."""


class AuthenticationError(ResponseError):
    """401: this site did not accept the credentials."""


class PermissionDeniedError(ResponseError):
    """403: the credentials are valid, and lack a scope, or access to a project or incident."""


class NotFoundError(ResponseError):
    """404: an entity or link that does not exist, or that these credentials cannot access."""


class ConflictError(ResponseError):
    """409: the request contradicts what exists, such as an equal link.

    ``existing`` is the equal link; ``None`` if the error is not of a create, or the lookup did not find one.
    """

    existing: CaseLink | None = None


class RateLimitError(ResponseError):
    """429: over the rate limit. Nothing was applied.

    The client also raises it without sending a request, if the wait for the limit would exceed ``max_wait``.
    """


class ServerError(ResponseError):
    """5xx: the server or a gateway failed, and the server may have carried out the request."""
