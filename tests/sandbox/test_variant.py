"""The variants of the sandbox: each behavior that the API's documentation leaves open."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest

from datadog_caselinks.sandbox import Fault, Sandbox
from datadog_caselinks.values.errors import ParameterError

if TYPE_CHECKING:
    from tests.sandbox.caller import Caller, Reply
    from tests.support.clock import ManualClock

CASE = "bf0cbac6-4c16-4cfb-b6bf-ca5e0ec37a4f"
OTHER_CASE = "4417921d-0866-4a38-822c-6f2a0f65f77d"
A_PAGE = "804cd682-55f6-4541-ab00-b608b282ea7d"


class TestDuplicates:
    @pytest.fixture(params=["conflict", "bad-request"])
    def sandbox_options(
        self, request: pytest.FixtureRequest, sandbox_options: dict[str, Any]
    ) -> dict[str, Any]:
        return {**sandbox_options, "duplicates": request.param}

    @pytest.fixture
    def refusal(self, request: pytest.FixtureRequest) -> tuple[int, str]:
        param = request.node.callspec.params["sandbox_options"]
        return {"conflict": (409, "Conflict"), "bad-request": (400, "Bad Request")}[param]

    async def test_an_equal_link_is_refused(
        self, caller: Caller, sandbox: Sandbox, refusal: tuple[int, str]
    ) -> None:
        """An equal link gets a 409 or a 400, and is not stored; a UUID in upper case is equal."""
        await caller.create()
        replies = [await caller.create(), await caller.create(parent_entity_id=CASE.upper())]

        status, title = refusal
        reported = {"status": str(status), "title": title, "detail": "an equal link exists"}
        assert [(reply.status, reply.json) for reply in replies] == [(status, {"errors": [reported]})] * 2
        assert len(sandbox.links) == 1

    @pytest.mark.parametrize(
        "change",
        [
            {"parent_entity_id": A_PAGE},
            {"child_entity_id": A_PAGE},
            {"parent_entity_type": "PAGE"},
            {"child_entity_type": "PAGE"},
            {"relationship": "CAUSES"},
        ],
    )
    async def test_another_link_is_not(self, caller: Caller, change: dict[str, Any]) -> None:
        """A link that differs in one attribute is not refused."""
        await caller.create()

        assert (await caller.create(**change)).status == 201

    async def test_the_other_way_round_is_another_link(self, caller: Caller) -> None:
        """The reverse of a link is another link, also for ``RELATES_TO``."""
        await caller.create(relationship="RELATES_TO")
        back = await caller.create(
            parent_entity_id=OTHER_CASE, relationship="RELATES_TO", child_entity_id=CASE
        )

        assert back.status == 201

    async def test_what_was_deleted_can_be_created_again(self, caller: Caller) -> None:
        """A deleted link can be created again."""
        await caller.delete((await caller.create()).json["data"]["id"])

        assert (await caller.create()).status == 201


@pytest.mark.sandbox(list_lag=2.5, duplicates="conflict")
class TestListLag:
    async def test_a_new_link_shows_later(
        self, caller: Caller, sandbox: Sandbox, manual_clock: ManualClock
    ) -> None:
        """A new link is stored at once, and listed after the lag."""
        link = (await caller.create()).json["data"]
        assert len(sandbox.links) == 1

        manual_clock.now += 2.25
        assert (await caller.list()).json == {"data": []}
        manual_clock.now += 0.25
        assert (await caller.list()).json == {"data": [link]}

    async def test_an_equal_one_is_refused_in_the_meantime(self, caller: Caller) -> None:
        """An equal link is refused during the lag, since only lists lag."""
        await caller.create()

        assert (await caller.create()).status == 409

    async def test_it_can_be_deleted_in_the_meantime(self, caller: Caller, manual_clock: ManualClock) -> None:
        """A link can be deleted during the lag, and is never listed afterwards."""
        link_id = (await caller.create()).json["data"]["id"]

        assert (await caller.delete(link_id)).status == 204
        manual_clock.now += 10
        assert (await caller.list()).json == {"data": []}


async def test_without_a_lag_no_time_counts(caller: Caller, manual_clock: ManualClock) -> None:
    """A sandbox without a lag lists every link, even if its clock is set back."""
    await caller.create()
    manual_clock.now -= 3600

    assert len((await caller.list()).json["data"]) == 1


@pytest.mark.sandbox(buckets="separate", rate_limit="2/10s")
class TestBuckets:
    async def test_each_operation_counts_by_itself(self, caller: Caller) -> None:
        """Each operation has a bucket with its own name, and one that is used up blocks no other."""
        created = [await caller.create() for _ in range(3)]
        others = [await caller.list(), await caller.delete(A_PAGE), await caller.get("SHOP-1")]

        assert [reply.status for reply in created] == [201, 201, 429]
        assert [reply.status for reply in others] == [200, 404, 404]
        assert [
            (reply.headers["X-RateLimit-Name"], reply.headers["X-RateLimit-Remaining"])
            for reply in (created[2], *others)
        ] == [
            ("case_links_create", "0"),
            ("case_links_list", "1"),
            ("case_links_delete", "1"),
            ("case_links_get", "1"),
        ]

    async def test_all_windows_end_together(self, caller: Caller, manual_clock: ManualClock) -> None:
        """The windows of all buckets are aligned to the same calendar."""
        await caller.create()
        await caller.list()
        manual_clock.now += 10

        assert (await caller.list()).headers["X-RateLimit-Remaining"] == "1"
        assert (await caller.create()).headers["X-RateLimit-Remaining"] == "1"

    async def test_a_401_reports_the_bucket_of_its_operation(self, caller: Caller) -> None:
        """A 401 reports the bucket of its operation, and takes nothing from it."""
        refused = await caller.create(headers={})

        assert (refused.status, refused.headers["X-RateLimit-Name"]) == (401, "case_links_create")
        assert refused.headers["X-RateLimit-Remaining"] == "2"

    async def test_the_fault_of_429_reports_it_too(self, caller: Caller, sandbox: Sandbox) -> None:
        """The fault 429 reports the bucket of its operation."""
        sandbox.fail_next(Fault.HTTP_429)

        assert (await caller.list()).headers["X-RateLimit-Name"] == "case_links_list"

    async def test_the_page_shows_the_one_with_the_least_left(self, caller: Caller) -> None:
        """The page shows the bucket with the fewest requests left."""
        await caller.create()
        await caller.list()
        await caller.list()

        window = (await caller.send("GET", "/_sandbox/state")).json["window"]
        assert (window["name"], window["remaining"]) == ("case_links_list", 0)


NOT_FOUND = {"errors": [{"code": "resource_not_found", "title": "case not found"}]}


@pytest.mark.sandbox(unknown_cases="not-found")
class TestUnknownCases:
    async def test_only_known_cases_are_linked_and_listed(self, caller: Caller, sandbox: Sandbox) -> None:
        """A create or list with a case that was not added gets a 404, and changes nothing."""
        sandbox.add_case("SHOP-1", id=CASE)
        replies = [
            await caller.create(),
            await caller.create(parent_entity_id=OTHER_CASE, child_entity_id=CASE),
            await caller.list(OTHER_CASE),
        ]

        assert [(reply.status, reply.json) for reply in replies] == [(404, NOT_FOUND)] * 3
        assert sandbox.links == []
        sandbox.add_case("SHOP-2", id=OTHER_CASE)
        assert (await caller.create()).status == 201
        assert len((await caller.list(OTHER_CASE)).json["data"]) == 1

    async def test_other_entities_cannot_be_added(self, caller: Caller, sandbox: Sandbox) -> None:
        """A link to a page needs no added entity, since only cases can be unknown."""
        sandbox.add_case("SHOP-1", id=CASE)

        assert (await caller.create(child_entity_type="PAGE", child_entity_id=A_PAGE)).status == 201
        assert (await caller.list(A_PAGE, "PAGE")).status == 200


class TestMalformedIds:
    @pytest.mark.parametrize("name", ["SHOP", "links", "%25", "a%20b", f"{CASE}1"])
    async def test_in_a_path(self, caller: Caller, name: str) -> None:
        """A malformed id in a path gets a 400 in the recorded form."""
        replies = [await caller.get(name), await caller.delete(name)]

        assert [(reply.status, reply.json["errors"][0]["title"]) for reply in replies] == [
            (400, "Invalid Parameter")
        ] * 2
        assert [reply.json["errors"][0]["source"]["parameter"] for reply in replies] == ["case_id", "link_id"]

    @pytest.mark.sandbox(malformed_ids="not-found")
    async def test_may_be_unknown(self, caller: Caller) -> None:
        """A sandbox can respond to a malformed id with a 404; other errors remain a 400."""
        replies = [
            await caller.create(child_entity_id="SHOP-1"),
            await caller.list("SHOP-1"),
            await caller.get("SHOP"),
            await caller.delete("SHOP"),
        ]
        others = [
            await caller.create(child_entity_id="SHOP-1", relationship="LIKES"),
            await caller.create(child_entity_id=7),
            await caller.create(child_entity_id=None),
            await caller.list("SHOP-1", "TICKET"),
        ]

        assert [reply.status for reply in replies] == [404] * 4
        assert [reply.status for reply in others] == [400] * 4


async def refused_by_keys(caller: Caller) -> Reply:
    return await caller.create(headers={})


async def refused_by_scope(caller: Caller) -> Reply:
    headers = (await caller.sandbox.credentials_without_scope.authenticate()).headers
    return await caller.create(headers=headers)


async def refused_by_limit(caller: Caller) -> Reply:
    caller.sandbox.rate_limit = "1/1h"
    await caller.list()
    return await caller.list()


async def refused_as_equal(caller: Caller) -> Reply:
    await caller.create()
    return await caller.create()


LIMIT = "Rate limit of 1 request in 3600 seconds exceeded"
SCOPE = "the application key lacks the scope cases_write"
REFUSALS: dict[str, tuple[Callable[[Caller], Awaitable[Reply]], list[str], list[dict[str, Any]]]] = {
    "two reasons": (
        lambda caller: caller.send("GET", "/api/v2/cases/link"),
        ["query parameter entity_type is missing", "query parameter entity_id is missing"],
        [
            {"status": "400", "title": "Bad Request", "detail": f"query parameter {name} is missing"}
            for name in ("entity_type", "entity_id")
        ],
    ),
    "wrong keys": (refused_by_keys, ["Unauthorized"], [{"status": "401", "title": "Unauthorized"}]),
    "no scope": (refused_by_scope, [SCOPE], [{"status": "403", "title": "Forbidden", "detail": SCOPE}]),
    "no such link": (
        lambda caller: caller.delete(A_PAGE),
        ["link not found"],
        [{"code": "resource_not_found", "title": "link not found"}],
    ),
    "a malformed id": (
        lambda caller: caller.delete("unknown"),
        ["must be a UUID"],
        [
            {
                "status": "400",
                "title": "Invalid Parameter",
                "detail": "must be a UUID",
                "source": {"parameter": "link_id"},
                "meta": {},
            }
        ],
    ),
    "no such path": (
        lambda caller: caller.send("GET", "/api"),
        ["Not Found"],
        [{"status": "404", "title": "Not Found"}],
    ),
    "an equal link": (
        refused_as_equal,
        ["an equal link exists"],
        [{"status": "409", "title": "Conflict", "detail": "an equal link exists"}],
    ),
    "over the limit": (
        refused_by_limit,
        [LIMIT],
        [{"status": "429", "title": "Too Many Requests", "detail": LIMIT}],
    ),
}
RECORDED_AS_OBJECTS = {"two reasons", "no such link", "a malformed id", "an equal link"}


@pytest.mark.parametrize("name", REFUSALS)
class TestErrorFormat:
    @pytest.fixture
    def in_form(self, name: str, manual_clock: ManualClock, caller_of: Callable[[Sandbox], Caller]) -> Any:
        async def ask(form: Any) -> Any:
            async with Sandbox(error_format=form, duplicates="conflict", clock=manual_clock) as sandbox:
                return (await REFUSALS[name][0](caller_of(sandbox))).json["errors"]

        return ask

    async def test_strings(self, name: str, in_form: Any) -> None:
        """Errors as strings are the reasons as sentences, as documented, or else the title."""
        assert await in_form("strings") == REFUSALS[name][1]

    async def test_objects(self, name: str, in_form: Any) -> None:
        """Errors as objects have each reason as the detail, as recorded from the case endpoints."""
        assert await in_form("objects") == REFUSALS[name][2]

    async def test_generic(self, name: str, in_form: Any) -> None:
        """A generic error has neither a status nor a code: only its detail says what is wrong."""
        assert await in_form("generic") == [
            {"title": "Generic Error", "detail": detail} for detail in REFUSALS[name][1]
        ]

    async def test_mixed(self, name: str, in_form: Any) -> None:
        """Mixed errors are objects for invalid requests and unknown entities, and strings for the rest."""
        _, strings, objects = REFUSALS[name]
        assert await in_form("mixed") == (objects if name in RECORDED_AS_OBJECTS else strings)


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"duplicates": "409"}, "duplicates must be one of allow, conflict, bad-request, not '409'"),
        ({"buckets": 2}, "buckets must be one of shared, separate, not 2"),
        ({"error_format": 7}, "error_format must be one of mixed, strings, objects, generic, not 7"),
        ({"unknown_cases": "deny"}, "unknown_cases must be one of allow, not-found, not 'deny'"),
        ({"malformed_ids": 400}, "malformed_ids must be one of bad-request, not-found, not 400"),
        ({"list_lag": -1}, "list_lag must be seconds, at least 0, not -1"),
        ({"list_lag": float("nan")}, "list_lag must be seconds, at least 0, not nan"),
        ({"list_lag": float("inf")}, "list_lag must be seconds, at least 0, not inf"),
    ],
)
def test_another_value_is_refused(option: dict[str, Any], says: str) -> None:
    """An unknown variant is refused when the sandbox is created, with the list of values."""
    with pytest.raises(ParameterError, match=f"^{says}$"):
        Sandbox(**option)
