"""The ``caselinks`` command as a whole."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from datadog_caselinks.cli import command as group
from datadog_caselinks.sandbox import Sandbox
from datadog_caselinks.version import __version__
from tests.cli.program import caselinks, environment, pointing_at, start
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
MAIN = "from datadog_caselinks.cli import main; main()"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


def test_version_is_that_of_the_package() -> None:
    """--version prints the version in version.py, even if the package has no metadata."""
    done = run("-c", f"import sys; sys.modules['importlib.metadata'] = None; {MAIN}", "--version")
    assert (done.stdout, done.stderr) == (f"caselinks, version {__version__}\n", "")


GROUPS = {
    "journal": ["show"],
    "fleet": ["init", "submit", "worker", "status", "retry-failed"],
}
"""The commands that have commands of their own."""


@pytest.mark.parametrize(
    "command",
    [
        [],
        *([name] for name in group._COMMANDS if name not in GROUPS),
        *([parent, name] for parent, names in GROUPS.items() for name in names),
    ],
)
async def test_help_has_an_example(command: list[str]) -> None:
    """The --help of each subcommand has an example."""
    done = await caselinks(environment(), *command, "--help")
    assert (done.status, done.err) == (0, "")
    assert ("Example" in done.out) == bool(command)


def commands(group: click.Group, *path: str) -> Iterator[tuple[str, click.Command]]:
    """Yield every command below ``group`` with its whole name."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command
        yield " ".join([*path, name]), command
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)


COMMANDS = dict(commands(group.caselinks))
IN_SANDBOX = [
    command.epilog.removeprefix("Example: ")
    for name, command in COMMANDS.items()
    if command.epilog and "--sandbox" in command.epilog and name != "mcp"  # it serves until it is interrupted
]


@pytest.mark.parametrize("example", IN_SANDBOX)
async def test_an_example_of_the_help_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, example: str
) -> None:
    """Each example that uses the sandbox succeeds in the folder of the project."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    done = await caselinks(environment(), *shlex.split(example)[1:])
    assert (done.status, bool(done.out)) == (0, "-o" not in example), done.err


def test_most_examples_of_the_help_run() -> None:
    """The examples that use the sandbox are those of all commands that can use it without a file of a run."""
    names = {shlex.split(example)[1] for example in IN_SANDBOX}
    assert names == {"create", "ensure", "list", "delete", "find", "show", "bulk", "plan", "graph"}


@pytest.mark.parametrize("name", COMMANDS)
def test_an_option_names_its_value_by_its_meaning(name: str) -> None:
    """No option shows the type of its value, such as INTEGER, in place of a name or a unit."""
    command = COMMANDS[name]
    assert not re.search(r"\b(INTEGER|FLOAT|TEXT)\b", command.get_help(click.Context(command)))


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_its_extra_the_command_says_what_to_install(missing: str) -> None:
    """If a library of the command is missing, one line names the extra, and there is no traceback."""
    done = run("-c", f"import sys; sys.modules['{missing}'] = None; {MAIN}", "list", "SHOP-1")
    hint = "In the folder of the project, run: pip install '.[cli]'"
    assert done.stderr == f"caselinks: the command needs the extra cli. {hint}\n"
    assert done.returncode == 1


@pytest.mark.parametrize("module", ["datadog_caselinks.cli.command", "datadog_caselinks.cli.link", "aiohttp"])
def test_an_interrupt_while_it_starts_is_no_traceback(module: str) -> None:
    """Ctrl-C during startup ends the command with status 130 and without a traceback."""
    program = (
        "import sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {module!r}:\n"
        "            raise KeyboardInterrupt\n"
        f"sys.meta_path.insert(0, Interrupted())\n{MAIN}\n"
    )
    done = run("-c", program, "list", "SHOP-1")
    assert (done.returncode, done.stderr) == (130, "")


def test_another_missing_module_is_not_taken_for_the_extra() -> None:
    """A missing module of the standard library is not reported as a missing extra."""
    done = run("-c", f"import sys; sys.modules['sqlite3'] = None; {MAIN}", "sandbox")
    assert "sqlite3" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_version_and_help_import_no_aiohttp(option: str) -> None:
    """--version and --help start fast: they import neither aiohttp nor rich."""
    watch = "import atexit, sys; atexit.register(lambda: print(*sys.modules, sep='\\n', file=sys.stderr))"
    done = run("-c", f"{watch}; {MAIN}", option)
    assert done.returncode == 0
    assert "click" in done.stderr.split()
    assert not {"aiohttp", "rich", "cattrs"} & set(done.stderr.split())


def test_only_the_sandbox_imports_a_server() -> None:
    """No other subcommand imports an HTTP server, which would delay its start."""
    modules = {f"datadog_caselinks.cli.{module}" for module, _ in group._COMMANDS.values()}
    imports = "\n".join(f"import {module}" for module in sorted(modules - {"datadog_caselinks.cli.sandbox"}))
    done = run("-c", f"{imports}\nimport sys; print(*sys.modules)")
    assert "aiohttp" in done.stdout.split()
    assert not {"aiohttp.web", "datadog_caselinks.sandbox"} & set(done.stdout.split())


@pytest.mark.parametrize("name", list(group._COMMANDS))
def test_the_list_of_commands_is_what_they_say_themselves(name: str) -> None:
    """The list of commands shows the first paragraph of each command's help."""
    command = group.caselinks.get_command(click.Context(group.caselinks), name)
    assert command is not None
    assert command.help is not None
    assert " ".join(command.help.split("\n\n")[0].split()) == group._COMMANDS[name][1]


async def test_an_unknown_command_is_a_usage_error() -> None:
    """An unknown command is reported as a usage error with status 2."""
    done = await caselinks(environment(), "lnk")
    assert done.status == 2
    assert "No such command 'lnk'" in done.err


async def test_the_shell_can_complete_commands_and_options() -> None:
    """The completion of click works for commands."""
    for words, expected in (("caselinks d", "delete"), ("caselinks li", "list")):
        variables = {"_CASELINKS_COMPLETE": "bash_complete", "COMP_CWORD": "1", "COMP_WORDS": words}
        done = await caselinks(environment(**variables))
        assert f"plain,{expected}" in done.out.split()


def test_no_option_takes_a_secret() -> None:
    """No option takes a secret, because the shell history and the process list show command lines."""
    named = {option for command in _all(group.caselinks) for each in command.params for option in each.opts}
    assert named >= {"--site", "--journal", "--status"}
    assert not [option for option in named if re.search("key|token|secret|password|proxy", option)]


def _all(command: click.Command) -> Iterator[click.Command]:
    """Yield ``command`` and all commands below it."""
    yield command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from _all(child)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("bluk links.csv", "No such command 'bluk'. Did you mean bulk?"),
        ("rm SHOP-1", "No such command 'rm'. Did you mean delete?"),
        ("version", "No such command 'version'. Did you mean --version?"),
        ("journal shwo run.journal", "No such command 'shwo'. Did you mean show?"),
        ("fleet staus", "No such command 'staus'. Did you mean status?"),
        ("help bluk", "No such command 'bluk'. Did you mean bulk?"),
        ("qqqqqq", "No such command 'qqqqqq'.\n"),
        ("get SHOP-1", "No such command 'get'. Did you mean show?"),
        ("journal run.journal", "No such command 'run.journal'. Did you mean show run.journal?"),
    ],
)
async def test_an_unknown_command_gets_a_suggestion(command: str, expected: str) -> None:
    """A mistyped subcommand, or a common synonym of one, is refused with a suggestion and status 2."""
    done = await caselinks(environment(), *command.split())
    assert expected in done.err
    assert done.status == 2


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("list SHOP-1 --limit 3", "No such option '--limit'.\n"),
        ("list SHOP-1 --verbos", "No such option '--verbos'. Did you mean --verbose?"),
        ("list SHOP-1 --json", "No such option '--json'. Did you mean --output json?"),
        ("list SHOP-1 -o json", "No such option '-o'. Did you mean --output?"),
        ("journal show --jsonl run.journal", "No such option '--jsonl'. Did you mean --output jsonl?"),
        ("undo -y run.journal", "No such option '-y'. Did you mean --yes?"),
        ("fleet init --json", "No such option '--json'.\n"),
        ("--json list SHOP-1", "No such option '--json'. Put the options of a subcommand after its name.\n"),
        ("-v list SHOP-1", "No such option '-v'. Put the options of a subcommand after its name.\n"),
        ("fleet --run 1 status", "No such option '--run'. Put the options of a subcommand after its name.\n"),
        ("--verison", "No such option '--verison'. Did you mean --version?"),
        (
            "find -status:closed",
            "No such option '-s'. To pass an argument that begins with -, put -- before it.",
        ),
    ],
)
async def test_an_unknown_option_gets_a_suggestion(command: str, expected: str) -> None:
    """A mistyped option is refused with a suggestion that the command accepts, as are common synonyms."""
    done = await caselinks(environment(), *command.split())
    assert expected in done.err
    assert done.status == 2


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("plan apply links.yaml", "Unexpected argument 'links.yaml'. Did you mean --apply instead of apply?"),
        (
            "bulk links.csv dry-run",
            "Unexpected argument 'dry-run'. Did you mean --dry-run instead of dry-run?",
        ),
        ("bulk undo run.journal", "Unexpected argument 'run.journal'. Did you mean caselinks undo?"),
        ("fleet status follow", "Unexpected argument 'follow'. Did you mean --follow instead of follow?"),
        ("create SHOP-1 parent of SHOP-2", "'SHOP-2'. Write a relationship as one word, such as parent-of."),
        ("bulk a.csv b.csv c.csv", "Unexpected argument 'b.csv' 'c.csv'.\n"),
        ("fleet status 3", "Unexpected argument '3'.\n"),
    ],
)
def test_an_argument_too_many_gets_a_suggestion(command: str, expected: str) -> None:
    """An argument too many is refused, with the option or command that was probably meant."""
    result = CliRunner().invoke(group.caselinks, command.split())
    assert expected in result.output
    assert result.exit_code == 2


@pytest.mark.parametrize(
    ("command", "same"),
    [
        ("help", "--help"),
        ("help help", "--help"),
        ("help bulk", "bulk --help"),
        ("help journal show", "journal show --help"),
        ("journal help", "journal --help"),
        ("-V", "--version"),
    ],
)
async def test_help_and_version_have_short_forms(command: str, same: str) -> None:
    """``help COMMAND`` prints what ``COMMAND --help`` prints, and -V what --version prints."""
    done = await caselinks(environment(), *command.split())
    assert done == await caselinks(environment(), *same.split())
    assert done.status == 0


async def test_the_rate_is_an_option(sandbox: Sandbox) -> None:
    """A run keeps to --rate, and an invalid rate is refused before anything is sent."""
    sandbox.add_case("SHOP-1")
    done = await caselinks(pointing_at(sandbox), "list", "SHOP-1", "--rate", "1000/1s")
    assert (done.status, len(sandbox.requests)) == (0, 2)
    done = await caselinks(pointing_at(sandbox), "list", "SHOP-1", "--rate", "fast")
    assert (done.status, len(sandbox.requests)) == (2, 2)
    assert "'fast' is not a rate: write REQUESTS/PERIOD, such as 50/1s" in done.err
    process = await start(pointing_at(sandbox), "list", "SHOP-1", "--rate", "1/1h")
    await until(lambda: len(sandbox.requests) >= 3)
    process.send_signal(signal.SIGINT)
    await process.communicate()
    assert (process.returncode, len(sandbox.requests)) == (130, 3)
