"""``caselinks find`` and ``show``: find cases, and show one entity with its links."""

from __future__ import annotations

import contextlib

import click

from datadog_caselinks.calls.resolver import look_up_details
from datadog_caselinks.cli.groups import Command
from datadog_caselinks.cli.link import show_links
from datadog_caselinks.cli.records import entity_record, is_for_people, link_record, records
from datadog_caselinks.cli.run import Settings, logging_to, open_client, run, with_settings
from datadog_caselinks.cli.screen import Screen
from datadog_caselinks.cli.table import draw_cases, draw_fields
from datadog_caselinks.client import CaseLinksClient
from datadog_caselinks.values.errors import NotFoundError
from datadog_caselinks.values.messages import counted, quoted
from datadog_caselinks.values.models import Case, ends_of, is_case_key
from datadog_caselinks.values.references import name_of, status_of, url_of


@click.command(cls=Command, epilog="Example: caselinks find --sandbox 'config -status:closed'")
@click.argument("words", metavar="QUERY", nargs=-1, required=True)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    default=50,
    show_default=True,
    help="Maximum number of cases.",
)
@with_settings()
def find(words: tuple[str, ...], limit: int, settings: Settings) -> None:
    """Find cases (work items) by their text, or by a filter.

    QUERY is a text such as "payment webhooks", the key of a case, or a filter as in
    Datadog's search, such as status:closed, priority:(P1 OR P2) or -status:closed, with
    AND and OR. Put -- before a QUERY that begins with -. Archived cases are not found.

    The newest cases come first. Without a terminal, the columns are key, title, status,
    priority and UUID, separated by tabs.
    """
    query = " ".join(words).strip()
    screen = Screen(quiet=settings.quiet)

    async def search() -> None:
        async with open_client(settings) as client:
            found, has_more = await search_cases(client, query, limit)
        _show_cases(screen, settings.output, found)
        if not found:
            screen.note(f"No cases match {quoted(query)}.")
        if has_more:
            screen.note(
                f"More than {counted(limit, 'case matches', 'cases match')}: use --limit or a narrower query."
            )

    with logging_to(screen, settings):
        run(search())


async def search_cases(client: CaseLinksClient, query: str, limit: int) -> tuple[list[Case], bool]:
    """Return at most ``limit`` cases that match ``query``, and whether there are more.

    If ``query`` is the key of a case, get that case instead: Datadog's search may not find it.
    """
    if is_case_key(query):
        with contextlib.suppress(NotFoundError):  # the text is not a key, but looks like one: HTTP-500
            return [await client.get_case(query)], False
    found: list[Case] = []
    async with contextlib.aclosing(client.search_cases(query)) as cases:
        async for case in cases:
            if len(found) == limit:
                return found, True
            found.append(case)
    return found, False


def _show_cases(screen: Screen, output: str, found: list[Case]) -> None:
    if is_for_people(output):
        draw_cases(found)
        return
    with records(screen, output) as writer:
        for case in found:
            writer.add(
                entity_record(case.entity, {case.entity: case}),
                [case.key, case.title, case.status, case.priority, case.id],
            )


@click.command(cls=Command, epilog="Example: caselinks show --sandbox SHOP-1")
@click.argument("entity")
@with_settings()
def show(entity: str, settings: Settings) -> None:
    """Show the key, title, status, UUID, URL and links of ENTITY.

    ENTITY is written as for list. Without a terminal, each line has a name and a value,
    separated by a tab; the lines of links have the columns of list.
    """
    screen = Screen(quiet=settings.quiet)

    async def show_entity() -> None:
        async with open_client(settings) as client:
            resolver = client.resolver()
            found = await resolver.entity(entity)
            known = await look_up_details(resolver, found)
            links = await client.list_links(found)
            details = await resolver.all_details(ends_of(links))
        if known:
            details[found] = known
        url = url_of(known, client.site) if known else None
        is_drawn = is_for_people(settings.output)
        fields = {
            "type": str(found.type),
            "key": name_of(found, details) if known else "",
            "title": known.title if known else "",
            "status": (status_of(known) if is_drawn else known.status) if known else "",
            "priority": known.priority if isinstance(known, Case) else "",
            "id": found.id,
            "url": url or "",
        }
        if settings.output != "table":
            links_as_json = [link_record(link, details) for link in links]
            record = entity_record(found, details) | {"url": url, "links": links_as_json}
            with records(screen, "jsonl") as writer:  # one entity is one JSON object, not a list
                writer.add(record, [])
            return
        if is_drawn:
            draw_fields(fields)
        else:
            with records(screen, "table") as writer:
                for name, value in fields.items():
                    if value:
                        writer.add({}, [name, value])
        show_links(screen, settings.output, links, details, found, has_ids=False)
        if not links:
            screen.note("No links.")

    with logging_to(screen, settings):
        run(show_entity())
