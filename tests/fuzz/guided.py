"""Fuzz the one target that the command line names, in a process of its own, because atheris ends it."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["datadog_caselinks", "json", "csv", "yaml", "urllib", "email"]):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()
