"""Coverage-guided fuzzing: ``python -m tests.fuzz [SECONDS] [TARGET ...]``. Needs atheris."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile

from tests.fuzz.targets import CORPUS, TARGETS

SECONDS = 120


def main(arguments: list[str]) -> int:
    """Fuzz each target for its share of the time, and print the number of inputs."""
    seconds = int(arguments.pop(0)) if arguments and arguments[0].isdecimal() else SECONDS
    names = arguments or list(TARGETS)
    tried = {name: fuzzed(name, max(1, seconds // len(names))) for name in names}
    print(f"{sum(tried.values()):>9,} inputs in all")
    return int(not all(tried.values()))


def fuzzed(name: str, seconds: int) -> int:
    """Return the number of inputs tried in ``seconds``; 0 after a failure, which is printed and saved."""
    with tempfile.TemporaryDirectory() as found:
        command = [sys.executable, "-m", "tests.fuzz.guided", name, found, str(CORPUS / name)]
        bounds = [f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=1024"]
        reports = [f"-artifact_prefix={name}-", "-verbosity=0", "-print_final_stats=1"]
        done = subprocess.run([*command, *bounds, *reports], capture_output=True, text=True, check=False)
    if done.returncode:
        reported = re.sub(r"(?m)^(INFO|WARNING): .*\n", "", done.stdout + done.stderr)
        print(reported, f"{name} failed: fix it, and move the file to {CORPUS / name}", sep="\n")
        return 0
    count = re.search(r"number_of_executed_units: +(\d+)", done.stderr)
    assert count, done.stderr
    print(f"{int(count[1]):>9,} inputs of {name}", flush=True)
    return int(count[1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
