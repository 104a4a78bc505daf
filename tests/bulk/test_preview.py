"""Previews show what a run would do with each link, and create none."""

from __future__ import annotations

from pathlib import Path

import pytest

from datadog_caselinks import (
    AlreadyLinked,
    CaseLinksClient,
    Failed,
    JournalError,
    NewCaseLink,
    NotFoundError,
    ParameterError,
    Preview,
    Relationship,
    Repeated,
    WantedLink,
    WouldCreate,
    parse_link,
)
from datadog_caselinks.bulk.journal import Journal
from datadog_caselinks.sandbox import Sandbox
from tests.support.ids import case, some_id

PARENT = case(some_id(1))
A, B, C = (PARENT.relates_to(case(some_id(number))) for number in (2, 3, 4))


async def previewed(
    client: CaseLinksClient, *wanted: WantedLink, journal: Path | None = None
) -> list[Preview]:
    """Return the outcomes of a preview in the order of ``wanted``."""
    outcomes = [each async for each in client.preview_links(wanted, journal=journal, concurrency=1)]
    return sorted(outcomes, key=lambda outcome: outcome.index)


async def test_each_link_has_the_outcome_of_a_run(client: CaseLinksClient, sandbox: Sandbox) -> None:
    """A preview reports existing links, repeated links in either direction, and unknown cases."""
    shop = sandbox.add_case("SHOP-1", "One")
    existing = await client.create_link(A)
    turned = NewCaseLink(B.child, Relationship.RELATES_TO, B.parent)
    by_key, unknown = parse_link("SHOP-1", "blocks", some_id(5)), parse_link("SHOP-99", "blocks", some_id(5))
    found, new, repeated, resolved, failed = await previewed(client, A, B, turned, by_key, unknown)
    assert found == AlreadyLinked(A, existing, 0)
    assert new == WouldCreate(B, B, 1)
    assert repeated == Repeated(turned, turned, 2)
    assert isinstance(resolved, WouldCreate)
    assert resolved.link.parent == case(shop.id)
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, NotFoundError)
    assert len(sandbox.links) == 1


async def test_links_in_a_journal_need_no_lookup(
    client: CaseLinksClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Links in the journal are reported without a lookup, and the journal stays unchanged."""
    journal = tmp_path / "run.journal"
    created = [each async for each in client.create_links([A], journal=journal)]
    before, content = len(sandbox.requests), journal.read_bytes()
    (outcome,) = await previewed(client, A, journal=journal)
    assert isinstance(outcome, AlreadyLinked)
    assert outcome.link == created[0].link  # type: ignore[union-attr]
    assert (len(sandbox.requests), journal.read_bytes()) == (before, content)


async def test_a_journal_is_not_created(client: CaseLinksClient, tmp_path: Path) -> None:
    """A missing or empty journal counts as empty and is not created."""
    (tmp_path / "empty").touch()
    for name in ("missing", "empty"):
        (outcome,) = await previewed(client, A, journal=tmp_path / name)
        assert isinstance(outcome, WouldCreate)
    assert [each.name for each in sorted(tmp_path.glob("*"))] == ["empty"]  # noqa: ASYNC240


async def test_a_journal_that_a_run_could_not_use_is_refused(client: CaseLinksClient, tmp_path: Path) -> None:
    """A journal that a run could not use is refused with the same error."""
    async with Journal(tmp_path / "other", site="https://api.datadoghq.eu"):
        pass
    with pytest.raises(JournalError, match=r"belongs to https://api\.datadoghq\.eu"):
        await previewed(client, A, journal=tmp_path / "other")


async def test_wrong_arguments_are_refused(client: CaseLinksClient) -> None:
    """Invalid arguments are refused for the same reasons as by ``create_links``."""
    for arguments in ({"concurrency": 0}, {"journal": 3}):
        with pytest.raises(ParameterError):
            await anext(client.preview_links([A], **arguments))  # type: ignore[arg-type]
    with pytest.raises(ParameterError):
        await anext(client.preview_links(3))  # type: ignore[arg-type]
