"""``caselinks create``, ``ensure``, ``list`` and ``delete``, each run as a program against a sandbox."""

from __future__ import annotations

import json
import re
import signal

import pytest

from datadog_caselinks.sandbox import Sandbox
from datadog_caselinks.sandbox.store import StoredCase
from tests.cli.program import caselinks, environment, on_terminal, pointing_at, start
from tests.cli.waits import waiting_for_nothing
from tests.support.ids import some_id
from tests.support.server import Server
from tests.support.steps import answers, drops, is_silent

INCIDENT = some_id(7)


@pytest.fixture
async def one(sandbox: Sandbox) -> StoredCase:
    return sandbox.add_case("SHOP-1", "Checkout\x1b[31m hangs\nat payment", status="CLOSED", priority="P1")


@pytest.fixture
async def two(sandbox: Sandbox) -> StoredCase:
    return sandbox.add_case("SHOP-2", "No free connections")


class TestCreate:
    async def test_ends_are_named_as_people_do(
        self, sandbox: Sandbox, one: StoredCase, two: StoredCase
    ) -> None:
        """An entity is given by key, URL, id, or type and id; the link is printed in columns with tabs."""
        url = f"{sandbox.url}/cases/{two.key}"
        for parent, relationship, child in (
            ("shop-1", "blocks", url),
            (one.id, "Relates-To", "SHOP-2"),
            (f"incident:{INCIDENT}", "CAUSES", "SHOP-1"),
        ):
            done = await caselinks(pointing_at(sandbox), "create", parent, relationship, child)
            assert (done.status, done.err) == (0, "Created.\n")
            made = sandbox.links[-1]
            ends = {one.id: "SHOP-1", two.id: "SHOP-2", INCIDENT: f"incident:{INCIDENT}"}
            assert done.out.split("\t")[:4] == [
                made.id,
                ends[made.parent_entity_id],
                made.relationship.lower().replace("_", " "),
                ends[made.child_entity_id],
            ]
        assert [link.relationship for link in sandbox.links] == ["BLOCKS", "RELATES_TO", "CAUSES"]

    async def test_it_is_reported_as_one_object_of_json(
        self, sandbox: Sandbox, one: StoredCase, two: StoredCase
    ) -> None:
        """The JSON of a created link has the keys, titles and statuses of its cases."""
        for output in ("json", "jsonl"):
            done = await caselinks(
                pointing_at(sandbox), "create", "SHOP-1", "blocks", "SHOP-2", "--output", output, "--quiet"
            )
            assert done.err == ""
            assert json.loads(done.out)["parent"] == {
                "type": "CASE",
                "id": one.id,
                "key": "SHOP-1",
                "title": one.title,
                "status": "CLOSED",
                "priority": "P1",
                "status_name": "Closed",
                "status_group": "SG_CLOSED",
            }

    @pytest.mark.parametrize(
        ("arguments", "status", "expected"),
        [
            (("SHOP-1", "blocks", "SHOP-99"), 1, "cannot get case SHOP-99: 404 case not found"),
            (("SHOP-1", "stops", "SHOP-2"), 2, "unknown relationship 'stops'; use one of"),
            (("SHOP-1", "blocks", "shop-1"), 2, "SHOP-1 cannot be linked to itself"),
            (("SHOP-1", "blocks", "checkout"), 2, "'checkout' does not name an entity; write a case key"),
            (
                ("SHOP-1", "blocks", "https://app.datadoghq.eu/cases/SHOP-2"),
                2,
                "is on EU1 (datadoghq.eu), but this client uses 127.0.0.1",
            ),
        ],
    )
    async def test_an_error_is_reported_in_a_line(
        self, sandbox: Sandbox, one: StoredCase, arguments: tuple[str, ...], status: int, expected: str
    ) -> None:
        """An error from the server has status 1, and invalid arguments have status 2 and send nothing."""
        done = await caselinks(pointing_at(sandbox), "create", *arguments)
        assert (done.status, done.out, done.err.count("\n")) == (status, "", 1)
        assert expected in done.err
        assert not sandbox.links

    async def test_a_wrong_site_and_missing_keys_are_reported_in_a_line(self) -> None:
        """A wrong site or missing keys are reported in one line with status 2."""
        for variables, arguments, expected in (
            (environment(), (), "DD_API_KEY and DD_APP_KEY are not set"),
            (environment(), ("--site", "datadoghq.de"), "is not a Datadog site. Did you mean datadoghq.eu?"),
            (environment(DD_SITE="nowhere"), (), "DD_SITE: 'nowhere' is not a Datadog site"),
        ):
            done = await caselinks(variables, "create", "SHOP-1", "blocks", "SHOP-2", *arguments)
            assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
            assert expected in done.err

    async def test_an_ambiguous_result_ends_with_the_command(self) -> None:
        """An ambiguous error ends with the ensure command, which creates the link only if it is missing."""
        async with Server(drops, answers(403)) as server:
            variables = environment(DD_SITE=server.url, DD_API_KEY="an-api-key", DD_APP_KEY="an-app-key")
            new = (some_id(1), "blocks", some_id(2))
            done = await caselinks(waiting_for_nothing(variables), "create", *new, "--output", "json")
        assert done.status == 1
        assert done.err.splitlines()[-3].startswith("Error: cannot create CASE ")
        assert done.err.splitlines()[-2:] == [
            "To continue, run this command (it creates only a missing link):",
            f"  caselinks ensure {some_id(1)} blocks {some_id(2)} --output json",
        ]

    async def test_a_long_wait_names_the_option(self, sandbox: Sandbox) -> None:
        """A rate limit that lasts longer than --max-wait is an error that names this option."""
        sandbox.rate_limit = "1/1h"
        new = (some_id(1), "blocks", some_id(2))
        await caselinks(pointing_at(sandbox), "create", *new)
        done = await caselinks(pointing_at(sandbox), "create", *new, "--max-wait", "7")
        assert done.status == 1
        assert re.search(r"\. To continue, wait \d+ s or add --max-wait \d+\n$", done.err)
        assert "RetryPolicy" not in done.err

    async def test_interrupted_it_says_how_to_go_on(self) -> None:
        """Ctrl-C during a create says that the link may exist, and shows the ensure command."""
        async with Server(is_silent) as server:
            variables = environment(DD_SITE=server.url, DD_API_KEY="an-api-key", DD_APP_KEY="an-app-key")
            process = await start(variables, "create", some_id(1), "blocks", some_id(2))
            await server.until_seen(1)
            process.send_signal(signal.SIGINT)
            _, err = await process.communicate()
        assert process.returncode == 130
        assert err.decode().splitlines() == [
            "The link may have been created. To continue, run this command (it creates only a missing link):",
            f"  caselinks ensure {some_id(1)} blocks {some_id(2)}",
            "Interrupted.",
        ]


class TestEnsure:
    async def test_twice_makes_one_link(self, sandbox: Sandbox, one: StoredCase, two: StoredCase) -> None:
        """A second ensure finds the link of the first one, and prints the same line."""
        first = await caselinks(pointing_at(sandbox), "ensure", "SHOP-1", "blocks", "SHOP-2")
        second = await caselinks(pointing_at(sandbox), "ensure", "SHOP-1", "blocks", "SHOP-2")
        assert first.out == second.out
        assert (first.err, second.err) == ("Created.\n", "Already linked.\n")
        assert len(sandbox.links) == 1

    async def test_json_says_whether_the_link_was_created(
        self, sandbox: Sandbox, one: StoredCase, two: StoredCase
    ) -> None:
        """The JSON of ensure has the member ``created``: true for the first call, then false."""
        for output, created in (("json", True), ("jsonl", False)):
            done = await caselinks(
                pointing_at(sandbox), "ensure", "SHOP-1", "blocks", "SHOP-2", "--output", output
            )
            record = json.loads(done.out)
            assert (record["created"], record["id"]) == (created, sandbox.links[0].id)


class TestList:
    async def test_each_link_is_shown_with_the_title_of_the_other_end(
        self, sandbox: Sandbox, one: StoredCase, two: StoredCase
    ) -> None:
        """list shows links of either direction, and a title cannot break out of its column."""
        for arguments in (("SHOP-1", "blocks", "SHOP-2"), (f"page:{INCIDENT}", "escalates-to", "SHOP-2")):
            await caselinks(pointing_at(sandbox), "create", *arguments)
        done = await caselinks(pointing_at(sandbox), "list", "SHOP-2")
        ids = [link.id for link in sandbox.links]
        assert [line.split("\t") for line in done.out.splitlines()] == [
            [ids[0], "SHOP-1", "blocks", "SHOP-2", "Checkout [31m hangs at payment", "CLOSED"],
            [ids[1], f"page:{INCIDENT}", "escalates to", "SHOP-2", "", ""],
        ]

    async def test_one_relationship_only(self, sandbox: Sandbox, one: StoredCase, two: StoredCase) -> None:
        """--relationship takes the same words as create, and an empty result is not an error."""
        await caselinks(pointing_at(sandbox), "create", "SHOP-1", "blocks", "SHOP-2")
        for relationship, count, err in (
            ("blocks", 1, ""),
            ("blocked by", 0, "SHOP-1 has no such links.\n"),
            ("CAUSES", 0, "SHOP-1 has no such links.\n"),
            ("relates-to", 0, "SHOP-1 has no such links.\n"),
            ("Parent_Of", 0, "SHOP-1 has no such links.\n"),
        ):
            done = await caselinks(pointing_at(sandbox), "list", "SHOP-1", "--relationship", relationship)
            assert (done.status, done.out.count("\n"), done.err) == (0, count, err)
        done = await caselinks(pointing_at(sandbox), "list", "SHOP-2", "--relationship", "is blocked by")
        assert (done.status, done.out.count("\n")) == (0, 1)
        done = await caselinks(pointing_at(sandbox), "list", "SHOP-2", "--relationship", "bloks")
        assert (done.status, done.err.startswith("Error: unknown relationship 'bloks'; did you mean")) == (
            2,
            True,
        )
        assert (
            await caselinks(pointing_at(sandbox), "list", some_id(1))
        ).err == f"{some_id(1)} has no links.\n"
        assert (await caselinks(pointing_at(sandbox), "list", some_id(1), "--quiet")).err == ""

    async def test_ids_asks_for_no_titles(self, sandbox: Sandbox, one: StoredCase, two: StoredCase) -> None:
        """With --ids, list sends one request for the key and one for the links, and none for titles."""
        await caselinks(pointing_at(sandbox), "create", "SHOP-1", "blocks", "SHOP-2")
        before = len(sandbox.requests)
        done = await caselinks(pointing_at(sandbox), "list", "SHOP-1", "--ids")
        assert done.out.split("\t")[1:4] == [one.id, "blocks", two.id]
        assert len(sandbox.requests) - before == 2

    async def test_a_case_that_may_not_be_seen_is_shown_by_its_id(
        self, sandbox: Sandbox, one: StoredCase
    ) -> None:
        """A case that the credentials cannot access is shown by its id, and the status is 0."""
        await caselinks(pointing_at(sandbox), "create", "SHOP-1", "blocks", some_id(3))
        done = await caselinks(pointing_at(sandbox), "list", "SHOP-1")
        assert done.out.split("\t")[1:4] == ["SHOP-1", "blocks", some_id(3)]
        assert done.status == 0

    async def test_a_terminal_shows_a_table(self, sandbox: Sandbox, one: StoredCase, two: StoredCase) -> None:
        """A terminal shows a table with a header, without control characters from titles."""
        await caselinks(pointing_at(sandbox), "create", "SHOP-1", "blocks", "SHOP-2")
        status, shown = await on_terminal(pointing_at(sandbox), "list", "SHOP-2")
        assert status == 0
        assert sandbox.links[0].id in shown
        assert "relationship" in shown
        assert "Checkout [31m hangs at payment" in shown
        assert "\t" not in shown
        _, shown = await on_terminal(pointing_at(sandbox), "list", some_id(1))
        assert shown == f"{some_id(1)} has no links.\r\n"

    async def test_in_a_narrow_terminal_titles_give_way(
        self, sandbox: Sandbox, one: StoredCase, two: StoredCase
    ) -> None:
        """In a narrow terminal, link ids are omitted and never shortened, and a line says how to see them."""
        await caselinks(pointing_at(sandbox), "create", "SHOP-1", "relates-to", "SHOP-2")
        _, shown = await on_terminal(pointing_at(sandbox), "list", "SHOP-2", columns=50)
        _, line, note = shown.splitlines()
        # The arrow has another width in some versions of rich.
        assert line.split()[:4] == ["↔", "relates", "to", "SHOP-1"]
        assert "…" in line
        assert sandbox.links[0].id[:8] not in shown
        assert note == "To see the ids of the links: caselinks list --ids SHOP-2"

    @pytest.mark.parametrize("columns", [40, 80, 119, 120])
    async def test_no_id_is_shortened(self, sandbox: Sandbox, one: StoredCase, columns: int) -> None:
        """The id of an entity or a link is never shortened, on a terminal of any width."""
        await caselinks(pointing_at(sandbox), "create", "SHOP-1", "blocks", some_id(3))
        await caselinks(pointing_at(sandbox), "create", f"incident:{INCIDENT}", "causes", "SHOP-1")
        for options in (("--ids",), ()):
            _, shown = await on_terminal(pointing_at(sandbox), "list", "SHOP-1", *options, columns=columns)
            assert some_id(3) in shown
            assert INCIDENT in shown
            if options or columns >= 120:
                assert all(link.id in shown for link in sandbox.links)
        _, shown = await on_terminal(
            pointing_at(sandbox), "create", "SHOP-1", "causes", some_id(3), columns=columns
        )
        assert sandbox.links[-1].id in shown

    async def test_80_columns_are_enough(self) -> None:
        """In a terminal with 80 columns, each link has one line, also with the UUID of a page."""
        _, shown = await on_terminal(environment(), "list", "--sandbox", "SHOP-2", columns=80)
        _, *links, _ = shown.splitlines()
        assert len(links) == 9
        assert "9c048dd7-a08a-5660-98d8-7eb97716757d" in links[0]
        assert all(line[0] in "←→↔" for line in links)

    async def test_the_demo_needs_no_keys(self) -> None:
        """With --sandbox, list reads the demo of a local Datadog and needs no keys."""
        done = await caselinks(environment(), "list", "--sandbox", "SHOP-2", "--output", "jsonl")
        assert done.status == 0
        assert {json.loads(line)["relationship"] for line in done.out.splitlines()} >= {
            "CAUSES",
            "RELATES_TO",
        }


class TestDelete:
    async def test_all_are_deleted_and_reported(
        self, sandbox: Sandbox, one: StoredCase, two: StoredCase
    ) -> None:
        """delete takes any number of ids, and prints each deleted one."""
        for relationship in ("blocks", "causes", "duplicates"):
            await caselinks(pointing_at(sandbox), "create", "SHOP-1", relationship, "SHOP-2")
        ids = [link.id for link in sandbox.links]
        done = await caselinks(pointing_at(sandbox), "delete", *ids)
        assert (done.status, set(done.out.split()), done.err) == (0, set(ids), "")
        assert not sandbox.links

    async def test_one_that_fails_does_not_keep_the_others(
        self, sandbox: Sandbox, one: StoredCase, two: StoredCase
    ) -> None:
        """A failed delete is reported in one line with status 1, and the other links are deleted."""
        await caselinks(pointing_at(sandbox), "create", "SHOP-1", "blocks", "SHOP-2")
        (link,) = sandbox.links
        done = await caselinks(pointing_at(sandbox), "delete", some_id(1), link.id, "--output", "json")
        failed, deleted = sorted(json.loads(done.out), key=lambda record: bool(record["deleted"]))
        assert deleted == {"id": link.id, "deleted": True}
        assert (failed["id"], failed["error_type"], failed["error_status"]) == (
            some_id(1),
            "NotFoundError",
            404,
        )
        assert done.err.startswith(f"cannot delete link {some_id(1)}: 404 link not found")
        assert (done.status, done.err.count("\n"), sandbox.links) == (1, 1, [])

    async def test_an_error_of_every_delete_ends_it(self, sandbox: Sandbox) -> None:
        """Refused keys end the deletes, and are shown with the number of links that were not tried."""
        ids = [some_id(number) for number in range(300)]
        wrong = pointing_at(sandbox) | {"DD_APP_KEY": "wrong"}
        done = await caselinks(wrong, "delete", *ids, "--output", "jsonl")
        first, stopped = done.err.splitlines()
        assert "401" in first
        assert stopped == "Stopped: 299 further links would fail in the same way."
        assert (done.status, len(done.out.splitlines())) == (1, 1)
        assert len(sandbox.requests) < 300

    async def test_a_link_can_be_given_by_its_ends(
        self, sandbox: Sandbox, one: StoredCase, two: StoredCase
    ) -> None:
        """delete accepts the ends of a link in either direction, and deletes only links equal to it."""
        for relationship in ("blocks", "blocks", "causes"):
            await caselinks(pointing_at(sandbox), "create", "SHOP-1", relationship, "SHOP-2")
        await caselinks(pointing_at(sandbox), "create", "SHOP-2", "blocks", "SHOP-1")
        ids = {link.id for link in sandbox.links[:2]}
        done = await caselinks(pointing_at(sandbox), "delete", "SHOP-2", "blocked by", "SHOP-1")
        assert (done.status, set(done.out.split())) == (0, ids)
        assert [link.relationship for link in sandbox.links] == ["CAUSES", "BLOCKS"]
        done = await caselinks(pointing_at(sandbox), "delete", one.id, "BLOCKS", "SHOP-2")
        assert (done.status, done.out) == (0, "")
        assert done.err == f"Nothing to delete: {one.id} BLOCKS SHOP-2 does not exist.\n"
        await caselinks(pointing_at(sandbox), "create", "SHOP-1", "relates-to", "SHOP-2")
        done = await caselinks(pointing_at(sandbox), "delete", "SHOP-2", "relates to", "SHOP-1")
        assert (done.status, len(sandbox.links)) == (0, 2)

    async def test_ids_come_from_standard_input(
        self, sandbox: Sandbox, one: StoredCase, two: StoredCase
    ) -> None:
        """With -, delete reads the first column of each line as an id, and deletes each id once."""
        for relationship in ("blocks", "causes", "duplicates"):
            await caselinks(pointing_at(sandbox), "create", "SHOP-1", relationship, "SHOP-2")
        ids = [link.id for link in sandbox.links]
        listed = (await caselinks(pointing_at(sandbox), "list", "SHOP-1")).out
        text = f"{listed}\n{ids[0]}\r\n".encode()
        done = await caselinks(pointing_at(sandbox), "delete", "-", ids[0], stdin=text)
        assert (done.status, sorted(done.out.split()), done.err) == (0, sorted(ids), "")
        assert not sandbox.links

    async def test_nothing_to_delete_is_no_error(self, sandbox: Sandbox) -> None:
        """Without any id, delete succeeds and sends nothing, because list may have found nothing."""
        for arguments in ((), ("-",)):
            done = await caselinks(pointing_at(sandbox), "delete", *arguments)
            assert (done.status, done.out, done.err) == (0, "", "Nothing to delete.\n")
        assert not sandbox.requests

    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ("804cd682…", "it is shortened; list --ids shows whole ids"),
            ("804cd682", "list --ids shows the ids"),
            ("SHOP-1", "list --ids shows the ids"),
            (some_id(2).replace("-", "\u2013"), "U+2013 is a dash and not a hyphen"),
            ("..", "list --ids shows the ids"),
            ("", "list --ids shows the ids"),
        ],
    )
    async def test_what_is_not_an_id_is_refused_before_anything_is_sent(
        self, sandbox: Sandbox, given: str, says: str
    ) -> None:
        """One invalid id stops the whole delete before a request, and the message names the id or line."""
        done = await caselinks(pointing_at(sandbox), "delete", some_id(1), given)
        assert (done.status, done.err.count("\n"), sandbox.requests) == (2, 1, [])
        assert done.err.startswith(f"Error: nothing was deleted: '{given}' is not the id of a link: ")
        assert says in done.err
        if given:
            text = f"{some_id(1)}\n\n{given} x\n".encode()
            done = await caselinks(pointing_at(sandbox), "delete", "-", stdin=text)
            assert (done.status, sandbox.requests) == (2, [])
            assert f"line 3: '{given}' is not the id of a link" in done.err
