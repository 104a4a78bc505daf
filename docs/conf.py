"""How the documentation is built: ``nox -s docs``."""

import re
from importlib import metadata

from sphinx.application import Sphinx

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


def _name_functions(
    app: Sphinx,
    what: str,
    name: str,
    obj: object,
    options: object,
    signature: str | None,
    returned: str | None,
) -> tuple[str | None, str | None]:
    """Show functions by their names, and a policy without its defaults, as the source has them."""
    if signature:
        signature = re.sub(r"<(?:built-in )?function (\w+)>", r"\1", signature)
        signature = signature.replace("<function <lambda>>", "...")
        signature = re.sub(r"RetryPolicy\(max_attempts=[^)]*\)", "RetryPolicy()", signature)
    return signature, returned


def setup(app: Sphinx) -> None:
    """Connect the function above."""
    app.connect("autodoc-process-signature", _name_functions)
