"""``caselinks find`` and ``show``, each run as a program against a sandbox."""

from __future__ import annotations

import json
import re

import pytest

from datadog_caselinks.sandbox import Sandbox
from tests.cli.program import caselinks, environment, on_terminal, pointing_at
from tests.support.ids import some_id

A = some_id(0xA)
B = some_id(0xB)


@pytest.fixture
def cases(sandbox: Sandbox) -> Sandbox:
    """Add two cases and an incident to the sandbox."""
    sandbox.add_case("SHOP-1", "Checkout\x1b[31m hangs\nat payment", status="CLOSED", priority="P1", id=A)
    sandbox.add_case("SHOP-2", "Payment is refused", id=B)
    sandbox.add_incident(123, "Checkout fails", state="stable", id=A)
    return sandbox


async def seen_on_terminal(variables: dict[str, str], *arguments: str, columns: int) -> tuple[int, str]:
    """Run the command on a terminal, and return its status and its output without colours."""
    status, shown = await on_terminal(variables, *arguments, columns=columns)
    return status, re.sub(r"\x1b\[[0-9;]*m", "", shown)


class TestFind:
    async def test_the_columns(self, cases: Sandbox) -> None:
        """Without a terminal, tabs separate the columns, and each case is one printable line."""
        done = await caselinks(pointing_at(cases), "find", "payment")
        assert (done.status, done.err) == (0, "")
        assert done.out.splitlines() == [
            f"SHOP-2\tPayment is refused\tOPEN\tNOT_DEFINED\t{B}",
            f"SHOP-1\tCheckout [31m hangs at payment\tCLOSED\tP1\t{A}",
        ]

    async def test_json(self, cases: Sandbox) -> None:
        """JSON has the known fields of each case, as a list or as one object per line."""
        expected = [
            {
                "type": "CASE",
                "id": B,
                "key": "SHOP-2",
                "title": "Payment is refused",
                "status": "OPEN",
                "priority": "NOT_DEFINED",
                "status_name": "Open",
                "status_group": "SG_OPEN",
            }
        ]
        done = await caselinks(pointing_at(cases), "find", "refused", "--output", "json")
        assert json.loads(done.out) == expected
        done = await caselinks(pointing_at(cases), "find", "refused", "--output", "jsonl")
        assert [json.loads(line) for line in done.out.splitlines()] == expected

    async def test_a_terminal(self, cases: Sandbox) -> None:
        """On a terminal, find shows a table and shortens titles that do not fit."""
        status, shown = await seen_on_terminal(pointing_at(cases), "find", "payment", columns=60)
        lines = shown.splitlines()
        assert (status, lines[0].split()) == (0, ["case", "status", "priority", "title"])
        assert [line.split()[0] for line in lines[1:]] == ["SHOP-2", "SHOP-1"]
        status, shown = await seen_on_terminal(pointing_at(cases), "find", "zzz", columns=60)
        assert (status, shown.strip()) == (0, "No cases match 'zzz'.")

    async def test_nothing_matches(self, cases: Sandbox) -> None:
        """A search without a match is not an error, and JSON is an empty list."""
        done = await caselinks(pointing_at(cases), "find", "zzz", "--output", "json")
        assert (done.status, json.loads(done.out), done.err) == (0, [], "No cases match 'zzz'.\n")

    @pytest.mark.parametrize("key", ["SHOP-2", "shop-2", " SHOP-2 "])
    async def test_the_key_of_a_case(self, cases: Sandbox, key: str) -> None:
        """A key finds the case with this key, which the search of the server may not find."""
        done = await caselinks(pointing_at(cases), "find", key)
        assert (done.status, done.err) == (0, "")
        assert done.out == f"SHOP-2\tPayment is refused\tOPEN\tNOT_DEFINED\t{B}\n"

    async def test_a_text_with_the_form_of_a_key(self, cases: Sandbox) -> None:
        """A text that looks like a key, but is not the key of a case, is searched for."""
        cases.add_case("SHOP-3", "Error HTTP-500 in the cart", id=some_id(0xC))
        done = await caselinks(pointing_at(cases), "find", "HTTP-500")
        assert (done.status, done.out.split("\t")[0]) == (0, "SHOP-3")

    async def test_more_than_the_limit(self, cases: Sandbox) -> None:
        """A message appears only if more cases match than are shown."""
        done = await caselinks(pointing_at(cases), "find", "payment", "--limit", "1")
        assert done.out.startswith("SHOP-2\t")
        assert (len(done.out.splitlines()), done.err) == (
            1,
            "More than 1 case matches: use --limit or a narrower query.\n",
        )
        done = await caselinks(pointing_at(cases), "find", "payment", "--limit", "2")
        assert (len(done.out.splitlines()), done.err) == (2, "")

    async def test_a_query_that_the_server_refuses(self, cases: Sandbox) -> None:
        """The error for an invalid query quotes the query."""
        done = await caselinks(pointing_at(cases), "find", "status:(")
        assert done.status == 1
        assert done.err.startswith("Error: cannot search cases for 'status:(': 400 ")

    async def test_a_query_that_begins_with_a_minus(self, cases: Sandbox) -> None:
        """After --, a query may begin with a minus sign, which excludes cases."""
        done = await caselinks(pointing_at(cases), "find", "--", "-status:closed")
        assert done.out.startswith("SHOP-2\t")


class TestShow:
    @pytest.fixture
    async def linked(self, cases: Sandbox) -> Sandbox:
        """Link the incident to a case."""
        done = await caselinks(pointing_at(cases), "create", "incident:123", "causes", "SHOP-1")
        assert done.status == 0
        return cases

    async def test_a_case(self, linked: Sandbox) -> None:
        """Without a terminal, show prints one line per value, then the links in the format of list."""
        done = await caselinks(pointing_at(linked), "show", "shop-1")
        listed = await caselinks(pointing_at(linked), "list", "SHOP-1")
        assert (done.status, done.err) == (0, "")
        assert done.out == (
            "type\tCASE\nkey\tSHOP-1\ntitle\tCheckout [31m hangs at payment\nstatus\tCLOSED\n"
            f"priority\tP1\nid\t{A}\n{listed.out}"
        )
        assert "\tincident:IR-123\tcauses\tSHOP-1\tCheckout fails\tstable\n" in listed.out

    @pytest.mark.parametrize(
        "name", ["incident:123", "incident:IR-123", f"incident:{A}", "{url}/incidents/123"]
    )
    async def test_an_incident(self, linked: Sandbox, name: str) -> None:
        """An incident is shown as one JSON object that contains its links."""
        arguments = ("show", name.format(url=linked.url), "--output", "json")
        done = await caselinks(pointing_at(linked), *arguments)
        record = json.loads(done.out)
        (link,) = record.pop("links")
        assert record == {
            "type": "INCIDENT",
            "id": A,
            "key": "IR-123",
            "title": "Checkout fails",
            "status": "stable",
            "number": "123",
            "url": None,
        }
        assert (link["parent"]["key"], link["child"]["key"]) == ("IR-123", "SHOP-1")

    async def test_a_page(self, cases: Sandbox) -> None:
        """An entity that Datadog does not describe is shown with its id and its links."""
        done = await caselinks(pointing_at(cases), "show", f"page:{A}")
        assert (done.status, done.out, done.err) == (0, f"type\tPAGE\nid\t{A}\n", "No links.\n")

    async def test_a_terminal(self, linked: Sandbox) -> None:
        """On a terminal, show prints the links as a table below the values, with incidents by number."""
        status, shown = await seen_on_terminal(pointing_at(linked), "show", "SHOP-1", columns=100)
        lines = [line.split() for line in shown.splitlines()]
        assert status == 0
        assert ["key", "SHOP-1"] in lines
        assert ["id", A] in lines
        assert ["←", "causes", "incident:IR-123", "Checkout", "fails", "stable"] in lines

    @pytest.mark.parametrize(
        ("name", "wrong"),
        [
            ("SHOP-9", "cannot get case SHOP-9: 404 case not found"),
            (B.replace("b", "c"), "404 case not found"),
            ("incident:9", "cannot find incident 9: no incident on this site has this number"),
            (f"incident:{B}", "404 incident not found"),
        ],
    )
    async def test_what_does_not_exist(self, cases: Sandbox, name: str, wrong: str) -> None:
        """An entity that does not exist is reported as an error with status 1."""
        done = await caselinks(pointing_at(cases), "show", name)
        assert (done.status, done.out) == (1, "")
        assert wrong in done.err

    async def test_an_incident_without_the_permission(self, linked: Sandbox) -> None:
        """Without incident_read, show reports the missing scope, and list still shows the links of a case."""
        keys = {"DD_APP_KEY": linked.credentials_without_incidents.app_key}
        done = await caselinks(pointing_at(linked) | keys, "show", "incident:123")
        assert (done.status, done.out) == (1, "")
        assert "lack the scope incident_read" in done.err
        done = await caselinks(pointing_at(linked) | keys, "list", "SHOP-1")
        assert (done.status, f"\tincident:{A}\tcauses\tSHOP-1\t\t\n" in done.out) == (0, True)
        assert done.err.count("lack the scope incident_read") == 1


async def test_a_url_needs_a_site_of_datadog(cases: Sandbox) -> None:
    """The sandbox has no web interface, so JSON has no URL."""
    done = await caselinks(environment(), "show", "--sandbox", "SHOP-1", "--output", "json")
    assert json.loads(done.out)["url"] is None
