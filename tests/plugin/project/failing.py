"""Tests that fail, and one that passes, for their reports; collected only when named."""

from __future__ import annotations

import asyncio

import pytest

from datadog_caselinks import CaseLinksClient, case
from datadog_caselinks.sandbox import Fault, Sandbox

NEW = case("bf0cbac6-4c16-4cfb-b6bf-ca5e0ec37a4f").blocks(case("4417921d-0866-4a38-822c-6f2a0f65f77d"))


def test_two_links(caselinks_client: CaseLinksClient, caselinks_sandbox: Sandbox) -> None:
    caselinks_sandbox.fail_next(Fault.LOST_RESPONSE)
    asyncio.run(caselinks_client.create_link(NEW))
    assert len(caselinks_sandbox.links) == 2


def test_many_requests(caselinks_client: CaseLinksClient, caselinks_sandbox: Sandbox) -> None:
    async def look_often() -> None:
        for _ in range(21):
            await caselinks_client.list_links(NEW.parent)

    asyncio.run(look_often())
    raise AssertionError


def test_with_a_sandbox_that_is_gone(caselinks_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caselinks_sandbox, "_running", None)
    raise AssertionError


def test_without_sandbox() -> None:
    raise AssertionError


@pytest.mark.caselinks_sandbox("demo")
def test_with_a_wrong_marker(caselinks_sandbox: Sandbox) -> None:
    pass


def test_that_passes(caselinks_client: CaseLinksClient) -> None:
    asyncio.run(caselinks_client.create_link(NEW))
