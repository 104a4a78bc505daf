"""The calls of a client: they create, look up, list and delete links, and retry what failed."""
