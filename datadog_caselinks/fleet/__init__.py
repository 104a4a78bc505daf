"""Bulk linking on many machines. The jobs and the outcome of each link are in one PostgreSQL database.

Needs the extra ``distributed``.
"""

from datadog_caselinks.values.errors import ConfigurationError
from datadog_caselinks.values.messages import needs_extra

try:
    from datadog_caselinks.fleet.database import connected, create_tables
    from datadog_caselinks.fleet.runs import (
        FleetLink,
        FleetStatus,
        Run,
        Submission,
        failed_links,
        list_runs,
        retry_failed,
        submit,
        submit_lines,
    )
    from datadog_caselinks.fleet.tasks import add_link_tasks
    from datadog_caselinks.fleet.worker import work, work_until_done
except ModuleNotFoundError as _error:
    if (_error.name or "").partition(".")[0] not in ("procrastinate", "psycopg", "psycopg_pool"):
        raise
    raise ConfigurationError(needs_extra("datadog_caselinks.fleet", "distributed")) from None

__all__ = [
    "FleetLink",
    "FleetStatus",
    "Run",
    "Submission",
    "add_link_tasks",
    "connected",
    "create_tables",
    "failed_links",
    "list_runs",
    "retry_failed",
    "submit",
    "submit_lines",
    "work",
    "work_until_done",
]
