"""Calls as observers, traces and metrics see them."""
