"""With no async plugin: sync tests of code that is async inside, or not at all."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import unittest

import pytest

from datadog_caselinks import CaseLinksClient, SessionError, case
from datadog_caselinks.sandbox import Fault, Sandbox

NEW = case("bf0cbac6-4c16-4cfb-b6bf-ca5e0ec37a4f").blocks(case("4417921d-0866-4a38-822c-6f2a0f65f77d"))


def test_links(caselinks_client: CaseLinksClient, caselinks_sandbox: Sandbox) -> None:
    """The client is used in the loop that the code under test runs."""
    link = asyncio.run(caselinks_client.create_link(NEW))
    assert [stored.id for stored in caselinks_sandbox.links] == [link.id]


def test_in_two_loops(caselinks_client: CaseLinksClient) -> None:
    """It belongs to the first, as a client does elsewhere."""
    asyncio.run(caselinks_client.create_link(NEW))
    with pytest.raises(SessionError, match="event loop"):
        asyncio.run(caselinks_client.create_link(NEW))


def test_not_used(caselinks_client: CaseLinksClient) -> None:
    """A client that did nothing leaves nothing."""


def test_fails_on_demand(caselinks_client: CaseLinksClient, caselinks_sandbox: Sandbox) -> None:
    """A fault is set before the loop runs."""
    caselinks_sandbox.fail_next(Fault.LOST_RESPONSE)
    asyncio.run(caselinks_client.create_link(NEW))
    assert len(caselinks_sandbox.links) == 1


@pytest.mark.usefixtures("caselinks_environment")
def test_from_the_environment(caselinks_sandbox: Sandbox) -> None:
    """Code that makes its own client finds the sandbox."""

    async def main() -> None:
        async with CaseLinksClient.from_env() as links:
            await links.create_link(NEW)

    asyncio.run(main())
    assert len(caselinks_sandbox.links) == 1


def test_the_environment_as_it_was() -> None:
    """The variables are gone after a test that had them."""
    assert not {"DD_SITE", "DD_API_KEY", "DD_APP_KEY"} & set(os.environ)


class TestWithToken:
    @pytest.fixture(autouse=True)
    def token(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DD_BEARER_TOKEN", "a-real-one")

    @pytest.mark.usefixtures("token", "caselinks_environment")
    def test_no_other_credentials_are_used(self) -> None:
        """A token in the environment neither reaches the sandbox nor makes two of one."""
        assert "DD_BEARER_TOKEN" not in os.environ


@pytest.mark.usefixtures("caselinks_environment")
@pytest.mark.caselinks_sandbox(seed="demo")
def test_another_process(caselinks_sandbox: Sandbox) -> None:
    """A program in a process of its own does so too, and finds what the marker filled the sandbox with."""
    program = (
        "import asyncio; from datadog_caselinks import CaseLinksClient\n"
        "async def main():\n"
        "    async with CaseLinksClient.from_env() as links: print(await links.get_case('SHOP-1'))\n"
        "asyncio.run(main())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "SHOP-1 Checkout hangs at the payment step\n"
    assert len(caselinks_sandbox.requests) == 1


@pytest.mark.caselinks_sandbox(seed="demo")
class TestMarkers:
    @pytest.mark.caselinks_sandbox(rate_limit="1/1h")
    def test_the_closest_counts(self, caselinks_sandbox: Sandbox) -> None:
        """That of the test before that of its class."""
        assert caselinks_sandbox.links == []
        assert str(caselinks_sandbox.rate_limit) == "1 request in 3600 seconds"


class TestUnittest(unittest.IsolatedAsyncioTestCase):
    @pytest.fixture(autouse=True)
    def fixtures(self, caselinks_client: CaseLinksClient, caselinks_sandbox: Sandbox) -> None:
        self.links, self.sandbox = caselinks_client, caselinks_sandbox

    async def test_links(self) -> None:
        """The loop is unittest's."""
        await self.links.create_link(NEW)
        self.assertEqual(len(self.sandbox.links), 1)  # noqa: PT009
