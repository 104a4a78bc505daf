"""``caselinks bulk``, run as a program against a sandbox or another real server."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import ssl
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest
import trustme

from datadog_caselinks.cli.bulk import default_concurrency
from datadog_caselinks.sandbox import Fault, Sandbox
from datadog_caselinks.values.rate import Rate
from tests.cli.bulk import HEADER, bulk
from tests.cli.program import caselinks, environment, on_terminal, pointing_at, start
from tests.cli.waits import waiting_for_nothing
from tests.support.server import Exchange, Server
from tests.support.steps import answers, created, drops, is_silent
from tests.support.waiting import MAX_SECONDS

A = "4417921d-0866-4a38-822c-6f2a0f65f77d"
B = "bf0cbac6-4c16-4cfb-b6bf-ca5e0ec37a4f"
BLOCKS = f"{A},CASE,BLOCKS,{B},CASE\n"
API_KEY, APP_KEY = "secret-api-key-0123456789", "secret-app-key-0123456789"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "links.csv"
    path.write_text(HEADER + BLOCKS)
    return path


async def test_each_link_of_a_file_is_created_and_reported(sandbox: Sandbox, tmp_path: Path) -> None:
    """bulk writes one line per link to standard output and the counts to standard error, with status 0."""
    path = tmp_path / "links.csv"
    path.write_text(HEADER + BLOCKS + f"{A},CASE,CAUSES,{B},INCIDENT\n")
    done = await bulk(pointing_at(sandbox), str(path))
    ids = {link.relationship: link.id for link in sandbox.links}
    assert done.out.splitlines() == [
        f"✓ {A} blocks {B}\t{ids['BLOCKS']}\tcreated",
        f"✓ {A} causes incident:{B}\t{ids['CAUSES']}\tcreated",
    ]
    assert done.err.startswith("2 links created (")
    assert done.status == 0


async def test_json_lines_come_from_standard_input(sandbox: Sandbox) -> None:
    """With -, bulk reads the links from standard input, and an omitted type defaults to CASE."""
    row = {"parent_id": A, "relationship": "blocks", "child_id": B}
    done = await bulk(pointing_at(sandbox), "-", stdin=json.dumps(row).encode())
    assert [(link.parent_entity_type, link.relationship) for link in sandbox.links] == [("CASE", "BLOCKS")]
    assert (done.status, done.err.split(",")[0]) == (0, "1 link created (1 blocks)")


async def test_yaml_comes_from_standard_input(sandbox: Sandbox) -> None:
    """YAML on standard input needs --format, because there is no suffix; the error says so."""
    text = f"{A}: {{blocks: {B}}}\n".encode()
    done = await bulk(pointing_at(sandbox), "--format", "yaml", "-", stdin=text)
    assert (done.status, done.err.split(",")[0]) == (0, "1 link created (1 blocks)")
    done = await bulk(pointing_at(sandbox), "-", stdin=text)
    assert done.status == 2
    assert "if the file is not CSV, specify its format" in done.err


@pytest.mark.parametrize(
    ("options", "summary"), [((), "0 links created"), (("--dry-run",), "Dry run: 0 links would be created")]
)
async def test_a_header_alone_is_an_empty_list(
    sandbox: Sandbox, options: tuple[str, ...], summary: str
) -> None:
    """A file with only a header creates no links, says so, and ends with status 0."""
    done = await bulk(pointing_at(sandbox), *options, "-", stdin=HEADER.encode())
    assert (done.status, done.out) == (0, "")
    assert done.err.startswith(summary)
    assert done.err.endswith("\nThe file contains no links.\n")


async def test_quiet_leaves_out_what_went_well(sandbox: Sandbox, file: Path) -> None:
    """With --quiet, a successful run shows only its summary."""
    done = await bulk(pointing_at(sandbox), "--quiet", str(file))
    assert done.out == ""
    assert "1 link created" in done.err


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
async def test_quiet_is_about_lines_for_people(
    sandbox: Sandbox, file: Path, options: tuple[str, ...]
) -> None:
    """With --quiet, JSON has every outcome nevertheless."""
    done = await bulk(pointing_at(sandbox), "--quiet", "--output", "json", *options, str(file))
    assert [record["line"] for record in json.loads(done.out)] == [2]


async def test_sandbox_needs_no_environment(file: Path) -> None:
    """With --sandbox, bulk starts a local Datadog for the run and needs no environment variables."""
    done = await bulk(environment(), "--sandbox", str(file))
    assert done.status == 0
    assert done.out.startswith("✓ ")


async def test_a_malformed_line_does_not_stop_the_others(sandbox: Sandbox) -> None:
    """A malformed line is reported with its number, the other links are created, and the status is 1."""
    text = f"{HEADER}{BLOCKS}DDFC-98813,PAGE,BLOCKS,{B},CASE\nhttps://app.datadoghq.eu/cases/A-1,,BLOCKS,{B},\n{BLOCKS}"
    done = await bulk(pointing_at(sandbox), "-", stdin=text.encode())
    problems = done.err.splitlines()
    assert problems[0].startswith("line 3: 'DDFC-98813' is a case key, but the type is PAGE")
    assert problems[1].startswith(
        "line 4: 'https://app.datadoghq.eu/cases/A-1' is on EU1 (datadoghq.eu), but"
    )
    assert problems[2].startswith("1 link created (1 blocks), 1 already linked, 2 malformed")
    assert (done.status, len(sandbox.links)) == (1, 1)


async def test_strict_sends_nothing_if_a_line_is_malformed(sandbox: Sandbox) -> None:
    """With --strict, bulk reports each malformed line, sends nothing, and ends with status 2."""
    done = await bulk(
        pointing_at(sandbox), "--strict", "-", stdin=f"{HEADER}{BLOCKS}x,,BLOCKS,{B},\n".encode()
    )
    assert done.err.splitlines()[0].startswith("line 3: 'x' does not name an entity")
    assert done.err.splitlines()[1] == "Error: nothing was sent because of --strict: 1 malformed line"
    assert (done.status, done.out, len(sandbox.requests)) == (2, "", 0)


async def test_strict_makes_the_links_of_a_good_file(sandbox: Sandbox, file: Path) -> None:
    """With --strict, a file without malformed lines is linked as usual."""
    done = await bulk(pointing_at(sandbox), "--strict", str(file))
    assert (done.status, len(sandbox.links)) == (0, 1)


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({}, "DD_API_KEY and DD_APP_KEY are not set"),
        ({"DD_API_KEY": API_KEY}, "DD_APP_KEY is not set"),
        ({"DD_API_KEY": API_KEY + "\n", "DD_APP_KEY": APP_KEY}, "DD_API_KEY contains white space"),
        ({"DD_BEARER_TOKEN": API_KEY, "DD_API_KEY": API_KEY, "DD_APP_KEY": APP_KEY}, "unset"),
        ({"DD_SITE": "datadoghq.uk", "DD_API_KEY": API_KEY, "DD_APP_KEY": APP_KEY}, "Did you mean"),
    ],
)
async def test_a_wrong_environment_is_reported_in_a_line(
    file: Path, variables: dict[str, str], says: str
) -> None:
    """A missing or malformed variable is named in one line, and the status is 2."""
    done = await bulk(environment(**variables), str(file))
    assert says in done.err
    assert (done.status, len(done.err.splitlines())) == (2, 1)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the file is empty"),
        (b"from,to\n1,2\n", "the header 'from,to' lacks parent, relationship, child"),
        (b"\x7fELF\x00\x01", "the file is binary"),
    ],
)
async def test_a_file_of_no_links_is_reported_in_a_line(tmp_path: Path, content: bytes, says: str) -> None:
    """An empty file, an unknown header or a binary file is reported in one line with status 2."""
    path = tmp_path / "links.csv"
    path.write_bytes(content)
    done = await bulk(environment(), "--sandbox", str(path))
    assert says in done.err
    assert (done.status, len(done.err.splitlines())) == (2, 1)


@pytest.mark.parametrize("name", ["missing.csv", "."])
async def test_a_file_that_cannot_be_opened_is_reported_in_a_line(tmp_path: Path, name: str) -> None:
    """A missing file or a directory is named in one line, and the status is 2."""
    done = await bulk(environment(), "--sandbox", str(tmp_path / name))
    assert str(tmp_path) in done.err
    assert (done.status, len(done.err.splitlines())) == (2, 1)


@pytest.mark.parametrize(
    ("api_key", "app_key", "says"),
    [
        (API_KEY, APP_KEY, "401 Unauthorized. Check DD_API_KEY and DD_APP_KEY"),
        (
            "",
            "",
            "The application key or token may lack the scope cases_write",
        ),
    ],
)
async def test_refused_credentials_end_the_run_in_a_few_lines(
    sandbox: Sandbox, tmp_path: Path, api_key: str, app_key: str, says: str
) -> None:
    """Refused credentials end the run with status 1; the last message has both the reason and all lines."""
    path = tmp_path / "links.csv"
    path.write_text(HEADER + BLOCKS * 1000)
    keys = sandbox.credentials_without_scope
    variables = {"DD_API_KEY": api_key or keys.api_key, "DD_APP_KEY": app_key or keys.app_key}
    done = await bulk(environment(DD_SITE=sandbox.url, **variables), "--concurrency", "5", str(path))
    assert says in done.err
    first, summary, stopped, advice, command = done.err.splitlines()
    assert first.startswith("line ")
    assert advice.startswith("To continue, fix the problems above, then run this command ")
    assert command == f"  caselinks bulk --concurrency 5 {path}"
    assert summary.startswith("0 links created, ")
    assert stopped.startswith(f"Stopped: {first}. Line")
    assert re.search(r"\. Lines? [\d, -]+ failed for the same reason, and no later line was sent\.$", stopped)
    assert len(sandbox.requests) <= 10
    assert done.status == 1


async def test_an_unknown_host_is_reported_once(file: Path) -> None:
    """An unknown host is reported once with what to check, and the status is 1."""
    variables = environment(DD_SITE="https://nowhere.invalid", DD_API_KEY=API_KEY, DD_APP_KEY=APP_KEY)
    done = await bulk(variables, "--attempts", "1", str(file))
    assert "https://nowhere.invalid: the host name was not found: check the site and the network" in done.err
    assert done.err.endswith(f":\n  caselinks bulk --attempts 1 {file}\n")
    assert done.status == 1


async def test_a_wait_above_the_maximum_names_the_option(sandbox: Sandbox, tmp_path: Path) -> None:
    """A run that --max-wait ends says how long to wait, which --max-wait allows the wait, and what to run."""
    sandbox.rate_limit = "2/1h"
    path = tmp_path / "links.csv"
    path.write_text(HEADER + BLOCKS + BLOCKS.replace("BLOCKS", "CAUSES"))
    arguments = ("--max-wait", "5", "--concurrency", "1", str(path))
    done = await bulk(pointing_at(sandbox), *arguments)
    assert done.status == 1
    *_, advice, command = done.err.splitlines()
    assert re.fullmatch(
        r"To continue, wait (\d+) s or add --max-wait \1, then run this command "
        r"\(it creates only the missing links\):",
        advice,
    )
    assert command == f"  caselinks bulk {' '.join(arguments)}"
    assert "RetryPolicy" not in done.err


async def test_a_refused_connection_is_reported_once(file: Path, unused_tcp_port: int) -> None:
    """A refused connection is reported with the address, and the status is 1."""
    site = f"http://127.0.0.1:{unused_tcp_port}"
    variables = environment(DD_SITE=site, DD_API_KEY=API_KEY, DD_APP_KEY=APP_KEY)
    done = await bulk(variables, "--attempts", "1", str(file))
    assert f"{site}: connect" in done.err.lower()
    assert done.status == 1


async def test_an_untrusted_certificate_is_reported_once(file: Path) -> None:
    """An untrusted certificate is reported, nothing is sent, and the status is 1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    async with server:
        site = f"https://localhost:{port}"
        done = await bulk(environment(DD_SITE=site, DD_API_KEY=API_KEY, DD_APP_KEY=APP_KEY), str(file))
    assert "certificate is not trusted" in done.err
    assert "nothing was sent" in done.err
    assert done.status == 1


async def test_each_failure_has_a_line_of_its_own() -> None:
    """A failure of a single link is reported with its line number, and the other links are created."""
    answered = iter([drops, drops])

    async def lose_two(exchange: Exchange) -> None:
        is_look = exchange.seen.method == "GET"  # a refused lookup leaves the result of the create unknown
        await (answers(403) if is_look else next(answered, created))(exchange)

    async with Server(lose_two) as server:
        variables = environment(DD_SITE=server.url, DD_API_KEY=API_KEY, DD_APP_KEY=APP_KEY)
        done = await bulk(
            waiting_for_nothing(variables),
            *("--no-lookup", "--concurrency", "2", "--attempts", "1", "-"),
            stdin=(HEADER + BLOCKS * 4).encode(),
        )
    problems = done.err.splitlines()
    assert sorted(problem.split(":")[0] for problem in problems[:2]) == ["line 2", "line 3"]
    assert all("The link may have been created" in problem for problem in problems[:2])
    assert problems[2].startswith("2 links created (2 blocks), 2 ambiguous")
    assert problems[3:] == [
        "To continue, fix the problems above, then run this command with the same input "
        "(it creates only the missing links):",
        "  caselinks bulk --concurrency 2 --attempts 1 -",
    ]
    assert done.status == 1


async def test_a_case_that_may_not_be_linked_does_not_stop_the_run() -> None:
    """After the first created link, a 403 concerns a single case, and the run continues."""
    async with Server(created, answers(403), created) as server:
        variables = environment(DD_SITE=server.url, DD_API_KEY=API_KEY, DD_APP_KEY=APP_KEY)
        done = await bulk(
            variables, "--no-lookup", "--concurrency", "1", "-", stdin=(HEADER + BLOCKS * 50).encode()
        )
    assert done.out.count("✓") == 49
    assert done.status == 1


async def test_an_entity_that_does_not_exist_fails_its_line() -> None:
    """An entity that does not exist fails its own line, and the other links are created."""
    gone = answers(404, b'{"errors": [{"code": "resource_not_found", "title": "case not found"}]}')
    async with Server(gone, created) as server:
        variables = environment(DD_SITE=server.url, DD_API_KEY=API_KEY, DD_APP_KEY=APP_KEY)
        done = await bulk(
            variables, "--no-lookup", "--concurrency", "1", "-", stdin=(HEADER + BLOCKS * 2).encode()
        )
    assert done.err.startswith(
        f"line 2: failed: cannot create CASE {A} BLOCKS CASE {B}: 404 case not found. "
    )
    assert done.out.startswith(f"✓ {A} blocks {B}\t")
    assert done.status == 1


async def test_the_first_wait_is_explained_and_no_other() -> None:
    """A run explains the first wait for the rate limit, and hides further messages of this kind."""
    over = answers(429, Retry_After="0")
    async with Server(over, created, over, created) as server:
        variables = environment(DD_SITE=server.url, DD_API_KEY=API_KEY, DD_APP_KEY=APP_KEY)
        done = await bulk(
            variables, "--no-lookup", "--concurrency", "1", "-", stdin=(HEADER + BLOCKS * 2).encode()
        )
    assert done.err.startswith("The rate limit is used up; waiting 0.5 s (further messages of this kind")
    assert done.err.count("further messages of this kind are hidden") == 1
    assert (done.status, done.out.count("✓")) == (0, 2)


async def test_interrupting_says_what_is_in_flight() -> None:
    """Ctrl-C reports the lines in flight, also while bulk waits for more input."""
    async with Server(is_silent) as server:
        variables = environment(DD_SITE=server.url, DD_API_KEY=API_KEY, DD_APP_KEY=APP_KEY)
        process = await start(variables, "bulk", "--no-lookup", "-")
        process.stdin.write((HEADER + BLOCKS).encode())
        await process.stdin.drain()
        await server.until_seen(1)
        process.send_signal(signal.SIGINT)
        err = await process.stderr.read()
        await process.communicate()
    assert "In flight or about to be sent: line 2." in err.decode()
    assert process.returncode == 130


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGHUP])
async def test_other_signals_end_it_as_well(end: signal.Signals) -> None:
    """SIGTERM and SIGHUP end a run with the same report as Ctrl-C and with their own status."""
    async with Server(created, is_silent) as server:
        variables = environment(DD_SITE=server.url, DD_API_KEY=API_KEY, DD_APP_KEY=APP_KEY)
        process = await start(variables, "bulk", "--no-lookup", "-")
        process.stdin.write((HEADER + BLOCKS * 4).encode())
        await process.stdin.drain()
        await server.until_seen(4)
        process.send_signal(end)
        assert "In flight or about to be sent: lines 3-5." in (await process.stderr.read()).decode()
        await process.communicate()
    assert process.returncode == 128 + end


async def test_interrupting_while_nothing_is_in_flight() -> None:
    """Ctrl-C reports that nothing was in flight if every link has an outcome."""
    async with Server(created) as server:
        variables = environment(DD_SITE=server.url, DD_API_KEY=API_KEY, DD_APP_KEY=APP_KEY)
        process = await start(variables, "bulk", "--no-lookup", "-")
        process.stdin.write((HEADER + BLOCKS).encode())
        await process.stdin.drain()
        await process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert "Interrupted. Nothing was in flight." in (await process.stderr.read()).decode()
        await process.communicate()


async def test_input_that_cannot_be_read_further_ends_the_run(sandbox: Sandbox) -> None:
    """If the input cannot be read further, the links read so far are created, and the status is 1."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.write(writing, (HEADER + BLOCKS).encode())
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", "datadog_caselinks", "bulk", "-"),
        env=pointing_at(sandbox),
        stdin=reading,
        stderr=PIPE,
    )
    _, err = await process.communicate()
    os.close(reading)
    os.close(writing)
    assert err.decode().startswith("cannot read the rest of the file: ")
    assert (process.returncode, len(sandbox.links)) == (1, 1)


async def test_a_column_that_no_line_has_ends_the_run(sandbox: Sandbox) -> None:
    """A name of a column that no line of JSON Lines has ends the run with the totals and the status 1."""
    line = {"parent": A, "relationship": "blocks", "child": B}
    done = await caselinks(
        pointing_at(sandbox),
        *("bulk", "--format", "jsonl", "--column", "child_type=kidn", "-"),
        stdin=json.dumps(line).encode(),
    )
    problem, totals, *_ = done.err.splitlines()
    assert problem == "no link of the file has kidn (child_type): correct the name, or do not give one"
    assert re.match(r"\d links? created", totals)
    assert done.status == 1


async def test_a_closed_pipe_does_not_keep_links_from_being_created(sandbox: Sandbox, tmp_path: Path) -> None:
    """A closed standard output does not stop the run: every link is created."""
    path = tmp_path / "links.csv"
    path.write_text(HEADER + BLOCKS * 50)
    reading, writing = os.pipe()
    os.close(reading)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", "datadog_caselinks", "bulk", "--no-lookup", str(path)),
        env=pointing_at(sandbox),
        stdout=writing,
        stderr=PIPE,
    )
    os.close(writing)
    _, err = await process.communicate()
    assert (process.returncode, len(sandbox.links)) == (0, 50), err.decode()
    assert b"Broken" not in err


async def test_a_full_disk_ends_the_run_and_loses_no_id(sandbox: Sandbox, tmp_path: Path) -> None:
    """If the disk is full, ids that standard output lost appear on standard error, and the status is 1."""
    path = tmp_path / "links.csv"
    path.write_text(HEADER + BLOCKS * 1000)
    with open("/dev/full", "wb") as full:  # noqa: ASYNC230 - it does not block
        process = await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                "-W",
                "error",
                "-m",
                "datadog_caselinks",
                "bulk",
                "--concurrency",
                "2",
                str(path),
            ),
            env=pointing_at(sandbox),
            stdout=full,
            stderr=PIPE,
        )
        _, err = await process.communicate()
    shown = err.decode()
    assert "cannot write to standard output: " in shown
    assert process.returncode == 1
    assert len(sandbox.links) < 1000
    assert all(link.id in shown for link in sandbox.links)


async def test_no_standard_input_is_reported_in_a_line(sandbox: Sandbox) -> None:
    """A closed standard input is reported in one line, with status 2."""
    program = 'exec "$0" -m datadog_caselinks bulk - <&-'
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", program, sys.executable), env=pointing_at(sandbox), stderr=PIPE
    )
    _, err = await process.communicate()
    assert err.decode().splitlines() == ["Error: standard input is closed"]
    assert process.returncode == 2


async def test_what_the_shell_has_read_is_not_read_again(sandbox: Sandbox, tmp_path: Path) -> None:
    """bulk reads standard input from its current position, also if it is a file."""
    path = tmp_path / "links.csv"
    path.write_text(f"a title that is not ours\n{HEADER}{BLOCKS}")
    with open(path, "rb", buffering=0) as file:  # noqa: ASYNC230 - neither does this
        file.seek(len("a title that is not ours\n"))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "datadog_caselinks", "bulk", "-"), env=pointing_at(sandbox), stdin=file
        )
        assert await process.wait() == 0
    assert len(sandbox.links) == 1


async def test_a_terminal_shows_the_progress(sandbox: Sandbox, tmp_path: Path) -> None:
    """A terminal shows a bar with the count; with --verbose, the links scroll above the bar."""
    path = tmp_path / "links.csv"
    path.write_text(HEADER + BLOCKS * 30)
    status, shown = await on_terminal(pointing_at(sandbox), "bulk", "--no-lookup", str(path))
    assert status == 0, shown
    assert "/30" in shown
    assert "30 links created" in shown
    assert "✓" not in shown
    status, shown = await on_terminal(pointing_at(sandbox), "bulk", "--verbose", str(path))
    assert "30 already linked" in shown
    assert len(re.findall(rf"= {A} blocks {B}\x1b\[2m  [-0-9a-f]{{36}}", shown)) == 30


async def test_a_terminal_of_a_ci_job_shows_lines(sandbox: Sandbox, tmp_path: Path) -> None:
    """With CI set, a terminal shows the links with dim ids instead of a bar."""
    path = tmp_path / "links.csv"
    path.write_text(HEADER + BLOCKS)
    status, shown = await on_terminal(pointing_at(sandbox) | {"CI": "true"}, "bulk", str(path))
    assert status == 0, shown
    assert re.search(rf"✓\S* {A} blocks {B}\x1b\[2m  [-0-9a-f]{{36}}", shown)
    assert "0/1" not in shown


async def test_cases_are_named_by_their_keys(sandbox: Sandbox) -> None:
    """Each case key is looked up once, and an unknown key fails only the lines that use it."""
    known = [sandbox.add_case(f"SHOP-{number}") for number in (1, 2)]
    text = "parent,relationship,child\nSHOP-1,blocks,SHOP-2\nshop-1,causes,SHOP-2\nSHOP-1,blocks,SHOP-3\n"
    done = await bulk(pointing_at(sandbox), "-", stdin=text.encode())
    assert {(link.parent_entity_id, link.child_entity_id) for link in sandbox.links} == {
        (known[0].id, known[1].id)
    }
    assert "line 4: failed: cannot get case SHOP-3: 404 case not found" in done.err
    assert [line.split("\t")[0] for line in done.out.splitlines()] == [
        "✓ SHOP-1 blocks SHOP-2",
        "✓ SHOP-1 causes SHOP-2",
    ]
    gets = [request.path for request in sandbox.requests if request.method == "GET"]
    assert len([path for path in gets if "/cases/link" not in path]) == 3
    assert done.status == 1


@pytest.mark.parametrize("output", ["json", "jsonl"])
async def test_outcomes_are_reported_as_json(sandbox: Sandbox, output: str) -> None:
    """JSON has a record for each line, including malformed and failed ones."""
    text = f"{HEADER}{BLOCKS}{A},,BLOCKS,X-1,\nnonsense,,BLOCKS,{B},\n"
    done = await bulk(pointing_at(sandbox), "--output", output, "-", stdin=text.encode())
    records = (
        json.loads(done.out) if output == "json" else [json.loads(line) for line in done.out.splitlines()]
    )
    by_line = {outcome["line"]: outcome for outcome in records}
    assert {line: outcome["outcome"] for line, outcome in by_line.items()} == {
        2: "created",
        3: "failed",
        4: "malformed",
    }
    assert by_line[2]["link"] == {
        "id": sandbox.links[0].id,
        "parent": {"type": "CASE", "id": A},
        "relationship": "BLOCKS",
        "child": {"type": "CASE", "id": B},
    }
    assert "case not found" in by_line[3]["error"]
    assert "does not name an entity" in by_line[4]["error"]
    errors = [(by_line[number]["error_type"], by_line[number]["error_status"]) for number in (3, 4)]
    assert errors == [("NotFoundError", 404), ("InvalidLinkError", None)]
    assert by_line[4]["text"] == f"nonsense,,BLOCKS,{B},"


async def test_outcomes_are_lines_to_run_again(sandbox: Sandbox) -> None:
    """The JSON Lines of a run can be the input of another run, because they name links as its file does."""
    for number in (1, 2):
        sandbox.add_case(f"SHOP-{number}")
    text = b"parent,relationship,child\nshop-2,blocked by,SHOP-1\nSHOP-1,parent of,SHOP-3\n"
    done = await bulk(pointing_at(sandbox), "--output", "jsonl", "-", stdin=text)
    records = {record["line"]: record for record in map(json.loads, done.out.splitlines())}
    links = [(each["parent"], each["relationship"], each["child"]) for _, each in sorted(records.items())]
    assert links == [("SHOP-1", "BLOCKS", "SHOP-2"), ("SHOP-1", "PARENT_OF", "SHOP-3")]
    sandbox.add_case("SHOP-3")
    done = await bulk(pointing_at(sandbox), "--output", "jsonl", "-", stdin=done.out.encode())
    outcomes = {record["outcome"]: record for record in map(json.loads, done.out.splitlines())}
    assert outcomes.keys() == {"already_linked", "created"}
    assert outcomes["created"]["child"] == "SHOP-3"


async def test_an_ambiguous_outcome_has_the_status_that_left_it_open() -> None:
    """The JSON of an ambiguous link has the type of its error and the status of the response."""
    async with Server(answers(503), answers(403)) as server:
        variables = environment(DD_SITE=server.url, DD_API_KEY=API_KEY, DD_APP_KEY=APP_KEY)
        options = ("--no-lookup", "--attempts", "1", "--output", "jsonl")
        done = await bulk(variables, *options, "-", stdin=(HEADER + BLOCKS).encode())
    record = json.loads(done.out)
    assert (record["outcome"], record["error_type"], record["error_status"]) == (
        "ambiguous",
        "AmbiguousResultError",
        503,
    )


async def test_errors_that_name_uuids_follow_the_keys(sandbox: Sandbox) -> None:
    """The failure of a link that the file names by keys is shown with these keys, and not only with UUIDs."""
    for number in (1, 2):
        sandbox.add_case(f"SHOP-{number}")
    may_only_read = {"DD_APP_KEY": sandbox.credentials_without_scope.app_key}
    text = b"parent,relationship,child\nSHOP-1,blocks,SHOP-2\n"
    done = await bulk(pointing_at(sandbox) | may_only_read, "--no-lookup", "-", stdin=text)
    assert done.err.startswith("line 2: failed: SHOP-1 blocks SHOP-2: cannot create CASE ")


async def test_a_repeated_line_names_the_first(sandbox: Sandbox) -> None:
    """A repeated line is reported with the number of the line that created the link, also in JSON."""
    text = (HEADER + BLOCKS * 2).encode()
    done = await bulk(pointing_at(sandbox), "--concurrency", "1", "-", stdin=text)
    (link,) = sandbox.links
    assert done.out.splitlines()[1] == f"= {A} blocks {B}\t{link.id}\trepeats line 2"
    await caselinks(pointing_at(sandbox), "delete", link.id)
    done = await bulk(pointing_at(sandbox), "--concurrency", "1", "--output", "jsonl", "-", stdin=text)
    assert json.loads(done.out.splitlines()[1])["repeats_line"] == 2


async def test_an_empty_run_is_an_empty_list(sandbox: Sandbox) -> None:
    """With --output json, a run without links prints an empty list."""
    done = await bulk(pointing_at(sandbox), "--output", "json", "-", stdin=HEADER.encode())
    assert json.loads(done.out) == []


async def test_verbose_shows_each_wait(sandbox: Sandbox, tmp_path: Path) -> None:
    """With --verbose, every retry and every wait for the rate limit is shown."""
    path = tmp_path / "links.csv"
    path.write_text(HEADER + BLOCKS * 4)
    sandbox.fail_next(Fault.HTTP_429, count=2, seconds=0)
    sandbox.fail_next(Fault.HTTP_503, count=2)
    variables = waiting_for_nothing(pointing_at(sandbox))
    done = await bulk(variables, "--verbose", "--concurrency", "1", str(path))
    assert (done.err.count("\nAttempt "), done.err.count("is used up")) == (2, 2)
    assert "of this kind" not in done.err


MESSY = b"""parent,relationship,child
SHOP-1,blocks,SHOP-2
SHOP-1,bloks,SHOP-2
SHOP-2,causes,SHOP-1
SHOP-2,blocked by,SHOP-1
SHOP-99,blocks,SHOP-1
"""


@pytest.mark.parametrize(("rate", "links"), [(None, 100), ("4/1s", 4), ("1/1m", 1), ("9000/1m", 100)])
def test_few_links_are_in_progress_at_a_slow_rate(rate: str | None, links: int) -> None:
    """At a slow rate, as many links are in progress as requests fit in a second: creates come soon."""
    assert default_concurrency(Rate.parse(rate) if rate else None) == links


class TestDryRun:
    async def test_it_says_what_would_happen_to_each_line(self, sandbox: Sandbox) -> None:
        """A dry run reports the outcome of every line with its number, and creates nothing."""
        for number in (1, 2):
            sandbox.add_case(f"SHOP-{number}", "A case")
        await caselinks(pointing_at(sandbox), "create", "SHOP-2", "causes", "SHOP-1")
        (existing,) = sandbox.links
        done = await bulk(
            pointing_at(sandbox), "--dry-run", "--no-lookup", "--concurrency", "1", "-", stdin=MESSY
        )
        assert done.status == 1
        assert done.out.splitlines() == [
            "line 2\t+ SHOP-1 blocks SHOP-2\t\twould create",
            f"line 4\t= SHOP-2 causes SHOP-1\t{existing.id}\talready linked",
            "line 5\t= SHOP-1 blocks SHOP-2\t\trepeated",
        ]
        malformed, failed, hint, summary = done.err.splitlines()
        assert malformed.startswith("line 3: unknown relationship 'bloks'")
        assert failed.startswith("line 6: cannot get case SHOP-99: 404")
        assert hint == "With --no-lookup, links that exist or are repeated may be created again."
        assert summary == (
            "Dry run: 1 link would be created, 1 already linked, 1 repeated, 1 failed, 1 malformed. "
            "Nothing was created."
        )
        assert sandbox.links == [existing]
        done = await bulk(pointing_at(sandbox), "--dry-run", "--output", "json", "-", stdin=MESSY)
        records = {each["line"]: each for each in json.loads(done.out)}
        assert {records[number]["outcome"] for number in (2, 5)} == {"would_create", "repeated"}
        assert (records[3]["outcome"], records[6]["outcome"]) == ("malformed", "failed")
        assert records[4]["link"]["id"] == existing.id
        assert "--no-lookup" not in done.err

    async def test_a_terminal_shows_the_lines(self, sandbox: Sandbox, file: Path) -> None:
        """On a terminal, a dry run shows each line, unlike a run: to see them is what it is for."""
        status, shown = await on_terminal(pointing_at(sandbox), "bulk", "--dry-run", str(file))
        assert status == 0
        assert f" {A} blocks {B}" in shown
        status, shown = await on_terminal(pointing_at(sandbox), "bulk", "--dry-run", "--quiet", str(file))
        assert A not in shown

    async def test_the_options_of_the_run_can_stay(self, sandbox: Sandbox, tmp_path: Path) -> None:
        """A dry run writes no file, and with --strict it says that the run would send nothing."""
        file = tmp_path / "links.csv"
        file.write_bytes(MESSY)
        journal, rejects = str(tmp_path / "run.journal"), str(tmp_path / "rejects.csv")
        options = ("--strict", "--quiet", "--journal", journal, "--rejects", rejects)
        done = await bulk(pointing_at(sandbox), "--dry-run", *options, str(file))
        assert (done.status, done.out) == (1, "")
        assert "With --strict, nothing would be sent, because a line is malformed." in done.err
        assert os.listdir(tmp_path) == ["links.csv"]

    async def test_a_good_file_ends_with_status_0(self, sandbox: Sandbox, file: Path) -> None:
        """A dry run ends with status 0 if every line could be created."""
        done = await bulk(pointing_at(sandbox), "--dry-run", str(file))
        assert done.status == 0
        assert not sandbox.links

    async def test_an_early_end_shows_what_was_found(self, sandbox: Sandbox) -> None:
        """A dry run that ends early shows its lines and totals so far, and says that they are incomplete."""
        for number in (1, 2):
            sandbox.add_case(f"SHOP-{number}", "A case")
        process = await start(pointing_at(sandbox), "bulk", "--dry-run", "--concurrency", "1", "-")
        process.stdin.write(b"parent,relationship,child\nSHOP-1,blocks,SHOP-2\n")
        await process.stdin.drain()
        async with asyncio.timeout(MAX_SECONDS):
            assert await process.stdout.readline() == b"line 2\t+ SHOP-1 blocks SHOP-2\t\twould create\n"
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
        assert process.returncode == 130
        assert err.decode() == (
            "Dry run, incomplete: 1 link would be created. Nothing was created.\nInterrupted.\n"
        )

    async def test_a_wrong_environment_is_all_that_is_reported(self, file: Path) -> None:
        """A dry run that cannot begin has no totals."""
        done = await bulk(environment(DD_SITE="nowhere"), "--dry-run", str(file))
        assert (done.status, done.err.count("\n"), "Dry run" in done.err) == (2, 1, False)

    async def test_an_error_of_every_line_is_shown_once(self, file: Path, unused_tcp_port: int) -> None:
        """An error that concerns every line, such as a refused connection, ends the run."""
        variables = environment(
            DD_SITE=f"http://127.0.0.1:{unused_tcp_port}", DD_API_KEY="an-api-key", DD_APP_KEY="an-app-key"
        )
        done = await bulk(variables, "--dry-run", "--attempts", "1", str(file))
        assert done.status == 1
        first, stopped, _ = done.err.splitlines()
        assert first.startswith("line 2: ")
        assert stopped == f"Stopped: {first}. Every further line would fail for the same reason."
