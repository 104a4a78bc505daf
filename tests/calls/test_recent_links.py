"""The rules of recent links: a client remembers a limited number of them."""

from __future__ import annotations

import pytest

from datadog_caselinks.calls import recent_links
from datadog_caselinks.calls.recent_links import RecentLinks


def test_the_oldest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the maximum number of remembered links, the link that was deleted first is forgotten."""
    monkeypatch.setattr(recent_links, "_MAX_RECENT", 2)
    recent = RecentLinks(5)
    for link_id in ("a", "b", "a", "c"):  # "a" was deleted again after "b"
        recent.add_deleted(link_id)
    assert [link_id for link_id in ("a", "b", "c") if recent.has_deleted(link_id)] == ["a", "c"]
