"""Runs: links that were submitted together, as rows in chunks, with one job per chunk."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from datetime import datetime
from enum import StrEnum
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from attrs import field, frozen
from procrastinate import App
from procrastinate.types import JSONDict
from psycopg import AsyncConnection
from psycopg.rows import class_row, tuple_row

from datadog_caselinks.bulk.link_files import LinkLine
from datadog_caselinks.calls.concurrency import closing_source, enumerate_async
from datadog_caselinks.fleet.database import pool_of, stored, transaction, translate_errors
from datadog_caselinks.values.errors import InvalidLinkError
from datadog_caselinks.values.messages import quoted
from datadog_caselinks.values.models import LinkStatus, WantedLink, named
from datadog_caselinks.values.parameters import require, require_items, require_whole_number
from datadog_caselinks.values.sites import Site

TASKS: Final = "caselinks"
"""The namespace of the tasks. It is the same in every app, so an app that only submits does not need them."""

CREATE: Final = "create_links"

CHUNK: Final = 200
"""Links per job: enough to keep 100 requests in flight, few enough to divide the work evenly."""

_COPY: Final = "COPY caselinks_links (run, chunk, number, parent, relationship, child) FROM STDIN"

# If two chunks had the same link, two workers could each create it. Same means as in ``models.identity``.
_DROP_REPEATED: Final = """
DELETE FROM caselinks_links WHERE (run, chunk, number) IN (
    SELECT run, chunk, number FROM (
        SELECT *, row_number() OVER (
            PARTITION BY relationship,
                CASE relationship WHEN 'RELATES_TO' THEN least(parent, child) ELSE parent END,
                CASE relationship WHEN 'RELATES_TO' THEN greatest(parent, child) ELSE child END
            ORDER BY number
        ) AS nth FROM caselinks_links WHERE run = %s
    ) AS counted WHERE nth > 1
)"""

_LIST: Final = """
SELECT run, source, site, submitted_at,
    count(number) AS links,
    count(*) FILTER (WHERE state = 'pending') AS pending,
    count(*) FILTER (WHERE state = 'created') AS created,
    count(*) FILTER (WHERE state = 'already_linked') AS already_linked,
    count(*) FILTER (WHERE state = 'failed') AS failed,
    count(*) FILTER (WHERE state = 'ambiguous') AS ambiguous,
    count(*) FILTER (WHERE at > now() - interval '1 minute')
        / extract(epoch FROM greatest(least(now() - submitted_at, interval '1 minute'), interval '1 second'))
        ::double precision AS rate,
    coalesce(array_agg(DISTINCT error) FILTER (WHERE state = 'pending' AND error IS NOT NULL), '{}')
        AS held_up_by
FROM caselinks_runs LEFT JOIN caselinks_links USING (run)
WHERE run = %(run)s OR %(run)s::bigint IS NULL
GROUP BY run ORDER BY run"""

_SITE: Final = "SELECT site FROM caselinks_runs WHERE run = %s"

_PENDING_SITES: Final = """
SELECT DISTINCT site FROM caselinks_runs
WHERE EXISTS (SELECT FROM caselinks_links WHERE run = caselinks_runs.run AND state = 'pending')"""

_FAILED: Final = """
SELECT run, number, parent, relationship, child, state AS status, error, at FROM caselinks_links
WHERE state IN ('failed', 'ambiguous') AND (run = %(run)s OR %(run)s::bigint IS NULL) ORDER BY run, number"""

_RETRY: Final = """
WITH again AS (
    UPDATE caselinks_links SET state = 'pending', error = NULL, at = NULL
    WHERE state IN ('failed', 'ambiguous') AND (run = %(run)s OR %(run)s::bigint IS NULL)
    RETURNING run, chunk
) SELECT site, run, chunk, count(*) FROM again JOIN caselinks_runs USING (run)
GROUP BY site, run, chunk ORDER BY site, run, chunk"""


def queue_of(site: str) -> str:
    """Return the name of the queue with the jobs of the site with this API URL."""
    return f"caselinks {site}"


class FleetStatus(StrEnum):
    """The status of a link of a run: ``PENDING``, or its :class:`LinkStatus`.

    ``ALREADY_LINKED``: the link existed before, possibly created by a worker that died before recording it.
    ``AMBIGUOUS``: the link may have been created.
    """

    PENDING = "pending"
    CREATED = LinkStatus.CREATED
    ALREADY_LINKED = LinkStatus.ALREADY_LINKED
    FAILED = LinkStatus.FAILED
    AMBIGUOUS = LinkStatus.AMBIGUOUS


@frozen
class Submission:
    """The result of :func:`submit`: the number of the run, of its links, and of omitted repetitions."""

    run: int
    links: int
    repeated: int


@frozen
class Run:
    """A run, with the number of its ``links`` in each status.

    ``rate`` is in links per second, over the last minute. ``held_up_by`` lists errors that make the workers
    wait before they retry, such as refused keys or an outage.
    """

    run: int
    source: str
    site: str
    submitted_at: datetime
    links: int
    pending: int
    created: int
    already_linked: int
    failed: int
    ambiguous: int
    rate: float
    held_up_by: list[str]

    @property
    def done(self) -> int:
        """The number of links that have an outcome."""
        return self.links - self.pending

    @property
    def seconds_left(self) -> float | None:
        """The estimated seconds until the run is done; ``None`` if nothing was done in the last minute."""
        return self.pending / self.rate if self.rate else None


@frozen
class FleetLink:
    """A link that failed or is ambiguous, with its error. ``number`` is its line, or its position from 1."""

    run: int
    number: int
    parent: str
    relationship: str
    child: str
    status: FleetStatus = field(converter=FleetStatus)
    error: str
    at: datetime


async def submit(
    app: App,
    wanted: Iterable[WantedLink] | AsyncIterable[WantedLink],
    *,
    site: Site,
    source: str = "",
    chunk: int = CHUNK,
) -> Submission:
    """Submit ``wanted`` to the workers of the database of ``app``. If this raises, nothing is submitted.

    If the connection is lost during the commit, this waits up to ten seconds for the database, and finds out
    whether the links were submitted. If it cannot, the error says that they may have been.

    Uses bounded memory for any number of links. A link that is repeated in the same form is submitted once;
    two forms of one link, such as by key and by UUID, may be created twice. If ``wanted`` is a generator, it
    is always closed.

    Args:
        site: The site of the links. Workers with a client of another site do not create them.
        source: The name of the run in lists.
        chunk: Links per job.

    Raises:
        FleetError: The database cannot be used. Errors of ``wanted`` are raised unchanged.
        InvalidLinkError: An item is not a link.
        ParameterError: An argument has the wrong type, or ``chunk`` is below 1.
    """
    require_items("wanted", wanted)
    async with closing_source(wanted):
        return await submit_lines(app, _numbered(wanted), site=site, source=source, chunk=chunk)


async def submit_lines(
    app: App, lines: AsyncIterator[LinkLine], *, site: Site, source: str = "", chunk: int = CHUNK
) -> Submission:
    """Submit the lines of a file like :func:`submit`, and keep their line numbers."""
    require("site", site, Site, "a Site, such as Site.EU1")
    require("source", source, str, "a text")
    require_whole_number("chunk", chunk, at_least=1)
    with translate_errors() as of_others:
        async with (
            closing_source(lines),
            contextlib.aclosing(_noting_errors(lines, of_others)) as noted,
            transaction(app) as connection,
        ):
            cursor = connection.cursor(row_factory=tuple_row)
            await cursor.execute(
                "INSERT INTO caselinks_runs (source, site) VALUES (%s, %s) RETURNING run",
                [stored(source), site.api_url],  # may be the name of a file, which need not be text
            )
            ((run,),) = await cursor.fetchall()
            count = 0
            async with cursor.copy(_COPY) as copy:
                async for line in noted:
                    new = _checked(line.new)
                    ends = stored(named(new.parent)), str(new.relationship), stored(named(new.child))
                    await copy.write_row((run, count // chunk, line.number, *ends))
                    count += 1
            await cursor.execute(_DROP_REPEATED, [run])
            repeated = cursor.rowcount
            chunks = range(-(-count // chunk))
            await _defer(app, connection, site.api_url, [(run, number) for number in chunks])
    return Submission(run, count - repeated, repeated)


async def _noting_errors(
    lines: AsyncIterator[LinkLine], errors: list[Exception]
) -> AsyncGenerator[LinkLine, None]:
    """Yield ``lines``, and put what they raise into ``errors``. They may read from a database too."""
    try:
        async for line in lines:
            yield line
    except Exception as error:
        errors.append(error)
        raise


async def _numbered(
    wanted: Iterable[WantedLink] | AsyncIterable[WantedLink],
) -> AsyncGenerator[LinkLine, None]:
    async with contextlib.aclosing(enumerate_async(wanted)) as items:
        async for index, new in items:
            yield LinkLine(index + 1, new)


def _checked(new: WantedLink) -> WantedLink:
    if not isinstance(new, WantedLink):
        raise InvalidLinkError(
            f"submit takes links such as case(a).blocks(case(b)) or parse_link(…), not {quoted(new)}"
        )
    return new


async def list_runs(app: App, run: int | None = None) -> list[Run]:
    """Return all runs, or only ``run``. Raises :class:`FleetError` if the database cannot be used."""
    _require_run(run)
    with translate_errors():
        async with pool_of(app).connection() as connection:
            cursor = connection.cursor(row_factory=class_row(Run))
            await cursor.execute(_LIST, {"run": run})
            runs: list[Run] = await cursor.fetchall()
            return runs


async def has_pending(app: App, queue: str) -> bool:
    """Return whether any link is pending whose jobs are in ``queue``.

    Raises:
        FleetError: The database cannot be used.
    """
    with translate_errors():
        async with pool_of(app).connection() as connection:
            cursor = await connection.cursor(row_factory=tuple_row).execute(_PENDING_SITES)
            return queue in [queue_of(site) for (site,) in await cursor.fetchall()]


async def site_of(app: App, run: int) -> str | None:
    """Return the API URL of the site of ``run``, or ``None`` if the run was deleted.

    Raises:
        FleetError: The database cannot be used.
    """
    with translate_errors():
        async with pool_of(app).connection() as connection:
            cursor = await connection.cursor(row_factory=tuple_row).execute(_SITE, [run])
            return next((str(site) for (site,) in await cursor.fetchall()), None)


async def failed_links(app: App, run: int | None = None) -> AsyncGenerator[FleetLink, None]:
    """Yield the links that failed or are ambiguous, of all runs or only of ``run``.

    Raises:
        FleetError: The database cannot be used.
    """
    _require_run(run)
    with translate_errors():
        async with (
            pool_of(app).connection() as connection,
            connection.cursor(row_factory=class_row(FleetLink)) as cursor,
        ):
            async for link in cursor.stream(_FAILED, {"run": run}):
                yield link


async def retry_failed(app: App, run: int | None = None) -> int:
    """Submit failed and ambiguous links again, of all runs or only of ``run``. Return their number.

    Raises:
        FleetError: The database cannot be used.
    """
    _require_run(run)
    with translate_errors():
        async with transaction(app) as connection:
            cursor = connection.cursor(row_factory=tuple_row)
            await cursor.execute(_RETRY, {"run": run})
            chunks = await cursor.fetchall()
            for site, of_site in groupby(chunks, key=itemgetter(0)):
                await _defer(app, connection, site, [(run, chunk) for _, run, chunk, _ in of_site])
    return sum(count for *_, count in chunks)


def _require_run(run: int | None) -> None:
    if run is not None:
        require_whole_number("run", run, at_least=1)


async def _defer(
    app: App, connection: AsyncConnection[Any], site: str, chunks: Iterable[tuple[int, int]]
) -> None:
    """Defer a job for each chunk of links of ``site``, within the transaction of ``connection``."""
    jobs: list[JSONDict] = [{"run": run, "chunk": chunk} for run, chunk in chunks]
    # The task is _Worker.create_links of tasks.py, which this process need not have.
    task = app.configure_task(
        f"{TASKS}:{CREATE}", allow_unknown=True, queue=queue_of(site), connection=connection
    )
    await task.batch_defer_async(*jobs)
