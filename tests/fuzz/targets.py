"""The fuzz targets: each reads arbitrary bytes, and fails with any exception except our own."""

from __future__ import annotations

import asyncio
import contextlib
import io
import math
import pickle
import tempfile
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

from multidict import CIMultiDict

from datadog_caselinks import (
    CaseLinksError,
    ConfigurationError,
    InvalidLinkError,
    JournalError,
    LinkFileError,
    LinkFileFormat,
    LinkStatus,
    NewCaseLink,
    RateLimit,
    Site,
    parse_link,
    parse_reference,
)
from datadog_caselinks.bulk.journal_file import Store, Write, read_journal
from datadog_caselinks.bulk.link_files import count_links, read_link_file
from datadog_caselinks.bulk.link_yaml import read_rows
from datadog_caselinks.http import wire
from datadog_caselinks.http.headers import read_rate_limit, retry_after
from datadog_caselinks.values.credentials import AuthHeaders
from datadog_caselinks.values.models import case, named

KEY: Final = "secret/key+0123"
"""A text in the inputs that must not be in any message."""

CORPUS: Final = Path(__file__).parent / "corpus"
"""A folder for each target with inputs to begin with, among them each that ever failed."""

_SITE: Final = "https://api.datadoghq.com"
_NEW: Final = NewCaseLink(case(UUID(int=1)), "BLOCKS", case(UUID(int=2)))
_READ: Final[tuple[tuple[wire.Request, Callable[[wire.Response], object]], ...]] = (
    (wire.create_request(_NEW), wire.read_link),
    (wire.list_request(_NEW.parent, None), wire.read_links),
    (wire.case_request("SHOP-1"), wire.read_case),
    (wire.delete_request("an-id"), wire.read_deleted),
)
_STATUSES: Final = (200, 201, 204, 302, 400, 401, 404, 409, 429, 500, 503)


def answers(data: bytes) -> None:
    """Read a response: the first byte selects the reader, the second the status, the rest is the body."""
    read, status = (*data[:2], 0, 0)[:2]
    redact = AuthHeaders({}, (KEY,)).redact
    request, decode = _READ[read % len(_READ)]
    reported = wire.Response(request, _STATUSES[status % len(_STATUSES)], CIMultiDict(), data[2:], redact)
    try:
        decode(reported)
    except CaseLinksError as error:
        _require_fit_to_report(error)
        _require_nothing_of(KEY, pickle.dumps(error).decode("latin-1"))


def headers(data: bytes) -> None:
    """Read rate limit headers, one per line."""
    lines = [line.partition(":") for line in data.decode("latin-1").splitlines()]
    found = CIMultiDict[str]([(name, value.strip()) for name, _, value in lines])
    limit = read_rate_limit(found) or RateLimit()
    for number in (limit.limit, limit.remaining, limit.period, limit.reset, retry_after(found)):
        assert number is None or (number >= 0 and math.isfinite(number))


def sites(data: bytes) -> None:
    """Parse a value of ``DD_SITE``."""
    text = _text(data)
    try:
        site = Site.parse(text)
    except ConfigurationError as error:
        _require_fit_to_report(error)
        if "@" in text:
            _require_nothing_of(KEY, str(error))
    else:
        assert Site.parse(site.api_url) == site
        url = urlsplit(site.api_url)
        assert (
            url.scheme == "https" or url.hostname == "localhost" or ip_address(url.hostname or "").is_loopback
        )


def references(data: bytes) -> None:
    """Parse a reference to an entity."""
    try:
        reference = parse_reference(_text(data))
    except InvalidLinkError as error:
        _require_fit_to_report(error)
    else:
        assert parse_reference(named(reference)) == reference


def links(data: bytes) -> None:
    """Parse a link: parent, relationship and child, one per line."""
    parent, relationship, child = (*_text(data).split("\n"), "", "", "")[:3]
    try:
        wanted = parse_link(parent, relationship, child)
    except InvalidLinkError as error:
        _require_fit_to_report(error)
    else:
        assert parse_link(named(wanted.parent), str(wanted.relationship), named(wanted.child)) == wanted


def files(data: bytes) -> None:
    """Read a file of links in every format."""

    async def read(format: str | None) -> int:
        return len([line async for line in read_link_file(_Raw(data), format=format)])

    for format in (None, *LinkFileFormat):
        count = count_links(_Raw(data), format=format)
        try:
            lines = asyncio.run(read(format))
        except LinkFileError as error:
            _require_fit_to_report(error)
        else:
            assert count in (None, lines)


def yaml(data: bytes) -> None:
    """Read a YAML file of links."""
    with contextlib.suppress(LinkFileError):
        read_rows(_text(data))


def journals(data: bytes) -> None:
    """Read and write a file that is used as a journal."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        path.write_bytes(data)
        with contextlib.suppress(JournalError):
            assert all(isinstance(record.new, NewCaseLink) for record in read_journal(path))
        store = Store(path, _SITE)
        with contextlib.suppress(JournalError):
            store.open()
            store.write([Write(("CASE a", "BLOCKS", "CASE b"), LinkStatus.AMBIGUOUS)])
        store.close()


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    target.__name__: target for target in (answers, headers, sites, references, links, files, yaml, journals)
}


class _Raw(io.BytesIO, io.RawIOBase):
    """Bytes as an unbuffered file."""


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _require_fit_to_report(error: CaseLinksError) -> None:
    assert str(error).isprintable(), str(error)
    assert len(str(error)) < 1500, str(error)


def _require_nothing_of(key: str, text: str) -> None:
    assert key not in text, text
