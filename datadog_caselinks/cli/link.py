"""``caselinks create``, ``ensure``, ``list`` and ``delete``: work with single links."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import click

from datadog_caselinks.bulk.create_links import would_fail_all
from datadog_caselinks.calls.concurrency import for_each
from datadog_caselinks.cli.again import to_continue, to_show_ids
from datadog_caselinks.cli.files import open_input
from datadog_caselinks.cli.groups import Command
from datadog_caselinks.cli.interruption import RunInterruptedError
from datadog_caselinks.cli.records import Records, error_record, is_for_people, link_record, records
from datadog_caselinks.cli.run import Settings, logging_to, open_client, run, with_settings
from datadog_caselinks.cli.screen import Screen
from datadog_caselinks.cli.streams import OutputError
from datadog_caselinks.cli.table import draw_links
from datadog_caselinks.client import DEFAULT_CONCURRENCY, CaseLinksClient
from datadog_caselinks.values.errors import AmbiguousResultError, CaseLinksError, ParameterError
from datadog_caselinks.values.messages import counted, quoted
from datadog_caselinks.values.models import CaseLink, Entity, Relationship, dash_hint, ends_of, is_uuid
from datadog_caselinks.values.references import (
    Details,
    name_of,
    parse_link,
    parse_relationship,
    relationship_in_words,
)

_ENSURE: Final = "ensure"
_ONLY_MISSING: Final = "it creates only a missing link"


@click.command(cls=Command, epilog="Example: caselinks create --sandbox SHOP-27 blocks SHOP-32")
@click.argument("parent")
@click.argument("relationship")
@click.argument("child")
@with_settings()
def create(parent: str, relationship: str, child: str, settings: Settings) -> None:
    """Create the link PARENT RELATIONSHIP CHILD.

    It is created even if an equal link exists. Use ensure to create only a missing link.

    PARENT and CHILD are case keys, UUIDs, URLs of cases or incidents, or incident:123,
    page:UUID, conversation:UUID. RELATIONSHIP is one of these; caused-by, blocked-by,
    duplicated-by and child-of swap PARENT and CHILD:

    \b
      relates-to    PARENT and CHILD are related, without a direction
      causes        PARENT causes CHILD
      blocks        CHILD cannot continue until PARENT is done
      duplicates    PARENT is a duplicate of CHILD
      parent-of     CHILD is a part of PARENT
      successor-of  PARENT succeeds CHILD
      escalates-to  PARENT was escalated to CHILD
    """
    _create(settings, parent, relationship, child, ensure=False)


@click.command(cls=Command, epilog="Example: caselinks ensure --sandbox SHOP-6 causes SHOP-5")
@click.argument("parent")
@click.argument("relationship")
@click.argument("child")
@with_settings()
def ensure(parent: str, relationship: str, child: str, settings: Settings) -> None:
    """Create the link PARENT RELATIONSHIP CHILD unless it exists.

    The arguments are as for create. Running it twice creates one link.
    """
    _create(settings, parent, relationship, child, ensure=True)


def _create(settings: Settings, parent: str, relationship: str, child: str, *, ensure: bool) -> None:
    screen = Screen(quiet=settings.quiet)

    async def create() -> None:
        async with open_client(settings) as client:
            resolver = client.resolver()
            new = await resolver.link(parse_link(parent, relationship, child, site=client.site))
            if ensure:
                link, is_new = await client.ensure_link(new)
            else:
                link, is_new = await client.create_link(new), True
            screen.note("Created." if is_new else "Already linked.")
            cases = await resolver.all_details(ends_of([link]))
            # A single link is one JSON object, not a list.
            output = "jsonl" if settings.output == "json" else settings.output
            show_links(screen, output, [link], cases, new.parent, has_ids=True, created=is_new)

    with logging_to(screen, settings):
        try:
            run(create())
        except RunInterruptedError:
            screen.problem(f"The link may have been created. {to_continue(_ONLY_MISSING, command=_ENSURE)}")
            raise
        except AmbiguousResultError as error:
            screen.problem(f"Error: {error}")
            screen.problem(to_continue(_ONLY_MISSING, command=_ENSURE))
            raise click.exceptions.Exit(1) from None


@click.command("list", cls=Command, epilog="Example: caselinks list --sandbox SHOP-2 --relationship causes")
@click.argument("entity")
@click.option(
    "--relationship",
    metavar="WORDS",
    help="List only links with this relationship, in any words that create accepts. Words such as caused-by "
    "list only the links in which ENTITY is the child.",
)
@click.option("--ids", is_flag=True, help="Show ids only; do not look up keys and titles.")
@with_settings()
def list_(entity: str, relationship: str | None, ids: bool, settings: Settings) -> None:
    """List the links that have ENTITY as parent or child.

    ENTITY is a case key, a UUID, the URL of a case or incident, or incident:123,
    page:UUID, conversation:UUID. Without a terminal the columns, separated by tabs, are: link,
    parent, relationship, child, and title and status of the entity at the other end.
    """
    kind, is_from_child = parse_relationship(relationship) if relationship else (None, False)
    screen = Screen(quiet=settings.quiet)

    async def show() -> None:
        async with open_client(settings) as client:
            resolver = client.resolver()
            around = await resolver.entity(entity)
            found = await client.list_links(around, relationship=kind)
            if is_from_child and kind != Relationship.RELATES_TO:
                found = [link for link in found if link.child == around]
            cases = {} if ids else await resolver.all_details(ends_of(found))
            show_links(screen, settings.output, found, cases, around, has_ids=ids)
        if not found:
            screen.note(f"{entity} has no such links." if relationship else f"{entity} has no links.")

    with logging_to(screen, settings):
        run(show())


@click.command(cls=Command, epilog="Example: caselinks delete --sandbox SHOP-6 causes SHOP-5")
@click.argument("links", metavar="[LINK]... | PARENT RELATIONSHIP CHILD", nargs=-1)
@with_settings()
@click.pass_context
def delete(context: click.Context, links: Sequence[str], settings: Settings) -> None:
    """Delete links by their ids or ends.

    LINK is the id of a link; list --ids and create show it. With - the ids are read
    from standard input: the first column of each line, as list prints it.
    PARENT RELATIONSHIP CHILD, written as for create, deletes every equal link.
    """
    screen = Screen(quiet=settings.quiet)
    is_by_ends = len(links) == 3 and not is_uuid(links[1]) and "-" not in links
    ids = [] if is_by_ends else _ids(links)

    async def delete_all() -> int:
        nonlocal ids
        async with open_client(settings) as client:
            if is_by_ends:
                ids = [link.id for link in await client.find_links(parse_link(*links, site=client.site))]
            with records(screen, settings.output) as writer:
                return await _delete(client, ids, screen, writer)

    with logging_to(screen, settings):
        deleted = run(delete_all())
    if not ids:
        screen.note(
            f"Nothing to delete: {' '.join(links)} does not exist." if is_by_ends else "Nothing to delete."
        )
    context.exit(0 if deleted == len(ids) else 1)


async def _delete(client: CaseLinksClient, ids: Sequence[str], screen: Screen, writer: Records) -> int:
    """Delete these links, until an error shows that every further delete would fail.

    Returns the number of links that were deleted.
    """

    async def delete(_: int, link_id: str) -> tuple[str, CaseLinksError | None]:
        try:
            await client.delete_link(link_id)
        except CaseLinksError as error:
            return link_id, error
        return link_id, None

    deleted = failed = 0
    lost: OutputError | None = None  # the links are deleted even if that cannot be written
    async with contextlib.aclosing(for_each(delete, ids, concurrency=DEFAULT_CONCURRENCY)) as outcomes:
        async for link_id, error in outcomes:
            deleted += error is None
            record = {"id": link_id, "deleted": error is None, **(error_record(error) if error else {})}
            try:
                writer.add(record, [] if error else [link_id])
            except OutputError as failure:
                lost = failure
            if error is None:
                continue
            failed += 1
            screen.problem(str(error))
            if would_fail_all(error, has_created=bool(deleted)):
                break
    if left := len(ids) - deleted - failed:
        screen.problem(f"Stopped: {counted(left, 'further link')} would fail in the same way.")
    if lost:
        raise lost
    return deleted


def _ids(given: Iterable[str]) -> list[str]:
    """Return each id in ``given`` once, and those on standard input in place of ``-``.

    Raises:
        ParameterError: A text is not the id of a link.
    """
    ids: dict[str, None] = {}
    for text in given:
        if text == "-":
            with open_input("-") as stream:
                lines = io.TextIOWrapper(io.BufferedReader(stream), "utf-8", "replace").readlines()
            ids |= dict.fromkeys(
                _id(line.split()[0], f"line {number}: ")
                for number, line in enumerate(lines, 1)
                if line.strip()
            )
        else:
            ids[_id(text)] = None
    return list(ids)


def _id(text: str, place: str = "") -> str:
    if is_uuid(text):
        return text
    hint = (
        "it is shortened; list --ids shows whole ids"
        if text.endswith("…")
        else "list --ids shows the ids. Or write PARENT RELATIONSHIP CHILD"
    )
    raise ParameterError(
        f"nothing was deleted: {place}{quoted(text)} is not the id of a link{dash_hint(text) or f': {hint}'}"
    )


def show_links(
    screen: Screen,
    output: str,
    links: Sequence[CaseLink],
    cases: Mapping[Entity, Details],
    around: Entity,
    *,
    has_ids: bool,
    created: bool | None = None,
) -> None:
    """Show ``links``, with the title and status of the entity at the other end from ``around``.

    The ids of the links appear in a table if there is room, or ``has_ids``. JSON says ``created``, if given.
    """
    if is_for_people(output):
        if links and not draw_links(links, cases, around, has_ids=has_ids):
            screen.note(f"To see the ids of the links: {to_show_ids()}")
        return
    with records(screen, output) as writer:
        for link in links:
            other = cases.get(link.child if link.parent == around else link.parent)
            writer.add(
                link_record(link, cases) | ({} if created is None else {"created": created}),
                [
                    link.id,
                    name_of(link.parent, cases),
                    relationship_in_words(link.relationship),
                    name_of(link.child, cases),
                    other.title if other else "",
                    other.status if other else "",
                ],
            )
