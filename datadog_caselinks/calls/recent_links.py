"""The links that a client has created or deleted, which a list may not show correctly yet."""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict, deque
from typing import Final, Protocol, TypeVar
from weakref import WeakSet

from datadog_caselinks.values.models import CaseLink, Identity, NewCaseLink, identity

MAX_LIST_AGE: Final = 300.0
"""Seconds for which a run uses a list. A link that another process creates in that time is not seen."""

_MAX_RECENT: Final = 10_000
"""The maximum number of links of each kind that a client remembers. It creates fewer while a list lags."""

K = TypeVar("K")
V = TypeVar("V")


class LinkLists(Protocol):
    """Lists of links that are used for a while after they were requested."""

    def add(self, link: CaseLink, /) -> None:
        """Add a link that was created or found after the lists were requested."""


class RecentLinks:
    """The recent creates and deletes of a client.

    Args:
        seconds: The maximum time, in seconds, that a list may lag behind.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._kept = seconds + MAX_LIST_AGE
        self._added: deque[tuple[CaseLink, float]] = deque(maxlen=_MAX_RECENT)
        self._links: OrderedDict[Identity, tuple[CaseLink, float]] = OrderedDict()
        self._ambiguous: OrderedDict[Identity, float] = OrderedDict()
        self._deleted: OrderedDict[str, None] = OrderedDict()
        self._lists: WeakSet[LinkLists] = WeakSet()
        self._now = 0.0

    def now(self) -> float:
        """Return the time of the event loop, or a little more: never the same time twice.

        The loop's own clock may not move between two calls. That of ``uvloop`` counts milliseconds.
        """
        self._now = max(asyncio.get_running_loop().time(), math.nextafter(self._now, math.inf))
        return self._now

    def add(self, link: CaseLink, *, created: bool) -> None:
        """Remember a link that was created, or, only for calls that already wait, one that a lookup found."""
        now = self.now()
        while self._added and self._added[0][1] < now - self._kept:
            self._added.popleft()
        until = now + self._seconds if created else now
        self._added.append((link, until))  # indexed later: computing the identity would slow each create
        if self._ambiguous:
            self._ambiguous.pop(identity(link), None)
        if self._lists:  # a loop over an empty WeakSet takes ten times as long
            for lists in self._lists:
                lists.add(link)

    def add_to(self, lists: LinkLists) -> None:
        """Add each link that is created or found from now on to ``lists`` too, until they are discarded."""
        self._lists.add(lists)

    def find(self, key: Identity, since: float) -> CaseLink | None:
        """Return the link, or ``None`` if every list that was requested at the time ``since`` shows it."""
        self._index()
        while self._links and next(iter(self._links.values()))[1] < since - self._kept:
            self._links.popitem(last=False)
        if (recent := self._links.get(key)) is None:
            return None
        link, until = recent
        return link if until >= since and not self.has_deleted(link.id) else None

    def _index(self) -> None:
        while self._added:
            link, until = self._added.popleft()
            _put(self._links, identity(link), (link, until))

    def add_ambiguous(self, new: NewCaseLink, lookup_at: float) -> None:
        """Remember a link that may exist, and that a list can show from ``lookup_at`` on.

        A wait of more than ``seconds`` is shortened: the server requested it of this call, not of later ones.
        """
        _put(self._ambiguous, identity(new), min(lookup_at, self._listed_at()))

    def lookup_at(self, key: Identity) -> float | None:
        """Return the time from which a lookup can show whether the link exists.

        ``None`` if no earlier call may have created or deleted the link with an unknown result.
        """
        return self._ambiguous.get(key)

    def delete_failed(self, link_id: str) -> None:
        """Remember the link with this id as one that may exist: its delete may still be applied."""
        self._index()
        for key, (link, _) in list(self._links.items()):
            if link.id.lower() == link_id.lower():
                del self._links[key]
                _put(self._ambiguous, key, self._listed_at())

    def add_deleted(self, link_id: str) -> None:
        """Remember that the link with this id is deleted."""
        _put(self._deleted, link_id.lower(), None)

    def has_deleted(self, link_id: str) -> bool:
        """Return whether the client deleted the link with this id. A list may still show it."""
        return link_id.lower() in self._deleted

    def _listed_at(self) -> float:
        """Return the time from which every list shows what was created or deleted before now."""
        return asyncio.get_running_loop().time() + self._seconds


def _put(items: OrderedDict[K, V], key: K, value: V) -> None:
    items[key] = value
    items.move_to_end(key)
    if len(items) > _MAX_RECENT:
        items.popitem(last=False)
