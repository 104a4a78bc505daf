"""The public names of ``import datadog_caselinks``, for people and for type checkers."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import itertools
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import datadog_caselinks
from datadog_caselinks import CaseLinksError, public
from datadog_caselinks.values import errors

NAMES = sorted(name for name in vars(public) if name[0].isalpha())
ALIASES = [name for name in NAMES if get_args(getattr(datadog_caselinks, name))]
TREE = ast.parse(Path(inspect.getfile(public)).read_text())
HOMES = {
    alias.name: node.module
    for node in TREE.body
    if isinstance(node, ast.ImportFrom) and node.module
    for alias in node.names
}
"""Each public name, with the module that defines it."""


def test_the_list_has_each_name_as_itself() -> None:
    """Each public name is imported ``as`` itself, which marks it as public for type checkers."""
    assert sorted(HOMES) == NAMES
    for node in TREE.body:
        if isinstance(node, ast.ImportFrom):
            assert all(alias.asname == alias.name for alias in node.names)


def test_all() -> None:
    """``from datadog_caselinks import *`` imports the public names, and nothing else."""
    names: dict[str, object] = {}
    exec("from datadog_caselinks import *", names)
    assert sorted(name for name in names if name != "__builtins__") == NAMES


def test_the_version() -> None:
    """The version is a constant, and needs no metadata of an installation."""
    assert re.fullmatch(r"\d+\.\d+\.\d+(rc\d+)?", datadog_caselinks.__version__)


_WITHOUT_METADATA = """
import asyncio, importlib.metadata, sys
from datadog_caselinks import CaseLinksClient
from datadog_caselinks.cli import main
from datadog_caselinks.sandbox import Sandbox

async def use():
    async with Sandbox(seed="demo") as sandbox, CaseLinksClient(sandbox.site, sandbox.credentials) as client:
        assert (await client.get_case("SHOP-1")).key == "SHOP-1"

assert list(importlib.metadata.distributions()) == []
asyncio.run(use())
sys.argv = ["caselinks", "--version"]
main()
"""


def test_without_metadata(tmp_path: Path) -> None:
    """Requests and ``--version`` work without ``*.dist-info``, as on AWS Lambda."""
    packages = [Path(folder) for folder in sys.path if folder.endswith("site-packages")]
    for entry in (entry for folder in packages for entry in folder.iterdir()):
        if entry.suffix not in (".dist-info", ".egg-info", ".pth") and not (tmp_path / entry.name).exists():
            (tmp_path / entry.name).symlink_to(entry)
    if not (tmp_path / "datadog_caselinks").exists():
        (tmp_path / "datadog_caselinks").symlink_to(Path(datadog_caselinks.__path__[0]))
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-c", _WITHOUT_METADATA],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == f"caselinks, version {datadog_caselinks.__version__}\n"
    assert "datadog_caselinks" not in done.stderr  # opentelemetry-api 1.29 reports that it lacks its own


def test_a_telemetry_that_cannot_be_loaded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A client is created even if OpenTelemetry cannot be loaded."""
    telemetry = pytest.importorskip("datadog_caselinks.observation.telemetry")

    def fail() -> None:
        raise StopIteration

    monkeypatch.setattr(telemetry, "telemetry", fail)
    keys = datadog_caselinks.ApiKeys(api_key="an-api-key", app_key="an-app-key")
    assert datadog_caselinks.CaseLinksClient("EU1", keys).site is datadog_caselinks.Site.EU1
    assert "OpenTelemetry cannot be used" in caplog.text


def test_a_name_that_is_not_there() -> None:
    """An unknown name raises ``AttributeError``, so that ``hasattr`` works."""
    for name in ("Client", "_Client", "__client__"):
        assert not hasattr(datadog_caselinks, name)
    with pytest.raises(ImportError, match="Client"):
        from datadog_caselinks import Client  # type: ignore[attr-defined]  # noqa: F401


def test_dir_lists_all_names() -> None:
    """``dir`` lists the public names before their first use."""
    assert set(NAMES) <= set(dir(datadog_caselinks))


@pytest.mark.slow
def test_importing_the_package_imports_no_dependency() -> None:
    """The package imports no dependency, such as aiohttp, before the first use of a public name."""
    program = (
        "import sys, datadog_caselinks; hasattr(datadog_caselinks, '__wrapped__'); "
        "print(*({'aiohttp', 'attrs', 'cattrs', 'backoff'} & set(sys.modules))); "
        "from datadog_caselinks import CaseLinksClient; print('aiohttp' in sys.modules)"
    )
    command = [sys.executable, "-c", program]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed == "\nTrue\n"


@pytest.mark.parametrize("name", sorted({*NAMES} - {*ALIASES}))
def test_each_is_there_and_documented(name: str) -> None:
    """Each public name has a docstring of its own."""
    value = getattr(datadog_caselinks, name)
    assert value.__module__.startswith("datadog_caselinks.")
    assert (value.__dict__["__doc__"] if inspect.isclass(value) else value.__doc__).strip()


@pytest.mark.parametrize("name", ALIASES)
def test_each_alias_is_documented_where_it_is_defined(name: str) -> None:
    """A union or a callable type has a docstring below its definition, where editors find it."""
    home = importlib.import_module(HOMES[name])
    statements = ast.parse(Path(inspect.getfile(home)).read_text()).body
    below = [
        after
        for statement, after in itertools.pairwise(statements)
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == name
    ]
    match below:
        case [ast.Expr(ast.Constant(str() as docstring))]:
            assert docstring.strip()
        case _:
            pytest.fail(f"{name} is not documented")


@pytest.mark.parametrize(
    "name", [name for name in NAMES if inspect.isclass(getattr(datadog_caselinks, name))]
)
def test_each_method_is_documented(name: str) -> None:
    """Each public method has a docstring."""
    kind = getattr(datadog_caselinks, name)
    for method, value in vars(kind).items():
        if not method.startswith("_") and (inspect.isroutine(value) or isinstance(value, property)):
            assert inspect.getdoc(value), f"{name}.{method} has no docstring"


def test_every_error_is_exported() -> None:
    """Each error that can be raised has a public name."""
    defined = {name for name, value in vars(errors).items() if _is_error(value)}
    assert defined == {name for name in NAMES if _is_error(getattr(datadog_caselinks, name))}


def test_every_outcome_is_exported() -> None:
    """Each outcome of a bulk run or a plan has a public name."""
    outcomes = {*get_args(datadog_caselinks.Outcome), *get_args(datadog_caselinks.PlanOutcome)}
    assert {kind.__name__ for kind in outcomes} <= set(NAMES)


def _is_error(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, CaseLinksError)


# With --strict an unused "ignore" is an error, as all of these would be if the package were untyped.
PROGRAM = """
import asyncio
import uuid

from datadog_caselinks import (
    AlreadyLinked, AmbiguousResultError, ApiKeys, BearerToken, Case, CaseKey, CaseLink,
    CaseLinksClient, ConflictError, ContradictionKind, Created, Deleted, Entity, EntityType, Failed,
    JournalError, LinkPlan, LinkReference, MalformedResponseError, NewCaseLink, NotDeleted, OnEvent,
    Rate, RateLimit, RateLimitError, Reference, Relationship, Resolver, ResponseTooLargeError,
    RetryPolicy, Site, OnProgress, WantedLink, case, incident, parse_link, parse_reference,
)


async def token() -> str:
    return "x"


async def main() -> None:
    new = NewCaseLink(case(uuid.uuid4()), Relationship.BLOCKS, incident(uuid.uuid4()))
    async with CaseLinksClient.from_env(timeout=3.0, retry=RetryPolicy(max_attempts=2)) as links:
        try:
            link: CaseLink = await links.create_link(new)
        except ConflictError as conflict:
            link = conflict.existing or CaseLink("a", new.parent, new.relationship, new.child)
        except (JournalError, ResponseTooLargeError) as error:
            isinstance(error, MalformedResponseError) and error.body.upper()
            raise
        is_new: bool
        link, is_new = await links.ensure_link(new)
        window: RateLimit | None = links.rate_limit
        print(is_new, window)
        around: list[CaseLink] = await links.list_links(case("a"), relationship=Relationship.BLOCKS)
        by_keys: WantedLink = case("SHOP-6").causes(case("SHOP-5"))
        link = await links.create_link(by_keys)
        link, is_new = await links.ensure_link(case("SHOP-6").blocks(incident(uuid.uuid4())))
        link = await links.create_link(parse_link("SHOP-1", "blocks", "SHOP-2"))
        around = await links.list_links(CaseKey("SHOP-6"))
        await links.delete_link(by_keys)
        root: Entity = (await links.read_graph(case("SHOP-6"))).root
        print(link.parent.id, root.id, case(uuid.uuid4()).id)
        if isinstance(named := case("SHOP-6"), CaseKey):
            named.key.upper()
        else:
            named.id.upper()
        many: list[CaseLink] = await asyncio.gather(*(links.create_link(each) for each in [new, new]))
        await links.delete_link(link)
        await links.delete_link(link.id)
        tell: OnProgress = lambda answered, asked: print(answered + asked)
        wanted_links: list[WantedLink] = [new, parse_link("SHOP-1", "blocks", "SHOP-2")]
        plan: LinkPlan = await links.plan_links(wanted_links, prune=True, progress=tell)
        async for done in links.apply_plan(plan):
            if isinstance(done, Deleted | NotDeleted):
                done.link.id
            elif not isinstance(done, Failed):
                done.link.id, done.new.relationship
        for warning in plan.warnings:
            warning.kind is ContradictionKind.CYCLE and warning.message.upper()
        found: Case = await links.get_case(uuid.uuid4())
        reference: Reference = parse_reference("SHOP-1", site=Site.EU1)
        entities: Resolver = links.resolver()
        end: Entity = await entities.entity(reference)
        wanted: WantedLink = parse_link("SHOP-1", "relates-to", found.entity)
        resolved: NewCaseLink = await entities.link(wanted)
        print((await entities.case(CaseKey("SHOP-1"))).title.upper(), end.id, resolved.parent.id)
        async for outcome in links.create_links([new, wanted]):
            match outcome:
                case Created(new=LinkReference(parent=parent)):
                    print(parent)
                case Created(new=made, link=link, index=index):
                    made, index
                case AlreadyLinked(link=link):
                    link.id
                case Failed(error=AmbiguousResultError(new=asked)):
                    asked.parent
                case Failed(error=RateLimitError(retry_after=seconds)):
                    seconds and seconds + 1
    kind: EntityType | str = link.parent.type
    print(link.id.upper(), kind, around, many)


watch: OnEvent = lambda event: print(event.call.operation.upper())
client = CaseLinksClient(Site.US1, BearerToken(token), on_event=watch)
client = CaseLinksClient("datadoghq.eu", ApiKeys(api_key="a", app_key="b"), max_concurrency=3)
asyncio.run(main())

case(1)  # type: ignore
case("SHOP-1").id  # type: ignore
case("SHOP-1").blocks(case("SHOP-2")).parent.id  # type: ignore
NewCaseLink(case("SHOP-1"), Relationship.BLOCKS, case("SHOP-2"))  # type: ignore
CaseLink("a", case("SHOP-1"), Relationship.BLOCKS, case(uuid.uuid4()))  # type: ignore
case("a").blocks("b")  # type: ignore
case("a").type.lower().nothing  # type: ignore
ApiKeys("a", "b")  # type: ignore
Site.parse(None)  # type: ignore
CaseLinksClient("datadoghq.eu", "key")  # type: ignore
CaseLinksClient.from_env(patience=3)  # type: ignore
RetryPolicy(max_attempts="many")  # type: ignore
RetryPolicy(budget="none")  # type: ignore
RetryPolicy(settle=None)  # type: ignore
Entity("a", "CASE").id = "b"  # type: ignore
"""


@pytest.mark.tools
def test_a_users_program_passes_the_strict_type_checker(tmp_path: Path) -> None:
    """The package is typed for its users: correct calls pass a strict type checker, and wrong ones fail."""
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-incremental"),
            *("--cache-dir", str(tmp_path / "cache"), str(program)),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("Success: no issues found in 1 source file\n", "")
