"""``python -m tests.mcp`` writes the table of tools and the transcripts into ``docs/mcp.md``."""

from __future__ import annotations

import asyncio

from tests.mcp.page import PAGE, filled, parts

if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(), asyncio.run(parts())))
    print(f"Written to {PAGE}.")
