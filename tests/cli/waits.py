"""Retries and lookups of the command without waits, for tests of what follows them.

The command has no options for these waits. A lookup takes up to five seconds, and if all responses are
malformed, ``bulk`` continues for 150 s.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any
from unittest.mock import patch

from attrs import evolve

from datadog_caselinks import CaseLinksClient, RetryPolicy

VARIABLE = "CASELINKS_TESTS_WAIT_FOR_NOTHING"


def waiting_for_nothing(variables: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which the command waits only briefly before a retry or a lookup."""
    return {**variables, VARIABLE: "1"}


@contextlib.contextmanager
def waits_of(variables: Mapping[str, str]) -> Iterator[None]:
    """Shorten the waits of this process's clients, if ``variables`` request it."""
    if VARIABLE not in variables:
        yield
        return
    init = CaseLinksClient.__init__

    def hurried(client: CaseLinksClient, *rest: Any, retry: RetryPolicy = RetryPolicy(), **more: Any) -> None:  # noqa: B008
        init(client, *rest, retry=evolve(retry, base=0.01, settle=0.01, patience=0), **more)

    with patch.object(CaseLinksClient, "__init__", hurried):
        yield
