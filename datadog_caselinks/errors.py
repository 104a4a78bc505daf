"""The one tree of errors. Knows the models and the rate limit, and decides nothing.

::

    CaseLinksError
    ├── InvalidLinkError              refused before sending (also a ValueError)
    ├── ConfigurationError            site or credentials missing or malformed (also a ValueError)
    ├── ParameterError                an argument that cannot work (also a ValueError)
    ├── LinkFileError                 a file that is not a list of links (also a ValueError)
    ├── CycleError                    the links contain a cycle, so they give no order
    ├── JournalError                  a journal in use, of another site, or unusable
    ├── FleetError                    a fleet's database is unreachable, or has no fleet tables
    ├── SessionError                  closed, or another event loop's (also a RuntimeError)
    ├── TransportError                no answer
    │   ├── ConnectError              never sent: refused, DNS, connect or handshake timeout
    │   │   ├── StaleConnectionError  never sent: the server had closed the pooled connection
    │   │   ├── TLSError              the certificate or the handshake was refused
    │   │   └── ProxyAuthenticationError  the proxy wants other credentials
    │   └── RequestTimeoutError       our time ran out before anything was sent
    ├── AmbiguousResultError          sent, and whether it was applied could not be learned
    ├── MalformedResponseError        an answer that is no link
    │   └── ResponseTooLargeError     an answer that is longer than is read
    └── ResponseError                 an answer with another status than success
        ├── BadRequestError           400, 422
        ├── AuthenticationError       401
        ├── PermissionDeniedError     403
        ├── NotFoundError             404
        ├── ConflictError             409
        ├── RateLimitError          429
        └── ServerError               5xx

Which error for bad input: ``InvalidLinkError`` is about a link or an entity, ``LinkFileError`` about a file,
``ConfigurationError`` about the site, the credentials or what is installed, and ``ParameterError`` about any
other argument.

Every error can be pickled with its attributes, and none contains a key.
"""

from __future__ import annotations

from typing import Any

from datadog_caselinks.base_errors import CaseLinksError as CaseLinksError
from datadog_caselinks.base_errors import ConfigurationError as ConfigurationError
from datadog_caselinks.base_errors import InvalidLinkError as InvalidLinkError
from datadog_caselinks.base_errors import ParameterError as ParameterError
from datadog_caselinks.models import CaseLink, NewCaseLink
from datadog_caselinks.rate_limit import RateLimit


class LinkFileError(CaseLinksError, ValueError):
    """A file as a whole is no list of links: empty, binary, or without the columns that are needed."""


class CycleError(CaseLinksError):
    """Links that were to give an order go round. ``links`` is the cycle, its last child its first parent."""

    def __init__(self, message: str, *, links: tuple[CaseLink, ...]) -> None:
        super().__init__(message)
        self.links = links


class JournalError(CaseLinksError):
    """A journal cannot be used: another run has it, it is of another site, or it is no journal at all."""


class FleetError(CaseLinksError):
    """The database of a fleet cannot be used: it is away, refuses, or has not the tables."""


class SessionError(CaseLinksError, RuntimeError):
    """A client or session manager was used after it was closed, or from another event loop."""


class TransportError(CaseLinksError):
    """No answer came. Unless it is one of the subclasses, the server may have received the request."""


class ConnectError(TransportError):
    """No connection, so nothing was sent: refused, an unknown host, or a connect or handshake timeout."""


class StaleConnectionError(ConnectError):
    """The server had closed the pooled connection before anything was sent on it."""


class TLSError(ConnectError):
    """The TLS handshake failed: mostly a certificate that is not trusted. Not retried."""


class ProxyAuthenticationError(ConnectError):
    """The proxy answered 407: it wants credentials, or other ones. Not retried."""


class RequestTimeoutError(TransportError):
    """The time allowed for an attempt ran out before anything was sent."""


class AmbiguousResultError(CaseLinksError):
    """The link was sent, and whether it was made could not be learned.

    ``new`` is the link as it was asked for, ``reason`` the error that left it open. List the links of
    ``new.parent`` to see whether it is there, before creating it again.
    """

    def __init__(self, message: str, *, new: NewCaseLink, reason: CaseLinksError) -> None:
        super().__init__(message)
        self.new = new
        self.reason = reason


class MalformedResponseError(CaseLinksError):
    """The answer says success and yet is no link, or no list of links. ``body`` is its beginning."""

    def __init__(self, message: str, *, body: str) -> None:
        super().__init__(message)
        self.body = body


class ResponseTooLargeError(MalformedResponseError):
    """The answer is longer than what is read: 16 MiB of a list, some 40,000 links, and 1 MiB of another."""


class ResponseError(CaseLinksError):
    """The server answered with a status that is no success.

    ``status``
        The HTTP status.
    ``errors``
        What the server said, one string for each error, as it came; may be empty.
    ``raw_errors``
        The members of the answer's ``errors`` as they came: strings or JSON objects.
    ``retry_after``
        Seconds to wait before asking again, if the server said so: ``Retry-After``, and for a 429 the end of
        the rate-limit window, whichever is later.
    ``rate_limit``
        The rate-limit headers of the answer, if there were any.
    ``body``
        The beginning of the body as text, 1,000 characters at most.
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
        body: str = "",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.errors = errors
        self.raw_errors = raw_errors
        self.retry_after = retry_after
        self.rate_limit = rate_limit
        self.body = body


class BadRequestError(ResponseError):
    """400 or 422: the server refused the request as wrong."""


class AuthenticationError(ResponseError):
    """401: the credentials were not accepted by this site."""


class PermissionDeniedError(ResponseError):
    """403: the credentials are known but lack a permission or scope."""


class NotFoundError(ResponseError):
    """404: an entity or link that is not there."""


class ConflictError(ResponseError):
    """409: it contradicts what is there, such as a link that exists already.

    ``existing`` is the link that is there already, where the error is of a create and there is one.
    """

    existing: CaseLink | None = None


class RateLimitError(ResponseError):
    """429: over the rate limit. Nothing was applied."""


class ServerError(ResponseError):
    """5xx: the server failed, and may have applied the request."""
