"""Helpers for tests of the work of a fleet."""

from __future__ import annotations

import asyncio
from collections import Counter

from procrastinate import App

from datadog_caselinks import NewCaseLink, Site
from datadog_caselinks.fleet import work_until_done
from datadog_caselinks.fleet.database import pool_of
from datadog_caselinks.sandbox import Sandbox
from tests.support.ids import case, some_id
from tests.support.waiting import MAX_SECONDS

SITE = Site.parse("datadoghq.eu")


def links(count: int) -> list[NewCaseLink]:
    """Return ``count`` links with the same parent."""
    return [case(some_id(1)).blocks(case(some_id(number + 2))) for number in range(count)]


def made(sandbox: Sandbox) -> Counter[tuple[str, str]]:
    """Count the links in the sandbox by the ids of parent and child."""
    return Counter((link.parent_entity_id, link.child_entity_id) for link in sandbox.links)


def once(wanted: list[NewCaseLink]) -> Counter[tuple[str, str]]:
    """Return the counts of :func:`made` for a sandbox that has each link once."""
    return Counter((new.parent.id, new.child.id) for new in wanted)


async def all_done(app: App) -> None:
    """Work until every link has an outcome."""
    async with asyncio.timeout(MAX_SECONDS):
        await work_until_done(app)


async def end_leases(app: App) -> None:
    """Close the connections that hold a chunk, as a restart of the database does."""
    async with pool_of(app).connection() as connection:
        await connection.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
