"""Each module imports only from modules below it, and only from the permitted libraries."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import datadog_caselinks

PACKAGE = "datadog_caselinks"
ROOT = Path(datadog_caselinks.__path__[0])

# The table of CONTRIBUTING.md: each module imports only from those below it.
CONTRIBUTING = Path(__file__).parents[1] / "CONTRIBUTING.md"
FIRST_CELLS = re.findall(r"^\| (`\w+(?:\.py|/)`.*?) \|", CONTRIBUTING.read_text(), re.MULTILINE)
ORDER = [name for cell in FIRST_CELLS for name in re.findall(r"`(\w+)(?:\.py|/)`", cell)]
CORE = ORDER[ORDER.index("public") :]

# The sandbox decodes requests independently: shared code would hide errors of the client.
SANDBOX_MAY_KNOW = {
    f"{PACKAGE}.values.{name}"
    for name in ("messages", "parameters", "rate_limit", "errors", "base_errors", "sites", "credentials")
}

THIRD_PARTY = {
    **dict.fromkeys(
        CORE, frozenset({"aiohttp", "attrs", "cattrs", "backoff", "yarl", "multidict", "orjson"})
    ),
    "bulk": {"attrs", "yaml"},
    "observation.telemetry": {"opentelemetry"},
    "graph": {"attrs", "networkx", "fast_sugiyama"},
    "fleet": {"attrs", "procrastinate", "psycopg", "psycopg_pool"},
    "sandbox": {"aiohttp", "attrs"},
    "mcp": {"attrs", "mcp", "mcp_types", "pydantic", "pydantic_core", "starlette", "uvicorn"},
    "testing": {"aiohttp", "pluggy", "pytest"},
    "cli": {"aiohttp", "attrs", "click", "rich"},
    "__main__": set(),
}


def module_name(path: Path) -> str:
    parts = [PACKAGE, *path.relative_to(ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def part(module: str) -> str:
    """Return the entry of ``ORDER`` that a module belongs to; for the package its name."""
    return module.split(".")[1] if "." in module else module


def imports(module: str) -> Iterator[str]:
    """Yield what ``module`` imports, also for type checkers, with full names."""
    yield from _imports_in(module, ast.parse(MODULES[module].read_text()))


def _imports_in(module: str, node: ast.AST) -> Iterator[str]:
    children = ast.iter_child_nodes(node)
    match node:
        case ast.Import():
            yield from (alias.name for alias in node.names)
        case ast.ImportFrom():
            assert node.level == 0, f"{module} imports relatively: write the whole name"
            assert node.module is not None
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield submodule if submodule in MODULES else node.module
    for child in children:
        yield from _imports_in(module, child)


def own_imports(module: str) -> set[str]:
    return {name for name in imports(module) if name.partition(".")[0] == PACKAGE}


@pytest.mark.parametrize("module", [module for module in MODULES if module != PACKAGE])
class TestEveryModule:
    def test_imports_only_from_below(self, module: str) -> None:
        """Each module has one row in the table, and imports only modules below it."""
        assert ORDER.count(part(module)) == 1
        below = ORDER[ORDER.index(part(module)) + 1 :]
        for name in own_imports(module):
            assert part(name) == part(module) or part(name) in below, (
                f"{module} imports {name}, which is not below it"
            )

    def test_imports_no_other_library_than_it_may(self, module: str) -> None:
        """The core imports only the declared dependencies, and the command those of its extra too."""
        foreign = {name.partition(".")[0] for name in imports(module)} - sys.stdlib_module_names - {PACKAGE}
        inner = module.removeprefix(f"{PACKAGE}.")
        assert foreign <= (THIRD_PARTY[inner] if inner in THIRD_PARTY else THIRD_PARTY[part(module)])

    def test_its_first_line_says_what_it_is_for(self, module: str) -> None:
        """Each module begins with a docstring whose first line is a sentence."""
        docstring = ast.get_docstring(ast.parse(MODULES[module].read_text()))
        assert docstring
        assert docstring.splitlines()[0].endswith(".")


def test_the_table_contains_only_modules_that_exist() -> None:
    """The table contains no module that does not exist."""
    assert set(ORDER) == {part(module) for module in MODULES if module != PACKAGE}


@pytest.mark.parametrize("module", [module for module in MODULES if part(module) == "sandbox"])
def test_the_sandbox_decodes_on_its_own(module: str) -> None:
    """The sandbox shares no encoder, model or transport with the client that it tests."""
    others = {name for name in own_imports(module) if part(name) != "sandbox"}
    assert others <= SANDBOX_MAY_KNOW


def test_only_the_command_imports_the_command() -> None:
    """Only the command imports the command, so that library users need neither click nor rich."""
    users = {part(module) for module in MODULES for name in own_imports(module) if part(name) == "cli"}
    assert users <= {"cli", "__main__"}


def test_there_is_no_import_cycle() -> None:
    """No module is part of an import cycle, not even within the sandbox or the command."""
    graph = {module: own_imports(module) for module in MODULES}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, f"an import cycle: {' -> '.join((*way[way.index(module) :], module))}"
        if module not in done:
            for name in sorted(graph[module]):
                visit(name, (*way, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


def test_the_package_itself_needs_no_extra() -> None:
    """``import datadog_caselinks`` imports only the core: no command and no sandbox."""
    assert {part(name) for name in own_imports(PACKAGE)} <= set(CORE)


@pytest.mark.parametrize("file", sorted(Path(__file__).parent.rglob("*.py")), ids=lambda file: file.stem)
def test_no_test_module_is_imported(file: Path) -> None:
    """What several tests use is in a module of its own, and not in a test module."""
    assert not re.search(r"^ *(?:from|import) tests\.(?:\w+\.)*test_", file.read_text(), re.MULTILINE)
