"""How the documentation is built: ``nox -s docs``."""

from importlib import metadata

project = "datadog_caselinks"
release = metadata.version("datadog_caselinks")
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build", "benchmark-table.md"]
html_theme = "furo"
html_title = f"datadog_caselinks {release}"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
myst_heading_anchors = 3
nitpicky = False
