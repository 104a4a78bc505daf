"""This run of pytest ignores the project in this folder, which is tested in a run of its own."""

collect_ignore = ["project"]
