"""Parse references to entities (UUIDs, keys, numbers and URLs), and look up what they name."""

from __future__ import annotations

import asyncio
import copy
import difflib
import functools
import logging
import math
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import takewhile
from typing import Final
from urllib.parse import parse_qsl, quote, urlsplit

from datadog_caselinks.errors import (
    BadRequestError,
    CaseLinksError,
    InvalidLinkError,
    MalformedResponseError,
    NotFoundError,
    PermissionDeniedError,
    ServerError,
)
from datadog_caselinks.isolation import log
from datadog_caselinks.messages import quoted
from datadog_caselinks.models import (
    PREFIXES,
    Case,
    CaseKey,
    CaseLink,
    Entity,
    EntityType,
    Incident,
    IncidentNumber,
    LinkReference,
    NewCaseLink,
    Reference,
    Relationship,
    WantedLink,
    dash_hint,
    is_case_key,
    is_incident_number,
    is_uuid,
    link_between,
    named,
    require_known_entity_type,
    require_known_relationship,
)
from datadog_caselinks.parameters import require
from datadog_caselinks.sites import Site, quoted_url

_logger = logging.getLogger(__name__)

_PAGES: Final = ("cases", "work")
"""The pages of the web interface that show cases, by their first segment. The second is the newer one."""

_SEARCHES: Final = frozenset({"filter", "q", "query", "search"})
"""Parameters of these pages that hold what the user searched for, not the case that is shown."""

_PREFIXED: Final = re.compile(rf"({'|'.join(PREFIXES)}):(.*)", re.IGNORECASE | re.ASCII | re.DOTALL)

FORMS: Final = (
    "a case key such as SHOP-1, a UUID, the URL of a case or incident, incident:123, page:UUID or "
    "conversation:UUID"
)
"""The forms that :func:`parse_reference` accepts, as messages list them."""

_ORIGINS: Final = {
    EntityType.PAGE: (
        "write page:UUID. Datadog has no lookup of a page by its number or address: its UUID is in the "
        "response to POST /api/v2/on-call/pages, which created it, and in the lists of its links"
    ),
    EntityType.AGENT_CONVERSATION: (
        "write conversation:UUID. Datadog has no lookup of agent conversations: the UUID of one is in the "
        "lists of its links"
    ),
}
"""Where the UUIDs come from of entities that nothing else names."""


_FORWARD: Final = {
    Relationship.RELATES_TO: ("relates to", "related to", "relates", "related"),
    Relationship.CAUSES: ("causes", "cause of"),
    Relationship.BLOCKS: ("blocks", "blocking", "blocker of"),
    Relationship.DUPLICATES: ("duplicates", "duplicate of"),
    Relationship.PARENT_OF: ("parent of", "has child"),
    Relationship.SUCCESSOR_OF: ("successor of", "succeeds"),
    Relationship.ESCALATES_TO: ("escalates to", "escalated to"),
}
_BACKWARD: Final = {
    Relationship.CAUSES: ("caused by",),
    Relationship.BLOCKS: ("blocked by",),
    Relationship.DUPLICATES: ("duplicated by",),
    Relationship.PARENT_OF: ("child of", "part of", "has parent"),
    Relationship.SUCCESSOR_OF: ("predecessor of", "precedes", "succeeded by"),
    Relationship.ESCALATES_TO: ("escalated from",),
}
_WORDS: Final = {
    word: (relationship, is_backward)
    for is_backward, known in ((False, _FORWARD), (True, _BACKWARD))
    for relationship, words in known.items()
    for word in words
}
"""The relationship that each word names, and whether it leads from the child to the parent."""

_FILLERS: Final = re.compile(r"(is|was|are|were) (an? |the )?|(an?|the) ")
_MAX_WORD: Final = 40
"""The maximum length in characters of an unknown relationship that is compared with the known ones."""


Details = Case | Incident
"""The key, title and status of an entity."""


def name_of(entity: Entity, known: Mapping[Entity, Details]) -> str:
    """Return a text that :func:`parse_reference` accepts: with the key if ``known`` has it, else the UUID."""
    found = known.get(entity)
    if isinstance(found, Incident) and (found.key or found.number):
        return f"incident:{found.key or found.number}"
    return found.key if isinstance(found, Case) and found.key else named(entity)


def status_of(found: Details) -> str:
    """Return the status in the organisation's own words, if there are any."""
    return found.status_name or found.status if isinstance(found, Case) else found.status


def address_of(found: Details, site: Site) -> str | None:
    """Return the URL of a case or incident in the web interface of ``site``, if it has one."""
    kind, name = ("incidents", found.number) if isinstance(found, Incident) else ("cases", found.key)
    return f"{site.web_url}/{kind}/{quote(name, safe='')}" if site.web_url and name else None


def parse_reference(
    text: str, *, site: Site | None = None, type: EntityType | str = EntityType.CASE
) -> Reference:
    """Parse a reference to an entity. No request is sent.

    Args:
        text: A case key (``SHOP-1``), a UUID, the URL of a case
            (``https://app.datadoghq.com/cases/SHOP-1`` or ``…/work?key=SHOP-1``) or incident
            (``https://app.datadoghq.com/incidents/123``), the number of an incident (``incident:123`` or
            ``incident:IR-123``), or a UUID after the prefix ``incident:``, ``page:``, ``conversation:`` or
            ``case:``.
        site: The site that a URL must belong to. By default, any site.
        type: The type of a UUID or number without a prefix.

    Returns:
        A :class:`CaseKey` for a key, an :class:`IncidentNumber` for a number, else an :class:`Entity`.

    Raises:
        InvalidLinkError: ``text`` has another form, contradicts ``type``, or is a URL of another site.
        ParameterError: ``site`` is not a :class:`Site`.
    """
    if not isinstance(text, str):
        raise InvalidLinkError(f"{quoted(text)} does not name an entity; write {FORMS}")
    _require_site(site)
    given, type = text.strip(), require_known_entity_type(type)
    if prefixed := _PREFIXED.fullmatch(given):
        named_type = PREFIXES[prefixed[1].lower()]
        if type not in (EntityType.CASE, named_type):
            raise InvalidLinkError(f"{quoted(given)} does not have the type {type}")
        given, type = prefixed[2].strip(), named_type
    elif "/" in given:
        given, named_type = _entity_of_url(given, site)
        if type not in (EntityType.CASE, named_type):
            kind = "an incident" if named_type == EntityType.INCIDENT else "a case"
            raise InvalidLinkError(f"{quoted_url(text)} is the URL of {kind}, but the type is {type}")
        type = named_type
    if type == EntityType.INCIDENT and is_incident_number(given.removeprefix("#")):
        return IncidentNumber(given.removeprefix("#"))
    if is_case_key(given):
        if type != EntityType.CASE:
            raise InvalidLinkError(f"{quoted(given)} is a case key, but the type is {type}: use its UUID")
        return CaseKey(given)
    if not is_uuid(given):
        hint = dash_hint(given) or f"; {_ORIGINS.get(type, f'write {FORMS}')}"
        raise InvalidLinkError(f"{quoted_url(text)} does not name an entity{hint}")
    entity = Entity(given, type)
    entity.require_known()
    return entity


def parse_link(
    parent: Reference | str, relationship: str, child: Reference | str, *, site: Site | None = None
) -> WantedLink:
    """Parse a link to create. No request is sent.

    Args:
        parent: The parent, or a text that :func:`parse_reference` accepts.
        relationship: A relationship in words, such as ``blocks``, ``relates to``, ``relates-to`` or
            ``RELATES_TO``. Words for the other direction swap the ends: with ``blocked by``, ``caused by``,
            ``duplicated by``, ``child of``, ``part of``, ``predecessor of`` or ``escalated from``, the first
            end becomes the child.
        child: The child, or a text that :func:`parse_reference` accepts.
        site: The site that URLs must belong to. By default, any site.

    Returns:
        A :class:`LinkReference` if an end must be looked up, else a :class:`NewCaseLink`.

    Raises:
        InvalidLinkError: A text does not name an entity, the relationship is unknown, or
            :class:`NewCaseLink` refuses the link.
        ParameterError: ``site`` is not a :class:`Site`.
    """
    _require_site(site)
    parent, child = _parsed(parent, site), _parsed(child, site)
    if not isinstance(relationship, str):
        require_known_relationship(relationship)
    known, is_swapped = parse_relationship(relationship)
    if is_swapped:
        parent, child = child, parent
    return link_between(parent, known, child)


def _parsed(reference: Reference | str, site: Site | None) -> Reference:
    return reference if isinstance(reference, Reference) else parse_reference(reference, site=site)


def _require_site(site: Site | None) -> None:
    if site is not None:
        require("site", site, Site, "a Site, such as Site.EU1")


def in_words(name: str) -> str:
    """Return ``name`` in lower case, with single spaces for hyphens, underscores and other blanks."""
    return " ".join(re.sub(r"[-_]", " ", name).lower().split())


def relationship_in_words(relationship: str, *, from_child: bool = False) -> str:
    """Return the words for ``relationship``, such as "blocks", or "blocked by" as seen from the child.

    :func:`parse_link` accepts them. A relationship that this version does not know has an arrow instead.
    """
    words = {**_FORWARD, **_BACKWARD} if from_child else _FORWARD
    known = {str(each): first for each, (first, *_) in words.items()}
    return known.get(relationship) or f"{'← ' * from_child}{in_words(relationship)}"


def link_in_words(link: WantedLink | CaseLink) -> str:
    """Return ``link`` for people, with its ends as written, such as ``SHOP-1 parent of SHOP-2``."""
    return f"{named(link.parent)} {relationship_in_words(link.relationship)} {named(link.child)}"


@functools.lru_cache(maxsize=64)  # the lines of a file repeat a few relationships
def parse_relationship(given: str) -> tuple[Relationship, bool]:
    """Return the relationship that these words name, and whether they name it from the child.

    Raises:
        InvalidLinkError: The relationship is unknown.
    """
    words = in_words(given)
    is_backward = words.startswith("←")  # the sign of lists and trees for a link seen from its child
    words = words.lstrip("←→↔ ")
    for each in (words, _FILLERS.sub("", words, count=1)):
        if each in _WORDS:
            relationship, is_swapped = _WORDS[each]
            return relationship, is_swapped != is_backward
    near = " or ".join(_near_misses(words))
    hint = f"did you mean {near}? Use" if near else "use"
    known = ", ".join(map(relationship_in_words, Relationship))
    raise InvalidLinkError(f"unknown relationship {quoted(given)}; {hint} one of {known}")


def _near_misses(words: str) -> list[str]:
    """Return at most two known words that are close to ``words``, and differ in their meaning."""
    if len(words) > _MAX_WORD:
        return []
    near: dict[tuple[Relationship, bool], str] = {}
    for word in difflib.get_close_matches(words, _WORDS, n=6, cutoff=0.65):
        near.setdefault(_WORDS[word], word)
    return list(near.values())[:2]


def _entity_of_url(address: str, site: Site | None) -> tuple[str, EntityType]:
    """Return the key, number or UUID in the URL of a case or incident, and its type."""
    shown = quoted_url(address)
    try:
        url = urlsplit(address if "://" in address else f"https://{address}")
        home = Site.parse(f"{url.scheme}://{url.netloc}")
    except ValueError:
        raise InvalidLinkError(f"{shown} is not a Datadog URL; write {FORMS}") from None
    if site is not None and _host(home) != _host(site):
        raise InvalidLinkError(
            f"{shown} is on {_described(home)}, but this client uses {_described(site)}: "
            "set DD_SITE to the site of the case"
        )
    segments = [segment for segment in url.path.split("/") if segment]
    if found := _case_in(segments, url.query, shown):
        return found, EntityType.CASE
    if "incidents" in segments:
        for segment in segments[segments.index("incidents") + 1 :]:
            if is_incident_number(segment) or is_uuid(segment):
                return segment, EntityType.INCIDENT
    hint = "".join(map(dash_hint, segments)) or f"; write {FORMS}"
    raise InvalidLinkError(f"{shown} is not the URL of a case or incident{hint}")


def _case_in(segments: Sequence[str], query: str, shown: str) -> str | None:
    """Return the key or UUID that the path names behind ``/cases`` or ``/work``, or the key in the query.

    In the path a key goes before a UUID, which may be that of a view or a project.
    """
    start = next((number for number, each in enumerate(segments, start=1) if each in _PAGES), None)
    if start is None:
        return None
    behind = list(takewhile(lambda each: each != "incidents", segments[start:]))
    for is_name in (is_case_key, is_uuid):
        if found := next(filter(is_name, behind), None):
            return found
    if "incidents" in segments:
        return None
    values = [value for name, value in parse_qsl(query) if name.lower() not in _SEARCHES]
    keys = list(dict.fromkeys(value.upper() for value in values if is_case_key(value)))
    if len(keys) > 1:
        raise InvalidLinkError(f"{shown} names several cases: write one of {quoted(', '.join(keys))}")
    return next(iter(keys), None)


def _host(site: Site) -> str:
    return urlsplit(site.api_url).netloc


def _described(site: Site) -> str:
    return f"{site.name} ({site.domain})" if site.domain else _host(site)


_UNSTABLE: Final = (BadRequestError, MalformedResponseError, ServerError)
"""Failures of requests about incidents, an unstable part of the API, that must not hide the links."""

_LookUp = Callable[[str], Awaitable[Details | NotFoundError]]

_MAX_RESULTS: Final = 100_000
"""The maximum number of cached results. The oldest is dropped first, and requested again.

Measured on Python 3.11: 40 MB for cases under their keys and ids, 45 MB for keys that do not exist.
"""


class Resolver:
    """A lookup of cases and incidents, with a cache. :meth:`CaseLinksClient.resolver` returns one.

    Concurrent lookups of one entity share a single request. What was found, and what does not exist, stays in
    the cache until the resolver is discarded, so use one for each run. A :class:`NotFoundError` from the
    cache has the message and the status of the first one, and not its headers and body.
    """

    def __init__(
        self,
        get_case: Callable[[str], Awaitable[Case]],
        get_incident: Callable[[str], Awaitable[Incident]],
        site: Site,
        *,
        found_for: float = math.inf,
        missing_for: float = math.inf,
    ) -> None:
        self._get_case = get_case
        self._get_incident = get_incident
        self._site = site
        self._found_for = found_for
        self._missing_for = missing_for
        # Of what does not exist, only the message: an error with headers and body takes six times as much.
        self._results: OrderedDict[str, tuple[Details | str, float]] = OrderedDict()
        self._in_flight: dict[str, asyncio.Future[Details | CaseLinksError]] = {}
        self._has_warned = False

    async def entity(self, reference: Reference | str) -> Entity:
        """Return the entity that ``reference`` names, after a lookup if it is a case key or a number.

        Args:
            reference: A reference, or a text that :func:`parse_reference` accepts.

        Raises:
            InvalidLinkError: The text does not name an entity, or is a URL of another site.
            MalformedResponseError: What was found has an id that is not a UUID.
            CaseLinksError: The lookup failed, as described for :meth:`CaseLinksClient.get_case` and
                :meth:`CaseLinksClient.get_incident`.
        """
        reference = _parsed(reference, self._site)
        if isinstance(reference, Entity):
            return reference
        found: Details
        if isinstance(reference, CaseKey):
            found, name = await self.case(reference), f"get case {reference}"
        else:
            found, name = await self.incident(reference), f"find incident {reference.number}"
        if not is_uuid(found.id):
            del found  # it may echo the keys, and tracebacks show local variables
            raise MalformedResponseError(f"cannot {name}: its id is not a UUID", body="")
        return found.entity

    async def link(self, reference: WantedLink) -> NewCaseLink:
        """Return ``reference`` as a link between entities, after lookups of its keys and numbers.

        Raises:
            InvalidLinkError: :class:`NewCaseLink` refuses the link.
            CaseLinksError: A lookup failed, as described for :meth:`CaseLinksClient.get_case` and
                :meth:`CaseLinksClient.get_incident`.
        """
        if isinstance(reference, NewCaseLink):
            return reference
        if not isinstance(reference, LinkReference):
            raise InvalidLinkError(
                "a link to create must be a NewCaseLink such as case(a).blocks(case(b)), or the result of "
                f"parse_link(…), not {quoted(reference)}"
            )
        parent = await self.entity(reference.parent)
        return NewCaseLink(parent, reference.relationship, await self.entity(reference.child))

    async def case(self, reference: Reference) -> Case:
        """Return the case with its key and title.

        Raises:
            InvalidLinkError: ``reference`` is not a reference to a case.
            CaseLinksError: The lookup failed, as described for :meth:`CaseLinksClient.get_case`.
        """
        match reference:
            case CaseKey(key=name) | Entity(id=name, type=EntityType.CASE):
                pass
            case _:
                raise InvalidLinkError(f"{quoted(reference)} is not a reference to a case")
        found = await self._find_or_raise(name, self._look_up_case)
        assert isinstance(found, Case)
        return found

    async def incident(self, reference: Reference) -> Incident:
        """Return the incident with its number and title.

        Raises:
            InvalidLinkError: ``reference`` is not a reference to an incident.
            CaseLinksError: The lookup failed, as described for :meth:`CaseLinksClient.get_incident`.
        """
        match reference:
            case IncidentNumber(number=name) | Entity(id=name, type=EntityType.INCIDENT):
                pass
            case _:
                raise InvalidLinkError(f"{quoted(reference)} is not a reference to an incident")
        found = await self._find_or_raise(f"incident:{name}", self._look_up_incident)
        assert isinstance(found, Incident)
        return found

    async def details(self, entity: Entity) -> Details | None:
        """Return the key, title and status of ``entity``, or ``None`` if they are not known.

        Pages and agent conversations have none, and these credentials may be unable to access others. The
        first failed request about an incident is logged.

        Raises:
            CaseLinksError: The lookup failed for another reason.
        """
        try:
            if entity.type == EntityType.CASE:
                return await self.case(entity)
            if entity.type == EntityType.INCIDENT:
                return await self.incident(entity)
        except (NotFoundError, InvalidLinkError):
            return None
        except (PermissionDeniedError, *_UNSTABLE) as error:
            if entity.type == EntityType.INCIDENT:
                self._warn(error)
            elif isinstance(error, _UNSTABLE):
                raise
        return None

    def _warn(self, error: CaseLinksError) -> None:
        if not self._has_warned:
            self._has_warned = True
            log(_logger, logging.WARNING, "an incident is shown without its number and title: %s", error)

    async def _find_or_raise(self, name: str, look_up: _LookUp) -> Details:
        result = await self._find(name, look_up)
        if isinstance(result, CaseLinksError):
            raise copy.copy(result)  # raising the cached error itself would extend its traceback each time
        return result

    async def _find(self, name: str, look_up: _LookUp) -> Details | CaseLinksError:
        """Return what the cache has, or a lookup finds. If a lookup is in flight, wait for its result.

        If that lookup fails, so do the calls that wait for it, and the next call looks the entity up again.
        If it is cancelled, one of those that wait does so.
        """
        while in_flight := self._in_flight.get(name):
            await asyncio.wait([in_flight])
            if not in_flight.cancelled():
                return in_flight.result()
        now = asyncio.get_running_loop().time()
        cached, expires_at = self._results.get(name, (None, now))
        if cached and now < expires_at:
            return NotFoundError(cached, status=404) if isinstance(cached, str) else cached
        in_flight = self._in_flight[name] = asyncio.get_running_loop().create_future()
        try:
            result = await look_up(name)
            in_flight.set_result(result)
            return result
        except CaseLinksError as error:
            in_flight.set_result(error)
            raise
        finally:
            del self._in_flight[name]
            in_flight.cancel()  # unless it has a result

    async def _look_up_case(self, name: str) -> Details | NotFoundError:
        try:
            found = await self._get_case(name)
        except NotFoundError as error:
            if name.startswith("IR-"):  # as the numbers of incidents do, unless a project has this key
                error.args = (f"{error}. If {name} is an incident, write incident:{name}",)
            return self._cache_missing(name, error)
        if is_uuid(found.id):
            self._cache(found, self._found_for, name, found.entity.id, found.key.upper())
        return found

    async def _look_up_incident(self, name: str) -> Details | NotFoundError:
        try:
            found = await self._get_incident(name.removeprefix("incident:"))
        except NotFoundError as error:
            return self._cache_missing(name, error)
        if is_uuid(found.id):
            others = filter(None, (found.entity.id, found.key.upper(), found.number))
            self._cache(found, self._found_for, name, *(f"incident:{other}" for other in others))
        return found

    def _cache_missing(self, name: str, error: NotFoundError) -> NotFoundError:
        self._cache(str(error), self._missing_for, name)
        return error.with_traceback(None)

    def _cache(self, result: Details | str, seconds: float, *names: str) -> None:
        if not seconds:
            return
        expires_at = asyncio.get_running_loop().time() + seconds
        for name in filter(None, names):
            self._results[name] = result, expires_at
            self._results.move_to_end(name)
            if len(self._results) > _MAX_RESULTS:
                self._results.popitem(last=False)
