"""Run the sandbox with its options as JSON.

The program prints its URL, and at its end its counts, unless it stores the links in a file.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from benchmarks.processes import serve_until_stdin_ends
from datadog_caselinks.sandbox import Sandbox


async def _main(options: dict[str, Any]) -> None:
    async with Sandbox(**options) as sandbox:
        await serve_until_stdin_ends(sandbox.url)
        if "db" in options:
            return  # the file has the links
        links = sandbox.links
        counted = {
            "rejected": sandbox.rejected,
            "first": links[0].created_at if links else None,
            "links": [(link.parent_entity_id, link.child_entity_id) for link in links],
        }
    print(json.dumps(counted))


if __name__ == "__main__":
    asyncio.run(_main(json.loads(sys.argv[1])))
