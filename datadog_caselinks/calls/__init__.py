"""What one call does: a link created at most once, the other operations, retries, many at once."""
