"""The rules of sites: which texts name which site, and which are refused to protect the keys."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from datadog_caselinks import ConfigurationError, Site
from datadog_caselinks.values.sites import SITES

# name, DD_SITE, API host, web host
TABLE = [
    ("US1", "datadoghq.com", "api.datadoghq.com", "app.datadoghq.com"),
    ("US3", "us3.datadoghq.com", "api.us3.datadoghq.com", "us3.datadoghq.com"),
    ("US5", "us5.datadoghq.com", "api.us5.datadoghq.com", "us5.datadoghq.com"),
    ("EU1", "datadoghq.eu", "api.datadoghq.eu", "app.datadoghq.eu"),
    ("AP1", "ap1.datadoghq.com", "api.ap1.datadoghq.com", "ap1.datadoghq.com"),
    ("AP2", "ap2.datadoghq.com", "api.ap2.datadoghq.com", "ap2.datadoghq.com"),
    ("UK1", "uk1.datadoghq.com", "api.uk1.datadoghq.com", "uk1.datadoghq.com"),
    ("US1-FED", "ddog-gov.com", "api.ddog-gov.com", "app.ddog-gov.com"),
    ("US2-FED", "us2.ddog-gov.com", "api.us2.ddog-gov.com", "us2.ddog-gov.com"),
]


@pytest.mark.parametrize(("name", "domain", "api_host", "web_host"), TABLE)
class TestTheNineSites:
    def test_by_every_host(self, name: str, domain: str, api_host: str, web_host: str) -> None:
        """The value of ``DD_SITE``, the API host and the web host all mean the site."""
        site = Site(name, f"https://{api_host}")
        assert Site.parse(domain) == Site.parse(api_host) == Site.parse(web_host) == site
        assert site.web_url == f"https://{web_host}"
        assert site.domain == domain

    def test_by_the_url_in_the_address_bar(
        self, name: str, domain: str, api_host: str, web_host: str
    ) -> None:
        """The path, the query, the fragment and the port of a site's URL are ignored, and https is used."""
        site = Site(name, f"https://{api_host}")
        assert Site.parse(f"https://{web_host}/cases/1?view=list&a=b#top") == site
        assert Site.parse(f"http://{web_host}:443/") == site
        assert Site.parse(f"https://{api_host}/api/v2/cases") == site

    def test_by_name_in_any_letter_case(self, name: str, domain: str, api_host: str, web_host: str) -> None:
        """A site is found by its name or its constant, in any letter case."""
        site = Site(name, f"https://{api_host}")
        assert Site.parse(name) == Site.parse(name.lower()) == Site.parse(name.title()) == site
        assert Site.parse(name.replace("-", "_")) == site

    def test_as_a_constant(self, name: str, domain: str, api_host: str, web_host: str) -> None:
        """Each site is a constant of the class, and is in ``SITES`` under its domain."""
        assert getattr(Site, name.replace("-", "_")) == SITES[domain] == Site(name, f"https://{api_host}")

    def test_however_it_is_written(self, name: str, domain: str, api_host: str, web_host: str) -> None:
        """White space, upper case and a final dot do not change the site."""
        site = Site(name, f"https://{api_host}")
        assert Site.parse(f"  {domain.upper()}\n") == Site.parse(f"{domain}.") == site
        assert Site.parse(f"HTTPS://{web_host.upper()}/Cases") == site

    def test_by_an_organisations_own_subdomain(
        self, name: str, domain: str, api_host: str, web_host: str
    ) -> None:
        """A subdomain of an organisation belongs to the site."""
        assert Site.parse(f"https://acme.{domain}/cases").name == name
        assert Site.parse(f"a.b.{domain}").name == name


def test_an_at_sign_in_a_search_is_no_password() -> None:
    """An @ in a query or path is not a password, because Datadog's searches contain it."""
    assert Site.parse("https://app.datadoghq.eu/cases?query=@assignee:me") == Site.EU1
    assert Site.parse("app.datadoghq.eu/cases/@me") == Site.EU1


def test_what_people_search_for_does_not_matter() -> None:
    """The path and the query of a site's URL may contain any characters."""
    assert Site.parse("https://app.datadoghq.eu/cases?query=zürich brücke") == Site.EU1


def test_there_are_nine() -> None:
    """The table has all nine sites."""
    assert [(site.name, domain) for domain, site in SITES.items()] == [row[:2] for row in TABLE]


class TestUnknownSites:
    @pytest.mark.parametrize(
        ("text", "nearest"),
        [
            ("us9.datadoghq.com", "us5.datadoghq.com"),
            ("https://us9.datadoghq.com/cases", "us5.datadoghq.com"),
            ("dtadoghq.com", "datadoghq.com"),
            ("us3.datadog.com", "us3.datadoghq.com"),
            ("https://datadog-hq.com", "datadoghq.com"),
            ("us2.ddog-gov.co", "us2.ddog-gov.com"),
        ],
    )
    def test_the_nearest_is_suggested(self, text: str, nearest: str) -> None:
        """The message for a misspelt site suggests the nearest one, and lists all nine."""
        with pytest.raises(ConfigurationError) as caught:
            Site.parse(text)
        assert f"{text!r} is not a Datadog site" in str(caught.value)
        assert f"Did you mean {nearest}?" in str(caught.value)
        assert all(domain in str(caught.value) for domain in SITES)

    @pytest.mark.parametrize("text", ["", " ", "x", "localhost", "127.0.0.1:8080", "example.com"])
    def test_nothing_far_off_is_suggested(self, text: str) -> None:
        """The message for a text unlike any site suggests none, and describes the valid forms."""
        with pytest.raises(ConfigurationError, match="or a base URL with https://") as caught:
            Site.parse(text)
        assert "Did you mean" not in str(caught.value)

    @pytest.mark.parametrize("label", ["us1", "us9", "eu1", "ap3", "uk2", "gov", "api.us9", "app.eu1"])
    @pytest.mark.parametrize("domain", ["datadoghq.com", "ddog-gov.com"])
    def test_a_site_of_tomorrow_is_no_organisation(self, label: str, domain: str) -> None:
        """A subdomain that could be a future site is not taken for an organisation."""
        with pytest.raises(ConfigurationError, match="is not a Datadog site"):
            Site.parse(f"{label}.{domain}")

    @pytest.mark.parametrize(
        "host",
        [
            "datadoghq.com.evil.example",
            "app.datadoghq.com.evil.example",
            "datadog-hq.com",
            "datadoghq.co",
            "xdatadoghq.com",
            "ddog-gov.org",
            "DATADOGHQ.COM.EVIL.EXAMPLE",
            "evil.example\uff0fdatadoghq.com",
            "datadoghq\u3002com",
            "data\u0501oghq.com",  # a Cyrillic letter
            "\u24d3atadoghq.com",  # a circled letter, which IDNA converts to a plain one
        ],
    )
    @pytest.mark.parametrize("form", ["{}", "https://{}", "https://{}:8443/cases"])
    def test_a_host_that_resembles_datadogs_is_refused(self, host: str, form: str) -> None:
        """A host that resembles Datadog's is refused, because it would get the keys."""
        with pytest.raises(ConfigurationError):
            Site.parse(form.format(host))

    @pytest.mark.parametrize(
        ("host", "number"),
        [("data\u0501oghq.com", "U+0501"), ("app.datadoghq.com\u200b", "U+200B"), ("a b", "U+0020")],
    )
    def test_the_message_names_a_character_that_is_not_allowed(self, host: str, number: str) -> None:
        """The message names an invisible or misleading character by its code point."""
        with pytest.raises(ConfigurationError, match=rf"a URL cannot contain {number[0]}\{number[1:]}$"):
            Site.parse(f"https://{host}")

    @pytest.mark.parametrize(
        "text",
        ["x" * 100_000, "\U0001f600" * 100_000, f"x:{'y' * 100_000}", "https://" + "\U0001f600" * 1000],
    )
    def test_a_long_text_is_cut(self, text: str) -> None:
        """The message shortens a long text."""
        with pytest.raises(ConfigurationError) as caught:
            Site.parse(text)
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize("url", ["https://proxy.example", "https://api.example.com", "http://localhost:1"])
def test_a_server_of_your_own_has_no_domain(url: str) -> None:
    """A server that is not Datadog's has no domain and no web URL."""
    site = Site.parse(url)
    assert (site.domain, site.web_url) == (None, None)


class TestBaseUrls:
    @pytest.mark.parametrize(
        ("text", "api_url"),
        [
            ("https://proxy.example", "https://proxy.example"),
            ("https://proxy.example/", "https://proxy.example"),
            ("https://proxy.example:8443/datadog/", "https://proxy.example:8443/datadog"),
            ("https://proxy.example/a/b%20c//", "https://proxy.example/a/b%20c"),
            ("https://10.0.0.7:8443", "https://10.0.0.7:8443"),
            ("https://[2001:db8::1]:8443/x", "https://[2001:db8::1]:8443/x"),
            ("https://xn--tda.example", "https://xn--tda.example"),
            ("https://my_gateway.internal", "https://my_gateway.internal"),
        ],
    )
    def test_a_server_of_ones_own(self, text: str, api_url: str) -> None:
        """A URL of another server keeps its port and path, and loses a final slash."""
        assert Site.parse(text) == Site(URL(api_url).raw_host or "", api_url)

    @pytest.mark.parametrize(
        "url",
        [
            "http://localhost",
            "http://localhost:8080",
            "http://127.0.0.1:8080/base",
            "http://127.255.255.254",
            "http://[::1]:8080",
            "http://LOCALHOST:8080",
        ],
    )
    def test_http_is_for_loopback(self, url: str) -> None:
        """An ``http`` URL is accepted for loopback, because the keys do not leave the machine."""
        assert URL(Site.parse(url).api_url) == URL(url)

    @pytest.mark.parametrize(
        "url",
        [
            "http://proxy.example",
            "http://128.0.0.1",
            "http://0.0.0.0",
            "http://[::]",
            "http://10.0.0.1:8080",
            "http://localhost.evil.example",
            "http://127.0.0.1.evil.example",
            "http://2130706433",
            "http://0x7f.1",
            "ftp://proxy.example",
            "ws://localhost",
            "file:///etc/passwd",
        ],
    )
    def test_nothing_else_goes_in_the_clear(self, url: str) -> None:
        """Any other URL than https is refused beyond loopback, because each request contains the keys."""
        with pytest.raises(ConfigurationError):
            Site.parse(url)

    def test_the_message_says_why_http_is_refused(self) -> None:
        """The message for an ``http`` URL says that the keys would be sent unencrypted: use https."""
        with pytest.raises(ConfigurationError, match="would send the keys unencrypted: use https"):
            Site.parse("http://proxy.example")

    @pytest.mark.parametrize("tail", ["?a=b", "#top", "/?a", "/x?a#b"])
    def test_a_query_or_fragment_is_refused(self, tail: str) -> None:
        """A base URL with a query or a fragment is refused."""
        with pytest.raises(ConfigurationError, match="has a query or fragment: remove it"):
            Site.parse(f"https://proxy.example{tail}")

    @pytest.mark.parametrize("text", ["https://", "https:///path", "https://:8443"])
    def test_a_url_without_a_host_is_refused(self, text: str) -> None:
        """A URL without a host is refused."""
        with pytest.raises(ConfigurationError, match="has no host"):
            Site.parse(text)

    @pytest.mark.parametrize(
        "host",
        [
            "proxy.example",
            "proxy.example:99999",
            "proxy.example:x",
            "proxy.example/?a=b",
            "datadoghq.com",
            "app.datadoghq.eu/cases",
            "us9.datadoghq.com",
            "datadog-hq.com",
            "[::1",
            "",
            "a@b",
        ],
    )
    @pytest.mark.parametrize("start", ["https://me:", "http://", "ftp://:", "//me:", "me:", ""])
    def test_a_password_in_a_url_is_refused_and_not_shown(self, host: str, start: str) -> None:
        """A URL with a password is refused, and the message never shows the password."""
        with pytest.raises(ConfigurationError) as caught:
            Site.parse(f"{start}hunter2@{host}")
        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize(
        "text", ["https://me:hunter2/x@proxy.example", "me/hunter2@x", "https://hunter2\uff0f@x"]
    )
    def test_a_password_that_is_not_encoded_is_not_shown(self, text: str) -> None:
        """A password with a slash is not shown, although the slash ends the host."""
        with pytest.raises(ConfigurationError) as caught:
            Site.parse(text)
        assert "hunter2" not in str(caught.value)

    def test_the_message_says_why_a_password_is_refused(self) -> None:
        """The message for a URL with a password says what to remove."""
        with pytest.raises(ConfigurationError, match="user name or password: remove it"):
            Site.parse("https://user:hunter2@proxy.example")

    @pytest.mark.parametrize(
        "text", ["https://[::1", "https://proxy.example:99999", "https://proxy.example:x"]
    )
    def test_what_is_no_url_is_shown(self, text: str) -> None:
        """The message for an invalid URL quotes it and says what is wrong."""
        with pytest.raises(ConfigurationError, match="is neither a site nor a URL: ") as caught:
            Site.parse(text)
        assert repr(text) in str(caught.value)


ODD_HOSTS = [
    "a..b",
    ".",
    "..",
    "-",
    "-a.example",
    "%00",
    "a b",
    "a\x00b",
    "a\\b",
    "*.example",
    "ü.example",
    "a" * 300,
    "a." * 150 + "example",
    "[::1",
    "[v1.x]",
    "[fe80::1%25eth0]",
    "\ud800",
    "a\u200bb",
    "a:b:c",
    "x:",
    "x:0",
    "x/a b",
    "x/ü",
    "x/%zz",
    "x/\ud800",
    "x/\u202e",
    "x/a\\b",
]


class TestAnyText:
    @given(
        st.text(max_size=40)
        | st.text(max_size=20).map("https://{}".format)
        | st.text(max_size=20).map("http://localhost{}".format)
        | st.text(max_size=20).map("https://x.example/{}".format)
        | st.text(max_size=10).map("https://{}.datadoghq.com".format)
        | st.text(alphabet="htps:/@.[]%?#1a-_ \\\n", max_size=20)
    )
    @example("https://[::1%/]")
    @example("http://[]")
    def test_is_a_site_that_can_be_asked_or_refused(self, text: str) -> None:
        """Any text is a usable site or raises ``ConfigurationError``."""
        _require_usable_or_refused(text)

    @pytest.mark.parametrize("scheme", ["https://", "http://", ""])
    @pytest.mark.parametrize("host", ODD_HOSTS)
    def test_an_odd_host_can_be_asked_or_is_refused(self, scheme: str, host: str) -> None:
        """A URL with an odd host is a usable site or raises ``ConfigurationError``."""
        _require_usable_or_refused(scheme + host)

    @pytest.mark.parametrize("host", ["a..b", "-", "%00", "a b", "a\\b", "ü.example", "a" * 300, "\ud800"])
    def test_what_is_no_host_name_is_refused(self, host: str) -> None:
        """An invalid host name is refused when the site is parsed."""
        with pytest.raises(ConfigurationError) as caught:
            Site.parse(f"https://{host}")
        assert str(caught.value).isprintable()

    @given(st.sampled_from([*SITES.values()]) | st.just(Site("x", "https://x")))
    def test_a_site_is_found_by_its_own_url_and_pickles(self, site: Site) -> None:
        """A site is a value, and can be parsed from its own ``api_url`` in another process."""
        assert Site.parse(site.api_url) == site == pickle.loads(pickle.dumps(site))


def _require_usable_or_refused(text: str) -> None:
    try:
        site = Site.parse(text)
    except ConfigurationError as error:
        assert str(error).isprintable()  # noqa: PT017 - most texts are refused, not all
        return
    url = URL(site.api_url + "/api/v2/cases/link", encoded=True)
    assert site.api_url.isascii()
    assert site.api_url.isprintable()
    assert " " not in site.api_url
    assert url.raw_host
    assert url.raw_host == URL(site.api_url).raw_host
    assert site.api_url.startswith(("https://", "http://localhost", "http://127.", "http://[::1]"))
    assert Site.parse(site.api_url) == site
