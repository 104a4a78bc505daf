"""The sandbox's API follows the reference: credentials, documents and refusals."""

from __future__ import annotations

import json
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datadog_caselinks.sandbox import Sandbox, StoredLink
from datadog_caselinks.sandbox.documents import InvalidDocumentError, read_draft

if TYPE_CHECKING:
    from tests.sandbox.caller import Caller

CASE = "bf0cbac6-4c16-4cfb-b6bf-ca5e0ec37a4f"
OTHER_CASE = "4417921d-0866-4a38-822c-6f2a0f65f77d"
INCIDENT = "804cd682-55f6-4541-ab00-b608b282ea7d"
JSON_API = "application/vnd.api+json"
TYPES = "CASE, INCIDENT, PAGE, AGENT_CONVERSATION"
RELATIONSHIPS = "RELATES_TO, CAUSES, BLOCKS, DUPLICATES, PARENT_OF, SUCCESSOR_OF, ESCALATES_TO"


class TestCreate:
    async def test_responds_with_the_link_and_its_id(self, caller: Caller, sandbox: Sandbox) -> None:
        """A create responds with 201, the attributes as sent and an id, and stores the same link."""
        reply = await caller.create()

        assert reply.status == 201
        assert reply.headers["Content-Type"] == JSON_API
        (stored,) = sandbox.links
        assert reply.json == {
            "data": {"id": stored.id, "type": "link", "attributes": caller.attributes()},
        }
        assert stored == StoredLink(stored.id, "CASE", CASE, "BLOCKS", "CASE", OTHER_CASE, 1_800_000_000.0)

    async def test_makes_a_second_link_of_an_equal_request(self, caller: Caller, sandbox: Sandbox) -> None:
        """An equal create creates a second link, so that a test can detect duplicates."""
        first, second = await caller.create(), await caller.create()

        assert [link.id for link in sandbox.links] == [first.json["data"]["id"], second.json["data"]["id"]]
        assert first.json["data"]["id"] != second.json["data"]["id"]

    @pytest.mark.parametrize("relationship", RELATIONSHIPS.split(", "))
    @pytest.mark.parametrize("entity_type", TYPES.split(", "))
    async def test_takes_every_type_and_relationship(
        self, caller: Caller, relationship: str, entity_type: str
    ) -> None:
        """Each documented type and relationship is accepted on either side of a case."""
        as_child = await caller.create(relationship=relationship, child_entity_type=entity_type)
        as_parent = await caller.create(relationship=relationship, parent_entity_type=entity_type)

        assert (as_child.status, as_parent.status) == (201, 201)

    async def test_ignores_members_it_does_not_know(self, caller: Caller) -> None:
        """Unknown members are ignored on every level."""
        document = {
            "meta": 1,
            "data": {"type": "link", "x": [], "attributes": caller.attributes(colour="red")},
        }
        reply = await caller.send("POST", "/api/v2/cases/link", json=document)

        assert reply.status == 201
        assert "colour" not in reply.json["data"]["attributes"]

    async def test_writes_ids_in_lower_case(self, caller: Caller) -> None:
        """A UUID is accepted in either letter case and stored in lower case."""
        reply = await caller.create(parent_entity_id=CASE.upper())

        assert reply.json["data"]["attributes"]["parent_entity_id"] == CASE

    @pytest.mark.parametrize(
        ("body", "detail"),
        [
            (b"", "the body is not valid JSON"),
            (b"{", "the body is not valid JSON"),
            (b"\xff\xfe\xfd", "the body is not valid JSON"),
            (b"[" * 200_000, "the body is not valid JSON"),
            (b"[]", "the body must be a JSON object"),
            (b"{}", "data must be an object"),
            (b'{"data": []}', "data must be an object"),
            (b'{"data": {"attributes": {}}}', 'data.type must be "link", not null'),
            (b'{"data": {"type": "case"}}', 'data.type must be "link", not "case"'),
            (b'{"data": {"type": "link"}}', "data.attributes must be an object"),
            (b'{"data": {"type": "link", "attributes": "x"}}', "data.attributes must be an object"),
        ],
    )
    async def test_refuses_what_is_no_link_document(
        self, caller: Caller, sandbox: Sandbox, body: bytes, detail: str
    ) -> None:
        """A body that is not a link document gets a 400 in the recorded form, with the reason as detail."""
        reply = await caller.send("POST", "/api/v2/cases/link", data=body)

        assert reply.status == 400
        assert reply.headers["Content-Type"] == JSON_API
        assert reply.json == {"errors": [{"status": "400", "title": "Bad Request", "detail": detail}]}
        assert sandbox.links == []

    @pytest.mark.parametrize(
        "name",
        ["parent_entity_type", "parent_entity_id", "relationship", "child_entity_type", "child_entity_id"],
    )
    async def test_names_a_missing_attribute(self, caller: Caller, name: str) -> None:
        """A create without one of the attributes gets a 400 that names the attribute."""
        reply = await caller.create(**{name: None})

        assert (reply.status, reply.details) == (400, [f"data.attributes.{name} is missing"])

    async def test_names_everything_that_is_wrong(self, caller: Caller) -> None:
        """A create with several errors gets one detail for each attribute, with the allowed values."""
        reply = await caller.create(
            parent_entity_type="TICKET",
            parent_entity_id=CASE.replace("-", ""),
            relationship="blocks",
            child_entity_type=["CASE"],
            child_entity_id=7,
        )

        assert reply.status == 400
        assert reply.details == [
            f'data.attributes.parent_entity_type must be one of {TYPES}, not "TICKET"',
            f'data.attributes.parent_entity_id must be a UUID, not "{CASE.replace("-", "")}"',
            f'data.attributes.relationship must be one of {RELATIONSHIPS}, not "blocks"',
            f'data.attributes.child_entity_type must be one of {TYPES}, not ["CASE"]',
            "data.attributes.child_entity_id must be a UUID, not 7",
        ]

    async def test_cuts_a_long_value_short(self, caller: Caller) -> None:
        """A detail quotes at most 100 characters of the request."""
        reply = await caller.create(relationship="x" * 1000)

        assert reply.details[0].endswith('not "' + "x" * 99 + "...")

    async def test_refuses_a_link_without_a_case(self, caller: Caller) -> None:
        """A link without a case at either end is refused."""
        reply = await caller.create(parent_entity_type="PAGE", child_entity_type="INCIDENT")

        assert (reply.status, reply.details) == (400, ["at least one of the two entities must be a CASE"])

    async def test_refuses_to_link_an_entity_to_itself(self, caller: Caller) -> None:
        """A link of an entity to itself is refused; the same id with another type is another entity."""
        same = await caller.create(child_entity_id=CASE.upper())
        other = await caller.create(child_entity_id=CASE, child_entity_type="PAGE")

        assert (same.status, same.details) == (400, ["an entity cannot be linked to itself"])
        assert other.status == 201

    async def test_takes_a_body_of_one_mebibyte_and_no_more(self, caller: Caller, sandbox: Sandbox) -> None:
        """A body of one byte above 1 MiB gets a 413. aiohttp 3.11 refuses one of exactly 1 MiB, too."""
        body = json.dumps({"data": {"type": "link", "attributes": caller.attributes()}}).encode()
        fits, too_large = [
            await caller.send("POST", "/api/v2/cases/link", data=BytesIO(body.ljust(1024 * 1024 + extra)))
            for extra in (-1, 1)
        ]

        assert (fits.status, too_large.status) == (201, 413)
        assert too_large.json == {"errors": ["Request Entity Too Large"]}
        assert len(sandbox.links) == 1

    async def test_refuses_a_body_that_does_not_decompress(self, caller: Caller) -> None:
        """A body that does not decompress gets a 400."""
        keys = (await caller.sandbox.credentials.authenticate()).headers
        reply = await caller.send(
            "POST",
            "/api/v2/cases/link",
            data=b"not gzip at all",
            headers={**keys, "Content-Encoding": "gzip"},
        )

        assert reply.status == 400
        assert reply.details[0].startswith("the body cannot be read: ")

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("link"),
            lambda inner: (
                st.lists(inner)
                | st.dictionaries(st.text() | st.sampled_from(["data", "type", "attributes"]), inner)
            ),
        )
    )
    @pytest.mark.slow
    def test_refuses_any_other_json(self, document: Any) -> None:
        """Any other JSON document is refused as invalid."""
        with pytest.raises(InvalidDocumentError):
            read_draft(json.dumps(document).encode())


class TestList:
    async def test_finds_the_links_on_either_side_oldest_first(self, caller: Caller) -> None:
        """A list has the links with the entity on either side, oldest first, and no others."""
        first = await caller.create()
        second = await caller.create(parent_entity_id=OTHER_CASE, child_entity_id=CASE)
        await caller.create(parent_entity_id=OTHER_CASE, child_entity_id=INCIDENT)

        reply = await caller.list(CASE)

        assert reply.status == 200
        assert reply.headers["Content-Type"] == JSON_API
        assert reply.json == {"data": [first.json["data"], second.json["data"]]}

    async def test_distinguishes_entities_of_one_id_by_their_type(self, caller: Caller) -> None:
        """Entities with the same id and different types have separate lists."""
        await caller.create(child_entity_type="PAGE", child_entity_id=INCIDENT)

        assert (await caller.list(INCIDENT, "CASE")).json == {"data": []}
        assert len((await caller.list(INCIDENT, "PAGE")).json["data"]) == 1
        assert (await caller.list(CASE, "PAGE")).json == {"data": []}

    async def test_filters_by_relationship(self, caller: Caller) -> None:
        """A list with ``relationship`` has only the links of that relationship."""
        await caller.create(relationship="BLOCKS")
        causes = await caller.create(relationship="CAUSES")

        assert (await caller.list(relationship="CAUSES")).json == {"data": [causes.json["data"]]}

    async def test_finds_an_id_in_any_case(self, caller: Caller) -> None:
        """A list accepts a UUID in upper case."""
        await caller.create()

        assert len((await caller.list(CASE.upper())).json["data"]) == 1

    @pytest.mark.parametrize(
        ("query", "details"),
        [
            (
                "",
                ["query parameter entity_type is missing", "query parameter entity_id is missing"],
            ),
            (
                "entity_type=&entity_id=1",
                [
                    f'query parameter entity_type must be one of {TYPES}, not ""',
                    'query parameter entity_id must be a UUID, not "1"',
                ],
            ),
            (
                f"entity_type=CASE&entity_id={CASE}&entity_id={OTHER_CASE}",
                ["query parameter entity_id is given 2 times"],
            ),
            (
                f"entity_type=CASE&entity_id={CASE}&relationship=LIKES",
                [f'query parameter relationship must be one of {RELATIONSHIPS}, not "LIKES"'],
            ),
        ],
    )
    async def test_names_what_is_wrong_with_the_query(
        self, caller: Caller, query: str, details: list[str]
    ) -> None:
        """A query parameter that is missing, malformed or repeated gets a 400 that names it."""
        reply = await caller.send("GET", f"/api/v2/cases/link?{query}")

        assert (reply.status, reply.details) == (400, details)

    async def test_ignores_parameters_it_does_not_know(self, caller: Caller) -> None:
        """Unknown query parameters, such as a page, are ignored."""
        await caller.create()

        assert len((await caller.list(page="2")).json["data"]) == 1


class TestDelete:
    async def test_responds_with_204_without_a_body(self, caller: Caller, sandbox: Sandbox) -> None:
        """A delete responds with 204 and no body, and leaves the other links."""
        gone = (await caller.create()).json["data"]["id"]
        stays = (await caller.create()).json["data"]["id"]

        reply = await caller.delete(gone)

        assert (reply.status, reply.body) == (204, b"")
        assert "Content-Type" not in reply.headers
        assert [link.id for link in sandbox.links] == [stays]

    async def test_finds_an_id_in_any_case(self, caller: Caller) -> None:
        """A delete accepts a UUID in upper case."""
        link_id = (await caller.create()).json["data"]["id"]

        assert (await caller.delete(link_id.upper())).status == 204

    async def test_does_not_know_another_link(self, caller: Caller) -> None:
        """A delete of an unknown link gets a 404 in the form recorded from the case endpoints."""
        reply = await caller.delete("00000000-0000-4000-8000-000000000000")

        assert reply.status == 404
        assert reply.json == {"errors": [{"code": "resource_not_found", "title": "link not found"}]}

    async def test_succeeds_once(self, caller: Caller) -> None:
        """A second delete of the same link gets a 404."""
        link_id = (await caller.create()).json["data"]["id"]

        assert [(await caller.delete(link_id)).status for _ in range(2)] == [204, 404]


class TestGet:
    @pytest.mark.parametrize("name", ["SHOP-1", "shop-1", CASE, CASE.upper()])
    async def test_responds_with_the_case(self, caller: Caller, sandbox: Sandbox, name: str) -> None:
        """A case is found by its key or UUID in either letter case, with the recorded attributes."""
        sandbox.add_case("SHOP-1", "Checkout hangs", status="IN_PROGRESS", priority="P2", id=CASE)
        sandbox.add_case("SHOP-2")

        reply = await caller.get(name)

        assert reply.status == 200
        assert reply.headers["Content-Type"] == JSON_API
        assert reply.json == {
            "data": {
                "id": CASE,
                "type": "case",
                "attributes": {
                    "key": "SHOP-1",
                    "public_id": "1",
                    "title": "Checkout hangs",
                    "status": "IN_PROGRESS",
                    "status_name": "In Progress",
                    "status_group": "SG_IN_PROGRESS",
                    "priority": "P2",
                },
            }
        }

    async def test_a_status_may_have_no_name_or_group(self, caller: Caller, sandbox: Sandbox) -> None:
        """A case has the status name and group that it was given, and omits empty ones."""
        sandbox.add_case("SHOP-1", status="OPEN", status_name="Waiting for QA", status_group="SG_IN_PROGRESS")
        sandbox.add_case("SHOP-2", status="RESOLVED", status_name="", status_group="")

        named, bare = [(await caller.get(key)).json["data"]["attributes"] for key in ("SHOP-1", "SHOP-2")]

        assert (named["status"], named["status_name"], named["status_group"]) == (
            "OPEN",
            "Waiting for QA",
            "SG_IN_PROGRESS",
        )
        assert (bare["status"], "status_name" in bare, "status_group" in bare) == ("RESOLVED", False, False)

    async def test_a_case_that_moved_has_another_key(self, caller: Caller, sandbox: Sandbox) -> None:
        """A case that moved to another project keeps its UUID, and its old key is unknown."""
        old = sandbox.add_case("SHOP-1", "Checkout hangs")
        sandbox.add_case("OPS-7", old.title, id=old.id)

        assert (await caller.get("SHOP-1")).status == 404
        assert (await caller.get(old.id)).json["data"]["attributes"]["key"] == "OPS-7"

    @pytest.mark.parametrize("name", ["SHOP-2", "SHOP-10", OTHER_CASE])
    async def test_does_not_know_another_case(self, caller: Caller, sandbox: Sandbox, name: str) -> None:
        """A lookup of an unknown case gets a 404 in the recorded form."""
        sandbox.add_case("SHOP-1", id=CASE)

        reply = await caller.get(name)

        assert (reply.status, reply.headers["Content-Type"]) == (404, JSON_API)
        assert reply.json == {"errors": [{"code": "resource_not_found", "title": "case not found"}]}

    async def test_does_not_know_the_ends_of_links(self, caller: Caller, sandbox: Sandbox) -> None:
        """A case that was not added is unknown, even if links contain it."""
        await caller.create()

        assert (await caller.get(CASE)).status == 404

    async def test_is_a_read(self, caller: Caller, sandbox: Sandbox) -> None:
        """A lookup of a case needs valid keys, but not ``cases_write``."""
        sandbox.add_case("SHOP-1")
        read_only = (await sandbox.credentials_without_scope.authenticate()).headers

        assert (await caller.get("SHOP-1", headers=read_only)).status == 200
        assert (await caller.get("SHOP-1", headers={"Authorization": "Bearer wrong"})).status == 401

    async def test_counts_for_the_rate_limit(self, caller: Caller, sandbox: Sandbox) -> None:
        """A lookup of a case counts towards the rate limit."""
        sandbox.rate_limit = "1/10s"

        assert (await caller.get("SHOP-1")).headers["X-RateLimit-Remaining"] == "0"
        assert (await caller.get("SHOP-1")).status == 429


class TestCredentials:
    async def test_accepts_the_token(self, caller: Caller, sandbox: Sandbox) -> None:
        """A bearer token is accepted instead of the keys."""
        headers = (await sandbox.bearer_token.authenticate()).headers

        assert (await caller.create(headers=headers)).status == 201

    @pytest.mark.parametrize("others", [{}, {"DD-API-KEY": "sandbox-api-key"}, {"DD-API-KEY": "wrong"}])
    async def test_accepts_an_access_token(
        self, caller: Caller, sandbox: Sandbox, others: dict[str, str]
    ) -> None:
        """An access token is accepted as bearer token, and as application key with any API key."""
        token = str(sandbox.access_token.token)

        assert (await caller.create(headers={**others, "DD-APPLICATION-KEY": token})).status == 201
        assert (await caller.create(headers={"Authorization": f"Bearer {token}"})).status == 201

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"DD-API-KEY": "sandbox-api-key"},
            {"DD-APPLICATION-KEY": "sandbox-app-key"},
            {"DD-API-KEY": "wrong", "DD-APPLICATION-KEY": "sandbox-app-key"},
            {"DD-API-KEY": "sandbox-api-key", "DD-APPLICATION-KEY": "sandbox-token"},
            {"DD-API-KEY": "sandbox-api-key", "DD-APPLICATION-KEY": "wrong"},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Basic sandbox-token"},
        ],
    )
    async def test_refuses_others(self, caller: Caller, sandbox: Sandbox, headers: dict[str, str]) -> None:
        """Missing or wrong credentials get a 401, even if the rest of the request is invalid too."""
        reply = await caller.send("POST", "/api/v2/cases/link", headers=headers, data=b"no JSON")

        assert (reply.status, reply.json) == (401, {"errors": ["Unauthorized"]})
        assert reply.headers["Content-Type"] == JSON_API

    @pytest.mark.parametrize("key", ["DD-API-KEY", "DD-APPLICATION-KEY"])
    async def test_refuses_two_schemes_at_once(self, caller: Caller, key: str) -> None:
        """A request with a token and a key gets a 401, even if both are valid."""
        headers = {key: f"sandbox-{key[3:6].lower()}-key", "Authorization": "Bearer sandbox-token"}
        reply = await caller.create(headers=headers)

        assert reply.status == 401
        assert reply.json == {"errors": ["send DD-API-KEY and DD-APPLICATION-KEY or Authorization, not both"]}

    async def test_refuses_a_write_without_the_scope(self, caller: Caller, sandbox: Sandbox) -> None:
        """A key without ``cases_write`` can list links; a create or a delete gets a 403."""
        headers = (await sandbox.credentials_without_scope.authenticate()).headers
        link_id = (await caller.create()).json["data"]["id"]

        listed = await caller.send(
            "GET", f"/api/v2/cases/link?entity_type=CASE&entity_id={CASE}", headers=headers
        )
        created, deleted = await caller.create(headers=headers), await caller.delete(link_id, headers=headers)

        assert (listed.status, created.status, deleted.status) == (200, 403, 403)
        forbidden = {"errors": ["the application key lacks the scope cases_write"]}
        assert created.json == deleted.json == forbidden
        assert len(sandbox.links) == 1


class TestRoutes:
    @pytest.mark.parametrize(
        "path",
        [
            "/api/v2/cases/",
            "/api/v2/cases/a/b",
            "/api/v2/cases/link/",
            "/api/v2/incidents",
            "/api/v2/incidents/",
            "/api/v2/cases/link/a/b",
            "/api",
            "/favicon.ico",
        ],
    )
    async def test_does_not_know_other_paths(self, caller: Caller, path: str) -> None:
        """An unknown path gets a 404."""
        reply = await caller.send("GET", path)

        assert (reply.status, reply.json) == (404, {"errors": ["Not Found"]})

    @pytest.mark.parametrize(
        ("method", "path", "allowed"),
        [
            ("DELETE", "/api/v2/cases/link", "GET, POST"),
            ("PATCH", "/api/v2/cases/link", "GET, POST"),
            ("GET", "/api/v2/cases/link/1", "DELETE"),
            ("POST", "/api/v2/cases/SHOP-1", "GET"),
            ("DELETE", "/api/v2/cases/SHOP-1", "GET"),
        ],
    )
    async def test_refuses_a_wrong_method(self, caller: Caller, method: str, path: str, allowed: str) -> None:
        """A wrong method gets a 405 with the right methods in ``Allow``."""
        reply = await caller.send(method, path)

        assert (reply.status, reply.json) == (405, {"errors": ["Method Not Allowed"]})
        assert reply.headers["Allow"] == allowed
