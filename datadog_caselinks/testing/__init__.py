"""Helpers for tests: the pytest plugin, a client that never waits, and the report of a failed test.

Imports nothing, since pytest loads the plugin in every run of an environment that has this package.
"""
