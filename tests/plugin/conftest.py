"""The project in this folder is not for this run of pytest: it is one of a user, with a run of its own."""

collect_ignore = ["project"]
