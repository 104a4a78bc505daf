"""A test that uses nothing of the plugin; collected only where it is named."""

import sys


def test_nothing_is_imported() -> None:
    """A project that has the package installed for another reason pays for no more than it uses."""
    plugin = sys.modules["datadog_caselinks.testing.pytest_plugin"]
    own = {name for name in sys.modules if name.partition(".")[0] == "datadog_caselinks"}
    assert own == {"datadog_caselinks", "datadog_caselinks.testing", plugin.__name__}
    assert not {"aiohttp", "attrs", "cattrs", "backoff"} & set(sys.modules)
