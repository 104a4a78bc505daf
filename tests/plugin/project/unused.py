"""A test that does not use the plugin; collected only when it is named."""

import sys


def test_nothing_is_imported() -> None:
    """A run that uses no fixture imports only the plugin and no dependency of the package."""
    plugin = "datadog_caselinks.testing.pytest_plugin"
    imported = {name for name in sys.modules if name.partition(".")[0] == "datadog_caselinks"}
    assert imported == {"datadog_caselinks", "datadog_caselinks.testing", plugin}
    assert not {"aiohttp", "attrs", "cattrs", "backoff"} & set(sys.modules)
