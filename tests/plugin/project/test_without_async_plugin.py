"""The fixtures without an async plugin, in sync tests."""

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
    """The client is used in the event loop of the code under test."""
    link = asyncio.run(caselinks_client.create_link(NEW))
    assert [stored.id for stored in caselinks_sandbox.links] == [link.id]


def test_in_two_loops(caselinks_client: CaseLinksClient) -> None:
    """A client cannot be used in a second event loop."""
    asyncio.run(caselinks_client.create_link(NEW))
    with pytest.raises(SessionError, match="event loop"):
        asyncio.run(caselinks_client.create_link(NEW))


def test_not_used(caselinks_client: CaseLinksClient) -> None:
    """A client that is not used leaves nothing behind."""


def test_fails_on_demand(caselinks_client: CaseLinksClient, caselinks_sandbox: Sandbox) -> None:
    """A fault can be set before the event loop runs."""
    caselinks_sandbox.fail_next(Fault.LOST_RESPONSE)
    asyncio.run(caselinks_client.create_link(NEW))
    assert len(caselinks_sandbox.links) == 1


@pytest.mark.usefixtures("caselinks_environment")
def test_from_the_environment(caselinks_sandbox: Sandbox) -> None:
    """Code that creates its own client from the environment uses the sandbox."""

    async def main() -> None:
        async with CaseLinksClient.from_env() as links:
            await links.create_link(NEW)

    asyncio.run(main())
    assert len(caselinks_sandbox.links) == 1


def test_the_environment_as_it_was() -> None:
    """The variables are removed after a test that used them."""
    assert not {"DD_SITE", "DD_API_KEY", "DD_APP_KEY"} & set(os.environ)


class TestWithToken:
    @pytest.fixture(autouse=True)
    def token(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DD_BEARER_TOKEN", "a-real-one")

    @pytest.mark.usefixtures("token", "caselinks_environment")
    def test_no_other_credentials_are_used(self) -> None:
        """A token in the environment is hidden from the code under test."""
        assert "DD_BEARER_TOKEN" not in os.environ


@pytest.mark.usefixtures("caselinks_environment")
@pytest.mark.caselinks_sandbox(seed="demo")
def test_another_process(caselinks_sandbox: Sandbox) -> None:
    """Another process uses the sandbox through the environment and finds the cases of the marker."""
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
        """The marker of a test overrides the marker of its class."""
        assert caselinks_sandbox.links == []
        assert str(caselinks_sandbox.rate_limit) == "1 request in 3600 seconds"


class TestUnittest(unittest.IsolatedAsyncioTestCase):
    @pytest.fixture(autouse=True)
    def fixtures(self, caselinks_client: CaseLinksClient, caselinks_sandbox: Sandbox) -> None:
        self.links, self.sandbox = caselinks_client, caselinks_sandbox

    async def test_links(self) -> None:
        """The fixtures work in the event loop of unittest."""
        await self.links.create_link(NEW)
        self.assertEqual(len(self.sandbox.links), 1)  # noqa: PT009
