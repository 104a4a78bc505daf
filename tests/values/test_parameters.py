"""The rules of arguments: an invalid one is refused by name before anything is sent."""

from __future__ import annotations

import datetime
import io
import math
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final, cast
from unittest.mock import AsyncMock

import aiohttp
import attrs
import pytest

from datadog_caselinks import (
    ApiKeys,
    BearerToken,
    CaseKey,
    CaseLinksClient,
    ConfigurationError,
    InvalidLinkError,
    LinkPlan,
    ParameterError,
    Rate,
    Resolver,
    RetryPolicy,
    SessionManager,
    Site,
    parse_link,
    parse_reference,
    public,
    read_journal,
    read_link_file,
)
from datadog_caselinks.sandbox import Fault, FaultRule, RateLimitRule, Sandbox
from tests.support.ids import case, some_id

KEYS: Final = ApiKeys(api_key="an-api-key", app_key="an-app-key")
NEW: Final = case(some_id(1)).blocks(case(some_id(2)))

LONE_SURROGATE: Final = pytest.param(
    "run\ud800.journal", marks=pytest.mark.skipif(sys.platform == "win32", reason="allowed in paths there")
)


class NotIterable:
    """An object without any interface."""


async def async_function(*_: object) -> None:
    pass


class AsyncCallable:
    async def __call__(self, *_: object) -> None:
        pass


def unverified(*, checks_certificate: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    if not checks_certificate:
        context.verify_mode = ssl.CERT_NONE
    return context


WRONG_FOR_THE_CLIENT: Final[dict[str, list[object]]] = {
    "timeout": [None, "30", True, (3, 5), datetime.timedelta(seconds=3), aiohttp.ClientTimeout(10), math.nan],
    "max_concurrency": [None, "10", True, 2.5, math.inf, 0],
    "rate": [50, (50, 1), {}, Rate],
    "retry": [None, 3, False, {}, RetryPolicy],
    "sessions": ["session", NotIterable(), aiohttp.ClientSession, False],
    "proxy": [b"http://proxy.example", False, {"https": "http://user:a-password@proxy.example"}],
    "ssl": [False, 0, "", "ca.pem", ssl.SSLContext, aiohttp.Fingerprint(bytes(32)), unverified()],
    "on_event": ["event", [], NotIterable(), async_function, AsyncCallable(), AsyncMock()],
}


class TestClient:
    @pytest.mark.parametrize(
        ("name", "value"),
        [(name, value) for name, values in WRONG_FOR_THE_CLIENT.items() for value in values],
    )
    def test_an_argument_that_cannot_work_is_refused_by_name(self, name: str, value: Any) -> None:
        """An invalid argument is refused by name, without quoting a password."""
        with pytest.raises(ParameterError, match=f"^{name}\\b") as caught:
            CaseLinksClient("EU1", KEYS, **{name: value})
        assert "a-password" not in str(caught.value)

    @pytest.mark.parametrize("value", [None, 5, b"EU1", NotIterable(), Site])
    def test_a_site_is_a_site_or_text(self, value: Any) -> None:
        """A site of another type, such as ``None`` for an unset variable, is refused by name."""
        with pytest.raises(ParameterError, match=r"^site must be a Site, or text such as"):
            CaseLinksClient(value, KEYS)

    @pytest.mark.parametrize("value", [None, "a-secret", ("a-secret", "b"), {"api_key": "a-secret"}, ApiKeys])
    def test_credentials_are_keys_or_a_token(self, value: Any) -> None:
        """Credentials of another type are refused without being quoted, since they may be a key."""
        with pytest.raises(ParameterError, match=r"^credentials must be ApiKeys\(.*BearerToken") as caught:
            CaseLinksClient("EU1", value)
        assert "a-secret" not in str(caught.value)

    @pytest.mark.parametrize("proxy", [None, "", " "])
    def test_a_proxy_that_is_not_set_is_no_proxy(self, proxy: str | None) -> None:
        """A proxy of ``None`` or an empty text means no proxy, as for an unset variable."""
        assert CaseLinksClient("EU1", KEYS, proxy=proxy).site == Site.EU1

    @pytest.mark.parametrize("value", [None, True, ssl.create_default_context()])
    def test_a_context_that_checks_certificates_is_accepted(self, value: Any) -> None:
        """A context that checks certificates is accepted as ``ssl``, as is ``True``, aiohttp's default."""
        assert CaseLinksClient("EU1", KEYS, ssl=value).site == Site.EU1

    def test_checks_of_certificates_stay_on(self) -> None:
        """A context that does not check certificates is refused with the solution, as is ``ssl=False``."""
        for value in (False, unverified(), unverified(checks_certificate=True)):
            with pytest.raises(ParameterError, match=r"unverified server.*cafile=.*SSL_CERT_FILE"):
                CaseLinksClient("EU1", KEYS, ssl=value)  # type: ignore[arg-type]


class TestSession:
    async def test_a_connector_without_checks_is_refused(self) -> None:
        """A session whose connector does not check certificates is refused."""
        for value in (False, unverified(), unverified(checks_certificate=True)):
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=value)) as session:
                with pytest.raises(ParameterError, match=r"^session: .*connector.*unverified server"):
                    CaseLinksClient("EU1", KEYS, sessions=session)

    @pytest.mark.parametrize("value", [True, ssl.create_default_context(), aiohttp.Fingerprint(bytes(32))])
    async def test_a_connector_with_checks_is_accepted(self, value: Any) -> None:
        """A session may check certificates by a context, by aiohttp's default or by a fingerprint."""
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=value)) as session:
            assert CaseLinksClient("EU1", KEYS, sessions=session).site == Site.EU1

    @pytest.mark.parametrize("value", ["session", 5, aiohttp.ClientSession])
    def test_a_session_is_a_session(self, value: Any) -> None:
        """A session manager accepts only an ``aiohttp.ClientSession``."""
        with pytest.raises(ParameterError, match=r"^session must be an aiohttp\.ClientSession"):
            SessionManager(value)

    @pytest.mark.parametrize("value", [None, 5, ["hook"], aiohttp.TraceConfig()])
    def test_hooks_are_a_list(self, value: Any) -> None:
        """Trace hooks of another type are refused when the manager is created."""
        with pytest.raises(ParameterError, match=r"^trace_configs must be a list of aiohttp\.TraceConfig"):
            SessionManager(trace_configs=value)


class TestRetryPolicy:
    @pytest.mark.parametrize("name", [each.name for each in attrs.fields(RetryPolicy)])
    @pytest.mark.parametrize("value", ["3", True, math.nan, -1, datetime.timedelta(seconds=3)])
    def test_a_setting_that_is_not_a_number_in_range_is_refused(self, name: str, value: Any) -> None:
        """A setting that is not a number in its range is refused by name."""
        with pytest.raises(ParameterError, match=f"^{name} must be "):
            RetryPolicy(**{name: value})

    def test_a_count_is_a_whole_number(self) -> None:
        """A number of attempts must be an integer, or ``math.inf`` for no maximum."""
        for name in ("max_attempts", "max_rate_limited"):
            with pytest.raises(ParameterError, match=f"^{name} must be a whole number, not 2.5$"):
                RetryPolicy(**{name: 2.5})  # type: ignore[arg-type]
            assert getattr(RetryPolicy(**{name: math.inf}), name) == math.inf  # type: ignore[arg-type]

    def test_a_wait_ends(self) -> None:
        """An infinite wait is refused, because the call would never return."""
        for name in ("base", "settle"):
            with pytest.raises(ParameterError, match=f"^{name} must be a finite number, not inf$"):
                RetryPolicy(**{name: math.inf})  # type: ignore[arg-type]


class TestSite:
    @pytest.mark.parametrize(
        ("url", "problem"),
        [
            ("http://datadog.example", "would send the keys unencrypted"),
            ("api.datadoghq.eu", "has no host"),
            ("https://user:a-password@api.example", "contains a user name or password"),
            ("https://api.example?a=b", "has a query or fragment"),
            ("https://[api.example", "is not a URL"),
        ],
    )
    def test_a_site_that_is_constructed_is_checked_too(self, url: str, problem: str) -> None:
        """A site that is constructed directly is checked as by ``Site.parse``."""
        with pytest.raises(ConfigurationError, match=problem) as caught:
            Site("of my own", url)
        assert "a-password" not in str(caught.value)

    def test_the_type_is_checked(self) -> None:
        """The name and the URL of a site, and the argument of ``Site.parse``, must be text."""
        for construct, arguments in (
            (Site, ("name", None)),
            (Site, (5, "https://api.example")),
            (Site.parse, (None,)),
        ):
            with pytest.raises(ParameterError, match=r"^(name|api_url|site) must be "):
                cast("Any", construct)(*arguments)

    @pytest.mark.parametrize("text", ['"datadoghq.eu"', "'EU1'", '"https://app.datadoghq.eu"'])
    def test_quotation_marks_are_named(self, text: str) -> None:
        """A site in quotation marks is refused with the advice to remove them."""
        with pytest.raises(ConfigurationError, match=r"is in quotation marks: remove them$"):
            Site.parse(text)


class TestCredentials:
    @pytest.mark.parametrize("mark", ['"', "'", "`"])
    def test_quotation_marks_around_a_key_are_named(self, mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A key in quotation marks, which ``docker run --env-file`` keeps, is refused and not quoted."""
        marked = f"{mark}a-secret{mark}"
        for names in (("DD_API_KEY", "DD_APP_KEY"), ("DD_BEARER_TOKEN",)):
            for name in ("DD_API_KEY", "DD_APP_KEY", "DD_BEARER_TOKEN"):
                monkeypatch.delenv(name, raising=False)
            for name in names:
                monkeypatch.setenv(name, marked)
            with pytest.raises(ConfigurationError, match=f"^{names[0]} is in quotation marks: ") as caught:
                CaseLinksClient.from_env("EU1")
            assert "a-secret" not in str(caught.value)
        for construct in (lambda: ApiKeys(api_key=marked, app_key="b"), lambda: BearerToken(marked)):
            with pytest.raises(ConfigurationError, match="is in quotation marks"):
                construct()


class TestReference:
    @pytest.mark.parametrize("dash", "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe63\uff0d\u00ad")
    def test_a_dash_is_called_a_dash(self, dash: str) -> None:
        """The message for a dash instead of a hyphen names the dash and the right text."""
        key, id = f"SHOP{dash}1", some_id(1).replace("-", dash)
        for parse, meant in (
            (lambda: parse_reference(key), "SHOP-1"),
            (lambda: parse_reference(f" {key} "), "SHOP-1"),
            (lambda: parse_reference(id), some_id(1)),
            (lambda: parse_reference(f"incident:{id}"), some_id(1)),
            (lambda: parse_reference(f"https://app.datadoghq.eu/cases/{key}"), "SHOP-1"),
            (lambda: parse_link(key, "blocks", "SHOP-2"), "SHOP-1"),
            (lambda: case(id), some_id(1)),
        ):
            expected = rf"U\+{ord(dash):04X} is a dash and not a hyphen, write {meant}$"
            with pytest.raises(InvalidLinkError, match=expected):
                parse()

    async def test_a_dash_in_a_key_to_get(self, client: CaseLinksClient) -> None:
        """``get_case`` names the dash in a key as ``parse_reference`` does."""
        with pytest.raises(InvalidLinkError, match=r"U\+2013 is a dash and not a hyphen, write SHOP-1$"):
            await client.get_case("SHOP\u20131")

    def test_other_text_with_a_dash(self) -> None:
        """The message for another text with a dash lists the forms, since hyphens would not help."""
        with pytest.raises(InvalidLinkError, match="does not name an entity; write a case key"):
            parse_reference("the outage \u2013 of Friday")

    @pytest.mark.parametrize("value", [None, 5, ["SHOP-1"]])
    async def test_the_type_is_checked(self, value: Any, resolver: Resolver) -> None:
        """A reference of another type raises ``InvalidLinkError``."""
        for parse in (
            lambda: parse_reference(value),
            lambda: parse_link(value, "BLOCKS", "SHOP-1"),
            lambda: parse_link("SHOP-1", value, "SHOP-2"),
            lambda: CaseKey(value),
        ):
            with pytest.raises(InvalidLinkError):
                parse()
        for look_up in (resolver.entity, resolver.case, resolver.link):
            with pytest.raises(InvalidLinkError):
                await look_up(value)

    def test_the_site_is_a_site(self) -> None:
        """The name of a site is not accepted as a site for parsing."""
        for parse in (
            lambda: parse_reference("SHOP-1", site="EU1"),  # type: ignore[arg-type]
            lambda: parse_link(NEW.parent, "BLOCKS", NEW.child, site="EU1"),  # type: ignore[arg-type]
        ):
            with pytest.raises(ParameterError, match=r"^site must be a Site, such as Site\.EU1, not 'EU1'$"):
                parse()


@pytest.fixture
def resolver(client: CaseLinksClient) -> Resolver:
    return client.resolver()


CALLS: Final[dict[str, tuple[str, Callable[[CaseLinksClient], Any]]]] = {
    "links: none": ("source", lambda client: client.create_links(None)),  # type: ignore[arg-type]
    "links: one": ("source", lambda client: client.create_links(NEW)),  # type: ignore[arg-type]
    "links: a path": ("source", lambda client: client.create_links("links.csv")),  # type: ignore[arg-type]
    "links: a function": (
        "source",
        lambda client: client.create_links(lambda: [NEW]),  # type: ignore[arg-type]
    ),
    "concurrency: text": (
        "concurrency",
        lambda client: client.create_links([NEW], concurrency="3"),  # type: ignore[arg-type]
    ),
    "concurrency: a fraction": (
        "concurrency",
        lambda client: client.create_links([NEW], concurrency=2.5),  # type: ignore[arg-type]
    ),
    "journal: a null byte": ("journal", lambda client: client.create_links([NEW], journal="run\0.journal")),
    "journal: empty": ("journal", lambda client: client.create_links([NEW], journal="")),
    "journal: a flag": (
        "journal",
        lambda client: client.create_links([NEW], journal=True),  # type: ignore[arg-type]
    ),
    "journal: bytes": (
        "journal",
        lambda client: client.create_links([NEW], journal=b"run.journal"),  # type: ignore[arg-type]
    ),
    "wanted: none": ("wanted", lambda client: client.plan_links(None)),  # type: ignore[arg-type]
    "wanted: text": ("wanted", lambda client: client.plan_links("links.csv")),  # type: ignore[arg-type]
    "progress of a plan": (
        "progress",
        lambda client: client.plan_links([NEW], progress=5),  # type: ignore[arg-type]
    ),
    "depth: text": (
        "depth",
        lambda client: client.read_graph(NEW.parent, depth="2"),  # type: ignore[arg-type]
    ),
    "depth: none": (
        "depth",
        lambda client: client.read_graph(NEW.parent, depth=None),  # type: ignore[arg-type]
    ),
    "max_nodes: text": (
        "max_nodes",
        lambda client: client.read_graph(NEW.parent, max_nodes="9"),  # type: ignore[arg-type]
    ),
    "progress of a graph": (
        "progress",
        lambda client: client.read_graph(NEW.parent, progress=async_function),  # type: ignore[arg-type]
    ),
}


class TestMethods:
    @pytest.mark.parametrize("name", CALLS)
    async def test_an_argument_that_cannot_work_is_refused_by_name(
        self, client: CaseLinksClient, sandbox: Sandbox, name: str
    ) -> None:
        """A call with an invalid argument is refused by name, and sends nothing."""
        parameter, call = CALLS[name]
        with pytest.raises(ParameterError, match=rf"^{parameter}\b"):
            await _complete(call(client))
        assert sandbox.requests == []

    @pytest.mark.parametrize("plan", [None, "plan", [NEW]])
    def test_a_plan_is_a_plan(self, client: CaseLinksClient, plan: Any) -> None:
        """``apply_plan`` accepts only the result of ``plan_links``, and refuses others at once."""
        with pytest.raises(ParameterError, match=r"^plan must be a LinkPlan"):
            client.apply_plan(plan)
        client.apply_plan(LinkPlan())

    async def test_a_graph_of_nothing(self, client: CaseLinksClient) -> None:
        """A graph around an object that is not an entity or a text is refused."""
        with pytest.raises(InvalidLinkError, match=r"^5 does not name an entity"):
            await client.read_graph(5)  # type: ignore[arg-type]


async def _complete(call: Any) -> None:
    if isinstance(call, AsyncIterator):
        async for _ in call:
            pass
    else:
        await call


class TestFiles:
    @pytest.mark.parametrize("file", ["links.csv", None, io.StringIO("parent,relationship,child\n")])
    async def test_a_file_of_links_is_a_binary_stream(self, file: Any) -> None:
        """A link file must be a binary stream; the message says how to open one."""
        with pytest.raises(ParameterError, match=r'^file must be a binary stream such as open\(path, "rb"'):
            await _complete(read_link_file(file))

    async def test_the_site_of_a_file_is_a_site(self) -> None:
        """The site for a link file must be a ``Site``, which is checked before the first line."""
        with pytest.raises(ParameterError, match=r"^site must be a Site"):
            await _complete(read_link_file(io.BytesIO(), site="EU1"))  # type: ignore[arg-type]

    @pytest.mark.parametrize("path", [None, 5, "", b"run.journal", "run\0.journal", LONE_SURROGATE])
    def test_a_journal_is_a_path(self, path: Any) -> None:
        """The path of a journal is refused if it is empty or of another type."""
        with pytest.raises(ParameterError, match=r"^path (must be|is empty: it must be) the path of a file"):
            list(read_journal(path))

    async def test_a_path_object_is_a_path(self, client: CaseLinksClient, tmp_path: Path) -> None:
        """The path of a journal can be any ``os.PathLike`` of text."""
        journal = tmp_path / "run.journal"
        await _complete(client.create_links([NEW], journal=journal))
        assert [record.new for record in read_journal(journal)] == [NEW]


@pytest.mark.parametrize("count", [10**20, 10**5000], ids=["21 digits", "5,001 digits"])
async def test_a_whole_number_may_have_any_size(sandbox: Sandbox, count: int) -> None:
    """A number of requests in flight that no machine has is accepted, and works."""
    async with CaseLinksClient(sandbox.site, sandbox.credentials, max_concurrency=count) as client:
        await client.create_link(NEW)
        assert len(await client.list_links(NEW.parent)) == 1


WRONG_FOR_THE_SANDBOX: Final[list[tuple[str, dict[str, Any]]]] = [
    ("port", {"port": "8126"}),
    ("port", {"port": None}),
    ("db", {"db": None}),
    ("clock", {"clock": 5}),
    ("fault_seed", {"fault_seed": [1]}),
    ("faults", {"faults": None}),
    ("faults", {"faults": "lost-response"}),
    ("5 is not a fault rule", {"faults": [5]}),
    ("5 is not a rate limit", {"rate_limit": 5}),
    ("list_lag", {"list_lag": "1"}),
    ("list_lag", {"list_lag": None}),
]


class TestSandbox:
    @pytest.mark.parametrize(("message", "arguments"), WRONG_FOR_THE_SANDBOX)
    def test_an_argument_that_cannot_work_is_refused_by_name(
        self, message: str, arguments: dict[str, Any]
    ) -> None:
        """An argument of the sandbox with the wrong type is refused by name."""
        with pytest.raises(ParameterError, match=rf"^{message}\b"):
            Sandbox(**arguments)

    def test_faults_and_cases(self, sandbox: Sandbox) -> None:
        """Wrong arguments are refused too while the sandbox runs, and by its rules."""
        for act in (
            lambda: sandbox.fail_next(Fault.RESET, count="1"),  # type: ignore[arg-type]
            lambda: sandbox.fail_next(Fault.DELAY, seconds="1"),  # type: ignore[arg-type]
            lambda: sandbox.add_case(None),  # type: ignore[arg-type]
            lambda: setattr(sandbox, "rate_limit", 5),
            lambda: RateLimitRule("200", 2),  # type: ignore[arg-type]
            lambda: FaultRule("reset", probability="all"),  # type: ignore[arg-type]
        ):
            with pytest.raises(ParameterError):
                act()


class TestValues:
    def test_equal_entities_have_equal_dictionaries(self) -> None:
        """``attrs.asdict`` of an entity has its id and type, however the entity was created."""
        used = case(some_id(1))
        used.blocks(case(some_id(2)))
        parsed = parse_reference(some_id(1))
        assert attrs.asdict(used) == {"id": some_id(1), "type": "CASE"}
        assert attrs.asdict(used) == attrs.asdict(attrs.evolve(used)) == attrs.asdict(parsed)

    @pytest.mark.parametrize("name", [name for name in vars(public) if name[0].isupper()])
    def test_no_public_value_has_a_private_attribute(self, name: str) -> None:
        """No public attrs class has a private attribute."""
        kind = getattr(public, name)
        if isinstance(kind, type) and attrs.has(kind):
            assert [each.name for each in attrs.fields(kind) if each.name.startswith("_")] == []

    def test_a_mock_has_the_attributes_of_a_client(self, client: CaseLinksClient, sandbox: Sandbox) -> None:
        """Each public attribute of an object is on its class, so that ``AsyncMock(spec=…)`` has it."""
        mock = AsyncMock(spec=CaseLinksClient)
        mock.site = Site.EU1
        assert mock.site.domain == "datadoghq.eu"
        for each in (client, sandbox, SessionManager(), client.resolver()):
            own = {name for name in dir(each) if not name.startswith("_")}
            assert own <= set(dir(type(each)))
