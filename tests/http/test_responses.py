"""The rules for comparing a response with its request: get, delete and bulk.

The tests of creates are in ``tests/calls/test_creation.py``.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from datadog_caselinks import (
    AlreadyLinked,
    AmbiguousResultError,
    ApiKeys,
    CaseLinksClient,
    Failed,
    LinkStatus,
    MalformedResponseError,
    RetryPolicy,
    case,
    read_journal,
)
from tests.support.api import Api
from tests.support.ids import some_id
from tests.support.server import Server, Step
from tests.support.steps import answers, deleted, link_json, listed

NEW = case(some_id(1)).blocks(case(some_id(2)))
ATTRIBUTES = {
    "parent_entity_type": "CASE",
    "parent_entity_id": some_id(1),
    "relationship": "BLOCKS",
    "child_entity_type": "CASE",
    "child_entity_id": some_id(2),
}


def a_case(number: int, key: str) -> Step:
    """Return a step that responds with a case."""
    return answers(200, json.dumps({"data": {"id": some_id(number), "attributes": {"key": key}}}).encode())


def a_link(link_id: str) -> Step:
    """Return a step that responds with a link."""
    return answers(200, json.dumps({"data": {**link_json(ATTRIBUTES), "id": link_id}}).encode())


class TestGetCase:
    @pytest.mark.parametrize("name", ["SHOP-2", "shop-2", some_id(2), some_id(2).upper()])
    async def test_the_requested_case(self, name: str, keys: ApiKeys) -> None:
        """A response with the requested key or UUID, in either letter case, is accepted."""
        async with Server(a_case(2, "SHOP-2")) as server, CaseLinksClient(server.url, keys) as client:
            assert (await client.get_case(name)).id == some_id(2)
        assert len(server.seen) == 1

    @pytest.mark.parametrize("name", ["SHOP-2", some_id(2)])
    async def test_another_case(self, name: str, keys: ApiKeys, at_once: RetryPolicy) -> None:
        """A response about another case is not returned: the case is requested on another connection."""
        async with (
            Server(a_case(9, "SHOP-9"), a_case(1, "SHOP-1"), a_case(2, "SHOP-2")) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as client,
        ):
            await client.get_case("SHOP-9")
            assert (await client.get_case(name)).id == some_id(2)
        assert [seen.connection for seen in server.seen] == [0, 0, 1]

    async def test_a_renamed_project(self, keys: ApiKeys) -> None:
        """A case with another key than requested is accepted once a second response confirms it."""
        async with Server(a_case(2, "STORE-2")) as server, CaseLinksClient(server.url, keys) as client:
            assert (await client.get_case("SHOP-2")).key == "STORE-2"
        assert [seen.connection for seen in server.seen] == [0, 1]

    @pytest.mark.parametrize("name", ["SHOP-2", some_id(2)])
    async def test_only_other_cases(self, name: str, keys: ApiKeys, at_once: RetryPolicy) -> None:
        """No case is returned if each response is about a different one."""
        steps = (a_case(number, f"SHOP-{number}") for number in range(3, 9))
        async with Server(*steps) as server, CaseLinksClient(server.url, keys, retry=at_once) as client:
            with pytest.raises(MalformedResponseError, match=r"about (two|another)"):
                await client.get_case(name)

    @pytest.mark.parametrize(
        "attributes", [None, {}, {"key": None}, {"key": ""}, {"key": 2}, {"title": "SHOP-2"}]
    )
    async def test_a_case_without_a_key(
        self, attributes: object, keys: ApiKeys, at_once: RetryPolicy
    ) -> None:
        """A response without the requested key is refused, also as the second response."""
        keyless = answers(200, json.dumps({"data": {"id": some_id(2), "attributes": attributes}}).encode())
        for steps in ((keyless,), (keyless, a_case(2, "STORE-2")), (a_case(2, "STORE-2"), keyless)):
            async with Server(*steps) as server, CaseLinksClient(server.url, keys, retry=at_once) as client:
                with pytest.raises(
                    MalformedResponseError, match=r"^cannot get case SHOP-2: a response has no case key$"
                ):
                    await client.get_case("SHOP-2")
        async with Server(keyless) as server, CaseLinksClient(server.url, keys, retry=at_once) as client:
            with pytest.raises(MalformedResponseError):
                await client.create_link(case("SHOP-2").blocks(case(some_id(3))))
        assert "POST" not in server.methods
        async with (
            Server(keyless, a_case(2, "SHOP-2")) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as client,
        ):
            assert (await client.get_case("SHOP-2")).key == "SHOP-2"
        assert [seen.connection for seen in server.seen] == [0, 1]

    async def test_a_case_without_a_key_by_its_uuid(self, keys: ApiKeys) -> None:
        """A response without a key is accepted if its id is the requested UUID."""
        keyless = answers(200, json.dumps({"data": {"id": some_id(2)}}).encode())
        async with Server(keyless) as server, CaseLinksClient(server.url, keys) as client:
            assert (await client.get_case(some_id(2))).key == ""
        assert len(server.seen) == 1


class TestDelete:
    async def test_something_else(self, keys: ApiKeys, at_once: RetryPolicy) -> None:
        """A delete whose success is about something else is sent again."""
        async with (
            Server(a_link("other"), deleted) as server,
            CaseLinksClient(server.url, keys, retry=at_once) as client,
        ):
            await client.delete_link("this")
        assert [seen.connection for seen in server.seen] == [0, 1]

    @pytest.mark.parametrize("step", [a_link("this"), answers(200, b"{}"), answers(200, b"deleted"), deleted])
    async def test_the_deleted_link(self, step: Step, keys: ApiKeys, at_once: RetryPolicy) -> None:
        """A delete succeeds with a response about its link or about nothing."""
        async with Server(step) as server, CaseLinksClient(server.url, keys, retry=at_once) as client:
            await client.delete_link("this")
        assert len(server.seen) == 1


@pytest.mark.parametrize("status", [400, 409, 422])
async def test_a_refusal_while_the_list_lags_stays_ambiguous_in_the_journal(
    status: int, tmp_path: Path, keys: ApiKeys, at_once: RetryPolicy
) -> None:
    """A link that this run created is never recorded as failed, and the next run finds it."""
    api, journal = Api(), tmp_path / "run.journal"
    steps = [api.applies(answers(502)), listed, answers(status), listed]
    async with (
        Server(*steps, api) as server,
        CaseLinksClient(server.url, keys, retry=at_once) as client,
    ):
        [outcome] = [outcome async for outcome in client.create_links([NEW], journal=journal)]
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, AmbiguousResultError)
        assert outcome.status is LinkStatus.AMBIGUOUS
        assert [record.status for record in read_journal(journal)] == [LinkStatus.AMBIGUOUS]
        [outcome] = [outcome async for outcome in client.create_links([NEW], journal=journal)]
        assert isinstance(outcome, AlreadyLinked)
    assert (server.methods, len(api.links)) == (["POST", "GET", "POST", "GET", "GET"], 1)
