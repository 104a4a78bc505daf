"""Bulk linking: concurrent creation, link files, and journals that let a run resume."""
