"""Read YAML files of links as rows, like those of CSV."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import Final, TypeGuard

import yaml
from attrs import define, field, frozen
from yaml import MappingNode, Node, ScalarNode, SequenceNode

from datadog_caselinks.values.errors import LinkFileError
from datadog_caselinks.values.messages import one_line, quoted
from datadog_caselinks.values.references import in_words

_FORM: Final = "write SHOP-1: {blocks: [SHOP-2, SHOP-3]}"
_NULL: Final = "tag:yaml.org,2002:null"


@frozen
class YamlRow:
    """The fields of one link, or the reason why they are malformed. ``number`` is the line, from 1."""

    number: int
    fields: Mapping[str, str] | str


def read_rows(text: str) -> list[YamlRow]:
    """Return the rows of a document, which is a mapping of parents or a list of mappings.

    In a mapping, the keys are parents, and the values map a relationship to a child or a list of children.
    In a list, each mapping uses the column names of CSV. Scalars are strings: a child ``no`` is not a
    boolean.

    Raises:
        LinkFileError: The text is not valid YAML, has another structure, or contains a duplicate key or an
            alias of a mapping or list.
    """
    root = _composed(text)
    if root is None:
        raise LinkFileError(f"the file is empty: {_FORM}")
    return list(_Document(text).rows(root))


def _composed(text: str) -> Node | None:
    try:
        # Nodes instead of objects: nodes have line numbers, and their tags do not construct anything.
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        reason = ", ".join(
            f"{what} in line {text.count(chr(10), 0, mark.index) + 1}"
            for what, mark in ((error.context, error.context_mark), (error.problem, error.problem_mark))
            if what and mark
        )
    except yaml.YAMLError as error:
        reason = str(error)
    except (ValueError, OverflowError):  # from a character escape or a version number
        reason = "a number in it is too large"
    except RecursionError:
        reason = "it is nested too deeply"
    raise LinkFileError(f"the file is not valid YAML: {one_line(reason)}")


@define
class _Document:
    """A reader of the nodes of ``text``. It refuses a second use of a node."""

    _text: str
    _line_ends: list[int] = field(init=False)
    _read: set[int] = field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        self._line_ends = [match.start() for match in re.finditer("\n", self._text)]

    def rows(self, root: Node) -> Iterator[YamlRow]:
        """Yield the rows of the whole document."""
        if isinstance(root, MappingNode):
            for parent, relationships in self._pairs(root):
                yield from self._parent_rows(parent, relationships)
        elif isinstance(root, SequenceNode):
            for item in self._items(root):
                yield YamlRow(self._line(item), self._fields(item))
        else:
            raise LinkFileError(f"the file is not a list of links: {_FORM}")

    def _parent_rows(self, parent: ScalarNode, relationships: Node) -> Iterator[YamlRow]:
        if not isinstance(relationships, MappingNode):
            yield YamlRow(self._line(parent), f"{quoted(parent.value)} has no relationships: {_FORM}")
            return
        for relationship, children in self._pairs(relationships):
            for child in self._items(children) if isinstance(children, SequenceNode) else [children]:
                if _is_written(child):
                    link = {"parent": parent.value, "relationship": relationship.value, "child": child.value}
                    yield YamlRow(self._line(child), link)
                else:
                    reason = f"{quoted(relationship.value)} needs the name of a child or a list of names"
                    yield YamlRow(self._line(child), reason)

    def _fields(self, item: Node) -> Mapping[str, str] | str:
        if not isinstance(item, MappingNode):
            return "is not a mapping: write parent, relationship and child, or use the parents as keys"
        pairs = self._pairs(item)
        if odd := [name.value for name, value in pairs if not isinstance(value, ScalarNode)]:
            return f"{quoted(odd[0])} must be a string"
        return {name.value.lower(): value.value for name, value in pairs if _is_written(value)}

    def _pairs(self, node: MappingNode) -> list[tuple[ScalarNode, Node]]:
        self._require_unread(node)
        first: dict[str, ScalarNode] = {}
        for key, _ in node.value:
            if not isinstance(key, ScalarNode):
                raise LinkFileError(f"line {self._line(key)}: a key must be a name, not a list or mapping")
            name = in_words(key.value)  # normalized as when parsed
            if before := first.get(name):
                raise LinkFileError(
                    f"line {self._line(key)}: {quoted(key.value)} already appears in line "
                    f"{self._line(before)}: combine both under one key"
                )
            first[name] = key
        return list(node.value)

    def _items(self, node: SequenceNode) -> list[Node]:
        self._require_unread(node)
        return list(node.value)

    def _require_unread(self, node: Node) -> None:
        """Refuse aliases of lists and mappings: a short file could expand to millions of links."""
        if id(node) in self._read:
            raise LinkFileError(
                f"line {self._line(node)}: an alias repeats this list or mapping: write it out"
            )
        self._read.add(id(node))

    def _line(self, node: Node) -> int:
        # Not the mark's line number: it counts line endings that editors do not.
        return bisect_left(self._line_ends, node.start_mark.index) + 1


def _is_written(node: Node) -> TypeGuard[ScalarNode]:
    return isinstance(node, ScalarNode) and node.tag != _NULL
