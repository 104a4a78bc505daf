"""Pictures of a graph of links: for a terminal, as Mermaid, DOT and SVG, and as a page. Knows no HTTP.

Each is a function of the graph alone, and makes of the same graph the same text. None needs the network,
and what others wrote into titles stays text in all of them.
"""

from datadog_caselinks.graph.rendering.dot import dot
from datadog_caselinks.graph.rendering.mermaid import mermaid
from datadog_caselinks.graph.rendering.page import page
from datadog_caselinks.graph.rendering.svg import svg
from datadog_caselinks.graph.rendering.tree import Line, Piece, Style, tree, tree_lines
from datadog_caselinks.graph.rendering.words import heading, notes

__all__ = [
    "Line",
    "Piece",
    "Style",
    "dot",
    "heading",
    "mermaid",
    "notes",
    "page",
    "svg",
    "tree",
    "tree_lines",
]
