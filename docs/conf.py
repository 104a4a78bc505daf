"""How the documentation is built: ``nox -s docs``."""

from importlib import metadata

project = "datadog_caselinks"
release = metadata.version("datadog_caselinks")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "benchmark-table.md"]
highlight_options = {"default": {"stripnl": True}}  # parts of programs end with the lines between
html_theme = "furo"
html_title = f"datadog_caselinks {release}"
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["pages.css"]
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
nitpicky = False
