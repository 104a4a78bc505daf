"""Links Datadog cases, incidents and pages: an async client with safe retries."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datadog_caselinks.bulk.create_links import AlreadyLinked, Created, Failed, Outcome
    from datadog_caselinks.bulk.journal_file import JournalRecord, read_journal
    from datadog_caselinks.bulk.link_files import LinkFileFormat, LinkLine, MalformedLine, read_link_file
    from datadog_caselinks.client import CaseLinksClient, ClientOptions
    from datadog_caselinks.concurrency import OnProgress
    from datadog_caselinks.credentials import ApiKeys, BearerToken, Credentials
    from datadog_caselinks.errors import (
        AmbiguousResultError,
        AuthenticationError,
        BadRequestError,
        CaseLinksError,
        ConfigurationError,
        ConflictError,
        ConnectError,
        CycleError,
        FleetError,
        InvalidLinkError,
        JournalError,
        LinkFileError,
        MalformedResponseError,
        NotFoundError,
        ParameterError,
        PermissionDeniedError,
        ProxyAuthenticationError,
        RateLimitError,
        RequestTimeoutError,
        ResponseError,
        ResponseTooLargeError,
        ServerError,
        SessionError,
        StaleConnectionError,
        TLSError,
        TransportError,
    )
    from datadog_caselinks.events import (
        Call,
        CallEvent,
        CallFinished,
        CallReconciled,
        CallRetrying,
        CallStarted,
        CallWaiting,
        OnEvent,
    )
    from datadog_caselinks.graph.contradictions import Contradiction, ContradictionKind
    from datadog_caselinks.graph.link_graph import LinkGraph
    from datadog_caselinks.graph.plan import Deleted, LinkPlan, NotDeleted, PlanOutcome
    from datadog_caselinks.http.sessions import SessionManager
    from datadog_caselinks.models import (
        Case,
        CaseLink,
        Entity,
        EntityType,
        LinkStatus,
        NewCaseLink,
        Relationship,
        agent_conversation,
        case,
        incident,
        page,
    )
    from datadog_caselinks.rate_limit import RateLimit
    from datadog_caselinks.references import (
        CaseKey,
        LinkReference,
        Reference,
        Resolver,
        WantedLink,
        parse_link,
        parse_reference,
    )
    from datadog_caselinks.retry import RetryPolicy
    from datadog_caselinks.sites import Site
else:  # checkers would take every misspelt name for one that is there

    def __getattr__(name: str) -> object:
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
        return value


__all__ = [
    "AlreadyLinked",
    "AmbiguousResultError",
    "ApiKeys",
    "AuthenticationError",
    "BadRequestError",
    "BearerToken",
    "Call",
    "CallEvent",
    "CallFinished",
    "CallReconciled",
    "CallRetrying",
    "CallStarted",
    "CallWaiting",
    "Case",
    "CaseKey",
    "CaseLink",
    "CaseLinksClient",
    "CaseLinksError",
    "ClientOptions",
    "ConfigurationError",
    "ConflictError",
    "ConnectError",
    "Contradiction",
    "ContradictionKind",
    "Created",
    "Credentials",
    "CycleError",
    "Deleted",
    "Entity",
    "EntityType",
    "Failed",
    "FleetError",
    "InvalidLinkError",
    "JournalError",
    "JournalRecord",
    "LinkFileError",
    "LinkFileFormat",
    "LinkGraph",
    "LinkLine",
    "LinkPlan",
    "LinkReference",
    "LinkStatus",
    "MalformedLine",
    "MalformedResponseError",
    "NewCaseLink",
    "NotDeleted",
    "NotFoundError",
    "OnEvent",
    "OnProgress",
    "Outcome",
    "ParameterError",
    "PermissionDeniedError",
    "PlanOutcome",
    "ProxyAuthenticationError",
    "RateLimit",
    "RateLimitError",
    "Reference",
    "Relationship",
    "RequestTimeoutError",
    "Resolver",
    "ResponseError",
    "ResponseTooLargeError",
    "RetryPolicy",
    "ServerError",
    "SessionError",
    "SessionManager",
    "Site",
    "StaleConnectionError",
    "TLSError",
    "TransportError",
    "WantedLink",
    "agent_conversation",
    "case",
    "incident",
    "page",
    "parse_link",
    "parse_reference",
    "read_journal",
    "read_link_file",
]

# Each name is imported when it is first asked for: who links no file needs no CSV, and who keeps no journal
# no SQLite. The check of the public names holds this against the imports above.
_MODULES = {
    "bulk.create_links": ("AlreadyLinked", "Created", "Failed", "Outcome"),
    "concurrency": ("OnProgress",),
    "client": ("CaseLinksClient", "ClientOptions"),
    "graph.contradictions": ("Contradiction", "ContradictionKind"),
    "credentials": ("ApiKeys", "BearerToken", "Credentials"),
    "errors": (
        "AmbiguousResultError",
        "AuthenticationError",
        "BadRequestError",
        "CaseLinksError",
        "ConfigurationError",
        "ConflictError",
        "ConnectError",
        "CycleError",
        "FleetError",
        "InvalidLinkError",
        "JournalError",
        "LinkFileError",
        "MalformedResponseError",
        "NotFoundError",
        "ParameterError",
        "PermissionDeniedError",
        "ProxyAuthenticationError",
        "RateLimitError",
        "RequestTimeoutError",
        "ResponseError",
        "ResponseTooLargeError",
        "ServerError",
        "SessionError",
        "StaleConnectionError",
        "TLSError",
        "TransportError",
    ),
    "graph.link_graph": ("LinkGraph",),
    "bulk.journal_file": ("JournalRecord", "read_journal"),
    "bulk.link_files": ("LinkFileFormat", "LinkLine", "MalformedLine", "read_link_file"),
    "models": (
        "Case",
        "CaseLink",
        "Entity",
        "EntityType",
        "LinkStatus",
        "NewCaseLink",
        "Relationship",
        "agent_conversation",
        "case",
        "incident",
        "page",
    ),
    "events": (
        "Call",
        "CallEvent",
        "CallFinished",
        "CallReconciled",
        "CallRetrying",
        "CallStarted",
        "CallWaiting",
        "OnEvent",
    ),
    "graph.plan": ("Deleted", "LinkPlan", "NotDeleted", "PlanOutcome"),
    "rate_limit": ("RateLimit",),
    "references": (
        "CaseKey",
        "LinkReference",
        "Reference",
        "WantedLink",
        "Resolver",
        "parse_link",
        "parse_reference",
    ),
    "retry": ("RetryPolicy",),
    "http.sessions": ("SessionManager",),
    "sites": ("Site",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
