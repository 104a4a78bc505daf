"""Links as people write them for review, in YAML: read as rows like those of CSV. Knows no links."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import Final, TypeGuard

import yaml
from attrs import define, field, frozen
from yaml import MappingNode, Node, ScalarNode, SequenceNode

from datadog_caselinks.errors import LinkFileError
from datadog_caselinks.messages import shortened

_FORM: Final = "write SHOP-1: {blocks: [SHOP-2, SHOP-3]}"
_NULL: Final = "tag:yaml.org,2002:null"


@frozen
class YamlRow:
    """The fields of a link as they are written, or why there are none. ``number`` is its line, from 1."""

    number: int
    fields: Mapping[str, str] | str


def read_rows(text: str) -> list[YamlRow]:
    """The rows of a document, which is a mapping of parents or a list of mappings.

    Of a mapping the keys are parents, and the values map a relationship to a child or a list of them. In
    a list each mapping has the names of the columns of CSV. Scalars are taken as they are written: a
    child ``no`` is no boolean.

    Raises :class:`LinkFileError` for what is no YAML, for any other form, for a key that stands twice in one
    mapping, and for a mapping or list that stands in two places by an alias.
    """
    root = _composed(text)
    if root is None:
        raise LinkFileError(f"the file is empty: {_FORM}")
    return list(_Document(text).rows(root))


def _composed(text: str) -> Node | None:
    try:
        # Nodes and no objects: they know their lines, and no tag makes anything of them.
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        reason = ", ".join(
            f"{what} in line {text.count(chr(10), 0, mark.index) + 1}"
            for what, mark in ((error.context, error.context_mark), (error.problem, error.problem_mark))
            if what and mark
        )
    except yaml.YAMLError as error:
        reason = str(error)
    except (ValueError, OverflowError):  # of the number of a character, or of a version
        reason = "a number in it is too large"
    except RecursionError:
        reason = "it is nested too deeply"
    raise LinkFileError(f"the file is no YAML: {' '.join(reason.split())}")


@define
class _Document:
    """Reads the nodes of ``text``, each once."""

    _text: str
    _line_ends: list[int] = field(init=False)
    _read: set[int] = field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        self._line_ends = [match.start() for match in re.finditer("\n", self._text)]

    def rows(self, root: Node) -> Iterator[YamlRow]:
        """What the whole document holds."""
        if isinstance(root, MappingNode):
            for parent, relationships in self._pairs(root):
                yield from self._of_parent(parent, relationships)
        elif isinstance(root, SequenceNode):
            for item in self._items(root):
                yield YamlRow(self._line(item), self._fields(item))
        else:
            raise LinkFileError(f"the file is no list of links: {_FORM}")

    def _of_parent(self, parent: ScalarNode, relationships: Node) -> Iterator[YamlRow]:
        if not isinstance(relationships, MappingNode):
            yield YamlRow(self._line(parent), f"{shortened(parent.value)} has no relationships: {_FORM}")
            return
        for relationship, children in self._pairs(relationships):
            for child in self._items(children) if isinstance(children, SequenceNode) else [children]:
                if _is_written(child):
                    link = {"parent": parent.value, "relationship": relationship.value, "child": child.value}
                    yield YamlRow(self._line(child), link)
                else:
                    reason = f"{shortened(relationship.value)} needs the name of a child, or a list of names"
                    yield YamlRow(self._line(child), reason)

    def _fields(self, item: Node) -> Mapping[str, str] | str:
        if not isinstance(item, MappingNode):
            return "is no mapping: write parent, relationship and child, or keys that are the parents"
        pairs = self._pairs(item)
        if odd := [name.value for name, value in pairs if not isinstance(value, ScalarNode)]:
            return f"{shortened(odd[0])} must be a string"
        return {name.value.lower(): value.value for name, value in pairs if _is_written(value)}

    def _pairs(self, node: MappingNode) -> list[tuple[ScalarNode, Node]]:
        self._require_unread(node)
        first: dict[str, ScalarNode] = {}
        for key, _ in node.value:
            if not isinstance(key, ScalarNode):
                raise LinkFileError(
                    f"line {self._line(key)}: a key must be a name, and not a list or mapping"
                )
            # As they are read: in upper or lower case, a relationship with hyphens too.
            name = key.value.strip().upper().replace("-", "_")
            if before := first.get(name):
                raise LinkFileError(
                    f"line {self._line(key)}: {shortened(key.value)} stands in line {self._line(before)} "
                    "already: write what both hold under one of them"
                )
            first[name] = key
        return list(node.value)

    def _items(self, node: SequenceNode) -> list[Node]:
        self._require_unread(node)
        return list(node.value)

    def _require_unread(self, node: Node) -> None:
        """Refuse aliases, by which a short file stands for a million links. Those of scalars are no harm."""
        if id(node) in self._read:
            raise LinkFileError(
                f"line {self._line(node)}: what stands here is used once more by an alias: write it out"
            )
        self._read.add(id(node))

    def _line(self, node: Node) -> int:
        # Not that of the mark, which counts line ends that editors do not.
        return bisect_left(self._line_ends, node.start_mark.index) + 1


def _is_written(node: Node) -> TypeGuard[ScalarNode]:
    return isinstance(node, ScalarNode) and node.tag != _NULL
