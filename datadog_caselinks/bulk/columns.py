"""The columns of a file of links, and the names under which they are found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from attrs import field, frozen

from datadog_caselinks.values.errors import ParameterError
from datadog_caselinks.values.messages import quoted

COLUMNS: Final = ("parent", "parent_type", "relationship", "child", "child_type")
"""The columns of a CSV file and the keys of a JSON line.

The types are optional and default to CASE. ``parent_id`` and ``child_id`` are accepted as well. Letter case
does not matter, nor whether blanks, hyphens or underscores separate words.
"""

REQUIRED: Final = ("parent", "relationship", "child")
"""The columns that every file must have."""

_ALIASES: Final = {"parent_id": "parent", "child_id": "child"}


@frozen
class ColumnNames:
    """The names of the columns in one file.

    Args:
        given: The name of a column in the file, such as ``From``, by the column in :data:`COLUMNS`.

    Raises:
        ParameterError: A column is unknown, or two columns have the same name.
    """

    _given: Mapping[str, str] = field(factory=dict)
    _by_name: Mapping[str, str] = field(init=False)

    def __attrs_post_init__(self) -> None:
        usual = {name: name for name in COLUMNS} | _ALIASES
        given: dict[str, str] = {}
        for column, name in self._given.items():
            if column not in COLUMNS:
                is_swapped = _normalized(name) in usual
                swap = f"exchange {quoted(column)} and {quoted(name)}"
                hint = swap if is_swapped else f"use one of {', '.join(COLUMNS)}"
                raise ParameterError(f"unknown column {quoted(column)} of a link; {hint}")
            other = given.setdefault(_normalized(name), column)
            if other != column:
                raise ParameterError(
                    f"{other} and {column} have the same name {quoted(name)}: each column of a link needs a "
                    "name of its own in the file"
                )
        rest = {name: column for name, column in usual.items() if column not in self._given}
        object.__setattr__(self, "_by_name", rest | given)

    @property
    def required(self) -> list[str]:
        """The columns that a header must contain: all required ones, and all that were given a name."""
        return [column for column in COLUMNS if column in REQUIRED or column in self._given]

    @property
    def given(self) -> list[str]:
        """The columns that were given a name."""
        return [column for column in COLUMNS if column in self._given]

    def column(self, name: str) -> str | None:
        """Return the column of :data:`COLUMNS` that ``name`` means, or ``None`` if it is ignored."""
        return self._by_name.get(_normalized(name))

    def described(self, columns: Iterable[str]) -> str:
        """Return the names of ``columns`` in the file, for a message."""
        return ", ".join(
            f"{self._given[column]} ({column})" if column in self._given else column for column in columns
        )


def _normalized(name: str) -> str:
    return "_".join(name.strip().lower().replace("-", " ").replace("_", " ").split())
