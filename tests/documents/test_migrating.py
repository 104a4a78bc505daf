"""The programs on the migration page behave equally with both clients, except where the page says so."""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import pytest
from aiosonic.exceptions import AiosonicError
from datadog_api_client.exceptions import ApiTypeError, NotFoundException

from datadog_caselinks.sandbox import Fault, Sandbox
from docs.migrating import caselinks, official
from tests.support.clock import Clock, in_no_time

PAGE = Path(__file__).parents[2] / "docs" / "migrating.md"
PROGRAMS = {"official": official, "caselinks": caselinks}
A, B, C = (str(uuid4()) for _ in range(3))


@pytest.fixture(autouse=True)
def keys(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DD_API_KEY", sandbox.credentials.api_key)
    monkeypatch.setenv("DD_APP_KEY", sandbox.credentials.app_key)


@pytest.fixture
async def theirs(sandbox: Sandbox) -> AsyncIterator[Any]:
    async with official.opened(sandbox.url) as api:
        yield api


@pytest.fixture
async def ours(sandbox: Sandbox) -> AsyncIterator[Any]:
    async with caselinks.opened(sandbox.url) as links:
        yield links


@pytest.mark.parametrize("name", PROGRAMS)
class TestBoth:
    @pytest.fixture
    async def client(self, name: str, sandbox: Sandbox) -> AsyncIterator[Any]:
        async with PROGRAMS[name].opened(sandbox.url) as client:
            yield client

    @pytest.fixture
    def program(self, name: str) -> Any:
        return PROGRAMS[name]

    async def test_make_list_and_delete(self, program: Any, client: Any, sandbox: Sandbox) -> None:
        """A link can be created, found from its parent only, and deleted."""
        link_id = await program.block(client, A, B)
        assert [(link.id, link.relationship) for link in sandbox.links] == [(link_id, "BLOCKS")]
        assert await program.blocked_by(client, A) == {B: link_id}
        assert await program.blocked_by(client, B) == {}
        await program.unblock(client, A, B)
        assert sandbox.links == []

    async def test_ensure(self, program: Any, client: Any, sandbox: Sandbox) -> None:
        """Ensuring a link again finds the existing one."""
        assert await program.ensure_blocked(client, A, B) == await program.ensure_blocked(client, A, B)
        assert len(sandbox.links) == 1

    async def test_make_many(self, program: Any, client: Any, sandbox: Sandbox) -> None:
        """Each pair results in an id or an error, in the order of the pairs."""
        pairs = [(A, B), (A, A), (A, C)]
        first, second, third = await program.block_all(client, pairs)
        assert {link.child_entity_id: link.id for link in sandbox.links} == {B: first, C: third}
        assert isinstance(second, Exception)

    async def test_a_case_by_its_key(self, program: Any, client: Any) -> None:
        """Both programs read the title of a case by its key."""
        assert await program.title(client, "SHOP-1") == "Checkout hangs"

    async def test_what_was_refused_is_reported(self, program: Any, client: Any, sandbox: Sandbox) -> None:
        """A link of a case to itself is refused with a reason."""
        assert (await program.try_to_block(client, A, A)).startswith("not linked: ")
        assert sandbox.links == []

    async def test_wrong_keys(self, program: Any, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        """Invalid keys are reported as such."""
        monkeypatch.setenv("DD_API_KEY", "another")
        async with program.opened(sandbox.url) as client:
            assert await program.try_to_block(client, A, B) == "not linked: check the keys"


@pytest.mark.parametrize(
    ("fault", "made"),
    [(Fault.LOST_RESPONSE, 1), (Fault.RESET, 0), (Fault.TRUNCATED, 1), (Fault.MALFORMED, 1)],
)
class TestNoAnswer:
    async def test_theirs(self, theirs: Any, sandbox: Sandbox, fault: Fault, made: int) -> None:
        """The official client raises an error and does not retry, whether or not the link was created."""
        sandbox.fail_next(fault)
        with pytest.raises((AiosonicError, EOFError, ApiTypeError)):
            await official.block(theirs, A, B)
        assert (len(sandbox.requests), len(sandbox.links)) == (1, made)

    async def test_ours(self, ours: Any, sandbox: Sandbox, clock: Clock, fault: Fault, made: int) -> None:
        """This SDK creates the link exactly once, and sends it again only if it was not created."""
        sandbox.fail_next(fault)
        assert await in_no_time(clock, caselinks.try_to_block(ours, A, B)) == "linked"
        assert len(sandbox.links) == 1
        assert sum(request.method == "POST" for request in sandbox.requests) == 2 - made


async def test_the_official_client_leaves_results_open(theirs: Any, sandbox: Sandbox, clock: Clock) -> None:
    """With the official client, a lost connection and a 5xx leave open whether the link was created."""
    for fault, count in (
        (Fault.LOST_RESPONSE, 1),
        (Fault.RESET, 1),
        (Fault.TRUNCATED, 1),
        (Fault.HTTP_503, 6),  # one more than the client retries
    ):
        sandbox.fail_next(fault, count=count)
        said = await in_no_time(clock, official.try_to_block(theirs, A, B))
        assert said == "perhaps linked"


async def test_this_client_leaves_a_result_open_only_if_the_lookup_fails(
    ours: Any, sandbox: Sandbox, clock: Clock
) -> None:
    """With this SDK, the result is open only if the lookup fails too."""
    sandbox.fail_next(Fault.LOST_RESPONSE, operation="create")
    sandbox.fail_next(Fault.HTTP_503, operation="list", count=6)
    assert await in_no_time(clock, caselinks.try_to_block(ours, A, B)) == "perhaps linked"


async def test_a_delete_that_was_carried_out(theirs: Any, ours: Any, sandbox: Sandbox, clock: Clock) -> None:
    """A retried delete that was applied raises a 404 in the official client, and succeeds in this SDK."""
    await official.block(theirs, A, B)
    sandbox.fail_next(Fault.HTTP_504_APPLIED, operation="delete")
    with pytest.raises(NotFoundException):
        await in_no_time(clock, official.unblock(theirs, A, B))
    await caselinks.block(ours, A, B)
    sandbox.fail_next(Fault.HTTP_504_APPLIED, operation="delete")
    await in_no_time(clock, caselinks.unblock(ours, A, B))
    assert sandbox.links == []


@pytest.mark.parametrize(("name", "made"), [("official", 2), ("caselinks", 1)])
async def test_a_5xx_that_created_the_link(name: str, made: int, sandbox: Sandbox, clock: Clock) -> None:
    """After a 5xx, the official client creates a second link, and this SDK looks up the first."""
    program: Any = PROGRAMS[name]
    sandbox.fail_next(Fault.HTTP_504_APPLIED)
    async with program.opened(sandbox.url) as client:
        await in_no_time(clock, program.block(client, A, B))
    assert len(sandbox.links) == made


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_the_page_shows_each_function(program: ModuleType) -> None:
    """The page shows each function of both programs, in their order."""
    path = inspect.getsourcefile(program)
    assert path
    shown = re.findall(rf"{{literalinclude}} migrating/{Path(path).name}\n:pyobject: (\w+)", PAGE.read_text())
    assert shown == re.findall(r"^async def (\w+)", Path(path).read_text(), re.MULTILINE)
