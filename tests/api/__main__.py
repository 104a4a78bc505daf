"""``python -m tests.api`` lists changes since the last release that break users' programs.

The last release is the latest tag ``v…``. The exit status is 1 if there is a breaking change that the version
does not announce.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.api.changes import breaking_changes, is_announced, last_release


def main() -> int:
    """Print each breaking change, and return 1 if the version does not announce them."""
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
