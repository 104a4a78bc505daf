"""Undo deletes what a run created, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from datadog_caselinks import (
    AlreadyLinked,
    CaseLink,
    CaseLinksClient,
    Created,
    Deleted,
    JournalError,
    LinkStatus,
    NewCaseLink,
    NotDeleted,
    ParameterError,
    RetryPolicy,
    read_journal,
)
from datadog_caselinks.bulk.journal import Journal
from datadog_caselinks.sandbox import Sandbox
from datadog_caselinks.values.references import link_in_words
from tests.bulk.polls import few_polls
from tests.support.api import Api
from tests.support.ids import case, some_id
from tests.support.server import Server, Step
from tests.support.steps import answers, created, deleted, drops, is_silent

PARENT = case(some_id(1))
A, B, C = (PARENT.blocks(case(some_id(number))) for number in (2, 3, 4))


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "run.journal"


async def linked(
    client: CaseLinksClient, journal: Path, *wanted: NewCaseLink, ensure: bool = True
) -> list[Any]:
    """Run ``create_links`` with a journal, and return the outcomes in the order of ``wanted``."""
    outcomes = [each async for each in client.create_links(wanted, ensure=ensure, journal=journal)]
    return sorted(outcomes, key=lambda outcome: outcome.index)


async def undone(client: CaseLinksClient, run: Path) -> list[Deleted | NotDeleted]:
    async with client.undo(run) as undo:
        return [outcome async for outcome in undo.delete()]


def statuses(journal: Path) -> dict[NewCaseLink, LinkStatus]:
    return {record.new: record.status for record in read_journal(journal)}


def outcome_line(link: CaseLink, outcome: str = "created") -> str:
    """Return a line of the output of bulk with --output jsonl."""
    parent, child = ({"type": str(end.type), "id": end.id} for end in (link.parent, link.child))
    described = {"id": link.id, "parent": parent, "relationship": str(link.relationship), "child": child}
    return json.dumps({"line": 2, "outcome": outcome, "link": described}) + "\n"


class TestJournal:
    async def test_what_the_run_created_is_deleted_and_nothing_else(
        self, client: CaseLinksClient, sandbox: Sandbox, journal: Path
    ) -> None:
        """A link that existed before the run is not deleted, even if the run found it."""
        await client.create_link(A)
        await client.create_link(C)
        await linked(client, journal, A, B)
        (outcome,) = await undone(client, journal)
        assert isinstance(outcome, Deleted)
        assert not outcome.was_gone
        assert [each.child_entity_id for each in sandbox.links] == [A.child.id, C.child.id]
        assert statuses(journal) == {A: LinkStatus.ALREADY_LINKED}

    async def test_undo_twice_deletes_nothing_more(
        self, client: CaseLinksClient, sandbox: Sandbox, journal: Path
    ) -> None:
        """A second undo has no links and sends nothing."""
        await linked(client, journal, A, B)
        await undone(client, journal)
        before = len(sandbox.requests)
        assert await undone(client, journal) == []
        assert len(sandbox.requests) == before

    async def test_the_same_run_creates_the_links_again_after_an_undo(
        self, client: CaseLinksClient, sandbox: Sandbox, journal: Path
    ) -> None:
        """After an undo, the same run creates the links again."""
        await linked(client, journal, A, B)
        await undone(client, journal)
        assert [type(each) for each in await linked(client, journal, A, B)] == [Created, Created]
        assert len(sandbox.links) == 2
        assert len(await undone(client, journal)) == 2
        assert not sandbox.links

    async def test_a_link_that_is_gone_already_counts_as_deleted(
        self, client: CaseLinksClient, sandbox: Sandbox, journal: Path
    ) -> None:
        """A deleted link counts as undone, and an equal link with another id is kept."""
        (outcome,) = await linked(client, journal, A)
        await client.delete_link(outcome.link)
        theirs = await client.create_link(A)
        (undo,) = await undone(client, journal)
        assert isinstance(undo, Deleted)
        assert undo.was_gone
        assert [each.id for each in sandbox.links] == [theirs.id]
        assert statuses(journal) == {}

    async def test_a_journal_in_use_is_refused(
        self, client: CaseLinksClient, sandbox: Sandbox, journal: Path
    ) -> None:
        """Undo is refused while a run uses the journal, and a run is refused during an undo."""
        await linked(client, journal, A)
        async with Journal(journal, site=client.site.api_url):
            with few_polls(), pytest.raises(JournalError, match="is in use by another run"):
                await undone(client, journal)
        async with client.undo(journal):
            with few_polls(), pytest.raises(JournalError, match="is in use by another run"):
                await linked(client, journal, B)
        assert len(sandbox.links) == 1

    async def test_a_journal_of_another_site_is_refused(
        self, client: CaseLinksClient, sandbox: Sandbox, journal: Path
    ) -> None:
        """A journal of another site is refused before anything is sent."""
        async with Journal(journal, site="https://api.datadoghq.eu"):
            pass
        before = len(sandbox.requests)
        with pytest.raises(JournalError, match=r"belongs to https://api\.datadoghq\.eu"):
            await undone(client, journal)
        assert len(sandbox.requests) == before

    async def test_a_link_that_cannot_be_looked_up(
        self, client: CaseLinksClient, sandbox: Sandbox, journal: Path
    ) -> None:
        """A link in flight whose lookup fails is reported with the reason."""
        async with Journal(journal, site=client.site.api_url) as opened, opened.entry(A):
            pass
        sandbox.fail_next("500", operation="list")
        once = RetryPolicy(max_attempts=1, settle=0)
        async with (
            CaseLinksClient(sandbox.site, sandbox.credentials, retry=once) as other,
            other.undo(journal) as undo,
        ):
            (ambiguous,) = undo.ambiguous
        assert ambiguous.startswith(
            f"{link_in_words(A)} may have been created, and cannot be looked up: cannot list"
        )

    async def test_a_link_of_unknown_outcome_is_named_and_left(
        self, client: CaseLinksClient, sandbox: Sandbox, journal: Path
    ) -> None:
        """A link of unknown outcome is reported and kept, because another process may have created it."""
        await client.create_link(A)
        async with Journal(journal, site=client.site.api_url) as opened, opened.entry(A):
            pass  # leaves the link as a killed run does
        async with client.undo(journal) as undo:
            (ambiguous,) = undo.ambiguous
            assert ambiguous.startswith(f"{link_in_words(A)} exists with the id {sandbox.links[0].id}")
            assert undo.links == ()
        assert len(sandbox.links) == 1

    @pytest.mark.parametrize("fails", [answers(500), answers(403), answers(503)])
    async def test_after_a_failed_undo_the_link_is_looked_up(
        self, keys: Any, journal: Path, fails: Any
    ) -> None:
        """After a failed undo, a run looks the link up, because the delete may have been applied.

        If the run finds the link, it is still the one that an earlier run created, so a later undo deletes
        it.
        """

        async def found(exchange: Any) -> None:
            await exchange.answer(200, json.dumps({"data": [made]}).encode())

        once = RetryPolicy(max_attempts=1, settle=0)
        async with (
            Server(created, fails, found, deleted) as server,
            CaseLinksClient(server.url, keys, retry=once) as client,
        ):
            (outcome_of_create,) = await linked(client, journal, A, ensure=False)
            made = {
                "type": "link",
                "id": outcome_of_create.link.id,
                "attributes": server.seen[0].json["data"]["attributes"],
            }
            (outcome,) = await undone(client, journal)
            assert isinstance(outcome, NotDeleted)
            assert statuses(journal) == {A: LinkStatus.AMBIGUOUS}
            (again,) = [each async for each in client.create_links([A], journal=journal)]
            assert isinstance(again, AlreadyLinked)
            assert statuses(journal) == {A: LinkStatus.CREATED}
            (outcome,) = await undone(client, journal)
            assert isinstance(outcome, Deleted)
        assert [seen.method for seen in server.seen] == ["POST", "DELETE", "GET", "DELETE"]

    async def test_a_link_that_was_sent_again_after_a_failed_undo(self, keys: Any, journal: Path) -> None:
        """A link that a run sent again after a failed undo is found by a later undo, with its own id."""
        api, is_up = Api(), False

        async def lists_fail_after_the_second_create(exchange: Any) -> None:
            await (api if is_up or api.prefix == "link-" else answers(500))(exchange)

        async def creates_another(exchange: Any) -> None:
            api.prefix = "another-"
            await api.applies(drops)(exchange)

        async def deletes(exchange: Any) -> None:
            api.links.clear()
            await answers(500)(exchange)

        once = RetryPolicy(max_attempts=1, settle=0)
        async with (
            Server(api, deletes, api, creates_another, lists_fail_after_the_second_create) as server,
            CaseLinksClient(server.url, keys, retry=once) as client,
        ):
            await linked(client, journal, A, ensure=False)
            (outcome,) = await undone(client, journal)
            assert isinstance(outcome, NotDeleted)
            (failed,) = [each async for each in client.create_links([A], journal=journal)]
            assert failed.status is LinkStatus.AMBIGUOUS
            is_up = True
            async with client.undo(journal) as undo:
                assert (undo.links, len(undo.ambiguous)) == ((), 1)
                assert "another-1" in undo.ambiguous[0]
        assert [link["id"] for link in api.links] == ["another-1"]

    async def test_an_undo_that_was_cancelled_can_be_repeated(self, keys: Any, journal: Path) -> None:
        """A cancelled undo can be repeated, because the journal keeps the id until the delete succeeds."""
        async with Server(created, is_silent, deleted) as server, CaseLinksClient(server.url, keys) as client:
            await anext(aiter(client.create_links([A], journal=journal)))
            async with client.undo(journal) as undo:
                deletes = undo.delete()
                waiting = asyncio.ensure_future(anext(deletes))
                await server.until_seen(2)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
                await deletes.aclose()
            (outcome,) = await undone(client, journal)
            assert isinstance(outcome, Deleted)

    async def test_a_run_that_ends_before_its_lookup_loses_no_id(self, keys: Any, journal: Path) -> None:
        """After a failed undo and a killed run, the link can still be undone."""
        async with Journal(journal, site="http://127.0.0.1:1") as opened:
            async with opened.entry(A) as entry:
                entry.linked(CaseLink("the-id", A.parent, A.relationship, A.child), created=True)
            with pytest.raises(RuntimeError):
                await opened.deleting(_breaks)(CaseLink("the-id", A.parent, A.relationship, A.child))
        async with Journal(journal, site="http://127.0.0.1:1") as opened, opened.entry(A):
            pass
        async with CaseLinksClient("http://127.0.0.1:1", keys) as client, client.undo(journal) as undo:
            assert [link.id for link in undo.links] == ["the-id"]


async def _breaks(_: CaseLink) -> None:
    raise RuntimeError


AT_ONCE = RetryPolicy(max_attempts=3, base=0, settle=0)


class TestFoundByLookup:
    """A create whose response was lost, and an equal link that the lookup found."""

    @staticmethod
    def of_somebody_else(api: Api) -> Step:
        """Return a step that loses a create, while another process creates an equal link."""
        return api.applies(drops)

    async def test_it_is_not_deleted(self, keys: Any, journal: Path) -> None:
        """A link that the lookup found may belong to another process: undo reports its id and keeps it."""
        api = Api()
        async with (
            Server(self.of_somebody_else(api), api) as server,
            CaseLinksClient(server.url, keys, retry=AT_ONCE) as client,
        ):
            found, made = await linked(client, journal, A, ensure=False) + await linked(
                client, journal, B, ensure=False
            )
            assert (found.found_by_lookup, made.found_by_lookup) == (True, False)
            assert {each.new: each.found_by_lookup for each in read_journal(journal)} == {A: True, B: False}
            for expected in ((made.link,), ()):
                async with client.undo(journal) as undo:
                    assert undo.links == expected
                    (ambiguous,) = undo.ambiguous
                    assert ambiguous.startswith(
                        f"{link_in_words(A)} exists with the id {found.link.id}, and another process"
                    )
                    assert [type(each) async for each in undo.delete()] == [Deleted] * len(expected)
        assert [link["id"] for link in api.links] == [found.link.id]

    async def test_a_link_in_flight_at_the_end_of_a_run_is_not_deleted_but_reported(
        self, client: CaseLinksClient, journal: Path, tmp_path: Path
    ) -> None:
        """A run may have created a link just before it was killed; the run after it cannot know."""
        async with Journal(journal, site=client.site.api_url) as killed, killed.entry(A):
            link = await client.create_link(A)  # whose outcome is never recorded
        outcome, other = await linked(client, journal, A, B)
        assert (outcome.status, outcome.found_by_lookup) == (LinkStatus.ALREADY_LINKED, True)
        output = tmp_path / "run.jsonl"
        record = json.loads(outcome_line(link, "already_linked")) | {"found_by_lookup": True}
        output.write_text(json.dumps(record))
        async with client.undo(output) as undo:
            assert (undo.links, len(undo.ambiguous)) == ((), 1)
        async with client.undo(journal) as undo:
            assert undo.links == (other.link,)
            (ambiguous,) = undo.ambiguous
            assert f" exists with the id {link.id}, and another process may have created it" in ambiguous

    async def test_after_it_is_gone_it_is_not_named(self, keys: Any, journal: Path) -> None:
        """A found link that no longer exists is not reported."""
        api = Api()
        async with (
            Server(self.of_somebody_else(api), api) as server,
            CaseLinksClient(server.url, keys, retry=AT_ONCE) as client,
        ):
            await linked(client, journal, A, ensure=False)
            api.links.clear()
            async with client.undo(journal) as undo:
                assert (undo.links, undo.ambiguous) == ((), ())

    async def test_a_later_run_and_a_failed_undo_make_it_no_more_certain(
        self, keys: Any, journal: Path
    ) -> None:
        """A link recorded as found stays so, even if further runs with the journal find it again."""
        api = Api()
        async with (
            Server(self.of_somebody_else(api), api) as server,
            CaseLinksClient(server.url, keys, retry=AT_ONCE) as client,
        ):
            await linked(client, journal, A, ensure=False)
            for ensure in (False, True):
                (again,) = await linked(client, journal, A, ensure=ensure)
                assert isinstance(again, AlreadyLinked)
                assert await undone(client, journal) == []
        assert "DELETE" not in server.methods

    async def test_an_output_says_so(self, client: CaseLinksClient, sandbox: Sandbox, tmp_path: Path) -> None:
        """A link is kept if the output does not state that the run created it."""
        output = tmp_path / "run.jsonl"
        sure, *unsure = [await client.create_link(new) for new in (A, B, C)]
        lines = [json.loads(outcome_line(link)) for link in (sure, *unsure)]
        for line, found in zip(lines, (False, True, "unknown"), strict=True):
            line["found_by_lookup"] = found
        output.write_text("\n".join(map(json.dumps, lines)))
        async with client.undo(output) as undo:
            assert undo.links == (sure,)
            assert undo.ambiguous == tuple(
                f"line 2 was found with the id {link.id}, and another process may have created it"
                for link in unsure
            )
            assert len([each async for each in undo.delete()]) == 1
        assert [each.id for each in sandbox.links] == [link.id for link in unsure]


class TestOutput:
    async def test_what_the_output_calls_created_is_deleted(
        self, client: CaseLinksClient, sandbox: Sandbox, tmp_path: Path
    ) -> None:
        """Undo deletes the links that the output reports as created.

        The output may be JSON Lines or a list, in UTF-8 or in the UTF-16 of PowerShell. Repeated lines count
        once.
        """
        output = tmp_path / "run.jsonl"
        kept = await client.create_link(C)
        for encoding, before, between, after in (
            ("utf-8", "", "", ""),
            ("utf-8-sig", "", "", "\n"),
            ("utf-16", "", "", ""),
            ("utf-8", "[ ", ", ", "]\n"),
        ):
            made = [await client.create_link(new) for new in (A, B)]
            lines = [
                *map(outcome_line, [*made, *made]),
                outcome_line(kept, "already_linked"),
                '{"line": 9, "outcome": "failed", "error": "no"}\n',
            ]
            output.write_text(before + between.join(lines) + after, encoding=encoding)
            outcomes = await undone(client, output)
            assert {each.link.id for each in outcomes} == {link.id for link in made}
            assert [each.id for each in sandbox.links] == [kept.id]

    async def test_undo_twice_finds_the_links_gone(
        self, client: CaseLinksClient, sandbox: Sandbox, tmp_path: Path
    ) -> None:
        """Undo does not change the output of bulk, so a second undo finds the links gone without an error."""
        output = tmp_path / "run.jsonl"
        output.write_text(outcome_line(await client.create_link(A)))
        for was_gone in (False, True):
            (outcome,) = await undone(client, output)
            assert isinstance(outcome, Deleted)
            assert outcome.was_gone is was_gone

    async def test_what_is_not_certain_is_reported(self, client: CaseLinksClient, tmp_path: Path) -> None:
        """Undo reports an ambiguous line, which has no id, and an incomplete last line."""
        output = tmp_path / "run.jsonl"
        link = CaseLink(some_id(9), A.parent, A.relationship, A.child)
        ambiguous = '{"line": 7, "outcome": "ambiguous", "error": "lost"}\n'
        output.write_text(outcome_line(link) + ambiguous + outcome_line(link)[:50])
        async with client.undo(output) as undo:
            assert (undo.links, undo.is_cut_off) == ((link,), True)
            assert undo.ambiguous == ("line 7 may have been created, and its id is unknown",)
        output.write_text(outcome_line(link) + ambiguous)
        async with client.undo(output) as undo:
            assert not undo.is_cut_off

    @pytest.mark.parametrize(
        "content",
        [
            b"parent,relationship,child\nSHOP-1,blocks,SHOP-2\n",
            b'{"parent": "SHOP-1", "relationship": "blocks", "child": "SHOP-2"}\n',
            b'{"id": "x", "parent": {"type": "CASE", "id": "y"}, "relationship": "BLOCKS", "child": {}}\n',
            b'{"outcome": "created", "link": {"parent": {"id": "a"}}}\n',
            b'{"outcome": "created", "link": null}\n',
            b'{"outcome": 1}\n',
            b'{"outcome": "failed"}\n{"outcome\n{"outcome": "failed"}\n',
            b"null\n",
            b"\xff\x00\xfe\n",
            b"[" * 100_000 + b"\n",
            b"{" + b'"a":[' * 100_000 + b"\n",
        ],
    )
    async def test_any_other_file_is_refused(
        self, client: CaseLinksClient, sandbox: Sandbox, tmp_path: Path, content: bytes
    ) -> None:
        """Any other file, such as a file of links or the output of list, is refused without a request."""
        output = tmp_path / "links.jsonl"
        output.write_bytes(content)
        with pytest.raises(JournalError, match=r"links\.jsonl is neither the journal of a run nor"):
            await undone(client, output)
        assert not sandbox.requests

    @pytest.mark.parametrize("id", ["", "x", "../../users", "a" * 36, f"{some_id(1)}\n", some_id(1)[:-1]])
    @pytest.mark.parametrize("end", ["", "\n"])
    async def test_an_id_that_is_not_a_uuid_is_refused(
        self, client: CaseLinksClient, sandbox: Sandbox, tmp_path: Path, id: str, end: str
    ) -> None:
        """An id that is not a UUID means a damaged file, so nothing is deleted."""
        output = tmp_path / "run.jsonl"
        made = await client.create_link(A)
        output.write_text(
            outcome_line(made) + outcome_line(made).replace(made.id, json.dumps(id)[1:-1]).rstrip() + end
        )
        with pytest.raises(JournalError, match=r"line 2 is not an outcome \(.+ is not the id of a link\)"):
            await undone(client, output)
        assert [each.id for each in sandbox.links] == [made.id]

    async def test_an_unknown_outcome_is_named_and_left(
        self, client: CaseLinksClient, sandbox: Sandbox, tmp_path: Path
    ) -> None:
        """A line with an unknown outcome, as of a later version, is reported and its link is kept."""
        output = tmp_path / "run.jsonl"
        sure, other = [await client.create_link(new) for new in (A, B)]
        names = {"line": 3, "parent": "SHOP-1", "relationship": "BLOCKS", "child": "SHOP-3"}
        unknown = json.dumps(json.loads(outcome_line(other, "adopted")) | names) + "\n"
        output.write_text(outcome_line(sure) + unknown)
        async with client.undo(output) as undo:
            assert undo.links == (sure,)
            assert undo.ambiguous == (
                "line 3 (SHOP-1 blocks SHOP-3) may have been created: this version does not know the outcome "
                "'adopted'",
            )

    async def test_outcomes_that_created_nothing(self, client: CaseLinksClient, tmp_path: Path) -> None:
        """Outcomes of links that bulk did not create, also with --dry-run, need no undo."""
        output = tmp_path / "run.jsonl"
        outcomes = ("already_linked", "failed", "malformed", "would_create", "repeated")
        output.write_text("".join(json.dumps({"outcome": outcome}) + "\n" for outcome in outcomes))
        async with client.undo(output) as undo:
            assert (undo.links, undo.ambiguous) == ((), ())

    async def test_a_number_is_not_an_id(self, client: CaseLinksClient, tmp_path: Path) -> None:
        """An id that is a number is refused, and the message names the line."""
        output = tmp_path / "run.jsonl"
        line = json.loads(outcome_line(CaseLink("1", A.parent, A.relationship, A.child)))
        line["link"]["id"] = 1
        output.write_text(json.dumps(line))
        with pytest.raises(JournalError, match="line 1 is not an outcome"):
            await undone(client, output)

    async def test_a_file_that_cannot_be_read_is_refused(
        self, client: CaseLinksClient, tmp_path: Path
    ) -> None:
        """A missing file is an error, and no journal is created."""
        with pytest.raises(JournalError, match="cannot be read: No such file"):
            await undone(client, tmp_path / "missing")
        assert os.listdir(tmp_path) == []
        with pytest.raises(ParameterError):
            client.undo(3)  # type: ignore[arg-type]

    async def test_an_empty_file_has_nothing_to_undo(self, client: CaseLinksClient, tmp_path: Path) -> None:
        """An empty output has nothing to undo."""
        (tmp_path / "run.jsonl").touch()
        assert await undone(client, tmp_path / "run.jsonl") == []


async def test_a_journal_that_cannot_be_written_ends_the_undo(
    client: CaseLinksClient, sandbox: Sandbox, journal: Path
) -> None:
    """A delete that cannot be recorded is not sent."""
    await linked(client, journal, A)
    opened = client.undo(journal)
    undo = await opened.__aenter__()
    with contextlib.closing(sqlite3.connect(journal)) as other:
        other.execute("DROP TABLE links")
    with pytest.raises(JournalError):
        [outcome async for outcome in undo.delete()]
    with pytest.raises(JournalError):
        await opened.__aexit__(None, None, None)
    assert len(sandbox.links) == 1
