"""A test that does not use the plugin; collected only when it is named."""

import sys


def test_nothing_is_imported() -> None:
    """A run that uses no fixture imports only the plugin and no dependency of the package."""
    package = "datadog_caselinks"
    imported = {name for name in sys.modules if name.partition(".")[0] == package}
    plugin = (f"{package}.{name}" for name in ("version", "testing", "testing.pytest_plugin"))
    assert imported == {package, *plugin}
    assert not {"aiohttp", "attrs", "cattrs", "backoff"} & set(sys.modules)
