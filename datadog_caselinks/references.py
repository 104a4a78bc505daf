"""What people write for an entity: an id, a case key, an address from the browser. Knows no HTTP."""

from __future__ import annotations

import asyncio
import copy
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Final
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from attrs import field, frozen

from datadog_caselinks.errors import CaseLinksError, InvalidLinkError, NotFoundError
from datadog_caselinks.messages import shortened
from datadog_caselinks.models import (
    Case,
    Entity,
    EntityType,
    NewCaseLink,
    Relationship,
    is_case_key,
    is_uuid,
    require_known_entity_type,
    require_known_relationship,
)
from datadog_caselinks.sites import SITES, Site

_PREFIXES: Final = {
    "case": EntityType.CASE,
    "incident": EntityType.INCIDENT,
    "page": EntityType.PAGE,
    "conversation": EntityType.AGENT_CONVERSATION,
}
_PREFIXED: Final = re.compile(rf"({'|'.join(_PREFIXES)}):(.*)", re.IGNORECASE | re.ASCII | re.DOTALL)

FORMS: Final = "a case key such as SHOP-1, a UUID, a case's URL, or incident:, page: or conversation:UUID"
"""What an entity can be written as."""


def _upper(text: str) -> str:
    return text.upper()


@frozen
class CaseKey:
    """A case by its key, such as ``SHOP-1``. Keys are in upper case."""

    key: str = field(converter=_upper)

    def __str__(self) -> str:
        return self.key


Reference = Entity | CaseKey
"""An entity, or a case of which only the key is known."""


@frozen
class LinkReference:
    """A link to be created, at an end of which only a key is known. :func:`parse_link` makes it."""

    parent: Reference
    relationship: Relationship
    child: Reference

    def __str__(self) -> str:
        return f"{named(self.parent)} {self.relationship} {named(self.child)}"


WantedLink = NewCaseLink | LinkReference
"""A link to be created, whether or not keys must be looked up for it."""


def named(reference: Reference) -> str:
    """``reference`` as :func:`parse_reference` reads it."""
    if isinstance(reference, CaseKey):
        return reference.key
    prefix = next((prefix for prefix, type_ in _PREFIXES.items() if type_ == reference.type), reference.type)
    return reference.id if reference.type == EntityType.CASE else f"{prefix}:{reference.id}"


def name_of(entity: Entity, cases: Mapping[Entity, Case]) -> str:
    """``entity`` by its key, if ``cases`` has it; else as :func:`named` does."""
    case = cases.get(entity)
    return case.key if case and case.key else named(entity)


def parse_reference(
    text: str, *, site: Site | None = None, type: EntityType | str = EntityType.CASE
) -> Reference:
    """Read the name of an entity, in any form that people have at hand.

    ``text`` is a case key (``SHOP-1``), a UUID, the address of a case in the browser
    (``https://app.datadoghq.com/cases/SHOP-1``), or a UUID with what it is of: ``incident:``, ``page:``,
    ``conversation:`` or ``case:``. ``type`` is that of a UUID without. An address must be of ``site``, if
    that is given.

    Raises :class:`InvalidLinkError` for anything else.
    """
    given, type = text.strip(), require_known_entity_type(type)
    if prefixed := _PREFIXED.fullmatch(given):
        named_type = _PREFIXES[prefixed[1].lower()]
        if type not in (EntityType.CASE, named_type):
            raise InvalidLinkError(f"{shortened(given)} is no {type}")
        given, type = prefixed[2].strip(), named_type
    elif "/" in given:
        given = _case_of_url(given, site)
        if type != EntityType.CASE:
            raise InvalidLinkError(f"{_shown(text)} is the address of a case, and not of the type {type}")
    if is_case_key(given):
        if type != EntityType.CASE:
            raise InvalidLinkError(f"{shortened(given)} is a case key, and this must be the UUID of a {type}")
        return CaseKey(given)
    if not is_uuid(given):
        raise InvalidLinkError(f"{_shown(text)} names no entity; write {FORMS}")
    entity = Entity(given, type)
    entity.require_known()
    return entity


def parse_link(
    parent: Reference | str, relationship: str, child: Reference | str, *, site: Site | None = None
) -> WantedLink:
    """A link between what ``parent`` and ``child`` name: ready to be created, if no key is among them.

    Texts are read as :func:`parse_reference` does. ``relationship`` is taken in upper or lower case, and with
    hyphens, as in ``relates-to``.

    Raises :class:`InvalidLinkError` as :class:`NewCaseLink` does.
    """
    parent = parse_reference(parent, site=site) if isinstance(parent, str) else parent
    child = parse_reference(child, site=site) if isinstance(child, str) else child
    known = require_known_relationship(relationship.upper().replace("-", "_"))
    if isinstance(parent, Entity) and isinstance(child, Entity):
        return NewCaseLink(parent, known, child)
    if parent == child:
        raise InvalidLinkError(f"{parent} cannot be linked to itself")
    return LinkReference(parent, known, child)


def _case_of_url(address: str, site: Site | None) -> str:
    """The key or UUID in the address of a case."""
    shown = _shown(address)
    try:
        url = urlsplit(address if "://" in address else f"https://{address}")
        home = Site.parse(f"{url.scheme}://{url.netloc}")
    except ValueError:
        raise InvalidLinkError(f"{shown} is no address of Datadog; write {FORMS}") from None
    if site is not None and _host(home) != _host(site):
        raise InvalidLinkError(
            f"{shown} is on {_told(home)}, and this client asks {_told(site)}: "
            "set DD_SITE to the site of the case"
        )
    segments = [segment for segment in url.path.split("/") if segment]
    if "cases" in segments:
        for segment in segments[segments.index("cases") + 1 :]:
            if is_case_key(segment) or is_uuid(segment):
                return segment
    if "incidents" in segments:
        raise InvalidLinkError(
            f"{shown} holds the number of an incident, and what is needed is its UUID: incident:UUID"
        )
    raise InvalidLinkError(f"{shown} is no address of a case; write {FORMS}")


def _shown(given: str) -> str:
    """``given`` as a message quotes it: what stands before an @ may be a password."""
    return "what was given" if "@" in given else shortened(given)


def _host(site: Site) -> str:
    return urlsplit(site.api_url).netloc


def _told(site: Site) -> str:
    domain = next((domain for domain, known in SITES.items() if known == site), None)
    return f"{site.name} ({domain})" if domain else _host(site)


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
