"""Exclude the project in this folder from this run of pytest; it is tested in a run of its own."""

collect_ignore = ["project"]
