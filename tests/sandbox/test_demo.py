"""The demo data: its cases and links are consistent, and are added to a sandbox once."""

from __future__ import annotations

from collections.abc import Callable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from attrs import asdict

from datadog_caselinks import CaseLinksClient, ParameterError, Relationship
from datadog_caselinks.sandbox import Sandbox, demo
from datadog_caselinks.sandbox.documents import read_draft, write_json

if TYPE_CHECKING:
    from tests.sandbox.caller import Caller

CallerOf = Callable[[Sandbox], "Caller"]

CASES = {each.id: each for each in demo.cases()}
LINKS = list(demo.links())


class TestStory:
    def test_each_case_appears_once(self) -> None:
        """Each case of the demo has an id, a key and a title of its own, with keys in order."""
        keys = [f"SHOP-{number}" for number in range(1, 37)] + [f"MAIL-{number}" for number in range(1, 31)]
        assert [each.key for each in CASES.values()] == keys
        assert len(list(demo.cases())) == len(CASES) == len({each.title for each in CASES.values()})
        assert all(each.title.strip() for each in CASES.values())
        assert {each.status for each in CASES.values()} == {"OPEN", "IN_PROGRESS", "CLOSED"}
        assert {each.priority for each in CASES.values()} <= {"P1", "P2", "P3", "P4", "P5", "NOT_DEFINED"}

    def test_each_link_is_one_that_the_api_takes(self) -> None:
        """Each link of the demo is a valid create, and none occurs twice."""
        for link in LINKS:
            document = {"data": {"type": "link", "attributes": asdict(link)}}
            assert read_draft(write_json(document)) == link
        assert len(set(LINKS)) == len(LINKS)

    def test_each_case_of_a_link_is_there(self) -> None:
        """Each case of a link exists in the demo, and no other entity has the id of a case."""
        for link in LINKS:
            for end_type, end_id in (
                (link.parent_entity_type, link.parent_entity_id),
                (link.child_entity_type, link.child_entity_id),
            ):
                assert (end_id in CASES) is (end_type == "CASE")

    def test_it_has_every_relationship_and_type(self) -> None:
        """The demo contains every relationship and every entity type."""
        assert {link.relationship for link in LINKS} == set(Relationship)
        types = {link.parent_entity_type for link in LINKS} | {link.child_entity_type for link in LINKS}
        assert types == {"CASE", "INCIDENT", "PAGE", "AGENT_CONVERSATION"}

    def test_some_cases_block_each_other(self) -> None:
        """The demo contains a cycle of open cases that block each other."""
        blocked: dict[str, set[str]] = {}
        for link in LINKS:
            if link.relationship == "BLOCKS":
                blocked.setdefault(link.parent_entity_id, set()).add(link.child_entity_id)
        with pytest.raises(CycleError) as caught:
            TopologicalSorter(blocked).prepare()
        circle = [CASES[each] for each in caught.value.args[1]]
        assert {each.key for each in circle} == {"SHOP-24", "SHOP-25", "SHOP-26"}
        assert "CLOSED" not in {each.status for each in circle}

    def test_it_is_the_same_every_time(self) -> None:
        """The demo has the same ids in every sandbox, so that documents can contain them."""
        assert list(demo.cases()) == list(CASES.values())
        assert list(demo.links()) == LINKS
        assert next(iter(CASES)) == "e7271d1c-572d-56ba-9bcf-1f9128191dc2"


class TestSeed:
    async def test_fills_the_sandbox(self, caller_of: CallerOf) -> None:
        """A sandbox with the demo has all of its cases and links from the first request on."""
        async with Sandbox(seed="demo", clock=lambda: 7.0) as sandbox:
            assert len(sandbox.links) == len(LINKS)
            assert {held.created_at for held in sandbox.links} == {7.0}
            for each in CASES.values():
                reply = await caller_of(sandbox).get(each.key)
                assert reply.json["data"]["id"] == each.id
                assert reply.json["data"]["attributes"]["title"] == each.title

    async def test_a_client_sees_the_story(self) -> None:
        """A client finds the demo's blocked cases and their titles by keys alone."""
        async with (
            Sandbox(seed="demo") as sandbox,
            CaseLinksClient(sandbox.site, sandbox.credentials) as links,
        ):
            entities = links.resolver()
            push, pool = await entities.entity("SHOP-24"), await entities.entity("SHOP-25")
            around = await links.list_links(push, relationship=Relationship.BLOCKS)
            blocked = next(link.child for link in around if link.parent == push)
            assert blocked == pool
            assert (await entities.case(blocked)).title == "Reject pool sizes below 20"

    async def test_without_it_there_is_nothing(self, sandbox: Sandbox, caller: Caller) -> None:
        """A sandbox without the demo is empty."""
        assert sandbox.links == []
        assert (await caller.get("SHOP-1")).status == 404

    async def test_is_sown_once(self, tmp_path: Path, caller_of: CallerOf) -> None:
        """The demo is added once: changes remain after a restart, and no link is duplicated."""
        path = tmp_path / "demo.db"
        async with Sandbox(db=path, seed="demo") as sandbox:
            await caller_of(sandbox).delete(sandbox.links[0].id)
            sandbox.add_case("SHOP-1", "Checkout hung", id=next(iter(CASES)))
            before = sandbox.links

        async with Sandbox(db=path, seed="demo") as sandbox:
            assert sandbox.links == before
            reply = await caller_of(sandbox).get("SHOP-1")
            assert reply.json["data"]["attributes"]["title"] == "Checkout hung"

    async def test_leaves_cases_of_ones_own_alone(self, tmp_path: Path, caller_of: CallerOf) -> None:
        """The demo is not added to a file that already contains a case."""
        path = tmp_path / "mine.db"
        async with Sandbox(db=path) as sandbox:
            sandbox.add_case("PAY-1")

        async with Sandbox(db=path, seed="demo") as sandbox:
            assert sandbox.links == []
            assert (await caller_of(sandbox).get("SHOP-1")).status == 404


def test_an_unknown_seed_is_refused() -> None:
    """An unknown seed, such as a number, is refused: ``fault_seed`` is the number."""
    with pytest.raises(ParameterError):
        Sandbox(seed=7)  # type: ignore[arg-type]
