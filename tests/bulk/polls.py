"""Faster tests of journals in use: a run normally waits up to a second for another one to end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from unittest.mock import patch

from datadog_caselinks.bulk import journal


@contextlib.contextmanager
def few_polls() -> Iterator[None]:
    """Let a run try only three times to open a file that another run is using."""
    with patch.multiple(journal, _POLL=0, _MAX_POLLS=2):
        yield
