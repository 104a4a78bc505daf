"""Retries and lookups of the command without their waits, for tests of what comes after them.

The command has no options for these waits. A lookup takes up to five seconds of real time, and where all
responses are malformed ``bulk`` goes on for 150 s.
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
    """Return an environment in which the tests' command hardly waits before a retry or a lookup."""
    return {**variables, VARIABLE: "1"}


@contextlib.contextmanager
def waits_of(variables: Mapping[str, str]) -> Iterator[None]:
    """Let the clients of this process hardly wait, if the environment ``variables`` says so."""
    if VARIABLE not in variables:
        yield
        return
    init = CaseLinksClient.__init__

    def hurried(client: CaseLinksClient, *rest: Any, retry: RetryPolicy = RetryPolicy(), **more: Any) -> None:  # noqa: B008
        init(client, *rest, retry=evolve(retry, base=0.01, settle=0.01, patience=0), **more)

    with patch.object(CaseLinksClient, "__init__", hurried):
        yield
