"""Every example except the bots runs unchanged against a sandbox."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

import http_errors
import incident_hook
import web_service
from datadog_caselinks import (
    CaseLinksClient,
    ConnectError,
    InvalidLinkError,
    LinkLine,
    Relationship,
    ResponseError,
    SessionError,
    read_link_file,
)
from datadog_caselinks.sandbox import Fault, Sandbox
from tests.documents.processes import EXAMPLES, fail, run, serving

INCIDENT = "1588a905-212d-5dcb-ad1b-15647f1ad62d"
SERVICES = pytest.mark.parametrize("service", ["web_service.py", "fastapi_service.py"])


async def ask(method: str, url: str) -> tuple[int, dict[str, object]]:
    """Return the status and the body of the response."""
    async with aiohttp.request(method, url) as response:
        return response.status, await response.json()


class TestGather:
    async def test_links_a_chain(self, sandbox: Sandbox) -> None:
        """Without arguments, the example links ten generated cases in a chain of nine links."""
        output = await run(sandbox, "gather.py")
        assert "9 of 9 links created" in output
        assert len({link.id for link in sandbox.links if link.id in output}) == 9

    async def test_takes_keys_and_asks_for_each_once(self, sandbox: Sandbox) -> None:
        """A case that two links share is looked up once."""
        sandbox.add_case("SHOP-3")
        await run(sandbox, "gather.py", "SHOP-1", "SHOP-2", "SHOP-3")
        assert len(sandbox.links) == 2
        assert [request.method for request in sandbox.requests].count("GET") == 3

    async def test_says_what_was_not_created(self, sandbox: Sandbox) -> None:
        """A link with an unknown case is reported with the reason and status 1, and the other is created."""
        output = await fail(sandbox, "gather.py", "SHOP-1", "SHOP-2", "SHOP-99")
        assert "not created: SHOP-2 blocks SHOP-99\n  cannot get case SHOP-99: 404" in output
        assert "1 of 2 links created" in output

    async def test_a_single_case_makes_no_chain(self, sandbox: Sandbox) -> None:
        """A single case is refused before anything is sent."""
        assert await fail(sandbox, "gather.py", "SHOP-1") == "name at least two cases\n"
        assert not sandbox.requests


class TestHttpErrors:
    @pytest.mark.parametrize(
        ("of_datadog", "reported"),
        [
            *((code, code) for code in (400, 404, 409, 422, 429)),
            *((code, 502) for code in (302, 401, 403, 500)),
        ],
    )
    def test_a_status_is_handed_on_if_it_is_for_the_caller(self, of_datadog: int, reported: int) -> None:
        """An error of the caller keeps its status; an error of the credentials or of Datadog becomes 502."""
        assert http_errors.status(ResponseError("", status=of_datadog)) == reported

    def test_a_missing_response(self) -> None:
        """An invalid link becomes 400, and a missing response of Datadog becomes 502."""
        assert http_errors.status(InvalidLinkError()) == 400
        assert http_errors.status(ConnectError()) == 502

    def test_retry_after_is_whole_seconds(self) -> None:
        """Retry-After is rounded up to whole seconds, and omitted without a known wait."""
        assert http_errors.headers(ResponseError("", status=429, retry_after=0.2)) == {"Retry-After": "1"}
        assert http_errors.headers(ResponseError("", status=429)) == {}
        assert http_errors.headers(InvalidLinkError()) == {}


@pytest.mark.parametrize(
    ("app", "key"),
    [
        (web_service.application(), web_service.CLIENT),
        (incident_hook.application("s3cret"), incident_hook.CLIENT),
    ],
    ids=["web_service", "incident_hook"],
)
async def test_the_client_lives_as_long_as_the_application(
    sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    app: web.Application,
    key: web.AppKey[CaseLinksClient],
) -> None:
    """The client is open while requests are served, and closed with the application."""
    for name, value in sandbox.environment.items():
        monkeypatch.setenv(name, value)
    runner = web.AppRunner(app)
    await runner.setup()
    await app[key].get_case("SHOP-1")
    await runner.cleanup()
    with pytest.raises(SessionError, match="this client is closed"):
        await app[key].get_case("SHOP-1")


@SERVICES
class TestServices:
    async def test_put_makes_a_link_once(self, sandbox: Sandbox, service: str) -> None:
        """The first PUT creates the link, the second finds it, and GET lists it."""
        async with serving(sandbox, service) as (url, _):
            first = await ask("PUT", f"{url}/links/SHOP-1/blocks/SHOP-2")
            second = await ask("PUT", f"{url}/links/SHOP-1/blocks/SHOP-2")
            reported = await ask("GET", f"{url}/cases/SHOP-1/links")
        (link,) = sandbox.links
        assert first == (201, {"id": link.id})
        assert second == (200, {"id": link.id})
        parent, child = link.parent_entity_id, link.child_entity_id
        reported_link = {"id": link.id, "parent": parent, "relationship": "BLOCKS", "child": child}
        assert reported == (200, {"id": parent, "title": "Checkout hangs", "links": [reported_link]})

    async def test_an_end_may_be_an_incident(self, sandbox: Sandbox, service: str) -> None:
        """An end of a link may be an incident."""
        async with serving(sandbox, service) as (url, _):
            status, _body = await ask("PUT", f"{url}/links/SHOP-1/causes/incident:{INCIDENT}")
        assert status == 201
        assert [link.child_entity_type for link in sandbox.links] == ["INCIDENT"]

    async def test_what_the_caller_can_mend_is_4xx(self, sandbox: Sandbox, service: str) -> None:
        """A mistake of the caller has a 4xx status with an explanation and is not logged."""
        mistakes = {
            "SHOP-1/likes/SHOP-2": (400, "unknown relationship 'likes'"),
            "SHOP-1/blocks/everything": (400, "'everything' does not name an entity"),
            "SHOP-1/blocks/SHOP-99": (404, "cannot get case SHOP-99"),
        }
        async with serving(sandbox, service) as (url, log):
            answers = {path: await ask("PUT", f"{url}/links/{path}") for path in mistakes}
        for path, (status, message) in mistakes.items():
            assert answers[path][0] == status
            assert message in str(answers[path][1]["error"])
            assert message not in "".join(log)
        assert not sandbox.links

    async def test_429_says_when_to_come_back(self, sandbox: Sandbox, service: str) -> None:
        """A rate limit that is too long to wait for is passed on with Retry-After."""
        sandbox.fail_next(Fault.HTTP_429_RETRY_AFTER, seconds=1000)
        async with (
            serving(sandbox, service) as (url, _),
            aiohttp.request("GET", f"{url}/cases/SHOP-1/links") as response,
        ):
            assert response.status == 429
            assert response.headers["Retry-After"] == "1000"

    async def test_what_the_service_must_mend_is_502_and_logged(self, sandbox: Sandbox, service: str) -> None:
        """Missing permissions of the service become 502 and are logged without a key."""
        app_key = sandbox.credentials_without_scope.app_key
        async with serving(sandbox, service, DD_APP_KEY=app_key) as (url, log):
            status, body = await ask("PUT", f"{url}/links/SHOP-1/blocks/SHOP-2")
        assert status == 502
        assert "scope cases_write" in str(body["error"])
        assert any("PUT /links/SHOP-1/blocks/SHOP-2" in line and str(body["error"]) in line for line in log)
        assert app_key not in "".join(log)


class TestIncidentHook:
    async def post(
        self, url: str, payload: object, *, secret: str = "s3cret"
    ) -> tuple[int, dict[str, str] | str]:
        async with aiohttp.request(
            "POST", f"{url}/incidents", json=payload, headers={"X-Hook-Secret": secret}
        ) as response:
            is_json = response.content_type == "application/json"
            return response.status, await (response.json() if is_json else response.text())

    async def test_links_the_cases_that_are_named_once(self, sandbox: Sandbox) -> None:
        """Each named case is linked once, even if the webhook is repeated, and other words are ignored."""
        payload = {"incident": INCIDENT, "text": "SHOP-1, SHOP-2 (see SHOP-1) got UTF-8 wrong"}
        async with serving(sandbox, "incident_hook.py", HOOK_SECRET="s3cret") as (url, log):
            status, first = await self.post(url, payload)
            again, second = await self.post(url, payload)
        assert (status, again) == (200, 200)
        assert isinstance(first, dict)
        assert isinstance(second, dict)
        assert (first["SHOP-1"], first["SHOP-2"]) == ("linked", "linked")
        assert (second["SHOP-1"], second["SHOP-2"]) == ("already linked", "already linked")
        assert first["UTF-8"].startswith("cannot get case UTF-8: 404")
        assert "UTF-8" not in "".join(log)
        assert [(link.parent_entity_id, link.relationship) for link in sandbox.links] == [
            (INCIDENT, "RELATES_TO"),
            (INCIDENT, "RELATES_TO"),
        ]

    async def test_without_the_secret_nothing_is_linked(self, sandbox: Sandbox) -> None:
        """A wrong secret is refused before the payload is read, and the right one is never shown."""
        payload = {"incident": INCIDENT, "text": "SHOP-1"}
        async with serving(sandbox, "incident_hook.py", HOOK_SECRET="s3cret") as (url, log):
            for wrong in ("", "s3cre", "s3cret2", "S3CRET", "s3crét"):
                status, body = await self.post(url, payload, secret=wrong)
                assert status == 401, wrong
                assert "s3cret" not in body
            async with aiohttp.request("POST", f"{url}/incidents", json=payload) as without:
                assert without.status == 401
        assert "s3cret" not in "".join(log)
        assert not sandbox.requests

    async def test_an_odd_payload_is_400(self, sandbox: Sandbox) -> None:
        """An invalid payload gets a 400 with the reason, because Datadog does not resend after it."""
        async with serving(sandbox, "incident_hook.py", HOOK_SECRET="s3cret") as (url, _):
            for odd in (
                {"incident": "42", "text": "SHOP-1"},
                {"incident": INCIDENT},
                {"incident": INCIDENT, "text": None},
                [INCIDENT],
            ):
                status, body = await self.post(url, odd)
                assert status == 400, odd
                assert "invalid payload" in body
        assert not sandbox.requests

    async def test_what_may_yet_succeed_is_503(self, sandbox: Sandbox) -> None:
        """A temporary failure gets a 503, so that Datadog resends the webhook and the rest is linked."""
        payload = {"incident": INCIDENT, "text": "SHOP-1 SHOP-2"}
        sandbox.fail_next(Fault.HTTP_503_RETRY_AFTER, operation="create", seconds=1000)
        async with serving(sandbox, "incident_hook.py", HOOK_SECRET="s3cret") as (url, log):
            status, _ = await self.post(url, payload)
            linked = len(sandbox.links)
            again, _ = await self.post(url, payload)
        assert (status, linked) == (503, 1)
        assert (again, len(sandbox.links)) == (200, 2)
        assert any(f"INCIDENT {INCIDENT}: " in line for line in log)

    async def test_it_does_not_start_without_a_secret(self, sandbox: Sandbox) -> None:
        """Without a secret the hook does not start, because anyone could call it."""
        printed = await fail(sandbox, "incident_hook.py", HOOK_SECRET="")
        assert printed == "HOOK_SECRET is not set: set it to a long random string\n"


class TestManySites:
    @pytest.fixture
    async def demo(self) -> AsyncIterator[Sandbox]:
        async with Sandbox(seed="demo") as sandbox:
            yield sandbox

    def variables(self, **sandboxes: Sandbox) -> dict[str, str]:
        return {
            f"{name}_{variable}": value
            for name, sandbox in sandboxes.items()
            for variable, value in (
                ("DD_SITE", sandbox.url),
                ("DD_API_KEY", sandbox.credentials.api_key),
                ("DD_APP_KEY", sandbox.credentials.app_key),
            )
        }

    async def test_each_organisation_gets_its_own_links(self, sandbox: Sandbox, tmp_path: Path) -> None:
        """The links of each file are created on the site of its organisation, and the summary counts them."""
        shop, bank = tmp_path / "shop.csv", tmp_path / "bank.csv"
        shop.write_text(
            "parent,relationship,child\nSHOP-1,blocks,SHOP-2\nSHOP-1,causes,SHOP-99\nSHOP-1,?,?\n"
        )
        bank.write_text("parent,relationship,child\nBANK-1,duplicates,BANK-2\n")
        async with Sandbox() as other:
            other.add_case("BANK-1")
            other.add_case("BANK-2")
            variables = self.variables(SHOP=sandbox, BANK=other)
            printed = await fail(sandbox, "many_sites.py", f"SHOP={shop}", f"BANK={bank}", **variables)
            assert [link.relationship for link in sandbox.links] == ["BLOCKS"]
            assert [link.relationship for link in other.links] == ["DUPLICATES"]
            assert f"SHOP ({sandbox.url}): 1 created, 0 already linked, 2 failed\n" in printed
            assert f"BANK ({other.url}): 1 created, 0 already linked, 0 failed\n" in printed
        assert "SHOP: SHOP-1 CAUSES SHOP-99: cannot get case SHOP-99: 404" in printed
        assert "SHOP: line 4: " in printed

    async def test_a_second_run_makes_nothing(self, demo: Sandbox) -> None:
        """A second run counts the links as already linked, and is not a failure."""
        before = len(demo.links)
        file, variables = EXAMPLES / "postmortem.csv", self.variables(SHOP=demo)
        await run(demo, "many_sites.py", f"SHOP={file}", **variables)
        printed = await run(demo, "many_sites.py", f"SHOP={file}", **variables)
        assert (
            printed == f"SHOP ({demo.url}): 0 created, {len(demo.links) - before} already linked, 0 failed\n"
        )

    async def test_a_bad_file_stops_no_other_organisation(self, demo: Sandbox, tmp_path: Path) -> None:
        """An invalid file is reported, and the other organisation is still linked."""
        before = len(demo.links)
        empty = tmp_path / "empty.csv"
        empty.touch()
        arguments = f"SHOP={EXAMPLES / 'postmortem.csv'}", f"BANK={empty}"
        variables = self.variables(SHOP=demo, BANK=demo)
        printed = await fail(demo, "many_sites.py", *arguments, **variables)
        assert "BANK: the file is empty" in printed
        assert f"SHOP ({demo.url}): {len(demo.links) - before} created," in printed

    async def test_nothing_is_taken_from_elsewhere(self, sandbox: Sandbox) -> None:
        """An organisation without its own variable stops the run, even if DD_APP_KEY is set."""
        variables = self.variables(SHOP=sandbox, BANK=sandbox)
        del variables["BANK_DD_APP_KEY"]
        file = EXAMPLES / "postmortem.csv"
        printed = await fail(sandbox, "many_sites.py", f"SHOP={file}", f"BANK={file}", **variables)
        assert printed == "not set: BANK_DD_APP_KEY\n"
        assert not sandbox.requests

    async def test_a_wrong_variable_is_reported_with_its_organisation(self, sandbox: Sandbox) -> None:
        """An invalid variable is reported with its organisation, and without its value."""
        variables = self.variables(SHOP=sandbox) | {"SHOP_DD_API_KEY": "two words"}
        printed = await fail(sandbox, "many_sites.py", "SHOP=links.csv", **variables)
        assert printed.startswith("SHOP: api_key contains white space")
        assert "two words" not in printed

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [([], "name organisations and their files"), (["SHOP=no.csv"], "such file or directory: 'no.csv'")],
    )
    async def test_says_what_is_missing(self, sandbox: Sandbox, arguments: list[str], message: str) -> None:
        """Missing arguments and missing files are reported."""
        variables = self.variables(SHOP=sandbox)
        assert message in await fail(sandbox, "many_sites.py", *arguments, **variables)


async def test_the_post_mortem_is_believable() -> None:
    """The post-mortem has about forty valid links without repeats, with every relationship."""
    with (EXAMPLES / "postmortem.csv").open("rb", buffering=0) as file:
        lines = [line async for line in read_link_file(file)]
    wanted = [line.new for line in lines if isinstance(line, LinkLine)]
    assert 35 <= len(wanted) == len(lines) <= 45
    async with Sandbox(seed="demo") as sandbox, CaseLinksClient(sandbox.site, sandbox.credentials) as links:
        plan = await links.plan_links(wanted)
    assert (len(plan.create), plan.keep, plan.warnings) == (len(wanted), (), ())
    types = {entity.type for new in plan.create for entity in (new.parent, new.child)}
    assert types == {"CASE", "INCIDENT", "PAGE"}
    assert {new.relationship for new in plan.create} == set(Relationship)
