"""``python -m tests.api``: what has changed since the last release so that users' programs would break.

The last release is the latest tag ``v…``. Exits with 1 if something broke, and the version does not say so.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.api.changes import breaking_changes, is_announced, last_release


def main() -> int:
    """Print each change, and return 1 if there is one that may not be."""
    project = Path()
    release = last_release(project)
    if release is None:
        print("no tag v… leads here: there is no release to compare with")
        return 0
    changes = breaking_changes(project, since=release)
    print(*changes, f"Breaking changes since {release}: {len(changes)}", sep="\n")
    return 1 if changes and not is_announced(project, since=release) else 0


if __name__ == "__main__":
    sys.exit(main())
