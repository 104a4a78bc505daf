"""The JSON:API documents as attrs classes, which cattrs reads and writes. Independent of requests.

Members that are not declared here are ignored. The bytes are read by orjson if it is installed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Generic, NamedTuple, NewType, TypeVar, get_args

import cattrs
from attrs import NOTHING, define, fields, has
from cattrs.cols import is_sequence
from cattrs.gen import make_dict_structure_fn

from datadog_caselinks.values.models import Case, CaseLink, Entity, Incident, NewCaseLink, identity

try:
    from cattrs.preconf.orjson import make_converter
    from orjson import dumps, loads
except ImportError:  # without the extra "speed"
    from json import dumps, loads  # type: ignore[assignment]

    from cattrs.preconf.json import make_converter  # type: ignore[assignment]

MAX_SKIPPED: Final = 1000
"""The maximum number of flawed members of a list. A list with more of them is not a list of links."""

_KINDS: Final = {"link": "a link", "case": "a case", "incidents": "an incident"}
"""The description of a resource of each type, for messages."""

T = TypeVar("T")

MAX_VALUES: Final = 2**20
"""The maximum number of values in a document: twice as many as 16 MiB of links have.

A decoded value takes about 100 bytes, so short ones take many times as much memory as their text.
"""

OptionalText = NewType("OptionalText", str)
"""A text that may be missing or have another type. It is then empty."""


@define
class LinkAttributes:
    """The attributes of a link, as the API names them."""

    parent_entity_id: str
    parent_entity_type: str
    relationship: str
    child_entity_id: str
    child_entity_type: str


@define
class LinkResource:
    """A link that exists."""

    id: str
    attributes: LinkAttributes


@define
class LinkDocument:
    """The response to a create."""

    data: LinkResource


@define
class LinksDocument:
    """The response to a list."""

    data: list[LinkResource]


class Members(NamedTuple, Generic[T]):
    """The members of a list, the number of those that are flawed, and what is wrong with the first."""

    members: list[T]
    skipped: int = 0
    first_flaw: str = ""


class CasePage(NamedTuple):
    """One page of the cases that a search found. ``number`` and ``last`` are ``None`` if not reported."""

    cases: Members[Case]
    number: int | None
    last: int | None


class IncidentPage(NamedTuple):
    """One page of the incidents that a search found. ``total``, of all pages, is ``None`` if unknown."""

    incidents: Members[Incident]
    total: int | None


@define
class Resource:
    """Anything that has an id."""

    id: str


@define
class ResourceDocument:
    """A response about any resource."""

    data: Resource


@define
class NewLink:
    """A link to be created."""

    type: str
    attributes: LinkAttributes


@define
class NewLinkDocument:
    """The body of a create."""

    data: NewLink


@define
class CaseAttributes:
    """The attributes of a case, as the API names them."""

    key: OptionalText = OptionalText("")
    title: OptionalText = OptionalText("")
    status: OptionalText = OptionalText("")
    priority: OptionalText = OptionalText("")
    status_name: OptionalText = OptionalText("")
    status_group: OptionalText = OptionalText("")


@define
class CaseResource:
    """A case."""

    id: str
    attributes: CaseAttributes | None = None
    type: OptionalText = OptionalText("")


@define
class CaseDocument:
    """The response to a get."""

    data: CaseResource


@define
class CasesDocument:
    """One page of the response to a search."""

    data: list[CaseResource]


@define
class IncidentResource:
    """An incident. Its attributes are read one by one: the API may change them."""

    id: str
    attributes: Any = None
    type: OptionalText = OptionalText("")


@define
class IncidentDocument:
    """The response to a get."""

    data: IncidentResource


@define
class FoundIncidents:
    """The incidents that a search found."""

    incidents: list[IncidentDocument]


@define
class FoundIncidentsResource:
    """The result of a search."""

    attributes: FoundIncidents


@define
class IncidentsDocument:
    """The response to a search for incidents."""

    data: FoundIncidentsResource


def encode_new_link(new: NewCaseLink) -> bytes:
    """Return the body that creates ``new``."""
    body: bytes | str = dumps(_write_new_link(NewLinkDocument(NewLink("link", _attributes(new)))))
    # orjson's bytes keep the 4 KB buffer they were written into: 40 MB for 10,000 calls that wait. A copy
    # does not.
    return bytes(memoryview(body)) if isinstance(body, bytes) else body.encode()


def has_too_many_values(body: bytes) -> bool:
    """Return whether ``body`` has more than ``MAX_VALUES`` values, without decoding it.

    Each value but the outermost one follows a comma or an opening bracket. Those in texts count too.
    """
    return len(body) > MAX_VALUES and sum(map(body.count, (b",", b"[", b"{"))) > MAX_VALUES


def decode_link(body: bytes, new: NewCaseLink) -> CaseLink:
    """Return the link in ``body``, the response to a create of ``new``.

    If it connects exactly what ``new`` connects, it has the entities of ``new``, which are checked already.
    Raises ``ValueError`` that says what is wrong with ``body``, also if it is about another link.
    """
    resource = _decode(body, LinkDocument).data
    if resource.attributes == _attributes(new):
        return new.existing(resource.id)
    link = _link(resource)
    if identity(link) != identity(new):
        raise ValueError("it is about another link")
    return link


def decode_links(body: bytes) -> Members[CaseLink]:
    """Return the links in ``body``, without the members that are flawed.

    Raises ``ValueError`` that says what is wrong if ``body`` is not a list, has too many flawed members, or
    is a list of something else.
    """
    document = _load(body)
    try:
        return Members([_link(resource) for resource in _converter.structure(document, LinksDocument).data])
    except (ValueError, TypeError, KeyError):
        return _without_flawed(document, LinksDocument, "link", _read_link, _dig(document, "data"))


def decode_case(body: bytes) -> Case:
    """Return the case in ``body``. Raises ``ValueError`` that says what is wrong with it."""
    return _case(_decode(body, CaseDocument).data)


def decode_cases(body: bytes) -> CasePage:
    """Return a page of cases, without the members that are flawed. Raises as :func:`decode_links`."""
    document = _load(body)
    try:
        found = Members([_case(each) for each in _converter.structure(document, CasesDocument).data])
    except (ValueError, TypeError, KeyError):
        found = _without_flawed(document, CasesDocument, "case", _read_case, _dig(document, "data"))
    current, total = (_dig(document, "meta", "page", name) for name in ("current", "total"))
    return CasePage(found, current if type(current) is int else None, total if type(total) is int else None)


def decode_incident(body: bytes) -> Incident:
    """Return the incident in ``body``. Raises ``ValueError`` that says what is wrong with it."""
    return _incident(_decode(body, IncidentDocument).data)


def decode_incidents(body: bytes) -> IncidentPage:
    """Return a page of incidents, without the members that are flawed. Raises as :func:`decode_links`."""
    document = _load(body)
    try:
        decoded = _converter.structure(document, IncidentsDocument).data.attributes.incidents
        found = Members([_incident(each.data) for each in decoded])
    except (ValueError, TypeError, KeyError):
        listed = _dig(document, "data", "attributes", "incidents")
        found = _without_flawed(document, IncidentsDocument, "incidents", _read_incident, listed, "data")
    total = _dig(document, "data", "attributes", "total")
    return IncidentPage(found, total if type(total) is int else None)


def decode_id(body: bytes) -> str | None:
    """Return the id of the resource in ``body``, or ``None`` if there is none."""
    try:
        return _decode(body, ResourceDocument).data.id
    except ValueError:
        return None


def _attributes(new: NewCaseLink) -> LinkAttributes:
    parent, child = new.parent, new.child
    return LinkAttributes(parent.id, parent.type, new.relationship, child.id, child.type)


def _link(resource: LinkResource) -> CaseLink:
    known = resource.attributes
    parent = Entity(known.parent_entity_id, known.parent_entity_type)
    return CaseLink(
        resource.id, parent, known.relationship, Entity(known.child_entity_id, known.child_entity_type)
    )


def _read_link(member: object) -> CaseLink:
    return _link(_link_reader(member, LinkResource))


def _read_incident(member: object) -> Incident:
    return _incident(_incident_reader(member, IncidentDocument).data)


def _read_case(member: object) -> Case:
    return _case(_case_reader(member, CaseResource))


def _case(resource: CaseResource) -> Case:
    _require_type(resource.type, "case")
    known = resource.attributes or CaseAttributes()
    return Case(
        resource.id,
        *(known.key, known.title, known.status, known.priority),
        *(known.status_name, known.status_group),
    )


def _incident(resource: IncidentResource) -> Incident:
    _require_type(resource.type, "incidents")
    known = resource.attributes
    number = _dig(known, "public_id")
    return Incident(
        resource.id,
        str(number) if type(number) is int else _text(number),
        _text(_dig(known, "fields", "slug", "value")),
        _text(_dig(known, "title")),
        _text(_dig(known, "state")) or _text(_dig(known, "fields", "state", "value")),
    )


def _require_type(given: object, wanted: str) -> None:
    # Types that are not known pass: the API may rename its own.
    if given != wanted and isinstance(given, str) and given in _KINDS:
        raise ValueError(f"it is about {_KINDS[given]}")


def _without_flawed(
    document: object, kind: type[object], type_: str, read: Callable[[object], T], data: object, *path: str
) -> Members[T]:
    """Return the members of ``data``, the list of a ``kind``, except those that ``read`` refuses.

    ``path`` leads from a member to its resource.
    """
    first_flaw = _first_flaw(document, kind)
    if not isinstance(data, list):
        raise ValueError(first_flaw)
    members, skipped = list[T](), 0
    for each in data:
        try:
            members.append(read(each))
        except (ValueError, TypeError, KeyError) as error:
            # A list of something else must not pass for an empty list.
            _require_type(_dig(each, *path, "type"), type_)
            first_flaw = first_flaw or str(error)
            skipped += 1
            if skipped > MAX_SKIPPED:  # a hostile list has room for millions
                raise ValueError(
                    f"more than {MAX_SKIPPED} members that are not {type_.rstrip('s')}s: {first_flaw}"
                ) from None
    return Members(members, skipped, first_flaw)


def _dig(document: object, *names: str) -> object:
    """Return a member of a member, or ``None`` if there is none."""
    for name in names:
        document = document.get(name) if isinstance(document, dict) else None
    return document


def _load(body: bytes) -> object:
    try:
        return loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not valid JSON, {error}") from None


def _decode(body: bytes, kind: type[T]) -> T:
    document = _load(body)
    try:
        return _converter.structure(document, kind)
    except (ValueError, TypeError, KeyError):
        raise ValueError(_first_flaw(document, kind)) from None


def _first_flaw(document: object, kind: type[object]) -> str:
    """Return what is wrong with ``document``, and where.

    The document is read again, since keeping track of places takes longer.
    """
    flaws: list[str] = []
    try:
        _tracing_converter.structure(document, kind)
    except (cattrs.BaseValidationError, ValueError, TypeError) as error:
        flaws = cattrs.transform_error(error, "response", _describe_flaw)
    return "; ".join(flaws)


def _describe_flaw(error: BaseException, _: type | None) -> str:
    return "missing" if isinstance(error, KeyError) else str(error)


def _read_text(value: object, _: object) -> str:
    if type(value) is not str or not value:
        raise ValueError("not a non-empty string")
    if not value.isascii():
        value.encode()  # raises ValueError for half a character, which the standard library accepts
    return value


def _read_optional_text(value: object, _: object) -> str:
    return _text(value)


def _text(value: object) -> str:
    return _read_text(value, str) if isinstance(value, str) and value else ""


def _make_object_reader(kind: type[T], converter: cattrs.Converter) -> Callable[[object, object], T]:
    read_members = make_dict_structure_fn(kind, converter)

    def read_object(value: object, _: object) -> T:
        if not isinstance(value, dict):
            raise ValueError("not an object")
        return read_members(value, kind)

    return read_object


def _make_list_reader(kind: type[T], converter: cattrs.Converter) -> Callable[[object, object], T]:
    [item_kind] = get_args(kind)
    read_item = converter.get_structure_hook(item_kind)

    def read_list(value: object, _: object) -> Any:
        # cattrs takes any iterable for a list, so an empty object would mean "no links".
        if not isinstance(value, list):
            raise ValueError("not a list")
        return [read_item(item, item_kind) for item in value]

    def read_list_to_first_flaw(value: object, _: object) -> Any:
        # cattrs would collect all flaws of a list, and a response has room for millions.
        if not isinstance(value, list):
            raise ValueError("not a list")
        items = []
        for index, item in enumerate(value):
            try:
                items.append(read_item(item, item_kind))
            except Exception as error:
                error.add_note(cattrs.IterableValidationNote("", index, item_kind))
                raise cattrs.IterableValidationError("", [error], kind) from None
        return items

    return read_list_to_first_flaw if converter.detailed_validation else read_list


def _has_no_required_member(kind: Any) -> bool:
    return has(kind) and all(member.default is not NOTHING for member in fields(kind))


def _make_converter(*, tracing: bool) -> cattrs.Converter:
    converter = make_converter(detailed_validation=tracing)
    # The generated code fails by itself if it looks for a required member in a value that is not an object.
    # The tracing converter, which writes the message, checks every object.
    converter.register_structure_hook_factory(
        has if tracing else _has_no_required_member, _make_object_reader
    )
    converter.register_structure_hook(str, _read_text)
    converter.register_structure_hook(OptionalText, _read_optional_text)
    converter.register_structure_hook_factory(is_sequence, _make_list_reader)
    return converter


_converter: Final = _make_converter(tracing=False)
_tracing_converter: Final = _make_converter(tracing=True)
_link_reader: Final = _converter.get_structure_hook(LinkResource)
_incident_reader: Final = _converter.get_structure_hook(IncidentDocument)
_case_reader: Final = _converter.get_structure_hook(CaseResource)
_write_new_link: Final = _converter.get_unstructure_hook(NewLinkDocument)
