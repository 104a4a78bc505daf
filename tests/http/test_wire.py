"""The rules of requests and responses: the documented form is sent, and any response is a link or an error.

Every test runs with both JSON libraries: orjson, of the extra ``speed``, and the standard library.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import pickle
import re
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from functools import reduce
from operator import getitem
from types import ModuleType
from typing import Any, Final, cast
from urllib.parse import parse_qs, unquote
from uuid import UUID

import pytest
from attrs import evolve
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict
from yarl import URL

import datadog_caselinks.http.envelope
import datadog_caselinks.http.wire
from datadog_caselinks import (
    AuthenticationError,
    BadRequestError,
    Case,
    CaseLink,
    CaseLinksError,
    ConflictError,
    Entity,
    InvalidLinkError,
    MalformedResponseError,
    NewCaseLink,
    NotFoundError,
    PermissionDeniedError,
    RateLimit,
    RateLimitError,
    Relationship,
    ResponseError,
    ResponseTooLargeError,
    ServerError,
)
from datadog_caselinks.http.wire import Response
from datadog_caselinks.values.messages import quoted
from tests.support.ids import case, incident
from tests.support.strategies import json_values, links, new_links

A = "bf0cbac6-4c16-4cfb-b6bf-ca5e0ec37a4f"
B = "4417921d-0866-4a38-822c-6f2a0f65f77d"
LINK_ID = "804cd682-55f6-4541-ab00-b608b282ea7d"

# The example of the API reference.
REQUEST = {
    "data": {
        "attributes": {
            "child_entity_id": B,
            "child_entity_type": "CASE",
            "parent_entity_id": A,
            "parent_entity_type": "CASE",
            "relationship": "BLOCKS",
        },
        "type": "link",
    }
}
ANSWER = {"data": {**REQUEST["data"], "id": LINK_ID}}
ODD_IDS: list[object] = [None, 7, "", []]
LINK = CaseLink(LINK_ID, case(A), Relationship.BLOCKS, case(B))


def with_standard_json() -> ModuleType:
    """Return the envelope module as it is without orjson."""
    name = "datadog_caselinks.envelope_with_standard_json"
    spec = importlib.util.spec_from_file_location(name, datadog_caselinks.http.envelope.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cattrs.preconf.orjson", None)
        sys.modules[name] = module  # attrs and cattrs look up annotations there
        spec.loader.exec_module(module)
    return module


ENVELOPES = {"standard": with_standard_json()}
if importlib.util.find_spec("orjson"):
    ENVELOPES["orjson"] = datadog_caselinks.http.envelope


@pytest.fixture(params=list(ENVELOPES.values()), ids=list(ENVELOPES))
def wire(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(datadog_caselinks.http.wire, "envelope", request.param)
    return datadog_caselinks.http.wire


# The fixture is a module, which examples do not change.
any_wire = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def answer(
    body: object = b"",
    status: int = 200,
    headers: dict[str, str] | None = None,
    *,
    complete: bool = True,
) -> Response:
    """Return a response to the create of the reference's example; a body that is not bytes becomes JSON."""
    encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = datadog_caselinks.http.wire.create_request(case(A).blocks(case(B)))
    return Response(request, status, CIMultiDict(headers or {}), encoded, is_complete=complete)


def to_list(response: Response, first: CaseLink = LINK) -> Response:
    """Return ``response`` as one to a list of the links of the parent of ``first``."""
    request = datadog_caselinks.http.wire.list_request(LINK.parent, None)
    return evolve(response, request=request._replace(subject=first.parent))


def flawed(document: Any, *path: str) -> Iterator[Any]:
    """Yield copies of the document whose member at this path is missing, or is not a text or empty."""
    values: list[object] = [None, "", 7, True, [], {}, ["x"], ...]
    for value in values:
        copy = json.loads(json.dumps(document))
        *outer, name = path
        parent = reduce(getitem, outer, copy)
        parent[name] = value
        if value is ...:
            del parent[name]
        yield copy


def a_list(*members: object, entity: Entity = LINK.parent) -> Response:
    """Return a response to the list of the links of ``entity``."""
    request = datadog_caselinks.http.wire.list_request(entity, None)
    return Response(request, 200, CIMultiDict(), json.dumps({"data": members}).encode())


def refused(wire: ModuleType, body: object, status: int = 400, headers: dict[str, str] | None = None) -> Any:
    """Return the error of a response."""
    with pytest.raises(ResponseError) as caught:
        wire.read_link(answer(body, status, headers))
    return caught.value


def test_both_json_libraries_are_at_work(wire: ModuleType) -> None:
    """Each library is used in the tests, and only the presence of orjson decides which one."""
    library = "json" if wire.envelope is ENVELOPES["standard"] else "orjson"
    assert wire.envelope.make_converter.__module__ == f"cattrs.preconf.{library}"


@pytest.mark.parametrize(
    ("make", "operation", "action"),
    [
        (
            lambda wire: wire.create_request(case(A).blocks(case(B))),
            "create",
            f"create CASE {A} BLOCKS CASE {B}",
        ),
        (lambda wire: wire.list_request(case(A), None), "list", f"list the links of CASE {A}"),
        (lambda wire: wire.list_request(case(A), Relationship.BLOCKS), "list", f"list the links of CASE {A}"),
        (lambda wire: wire.delete_request(LINK_ID), "delete", f"delete link {LINK_ID}"),
        (lambda wire: wire.case_request("SHOP-1"), "get", "get case SHOP-1"),
        (lambda wire: wire.case_search_request("a", 1), "search_cases", "search cases for 'a'"),
        (lambda wire: wire.incident_request(A), "get_incident", f"get incident {A}"),
        (lambda wire: wire.incident_search_request("7", "a", 0), "search_incidents", "find incident 7"),
    ],
)
def test_each_request_names_its_operation(
    wire: ModuleType, make: Callable[[ModuleType], Any], operation: str, action: str
) -> None:
    """Each request has its operation, which may be rate limited by itself, and a text for errors."""
    request = make(wire)
    assert (request.operation, request.action) == (operation, action)
    assert request.method == {"create": "POST", "delete": "DELETE"}.get(operation, "GET")


class TestCreateRequest:
    def test_it_is_the_documented_one(self, wire: ModuleType) -> None:
        """A create has the method, the path and exactly the body of the API reference's example."""
        request = wire.create_request(case(A).blocks(case(B)))
        assert (request.method, request.target) == ("POST", "/api/v2/cases/link")
        assert json.loads(request.body) == REQUEST
        assert isinstance(request.body, bytes)

    def test_a_body_holds_no_more_than_itself(self, wire: ModuleType) -> None:
        """The body of a waiting create takes no memory beyond its own size."""
        new = case(A).blocks(case(B))
        length = sys.getsizeof(wire.create_request(new).body)
        tracemalloc.start()
        try:
            bodies = [wire.create_request(new).body for _ in range(100)]
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert held < 1.5 * length * len(bodies)

    @any_wire
    @given(new_links())
    def test_each_part_has_its_place(self, wire: ModuleType, new: NewCaseLink) -> None:
        """Each part of a link is in its place in the body, as a plain string."""
        assert json.loads(wire.create_request(new).body) == {
            "data": {
                "type": "link",
                "attributes": {
                    "parent_entity_id": new.parent.id,
                    "parent_entity_type": str(new.parent.type),
                    "relationship": str(new.relationship),
                    "child_entity_id": new.child.id,
                    "child_entity_type": str(new.child.type),
                },
            }
        }

    @pytest.mark.slow
    @any_wire
    @given(new_links(), st.text(min_size=1))
    def test_what_was_sent_is_what_comes_back(self, wire: ModuleType, new: NewCaseLink, id: str) -> None:
        """The body of a create with an id, as the server returns it, is read as an equal link."""
        request = wire.create_request(new)
        document = json.loads(request.body)
        document["data"]["id"] = id
        created = evolve(answer(document, 201), request=request)
        assert wire.read_link(created) == CaseLink(id, new.parent, new.relationship, new.child)


class TestListRequest:
    def test_it_is_the_documented_one(self, wire: ModuleType) -> None:
        """A list has the entity as two query parameters, and a third only for a relationship."""
        request = wire.list_request(incident(A), None)
        path, _, query = request.target.partition("?")
        assert (request.method, path, request.body) == ("GET", "/api/v2/cases/link", None)
        assert parse_qs(query) == {"entity_type": ["INCIDENT"], "entity_id": [A]}

    @pytest.mark.parametrize("relationship", [*Relationship, *(member.value for member in Relationship)])
    def test_a_relationship_narrows_it(self, wire: ModuleType, relationship: Relationship) -> None:
        """The relationship of a list is a member or its name."""
        query = parse_qs(wire.list_request(case(A), relationship).target.partition("?")[2])
        assert query == {"entity_type": ["CASE"], "entity_id": [A], "relationship": [str(relationship)]}

    @pytest.mark.parametrize("odd", [None, "x", A])
    def test_what_is_no_entity_is_refused(self, wire: ModuleType, odd: Any) -> None:
        """A list of anything but an ``Entity`` is refused, because an id alone has no type."""
        with pytest.raises(InvalidLinkError, match="entity must be an Entity such as") as caught:
            wire.list_request(odd, None)
        assert str(caught.value).endswith(f"not {quoted(odd)}")

    @pytest.mark.parametrize("relationship", ["LIKES", "blocks", ""])
    def test_an_unknown_relationship_is_refused(self, wire: ModuleType, relationship: Any) -> None:
        """An unknown relationship is refused with ``InvalidLinkError``, which lists the known ones."""
        with pytest.raises(InvalidLinkError, match=f"{relationship!r}.*RELATES_TO, CAUSES, .*ESCALATES_TO"):
            wire.list_request(case(A), relationship)

    @pytest.mark.parametrize("entity", [Entity("x", "CASE"), Entity(A, "WIDGET")])
    def test_an_unknown_entity_is_refused(self, wire: ModuleType, entity: Entity) -> None:
        """A list of an entity that the API would refuse is not sent."""
        with pytest.raises(InvalidLinkError):
            wire.list_request(entity, None)


class TestDeleteRequest:
    def test_it_is_the_documented_one(self, wire: ModuleType) -> None:
        """A delete has the id as the last part of its path."""
        request = wire.delete_request(LINK_ID)
        assert (request.method, request.target, request.body) == (
            "DELETE",
            f"/api/v2/cases/link/{LINK_ID}",
            None,
        )

    @pytest.mark.parametrize(
        ("id", "last"),
        [("...x", "...x"), ("X..X", "X..X"), ("a/b", "a%2Fb"), ("a b", "a%20b"), ("é", "%C3%A9")],
    )
    def test_anything_else_than_dots_alone_is_an_id(self, wire: ModuleType, id: str, last: str) -> None:
        """Any string but dots alone is an id, because the API documents an id as a string."""
        assert wire.delete_request(id).target == f"/api/v2/cases/link/{last}"

    @any_wire
    @given(st.text() | st.text("./%?#\\ a", max_size=6))
    @example(".a")
    @example("a/../..")
    @example("%2e%2e")
    def test_an_id_is_one_part_of_the_path_or_refused(self, wire: ModuleType, id: str) -> None:
        """Any id is one part of the path or is refused, so that no other resource is deleted."""
        try:
            target = wire.delete_request(id).target
        except InvalidLinkError as error:
            assert str(error).isprintable()  # noqa: PT017 - most ids are accepted
            return
        for url in (URL(f"https://x{target}", encoded=True), URL(f"https://x{target}")):
            *parents, last = url.raw_path.split("/")
            assert parents == ["", "api", "v2", "cases", "link"]
            assert (unquote(last), url.raw_query_string, url.raw_fragment) == (id, "", "")

    @pytest.mark.parametrize(
        "id", ["", ".", "..", "...", "a\n", "a\r\nHost: evil", "\0", "\ud800", "\0" * 999, None, 7, b"x"]
    )
    def test_what_is_no_id_is_refused(self, wire: ModuleType, id: object) -> None:
        """Dots alone, control characters and other types are refused as ids."""
        with pytest.raises(InvalidLinkError, match="is not the id of a link") as caught:
            wire.delete_request(id)
        assert str(caught.value).startswith(f"{quoted(id)} is")


class TestCaseRequest:
    @pytest.mark.parametrize(
        ("given_as", "last"),
        [("DDFC-98813", "DDFC-98813"), ("ddfc-1", "ddfc-1"), (A, A), (A.upper(), A.upper()), (UUID(A), A)],
    )
    def test_it_is_the_documented_one(self, wire: ModuleType, given_as: str | UUID, last: str) -> None:
        """A lookup of a case has the key or UUID, as it was written, as the last part of its path."""
        request = wire.case_request(given_as)
        assert (request.method, request.target, request.body) == ("GET", f"/api/v2/cases/{last}", None)
        assert request.action == f"get case {last}"

    @any_wire
    @given(st.text() | st.text("SHOP-1/.%?#\\\n", max_size=8))
    @example("link")
    @example("SHOP-1/..")
    @example("SHOP-1\n")
    def test_a_name_is_one_part_of_the_path_or_refused(self, wire: ModuleType, name: str) -> None:
        """Any name of a case is one part of the path or is refused."""
        try:
            target = wire.case_request(name).target
        except InvalidLinkError as error:
            assert str(error).isprintable()  # noqa: PT017 - some names are good
            return
        url = URL(f"https://x{target}")
        assert (url.parts, url.raw_query_string, url.raw_fragment) == (
            ("/", "api", "v2", "cases", name),
            "",
            "",
        )

    @pytest.mark.parametrize(
        "odd",
        ["", "x", "link", "SHOP", "..", f" {A}", "https://app.datadoghq.com/cases/SHOP-1", None, 7, b"A-1"],
    )
    def test_what_is_neither_is_refused(self, wire: ModuleType, odd: Any) -> None:
        """The message shows the text that is neither a key nor a UUID."""
        with pytest.raises(InvalidLinkError) as caught:
            wire.case_request(odd)
        assert str(caught.value) == f"{odd!r} is neither the key of a case nor a UUID"


class TestReadLink:
    @pytest.mark.parametrize("status", [200, 201, 202])
    def test_the_documented_response(self, wire: ModuleType, status: int) -> None:
        """The API reference's example is read with any status of success."""
        assert wire.read_link(answer(ANSWER, status)) == LINK

    @pytest.mark.parametrize("odd", [None, "x", LINK])
    def test_only_a_new_link_is_created(self, wire: ModuleType, odd: Any) -> None:
        """A create of anything but a ``NewCaseLink``, such as an existing link, is refused."""
        with pytest.raises(InvalidLinkError, match="a link to create must be a NewCaseLink") as caught:
            wire.create_request(odd)
        assert str(caught.value).endswith(f"not {quoted(odd)}")

    def test_another_link(self, wire: ModuleType) -> None:
        """A response about another link than the one to create is malformed."""
        new = case(A).causes(case(B))
        other = evolve(answer(ANSWER), request=wire.create_request(new))
        with pytest.raises(MalformedResponseError, match=r"^cannot create .*: it is about another link$"):
            wire.read_link(other)

    @any_wire
    @given(links)
    def test_what_this_version_does_not_know_is_kept(self, wire: ModuleType, link: CaseLink) -> None:
        """A created link may have any id."""
        assert wire.read_link(answer({"data": {**ANSWER["data"], "id": link.id}})) == evolve(LINK, id=link.id)

    def test_known_values_become_members(self, wire: ModuleType) -> None:
        """Known values become enum members, so that users can compare with ``is`` and match."""
        link = wire.read_link(answer(ANSWER))
        assert link.relationship is Relationship.BLOCKS
        assert (type(link.parent.type), type(link.id)) == (type(case(A).type), str)

    def test_ids_in_upper_case_are_the_same_ids(self, wire: ModuleType) -> None:
        """Ids that the server writes in upper case equal the user's ids."""
        document = json.loads(json.dumps(ANSWER).replace(A, A.upper()))
        assert wire.read_link(answer(document)) == LINK

    def test_unknown_members_are_ignored(self, wire: ModuleType) -> None:
        """Unknown members are ignored on every level, since the API may add members."""
        data = cast("dict[str, Any]", ANSWER["data"])
        document: dict[str, Any] = {
            "data": {**data, "attributes": {**data["attributes"], "new": 1}, "relationships": {}},
            "meta": [],
            "included": None,
        }
        assert wire.read_link(answer(document)) == LINK

    def test_the_type_of_the_resource_does_not_matter(self, wire: ModuleType) -> None:
        """The type of the resource is not checked: an id and the five attributes are a link."""
        data = {key: value for key, value in ANSWER["data"].items() if key != "type"}
        assert wire.read_link(answer({"data": data})) == LINK
        assert wire.read_link(answer({"data": {**data, "type": 7}})) == LINK

    @pytest.mark.parametrize("name", sorted(cast("dict[str, Any]", REQUEST["data"]["attributes"])))
    def test_each_attribute_must_be_a_non_empty_string(self, wire: ModuleType, name: str) -> None:
        """A link with a missing attribute, or one that is not a text, is malformed; the message names it."""
        expected = rf"(missing|string) @ response\.data\.attributes\.{name}$"
        for document in flawed(ANSWER, "data", "attributes", name):
            with pytest.raises(MalformedResponseError, match=expected):
                wire.read_link(answer(document))

    def test_the_id_must_be_a_non_empty_string(self, wire: ModuleType) -> None:
        """A link without an id is malformed, since it could not be deleted."""
        for document in flawed(ANSWER, "data", "id"):
            with pytest.raises(MalformedResponseError, match=r"(missing|string) @ response\.data\.id$"):
                wire.read_link(answer(document))

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b" ",
            b"null",
            b"true",
            b"7",
            b'"data"',
            b"[]",
            b"{}",
            b'{"data": null}',
            b'{"data": []}',
            b'{"data": ""}',
            b'{"data": "link"}',
            b'{"data": {}}',
            b'{"data": {"attributes": [], "id": "x"}}',
            b'{"data": {"attributes": "", "id": "x"}}',
            json.dumps({"data": [ANSWER["data"]]}).encode(),
            json.dumps(ANSWER["data"]).encode(),
            json.dumps(ANSWER).encode()[:-1],
            json.dumps(ANSWER).encode() + b"}",
            b"<html>",
        ],
    )
    def test_what_is_no_link_is_malformed(self, wire: ModuleType, body: bytes) -> None:
        """The message for a malformed response has the action and the status; the error keeps the body."""
        with pytest.raises(MalformedResponseError) as caught:
            wire.read_link(answer(body, 201))
        assert str(caught.value).startswith(
            f"cannot create CASE {A} BLOCKS CASE {B}: 201 with a malformed response: "
        )
        assert type(caught.value) is MalformedResponseError
        assert caught.value.body == body.decode()

    @pytest.mark.parametrize(
        "data", [None, "", [], 7, {}, {"id": "x", "attributes": 7}, {"id": "x", "attributes": []}]
    )
    def test_names_of_our_own_classes_are_not_shown(self, wire: ModuleType, data: object) -> None:
        """The message for a malformed response does not contain names of private classes."""
        with pytest.raises(MalformedResponseError) as caught:
            wire.read_link(answer({"data": data}))
        assert not re.search(r"\b_", str(caught.value))

    @pytest.mark.parametrize("value", [LINK_ID, A, B, "BLOCKS", "CASE"])
    def test_half_a_character_is_no_text(self, wire: ModuleType, value: str) -> None:
        """A lone surrogate is malformed, because it could not be sent or stored."""
        body = json.dumps(ANSWER).replace(value, "\\ud800").encode()
        with pytest.raises(MalformedResponseError):
            wire.read_link(answer(body))

    def test_half_a_response_is_malformed(self, wire: ModuleType) -> None:
        """A body that was cut off is malformed, even if its beginning is a complete document."""
        with pytest.raises(ResponseTooLargeError, match="longer than the client reads"):
            wire.read_link(answer(ANSWER, complete=False))

    @pytest.mark.parametrize("read", ["read_link", "read_links", "read_case"])
    def test_half_a_response_is_not_reported_as_malformed(self, wire: ModuleType, read: str) -> None:
        """A response that is too long has its own error, which keeps the redacted beginning of the body."""
        cut = answer(b"the-key" + b"x" * 100_000, complete=False)
        with pytest.raises(ResponseTooLargeError) as caught:
            getattr(wire, read)(evolve(cut, redact=lambda text: text.replace("the-key", "***")))
        assert str(caught.value) == (
            f"cannot create CASE {A} BLOCKS CASE {B}: 200 with a malformed response: "
            "longer than the client reads"
        )
        assert caught.value.body == "***" + "x" * 997

    @pytest.mark.parametrize("value", [b"0", b'[{"a":0}]'])
    @pytest.mark.slow
    def test_a_list_has_a_bounded_number_of_values(self, wire: ModuleType, value: bytes) -> None:
        """The values of a list are counted before it is decoded, since they take more memory than text."""
        each = 1 + value.count(b"[") + value.count(b"{")
        others = 4  # the outermost object, both lists, and the comma between them
        count, rest = divmod(wire.envelope.MAX_VALUES - others + 1, each)
        meta = b",".join([value] * count + [b"0"] * rest)
        assert wire.read_links(to_list(answer(b'{"data": [], "meta": [%s]}' % meta))) == []
        with pytest.raises(
            ResponseTooLargeError, match="more than the 1,048,576 values that the client reads"
        ):
            wire.read_links(to_list(answer(b'{"data": [], "meta": [%s,0]}' % meta)))

    @pytest.mark.parametrize(
        ("status", "is_closed"), [(400, False), (429, False), (500, False), (502, True), (504, True)]
    )
    def test_a_response_that_may_still_arrive(self, wire: ModuleType, status: int, is_closed: bool) -> None:
        """An error after which the server may still be at work closes the connection."""
        closed: list[int] = []
        with pytest.raises(ResponseError):
            wire.read_link(evolve(answer(b"", status), disconnect=lambda: closed.append(1)))
        assert bool(closed) is is_closed

    def test_half_an_error_is_that_error(self, wire: ModuleType) -> None:
        """An error with a body of many megabytes is still the error of its status."""
        with pytest.raises(ServerError):
            wire.read_link(answer(b"x" * 100, 502, complete=False))


class TestReadLinks:
    def test_a_response_to_something_else(self, wire: ModuleType) -> None:
        """A list or page is always compared with what was requested, so other responses are not read."""
        for read, body in ((wire.read_links, {"data": []}), (wire.read_cases, {"data": [], "meta": {}})):
            with pytest.raises(AssertionError):
                read(answer(body))

    def test_none(self, wire: ModuleType) -> None:
        """An entity may have no links."""
        assert wire.read_links(to_list(answer({"data": []}))) == []

    @any_wire
    @given(st.lists(links, max_size=5))
    def test_all_of_them_in_their_order(self, wire: ModuleType, wanted: list[CaseLink]) -> None:
        """Every link is kept, and types and relationships of a later API are plain strings."""
        assert (
            wire.read_links(to_list(answer({"data": [_resource(link) for link in wanted]}), *wanted[:1]))
            == wanted
        )

    @pytest.mark.parametrize(
        "body",
        [
            b'{"data": {}}',
            b'{"data": ""}',
            b'{"data": null}',
            b"{}",
            b"[]",
            b'{"data": "x"}',
            b'{"data": 7}',
            b"",
        ],
    )
    def test_what_is_no_list_is_malformed(self, wire: ModuleType, body: bytes) -> None:
        """A response without a list is malformed, and is not read as "no links"."""
        with pytest.raises(MalformedResponseError):
            wire.read_links(to_list(answer(body)))

    @pytest.mark.parametrize("count", [0, 1, 3])
    def test_what_has_no_flaw_is_read_the_same_way(self, wire: ModuleType, count: int) -> None:
        """A document without flaws is read equally by the fast and by the tracing converter."""
        document = {"data": [ANSWER["data"]] * count}
        kind = wire.envelope.LinksDocument
        found = wire.envelope._tracing_converter.structure(document, kind)
        assert found == wire.envelope._converter.structure(document, kind)

    @pytest.mark.parametrize(
        "odd",
        [
            *(None, 7, "", [], {}, {"id": "x"}),
            *({"id": odd_id, "attributes": REQUEST["data"]["attributes"]} for odd_id in ODD_IDS),
            {"id": LINK_ID, "attributes": None},
            {"id": LINK_ID, "attributes": {"parent_entity_id": A}},
        ],
    )
    def test_what_is_not_a_link_is_skipped(
        self, wire: ModuleType, odd: object, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A flawed member does not hide the other links of a list, and the log has its place."""
        assert wire.read_links(a_list(ANSWER["data"], odd, ANSWER["data"])) == [LINK, LINK]
        [message], [record] = caplog.messages, caplog.records
        assert vars(record)["skipped"] == 1
        assert message.startswith(f"the list of the links of {case(A)}")
        assert "has 1 member that cannot be read as links, which are left out: " in message
        assert "@ response.data[1]" in message

    def test_a_list_of_something_else_is_malformed(self, wire: ModuleType) -> None:
        """A list with more flawed members than the limit is refused at the first one above it."""
        most = wire.envelope.MAX_SKIPPED
        assert wire.read_links(to_list(answer({"data": [{}] * most}))) == []
        with pytest.raises(
            MalformedResponseError, match=r"1000 members that are not links: missing @ .*\[0\]"
        ):
            wire.read_links(to_list(answer({"data": [{}] * (most + 1) + [ANSWER["data"]]})))

    def test_a_list_of_another_entity_is_malformed(self, wire: ModuleType) -> None:
        """A list in which no link concerns the entity belongs to another request."""
        assert wire.read_links(a_list(ANSWER["data"], entity=LINK.child)) == [LINK]
        with pytest.raises(MalformedResponseError, match=r": it is about another entity$"):
            wire.read_links(a_list(ANSWER["data"], entity=incident(A)))

    def test_a_single_link_is_no_list(self, wire: ModuleType) -> None:
        """A single link is not accepted as a list, because the API always responds with a list."""
        with pytest.raises(MalformedResponseError):
            wire.read_links(to_list(answer(ANSWER)))


# A recorded case, reduced to a few members.
CASE = {
    "data": {
        "attributes": {
            "archived_at": None,
            "key": "DDFC-98813",
            "priority": "P2",
            "public_id": "98813",
            "status": "IN_PROGRESS",
            "status_group": "SG_IN_PROGRESS",
            "status_name": "In Progress",
            "title": "Checkout hangs",
        },
        "id": A,
        "relationships": {"assignee": {"data": None}},
        "type": "case",
    }
}


class TestReadCase:
    @pytest.mark.parametrize("status", [200, 203])
    def test_the_documented_response(self, wire: ModuleType, status: int) -> None:
        """Each attribute of a case is in its place, and other members are ignored."""
        found = wire.read_case(answer(CASE, status))
        assert found == Case(
            A, "DDFC-98813", "Checkout hangs", "IN_PROGRESS", "P2", "In Progress", "SG_IN_PROGRESS"
        )

    @pytest.mark.parametrize("name", ["key", "title", "status", "priority", "status_name", "status_group"])
    def test_what_is_missing_or_not_a_text_is_empty(self, wire: ModuleType, name: str) -> None:
        """An attribute of a case that is missing or not a text is empty, since only the id is needed."""
        expected = {"key": "DDFC-98813", "title": "Checkout hangs", "status": "IN_PROGRESS", "priority": "P2"}
        expected |= {"status_name": "In Progress", "status_group": "SG_IN_PROGRESS"}
        for document in flawed(CASE, "data", "attributes", name):
            assert wire.read_case(answer(document)) == Case(A, **{**expected, name: ""})

    @pytest.mark.parametrize("attributes", [None, {}, ...])
    def test_no_attributes_at_all(self, wire: ModuleType, attributes: object) -> None:
        """A case may have no attributes: its id is enough."""
        data = {"id": A} if attributes is ... else {"id": A, "attributes": attributes}
        assert wire.read_case(answer({"data": data})) == Case(A, "", "", "", "")

    def test_what_this_version_does_not_know_is_kept(self, wire: ModuleType) -> None:
        """An id that is not a UUID and values of a later API are kept."""
        data = {"id": "x", "type": "task", "attributes": {"key": "a", "status": "PARKED", "priority": "P9"}}
        assert wire.read_case(answer({"data": data})) == Case("x", "a", "", "PARKED", "P9")

    @pytest.mark.parametrize("attributes", [7, True, "", "x", "key", [], ["x"]])
    def test_attributes_that_are_none(self, wire: ModuleType, attributes: object) -> None:
        """Attributes of a case that are not an object are malformed."""
        with pytest.raises(MalformedResponseError, match=r"not an object @ response\.data\.attributes$"):
            wire.read_case(answer({"data": {"id": A, "attributes": attributes}}))

    def test_the_id_must_be_a_non_empty_string(self, wire: ModuleType) -> None:
        """A case without an id is malformed, since it could not be linked."""
        for document in flawed(CASE, "data", "id"):
            with pytest.raises(MalformedResponseError, match=r"(missing|string) @ response\.data\.id$"):
                wire.read_case(answer(document))

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"null",
            b"[]",
            b"{}",
            b'{"data": null}',
            b'{"data": []}',
            b'{"data": "case"}',
            b'{"data": 7}',
            json.dumps({"data": [CASE["data"]]}).encode(),
            json.dumps(CASE["data"]).encode(),
            json.dumps(CASE).encode()[:-1],
            b"<html>",
        ],
    )
    def test_what_is_no_case_is_malformed(self, wire: ModuleType, body: bytes) -> None:
        """The message for a malformed case has the action and the status, and no private names."""
        asked = evolve(answer(body), request=wire.case_request("SHOP-1"))
        with pytest.raises(MalformedResponseError) as caught:
            wire.read_case(asked)
        assert str(caught.value).startswith("cannot get case SHOP-1: 200 with a malformed response: ")
        assert not re.search(r"\b_", str(caught.value))
        assert caught.value.body == body.decode()

    def test_another_case(self, wire: ModuleType) -> None:
        """A response about another case than the requested UUID is malformed; the letter case is ignored."""
        other = evolve(answer(CASE), request=wire.case_request(B))
        with pytest.raises(MalformedResponseError, match=r"^cannot get case .*: it is about another case$"):
            wire.read_case(other)
        assert wire.read_case(evolve(other, request=wire.case_request(A.upper()))).id == A

    @pytest.mark.parametrize("key", ["DDFC-98813", "ddfc-98813"])
    @pytest.mark.parametrize(
        ("name", "is_closed"), [("ddfc-98813", False), ("DDFC-98813", False), ("SHOP-1", True), (A, False)]
    )
    def test_another_key(self, wire: ModuleType, name: str, is_closed: bool, key: str) -> None:
        """A case with another key than requested closes the connection: it may be for another request."""
        closed: list[int] = []
        body = json.dumps(CASE).replace("DDFC-98813", key).encode()
        request = wire.case_request(name)
        found = evolve(answer(body), request=request, disconnect=lambda: closed.append(1))
        assert wire.read_case(found).key == key
        assert bool(closed) is is_closed


class TestContentEncoding:
    @pytest.mark.parametrize("encoding", ["identity", "gzip", "GZIP", "br"])
    def test_a_known_one_is_not_the_reason(self, wire: ModuleType, encoding: str) -> None:
        """A malformed body in a known encoding, in either letter case, is not blamed on the encoding."""
        with pytest.raises(MalformedResponseError, match="not valid JSON"):
            wire.read_link(answer(b"{", headers={"Content-Encoding": encoding}))

    def test_an_unknown_one_is_named(self, wire: ModuleType) -> None:
        """The message for an unknown encoding has the values of each such header, redacted."""
        headers = CIMultiDict([("Content-Encoding", "a-the-key"), ("Content-Encoding", "gzip")])
        encoded = evolve(answer(b"{"), headers=headers, redact=lambda text: text.replace("the-key", "***"))
        with pytest.raises(
            MalformedResponseError, match=r": the content encoding 'a-\*\*\*, gzip' is unknown$"
        ):
            wire.read_link(encoded)


class TestReadDeleted:
    @pytest.mark.parametrize("status", [200, 202, 204])
    @pytest.mark.parametrize("body", [b"", b"ok", b"{}"])
    @pytest.mark.parametrize("complete", [True, False])
    def test_any_success_will_do(self, wire: ModuleType, status: int, body: bytes, complete: bool) -> None:
        """A delete succeeds with any body, since nothing is read from it."""
        wire.read_deleted(answer(body, status, complete=complete))

    def test_anything_else_is_an_error(self, wire: ModuleType) -> None:
        """A delete without success raises the same classes of errors as any request."""
        with pytest.raises(NotFoundError):
            wire.read_deleted(answer(b"", 404))

    def test_another_link(self, wire: ModuleType) -> None:
        """A delete fails if the response is about another link."""
        response = Response(wire.delete_request("x"), 200, CIMultiDict(), b'{"data": {"id": "y"}}')
        with pytest.raises(MalformedResponseError, match=r"^cannot delete .*: it is about something else$"):
            wire.read_deleted(response)


def test_only_lists_may_be_long(wire: ModuleType) -> None:
    """Responses about one link are short, and lists have the limit of lists."""
    new = case(A).blocks(case(B))
    single = wire.create_request(new), wire.delete_request("x")
    assert {each.max_body for each in single} == {wire.MAX_SHORT}
    lists = [wire.list_request(case(A), None)]
    lists += [wire.case_search_request("a", 1), wire.incident_search_request("a", "a", 0)]
    assert {each.max_body for each in lists} == {wire.MAX_LIST}


READERS: Final = ["read_link", "read_links", "read_case", "read_deleted"]
STATUSES = {
    **dict.fromkeys([300, 301, 302, 303, 304, 307, 308, 399], ResponseError),
    400: BadRequestError,
    401: AuthenticationError,
    402: ResponseError,
    403: PermissionDeniedError,
    404: NotFoundError,
    405: ResponseError,
    408: ResponseError,
    409: ConflictError,
    410: ResponseError,
    413: ResponseError,
    418: ResponseError,
    422: BadRequestError,
    429: RateLimitError,
    499: ResponseError,
    **dict.fromkeys([500, 501, 502, 503, 504, 520, 599, 999], ServerError),
    **dict.fromkeys([0, 100, 101, 199], ResponseError),
}


class TestErrors:
    @pytest.mark.parametrize("read", READERS)
    def test_the_status_is_the_class(self, wire: ModuleType, read: str) -> None:
        """The status alone chooses the class of the error, even if a 500 response contains a link."""
        for status, kind in STATUSES.items():
            with pytest.raises(ResponseError) as caught:
                getattr(wire, read)(answer(ANSWER, status))
            assert (type(caught.value), caught.value.status) == (kind, status)

    @pytest.mark.parametrize(
        ("status", "advice"),
        [
            *(
                (status, "Redirects are not followed, since they would carry the keys: check the site")
                for status in (300, 399)
            ),
            (400, "The request is invalid, and would be refused again"),
            (401, "Check DD_API_KEY and DD_APP_KEY, or DD_BEARER_TOKEN, and that DD_SITE is the site"),
            (
                403,
                "The application key or token may lack the scope cases_write, or access to",
            ),
            (404, "One of its ends does not exist on this site, or these credentials cannot access it"),
            (408, "The server gave up waiting for the request"),
            (409, "An equal link may exist: list the links of either end"),
            (418, "See the body of the response"),
            (422, "The request is invalid, and would be refused again"),
            (429, "Wait, or send fewer requests at a time"),
            (500, "The server or a gateway failed"),
        ],
    )
    def test_the_message_says_what_to_do(self, wire: ModuleType, status: int, advice: str) -> None:
        """The message has the action, the reason of the response, and the next step."""
        error = refused(wire, {"errors": ["because"]}, status)
        assert str(error).startswith(f"cannot create CASE {A} BLOCKS CASE {B}: {status} because. {advice}")

    @pytest.mark.parametrize(
        ("make", "scope"),
        [
            (lambda wire: wire.create_request(case(A).blocks(case(B))), "cases_write"),
            (lambda wire: wire.list_request(case(A), None), "cases_read"),
            (lambda wire: wire.delete_request("x"), "cases_write"),
            (lambda wire: wire.case_request("SHOP-1"), "cases_read"),
        ],
    )
    def test_a_403_names_the_scope(
        self, wire: ModuleType, make: Callable[[ModuleType], Any], scope: str
    ) -> None:
        """The message of a 403 names the scope that the operation needs, which the credentials may have."""
        with pytest.raises(PermissionDeniedError, match=f"may lack the scope {scope}, or access to"):
            wire.read_deleted(Response(make(wire), 403, CIMultiDict(), b""))

    def test_a_case_that_moved_has_another_key(self, wire: ModuleType) -> None:
        """Only the 404 for a case that was requested by its key says that a moved case has another key."""
        for request, may_have_moved in (
            (wire.case_request("SHOP-1"), True),
            (wire.case_request(A), False),
            (wire.incident_search_request("7", "a", 0), False),
        ):
            with pytest.raises(NotFoundError) as caught:
                wire.read_case(Response(request, 404, CIMultiDict(), b""))
            message = str(caught.value)
            assert (
                message.endswith(". A case that moved to another project has another key") is may_have_moved
            )
        with pytest.raises(PermissionDeniedError) as refused:
            wire.read_case(Response(wire.case_request("SHOP-1"), 403, CIMultiDict(), b""))
        assert "moved" not in str(refused.value)

    @pytest.mark.parametrize(
        ("body", "said", "message"),
        [
            ({"errors": ["one", "two"]}, ("one", "two"), "one; two"),
            (
                {"errors": [{"status": "400", "title": "Bad Request", "detail": "no such case"}]},
                ("Bad Request: no such case",),
                "Bad Request: no such case",
            ),
            (
                {"errors": [{"code": "resource_not_found", "title": "case not found"}]},
                ("case not found",),
                "case not found",
            ),
            ({"errors": [{"detail": "only that"}]}, ("only that",), "only that"),
            ({"errors": [{"title": "Generic Error", "detail": "no way"}]}, ("no way",), "no way"),
            ({"errors": [{"title": "Generic Error"}]}, ("Generic Error",), "Generic Error"),
            (
                {
                    "errors": [
                        {
                            "title": "Invalid Parameter",
                            "detail": "not a UUID",
                            "source": {"parameter": "link_id"},
                            "meta": {},
                        }
                    ]
                },
                ("Invalid Parameter: not a UUID (link_id)",),
                "Invalid Parameter: not a UUID (link_id)",
            ),
            ({"errors": [{"title": "x", "source": {"pointer": "/data"}}]}, ("x (/data)",), "x (/data)"),
            ({"errors": [{"title": "no key", "source": {"parameter": "key"}}]}, ("no key",), "no key"),
            ({"errors": [{"title": "x", "source": "y"}]}, ("x",), "x"),
            ({"errors": [{"title": "x", "source": {"header": "y", "parameter": 7}}]}, ("x",), "x"),
            ({"errors": [{"code": "only_that"}]}, ("only_that",), "only_that"),
            ({"errors": [{"title": "", "detail": None, "code": "c"}]}, ("c",), "c"),
            ({"errors": [{"id": 7}]}, ("{'id': 7}",), "{'id': 7}"),
            ({"errors": ["a", {"title": "b"}]}, ("a", "b"), "a; b"),
            ({"errors": [7, None]}, ("7", "None"), "7; None"),
            ({"errors": []}, (), '{"errors": []}'),
            ({"errors": "oops"}, (), '{"errors": "oops"}'),
            ({"message": "oops"}, (), '{"message": "oops"}'),
            (["oops"], (), '["oops"]'),
            (b"", (), "without a reason"),
            (b" \n", (), "without a reason"),
            (b"upstream connect error", (), "upstream connect error"),
            (b"<html><head><title>403\n Forbidden</title></head><body>", (), "403 Forbidden"),
            (b'<HTML><TITLE lang="en">502 Bad Gateway</TITLE>', (), "502 Bad Gateway"),
            (b"<html>no title", (), "<html>no title"),
            (b"\xff\xff", (), "\ufffd\ufffd"),
            (b"[" * 100_000, (), "[" * 300 + "\u2026"),
            (b'{"errors": ["x"', (), '{"errors": ["x"'),
            ('{"errors": ["x"]}'.encode("utf-16"), ("x",), "x"),
            ('{"errors": ["x"]}'.encode("utf-32-be"), ("x",), "x"),
        ],
    )
    def test_every_form_of_error_is_described(
        self, wire: ModuleType, body: object, said: tuple[str, ...], message: str
    ) -> None:
        """Each form of an error body is described: strings, objects, HTML, plain text, and none."""
        error = refused(wire, body)
        assert error.errors == said
        assert str(error) == (
            f"cannot create CASE {A} BLOCKS CASE {B}: 400 {message}. "
            "The request is invalid, and would be refused again"
        )

    def test_a_status_is_shown_once(self, wire: ModuleType) -> None:
        """A status that the reason repeats at its beginning is left out, and kept elsewhere."""
        page = b"<title>503 Service Unavailable</title>"
        assert ": 503 Service Unavailable. " in str(refused(wire, page, 503))
        assert ": 503 error 503. " in str(refused(wire, {"errors": ["error 503 "]}, 503))

    def test_a_full_stop_is_not_repeated(self, wire: ModuleType) -> None:
        """A reason ends with one full stop in the message, whether or not the server wrote it."""
        for reason in ("...MAX", "...MAX."):
            assert ": 400 ...MAX. " in str(refused(wire, {"errors": [reason]}))

    def test_the_errors_are_kept_as_they_came(self, wire: ModuleType) -> None:
        """The errors of the body are kept unchanged, so that users can read a ``code`` or a ``source``."""
        raw = ["a", {"code": "x", "source": {"pointer": "/data"}}]
        assert refused(wire, {"errors": raw}).raw_errors == tuple(raw)

    def test_the_body_is_kept_up_to_a_length(self, wire: ModuleType) -> None:
        """An error keeps the first 1000 characters of the body."""
        assert refused(wire, b"abc").body == "abc"
        assert refused(wire, b"x" * 100_000).body == "x" * 1000
        assert refused(wire, "\u00e9".encode() * 100_000).body == "\u00e9" * 1000

    def test_errors_of_any_depth_can_be_shown(self, wire: ModuleType) -> None:
        """Errors that are nested too deeply to be printed or pickled are quoted as text."""
        for levels in (19, 20, 50, *range(200, 1000, 7)):
            body = b'{"errors":[' + b"[" * (levels - 1) + b'"odd"' + b"]" * (levels - 1) + b"]}"
            error = refused(wire, body)
            assert pickle.loads(pickle.dumps(error)).raw_errors == error.raw_errors
            assert bool(error.raw_errors) is (levels < 20)
            assert error.body == body.decode()[:1000]

    def test_a_body_is_cut_between_characters(self, wire: ModuleType) -> None:
        """A body is cut between characters, so that no character is broken."""
        assert "\ufffd" not in refused(wire, b"xx" + "\u20ac".encode() * 1000).body

    @pytest.mark.parametrize("place", ["list", "title", "detail", "code", "html", "text", "json"])
    def test_nothing_unprintable_reaches_the_message(self, wire: ModuleType, place: str) -> None:
        """The message contains no control characters, terminal escapes or bidirectional overrides."""
        bad = "a\x1b[31mb\x07c\r\nd\u202ee\x9bf\u2028g\0h\x7fi"
        body = {
            "list": {"errors": [bad]},
            "title": {"errors": [{"title": bad}]},
            "detail": {"errors": [{"title": "t", "detail": bad}]},
            "code": {"errors": [{"code": bad}]},
            "html": f"<title>{bad}</title>".encode(),
            "text": bad.encode(),
            "json": {"message": bad},
        }[place]
        message = str(refused(wire, body))
        assert message.isprintable()
        assert "b" in message

    def test_a_long_reason_is_cut(self, wire: ModuleType) -> None:
        """A long reason is cut, so that the advice at the end of the message remains."""
        message = str(refused(wire, {"errors": ["x" * 10_000]}, 403))
        assert len(message) < 600
        assert message.endswith("or access to the project or incident")

    def test_braces_in_a_reason_are_kept(self, wire: ModuleType) -> None:
        """Braces in a reason are kept, because the reason is not a template."""
        assert "{scope}{0}" in str(refused(wire, {"errors": ["{scope}{0}"]}, 403))

    @pytest.mark.parametrize("nest", [lambda inner: {"a": inner}, lambda inner: [inner]])
    def test_what_is_nested_too_deeply_is_not_kept(self, nest: Callable[[object], object]) -> None:
        """Errors nested deeper than 19 levels are not kept, because they could not be printed or pickled."""
        reported: object = "x"
        for _ in range(18):
            reported = nest(reported)
        wire = datadog_caselinks.http.wire
        assert refused(wire, {"errors": [reported]}).raw_errors == (reported,)
        assert refused(wire, {"errors": [nest(reported)]}).raw_errors == ()


class TestSecrets:
    def test_a_good_response_is_read_before_redaction(self, wire: ModuleType) -> None:
        """A link is read from the body before redaction, since a short key may be part of any id."""
        blotted = evolve(answer(ANSWER, 201), redact=lambda text: text.replace("8", "[redacted]"))
        assert wire.read_link(blotted) == LINK

    @pytest.mark.parametrize(("status", "kind"), [(400, ResponseError), (201, MalformedResponseError)])
    def test_what_an_error_keeps_is_blotted_out(
        self, wire: ModuleType, status: int, kind: type[Exception]
    ) -> None:
        """The body and messages that an error keeps are redacted, since a server may echo the headers."""
        body = {"errors": ["the-key was refused"]}
        blotted = evolve(answer(body, status), redact=lambda text: text.replace("the-key", "***"))
        with pytest.raises(kind) as caught:
            wire.read_link(blotted)
        assert "the-key" not in repr(vars(caught.value)) + str(caught.value)
        assert "***" in caught.value.body  # type: ignore[attr-defined]

    def test_headers_and_request_id_of_an_error_are_redacted(self, wire: ModuleType) -> None:
        """The headers and the request id of an error are redacted, since a proxy may echo the request."""
        echoed = {"X-Request-Id": "r-the-key", "X-Echo": "DD-API-KEY=the-key", "the-key": "x"}
        redacted = evolve(answer(b"", 400, echoed), redact=lambda text: text.replace("the-key", "***"))
        with pytest.raises(ResponseError) as caught:
            wire.read_link(redacted)
        assert caught.value.request_id == "r-***"
        assert caught.value.headers == {"X-Request-Id": "r-***", "X-Echo": "DD-API-KEY=***", "***": "x"}

    def test_nor_does_a_limit_have_it_as_its_name(self) -> None:
        """The name of a rate limit is redacted, and its numbers are kept."""
        headers = {"X-RateLimit-Limit": "9", "X-RateLimit-Remaining": "8", "X-RateLimit-Name": "the-key"}
        reported = answer(b"", 201, headers)
        assert reported.rate_limit() == RateLimit(9, 8, None, None, "the-key")
        blotted = evolve(reported, redact=lambda text: text.replace("the-key", "***"))
        assert blotted.rate_limit() == RateLimit(9, 8, None, None, "***")

    def test_a_body_that_is_cut_ends_before_what_may_be_half_a_secret(self) -> None:
        """A body of more than 256 KiB loses its end, so that no part of an escaped secret remains."""
        body = b"x" * 2**18
        assert answer(body).text() == body.decode()
        assert answer(body + b"x").text() == "x" * (2**18 - 6 * 2**13)


class TestHeaders:
    def test_an_error_has_the_headers_of_its_response(self, wire: ModuleType) -> None:
        """An error has the headers of its response; values of a repeated name are joined as in RFC 9110."""
        error = refused(wire, b"", 503)
        assert (dict(error.headers), error.request_id) == ({}, None)
        request = datadog_caselinks.http.wire.create_request(case(A).blocks(case(B)))
        repeated = CIMultiDict([("Via", "a"), ("Via", "b"), ("X-Request-Id", "r-1")])
        with pytest.raises(ServerError) as caught:
            wire.read_link(Response(request, 503, repeated, b""))
        assert caught.value.headers == {"Via": "a, b", "X-Request-Id": "r-1"}
        assert caught.value.request_id == "r-1"

    def test_an_error_keeps_a_bounded_number_of_headers(self, wire: ModuleType) -> None:
        """An error keeps at most 100 headers, since a hostile server may send thousands."""
        assert len(refused(wire, b"", 400, {f"X-{n}": "" for n in range(1000)}).headers) == 100


class TestHints:
    @pytest.mark.parametrize(
        ("status", "headers", "retry_after"),
        [
            (429, {}, None),
            (429, {"X-RateLimit-Reset": "7"}, 7),
            (429, {"X-RateLimit-Reset": "0"}, 0),
            (429, {"X-RateLimit-Limit": "60"}, None),
            (429, {"Retry-After": "3"}, 3),
            (429, {"Retry-After": "3", "X-RateLimit-Reset": "7"}, 7),
            (429, {"Retry-After": "0", "X-RateLimit-Reset": "7"}, 7),
            (429, {"Retry-After": "9", "X-RateLimit-Reset": "7"}, 9),
            (429, {"Retry-After": "soon", "X-RateLimit-Reset": "7"}, 7),
            (503, {"Retry-After": "3"}, 3),
            (
                503,
                {"Retry-After": "Wed, 21 Oct 2015 07:29:30 GMT", "Date": "Wed, 21 Oct 2015 07:28:00 GMT"},
                90,
            ),
            (503, {"X-RateLimit-Reset": "7"}, None),
            (400, {"Retry-After": "3"}, 3),
        ],
    )
    def test_what_the_server_asks_for(
        self, wire: ModuleType, status: int, headers: dict[str, str], retry_after: float | None
    ) -> None:
        """``retry_after`` is ``Retry-After``, or for a 429 the end of the window if that is later."""
        assert refused(wire, b"", status, headers).retry_after == retry_after

    @pytest.mark.parametrize(
        ("status", "headers", "advice"),
        [
            (
                429,
                {"X-RateLimit-Reset": "7"},
                "The server asks to wait 7 s. Wait, or send fewer requests at a time",
            ),
            (
                429,
                {"Retry-After": "2.5"},
                "The server asks to wait 2.5 s. Wait, or send fewer requests at a time",
            ),
            (429, {}, "Wait, or send fewer requests at a time"),
            (
                429,
                {"X-RateLimit-Name": "case {links}", "X-RateLimit-Reset": "7"},
                "The server asks to wait 7 s. Wait, or send fewer requests at a time. The limit is named "
                "case {links}: the metrics datadog.apis.rate_limit.usage.* show its use by limit_name, and "
                "Datadog's support can raise it",
            ),
            (
                403,
                {"X-RateLimit-Name": "x"},
                "The application key or token may lack the scope cases_write, "
                "or access to the project or incident",
            ),
            (503, {"Retry-After": "7"}, "The server or a gateway failed"),
        ],
    )
    def test_a_429_says_how_long(
        self, wire: ModuleType, status: int, headers: dict[str, str], advice: str
    ) -> None:
        """The message of a 429 has the wait that the server requests, and who can raise a named limit."""
        message = str(refused(wire, {"errors": ["because"]}, status, headers))
        assert message == f"cannot create CASE {A} BLOCKS CASE {B}: {status} because. {advice}"

    @pytest.mark.parametrize("status", [400, 429, 503])
    def test_the_rate_limit_is_on_every_error(self, wire: ModuleType, status: int) -> None:
        """Every error has the rate limit of its response, or ``None``."""
        headers = {"X-RateLimit-Limit": "60", "X-RateLimit-Remaining": "0", "X-RateLimit-Name": "case_links"}
        assert refused(wire, b"", status, headers).rate_limit == RateLimit(60, 0, name="case_links")
        assert refused(wire, b"", status).rate_limit is None


VALID = json.dumps({"data": [ANSWER["data"]]}).encode()

mutated = st.builds(
    lambda document, at, length, new: document[:at] + new + document[at + length :],
    st.sampled_from([VALID, json.dumps(ANSWER).encode(), b'{"errors": [{"title": "t", "detail": "d"}]}']),
    st.integers(0, 300),
    st.integers(0, 20),
    st.binary(max_size=10)
    | st.sampled_from([b"NaN", b"1e999", b"-Infinity", b"[]", b"null", b'"\\ud800"', b"\xff"]),
)

envelopes = st.builds(
    lambda name, inner: json.dumps({name: inner}).encode(), st.sampled_from(["data", "errors"]), json_values
)


BREAKING: Final = [
    b"[" * 200_000,
    b'{"data":' * 100_000,
    b'{"data":[' + b"[" * 100_000 + b"]" * 100_000 + b"]}",
    b'{"errors":[' + b"[" * 900 + b"]" * 900 + b"]}",
    b'{"errors":' * 100_000,
    b'{"data":' + b"9" * 100_000 + b"}",
    b'{"errors":[' + b"9" * 100_000 + b"]}",
    b'{"data":NaN}',
    b'{"data":[NaN,Infinity,-Infinity]}',
    b'{"errors":[NaN,1e999]}',
    b'{"data":{"id":"\\ud800","attributes":{}}}',
    json.dumps(ANSWER).replace(LINK_ID, "\ud800").encode("utf-8", "surrogatepass"),
    json.dumps(ANSWER).replace(LINK_ID, "\\udfff").encode(),
    b'{"errors":["\\ud800"]}',
    b'{"errors":[{"title":"\\udfff","detail":"\\ud800"}]}',
    b'{"data":[],"data":{}}',
    b'{"data":{},"data":[]}',
    b'{"errors":["a"],"errors":7}',
    b'{"data":"\xff\xfe"}',
    b"\xef\xbb\xbf" + VALID,
    VALID.decode().encode("utf-16"),
    VALID.decode().encode("utf-32"),
    b"\0" * 1000,
    b"<title>" * 10_000,
]
"""Depth, huge numbers, lone surrogates, repeated keys, other encodings."""


class TestAnyAnswer:
    @pytest.mark.parametrize("read", READERS)
    @any_wire
    @given(
        st.binary() | mutated | envelopes | json_values.map(lambda value: json.dumps(value).encode()),
        st.sampled_from([200, 201, 204]) | st.integers(100, 999),
        st.booleans(),
    )
    def test_is_read_or_is_an_error_of_ours(
        self, wire: ModuleType, read: str, body: bytes, status: int, complete: bool
    ) -> None:
        """Any bytes with any status give a value or a ``CaseLinksError`` with a printable message."""
        _require_read_or_refused(wire, read, answer(body, status, complete=complete))

    @pytest.mark.parametrize("body", BREAKING, ids=range(len(BREAKING)))
    def test_a_body_that_breaks_parsers(self, wire: ModuleType, body: bytes) -> None:
        """A body that breaks parsers gives a value or a ``CaseLinksError``, from every reader."""
        for status, read in itertools.product([200, 400, 500], READERS):
            _require_read_or_refused(wire, read, answer(body, status))


def _require_read_or_refused(wire: ModuleType, read: str, any_answer: Response) -> None:
    try:
        getattr(wire, read)(to_list(any_answer) if read == "read_links" else any_answer)
    except CaseLinksError as error:
        assert str(error).isprintable()  # noqa: PT017 - some answers are good
        assert len(str(error)) < 1000  # noqa: PT017
    else:
        assert 200 <= any_answer.status < 300


def _resource(link: CaseLink) -> dict[str, Any]:
    """Return the resource object of a link, as a server writes it."""
    return {
        "id": link.id,
        "type": "link",
        "attributes": {
            "parent_entity_id": link.parent.id,
            "parent_entity_type": link.parent.type,
            "relationship": link.relationship,
            "child_entity_id": link.child.id,
            "child_entity_type": link.child.type,
        },
    }


def test_half_a_character_is_no_id_of_a_case() -> None:
    """A lone surrogate as the id of a case is refused, although the standard library decodes it."""
    with pytest.raises(ValueError, match=r".+"):
        datadog_caselinks.http.envelope.decode_case(b'{"data": {"id": "\\ud800", "attributes": {}}}')
