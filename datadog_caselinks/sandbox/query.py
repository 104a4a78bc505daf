"""The query language of searches: words, quoted texts, ``field:value``, ``-``, ``AND``, ``OR`` and brackets.

Source: Datadog's API reference and its clients' recorded traffic. An unknown field matches nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Final, TypeVar

from attrs import frozen

R = TypeVar("R")

_MAX_DEPTH: Final = 50
_TOKEN: Final = re.compile(
    r'\s*(?:(?P<sign>[()])|(?P<minus>-)(?=\S)|(?P<field>[A-Za-z_.@]+):|"(?P<quoted>[^"]*)"|(?P<word>[^\s()"]+))'
)
_OPERATORS: Final = frozenset({"AND", "OR", "NOT"})


class InvalidQueryError(Exception):
    """A query that cannot be parsed."""


@frozen
class Document:
    """A case or incident as a query sees it: the values of fields, and a text, all in lower case."""

    fields: Mapping[str, str]
    text: str


Query = Callable[[Document], bool]
"""Returns whether a document matches."""

_Token = tuple[str, str]
_END: Final[_Token] = ("end", "")


def parse_query(text: str) -> Query:
    """Parse a query. An empty one matches everything.

    Raises:
        InvalidQueryError: A bracket or quotation mark is not closed, or a value is missing.
    """
    parser = _Parser(text)
    if parser.token == _END:
        return lambda _: True
    query = parser.alternatives(0)
    if parser.token != _END:
        raise InvalidQueryError("a bracket is closed that was not opened")
    return query


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self.token: _Token = _END
        self._advance()

    def alternatives(self, depth: int) -> Query:
        if depth > _MAX_DEPTH:
            raise InvalidQueryError("the query is nested too deeply")
        queries = [self._sequence(depth)]
        while self.token == ("word", "OR"):
            self._advance()
            queries.append(self._sequence(depth))
        return queries[0] if len(queries) == 1 else lambda found: any(query(found) for query in queries)

    def _sequence(self, depth: int) -> Query:
        queries = [self._term(depth)]
        while self.token not in (_END, ("sign", ")"), ("word", "OR")):
            if self.token == ("word", "AND"):
                self._advance()
            queries.append(self._term(depth))
        return lambda found: all(query(found) for query in queries)

    def _term(self, depth: int) -> Query:
        kind, value = self.token
        if kind == "minus" or self.token == ("word", "NOT"):
            self._advance()
            if depth == _MAX_DEPTH:
                raise InvalidQueryError("the query is nested too deeply")
            negated = self._term(depth + 1)
            return lambda found: not negated(found)
        if kind == "sign":
            return self._in_brackets(lambda: self.alternatives(depth + 1))
        self._advance()
        if kind == "field":
            return self._field(value.lower())
        if kind not in ("word", "quoted") or (kind == "word" and value in _OPERATORS):
            raise InvalidQueryError("a text is missing")
        wanted = value.lower()
        return lambda found: wanted in found.text

    def _field(self, name: str) -> Query:
        values = self._in_brackets(self._values) if self.token == ("sign", "(") else [self._value()]
        return lambda found: (
            name in found.fields and any(fnmatchcase(found.fields[name], value) for value in values)
        )

    def _in_brackets(self, parse: Callable[[], R]) -> R:
        if self.token != ("sign", "("):
            raise InvalidQueryError("a bracket is closed that was not opened")
        self._advance()
        result = parse()
        if self.token != ("sign", ")"):
            raise InvalidQueryError("a bracket is not closed")
        self._advance()
        return result

    def _values(self) -> list[str]:
        values = [self._value()]
        while self.token == ("word", "OR"):
            self._advance()
            values.append(self._value())
        return values

    def _value(self) -> str:
        kind, value = self.token
        if kind not in ("word", "quoted"):
            raise InvalidQueryError("a value is missing")
        self._advance()
        return value.lower().replace("[", "[[]").replace("?", "[?]")

    def _advance(self) -> None:
        self.token = next(self._tokens, _END)


def _tokens(text: str) -> Iterator[_Token]:
    text = text.strip()
    place = 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if not match:
            raise InvalidQueryError("a quotation mark is not closed")
        kind = match.lastgroup or ""
        yield kind, match[kind]
        place = match.end()
