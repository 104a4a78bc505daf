"""Helpers that read a file of links from memory."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import pytest

from datadog_caselinks import LinkFileError, LinkLine, MalformedLine, Site, read_link_file
from datadog_caselinks.bulk.link_csv import MAX_LINE


class InPieces(io.RawIOBase):
    """A stream that returns at most ``length`` bytes at a time, as pipes and sockets do."""

    def __init__(self, content: bytes, length: int) -> None:
        self._content = io.BytesIO(content)
        self._length = length

    def read(self, size: int = -1, /) -> bytes:
        return self._content.read(self._length)


async def read(
    content: str | bytes,
    length: int = MAX_LINE,
    *,
    format: str | None = None,
    site: Site | None = None,
    delimiter: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> list[LinkLine | MalformedLine]:
    """Read all lines of a file from a stream that returns pieces of ``length`` bytes."""
    file = InPieces(content.encode() if isinstance(content, str) else content, length)
    lines = read_link_file(file, format=format, site=site, delimiter=delimiter, columns=columns)
    return [line async for line in lines]


async def refusal(
    content: str | bytes,
    *,
    format: str | None = None,
    delimiter: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> str:
    """Return the message of the error that refuses the whole file."""
    with pytest.raises(LinkFileError) as caught:
        await read(content, format=format, delimiter=delimiter, columns=columns)
    assert str(caught.value).isprintable()
    return str(caught.value)


def raw_file(content: bytes) -> io.RawIOBase:
    """Return a seekable, unbuffered stream of ``content``."""
    reader: Any = io.BytesIO(content)
    return reader  # type: ignore[no-any-return] # has all methods of RawIOBase but is not a subclass
