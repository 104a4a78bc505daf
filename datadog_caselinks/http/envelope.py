"""The JSON:API envelope <-> models, by cattrs; the bytes by orjson where it is there. Knows no requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

import cattrs
from attrs import define, resolve_types

from datadog_caselinks.models import Case, CaseLink, Entity, NewCaseLink

try:
    from cattrs.preconf.orjson import make_converter
    from orjson import dumps, loads
except ImportError:  # without the extra "speed"
    from json import dumps, loads  # type: ignore[assignment]

    from cattrs.preconf.json import make_converter  # type: ignore[assignment]


def encode_new_link(new: NewCaseLink) -> bytes:
    """The body that asks for ``new``."""
    body: bytes | str = dumps(_unstructure_new(_Envelope(new)))
    # What orjson gives holds on to the 4 KB that it was written into: 40 MB in 10,000 calls that wait. A copy
    # is as large as it is long.
    return bytes(memoryview(body)) if isinstance(body, bytes) else body.encode()


def decode_link(body: bytes) -> CaseLink:
    """The link that ``body`` holds. Raises ``ValueError`` that says what is wrong with it."""
    link: CaseLink = _decode(body, _structure_link_document)
    return link


def decode_links(body: bytes) -> list[CaseLink]:
    """The links that ``body`` holds. Raises ``ValueError`` that says what is wrong with it."""
    links: list[CaseLink] = _decode(body, _structure_links_document)
    return links


def decode_case(body: bytes) -> Case:
    """The case that ``body`` holds. Raises ``ValueError`` that says what is wrong with it."""
    case: Case = _decode(body, _structure_case_document)
    return case


T = TypeVar("T")


@resolve_types  # which cattrs before 25.2 does not do for a generic class
@define
class _Envelope(Generic[T]):
    data: T


_PATHS: Final = (
    "id",
    "attributes.parent_entity_id",
    "attributes.parent_entity_type",
    "attributes.relationship",
    "attributes.child_entity_id",
    "attributes.child_entity_type",
)
_ALL_TEXTS: Final = [str] * len(_PATHS)


def _unstructure_new_link(new: NewCaseLink) -> dict[str, Any]:
    parent, child = new.parent, new.child
    return {
        "type": "link",
        "attributes": {
            "parent_entity_id": parent.id,
            "parent_entity_type": parent.type,
            "relationship": new.relationship,
            "child_entity_id": child.id,
            "child_entity_type": child.type,
        },
    }


def _structure_link(value: Any, _: object) -> CaseLink:
    # Field by field and not by classes of its own, which cost twice as much. Other members are left unread:
    # whatever has an id and the five attributes is a link.
    try:
        link_id, attributes = value["id"], value["attributes"]
        parent_id, parent_type = attributes["parent_entity_id"], attributes["parent_entity_type"]
        relationship = attributes["relationship"]
        child_id, child_type = attributes["child_entity_id"], attributes["child_entity_type"]
    except KeyError as error:
        missing = error.args[0]
        path = missing if missing in ("id", "attributes") else f"attributes.{missing}"
        raise ValueError(f"{path} is missing") from None
    except TypeError:
        raise ValueError("malformed") from None
    texts = (link_id, parent_id, parent_type, relationship, child_id, child_type)
    if "" in texts or [*map(type, texts)] != _ALL_TEXTS:
        wrong = next(
            path for path, text in zip(_PATHS, texts, strict=True) if type(text) is not str or not text
        )
        raise ValueError(f"{wrong} is no text")
    "".join(texts).encode()  # is a ValueError for half a character, which the standard library lets pass
    return CaseLink(link_id, Entity(parent_id, parent_type), relationship, Entity(child_id, child_type))


def _structure_case(value: Any, _: object) -> Case:
    try:
        case_id, attributes = value["id"], value.get("attributes") or {}
        told = [attributes.get(name) for name in ("key", "title", "status", "priority")]
    except KeyError:
        raise ValueError("id is missing") from None
    except (TypeError, AttributeError):
        raise ValueError("malformed") from None
    if not isinstance(case_id, str) or not case_id:
        raise ValueError("id is no text")
    texts = [text if isinstance(text, str) else "" for text in told]
    "".join([case_id, *texts]).encode()  # is a ValueError for half a character, as above
    return Case(case_id, *texts)


def _structure_links(value: object, kind: Any) -> list[CaseLink]:
    # Any iterable passes for a list with cattrs, and an empty object would mean "no links". The first flaw
    # ends it here: cattrs would collect them all, and an answer has room for millions.
    if not isinstance(value, list):
        raise TypeError("expected a list")
    links = []
    for index, item in enumerate(value):
        try:
            links.append(_structure_link(item, CaseLink))
        except ValueError as error:
            error.add_note(cattrs.IterableValidationNote("", index, CaseLink))
            raise cattrs.IterableValidationError("", [error], kind) from None
    return links


_converter = make_converter()
_converter.register_structure_hook(CaseLink, _structure_link)
_converter.register_structure_hook(Case, _structure_case)
_converter.register_structure_hook_func(lambda kind: kind == list[CaseLink], _structure_links)
_converter.register_unstructure_hook(NewCaseLink, _unstructure_new_link)
# Looked up once, and not for each link.
_unstructure_new: Final = _converter.get_unstructure_hook(_Envelope[NewCaseLink])
_structure_link_document: Final = _converter.get_structure_hook(_Envelope[CaseLink])
_structure_case_document: Final = _converter.get_structure_hook(_Envelope[Case])
_structure_links_document: Final = _converter.get_structure_hook(_Envelope[list[CaseLink]])


def _decode(body: bytes, structure: Callable[[Any, Any], Any]) -> Any:
    try:
        document = loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no JSON, {error}") from None
    try:
        return structure(document, _Envelope).data
    except cattrs.BaseValidationError as error:
        raise ValueError("; ".join(cattrs.transform_error(error, "answer", _problem))) from None


def _problem(error: BaseException, _: type | None) -> str:
    return "data is missing" if isinstance(error, KeyError) else str(error)
