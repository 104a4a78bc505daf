"""Parse references to entities: UUIDs, keys, numbers and URLs. The words for relationships."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Final
from urllib.parse import parse_qsl, quote, urlsplit

from datadog_caselinks.values.errors import (
    InvalidLinkError,
)
from datadog_caselinks.values.messages import quoted
from datadog_caselinks.values.models import (
    PREFIXES,
    Case,
    CaseKey,
    CaseLink,
    Entity,
    EntityType,
    Incident,
    IncidentNumber,
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
from datadog_caselinks.values.parameters import require
from datadog_caselinks.values.sites import Site, quoted_url

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
        "write page:UUID. Datadog has no lookup of a page by its number or URL: its UUID is in the "
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


def url_of(found: Details, site: Site) -> str | None:
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
        number = text.strip().removeprefix("#")
        if type == EntityType.CASE and number.isdigit() and is_incident_number(number):
            hint = (
                f"; for an incident, write incident:{number}, and for a case its key, such as SHOP-{number}"
            )
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
    parent, child = parsed_reference(parent, site), parsed_reference(child, site)
    if not isinstance(relationship, str):
        require_known_relationship(relationship)
    known, is_swapped = parse_relationship(relationship)
    if is_swapped:
        parent, child = child, parent
    return link_between(parent, known, child)


def parsed_reference(reference: Reference | str, site: Site | None) -> Reference:
    """Return the reference that a parameter gives, which may be a text. Raises as :func:`parse_reference`."""
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


def _entity_of_url(text: str, site: Site | None) -> tuple[str, EntityType]:
    """Return the key, number or UUID in the URL of a case or incident, and its type."""
    shown = quoted_url(text)
    try:
        url = urlsplit(text if "://" in text else f"https://{text}")
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
