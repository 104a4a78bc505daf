"""Finds the entities that people name, and the titles of cases. Knows no HTTP."""

from __future__ import annotations

import asyncio
import copy
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final
from weakref import WeakValueDictionary

from datadog_caselinks.errors import CaseLinksError, NotFoundError
from datadog_caselinks.models import Case, Entity, NewCaseLink
from datadog_caselinks.references import CaseKey, LinkReference, Reference, WantedLink, parse_reference
from datadog_caselinks.sites import Site

_REMEMBERED: Final = 100_000
"""Names of cases that are kept, a key and an id for each: 26 MB. Of more, the oldest is asked for again."""


class Resolver:
    """Finds cases by their keys, and asks for each of them once, however many want it at a time.

    Made by :meth:`CaseLinksClient.resolver`, for one run: what it has found, or not found, it takes for true
    as long as it lives.
    """

    def __init__(self, get_case: Callable[[str], Awaitable[Case]], site: Site) -> None:
        self._get_case = get_case
        self._site = site
        self._found: OrderedDict[str, Case | NotFoundError] = OrderedDict()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def entity(self, reference: Reference | str) -> Entity:
        """The entity that ``reference`` names; a text is read as :func:`parse_reference` does.

        Raises :class:`InvalidLinkError` for a text that names none, and as :meth:`CaseLinksClient.get_case`.
        """
        if isinstance(reference, str):
            reference = parse_reference(reference, site=self._site)
        return (await self.case(reference)).entity if isinstance(reference, CaseKey) else reference

    async def link(self, reference: WantedLink) -> NewCaseLink:
        """The link between the entities that ``reference`` names, to be created.

        Raises as :meth:`entity` and :class:`NewCaseLink`.
        """
        if not isinstance(reference, LinkReference):
            return reference
        parent = await self.entity(reference.parent)
        return NewCaseLink(parent, reference.relationship, await self.entity(reference.child))

    async def case(self, reference: CaseKey | Entity) -> Case:
        """The case, with its key and title. Raises as :meth:`CaseLinksClient.get_case`."""
        name = reference.key if isinstance(reference, CaseKey) else reference.id
        async with self._turns.setdefault(name, asyncio.Lock()):
            if name not in self._found:
                await self._ask(name)
            found = self._found[name]
        if isinstance(found, CaseLinksError):
            raise copy.copy(found)  # each with a traceback of its own, which the one that is kept has not
        return found

    async def _ask(self, name: str) -> None:
        try:
            found = await self._get_case(name)
        except NotFoundError as error:
            self._remember(name, error.with_traceback(None))
            return
        for known_as in (name, found.entity.id, found.key.upper()):
            if known_as:
                self._remember(known_as, found)

    def _remember(self, name: str, found: Case | NotFoundError) -> None:
        self._found[name] = found
        if len(self._found) > _REMEMBERED:
            self._found.popitem(last=False)
