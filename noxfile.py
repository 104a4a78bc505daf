"""Every check there is; ``nox`` runs them all, ``nox -l`` lists them."""

import os
import shutil
import subprocess

import nox

FIRST, *OTHERS = PYTHONS = ["3.11", "3.12", "3.13"]
PARALLEL = ["--numprocesses=auto", "--dist=worksteal"]
# All of hypothesis' examples are tried on one Python: on another, or measured, they would find no more.
FEW = "--hypothesis-profile=few"
# What one Python suffices for, since it is about other programs: browsers, databases, other clients, builds.
ONCE = [
    "tests/contract",
    "tests/documents",
    "tests/fleet",
    "tests/live",
    "tests/pictures/test_page.py",
    "tests/plugin",
    "tests/test_benchmarks.py",
]
# What takes long, and is measured by the other tests already.
NOT_MEASURED = ["tests/documents", "tests/fleet/test_kills.py"]
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


@nox.session(python=FIRST)
def tests(session: nox.Session) -> None:
    """Every test, examples and documents too, and what lines they leave out.

    Here orjson is tried beside the standard library's JSON.
    """
    groups = ["test", "contract", "docs", "examples", "fleet"]
    install(session, *groups, extras="[cli,distributed,pictures,speed]")
    if session.posargs:
        session.run("python", "-m", "pytest", *session.posargs)
        return
    measured = [f"--ignore={path}" for path in NOT_MEASURED]
    session.run("coverage", "run", "-m", "pytest", *PARALLEL, FEW, *measured)
    session.run("coverage", "combine")
    session.run("coverage", "report")
    session.run("python", "-m", "pytest", *PARALLEL, *NOT_MEASURED)


@nox.session(python=OTHERS)
def tests_again(session: nox.Session) -> None:
    """The tests of what may depend on the version of Python; on the last with the fork of backoff."""
    install(session, "test")
    few = []
    if session.python == OTHERS[-1]:
        few = [FEW]
        session.run("pip", "uninstall", "--quiet", "--yes", "backoff")
        # Both install the same files, so in a reused environment the fork seems to be there when it is not.
        session.install("--force-reinstall", "--no-deps", "python-backoff>=3,<4")
    again = [*PARALLEL, *few, *(f"--ignore={path}" for path in ONCE)]
    session.run("python", "-m", "pytest", *(session.posargs or again))


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """The documentation, into ``docs/_build``; every warning is an error, and nothing is fetched."""
    install(session, "docs")
    session.run("sphinx-build", "-W", "-q", "-b", "html", "docs", "docs/_build")


@nox.session(default=False)
def pictures(session: nox.Session) -> None:
    """The pictures of the documentation, drawn anew from what the code does now."""
    install(session)
    session.run("python", "-m", "docs.pictures")


@nox.session(python=FIRST, default=False)
def bench(session: nox.Session) -> None:
    """The benchmark, in some ten minutes, written into ``docs``; ``-- --quick`` just tries it out."""
    install(session, "bench", extras="[speed]")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session(python=FIRST, default=False)
def live(session: nox.Session) -> None:
    """What Datadog itself answers, into ``live-report.md``; needs credentials and two cases to link."""
    unset = [name for name in ("DD_API_KEY", "DD_APP_KEY") if not os.environ.get(name)]
    if unset and not os.environ.get("DD_BEARER_TOKEN"):
        session.skip(f"{' and '.join(unset)} not set, so there is nobody to ask Datadog as")
    if not os.environ.get("CASELINKS_LIVE_CASES"):
        session.skip("CASELINKS_LIVE_CASES does not name two cases to make links of, such as ABC-1,ABC-2")
    install(session)
    session.run("python", "-m", "tests.live", *session.posargs)
