"""The files, commands and examples of the recipes work; test_code_blocks.py runs their other blocks."""

from __future__ import annotations

import ast
import configparser
import inspect
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import click
import pytest
import yaml
from datadog_api_client.aws import AWSAuth
from slack_bolt.async_app import AsyncBoltRequest
from slack_sdk.web.async_client import AsyncWebClient

import aws_token
import slack_incident
from datadog_caselinks import BearerToken, CaseLinksClient, ConfigurationError, Site, case
from datadog_caselinks.cli.command import caselinks
from datadog_caselinks.sandbox import Sandbox
from tests.documents.blocks import CELLS, PARSED, ROOT, blocks, run, without_datadog
from tests.documents.processes import ended, running
from tests.documents.slack import Slack
from tests.support.server import Exchange, Server

RECIPES = ROOT / "docs" / "recipes"
PAGES = sorted(RECIPES.glob("*.md"))
EXTRAS = re.compile(r"(?:datadog_caselinks|/src)\[([\w,]+)\]")
PROGRAMS = {"caselinks", "caselinks-bulk", "caselinks-worker"}  # the command, and the images that run it

KINDS = {
    "PersistentVolumeClaim": "v1",
    "Job": "batch/v1",
    "CronJob": "batch/v1",
    "Deployment": "apps/v1",
}

# Every field of the manifests. They were compared with the schemas of Kubernetes 1.33. Compare a new field
# with them before you add it here.
FIELDS = {
    "accessModes",
    "action",
    "apiVersion",
    "app",
    "args",
    "backoffLimit",
    "claimName",
    "concurrencyPolicy",
    "configMap",
    "containers",
    "cpu",
    "env",
    "envFrom",
    "failedJobsHistoryLimit",
    "fsGroup",
    "image",
    "jobTemplate",
    "kind",
    "labels",
    "limits",
    "matchLabels",
    "memory",
    "metadata",
    "mountPath",
    "name",
    "onExitCodes",
    "operator",
    "persistentVolumeClaim",
    "podFailurePolicy",
    "readOnly",
    "replicas",
    "requests",
    "resources",
    "restartPolicy",
    "rules",
    "runAsNonRoot",
    "schedule",
    "secretRef",
    "securityContext",
    "selector",
    "spec",
    "storage",
    "template",
    "terminationGracePeriodSeconds",
    "value",
    "values",
    "volumeMounts",
    "volumes",
}

# The instructions of a Dockerfile that may follow FROM. https://docs.docker.com/reference/dockerfile/
INSTRUCTIONS = {"COPY", "RUN", "USER", "ENTRYPOINT", "CMD", "WORKDIR", "ENV", "ARG", "FROM"}

RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))  # of the five fields of a line of a crontab


def of(language: str, page: str | None = None) -> list[str]:
    """Return the blocks in this language, of one recipe or of all."""
    pages = [RECIPES / page] if page else PAGES
    return [text for path in pages for found, _, text in blocks(path) if found == language]


def manifests() -> list[dict[str, Any]]:
    return [manifest for text in of("yaml", "kubernetes.md") for manifest in yaml.safe_load_all(text)]


def pod_of(manifest: dict[str, Any]) -> dict[str, Any] | None:
    """Return the specification of the pods that a manifest creates, if it creates any."""
    spec: dict[str, Any] = manifest["spec"]
    spec = spec.get("jobTemplate", {}).get("spec", spec)
    found: dict[str, Any] | None = spec.get("template", {}).get("spec")
    return found


def fields(value: object) -> Iterator[str]:
    """Yield the name of each field in a manifest."""
    if isinstance(value, dict):
        yield from value
        for inner in value.values():
            yield from fields(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from fields(inner)


def stages(dockerfile: str) -> list[list[tuple[str, str]]]:
    """Return the instructions of each stage with their arguments."""
    found: list[list[tuple[str, str]]] = []
    for line in dockerfile.replace("\\\n", " ").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        instruction, _, arguments = line.partition(" ")
        if instruction == "FROM":
            found.append([])
        found[-1].append((instruction, arguments.strip()))
    return found


def units() -> list[configparser.ConfigParser]:
    found = []
    for text in of("ini", "schedule.md"):
        unit = configparser.ConfigParser(interpolation=None)
        unit.optionxform = str  # type: ignore[method-assign,assignment]
        unit.read_string(text)
        found.append(unit)
    return found


def cron_line() -> str:
    (line,) = [text for text in of("text", "schedule.md") if re.match(r"[\d*]", text)]
    return line.strip()


def commands() -> Iterator[list[str]]:
    """Yield the arguments of each ``caselinks`` in a block that does not run, and in the text of a recipe."""
    for manifest in manifests():
        for container in (pod_of(manifest) or {}).get("containers", []):
            yield container["args"]
    for dockerfile in of("dockerfile"):
        yield json.loads(dict(stages(dockerfile)[-1])["CMD"])
    for text in [*of("text"), *of("yaml", "github-actions.md"), *of("ini")]:
        yield from called(text.replace("\\\n", " "))
    for page in PAGES:
        prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        yield from called("\n".join(re.findall(r"`(caselinks [^`]+)`", prose)))


def called(text: str) -> Iterator[list[str]]:
    """Yield the arguments of each ``caselinks`` in lines of shell."""
    for line in text.splitlines():
        for part in re.split(r"\|\||;", line.removeprefix("ExecStart=").strip()):
            try:
                words = shlex.split(part)
            except ValueError:  # no line of shell
                continue
            places = [at for at, word in enumerate(words) if Path(word).name in PROGRAMS]
            for at in places[-1:]:
                if words[at + 1 :] and words[at - 1] not in ("build", "--tag"):
                    yield words[at + 1 :]


def check(arguments: list[str]) -> None:
    """Fail unless the command and its options exist."""
    command: click.Command = caselinks
    context = click.Context(command)
    while isinstance(command, click.Group):
        name, *arguments = arguments
        found = command.get_command(context, name)
        assert found, f"there is no command {name}"
        command = found
        context = click.Context(command, parent=context)
    command.make_parser(context).parse_args(list(arguments))


def test_each_block_that_does_not_run_is_checked_here() -> None:
    """The pages with files are those that the tests below read."""
    pages = {path.name for path in PAGES for language, _, _ in blocks(path) if language in PARSED}
    assert pages == {"docker.md", "github-actions.md", "kubernetes.md", "schedule.md"}
    assert len(of("dockerfile")) == len(of("dockerfile", "docker.md")) == 2


def test_every_command_exists() -> None:
    """Manifests, units, images, workflows and sentences use commands and options that exist."""
    found = list(commands())
    assert len(found) > 20
    for arguments in found:
        try:
            check(arguments)
        except click.UsageError as error:
            pytest.fail(f"{shlex.join(arguments)}: {error.format_message()}")


def test_every_extra_exists() -> None:
    """An extra that pip does not know would be left out with a warning only."""
    project = (ROOT / "pyproject.toml").read_text()
    named = {
        name for page in PAGES for found in EXTRAS.findall(page.read_text()) for name in found.split(",")
    }
    assert {"cli", "distributed", "pictures"} <= named
    assert all(re.search(rf"^{name} = \[", project, re.MULTILINE) for name in named)


def test_each_page_says_what_to_watch_and_is_listed() -> None:
    """A recipe ends with its caveats, and the index and its table of contents have every recipe."""
    index = (RECIPES / "index.md").read_text()
    for page in PAGES:
        if page.name != "index.md":
            assert "\n## What to watch\n" in page.read_text(), page.name
            assert f"({page.name})" in index
            assert f"\n{page.stem}\n" in index


class TestKubernetes:
    @pytest.mark.parametrize("manifest", manifests(), ids=lambda it: it["kind"])
    def test_a_manifest_is_well_formed(self, manifest: dict[str, Any]) -> None:
        """A manifest has the version of its kind, and no field that the list above does not have."""
        assert manifest["apiVersion"] == KINDS[manifest["kind"]]
        assert manifest["metadata"]["name"]
        assert set(fields(manifest)) <= FIELDS

    def test_a_pod_mounts_what_it_uses(self) -> None:
        """Each path of a command is on a volume of the pod, and each claim is one of the page."""
        claims = {it["metadata"]["name"] for it in manifests() if it["kind"] == "PersistentVolumeClaim"}
        pods = [pod for pod in map(pod_of, manifests()) if pod]
        assert len(pods) == 3
        for pod in pods:
            (container,) = pod["containers"]
            mounts = {mount["mountPath"]: mount["name"] for mount in container.get("volumeMounts", [])}
            volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
            assert set(mounts.values()) == set(volumes)
            paths = [Path(argument) for argument in container["args"] if argument.startswith("/")]
            assert all(str(path.parent) in mounts for path in paths)
            used = [it["persistentVolumeClaim"] for it in volumes.values() if "persistentVolumeClaim" in it]
            assert {claim["claimName"] for claim in used} <= claims
            assert pod["securityContext"]["runAsNonRoot"]

    def test_no_two_of_them_use_one_journal(self) -> None:
        """The Job and the CronJob may run at the same time, and a journal belongs to one run."""
        containers = [container for pod in map(pod_of, manifests()) if pod for container in pod["containers"]]
        journals = [
            it["args"][it["args"].index("--journal") + 1] for it in containers if "--journal" in it["args"]
        ]
        assert len(journals) == len(set(journals)) == 2
        (cron,) = [it["spec"] for it in manifests() if it["kind"] == "CronJob"]
        assert cron["concurrencyPolicy"] == "Forbid"

    def test_a_deployment_selects_its_pods(self) -> None:
        """The labels of the selector are those of the template."""
        (spec,) = [it["spec"] for it in manifests() if it["kind"] == "Deployment"]
        assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]


@pytest.mark.parametrize("dockerfile", of("dockerfile"), ids=["bulk", "worker"])
def test_a_dockerfile_can_be_parsed(dockerfile: str) -> None:
    """Each instruction exists, what is copied was built, and the program does not run as root."""
    build, last = stages(dockerfile)
    assert {instruction for instruction, _ in [*build, *last]} <= INSTRUCTIONS
    (_, name) = dict(build)["FROM"].split(" AS ")
    given = dict(last)
    option, source, target = given["COPY"].split()
    assert (option, source) == (f"--from={name}", target)
    assert f"{source}/bin/pip install" in dict(build)["RUN"]
    assert json.loads(given["ENTRYPOINT"]) == [f"{source}/bin/caselinks"]
    assert int(given["USER"]) > 0
    users = re.findall(r"fsGroup: (\d+)", (RECIPES / "kubernetes.md").read_text())
    assert set(users) == {given["USER"]}


class TestGitHubActions:
    def workflow(self) -> dict[str, Any]:
        (text,) = of("yaml", "github-actions.md")
        found: dict[str, Any] = yaml.safe_load(text)
        return found

    def test_the_workflow_is_valid(self, tmp_path: Path) -> None:
        """The workflow follows GitHub's schema."""
        pytest.importorskip("check_jsonschema")
        file = tmp_path / "links.yaml"
        file.write_text(of("yaml", "github-actions.md")[0])
        schema = "--builtin-schema=vendor.github-workflows"
        done = run([sys.executable, "-m", "check_jsonschema", schema, str(file)], tmp_path, dict(os.environ))
        assert done.returncode == 0, done.stdout + done.stderr

    def test_the_check_has_no_key_that_can_write(self) -> None:
        """Only the job that applies the file gets the key with the scope ``cases_write``."""
        jobs = self.workflow()["jobs"]
        assert jobs["check"]["env"]["DD_APP_KEY"] == "${{ secrets.DD_APP_KEY_READ_ONLY }}"
        assert jobs["check"]["if"] == "github.event_name == 'pull_request'"
        assert jobs["apply"]["if"] == "github.event_name == 'push'"

    def test_its_steps_show_the_change_then_apply_it(self, tmp_path: Path) -> None:
        """The check succeeds although changes are pending, and the next step makes them."""
        shutil.copy(ROOT / "examples" / "links.yaml", tmp_path)
        jobs = self.workflow()["jobs"].values()
        steps = [step["run"] for job in jobs for step in job["steps"] if "--prune" in step.get("run", "")]
        assert len(steps) == 2
        (tmp_path / "steps.sh").write_text("\n".join(steps))
        with Sandbox(seed="demo").in_thread() as sandbox:
            variables = without_datadog() | sandbox.environment
            done = run(["bash", "-e", "steps.sh"], tmp_path, variables)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "+ SHOP-23 parent of SHOP-31" in done.stdout
        assert "3 created, 1 deleted" in done.stderr


class TestSchedule:
    @pytest.fixture
    def demo(self) -> Iterator[Sandbox]:
        with Sandbox(seed="demo").in_thread() as sandbox:
            yield sandbox

    @pytest.fixture
    def home(self, tmp_path: Path, demo: Sandbox) -> Iterator[Path]:
        """A folder with the links, and with the credentials as the page says."""
        shutil.copy(ROOT / "examples" / "postmortem.csv", tmp_path / "links.csv")
        lines = [f"{name}={value}\n" for name, value in demo.environment.items()]
        (tmp_path / "bulk.env").write_text("".join(lines))
        yield tmp_path
        (tmp_path / "bulk.env").unlink()  # the search for keys after each test would find those in it

    def here(self, command: str, home: Path) -> str:
        """Return the command with paths that exist in the test."""
        for folder in ("/opt/caselinks/bin", "/etc/caselinks", "/var/lib/caselinks"):
            command = command.replace(folder, str(Path(sys.executable).parent if "bin" in folder else home))
        return command

    def test_the_service_continues_a_run(self, home: Path, demo: Sandbox) -> None:
        """The command of the unit creates the links once, however often the timer starts it."""
        service = units()[0]["Service"]
        command = shlex.split(self.here(service["ExecStart"], home))
        before = len(demo.links)
        for _ in range(2):
            done = run(command, home, without_datadog() | demo.environment)
            assert done.returncode == 0, done.stderr
        assert len(demo.links) == before + 42
        assert service["Type"] == "oneshot"
        assert service["StateDirectory"] == "caselinks"

    def test_the_timer_starts_the_service(self) -> None:
        """Both units have the sections and settings that systemd needs."""
        service, timer = units()
        assert set(service.sections()) == {"Unit", "Service"}
        assert set(timer.sections()) == {"Unit", "Timer", "Install"}
        assert timer["Timer"]["OnCalendar"] == "hourly"
        assert timer["Install"]["WantedBy"] == "timers.target"

    def test_the_line_of_the_crontab_runs(self, home: Path, demo: Sandbox) -> None:
        """cron runs the line with ``/bin/sh`` and few variables, and gives it neither keys nor a path."""
        *when, command = cron_line().split(maxsplit=5)
        for value, (first, last) in zip(when, RANGES, strict=True):
            assert value == "*" or first <= int(value) <= last
        assert "%" not in command
        before = len(demo.links)
        variables = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
        done = run(["/bin/sh", "-c", self.here(command, home)], home, variables)
        assert done.returncode == 0, done.stderr
        assert len(demo.links) == before + 42
        assert (home / "links.journal").is_file()


async def test_the_cells_of_the_notebook_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run one after the other in one event loop, as Jupyter does, the cells read, draw and close."""
    display = ModuleType("IPython.display")
    monkeypatch.setattr(display, "SVG", str, raising=False)
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    async with Sandbox(seed="demo") as sandbox:
        for name, value in sandbox.environment.items():
            monkeypatch.setenv(name, value)
        names: dict[str, Any] = {}
        for cell in of("python", Path(CELLS).name):
            code = compile(cell, "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            running = eval(code, names)
            if inspect.iscoroutine(running):
                await running
        assert names["rows"][0].keys() == {"parent", "relationship", "child"}
        assert {"SHOP-2", "SHOP-7"} <= {row["child"] for row in names["rows"]}
        assert names["open_cases"]
        with pytest.raises(Exception, match="this client is closed"):
            await names["client"].get_case("SHOP-1")


class TestSlackCommand:
    @pytest.fixture
    async def slack(self) -> AsyncIterator[Slack]:
        async with Slack() as slack:
            yield slack

    @pytest.fixture
    async def sandbox(self) -> AsyncIterator[Sandbox]:
        async with Sandbox(seed="demo") as sandbox:
            yield sandbox

    async def dispatch(self, slack: Slack, client: CaseLinksClient, text: str) -> dict[str, Any]:
        """Return the reply of the bot to ``/fixes`` and ``text``."""
        app = slack_incident.bot(AsyncWebClient("xoxb-1", slack.api_url), client)
        command = slack.command(text) | {"command": "/fixes"}
        done = await app.async_dispatch(AsyncBoltRequest(body=command, mode="socket_mode"))
        assert done.status == 200
        return await slack.heard()

    async def test_links_the_incident_to_each_case(
        self, slack: Slack, client: CaseLinksClient, sandbox: Sandbox
    ) -> None:
        """The reply to the channel has a line for each case, and a second command links nothing again."""
        before = len(sandbox.links)
        said = await self.dispatch(slack, client, "IR-101 SHOP-20 SHOP-21")
        assert said["text"] == "IR-101\nSHOP-20: linked\nSHOP-21: linked"
        assert said["response_type"] == "in_channel"
        said = await self.dispatch(slack, client, "101 SHOP-21 SHOP-9999")
        assert said["text"].startswith("101\nSHOP-21: already linked\nSHOP-9999: Not linked: cannot get case")
        assert len(sandbox.links) == before + 2

    @pytest.mark.parametrize("text", ["", "IR-101"])
    async def test_explains_itself(self, slack: Slack, client: CaseLinksClient, text: str) -> None:
        """A command without cases gets the usage as its reply."""
        assert (await self.dispatch(slack, client, text))["text"] == slack_incident.USAGE

    async def test_an_invalid_text_links_nothing(self, slack: Slack, client: CaseLinksClient) -> None:
        """Only the person who sent the command sees what is wrong with it."""
        said = await self.dispatch(slack, client, "IR-101 SHOP-20 what?")
        assert said["text"].startswith("Not linked: 'what?' does not name an entity")
        assert "response_type" not in said

    async def test_runs_in_socket_mode(self, slack: Slack, sandbox: Sandbox) -> None:
        """The program connects with both commands, and ends on SIGTERM."""
        tokens = {"SLACK_BOT_TOKEN": "xoxb-1", "SLACK_APP_TOKEN": "xapp-1"}
        async with running(sandbox, "slack_incident.py", SLACK_API_URL=slack.api_url, **tokens) as process:
            await slack.send("SHOP-1 blocks SHOP-2")
            assert (await slack.heard())["text"].startswith("Linked: SHOP-1")
            process.terminate()
            await ended(process)


class TestAwsToken:
    @pytest.fixture
    def role(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The credentials of a role, as AWS Lambda sets them."""
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            monkeypatch.setenv(name, f"some-{name}")

    @pytest.fixture
    async def asked(self, sandbox: Sandbox) -> AsyncIterator[tuple[Site, list[str]]]:
        """A stand-in for the endpoint of tokens, and the credentials of each request to it.

        An aiohttp server would not do: datadog-api-client sends a body of two bytes with the length 0.
        """
        seen: list[str] = []

        async def issue(exchange: Exchange) -> None:
            seconds = 900 if seen else 30  # the first token expires too soon to be used twice
            seen.append(exchange.seen.headers["Authorization"])
            attributes = {
                "access_token": sandbox.bearer_token.token,
                "expires": str(int(datetime.now().timestamp()) + seconds),
            }
            await exchange.answer(200, json.dumps({"data": {"attributes": attributes}}).encode())

        async with Server(issue) as server:
            yield Site("tokens", server.url), seen

    @pytest.mark.usefixtures("role")
    async def test_the_client_uses_a_token_until_shortly_before_it_expires(
        self, sandbox: Sandbox, asked: tuple[Site, list[str]]
    ) -> None:
        """A token with half a minute left is replaced, and one with 15 minutes left is kept."""
        site, seen = asked
        token = aws_token.AwsToken(site, str(uuid4()), AWSAuth)
        async with CaseLinksClient(sandbox.site, BearerToken(token)) as client:
            for _ in range(4):
                await client.list_links(case("SHOP-1"))
        assert len(seen) == 2
        assert all(header.startswith("Delegated ") for header in seen)

    async def test_a_missing_role_is_a_configuration_error(
        self, sandbox: Sandbox, asked: tuple[Site, list[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without AWS credentials, nothing is sent to Datadog."""
        monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
        token = aws_token.AwsToken(asked[0], str(uuid4()), AWSAuth)
        async with CaseLinksClient(sandbox.site, BearerToken(token)) as client:
            with pytest.raises(ConfigurationError):
                await client.list_links(case("SHOP-1"))
        assert not sandbox.requests
        assert not asked[1]

    async def test_the_program_lists_links(
        self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The program uses the site and the organisation of the environment."""
        async with CaseLinksClient(sandbox.site, sandbox.credentials) as client:
            link = await client.create_link(case("SHOP-1").blocks(case("SHOP-2")))

        def token_of(site: Site, organisation: str) -> Any:
            assert (site.api_url, organisation) == (sandbox.url, "an-organisation")

            async def current() -> str:
                return str(sandbox.bearer_token.token)

            return current

        monkeypatch.setattr(aws_token, "AwsToken", token_of)
        monkeypatch.setenv("DD_SITE", sandbox.url)
        monkeypatch.setenv("DD_ORG_UUID", "an-organisation")
        await aws_token.main("SHOP-1")
        assert link.id in capsys.readouterr().out
