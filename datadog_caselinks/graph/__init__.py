"""The links around an entity as a graph; plans; pictures."""
