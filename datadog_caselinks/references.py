"""Parse references to entities (UUIDs, case keys and URLs), and resolve case keys to entities."""

from __future__ import annotations

import asyncio
import copy
import difflib
import functools
import math
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import takewhile
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from datadog_caselinks.errors import CaseLinksError, InvalidLinkError, MalformedResponseError, NotFoundError
from datadog_caselinks.messages import quoted
from datadog_caselinks.models import (
    PREFIXES,
    Case,
    CaseKey,
    Entity,
    EntityType,
    LinkReference,
    NewCaseLink,
    Reference,
    Relationship,
    WantedLink,
    dash_hint,
    is_case_key,
    is_uuid,
    link_between,
    named,
    require_known_entity_type,
    require_known_relationship,
)
from datadog_caselinks.parameters import require
from datadog_caselinks.sites import Site, quoted_url

_PAGES: Final = ("cases", "work")
"""The pages of the web interface that show cases, by their first segment. The second is the newer one."""

_SEARCHES: Final = frozenset({"filter", "q", "query", "search"})
"""Parameters of these pages that hold what the user searched for, not the case that is shown."""

_PREFIXED: Final = re.compile(rf"({'|'.join(PREFIXES)}):(.*)", re.IGNORECASE | re.ASCII | re.DOTALL)

FORMS: Final = "a case key such as SHOP-1, a UUID, a case's URL, or incident:, page: or conversation:UUID"
"""The forms that :func:`parse_reference` accepts, as messages list them."""


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
    Relationship.PARENT_OF: ("child of", "has parent"),
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
"""The length in characters up to which an unknown relationship is compared with the known ones."""


def name_of(entity: Entity, cases: Mapping[Entity, Case]) -> str:
    """Return the key of ``entity`` if ``cases`` contains it, else the result of :func:`named`."""
    case = cases.get(entity)
    return case.key if case and case.key else named(entity)


def parse_reference(
    text: str, *, site: Site | None = None, type: EntityType | str = EntityType.CASE
) -> Reference:
    """Parse a reference to an entity. No request is sent.

    Args:
        text: A case key (``SHOP-1``), a UUID, the URL of a case
            (``https://app.datadoghq.com/cases/SHOP-1`` or ``…/work?key=SHOP-1``), or a UUID after the prefix
            ``incident:``, ``page:``, ``conversation:`` or ``case:``.
        site: The site that a URL must belong to. By default, any site.
        type: The type of a UUID without a prefix.

    Returns:
        A :class:`CaseKey` for a key, else an :class:`Entity`.

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
        given = _case_of_url(given, site)
        if type != EntityType.CASE:
            raise InvalidLinkError(f"{quoted_url(text)} is the URL of a case, but the type is {type}")
    if is_case_key(given):
        if type != EntityType.CASE:
            raise InvalidLinkError(f"{quoted(given)} is a case key, but the type is {type}: use its UUID")
        return CaseKey(given)
    if not is_uuid(given):
        raise InvalidLinkError(
            f"{quoted_url(text)} does not name an entity{dash_hint(given) or f'; write {FORMS}'}"
        )
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
            ``duplicated by``, ``child of``, ``predecessor of`` or ``escalated from``, the first end becomes
            the child.
        child: The child, or a text that :func:`parse_reference` accepts.
        site: The site that URLs must belong to. By default, any site.

    Returns:
        A :class:`LinkReference` if an end is a case key, else a :class:`NewCaseLink`.

    Raises:
        InvalidLinkError: A text does not name an entity, the relationship is unknown, or
            :class:`NewCaseLink` refuses the link.
        ParameterError: ``site`` is not a :class:`Site`.
    """
    _require_site(site)
    parent, child = _parsed(parent, site), _parsed(child, site)
    if not isinstance(relationship, str):
        require_known_relationship(relationship)
    known, is_swapped = _relationship(relationship)
    if is_swapped:
        parent, child = child, parent
    return link_between(parent, known, child)


def _parsed(reference: Reference | str, site: Site | None) -> Reference:
    return reference if isinstance(reference, Entity | CaseKey) else parse_reference(reference, site=site)


def _require_site(site: Site | None) -> None:
    if site is not None:
        require("site", site, Site, "a Site, such as Site.EU1")


def in_words(name: str) -> str:
    """Return ``name`` in lower case, with single spaces for hyphens, underscores and other blanks."""
    return " ".join(re.sub(r"[-_]", " ", name).lower().split())


@functools.lru_cache(maxsize=64)  # the lines of a file repeat a few relationships
def _relationship(given: str) -> tuple[Relationship, bool]:
    """Return the relationship, and whether its ends must be swapped."""
    words = in_words(given)
    is_backward = words.startswith("←")  # the sign of lists and trees for a link seen from its child
    words = words.lstrip("←→↔ ")
    for each in (words, _FILLERS.sub("", words, count=1)):
        if each in _WORDS:
            relationship, is_swapped = _WORDS[each]
            return relationship, is_swapped != is_backward
    near = " or ".join(_near_misses(words))
    hint = f"did you mean {near}? Use" if near else "use"
    raise InvalidLinkError(f"unknown relationship {quoted(given)}; {hint} one of {', '.join(Relationship)}")


def _near_misses(words: str) -> list[str]:
    """Return at most two known words that are close to ``words``, and differ in their meaning."""
    if len(words) > _MAX_WORD:
        return []
    near: dict[tuple[Relationship, bool], str] = {}
    for word in difflib.get_close_matches(words, _WORDS, n=6, cutoff=0.65):
        near.setdefault(_WORDS[word], word)
    return list(near.values())[:2]


def _case_of_url(address: str, site: Site | None) -> str:
    """Return the key or UUID in the URL of a case."""
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
        return found
    if "incidents" in segments:
        raise InvalidLinkError(
            f"{shown} contains the number of an incident: use its UUID instead, as incident:UUID"
        )
    hint = "".join(map(dash_hint, segments)) or f"; write {FORMS}"
    raise InvalidLinkError(f"{shown} is not the URL of a case{hint}")


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


_MAX_RESULTS: Final = 100_000
"""The maximum number of cached results, in about 26 MB. The oldest is dropped first, and requested again."""


class Resolver:
    """A lookup of cases by key, with a cache. :meth:`CaseLinksClient.resolver` returns one.

    Concurrent lookups of one case share a single request. Cases that were found, and those that do not exist,
    stay in the cache until the resolver is discarded, so use one for each run.
    """

    def __init__(
        self,
        get_case: Callable[[str], Awaitable[Case]],
        site: Site,
        *,
        found_for: float = math.inf,
        missing_for: float = math.inf,
    ) -> None:
        self._get_case = get_case
        self._site = site
        self._found_for = found_for
        self._missing_for = missing_for
        self._results: OrderedDict[str, tuple[Case | NotFoundError, float]] = OrderedDict()
        self._in_flight: dict[str, asyncio.Future[Case | NotFoundError]] = {}

    async def entity(self, reference: Reference | str) -> Entity:
        """Return the entity that ``reference`` names, after a lookup if it is a case key.

        Args:
            reference: A reference, or a text that :func:`parse_reference` accepts.

        Raises:
            InvalidLinkError: The text does not name an entity, or is a URL of another site.
            MalformedResponseError: The case has an id that is not a UUID.
            CaseLinksError: The lookup failed, as described for :meth:`CaseLinksClient.get_case`.
        """
        reference = _parsed(reference, self._site)
        if isinstance(reference, Entity):
            return reference
        found = await self.case(reference)
        if not is_uuid(found.id):  # which is not quoted: it may echo a key
            raise MalformedResponseError(f"cannot get case {reference}: its id is not a UUID", body="")
        return found.entity

    async def link(self, reference: WantedLink) -> NewCaseLink:
        """Return ``reference`` as a link between entities, after lookups of its case keys.

        Raises:
            InvalidLinkError: :class:`NewCaseLink` refuses the link.
            CaseLinksError: A lookup failed, as described for :meth:`CaseLinksClient.get_case`.
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
            InvalidLinkError: ``reference`` is not a reference.
            CaseLinksError: The lookup failed, as described for :meth:`CaseLinksClient.get_case`.
        """
        if not isinstance(reference, CaseKey | Entity):
            raise InvalidLinkError(f"{quoted(reference)} is not a CaseKey or an Entity")
        name = reference.key if isinstance(reference, CaseKey) else reference.id
        result = await self._find(name)
        if isinstance(result, CaseLinksError):
            raise copy.copy(result)  # raising the cached error itself would extend its traceback each time
        return result

    async def _find(self, name: str) -> Case | NotFoundError:
        """Return what the cache has, or a lookup finds. If a lookup is in flight, wait for its result.

        If that lookup fails or is cancelled, the next call that waits for it looks the case up again.
        """
        while in_flight := self._in_flight.get(name):
            await asyncio.wait([in_flight])
            if not in_flight.cancelled():
                return in_flight.result()
        now = asyncio.get_running_loop().time()
        result, expires_at = self._results.get(name, (None, now))
        if result and now < expires_at:
            return result
        in_flight = self._in_flight[name] = asyncio.get_running_loop().create_future()
        try:
            result = await self._look_up(name)
            in_flight.set_result(result)
            return result
        finally:
            del self._in_flight[name]
            in_flight.cancel()  # unless it has a result

    async def _look_up(self, name: str) -> Case | NotFoundError:
        try:
            found = await self._get_case(name)
        except NotFoundError as error:
            missing = error.with_traceback(None)
            self._cache(missing, self._missing_for, name)
            return missing
        if is_uuid(found.id):
            self._cache(found, self._found_for, name, found.entity.id, found.key.upper())
        return found

    def _cache(self, result: Case | NotFoundError, seconds: float, *names: str) -> None:
        expires_at = asyncio.get_running_loop().time() + seconds
        for name in filter(None, names):
            self._results[name] = result, expires_at
            self._results.move_to_end(name)
            if len(self._results) > _MAX_RESULTS:
                self._results.popitem(last=False)
