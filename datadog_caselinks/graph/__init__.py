"""Graphs of links, plans that compare wanted with existing links, and pictures."""
