"""The tools that plan and write: what they change, report, log and refuse."""

from __future__ import annotations

import logging
import re
from contextlib import nullcontext
from typing import Any

import pytest

from datadog_caselinks import (
    CaseLink,
    CaseLinksClient,
    CaseLinksError,
    Entity,
    PermissionDeniedError,
    Rate,
    ServerError,
    case,
)
from datadog_caselinks.mcp import AgentServer, tools
from datadog_caselinks.mcp.server import Access
from datadog_caselinks.mcp.writes import Writes
from datadog_caselinks.sandbox import Fault, Sandbox
from tests.mcp.agents import connected


def wanted(*sentences: str) -> list[dict[str, str]]:
    """Links from sentences such as ``SHOP-1 blocked_by SHOP-2``."""
    names = ("entity", "relationship", "other")
    return [dict(zip(names, sentence.split(), strict=True)) for sentence in sentences]


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.name.endswith("mcp.writes")]


class TestPlanLinks:
    async def test_it_says_what_would_change(self, sandbox: Sandbox, server: AgentServer) -> None:
        """A plan has what is new, what exists, and why the rest cannot be, and changes nothing."""
        links = wanted(
            *(
                "MAIL-5 causes MAIL-2",
                "SHOP-2 caused_by SHOP-5",
                "MAIL-1 eats MAIL-2",
                "MAIL-1 blocks MAIL-99",
            ),
            *("MAIL-2 caused_by MAIL-5", "incident:101 causes incident:102"),
        )
        before = sandbox.links
        async with connected(server) as agent:
            plan = await agent.call("plan_links", links=links)
        assert plan["would_create"] == ["MAIL-5 causes MAIL-2"]
        assert plan["already_linked"] == ["SHOP-5 causes SHOP-2"]
        assert (plan["contradictions"], plan["is_checked"]) == ([], True)
        assert [each["index"] for each in plan["left_out"]] == [2, 3, 5]
        assert [each["error"].split(":")[0] for each in plan["left_out"]] == [
            "unknown relationship 'eats'; did you mean relates? Use one of relates to, causes, blocks, "
            "duplicates, parent of, successor of, escalates to",
            "cannot get case MAIL-99",
            "neither end of incident",
        ]
        assert sandbox.links == before

    async def test_it_finds_a_cycle_through_links_further_away(self, server: AgentServer) -> None:
        """A new link that closes a cycle of existing links is a contradiction, however long the cycle is."""
        async with connected(server) as agent:
            plan = await agent.call("plan_links", links=wanted("SHOP-22 blocks SHOP-20"))
        assert plan["contradictions"] == [
            {
                "kind": "cycle",
                "message": "a cycle: SHOP-22 blocks SHOP-20 blocks SHOP-21 blocks SHOP-22",
            }
        ]

    async def test_it_finds_contradictions_of_wanted_links(self, server: AgentServer) -> None:
        """Wanted links may contradict each other, and a child has one parent."""
        links = wanted("MAIL-1 blocks MAIL-2", "MAIL-2 blocks MAIL-1", "MAIL-19 parent_of SHOP-20")
        async with connected(server) as agent:
            plan = await agent.call("plan_links", links=links)
        assert [each["message"] for each in plan["contradictions"]] == [
            "a cycle: MAIL-1 blocks MAIL-2 blocks MAIL-1",
            "SHOP-20 has 2 parents: MAIL-19, SHOP-19",
        ]

    async def test_it_says_if_links_could_not_be_read(
        self, client: CaseLinksClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A plan whose check is incomplete says so, instead of promising that there is no contradiction."""
        links = wanted("SHOP-22 blocks SHOP-20")
        list_links, hidden = client.list_links, (await client.get_case("SHOP-21")).entity

        async def list_some(entity: Entity, **options: Any) -> list[CaseLink]:
            if entity == hidden:
                raise PermissionDeniedError("cannot list", status=403)
            return await list_links(entity, **options)

        async with connected(AgentServer(client)) as agent:
            with monkeypatch.context() as patch:
                patch.setattr(tools, "_MAX_CHECKED", 1)
                cut = await agent.call("plan_links", links=links)
            monkeypatch.setattr(client, "list_links", list_some)
            unread = await agent.call("plan_links", links=links)
        assert (cut["is_checked"], cut["contradictions"]) == (False, [])
        assert (unread["is_checked"], unread["contradictions"]) == (False, [])


class TestLink:
    async def test_it_says_whether_it_created_the_link(
        self, sandbox: Sandbox, server: AgentServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A second equal call changes nothing and says so, and both are in the log."""
        caplog.set_level(logging.INFO)
        async with connected(server) as agent:
            first = await agent.call("link", entity="MAIL-1", relationship="is blocked by", other="mail-2")
            again = await agent.call("link", entity="MAIL-2", relationship="blocks", other="MAIL-1")
        assert first == {"link": "MAIL-2 blocks MAIL-1", "created": True, "link_id": sandbox.links[-1].id}
        assert again == first | {"created": False}
        assert logged(caplog) == [
            "asked to link: MAIL-2 blocks MAIL-1",
            f"link: MAIL-2 blocks MAIL-1: created: {first['link_id']}",
            "asked to link: MAIL-2 blocks MAIL-1",
            f"link: MAIL-2 blocks MAIL-1: already_linked: {first['link_id']}",
        ]

    async def test_a_lost_response_creates_no_second_link(
        self, sandbox: Sandbox, server: AgentServer
    ) -> None:
        """The link of a create whose response is lost is found, as by the client itself."""
        sandbox.fail_next(Fault.LOST_RESPONSE, operation="create")
        before = len(sandbox.links)
        async with connected(server) as agent:
            await agent.call("link", entity="MAIL-1", relationship="blocks", other="MAIL-2")
        assert len(sandbox.links) == before + 1

    async def test_a_failure_is_logged(self, server: AgentServer, caplog: pytest.LogCaptureFixture) -> None:
        """The log has what was asked and why it was not done."""
        caplog.set_level(logging.INFO)
        async with connected(server) as agent:
            error = await agent.refused("link", entity="MAIL-1", relationship="blocks", other="MAIL-99")
        assert logged(caplog) == [
            "asked to link: MAIL-1 blocks MAIL-99",
            f"link: MAIL-1 blocks MAIL-99: {error}",
        ]


class TestLinkMany:
    async def test_each_link_has_an_outcome(self, sandbox: Sandbox, server: AgentServer) -> None:
        """Outcomes are in the order of the links, and a failure does not stop the others."""
        links = wanted(
            *("MAIL-1 blocks MAIL-2", "MAIL-1 eats MAIL-2", "MAIL-1 blocks MAIL-99", "SHOP-5 causes SHOP-2"),
            "MAIL-3 duplicates MAIL-1",
        )
        async with connected(server) as agent:
            done = await agent.call("link_many", links=links)
        assert [(each["index"], each["status"], each["link"]) for each in done["outcomes"]] == [
            (0, "created", "MAIL-1 blocks MAIL-2"),
            (1, "malformed", "MAIL-1 eats MAIL-2"),
            (2, "failed", "MAIL-1 blocks MAIL-99"),
            (3, "already_linked", "SHOP-5 causes SHOP-2"),
            (4, "created", "MAIL-3 duplicates MAIL-1"),
        ]
        assert [index for index, each in enumerate(done["outcomes"]) if "error" in each] == [1, 2]
        assert (done["created"], done["already_linked"], done["failed"]) == (2, 1, 2)

    async def test_it_takes_a_bounded_number(self, sandbox: Sandbox, server: AgentServer) -> None:
        """More links than the limit are refused as a whole."""
        before = len(sandbox.links)
        async with connected(server) as agent:
            error = await agent.refused("link_many", links=wanted("MAIL-1 blocks MAIL-2") * 51)
            none = await agent.refused("link_many", links=[])
        assert (
            error
            == "cannot call link_many: links: List should have at most 50 items after validation, not 51"
        )
        assert (
            none == "cannot call link_many: links: List should have at least 1 item after validation, not 0"
        )
        assert len(sandbox.links) == before


class TestUnlink:
    async def test_it_deletes_the_link_between_two_ends(self, sandbox: Sandbox, server: AgentServer) -> None:
        """The link is deleted if it is named in either direction, and deleting it again is not an error."""
        async with connected(server) as agent:
            done = await agent.call("unlink", entity="SHOP-2", relationship="caused by", other="SHOP-5")
            again = await agent.call("unlink", entity="SHOP-5", relationship="causes", other="SHOP-2")
        assert (done["link"], done["deleted"]) == ("SHOP-5 causes SHOP-2", 1)
        assert again == {"link": "SHOP-5 causes SHOP-2", "deleted": 0, "link_ids": []}
        assert done["link_ids"][0] not in {each.id for each in sandbox.links}

    async def test_of_equal_links_it_can_delete_one(
        self, client: CaseLinksClient, server: AgentServer
    ) -> None:
        """With the id of a link, equal links stay."""
        wanted = case("MAIL-1").blocks(case("MAIL-2"))
        first, second, third = [await client.create_link(wanted) for _ in range(3)]
        arguments = {"entity": "MAIL-1", "relationship": "blocks", "other": "MAIL-2"}
        async with connected(server) as agent:
            done = await agent.call("unlink", link_id=second.id, **arguments)
            assert done["link_ids"] == [second.id]
            rest = await agent.call("unlink", **arguments)
        assert set(rest["link_ids"]) == {first.id, third.id}

    async def test_a_link_that_is_gone_counts_as_deleted(
        self, client: CaseLinksClient, server: AgentServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """If somebody else deletes the link after it was listed, the result is the same."""
        delete_link = client.delete_link

        async def delete_twice(link: str) -> None:
            await delete_link(link)
            await delete_link(link)

        monkeypatch.setattr(client, "delete_link", delete_twice)
        async with connected(server) as agent:
            done = await agent.call("unlink", entity="SHOP-5", relationship="causes", other="SHOP-2")
        assert done["deleted"] == 1


class TestLimit:
    async def test_writes_beyond_it_are_refused(
        self, sandbox: Sandbox, client: CaseLinksClient, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Agents together write no more than the limit, and are shown when they can go on."""
        server = AgentServer(client, access=Access.DELETE, write_rate=Rate(3, 600))
        before = len(sandbox.links)
        two = wanted("MAIL-1 blocks MAIL-2", "MAIL-2 blocks MAIL-3")
        async with connected(server) as one, connected(server) as other:
            await one.call("link_many", links=two)
            error = await other.refused("link_many", links=two)
            many = await other.refused("link_many", links=two * 2)
            await other.call("unlink", entity="MAIL-1", relationship="blocks", other="MAIL-2")
            last = await one.refused("link", entity="MAIL-4", relationship="blocks", other="MAIL-5")
            await one.call("plan_links", links=two)
        assert re.fullmatch(
            r"this server allows 3 writes in 600 s: call again in \d+ s\. Nothing was written", error
        )
        assert "refused to link 2 links: more than 3 writes in 600 s" in logged(caplog)
        assert many == (
            "this server allows 3 writes in 600 s, and 4 were asked for: ask for fewer. Nothing was written"
        )
        assert "call again in" in last
        assert len(sandbox.links) == before + 1

    async def test_each_deleted_link_is_a_write(self, sandbox: Sandbox, client: CaseLinksClient) -> None:
        """Two equal links to delete are two writes."""
        server = AgentServer(client, access=Access.DELETE, write_rate=Rate(1, 600))
        link = case("MAIL-1").blocks(case("MAIL-2"))
        for _ in range(2):
            await client.create_link(link)
        before = len(sandbox.links)
        async with connected(server) as agent:
            error = await agent.refused("unlink", entity="MAIL-1", relationship="blocks", other="MAIL-2")
        assert error.startswith("this server allows 1 write in 600 s, and 2 were asked for")
        assert len(sandbox.links) == before

    async def test_what_was_deleted_before_an_error_is_named(
        self,
        client: CaseLinksClient,
        server: AgentServer,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """If the second of two equal links cannot be deleted, the agent and the log learn of the first."""
        link = case("MAIL-1").blocks(case("MAIL-2"))
        created = [(await client.create_link(link)).id for _ in range(2)]
        delete_link = client.delete_link

        async def delete_the_first(link_id: str) -> None:
            if link_id == created[1]:
                raise ServerError("503", status=503)
            await delete_link(link_id)

        monkeypatch.setattr(client, "delete_link", delete_the_first)
        async with connected(server) as agent:
            error = await agent.refused("unlink", entity="MAIL-1", relationship="blocks", other="MAIL-2")
            assert error == f"deleted {created[0]}, but then: 503"
            assert f"unlink: MAIL-1 blocks MAIL-2: {error}" in logged(caplog)
            error = await agent.refused("unlink", entity="MAIL-1", relationship="blocks", other="MAIL-2")
            assert error == "503"

    def test_it_is_of_any_period(self) -> None:
        """A write is allowed again once the period after an earlier one is over."""
        times = [0.0]
        writes = Writes(Rate(2, 60), clock=lambda: times[-1])
        link = case("SHOP-1").blocks(case("SHOP-2"))
        for time, count, wait in (
            *((0.0, 1, None), (50.0, 1, None), (59.5, 1, "1 s"), (60.0, 2, "50 s"), (109.0, 2, "1 s")),
            *((110.0, 2, None), (110.0, 1, "60 s")),
        ):
            times.append(time)
            expected = pytest.raises(CaseLinksError, match=f"again in {wait}") if wait else nullcontext()
            with expected, writes.asked("link", [link] * count):
                pass
