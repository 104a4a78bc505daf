"""What this SDK costs and what it keeps, measured beside its alternatives: ``nox -s bench``."""
