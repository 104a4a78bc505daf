"""The proxy of the command: which variables set it, which exempt a site, and which values are invalid."""

from __future__ import annotations

import os

import pytest

from datadog_caselinks import ParameterError, Site
from datadog_caselinks.cli import proxies
from datadog_caselinks.cli.proxies import proxy_for

OWN = Site.parse("https://10.1.2.3:8443")
OWN_V6 = Site.parse("https://[fd00::1]")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


class TestVariables:
    @pytest.mark.parametrize(
        ("variables", "url", "name"),
        [
            ({"HTTPS_PROXY": "http://a.example:1"}, "http://a.example:1", "HTTPS_PROXY"),
            ({"https_proxy": "http://a.example:1"}, "http://a.example:1", "https_proxy"),
            ({"ALL_PROXY": "http://a.example:1"}, "http://a.example:1", "ALL_PROXY"),
            ({"all_proxy": "https://a.example:1"}, "https://a.example:1", "all_proxy"),
            ({"HTTPS_PROXY": "http://a.example", "ALL_PROXY": "x"}, "http://a.example", "HTTPS_PROXY"),
            ({"https_proxy": "http://a.example", "HTTPS_PROXY": "x"}, "http://a.example", "https_proxy"),
            ({"https_proxy": "", "HTTPS_PROXY": "http://a.example"}, "http://a.example", "HTTPS_PROXY"),
            ({"HTTPS_PROXY": " ", "ALL_PROXY": "http://a.example"}, "http://a.example", "ALL_PROXY"),
            ({"HTTPS_PROXY": "a.example:3128"}, "http://a.example:3128", "HTTPS_PROXY"),
            ({"HTTPS_PROXY": "user:p%40ss@a.example"}, "http://user:p%40ss@a.example", "HTTPS_PROXY"),
            ({"HTTPS_PROXY": " http://a.example:1\r"}, "http://a.example:1", "HTTPS_PROXY"),
        ],
    )
    def test_the_first_that_is_set(
        self, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str, name: str
    ) -> None:
        """Lower case goes first, ALL_PROXY last, and empty values are skipped, as in curl."""
        for variable, value in variables.items():
            monkeypatch.setenv(variable, value)
        choice = proxy_for(Site.US1)
        assert (choice.url, choice.reason) == (url, name)

    def test_none_is_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without a variable there is no proxy; HTTP_PROXY is reported as not used, as it is for http."""
        assert proxy_for(Site.US1).url is None
        assert proxy_for(Site.US1).reason is None
        monkeypatch.setenv("HTTP_PROXY", "http://a.example")
        assert proxy_for(Site.US1).url is None
        assert proxy_for(Site.US1).reason == "HTTP_PROXY is for http only, and not used"

    def test_a_site_on_loopback(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A server on loopback gets no proxy, even if a variable is set."""
        monkeypatch.setenv("HTTPS_PROXY", "socks5://a.example")
        assert proxy_for(Site.parse("http://127.0.0.1:8126")).url is None

    def test_the_settings_of_the_system(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """On macOS and Windows, the system settings can define a proxy and its exceptions."""
        monkeypatch.setattr(proxies, "getproxies", lambda: {"https": "http://a.example:1"})
        monkeypatch.setattr(proxies, "proxy_bypass", lambda host: host.endswith(".eu"))
        choice = proxy_for(Site.US1)
        assert (choice.url, choice.reason) == ("http://a.example:1", "the system's settings")
        choice = proxy_for(Site.EU1)
        assert (choice.url, choice.reason) == (None, "the system's settings exempt api.datadoghq.eu")


class TestFlaws:
    @pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
    @pytest.mark.parametrize(
        ("value", "problem"),
        [
            ('"http://a.example:3128"', "remove the quotation marks"),
            ("'a.example:3128'", "remove the quotation marks"),
            ("socks5://user:a-password@a.example:1080", "SOCKS proxies are not supported"),
            ("socks5h://a.example:1080", "SOCKS proxies are not supported"),
            ("http://user:a-password#@a.example:3128", "write / ? # as %2F %3F %23"),
            ("user:a-password/@a.example:3128", "write / ? # as %2F %3F %23"),
            ("http://user:a-password@", "must be a URL such as http://proxy.example:3128"),
            ("ftp://a.example", "must be a URL such as http://proxy.example:3128"),
            ("http://a.example:port", "must be a URL such as http://proxy.example:3128"),
        ],
    )
    def test_are_reported_by_the_name_of_the_variable(
        self, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, problem: str
    ) -> None:
        """The error for an invalid proxy names its variable but no password, and says how to use no proxy."""
        monkeypatch.setenv(variable, value)
        with pytest.raises(ParameterError, match=rf"^{variable} must be a URL") as caught:
            proxy_for(Site.EU1)
        assert problem in str(caught.value)
        assert str(caught.value).endswith(". To use no proxy, add api.datadoghq.eu to NO_PROXY")
        assert "a-password" not in str(caught.value)
        monkeypatch.setenv("NO_PROXY", "api.datadoghq.eu")
        assert proxy_for(Site.EU1).url is None

    def test_of_the_exceptions(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Quotation marks around NO_PROXY are refused, because no entry would match."""
        monkeypatch.setenv("HTTPS_PROXY", "http://a.example")
        monkeypatch.setenv("NO_PROXY", '"localhost,datadoghq.eu"')
        with pytest.raises(ParameterError, match=r"^NO_PROXY is in quotation marks: remove them$"):
            proxy_for(Site.EU1)


class TestExceptions:
    @pytest.mark.parametrize(
        ("exceptions", "site"),
        [
            ("*", Site.EU1),
            ("datadoghq.eu", Site.EU1),
            (".datadoghq.eu", Site.EU1),
            ("*.datadoghq.eu", Site.EU1),
            ("API.DATADOGHQ.EU", Site.EU1),
            ("api.datadoghq.eu:443", Site.EU1),
            ("localhost, datadoghq.eu", Site.EU1),
            ("localhost datadoghq.eu", Site.EU1),
            ("10.0.0.0/8", OWN),
            ("10.1.2.3", OWN),
            ("10.1.2.3:8443", OWN),
            ("10.1.2.3/24", OWN),
            ("fd00::/8", OWN_V6),
            ("[fd00::1]", OWN_V6),
        ],
    )
    def test_match(self, monkeypatch: pytest.MonkeyPatch, exceptions: str, site: Site) -> None:
        """NO_PROXY accepts domains with their subdomains, addresses, networks and *, as in curl."""
        monkeypatch.setenv("HTTPS_PROXY", "http://a.example")
        monkeypatch.setenv("NO_PROXY", exceptions)
        choice = proxy_for(site)
        assert choice.url is None
        assert choice.reason is not None
        assert choice.reason.startswith("HTTPS_PROXY is not used, because NO_PROXY exempts ")

    @pytest.mark.parametrize(
        ("exceptions", "site"),
        [
            ("", Site.EU1),
            (" , ", Site.EU1),
            ("datadoghq.com", Site.EU1),
            ("hq.eu", Site.EU1),
            ("api.datadoghq.eu:8443", Site.EU1),
            ("10.0.0.0/8", Site.EU1),
            (":443", Site.EU1),
            ("10.2.0.0/16", OWN),
            ("10.1.2.3:443", OWN),
            ("10.0.0.0/8", OWN_V6),
        ],
    )
    def test_do_not_match(self, monkeypatch: pytest.MonkeyPatch, exceptions: str, site: Site) -> None:
        """Entries of NO_PROXY for other domains, ports or networks do not exempt the site."""
        monkeypatch.setenv("HTTPS_PROXY", "http://a.example")
        monkeypatch.setenv("NO_PROXY", exceptions)
        assert proxy_for(site).url == "http://a.example"
