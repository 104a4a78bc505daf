"""Pictures of a graph: a tree for terminals, Mermaid, DOT, SVG, and an HTML page.

Each function returns the same text for the same graph. The pictures need no network, and titles always
appear as plain text, never as markup.
"""

from datadog_caselinks.graph.rendering.dot import dot
from datadog_caselinks.graph.rendering.layout import Direction
from datadog_caselinks.graph.rendering.mermaid import mermaid
from datadog_caselinks.graph.rendering.page import page
from datadog_caselinks.graph.rendering.svg import README_WIDTH, svg
from datadog_caselinks.graph.rendering.tree import Line, Piece, Style, tree, tree_lines
from datadog_caselinks.graph.rendering.words import heading, notes

__all__ = [
    "README_WIDTH",
    "Direction",
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
