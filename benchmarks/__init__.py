"""The costs and guarantees of this SDK, measured beside its alternatives: ``nox -s bench``."""
