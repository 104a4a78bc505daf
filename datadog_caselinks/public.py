"""Every public name, each from the module that defines it."""

from datadog_caselinks.bulk.create_links import (
    AlreadyLinked as AlreadyLinked,
    Created as Created,
    Failed as Failed,
    Outcome as Outcome,
)
from datadog_caselinks.bulk.delete_links import Deleted as Deleted, NotDeleted as NotDeleted
from datadog_caselinks.bulk.journal_file import JournalRecord as JournalRecord, read_journal as read_journal
from datadog_caselinks.bulk.link_files import (
    LinkFileFormat as LinkFileFormat,
    LinkLine as LinkLine,
    MalformedLine as MalformedLine,
    read_link_file as read_link_file,
)
from datadog_caselinks.bulk.preview import (
    Preview as Preview,
    Repeated as Repeated,
    WouldCreate as WouldCreate,
)
from datadog_caselinks.bulk.undo import Undo as Undo
from datadog_caselinks.calls.concurrency import OnProgress as OnProgress
from datadog_caselinks.calls.creation import CreateResult as CreateResult
from datadog_caselinks.calls.resolver import Resolver as Resolver
from datadog_caselinks.calls.retry import RetryPolicy as RetryPolicy
from datadog_caselinks.client import CaseLinksClient as CaseLinksClient, ClientOptions as ClientOptions
from datadog_caselinks.graph.contradictions import (
    Contradiction as Contradiction,
    ContradictionKind as ContradictionKind,
)
from datadog_caselinks.graph.link_graph import LinkGraph as LinkGraph
from datadog_caselinks.graph.plan import LinkPlan as LinkPlan, PlanOutcome as PlanOutcome
from datadog_caselinks.http.sessions import SessionManager as SessionManager
from datadog_caselinks.observation.events import (
    Call as Call,
    CallEvent as CallEvent,
    CallFinished as CallFinished,
    CallReconciled as CallReconciled,
    CallRetrying as CallRetrying,
    CallStarted as CallStarted,
    CallWaiting as CallWaiting,
    OnEvent as OnEvent,
)
from datadog_caselinks.values.credentials import (
    ApiKeys as ApiKeys,
    BearerToken as BearerToken,
    Credentials as Credentials,
)
from datadog_caselinks.values.errors import (
    AmbiguousResultError as AmbiguousResultError,
    AuthenticationError as AuthenticationError,
    BadRequestError as BadRequestError,
    CaseLinksError as CaseLinksError,
    ConfigurationError as ConfigurationError,
    ConflictError as ConflictError,
    ConnectError as ConnectError,
    CycleError as CycleError,
    FleetError as FleetError,
    IncompleteListError as IncompleteListError,
    InvalidLinkError as InvalidLinkError,
    JournalError as JournalError,
    LinkFileError as LinkFileError,
    MalformedResponseError as MalformedResponseError,
    NotFoundError as NotFoundError,
    ParameterError as ParameterError,
    PermissionDeniedError as PermissionDeniedError,
    ProxyAuthenticationError as ProxyAuthenticationError,
    RateLimitError as RateLimitError,
    RequestTimeoutError as RequestTimeoutError,
    ResponseError as ResponseError,
    ResponseTooLargeError as ResponseTooLargeError,
    ServerError as ServerError,
    SessionError as SessionError,
    StaleConnectionError as StaleConnectionError,
    TLSError as TLSError,
    TransportError as TransportError,
)
from datadog_caselinks.values.models import (
    Case as Case,
    CaseKey as CaseKey,
    CaseLink as CaseLink,
    Entity as Entity,
    EntityType as EntityType,
    Incident as Incident,
    IncidentNumber as IncidentNumber,
    LinkReference as LinkReference,
    LinkStatus as LinkStatus,
    NewCaseLink as NewCaseLink,
    Reference as Reference,
    Relationship as Relationship,
    WantedLink as WantedLink,
    agent_conversation as agent_conversation,
    case as case,
    incident as incident,
    page as page,
)
from datadog_caselinks.values.rate import Rate as Rate
from datadog_caselinks.values.rate_limit import RateLimit as RateLimit
from datadog_caselinks.values.references import parse_link as parse_link, parse_reference as parse_reference
from datadog_caselinks.values.sites import Site as Site
