"""All checks. ``nox`` runs those that CI runs on Linux, and ``nox -l`` lists all."""

import os
import shutil
import subprocess
import tarfile
from filecmp import cmp
from itertools import chain
from pathlib import Path

import nox

PYTHONS = ["3.11", "3.12", "3.13", "3.14", "3.15"]
FIRST, LAST = PYTHONS[0], PYTHONS[-1]
# On 3.14, coverage uses sys.monitoring, which takes two thirds of the CPU time.
MEASURED_ON = "3.14" if shutil.which("python3.14") else FIRST
# Without the tests that only read the source, which find the same on every Python.
AGAIN = ["--ignore=tests/test_architecture.py"]
# Two processes for each core, since these tests wait for programs and servers.
PARALLEL = [f"--numprocesses={2 * (os.cpu_count() or 1)}", "--dist=worksteal"]
# Tests that do not depend on the version of Python.
ONCE = "browser or database or documents or hostile or kills or tools"
WHOLE = [*PARALLEL, "-m", f"not ({ONCE})"]
# The tests that depend on the event loop.
ON_UVLOOP = [
    f"tests/{name}.py"
    for name in (
        "bulk/test_create_links",
        "http/test_gate",
        "http/test_sessions",
        "test_cancellation",
        "test_client",
        "calls/test_creation",
    )
]
# The slow tests whose calls depend on when a task starts.
WITH_EAGER_TASKS = [
    f"tests/{name}.py"
    for name in (
        "bulk/test_create_links",
        "bulk/test_journal",
        "graph/test_link_graph",
        "graph/test_plan",
        "test_client",
        "calls/test_creation",
        "calls/test_lookup",
        "http/test_outage",
    )
]
PROJECT = nox.project.load_toml("pyproject.toml")
OPTIONAL = {
    name: extra for name, extra in PROJECT["project"]["optional-dependencies"].items() if name != "dev"
}
DEPENDENCIES = sorted({*PROJECT["project"]["dependencies"], *chain.from_iterable(OPTIONAL.values())})
FORK, *_ = (name for name in PROJECT["project"]["dependencies"] if name.startswith("python-backoff"))
ALL_EXTRAS = f"[{','.join(OPTIONAL)}]"

nox.needs_version = ">=2026.8.10"  # the first with --parallel
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False
nox.options.reuse_existing_virtualenvs = True

# If it is set, each worker and each program of the tests compiles its imports, which doubles the CPU time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ["UV_COMPILE_BYTECODE"] = "1"  # as pip does; otherwise, each worker would compile everything
os.environ["UV_SYSTEM_CERTS"] = "1"  # as pip does, for networks with a private CA


def activate_pyenv() -> None:
    """Let pyenv's shims find all installed versions: by default, they find only the selected one."""
    if "PYENV_VERSION" in os.environ or not shutil.which("pyenv"):
        return
    listed = subprocess.run(["pyenv", "versions", "--bare"], capture_output=True, text=True, check=True)
    installed = listed.stdout.split()
    found = [next((name for name in installed if name.startswith(f"{python}.")), None) for python in PYTHONS]
    os.environ["PYENV_VERSION"] = ":".join(name for name in found if name)


activate_pyenv()


def groups(*names: str) -> tuple[str, ...]:
    """Return the requirements of these dependency groups."""
    return nox.project.dependency_groups(PROJECT, *names)


def install(session: nox.Session, *names: str, extras: str = "[cli,distributed,pictures]") -> None:
    """Install the project as a user would, and the dependency groups ``names``."""
    session.install(f".{extras}", *groups(*names))


@nox.session(allow_parallel=True)
def lint(session: nox.Session) -> None:
    """Check style and formatting, and the syntax of the workflows and of the documentation's settings."""
    session.install(*groups("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    workflows = [str(file) for file in Path(".github", "workflows").iterdir()]
    session.run("check-jsonschema", "--builtin-schema=vendor.github-workflows", *workflows)
    session.run("check-jsonschema", "--builtin-schema=vendor.readthedocs", ".readthedocs.yaml")


@nox.session(default=False, allow_parallel=True)
def types(session: nox.Session) -> None:
    """Check the types of the package, the tests, the examples, and of a user's program.

    Also report public names that were removed since the last release. The session ``tests`` includes this.
    """
    install(session, "types", "examples", extras="[cli,distributed,mcp,pictures,speed]")
    check_types(session)


def check_types(session: nox.Session) -> None:
    """Run the type checkers, and compare the public names with the last release."""
    session.run("mypy")
    session.run("pyright", "--verifytypes", "datadog_caselinks", "--ignoreexternal", silent=True)
    session.run("python", "-m", "tests.api")


@nox.session(python=MEASURED_ON, allow_parallel=True)
def tests(session: nox.Session) -> None:
    """Check the types, run all tests, including examples and documents, and measure the coverage.

    In this session, orjson is tested as well as the standard library's JSON.
    """
    names = ["contract", "docs", "examples", "fleet", "lint", "test", "types", "uvloop"]
    install(session, *names, extras="[cli,distributed,pictures,speed]")
    if session.posargs:
        session.run("python", "-m", "pytest", *session.posargs)
        return
    check_types(session)
    session.run("coverage", "run", "-m", "pytest", *PARALLEL, "-m", "")
    session.run("coverage", "combine")
    session.run("coverage", "report")
    session.run("python", "-m", "pytest", "-p", "no:schemathesis", "-p", "tests.on_uvloop", *ON_UVLOOP)


@nox.session(python=[python for python in PYTHONS if python != MEASURED_ON], allow_parallel=True)
def tests_again(session: nox.Session) -> None:
    """Run the fast tests, which are those that may depend on the version of Python.

    On 3.12, the first version with eager tasks, run them with eager tasks, and some slow ones too.
    """
    session.install(".[dev]")  # as CONTRIBUTING.md says
    use_fork(session)
    eager = ["-p", "tests.on_eager_tasks"] if session.python == "3.12" else []
    session.run("python", "-m", "pytest", *eager, *(session.posargs or AGAIN))
    if eager and not session.posargs:
        session.run("python", "-m", "pytest", *eager, "-m", "slow", *WITH_EAGER_TASKS)


@nox.session(python=PYTHONS, default=False)
def tests_whole(session: nox.Session) -> None:
    """Run the tests on every Python, including those that take long or start programs."""
    install(session, "test")
    use_fork(session)
    session.run("python", "-m", "pytest", *(session.posargs or WHOLE))


def use_fork(session: nox.Session) -> None:
    """Install the fork of backoff, which 3.16 will require, on the last Python."""
    if session.python == LAST:
        # Both install the same files, so in a reused environment those of backoff would stay.
        session.install("--force-reinstall", FORK.partition(";")[0])


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """Build the documentation into ``docs/_build``. Every warning is an error, and nothing is downloaded."""
    install(session, "docs")
    session.run("sphinx-build", "-W", "-q", "-b", "html", "docs", "docs/_build")


@nox.session(default=False)
def pictures(session: nox.Session) -> None:
    """Draw the pictures of the documentation again from the current code."""
    install(session)
    session.run("python", "-m", "docs.pictures")


@nox.session(python=FIRST, default=False)
def bench(session: nox.Session) -> None:
    """Run the benchmark in about ten minutes, and write it into ``docs``. ``-- --quick`` is a short run."""
    install(session, "bench", extras="[speed]")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session(python=FIRST, default=False)
def fuzz(session: nox.Session) -> None:
    """Search for inputs that break a rule: hypothesis with five times as many examples, then atheris.

    Atheris takes two minutes; ``-- SECONDS TARGET`` for others.
    """
    install(session, "fuzz")
    session.run("python", "-m", "pytest", *WHOLE, "--hypothesis-profile=patient")
    session.run("python", "-m", "tests.fuzz", *session.posargs)


@nox.session(python=FIRST, default=False)
def soak(session: nox.Session) -> None:
    """Run ten minutes of faults and restarts, and write the result into ``docs``.

    ``-- --minutes 1`` is a short run.
    """
    install(session, extras="[speed]")
    session.run("python", "-m", "benchmarks.soak", *(session.posargs or ["--output", "docs"]))


@nox.session(python=FIRST, default=False)
def mutants(session: nox.Session) -> None:
    """Check that a test fails for each small change of the code, and write ``docs/mutants.md``."""
    install(session, "mutants")
    if session.posargs:  # names of mutants, such as "datadog_caselinks.http.wire.*"
        session.run("mutmut", "run", *session.posargs)
        return
    shutil.rmtree("mutants", ignore_errors=True)  # it has the results of earlier tests
    session.run("mutmut", "run")
    session.run("python", "-m", "tests.mutants")


@nox.session(python=FIRST, default=False)
def live(session: nox.Session) -> None:
    """Send requests to Datadog, and write ``live-report.md``. Needs credentials and two cases to link."""
    unset = [name for name in ("DD_API_KEY", "DD_APP_KEY") if not os.environ.get(name)]
    if unset and not os.environ.get("DD_BEARER_TOKEN"):
        session.skip(f"no credentials for Datadog: set {' and '.join(unset)}, or DD_BEARER_TOKEN")
    if not os.environ.get("CASELINKS_LIVE_CASES"):
        session.skip("no cases to link: set CASELINKS_LIVE_CASES to two cases, such as ABC-1,ABC-2")
    install(session)
    session.run("python", "-m", "tests.live", *session.posargs)


@nox.session(python=FIRST, default=False)
def lowest(session: nox.Session) -> None:
    """Run the tests with the lowest version of each dependency that ``pyproject.toml`` allows."""
    pinned = [line.replace(">=", "==", 1) for line in DEPENDENCIES]
    session.install(f".{ALL_EXTRAS}", *pinned, *groups("test"))
    session.run("python", "-m", "pytest", *(session.posargs or WHOLE))


@nox.session(default=False)
def audit(session: nox.Session) -> None:
    """Report known vulnerabilities of the newest dependencies, from the service of the package index."""
    requirements = Path(session.create_tmp(), "requirements.txt")
    requirements.write_text("\n".join(DEPENDENCIES))
    session.install(*groups("audit"))
    session.run("pip-audit", "--strict", f"--requirement={requirements}")


@nox.session(python=FIRST, default=False)
def release(session: nox.Session) -> None:
    """Build the sdist, the wheel and its bill of materials into ``dist``, and test the installed wheel.

    Every build must have the same bytes. The tests are those of the sdist, without the package's source.
    """
    session.install(*groups("release"))
    dist, elsewhere = Path("dist").resolve(), Path(session.create_tmp()).resolve()
    for folder in (dist, elsewhere):
        shutil.rmtree(folder, ignore_errors=True)
    session.run("python", "-m", "build", f"--outdir={dist}")  # the wheel from the sdist
    sdist, wheel = next(dist.glob("*.tar.gz")), next(dist.glob("*.whl"))
    session.run("twine", "check", "--strict", str(sdist), str(wheel))
    with tarfile.open(sdist) as archive:
        archive.extractall(elsewhere, filter="data")
    unpacked = elsewhere / sdist.name.removesuffix(".tar.gz")
    build_again(session, dist, unpacked)
    fresh = elsewhere / "venv"
    session.run("python", "-m", "venv", "--without-pip", str(fresh))
    session.run("pip", f"--python={fresh}", "install", "--quiet", f"{wheel}{ALL_EXTRAS}")
    session.run(
        *("cyclonedx-py", "environment", "--output-reproducible", "--mc-type=library"),
        *("--pyproject=pyproject.toml", f"--output-file={dist / unpacked.name}.cdx.json", str(fresh)),
    )
    session.run("pip", f"--python={fresh}", "install", "--quiet", *groups("test"))
    shutil.rmtree(unpacked / "datadog_caselinks")
    session.chdir(unpacked)
    tests = session.posargs or WHOLE
    session.run(str(fresh / "bin" / "python"), "-m", "pytest", *tests, external=True)


def build_again(session: nox.Session, dist: Path, unpacked: Path) -> None:
    """Build again from the tree and from the unpacked sdist. End the session if the bytes differ."""
    again = [unpacked.parent / name for name in ("from-tree", "from-sdist")]
    session.run("python", "-m", "build", "--wheel", f"--outdir={again[0]}")
    session.run("python", "-m", "build", f"--outdir={again[1]}", str(unpacked))
    for built in chain.from_iterable(folder.iterdir() for folder in again):
        if not cmp(dist / built.name, built, shallow=False):
            session.error(f"{built} has other bytes than {dist / built.name}")
