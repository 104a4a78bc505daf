"""Helpers for tests of ``caselinks bulk``."""

from __future__ import annotations

from tests.cli.program import Finished, caselinks

HEADER = "parent_id,parent_type,relationship,child_id,child_type\n"


async def bulk(variables: dict[str, str], *arguments: str, stdin: bytes = b"") -> Finished:
    """Run ``caselinks bulk`` to its end."""
    return await caselinks(variables, "bulk", *arguments, stdin=stdin)
