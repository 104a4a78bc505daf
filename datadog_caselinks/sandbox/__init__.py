"""A local Datadog for trials and tests: a real HTTP server on loopback.

The sandbox imitates the links, validation, errors and rate limits of the API, injects faults on demand, and
shows its links and requests on a page at ``/``. It shares no decoding with the client, so that a mistake in
either one shows.
"""

from datadog_caselinks.sandbox.faults import Fault, FaultRule
from datadog_caselinks.sandbox.limits import RateLimitRule
from datadog_caselinks.sandbox.record import RecordedRequest
from datadog_caselinks.sandbox.server import Sandbox
from datadog_caselinks.sandbox.store import StoredCase, StoredIncident, StoredLink

__all__ = [
    "Fault",
    "FaultRule",
    "RateLimitRule",
    "RecordedRequest",
    "Sandbox",
    "StoredCase",
    "StoredIncident",
    "StoredLink",
]
