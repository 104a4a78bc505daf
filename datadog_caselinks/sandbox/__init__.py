"""A local Datadog to try the SDK on and to test against: a real HTTP server on loopback.

Links, validation, errors and rate limits as the API's; faults on demand; a page at ``/`` that shows
what it holds and has seen. It decodes requests on its own, so that it can prove the client right or wrong.
"""

from datadog_caselinks.sandbox.faults import Fault, FaultRule
from datadog_caselinks.sandbox.limits import RateLimitRule
from datadog_caselinks.sandbox.record import RecordedRequest
from datadog_caselinks.sandbox.server import Sandbox
from datadog_caselinks.sandbox.store import StoredCase, StoredLink

__all__ = ["Fault", "FaultRule", "RateLimitRule", "RecordedRequest", "Sandbox", "StoredCase", "StoredLink"]
