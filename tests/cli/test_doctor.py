"""``caselinks doctor``, run as a program: each check that succeeds, and each problem that it finds."""

from __future__ import annotations

import json
import re
from email.utils import formatdate
from pathlib import Path
from time import time

import pytest

from datadog_caselinks import ApiKeys, CaseLinksClient, CaseLinksError, RetryPolicy, case
from datadog_caselinks.sandbox import Sandbox
from tests.cli.program import Finished, caselinks, environment, on_terminal, pointing_at
from tests.support.authority import Authority
from tests.support.proxy import Proxy
from tests.support.server import Server
from tests.support.steps import answers, drops, listed
from tests.support.tcp import unused_port

KEYS = {"DD_API_KEY": "secret-api-key-0123456789", "DD_APP_KEY": "secret-app-key-0123456789"}

ACCESS = ["keys", "cases_read", "cases_write", "incident_read"]


def without_styles(line: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", line)


async def doctor(variables: dict[str, str], *arguments: str) -> tuple[Finished, dict[str, tuple[str, str]]]:
    """Run doctor; return the finished command, and the state and the message of each check."""
    done = await caselinks(variables, "doctor", "--output", "jsonl", *arguments)
    findings = [json.loads(line) for line in done.out.splitlines()]
    return done, {finding["check"]: (finding["state"], finding["message"]) for finding in findings}


pytestmark = pytest.mark.sandbox(rate_limit="200/2s")


async def test_all_is_fine(sandbox: Sandbox) -> None:
    """doctor runs every check in order, creates nothing, and ends with status 0."""
    done, found = await doctor(pointing_at(sandbox))
    assert list(found) == ["site", "credentials", "DNS", "TLS", "clock", *ACCESS, "rate limit"]
    assert {state for state, _ in found.values()} == {"ok"}
    assert found["rate limit"][1].startswith("200 requests in 2 s, 19")
    assert "named case_links: the metrics datadog.apis.rate_limit.usage.*" in found["rate limit"][1]
    assert (done.status, done.err, sandbox.links) == (0, "", [])
    methods = [(request.method, request.status) for request in sandbox.requests[1:]]
    assert methods == [("GET", 200), ("DELETE", 404), ("GET", 404)]  # these do not exist


async def test_a_terminal_shows_aligned_lines(sandbox: Sandbox) -> None:
    """A terminal shows one aligned line per check, and JSON Lines only with --output jsonl."""
    status, shown = await on_terminal(pointing_at(sandbox), "doctor")
    assert status == 0
    assert re.search(r"\x1b\[32m✓\x1b\[0m +keys +accepted", shown)
    assert "Ready to create links." in shown
    variables = pointing_at(sandbox) | {"DD_APP_KEY": "wrong"}
    status, shown = await on_terminal(variables, "doctor", "--quiet", columns=60)
    assert (status, "✓" in shown) == (1, False)
    assert "✗" in shown
    lines = shown.replace("\r", "").split("\n")
    assert max(map(len, map(without_styles, lines))) <= 90
    assert "Not ready to create links: fix what is marked above" in shown
    status, shown = await on_terminal(pointing_at(sandbox), "doctor", "--output", "jsonl")
    assert "✓" not in shown


async def test_it_ends_with_a_sentence(sandbox: Sandbox) -> None:
    """The last line, on standard error, says whether links can be created."""
    done = await caselinks(pointing_at(sandbox), "doctor")
    assert done.err == "Ready to create links.\n"
    assert done.out.splitlines()[0].startswith("ok\tsite\t")
    done = await caselinks(pointing_at(sandbox) | {"DD_APP_KEY": "wrong"}, "doctor")
    assert done.err == "Not ready to create links: fix what is marked above, and run doctor again.\n"


async def test_refused_keys_end_it(sandbox: Sandbox) -> None:
    """After refused keys, nothing is said of the rate limit, which was not seen."""
    _, found = await doctor(pointing_at(sandbox) | {"DD_APP_KEY": "wrong"})
    assert list(found)[-1] == "keys"


@pytest.mark.parametrize("options", [(), ("--max-wait", "1")])
@pytest.mark.sandbox(rate_limit="1/1h")
async def test_a_used_up_rate_limit_is_not_a_flaw_of_the_keys(
    sandbox: Sandbox, options: tuple[str, ...]
) -> None:
    """A used up rate limit is reported, and nothing about the checks that were left out."""
    done, found = await doctor(pointing_at(sandbox), *options)
    assert done.status == 1
    assert "cases_write" not in found
    state, message = found["rate limit"]
    assert state == "bad"
    assert re.fullmatch(r"used up, so not everything was checked: wait \d+ s or add --max-wait \d+", message)


@pytest.mark.sandbox(rate_limit="2/1h")
async def test_a_rate_limit_that_is_used_up_by_the_checks(sandbox: Sandbox) -> None:
    """If only the check of incidents finds the rate limit used up, cases can be linked."""
    done, found = await doctor(pointing_at(sandbox))
    assert (done.status, found["rate limit"][0], "incident_read" in found) == (0, "note", False)


async def test_a_server_that_limits_the_first_request_says_nothing_of_the_keys() -> None:
    """A 429 for the first request is reported as the rate limit, also without a time to wait."""
    async with Server(answers(404, Date=formatdate(usegmt=True)), answers(429)) as server:
        done, found = await doctor(environment(DD_SITE=server.url, **KEYS))
    assert (done.status, "keys" in found) == (1, False)
    assert found["rate limit"][1].startswith("used up, so not everything was checked: ")


async def test_what_a_key_lacks(sandbox: Sandbox) -> None:
    """A key without the scope cases_write is reported with this scope, although it may list links."""
    variables = pointing_at(sandbox) | {"DD_APP_KEY": sandbox.credentials_without_scope.app_key}
    done, found = await doctor(variables)
    assert (found["keys"][0], found["cases_read"][0], done.status) == ("ok", "ok", 1)
    assert found["cases_write"] == (
        "bad",
        "DD_APP_KEY lacks the scope cases_write, which it needs to create and delete links "
        "(the application key lacks the scope cases_write)",
    )


async def test_incidents_are_optional(sandbox: Sandbox) -> None:
    """A key that cannot read incidents is reported with the missing scope, but can still create links."""
    keys = sandbox.credentials_without_incidents
    done, found = await doctor(pointing_at(sandbox) | {"DD_APP_KEY": keys.app_key})
    assert found["incident_read"] == (
        "note",
        "DD_APP_KEY lacks the scope incident_read, which it needs to find incidents by their numbers "
        "(the application key lacks the scope incident_read)",
    )
    assert (done.status, found["cases_write"][0]) == (0, "ok")


async def test_keys_that_may_do_nothing() -> None:
    """A 403 is reported for each scope, and another failure of the server with its status."""
    date = answers(200, Date=formatdate(usegmt=True))
    async with Server(date, answers(403)) as server:
        _, found = await doctor(environment(DD_SITE=server.url, **KEYS))
    lacks = "DD_APP_KEY lacks the scope {}, which it needs to {} (403)"
    assert found["cases_read"] == ("bad", lacks.format("cases_read", "list links and read cases"))
    assert found["cases_write"] == ("bad", lacks.format("cases_write", "create and delete links"))
    assert "keys" not in found
    async with Server(date, listed, answers(500)) as server:
        _, found = await doctor(environment(DD_SITE=server.url, **KEYS))
    assert found["cases_write"][0] == "bad"
    assert found["cases_write"][1].startswith("500 ")  # without the id of a link that does not exist


@pytest.mark.parametrize("prefix", ["DD", "DATADOG"])
async def test_swapped_keys_are_noticed(sandbox: Sandbox, prefix: str) -> None:
    """Keys that are accepted in the other order are reported as swapped, with their variables."""
    keys = {
        f"{prefix}_API_KEY": sandbox.credentials.app_key,
        f"{prefix}_APP_KEY": sandbox.credentials.api_key,
    }
    done, found = await doctor(environment(DD_SITE=sandbox.url, **keys))
    assert found["keys"] == (
        "bad",
        f"{prefix}_API_KEY and {prefix}_APP_KEY are swapped: exchange their values",
    )
    assert (done.status, found["credentials"]) == (
        1,
        ("ok", f"read from {prefix}_API_KEY and {prefix}_APP_KEY"),
    )


@pytest.mark.parametrize("name", ["DD_ACCESS_TOKEN", "DD_APP_KEY"])
async def test_an_access_token_is_named(sandbox: Sandbox, name: str) -> None:
    """A token is reported by the variable that contains it, also if this is a variable for a key."""
    variables = environment(DD_SITE=sandbox.url, **{name: str(sandbox.access_token.token)})
    done, found = await doctor(variables)
    assert found["credentials"] == ("ok", f"read from {name}")
    assert done.status == 0
    _, found = await doctor(variables | {name: "ddpat_wrong"})
    assert found["keys"][0] == "bad"


async def test_quiet_shows_failed_checks_only(sandbox: Sandbox) -> None:
    """With --quiet, doctor shows only the checks that failed."""
    done = await caselinks(pointing_at(sandbox), "doctor", "--quiet")
    assert (done.status, done.out, done.err) == (0, "", "")
    done = await caselinks(pointing_at(sandbox) | {"DD_APP_KEY": "wrong"}, "doctor", "--quiet")
    assert (done.status, done.out.count("\n"), done.out[:9]) == (1, 1, "bad\tkeys\t")


@pytest.mark.parametrize(
    ("variables", "check", "expected"),
    [
        ({"DD_SITE": "datadoghq.de"}, "site", "DD_SITE: 'datadoghq.de' is not a Datadog site. Did you mean"),
        ({}, "credentials", "DD_API_KEY and DD_APP_KEY are not set"),
        ({"DD_API_KEY": "secret-api-key"}, "credentials", "DD_APP_KEY is not set"),
        ({**KEYS, "DD_API_KEY": "with space"}, "credentials", "DD_API_KEY contains white space"),
        (
            {**KEYS, "DD_SITE": "https://nowhere.invalid"},
            "DNS",
            "nowhere.invalid was not found: check the site",
        ),
        ({**KEYS, "DD_SITE": "http://127.0.0.1:1"}, "server", "http://127.0.0.1:1: connect"),
        ({**KEYS, "DD_SITE": "https://127.0.0.1:1"}, "TLS", "no connection ("),
    ],
)
async def test_the_first_failed_check_is_reported_and_ends_it(
    variables: dict[str, str], check: str, expected: str
) -> None:
    """doctor ends with the first failed check that the later checks depend on, and the status is 1."""
    done, found = await doctor(environment(**variables))
    assert list(found)[-1] == check
    assert found[check][0] == "bad"
    assert expected in found[check][1]
    assert {state for name, (state, _) in found.items() if name != check} <= {"ok"}
    assert (done.status, done.err) == (1, "")


async def test_a_site_may_be_given(sandbox: Sandbox) -> None:
    """The option --site overrides DD_SITE."""
    _, found = await doctor(pointing_at(sandbox) | {"DD_SITE": "nowhere"}, "--site", sandbox.url)
    assert found["site"] == ("ok", f"127.0.0.1, {sandbox.url}")


async def test_a_bearer_token_is_named(sandbox: Sandbox) -> None:
    """A bearer token is reported by its variable."""
    assert isinstance(sandbox.bearer_token.token, str)
    variables = environment(DD_SITE=sandbox.url, DD_BEARER_TOKEN=sandbox.bearer_token.token)
    _, found = await doctor(variables)
    assert found["credentials"] == ("ok", "read from DD_BEARER_TOKEN")
    assert found["keys"][0] == "ok"


async def test_in_a_sandbox_there_is_nothing_to_configure() -> None:
    """With --sandbox, doctor checks neither the site nor the credentials, and checks the rest as usual."""
    done, found = await doctor(environment(), "--sandbox")
    assert list(found) == ["DNS", "TLS", "clock", *ACCESS, "rate limit"]
    assert done.status == 0


async def test_refused_keys_are_reported_with_what_to_check(sandbox: Sandbox) -> None:
    """Refused keys are reported with the variables to check, and the status is 1."""
    done, found = await doctor(pointing_at(sandbox) | {"DD_APP_KEY": "wrong"})
    assert found["keys"][0] == "bad"
    assert "401 Unauthorized. Check DD_API_KEY and DD_APP_KEY" in found["keys"][1]
    assert done.status == 1


async def test_an_unknown_case_is_no_flaw() -> None:
    """A 404 for the unknown case that doctor requests is a success, as an empty list is."""
    async with Server(answers(404, Date=formatdate(usegmt=True)), answers(404)) as server:
        done, found = await doctor(environment(DD_SITE=server.url, **KEYS))
    assert (found["keys"][0], found["rate limit"]) == ("ok", ("ok", "the server sends none"))
    assert done.status == 0


@pytest.mark.parametrize(("seconds", "expected"), [(-7200, "ahead of"), (7200, "behind")])
async def test_a_wrong_clock_is_reported(seconds: int, expected: str) -> None:
    """A wrong clock is reported with the difference and its direction, and the status is 1."""
    async with Server(answers(200, Date=formatdate(time() + seconds, usegmt=True)), listed) as server:
        done, found = await doctor(environment(DD_SITE=server.url, **KEYS))
    assert found["clock"][0] == "bad"
    assert f" s {expected} the server:" in found["clock"][1]
    assert done.status == 1


async def test_a_server_without_a_clock_is_noted() -> None:
    """A server without a Date header gets a note, because its clock cannot be compared."""
    async with Server(answers(200), listed) as server:
        done, found = await doctor(environment(DD_SITE=server.url, **KEYS))
    assert found["clock"] == ("note", "not checked: the server sends no Date header")
    assert done.status == 0


async def test_a_server_that_drops_the_connection_is_reported() -> None:
    """A server that drops the connection is reported with the reason."""
    async with Server(drops) as server:
        _, found = await doctor(environment(DD_SITE=server.url, **KEYS))
    assert found["server"] == ("bad", f"{server.url}: the connection was lost")


async def test_a_private_authority_is_trusted_by_its_file(authority: Authority, tmp_path: Path) -> None:
    """A certificate of a private authority is accepted with SSL_CERT_FILE and refused without it."""
    ca = tmp_path / "ca.pem"
    authority.ca.cert_pem.write_to_path(str(ca))
    tls = authority.server("localhost")
    async with Server(
        answers(200, Date=formatdate(usegmt=True)), listed, tls=tls, host="localhost"
    ) as server:
        variables = environment(DD_SITE=server.url, **KEYS)
        _, found = await doctor(variables)
        assert found["TLS"][0] == "bad"
        assert "set SSL_CERT_FILE to your CA file" in found["TLS"][1]
        assert "ssl=" not in found["TLS"][1]
        done, found = await doctor(variables | {"SSL_CERT_FILE": str(ca)})
    assert found["TLS"][0] == "ok"
    assert "the certificate is valid for" in found["TLS"][1]
    assert done.status == 0


async def test_by_way_of_the_proxy_that_the_environment_names(authority: Authority, tmp_path: Path) -> None:
    """doctor sends each check through the proxy of the environment, and never shows the proxy's password."""
    ca = tmp_path / "ca.pem"
    authority.ca.cert_pem.write_to_path(str(ca))
    async with (
        Server(
            answers(200, Date=formatdate(usegmt=True)),
            listed,
            answers(404),
            tls=authority.server("localhost"),
            host="localhost",
        ) as server,
        Proxy("someone:something-secret").running() as proxy,
    ):
        variables = environment(DD_SITE=server.url, HTTPS_PROXY=proxy.url, SSL_CERT_FILE=str(ca), **KEYS)
        done, found = await doctor(variables)
        assert list(found) == ["site", "credentials", "DNS", "proxy", "TLS", "clock", *ACCESS, "rate limit"]
        assert {state for state, _ in found.values()} == {"ok"}
        assert found["proxy"][1] == f"127.0.0.1:{proxy.port} (HTTPS_PROXY) connects to localhost"
        assert (found["DNS"][1], done.status) == ("127.0.0.1 is 127.0.0.1", 0)
        assert len(proxy.requests) == 2
        assert "something-secret" not in done.out
        done, found = await doctor(variables | {"NO_PROXY": "localhost"})
        assert found["TLS"][0] == "ok"
        assert len(proxy.requests) == 2
        assert found["proxy"] == ("note", "HTTPS_PROXY is not used, because NO_PROXY exempts localhost")


async def reason_of_client(variables: dict[str, str]) -> str:
    """Return only the reason from a client's error, without the failed operation and "nothing was sent"."""
    keys = ApiKeys(api_key=KEYS["DD_API_KEY"], app_key=KEYS["DD_APP_KEY"])
    once = RetryPolicy(max_attempts=1)
    url, proxy = variables["DD_SITE"], variables["HTTPS_PROXY"]
    async with CaseLinksClient(url, keys, retry=once, proxy=proxy) as client:
        with pytest.raises(CaseLinksError) as caught:
            await client.list_links(case("4417921d-0866-4a38-822c-6f2a0f65f77d"))
    return str(caught.value).partition("): ")[2].removesuffix("; nothing was sent")


@pytest.mark.parametrize(
    ("flaw", "check", "expected"),
    [
        ("wrong password", "proxy", "the proxy requires other credentials (407)"),
        ("refuses", "proxy", "the proxy responded with 403"),
        ("not there", "proxy", "connection refused: check the proxy and the network"),
        ("untrusted", "proxy", "its certificate is not trusted (unable to get local issuer certificate)"),
        ("inspects TLS", "TLS", "its certificate is not trusted (unable to get local issuer certificate)"),
    ],
)
async def test_a_flaw_of_the_proxy_has_a_row_of_its_own(
    authority: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flaw: str,
    check: str,
    expected: str,
) -> None:
    """A problem of the proxy is reported with the client's reason and the variable, and no password."""
    ca = tmp_path / "ca.pem"
    authority.ca.cert_pem.write_to_path(str(ca))
    proxy = Proxy(
        "someone:something-secret" if flaw == "wrong password" else None,
        status=403 if flaw == "refuses" else 200,
        tls=Authority().server("127.0.0.1") if flaw == "untrusted" else None,
    )
    tls = (Authority() if flaw == "inspects TLS" else authority).server("localhost")
    async with Server(listed, tls=tls, host="localhost") as server, proxy.running():
        port = unused_port() if flaw == "not there" else proxy.port
        scheme = "https" if flaw == "untrusted" else "http"
        variables = environment(
            DD_SITE=server.url,
            HTTPS_PROXY=f"{scheme}://someone:another-secret@127.0.0.1:{port}",
            SSL_CERT_FILE=str(ca),
            **KEYS,
        )
        done, found = await doctor(variables)
        monkeypatch.setenv("SSL_CERT_FILE", str(ca))
        reason = await reason_of_client(variables)
    assert list(found)[-1] == check
    assert found[check] == (
        "bad",
        f"{server.url} through the proxy 127.0.0.1:{port} (HTTPS_PROXY): {reason}",
    )
    assert expected in reason
    assert "Error" not in reason
    assert (done.status, "secret" in done.out) == (1, False)


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "ALL_PROXY"])
async def test_a_proxy_of_another_kind(sandbox: Sandbox, variable: str) -> None:
    """A SOCKS proxy is refused with the variable that names it, unless the server is on loopback."""
    variables = {variable: "socks5://127.0.0.1:1080"}
    done, found = await doctor(environment(**variables, **KEYS))
    assert list(found) == ["site", "credentials", "proxy"]
    assert (found["proxy"][0], done.status) == ("bad", 1)
    assert found["proxy"][1].startswith(f"{variable} must be a URL such as http://proxy.example:3128: SOCKS")
    done = await caselinks(environment(**variables, **KEYS), "list", "4417921d-0866-4a38-822c-6f2a0f65f77d")
    assert (done.status, done.err) == (2, f"Error: {found['proxy'][1]}\n")
    done, _ = await doctor(pointing_at(sandbox) | variables)
    assert done.status == 0
