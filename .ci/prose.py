"""Report retired words in the added lines of the commit that is being made.

Each word has a plainer one, which the report suggests. Run by pre-commit.
"""

from __future__ import annotations

import re
import subprocess
import sys

RETIRED = {
    r"\b(is|are|was) no (UUID|JSON|HTTP|YAML)\b": "is not a UUID, is not valid JSON",
    r"\b(whoever|whatever|whichever)\b": "anyone, any, the caller",
    r"\b(stands|stand) (in|there|beside)\b": "is, appears, exists",
    r"\b(mend|mends|cure|blot out)\b": "fix, solution, redact",
    r"\bgoes round\b": "contains a cycle",
    r"\b(once more|anew|meanwhile)\b": "again, in the meantime, or nothing",
    r"\bnobody asked for\b": "unsolicited",
    r"\b(in a word|by way of|in hand)\b": "clearly, through, in progress",
    r"\bto be watched\b": "observable",
}


def added_lines() -> list[tuple[str, str]]:
    """Return the added lines of the index, each with the name of its file."""
    command = ["git", "diff", "--cached", "--unified=0", "--no-color", "--", "*.py", "*.md", ":!.ci/prose.py"]
    found, file = [], ""
    for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
        if line.startswith("+++ "):
            file = line.removeprefix("+++ b/")
        elif line.startswith("+"):
            found.append((file, line[1:].strip()))
    return found


def main() -> int:
    """Print each retired word that was added, and return the exit code."""
    found = 0
    for file, line in added_lines():
        for pattern, better in RETIRED.items():
            if match := re.search(pattern, line, re.IGNORECASE):
                found += 1
                sys.stdout.write(f"{file}: {match[0]!r}; write: {better}\n    {line}\n")
    return min(found, 1)


if __name__ == "__main__":
    sys.exit(main())
