"""``caselinks plan``, run as a program against a sandbox."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from datadog_caselinks import (
    AlreadyLinked,
    AmbiguousResultError,
    CaseLink,
    CaseLinksError,
    Failed,
    LinkPlan,
    PlanOutcome,
)
from datadog_caselinks.cli.plan import _Application
from datadog_caselinks.cli.run import Settings
from datadog_caselinks.cli.screen import Screen
from datadog_caselinks.sandbox import Sandbox
from tests.cli.program import caselinks, environment, on_terminal, pointing_at, start
from tests.support.ids import case, some_id
from tests.support.server import Server
from tests.support.steps import answers, is_silent, listed

YAML = "SHOP-1:\n  blocks: [SHOP-2, SHOP-3]\n"


@pytest.fixture
def sandbox(sandbox: Sandbox) -> Sandbox:
    """Add cases to the shared sandbox."""
    for number in range(1, 5):
        sandbox.add_case(f"SHOP-{number}", f"Case {number}")
    return sandbox


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "links.yaml"
    path.write_text(YAML)
    return str(path)


async def test_it_shows_and_changes_nothing(sandbox: Sandbox, file: str) -> None:
    """plan prints one line per change and says how to apply them, and changes nothing."""
    done = await caselinks(pointing_at(sandbox), "plan", file)
    assert done.out == "+ SHOP-1 blocks SHOP-2\n+ SHOP-1 blocks SHOP-3\n"
    assert done.err == "2 links to create. Nothing was changed; use --apply to apply the plan.\n"
    assert (done.status, sandbox.links) == (0, [])


async def test_a_terminal_shows_it_by_parents_and_with_titles(sandbox: Sandbox, file: str) -> None:
    """A terminal groups changes by parent, shows creates in green and deletes in red, and cleans titles."""
    sandbox.add_case("SHOP-5", "One\nand\x1b[31m two")
    await caselinks(pointing_at(sandbox), "create", "SHOP-1", "causes", "SHOP-5")
    await asyncio.to_thread(Path(file).write_text, f"{YAML}SHOP-5:\n  blocks: SHOP-1\n")
    status, shown = await on_terminal(pointing_at(sandbox), "plan", file, "--prune")
    lines = shown[shown.index("\x1b[1mSHOP-1") :].splitlines()
    assert status == 0
    assert [re.sub(r"\x1b\[\d+m", "", line).rstrip() for line in lines[:6]] == [
        "SHOP-1  Case 1",
        "  + blocks  SHOP-2  Case 2",
        "  + blocks  SHOP-3  Case 3",
        "  - causes  SHOP-5  One and [31m two",
        "SHOP-5  One and [31m two",
        "  + blocks  SHOP-1  Case 1",
    ]
    assert "\x1b[32m  + blocks" in shown
    assert "\x1b[31m  - causes" in shown


async def test_applying_twice_changes_nothing(sandbox: Sandbox, file: str) -> None:
    """A second plan --apply has nothing to do."""
    first = await caselinks(pointing_at(sandbox), "plan", file, "--apply", "--yes")
    assert (first.status, first.err) == (0, "2 created.\n")
    ids = {link.id for link in sandbox.links}
    second = await caselinks(pointing_at(sandbox), "plan", file, "--apply", "--yes")
    assert (second.status, second.out) == (0, "")
    assert second.err == "Nothing to do: 2 already linked.\n"
    assert {link.id for link in sandbox.links} == ids
    assert len(ids) == 2


async def test_check_says_by_its_exit_status_whether_changes_are_pending(sandbox: Sandbox, file: str) -> None:
    """With --check, the status is 3 for pending changes, 0 for none, and 1 or 2 for errors."""
    pending = await caselinks(pointing_at(sandbox), "plan", "--check", file)
    assert (pending.status, pending.out.count("+ "), sandbox.links) == (3, 2, [])
    await caselinks(pointing_at(sandbox), "plan", "--apply", "--yes", file)
    assert (await caselinks(pointing_at(sandbox), "plan", "--check", file)).status == 0
    await caselinks(pointing_at(sandbox), "create", "SHOP-2", "causes", "SHOP-3")
    assert (await caselinks(pointing_at(sandbox), "plan", "--check", file)).status == 0
    assert (await caselinks(pointing_at(sandbox), "plan", "--check", "--prune", file)).status == 3
    assert (await caselinks(pointing_at(sandbox), "plan", "--check", f"{file}.missing")).status == 2
    unknown = await caselinks(
        pointing_at(sandbox), "plan", "--check", "--format", "yaml", "-", stdin=b"SHOP-99: {blocks: SHOP-1}"
    )
    assert unknown.status == 1
    both = await caselinks(pointing_at(sandbox), "plan", "--check", "--apply", "--yes", file)
    assert (both.status, both.err) == (2, "Error: use either --apply or --check, not both\n")


async def test_prune_deletes_what_the_file_lacks(sandbox: Sandbox, file: str) -> None:
    """With --prune, plan deletes only links between the entities in the file; without it, none."""
    for arguments in (("SHOP-3", "causes", "SHOP-2"), ("SHOP-3", "causes", "SHOP-4")):
        await caselinks(pointing_at(sandbox), "create", *arguments)
    assert "- " not in (await caselinks(pointing_at(sandbox), "plan", file)).out
    shown = await caselinks(pointing_at(sandbox), "plan", file, "--prune")
    assert shown.out.splitlines()[-1] == "- SHOP-3 causes SHOP-2"
    done = await caselinks(pointing_at(sandbox), "plan", file, "--prune", "--apply", "--yes")
    assert done.err == "2 created, 1 deleted.\n"
    assert sorted(link.relationship for link in sandbox.links) == ["BLOCKS", "BLOCKS", "CAUSES"]


async def test_json_has_the_changes_and_then_the_outcomes(sandbox: Sandbox, file: str) -> None:
    """JSON has the planned changes, and with --apply the outcomes."""
    done = await caselinks(pointing_at(sandbox), "plan", file, "--output", "json")
    assert [(each["action"], each["link"]["child"]["key"]) for each in json.loads(done.out)] == [
        ("create", "SHOP-2"),
        ("create", "SHOP-3"),
    ]
    done = await caselinks(pointing_at(sandbox), "plan", file, "--apply", "--yes", "--output", "jsonl")
    records = [json.loads(line) for line in done.out.splitlines()]
    assert {each["outcome"] for each in records} == {"created"}
    assert {each["link"]["id"] for each in records} == {link.id for link in sandbox.links}


async def test_a_failure_is_reported_with_its_link(sandbox: Sandbox, file: str) -> None:
    """A failed create is reported with its link and status 1, and nothing is deleted."""
    await caselinks(pointing_at(sandbox), "create", "SHOP-3", "causes", "SHOP-2")
    may_only_read = {"DD_APP_KEY": sandbox.credentials_without_scope.app_key}
    done = await caselinks(
        *(pointing_at(sandbox) | may_only_read, "plan", file, "--prune", "--apply", "--yes"),
        *("--output", "json"),
    )
    assert done.status == 1
    assert "SHOP-1 blocks SHOP-2: failed: " in done.err
    assert "SHOP-3 causes SHOP-2: not deleted: " in done.err
    assert "2 failed, 1 not deleted." in done.err
    assert {each["outcome"] for each in json.loads(done.out)} == {"failed", "not_deleted"}
    assert len(sandbox.links) == 1


class Applies:
    """A client whose ``apply_plan`` yields the given outcomes."""

    def __init__(self, *outcomes: PlanOutcome) -> None:
        self._outcomes = outcomes

    async def apply_plan(self, _: LinkPlan, *, trust_lists: bool) -> AsyncGenerator[PlanOutcome, None]:
        for outcome in self._outcomes:
            yield outcome


async def test_outcomes_are_reported_in_the_words_of_bulk(capsys: pytest.CaptureFixture[str]) -> None:
    """plan reports ambiguous outcomes as bulk does, and not as failed."""
    new = case(some_id(1)).blocks(case(some_id(2)))
    there = CaseLink("a-link", new.parent, new.relationship, new.child)
    unclear = AmbiguousResultError("who knows", new=new, reason=CaseLinksError("no answer"))
    settings = Settings(site=None, in_sandbox=False, output="jsonl", quiet=False, verbose=False)
    application = _Application(Screen(), settings)
    client: Any = Applies(Failed(new, unclear, 0), AlreadyLinked(new, there, 1))
    await application.apply(client, LinkPlan(create=(new, new)))
    shown = capsys.readouterr()
    assert [json.loads(line)["outcome"] for line in shown.out.splitlines()] == [
        "ambiguous",
        "already_linked",
    ]
    assert "1 ambiguous, 1 already linked.\nTo continue, " in shown.err
    assert application.exit_status == 1


async def test_a_cycle_is_reported_before_anything_is_sent(sandbox: Sandbox) -> None:
    """A cycle that includes existing links is shown as a warning with its path."""
    await caselinks(pointing_at(sandbox), "create", "SHOP-2", "blocks", "SHOP-1")
    done = await caselinks(pointing_at(sandbox), "plan", "--format", "yaml", "-", stdin=YAML.encode())
    assert "Warning: a cycle: " in done.err
    assert "SHOP-1 blocks SHOP-2" in done.err.partition("cycle: ")[2]
    assert (done.status, len(sandbox.links)) == (0, 1)


@pytest.mark.parametrize(
    ("text", "status", "expected"),
    [
        ("SHOP-1: {blocks: [SHOP-2, checkout]}\n", 2, "line 1: 'checkout' does not name an entity"),
        ("SHOP-1: {blocks: SHOP-2}\nSHOP-1: {causes: SHOP-3}\n", 2, "already appears in line 1"),
        ("SHOP-1: {blocks: SHOP-98}\nSHOP-99: {blocks: SHOP-1}\n", 1, "also not found: SHOP-9"),
        ("", 2, "the file is empty"),
    ],
)
async def test_what_cannot_be_planned_is_reported(
    sandbox: Sandbox, text: str, status: int, expected: str
) -> None:
    """With --strict, a line that cannot be planned is an error, and nothing is changed."""
    arguments = ("plan", "--strict", "--format", "yaml", "--apply", "--yes", "-")
    done = await caselinks(pointing_at(sandbox), *arguments, stdin=text.encode())
    assert expected in done.err
    assert (done.status, done.out, sandbox.links) == (status, "", [])
    assert done.err.count("\n") <= 2


async def test_a_file_that_states_nothing_is_nothing_to_do(sandbox: Sandbox) -> None:
    """A file with only a header results in nothing to do."""
    done = await caselinks(pointing_at(sandbox), "plan", "-", stdin=b"parent,relationship,child\n")
    assert (done.status, done.err) == (0, "Nothing to do: the file contains no links.\n")


async def test_quiet_shows_changes_and_warnings_only(sandbox: Sandbox, file: str) -> None:
    """With --quiet, plan shows the changes, but neither a summary nor hints."""
    done = await caselinks(pointing_at(sandbox), "plan", file, "--quiet")
    assert (done.status, done.out.count("+ "), done.err) == (0, 2, "")
    done = await caselinks(pointing_at(sandbox), "plan", file, "--quiet", "--apply", "--yes")
    assert (done.status, done.err, len(sandbox.links)) == (0, "", 2)


async def test_without_a_terminal_it_needs_yes(sandbox: Sandbox, file: str) -> None:
    """Without a terminal, --apply needs --yes, and nothing is sent."""
    done = await caselinks(pointing_at(sandbox), "plan", file, "--apply")
    assert (done.status, done.err.count("\n"), len(sandbox.requests)) == (2, 1, 0)
    assert "add --yes" in done.err


@pytest.mark.parametrize(
    ("answer", "status", "expected", "links"),
    [
        (b"y\n", 0, "2 created.", 2),
        (b"n\n", 1, "Nothing was changed.", 0),
        (b"\n", 1, "Nothing was changed.", 0),
        (b"", 130, "\r\nNothing was changed.\r\nInterrupted.", 0),
    ],
)
@pytest.mark.parametrize("options", [(), ("--output", "jsonl")])
async def test_on_a_terminal_it_asks(
    sandbox: Sandbox,
    file: str,
    answer: bytes,
    status: int,
    expected: str,
    links: int,
    options: tuple[str, ...],
) -> None:
    """On a terminal, plan shows the changes, and only yes applies them."""
    variables = pointing_at(sandbox)
    done, shown = await on_terminal(variables, "plan", file, "--apply", *options, answer=answer)
    assert shown.index("SHOP-2") < shown.index("2 links to create")
    assert expected in shown
    assert "2 links to create. Apply? [y/N]" in shown
    assert (done, len(sandbox.links)) == (status, links)


async def test_interrupted_it_says_how_far_it_came() -> None:
    """Ctrl-C during --apply reports the progress, and the command that plans the rest."""
    async with Server(listed, is_silent) as server:
        variables = environment(DD_SITE=server.url, DD_API_KEY="an-api-key", DD_APP_KEY="an-app-key")
        process = await start(variables, "plan", "-", "--apply", "--yes")
        process.stdin.write(f"parent,relationship,child\n{some_id(1)},blocks,{some_id(2)}\n".encode())
        process.stdin.close()
        await server.until_seen(2)
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    assert process.returncode == 130
    assert "So far: nothing. Changes in flight may have been applied too" in err.decode()
    assert "with the same input (it plans the rest):\n  caselinks plan - --apply --yes\n" in err.decode()


async def test_changes_that_failed_end_with_the_command(tmp_path: Path) -> None:
    """A plan with failed changes ends with the command that plans the rest."""
    file = tmp_path / "links.csv"
    file.write_text(f"parent,relationship,child\n{some_id(1)},blocks,{some_id(2)}\n")
    async with Server(listed, answers(404)) as server:
        variables = environment(DD_SITE=server.url, DD_API_KEY="an-api-key", DD_APP_KEY="an-app-key")
        done = await caselinks(variables, "plan", str(file), "--apply", "--yes")
    assert done.status == 1
    assert done.err.endswith(
        "To continue, fix the problems above, then run this command (it plans the rest):\n"
        f"  caselinks plan {file} --apply --yes\n"
    )


async def test_the_example_needs_no_keys() -> None:
    """The example file can be planned in a sandbox without keys."""
    done = await caselinks(environment(), "plan", "--sandbox", "--prune", "examples/links.yaml")
    assert (done.status, done.out.count("+ "), done.out.count("- ")) == (0, 3, 1)


MESSY = b"""parent,relationship,child
SHOP-1,bloks,SHOP-2
SHOP-1,blocks,SHOP-2
SHOP-98,blocks,SHOP-2
SHOP-1,blocks,SHOP-98
SHOP-1,blocks,SHOP-2
"""


async def test_a_messy_file_is_planned_as_bulk_reads_it(sandbox: Sandbox) -> None:
    """Malformed lines and unknown cases are reported, and the other lines are planned and applied."""
    done = await caselinks(pointing_at(sandbox), "plan", "--check", "-", stdin=MESSY)
    assert (done.status, done.out) == (1, "+ SHOP-1 blocks SHOP-2\n")
    malformed, first, second, summary = done.err.splitlines()
    assert malformed.startswith("line 2: unknown relationship 'bloks'; did you mean blocks?")
    assert first.startswith("line 4: cannot get case SHOP-98: 404 case not found")
    assert second.startswith("line 5: cannot get case SHOP-98: 404 case not found")
    assert summary.startswith("1 link to create, 3 lines left out. Nothing was changed")
    done = await caselinks(pointing_at(sandbox), "plan", "--apply", "--yes", "-", stdin=MESSY)
    assert (done.status, len(sandbox.links)) == (1, 1)
    assert done.err.splitlines()[-1] == "  caselinks plan --apply --yes -"


async def test_a_messy_file_prunes_nothing(sandbox: Sandbox) -> None:
    """If a line is left out, nothing is pruned, because the line may mean an existing link."""
    await caselinks(pointing_at(sandbox), "create", "SHOP-2", "causes", "SHOP-1")
    for text in (MESSY.replace(b"SHOP-98", b"SHOP-3"), MESSY.replace(b"bloks", b"blocks")):
        arguments = ("plan", "--prune", "--apply", "--yes", "-")
        done = await caselinks(pointing_at(sandbox), *arguments, stdin=text)
        assert "Nothing is pruned, because a line above may mean a link that exists." in done.err
        assert done.status == 1
        assert "CAUSES" in [link.relationship for link in sandbox.links]


async def test_an_entity_that_cannot_be_listed_concerns_its_lines(sandbox: Sandbox) -> None:
    """A line whose entity the server does not find is left out, and the others are planned."""
    gone = answers(404, b'{"errors": [{"title": "case not found"}]}')
    text = f"parent,relationship,child\n{some_id(1)},blocks,{some_id(2)}\n{some_id(3)},blocks,{some_id(4)}\n"
    async with Server(gone, listed) as server:
        variables = environment(DD_SITE=server.url, DD_API_KEY="an-api-key", DD_APP_KEY="an-app-key")
        done = await caselinks(variables, "plan", "-", stdin=text.encode())
    assert done.status == 1
    assert done.out.count("+ ") == 1
    assert re.match(r"line [23]: cannot list the links of CASE .* 404 case not found", done.err)
    async with Server(gone, gone) as server:
        variables = environment(DD_SITE=server.url, DD_API_KEY="an-api-key", DD_APP_KEY="an-app-key")
        done = await caselinks(variables, "plan", "--strict", "-", stdin=text.encode())
    assert (done.status, done.out) == (1, "")


async def test_warnings_are_grouped_and_capped_and_in_keys(sandbox: Sandbox) -> None:
    """Warnings are grouped by kind, limited in number, and name cases by key even if the file has UUIDs."""
    ids = {number: sandbox.add_case(f"MANY-{number}").id for number in range(24)}
    rows = [(ids[number], "blocks", ids[number + 1]) for number in range(0, 24, 2)]
    rows += [(child, relationship, parent) for parent, relationship, child in rows]
    rows += [(ids[number], "parent of", "SHOP-1") for number in range(3)]
    text = "parent,relationship,child\n" + "".join(f"{','.join(row)}\n" for row in rows)
    done = await caselinks(pointing_at(sandbox), "plan", "-", stdin=text.encode())
    heading, *cycles, rest, parents, summary = done.err.splitlines()
    assert heading == "Warning: 12 cycles"
    assert cycles == [
        f"  a cycle: MANY-{number} blocks MANY-{number + 1} blocks MANY-{number}"
        for number in range(0, 20, 2)
    ]
    assert rest == "  … and 2 more"
    assert parents == "Warning: SHOP-1 has 3 parents: MANY-0, MANY-1, MANY-2"
    assert summary.startswith("27 links to create.")
