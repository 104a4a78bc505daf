"""Undo a run: find the links that it created, in its journal or its output, and delete these."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import io
import json
import os
from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Any, Final

from attrs import define, field

from datadog_caselinks.bulk.delete_links import Deleted, DeleteFunc, NotDeleted, delete_links
from datadog_caselinks.bulk.journal import Journal
from datadog_caselinks.bulk.journal_file import JournalRecord
from datadog_caselinks.bulk.known_links import KnownLinks
from datadog_caselinks.calls.concurrency import Progress, map_concurrently
from datadog_caselinks.values.errors import CaseLinksError, InvalidLinkError, JournalError
from datadog_caselinks.values.messages import one_line, quoted
from datadog_caselinks.values.models import CaseLink, Entity, LinkStatus, NewCaseLink, WantedLink, is_uuid
from datadog_caselinks.values.references import link_in_words, relationship_in_words

_DATABASE: Final = b"SQLite format 3\0"
"""The first bytes of a journal."""

_NOT_A_RUN: Final = "is neither the journal of a run nor the output of bulk --output jsonl"

_CREATED_NOTHING: Final = frozenset(
    {LinkStatus.ALREADY_LINKED, LinkStatus.FAILED, LinkStatus.MALFORMED, "would_create", "repeated"}
)
"""The outcomes of lines that created nothing. The last two are those of ``bulk --dry-run``."""


class Undo:
    """The links that a run created, to be deleted. :meth:`CaseLinksClient.undo` opens it.

    ``links``
        The links that the run created, by the responses of the server, and that were not deleted by an
        earlier undo.
    ``ambiguous``
        A description of each link that the run may have created. These links are not deleted, since another
        process may have created them: the response to the create was lost, even if a lookup then found the
        link. A link of a journal is looked up, and is left out if it does not exist.
    ``is_cut_off``
        Whether the last line of the output is incomplete, as after a crash. It is ignored.
    """

    def __init__(
        self,
        links: Iterable[CaseLink],
        ambiguous: Iterable[str],
        *,
        is_cut_off: bool,
        delete: DeleteFunc,
        concurrency: int,
    ) -> None:
        self.links: tuple[CaseLink, ...] = tuple(links)
        self.ambiguous: tuple[str, ...] = tuple(ambiguous)
        self.is_cut_off = is_cut_off
        self._delete = delete
        self._concurrency = concurrency

    def delete(self) -> AsyncGenerator[Deleted | NotDeleted, None]:
        """Delete the links, and yield the outcome of each as it completes.

        The error of a link is in its outcome; it is not raised. A link that no longer exists counts as
        deleted. Leaving the loop early cancels the deletes that are in flight; undo the run again to delete
        the rest.

        Raises:
            JournalError: The journal cannot be written.
        """
        return delete_links(self._delete, self.links, concurrency=self._concurrency)


@contextlib.asynccontextmanager
async def open_undo(
    run: str | os.PathLike[str],
    *,
    site: str,
    known: KnownLinks,
    wait: float,
    delete: DeleteFunc,
    concurrency: int,
) -> AsyncGenerator[Undo, None]:
    """Open the journal or output ``run``, as :meth:`CaseLinksClient.undo` describes.

    Links that were in flight are looked up through ``known`` after ``wait`` seconds.
    """
    output = await asyncio.to_thread(_read_output, run, site)
    if output:
        yield Undo(
            output.links.values(),
            output.ambiguous,
            is_cut_off=output.is_cut_off,
            delete=delete,
            concurrency=concurrency,
        )
        return
    async with Journal(run, site=site) as journal:
        records = await journal.records(_may_be_created)
        links = (
            record.new.existing(record.link_id)
            for record in records
            if record.link_id and not record.found_by_lookup
        )
        unsure = {
            record.new: record.wanted for record in records if record.found_by_lookup or not record.link_id
        }
        ambiguous = await _look_up(unsure, known, wait, concurrency) if unsure else []
        delete = journal.deleting(delete)
        yield Undo(links, ambiguous, is_cut_off=False, delete=delete, concurrency=concurrency)


def _may_be_created(record: JournalRecord) -> bool:
    return record.found_by_lookup or record.status in (LinkStatus.CREATED, LinkStatus.AMBIGUOUS)


async def _look_up(
    unsure: Mapping[NewCaseLink, WantedLink], known: KnownLinks, wait: float, concurrency: int
) -> list[str]:
    """Return a description of each link that the run may have created, without links that do not exist."""

    async def describe(new: NewCaseLink) -> str:
        words = link_in_words(unsure[new])
        try:
            link = await known.find(new, "parent")
        except CaseLinksError as error:
            return f"{words} may have been created, and cannot be looked up: {error}"
        if link is None:
            return ""
        return f"{words} exists with the id {link.id}, and another process may have created it"

    await asyncio.sleep(wait)
    async with known:
        found = await map_concurrently(
            describe, list(unsure), concurrency=concurrency, progress=Progress(None)
        )
    return [description for description in found.values() if description]


@define
class _Output:
    """The links in the output of a run."""

    links: dict[str, CaseLink] = field(factory=dict)  # by id: the outputs of two runs may be in one file
    ambiguous: list[str] = field(factory=list)
    sites: set[str] = field(factory=set)
    is_cut_off: bool = False


def _read_output(path: str | os.PathLike[str], site: str) -> _Output | None:
    """Return the content of an output, or ``None`` if the file is a journal.

    Raises:
        JournalError: It is neither, or the links were created on another site than ``site``.
    """
    try:
        with open(path, "rb") as file:
            head = file.peek(len(_DATABASE))
            if head.startswith(_DATABASE):
                return None
            is_utf_16 = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # PowerShell writes it
            with io.TextIOWrapper(file, "utf-16" if is_utf_16 else "utf-8-sig") as lines:
                output = _parsed(path, lines)
    except UnicodeDecodeError as error:
        raise JournalError(f"{os.fspath(path)} {_NOT_A_RUN}") from error
    except OSError as error:
        raise JournalError(f"{os.fspath(path)} cannot be read: {error.strerror}") from error
    if others := output.sites - {site}:
        raise JournalError(
            f"the links of {os.fspath(path)} were created on {quoted(min(others))}, and this undo is for "
            f"{site}: name the site of the run"
        )
    return output


def _parsed(path: str | os.PathLike[str], lines: Iterable[str]) -> _Output:
    output = _Output()
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text.startswith(("[", ",")):  # --output json writes a list with one record on each line
            text = text[1:].strip()
        if text in ("", "]"):
            continue
        try:
            _add(output, number, json.loads(text))
        except (KeyError, TypeError, ValueError, RecursionError, InvalidLinkError) as error:
            if isinstance(error, json.JSONDecodeError) and number > 1 and not line.endswith("\n"):
                output.is_cut_off = True
                break
            flaw = f" ({error})" if isinstance(error, InvalidLinkError) else ""
            raise JournalError(
                f"{os.fspath(path)} {_NOT_A_RUN}: line {number} is not an outcome{flaw}"
            ) from error
    return output


def _add(output: _Output, number: int, record: Any) -> None:
    """Add one outcome. Raises an error for anything else, such as a link that ``list`` has shown."""
    outcome = record["outcome"]
    if not isinstance(outcome, str):
        raise TypeError("not an outcome")
    was_found = record.get("found_by_lookup", False) is not False
    if outcome == LinkStatus.CREATED or (outcome == LinkStatus.ALREADY_LINKED and was_found):
        link = _link(record["link"])
        if "site" in record:
            output.sites.add(str(record["site"]))
        if not was_found:
            output.links[link.id] = link
        else:
            output.ambiguous.append(
                f"{_description(record, number)} was found with the id {link.id}, and another process may "
                "have created it"
            )
    elif outcome == LinkStatus.AMBIGUOUS:
        description = _description(record, number)
        output.ambiguous.append(f"{description} may have been created, and its id is unknown")
    elif outcome not in _CREATED_NOTHING:
        output.ambiguous.append(
            f"{_description(record, number)} may have been created: this version does not know the outcome "
            f"{quoted(outcome)}"
        )


def _link(record: Any) -> CaseLink:
    parent, child = (Entity(record[end]["id"], record[end]["type"]) for end in ("parent", "child"))
    if not (isinstance(record["id"], str) and is_uuid(record["id"])):
        raise InvalidLinkError(f"{quoted(record['id'])} is not the id of a link")
    return CaseLink(record["id"], parent, record["relationship"], child)


def _description(record: Any, number: int) -> str:
    """Return what a record says of its link: the link as the file of the run wrote it, and its line."""
    line = f"line {record.get('line', number)}"
    names = [record.get(name) for name in ("parent", "relationship", "child")]
    if not all(isinstance(name, str) for name in names):
        return line
    parent, relationship, child = names
    return f"{line} ({one_line(f'{parent} {relationship_in_words(relationship)} {child}')})"
