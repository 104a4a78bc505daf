"""Many links: one outcome each, files of links, and journals that a run goes on with."""
